"""The queue before the judge, with an engine that can be held up and broken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from rmkit.engines import Query
from rmkit.judge import Judge
from rmkit.schema import JudgeItem, Judgment, Message
from rmkit.server.app import Identity, Limits, create_app
from rmkit.server.dispatcher import ClosedError, Dispatcher, EngineError, QueueFullError
from rmkit.server.metrics import Metrics


class HeldEngine:
    """The judge's engine, which waits while it is held, and raises what it is told to."""

    name = "held"
    merges_prefixes = True

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.max_length, self.vocab_size = engine.max_length, engine.vocab_size
        self.free = threading.Event()
        self.free.set()
        self.begun = threading.Event()
        self.error: BaseException | None = None

    def logprobs(self, queries: Sequence[Query]) -> list[np.ndarray]:
        self.begun.set()
        assert self.free.wait(60)
        if self.error is not None:
            raise self.error
        return self._engine.logprobs(queries)


@pytest.fixture
def engine(judge: Judge) -> HeldEngine:
    return HeldEngine(judge.engine)


@pytest.fixture
def held_judge(judge: Judge, engine: HeldEngine) -> Judge:
    return Judge(judge.encoder, engine)


@pytest.fixture
def dispatch(held_judge: Judge, engine: HeldEngine) -> Iterator[Callable[..., Dispatcher]]:
    """Makes a dispatcher, which is closed in the end."""
    made = []

    def make(**options: Any) -> Dispatcher:
        made.append(Dispatcher(held_judge, **{"most_open": 100, "batch_items": 8, **options}))
        return made[-1]

    yield make
    engine.free.set()
    for dispatcher in made:
        dispatcher.close()


def item(text: str) -> JudgeItem:
    return JudgeItem((Message("user", "Hi"),), text)


def wait_for(futures: Sequence[Future[Judgment]]) -> list[Judgment]:
    return [future.result(60) for future in futures]


def test_what_comes_meanwhile_is_judged_together(
    dispatch: Callable[..., Dispatcher], engine: HeldEngine, judge: Judge
) -> None:
    batches: list[int] = []
    dispatcher = dispatch(watch_batch=batches.append)
    engine.free.clear()
    futures = dispatcher.submit([item("first")])
    assert engine.begun.wait(60)
    for number in range(12):  # as many clients
        futures += dispatcher.submit([item(f"text {number}")])
    assert dispatcher.open_items == 13
    engine.free.set()
    found = wait_for(futures)
    assert batches == [1, 8, 4]
    expected = judge.score(["Hi"] * 13, ["first", *(f"text {number}" for number in range(12))])
    for one, other in zip(found, expected, strict=True):
        assert one.aggregate == pytest.approx(other.aggregate, abs=1e-5)


def test_a_full_queue_takes_nothing_of_a_request(dispatch: Callable[..., Dispatcher], engine: HeldEngine) -> None:
    dispatcher = dispatch(most_open=3)
    engine.free.clear()
    futures = dispatcher.submit([item("a"), item("b")])
    with pytest.raises(QueueFullError, match="ask again in 1 s") as caught:
        dispatcher.submit([item("c"), item("d")])
    assert caught.value.seconds == 1
    futures += dispatcher.submit([item("c")])
    engine.free.set()
    assert all(judgment.error is None for judgment in wait_for(futures))
    assert wait_for(dispatcher.submit([item("d"), item("e"), item("f")]))[0].error is None


def test_what_is_cancelled_before_its_turn_makes_room_and_is_not_judged(
    dispatch: Callable[..., Dispatcher], engine: HeldEngine
) -> None:
    batches: list[int] = []
    dispatcher = dispatch(most_open=3, watch_batch=batches.append)
    engine.free.clear()
    [first] = dispatcher.submit([item("a")])
    assert engine.begun.wait(60)
    second, third = dispatcher.submit([item("b"), item("c")])
    assert second.cancel() and third.cancel() and not first.cancel()
    assert dispatcher.open_items == 1
    rest = dispatcher.submit([item("d"), item("e")])
    engine.free.set()
    assert all(judgment.error is None for judgment in wait_for([first, *rest]))
    assert batches == [1, 2]
    with pytest.raises(CancelledError):
        second.result(0)


def test_closing_finishes_what_was_taken(dispatch: Callable[..., Dispatcher], engine: HeldEngine) -> None:
    dispatcher = dispatch()
    engine.free.clear()
    futures = dispatcher.submit([item(f"text {number}") for number in range(20)])
    dispatcher.close()
    assert dispatcher.closed
    with pytest.raises(ClosedError, match="the server is stopping"):
        dispatcher.submit([item("late")])
    engine.free.set()
    assert all(judgment.error is None for judgment in wait_for(futures))
    deadline = time.monotonic() + 60
    while any(thread.name == "judge" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "the judge's thread did not end"
        time.sleep(0.01)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), BaseException("a panic")])
def test_an_engine_that_breaks_down_fails_what_it_had_and_goes_on(
    error: BaseException, dispatch: Callable[..., Dispatcher], engine: HeldEngine
) -> None:
    dispatcher = dispatch()
    engine.error = error
    for future in dispatcher.submit([item("a"), item("b")]):
        with pytest.raises(EngineError, match=f"the engine broke down: {type(error).__name__}: {error}"):
            future.result(60)
    assert dispatcher.failure == f"{type(error).__name__}: {error}"
    assert dispatcher.open_items == 0
    engine.error = None
    assert wait_for(dispatcher.submit([item("c")]))[0].error is None
    assert dispatcher.failure is None


def test_an_item_that_meets_a_mistake_of_ours_fails_alone(
    dispatch: Callable[..., Dispatcher], held_judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = held_judge.encoder.encode_prompt

    def fail_on_b(conversation: Any, response: str, *rest: Any) -> Any:
        if response == "b":
            raise RuntimeError("no tokens")
        return encode(conversation, response, *rest)

    monkeypatch.setattr(held_judge.encoder, "encode_prompt", fail_on_b)
    a, b, c = wait_for(dispatch().submit([item("a"), item("b"), item("c")]))
    assert (a.error, b.error, c.error) == (None, "RuntimeError: no tokens", None)
    assert b.aggregate is None and a.aggregate is not None


def test_requests_of_a_broken_engine_get_503_and_so_does_health(
    dispatch: Callable[..., Dispatcher], engine: HeldEngine, held_judge: Judge
) -> None:
    identity = Identity("held", "0" * 64, {})
    client = TestClient(create_app(held_judge, dispatch(), Limits(), identity, Metrics()))
    body = {"items": [{"conversation": "Hi", "response": "x"}]}
    assert client.post("/score", json=body).status_code == client.get("/health").status_code == 200
    engine.error = RuntimeError("out of memory")
    found = client.post("/score", json=body)
    assert found.status_code == 503
    assert found.json() == {"detail": "the engine broke down: RuntimeError: out of memory"}
    assert client.get("/health").status_code == 503
    assert client.get("/health").json()["status"] == "RuntimeError: out of memory"
    engine.error = None
    assert client.post("/score", json=body).status_code == client.get("/health").status_code == 200
