"""The server's endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from rmkit import __version__
from rmkit.errors import DataError, RubricError
from rmkit.judge import Judge, compare
from rmkit.rubric import Rubric
from rmkit.schema import JudgeItem, Judgment
from rmkit.scores import centre
from rmkit.server import bodies
from rmkit.server.dispatcher import ClosedError, Dispatcher, EngineError, QueueFullError
from rmkit.server.guard import guarded_route
from rmkit.server.metrics import Metrics

MOST_SCORES = 1024
"""Legal scores that a request's own rubric may have together, unless the judge's has more."""

_CLOSE = {"Connection": "close"}

_DESCRIPTION = """\
A generative reward model. Each response gets, for each attribute of the rubric, the exact distribution over its
scores, and one aggregate. **A response that can't be judged gets an `error` and no number**; a request that can't be
answered gets a status from 400 on and a `detail` that says why.

`/score` and `/compare` are what `rmkit.client.JudgeClient` speaks; `/get_reward` is OpenRLHF's protocol.
"""

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": bodies.ErrorAnswer, "description": text}
    for status, text in {
        401: "The key is missing or wrong",
        413: "Too many items, or too long a body",
        415: "The body does not say that it is JSON",
        422: "The body is not what it should be; says where",
        429: "The queue is full; `Retry-After` says when to ask again",
        503: "The server is stopping, or its engine broke down",
    }.items()
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server takes.

    Args:
        queue_items: Items that may wait or be judged at a time, of all requests together.
        request_items: Items of one request; a pair counts twice.
        request_bytes: Bytes of one request's body.
    """

    queue_items: int = 2048
    request_items: int = 256
    request_bytes: int = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Identity:
    """What the server says of its judge.

    Args:
        judge: Its name.
        judge_sha256: What tells it from every other.
        versions: Of the packages that make the numbers.
    """

    judge: str
    judge_sha256: str
    versions: Mapping[str, str]


