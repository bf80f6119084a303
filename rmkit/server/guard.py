"""What a request passes before it is read: the key, the size of its body, and strict JSON."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from rmkit.server.metrics import Metrics

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class _BoundedRequest(Request):
    """A request whose body is no longer than `most_bytes`, and JSON without NaN, lone surrogates or endless depth."""

    most_bytes: int

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            announced = self.headers.get("content-length", "")
            if announced.isdigit() and int(announced) > self.most_bytes:
                raise self._too_long()
            chunks, length = [], 0
            async for chunk in self.stream():
                length += len(chunk)
                if length > self.most_bytes:
                    raise self._too_long()
                chunks.append(chunk)
            self._body = b"".join(chunks)
        return self._body

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = orjson.loads(await self.body())
        return self._json

    def _too_long(self) -> HTTPException:
        return HTTPException(
            413, f"the body is longer than {self.most_bytes:,} bytes; send fewer items, or shorter ones, at a time"
        )


def guarded_route(key: str | None, most_bytes: int, metrics: Metrics) -> type[APIRoute]:
    """The class of routes that ask for the key, bound the body and count requests.

    Args:
        key: The key that requests must bring, or None.
        most_bytes: Most bytes of a body.
        metrics: Where requests are counted.
    """

    class GuardedRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            handler = super().get_route_handler()

            async def handle(request: Request) -> Response:
                started, status = time.monotonic(), 500
                try:
                    _check_key(request, key)
                    _check_type(request)
                    bounded = _BoundedRequest(request.scope, request.receive)
                    bounded.most_bytes = most_bytes
                    response = await handler(bounded)
                    status = response.status_code
                    return response
                except RequestValidationError:
                    status = 422
                    raise
                except HTTPException as error:
                    status = error.status_code
                    raise
                finally:
                    metrics.count_request(self.path, status, time.monotonic() - started)

            return handle

    return GuardedRoute


def _check_key(request: Request, key: str | None) -> None:
    """Do nothing for a request that may pass; how long that takes tells nothing of the key."""
    if key is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    right = hmac.compare_digest(given.encode("latin-1"), key.encode())
    if scheme.lower() != "bearer" or not right:
        raise HTTPException(
            401,
            "the key is missing or wrong; send the header Authorization: Bearer KEY",
            {"WWW-Authenticate": "Bearer"},
        )


def _check_type(request: Request) -> None:
    """Do nothing for a request that says that its body is JSON, or has none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method == "POST" and kind != "application/json":
        raise HTTPException(415, f"the body is {kind or 'of no type'}; send the header Content-Type: application/json")
