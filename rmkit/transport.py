"""Requests to a server over HTTP: its address, its key, and what happens when it is busy, silent or gone."""

from __future__ import annotations

import asyncio
import functools
import math
import os
import ssl
import threading
import weakref
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_exponential_jitter,
)

from rmkit.errors import JudgeError

API_KEY_VARIABLE = "RMKIT_API_KEY"
"""Environment variable with the key that is sent to the server; none is sent where it is not set."""

_GONE = "see that the server runs"
_BUSY = "let it take more at a time, or ask with less concurrency"
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_LONGEST_WAIT = 60.0  # seconds between two tries, whatever the server asks for
_CONNECT_SECONDS = 10.0

Read = TypeVar("Read")


class _TryAgain(Exception):
    """The server may answer if it is asked again, after `seconds` where it said so; `advice` if it never does."""

    def __init__(self, reason: str, seconds: float | None = None, advice: str = _GONE) -> None:
        super().__init__(reason)
        self.seconds = seconds
        self.advice = advice


class Transport:
    """Sends requests to one server, several at a time, and repeats those that met no server or a busy one.

    It can be pickled and copied: connections are made on first use, in the process that uses them, and the key is
    read then.

    Args:
        url: Address that paths are added to.
        timeout: Seconds to wait for an answer, above 0.
        retries: How often a request is repeated, with growing waits, or those that the server asks for.
        concurrency: Requests that wait for the server at a time.

    Raises:
        ValueError: For a timeout, number of retries or concurrency that makes no sense.
    """

    def __init__(self, url: str, timeout: float, retries: int, concurrency: int) -> None:
        if not timeout > 0 or retries < 0 or concurrency < 1:
            raise ValueError(
                f"timeout {timeout}, retries {retries}, concurrency {concurrency}: the timeout must be above 0, "
                "retries at least 0 and concurrency at least 1"
            )
        self.url = url
        self._timeout = timeout
        self._retries = retries
        self._concurrency = concurrency
        self._client: tuple[int, httpx.Client] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: all but the connections."""
        return {**self.__dict__, "_client": None}

    def send(
        self,
        method: str,
        path: str,
        data: Any = None,
        accept: Collection[int] = (200,),
        stopped: threading.Event | None = None,
    ) -> httpx.Response:
        """Send one request, again where that may help.

        Args:
            method: `GET` or `POST`.
            path: What is added to the address.
            data: Body, to be written as JSON.
            accept: Statuses of an answer that is handed back.
            stopped: When set, no further try is made.

        Raises:
            JudgeError: Naming the server, if it gives no answer or another one.
        """
        stopped = stopped or threading.Event()
        attempts = Retrying(
            retry=retry_if_exception_type(_TryAgain),
            stop=stop_after_attempt(self._retries + 1) | stop_when_event_set(stopped),
            wait=_wait,
            sleep=sleep_using_event(stopped),
            reraise=True,
        )
        try:
            return attempts(self._send_once, method, path, data, accept)
        except _TryAgain as error:
            raise self._give_up(path, attempts.statistics["attempt_number"], error) from error

    def post_all(
        self,
        path: str,
        bodies: Sequence[Any],
        read: Callable[[int, httpx.Response], Read],
        accept: Collection[int] = (200,),
    ) -> list[Read]:
        """Post bodies, several at a time, and read the answers.

        Args:
            path: What is added to the address.
            bodies: To be written as JSON.
            read: Reads the answer to the body of this index.
            accept: See `send`.

        Returns:
            What was read, in the order of the bodies. After a failure nothing more is sent.

        Raises:
            JudgeError: See `send`; what `read` raises.
        """
        stopped = threading.Event()

        def ask(index: int, body: Any) -> Read:
            return read(index, self.send("POST", path, body, accept, stopped))

        with ThreadPoolExecutor(self._concurrency, "http") as pool:
            futures = [pool.submit(ask, *item) for item in enumerate(bodies)]
            try:
                return [future.result() for future in futures]
            except BaseException:
                stopped.set()  # requests that wait for another try give up
                pool.shutdown(cancel_futures=True)
                raise

    async def apost_all(
        self,
        path: str,
        bodies: Sequence[Any],
        read: Callable[[int, httpx.Response], Read],
        accept: Collection[int] = (200,),
    ) -> list[Read]:
        """`post_all` for an event loop; its connections last as long as the call."""
        places = asyncio.Semaphore(self._concurrency)
        async with httpx.AsyncClient(**self._client_options()) as client:

            async def ask(index: int, body: Any) -> Read:
                async with places:
                    return read(index, await self._asend(client, "POST", path, body, accept))

            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(ask(index, body)) for index, body in enumerate(bodies)]
            except BaseExceptionGroup as errors:
                first = errors.exceptions[0]
                raise first from first.__cause__
        return [task.result() for task in tasks]

    async def _asend(
        self, client: httpx.AsyncClient, method: str, path: str, data: Any, accept: Collection[int]
    ) -> httpx.Response:
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(_TryAgain),
            stop=stop_after_attempt(self._retries + 1),
            wait=_wait,
            reraise=True,
        )

        async def send_once() -> httpx.Response:
            try:
                response = await client.request(method, path, json=data)
            except httpx.RequestError as error:
                raise self._lose(error) from error
            return self._check(path, response, accept)

        try:
            return await attempts(send_once)
        except _TryAgain as error:
            raise self._give_up(path, attempts.statistics["attempt_number"], error) from error

    def _send_once(self, method: str, path: str, data: Any, accept: Collection[int]) -> httpx.Response:
        try:
            response = self._connect().request(method, path, json=data)
        except httpx.RequestError as error:
            raise self._lose(error) from error
        return self._check(path, response, accept)

    def _check(self, path: str, response: httpx.Response, accept: Collection[int]) -> httpx.Response:
        if response.status_code in accept:
            return response
        if response.status_code in _TRY_AGAIN:
            seconds = _read_seconds(response.headers.get("retry-after"))
            raise _TryAgain(_describe(response), seconds, _BUSY if response.status_code == 429 else _GONE)
        advice = f"; set {API_KEY_VARIABLE} to the server's key" if response.status_code in (401, 403) else ""
        raise JudgeError(f"{self.url}{path}: {_describe(response)}{advice}")

    def _lose(self, error: httpx.RequestError) -> _TryAgain:
        reason = f"{type(error).__name__} {error}".strip()
        if isinstance(error, httpx.ReadTimeout):
            return _TryAgain(reason, advice=f"{_GONE}, or wait longer than {self._timeout:g} s (timeout)")
        return _TryAgain(reason)

    def _give_up(self, path: str, tries: int, error: _TryAgain) -> JudgeError:
        return JudgeError(
            f"{self.url}{path}: no answer after {tries} tries: {error}; {error.advice}, then give the same command "
            "again"
        )

    def _connect(self) -> httpx.Client:
        """The connections of this process: those that a fork copied belong to its parent."""
        if self._client is None or self._client[0] != os.getpid():
            client = httpx.Client(**self._client_options())
            weakref.finalize(self, client.close)
            self._client = os.getpid(), client
        return self._client[1]

    def _client_options(self) -> dict[str, Any]:
        key = os.environ.get(API_KEY_VARIABLE)
        if key and not (key.isascii() and key.isprintable() and key == key.strip()):
            raise JudgeError(f"{API_KEY_VARIABLE} holds a line break, a space at an end or a character beyond ASCII")
        return {
            "base_url": self.url,
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            "timeout": httpx.Timeout(self._timeout, connect=min(self._timeout, _CONNECT_SECONDS), pool=None),
            "verify": _certificates(),
            "limits": httpx.Limits(max_connections=self._concurrency, max_keepalive_connections=self._concurrency),
        }


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust; read once, for that takes longer than a request."""
    return httpx.create_ssl_context()


