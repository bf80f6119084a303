"""The engine for a model that runs elsewhere: `/v1/completions` of a vLLM server, or of one that answers alike."""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_exponential_jitter,
)
from transformers import AutoConfig

from rmkit.engines import Query
from rmkit.errors import JudgeError

API_KEY_VARIABLE = "RMKIT_API_KEY"
"""Environment variable with the key that is sent to the server; none is sent where it is not set."""

TOKEN_IDS_PER_REQUEST = 128
"""Most tokens that vLLM gives log-probabilities of by id in one request; larger scales take several."""

_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_LONGEST_WAIT = 60.0  # seconds between two tries, whatever the server asks for
_NO_PROBABILITY = -9999.0  # what servers write for minus infinity, which JSON lacks
_MOST_PROBABILITY = 1.01  # of distinct tokens together; with room for rounding
_ID_PREFIX = "token_id:"


class _TryAgain(Exception):
    """The server may answer if it is asked again, after `seconds` where it said so."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class HttpEngine:
    """Asks a server for the log-probabilities of the tokens that are asked about.

    A query is a completion of one token after token ids, with `logprob_token_ids`. The server must answer with the
    natural log-probability of every one of them, by id, of the model's own distribution over its whole vocabulary;
    else there is a `JudgeError`: nothing is ever normalised over what came back.

    Args:
        path: Folder or hub id of the judge that the server runs. Only its config is read, not its weights.
        url: Address of the server, with or without `/v1`.
        model: Name by which the server knows the judge; by default the only model that it serves.
        max_length: Most tokens of a sequence; never more than the server takes.
        concurrency: Requests that wait for the server at a time.
        timeout: Seconds to wait for an answer.
        retries: How often a request is repeated that met no server or one that is overloaded, with growing waits.

    Raises:
        JudgeError: If there is no such server, it does not serve the model, or the model has no config.
    """

    name = "http"
    merges_prefixes = False

    def __init__(
        self,
        path: str,
        url: str,
        model: str | None = None,
        max_length: int | None = None,
        concurrency: int = 32,
        timeout: float = 300.0,
        retries: int = 5,
    ) -> None:
        self.url = _read_url(url)
        self._retries = retries
        self._concurrency = concurrency
        self._stopped = threading.Event()
        key = os.environ.get(API_KEY_VARIABLE)
        self._client = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout, connect=10.0),
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
        )
        weakref.finalize(self, self._client.close)
        try:
            config = AutoConfig.from_pretrained(path, trust_remote_code=False).get_text_config()
        except (OSError, ValueError) as error:
            raise JudgeError(f"{path}: its config can't be loaded: {error}") from error
        self.vocab_size = int(config.vocab_size)
        self.model, served_length = self._find_model(model)
        limits = [max_length, served_length, getattr(config, "max_position_embeddings", None)]
        self.max_length = min((int(limit) for limit in limits if limit), default=2**31)

    def _find_model(self, name: str | None) -> tuple[str, int | None]:
        answer = self._send("GET", "/models")
        try:
            served = {str(card["id"]): card.get("max_model_len") for card in answer["data"]}
        except (KeyError, TypeError, AttributeError) as error:
            raise JudgeError(f"{self.url}: /models gave no list of models; is it an OpenAI-like server?") from error
        if name is None and len(served) != 1:
            raise JudgeError(f"{self.url} serves {sorted(served)}; say which of them is the judge (--served-model)")
        name = name or next(iter(served))
        if name not in served:
            raise JudgeError(f"{self.url} does not serve {name!r} but {sorted(served)}")
        return name, served[name]

    def logprobs(self, queries: Sequence[Query]) -> list[np.ndarray]:
        """See `Engine.logprobs`."""
        asked = [
            (query.prefix, query.token_ids[first : first + TOKEN_IDS_PER_REQUEST])
            for query in queries
            for first in range(0, len(query.token_ids), TOKEN_IDS_PER_REQUEST)
        ]
        self._stopped.clear()
        with ThreadPoolExecutor(self._concurrency, "http") as pool:
            futures = [pool.submit(self._ask, *item) for item in asked]
            try:
                parts = iter([future.result() for future in futures])
            except BaseException:
                self._stopped.set()  # requests that wait for another try give up
                pool.shutdown(cancel_futures=True)
                raise
        return [
            np.concatenate([next(parts) for _ in range(0, len(query.token_ids), TOKEN_IDS_PER_REQUEST)])
            for query in queries
        ]

    def _ask(self, prefix: tuple[int, ...], token_ids: tuple[int, ...]) -> np.ndarray:
        answer = self._send(
            "POST",
            "/completions",
            {
                "model": self.model,
                "prompt": list(prefix),
                "max_tokens": 1,
                "temperature": 0.0,
                "logprobs": len(token_ids),
                "logprob_token_ids": list(token_ids),
                "return_tokens_as_token_ids": True,
            },
        )
        try:
            found = dict(answer["choices"][0]["logprobs"]["top_logprobs"][0])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise JudgeError(f"{self.url} gave no log-probabilities; rmkit needs a server that does") from error
        if not all(str(token).startswith(_ID_PREFIX) for token in found):
            raise JudgeError(
                f"{self.url} names tokens by text ({list(found)[:4]}), which can stand for several tokens; rmkit "
                "needs a server that knows return_tokens_as_token_ids, such as vLLM"
            )
        missing = [token for token in token_ids if f"{_ID_PREFIX}{token}" not in found]
        if missing:
            raise JudgeError(
                f"{self.url} gave no log-probability for {len(missing)} of {len(token_ids)} score tokens, such as "
                f"{missing[0]}; rmkit needs a server that knows logprob_token_ids, such as vLLM 0.22 or newer"
            )
        logprobs = np.array([_read_logprob(found[f"{_ID_PREFIX}{token}"]) for token in token_ids])
        if np.exp(logprobs).sum() > _MOST_PROBABILITY:
            raise JudgeError(f"{self.url} gave numbers that are no log-probabilities: {logprobs[:8]}")
        return logprobs

    def _send(self, method: str, path: str, data: dict[str, Any] | None = None) -> Any:
        """One request, repeated where that may help; returns the answer's JSON."""
        attempts = Retrying(
            retry=retry_if_exception_type(_TryAgain),
            stop=stop_after_attempt(self._retries + 1) | stop_when_event_set(self._stopped),
            wait=_wait,
            sleep=sleep_using_event(self._stopped),
            reraise=True,
        )
        try:
            return attempts(self._send_once, method, path, data)
        except _TryAgain as error:
            raise JudgeError(
                f"{self.url}{path}: no answer after {attempts.statistics['attempt_number']} tries: {error}; see that "
                "the server runs, then give the same command again"
            ) from error

    def _send_once(self, method: str, path: str, data: dict[str, Any] | None) -> Any:
        try:
            response = self._client.request(method, path, json=data)
        except httpx.TransportError as error:
            raise _TryAgain(f"{type(error).__name__} {error}".strip()) from error
        if response.status_code in _TRY_AGAIN:
            raise _TryAgain(_describe(response), _read_seconds(response.headers.get("retry-after")))
        if response.status_code in (401, 403):
            raise JudgeError(f"{self.url}{path}: {_describe(response)}; set {API_KEY_VARIABLE} to the server's key")
        if response.status_code != 200:
            raise JudgeError(f"{self.url}{path}: {_describe(response)}")
        try:
            return response.json()
        except ValueError as error:
            raise JudgeError(f"{self.url}{path}: the answer is no JSON but {response.text[:80]!r}") from error


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


def _read_logprob(value: Any) -> float:
    """A log-probability; NaN for null, which is what NaN becomes in JSON."""
    number = float("nan") if value is None else float(value)
    return -math.inf if number <= _NO_PROBABILITY else number


def _read_url(url: str) -> str:
    """The address of the `/v1` of a server.

    Raises:
        JudgeError: If it is no http address, or holds a password, which would end up in messages.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise JudgeError(f"--url {url!r} is no address: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise JudgeError(f"--url {url!r} is no address of a server; expected http://HOST:PORT")
    if parsed.userinfo:
        raise JudgeError(f"--url holds a password; leave it out and set {API_KEY_VARIABLE} instead")
    address = str(parsed).rstrip("/")
    return address if address.endswith("/v1") else f"{address}/v1"


def _describe(response: httpx.Response) -> str:
    return f"status {response.status_code}, {' '.join(response.text.split())[:300]!r}"