class JudgeService:
    """Answers requests by a judge.

    Args:
        judge: The judge; only the dispatcher scores with it.
        dispatcher: Judges what it is given.
        limits: What a request may ask for.
        identity: What is said of the judge.
        metrics: Where judgements are counted.
    """

    def __init__(
        self, judge: Judge, dispatcher: Dispatcher, limits: Limits, identity: Identity, metrics: Metrics
    ) -> None:
        self._dispatcher = dispatcher
        self._limits = limits
        self._identity = identity
        self._metrics = metrics
        self._rubric = judge.rubric
        self._figures = {
            "engine": judge.engine.name,
            "mode": judge.mode,
            "readout": judge.readout,
            "max_length": judge.max_length,
        }
        self._most_scores = max(MOST_SCORES, _count_scores(judge.rubric))
        added = judge.encoder.prompts.tokenizer.added_tokens_decoder.values()
        self._special = tuple(token.content for token in added if token.special and token.content.strip())

    async def score(self, request: Request, body: bodies.ScoreBody) -> Response:
        """Judge responses: P(score) for each attribute, its mean, and the aggregate of all."""
        self._check_count(len(body.items), "items")
        judgments = await self._judge(request, [self._read(item.model_dump(exclude_none=True)) for item in body.items])
        return _answer({"judgments": [judgment.to_dict() for judgment in judgments]})

    async def compare(self, request: Request, body: bodies.CompareBody) -> Response:
        """Compare two responses to each conversation, by the judge's own rubric."""
        self._check_count(2 * len(body.pairs), "responses")
        items = [
            self._read({"conversation": pair["conversation"], "response": pair[side]})
            for pair in (pair.model_dump(exclude_none=True) for pair in body.pairs)
            for side in ("first", "second")
        ]
        judged = await self._judge(request, items)
        found = [
            compare(self._rubric, *pair, tolerance=body.tolerance)
            for pair in zip(judged[::2], judged[1::2], strict=True)
        ]
        return _answer({"comparisons": [comparison.to_dict() for comparison in found]})

    async def get_reward(self, request: Request, body: bodies.RewardBody) -> Response:
        """Rewards in OpenRLHF's remote reward protocol.

        The response is what stands behind the prompt in each query, without special tokens of the judge's tokenizer
        at its end. If one can't be judged, the status is 503 and `failed` says which and why: no row gets a number.
        """
        self._check_count(len(body.query), "queries")
        if len(body.query) != len(body.prompts):
            raise HTTPException(422, f"{len(body.query)} queries and {len(body.prompts)} prompts; send one for each")
        items = [
            self._read({"conversation": prompt, "response": self._response(index, query, prompt)})
            for index, (query, prompt) in enumerate(zip(body.query, body.prompts, strict=True))
        ]
        judgments = await self._judge(request, items)
        failed = [{"index": i, "error": j.error} for i, j in enumerate(judgments) if j.aggregate is None]
        if failed:
            where = [row["index"] for row in failed]
            return _answer({"detail": f"{len(failed)} rows can't be judged: {where}", "failed": failed}, 503)
        scores = [judgment.aggregate for judgment in judgments if judgment.aggregate is not None]
        means = {key: [judgment.attributes[key].mean for judgment in judgments] for key in self._rubric.keys}
        return _answer(
            {"rewards": [centre(self._rubric, score) for score in scores], "scores": scores, "extra_logs": means}
        )

    async def health(self) -> Response:
        """Which judge this is, what it takes, and whether it works; 503 if not."""
        status = "stopping" if self._dispatcher.closed else self._dispatcher.failure or "ok"
        found = {
            "status": status,
            "judge": self._identity.judge,
            "judge_sha256": self._identity.judge_sha256,
            **self._figures,
            "rubric": self._rubric.to_dict(),
            "limits": asdict(self._limits),
            "open_items": self._dispatcher.open_items,
            "versions": dict(self._identity.versions),
        }
        return _answer(found, 200 if status == "ok" else 503)

    async def metrics(self) -> Response:
        """Counters in Prometheus's text form."""
        return Response(self._metrics.render(), media_type="text/plain; version=0.0.4")

    def _check_count(self, count: int, what: str) -> None:
        most = self._limits.request_items
        if count > most:
            raise HTTPException(
                413, f"{count:,} {what} in one request, and it may have {most:,}; send them in several"
            )

    def _read(self, data: Mapping[str, Any]) -> JudgeItem | Judgment:
        """The item, or a failed judgement for one that can't be judged."""
        try:
            item = JudgeItem.from_dict(data)
            if item.rubric is not None and _count_scores(item.rubric) > self._most_scores:
                raise RubricError(
                    f"the rubric has {_count_scores(item.rubric):,} scores, and a request's own may have "
                    f"{self._most_scores:,}; use coarser scales"
                )
        except (DataError, RubricError) as error:
            return Judgment({}, None, error=f"{type(error).__name__}: {error}")
        except RecursionError as error:
            raise HTTPException(422, "a message is nested too deeply") from error
        return item

    def _response(self, index: int, query: str, prompt: str) -> str:
        start = query.find(prompt)
        if start < 0:
            raise HTTPException(422, f"query[{index}] does not hold prompts[{index}], so its response can't be told")
        response = query[start + len(prompt) :]
        while ended := next((token for token in self._special if response.endswith(token)), None):
            response = response.removesuffix(ended).rstrip()
        return response

    async def _judge(self, request: Request, items: Sequence[JudgeItem | Judgment]) -> list[Judgment]:
        """Have items judged, unless the client leaves meanwhile: then those whose turn has not come are left out."""
        try:
            futures = self._dispatcher.submit([item for item in items if isinstance(item, JudgeItem)])
        except QueueFullError as error:
            raise HTTPException(429, str(error), {"Retry-After": str(error.seconds)}) from error
        except ClosedError as error:
            raise HTTPException(503, str(error), {"Retry-After": "1", **_CLOSE}) from error
        self._metrics.count_accepted(len(futures))
        judging = asyncio.ensure_future(asyncio.gather(*map(asyncio.wrap_future, futures)))
        leaving = asyncio.ensure_future(_wait_for_leave(request))
        try:
            await asyncio.wait((judging, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not judging.done():
                judging.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody else asks
                raise HTTPException(499, "the client has left")
            judged = iter(judging.result())
        except EngineError as error:
            raise HTTPException(503, str(error)) from error
        finally:
            judging.cancel()
            leaving.cancel()
        judgments = [item if isinstance(item, Judgment) else next(judged) for item in items]
        self._metrics.count_judgments(judgments)
        return judgments


async def _wait_for_leave(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _count_scores(rubric: Rubric) -> int:
    return sum(len(attribute.values) for attribute in rubric.attributes)


def _answer(data: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(data), status, media_type="application/json")


def create_app(
    judge: Judge, dispatcher: Dispatcher, limits: Limits, identity: Identity, metrics: Metrics, key: str | None = None
) -> FastAPI:
    """The application.

    Args:
        judge: See `JudgeService`, as the next four.
        dispatcher: Judges what it is given.
        limits: What a request may ask for.
        identity: What is said of the judge.
        metrics: Where requests and judgements are counted.
        key: What requests must bring, or None.
    """
    service = JudgeService(judge, dispatcher, limits, identity, metrics)
    router = APIRouter(route_class=guarded_route(key, limits.request_bytes, metrics))
    posts: tuple[tuple[Any, type[BaseModel], type[BaseModel]], ...] = (
        (service.score, bodies.ScoreAnswer, bodies.ErrorAnswer),
        (service.compare, bodies.CompareAnswer, bodies.ErrorAnswer),
        (service.get_reward, bodies.RewardAnswer, bodies.RewardErrorAnswer),
    )
    for endpoint, answer, failure in posts:
        errors: dict[int | str, dict[str, Any]] = {
            **_ERRORS,
            400: {"model": bodies.ErrorAnswer},
            503: {**_ERRORS[503], "model": failure},
        }
        router.add_api_route(
            f"/{endpoint.__name__}", endpoint, methods=["POST"], response_model=answer, responses=errors
        )
    unauthorised: dict[int | str, dict[str, Any]] = {401: _ERRORS[401]}
    router.add_api_route(
        "/health",
        service.health,
        methods=["GET"],
        response_model=bodies.HealthAnswer,
        responses={**unauthorised, 503: {"model": bodies.HealthAnswer}},
    )
    router.add_api_route(
        "/metrics",
        service.metrics,
        methods=["GET"],
        response_class=Response,
        responses={**unauthorised, 200: {"content": {"text/plain": {}}}},
    )
    app = FastAPI(title="rmkit judge server", version=__version__, description=_DESCRIPTION)
    app.include_router(router)
    app.add_exception_handler(RequestValidationError, _explain)
    return app


async def _explain(_request: Request, error: Exception) -> Response:
    """Say where the body is wrong, without repeating what was sent."""
    assert isinstance(error, RequestValidationError)
    return _answer({"detail": "; ".join(_describe(item)[:300] for item in error.errors()[:5])}, 422)


def _describe(error: Mapping[str, Any]) -> str:
    place = ".".join(map(str, error["loc"]))
    if error["type"] == "json_invalid":
        return f"the body is no JSON: {error['ctx']['error']} at byte {error['loc'][-1]}"
    return f"{place}: {error['msg']}"