def read_url(url: str) -> str:
    """The address of a server, without a slash at its end.

    Raises:
        JudgeError: If it is no http address, or holds a password, which would end up in messages.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise JudgeError(f"{url!r} is no address: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise JudgeError(f"{url!r} is no address of a server; expected http://HOST:PORT")
    if parsed.userinfo:
        raise JudgeError(
            f"the address of {parsed.host} holds a password; leave it out and set {API_KEY_VARIABLE} instead"
        )
    return str(parsed).rstrip("/")


def read_json(where: str, response: httpx.Response) -> Any:
    """The JSON of an answer.

    Args:
        where: Address of what answered, for messages.
        response: The answer.

    Raises:
        JudgeError: If it is none.
    """
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        raise JudgeError(f"{where}: the answer is no JSON but {response.text[:80]!r}") from error


def _wait(state: RetryCallState) -> float:
    """Seconds until the next try: what the server asked for, or ever longer."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _TryAgain) and error.seconds is not None:
        return min(error.seconds, _LONGEST_WAIT)
    return wait_exponential_jitter(multiplier=0.5, max=_LONGEST_WAIT)(state)


def _read_seconds(text: str | None) -> float | None:
    try:
        seconds = float(text or "")
    except ValueError:  # a date is allowed too; no server that we know sends one
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _describe(response: httpx.Response) -> str:
    return f"status {response.status_code}, {' '.join(response.text.split())[:300]!r}"
