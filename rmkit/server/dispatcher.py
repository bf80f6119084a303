"""What waits for the judge: one thread runs it, and requests of all clients share its batches."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from rmkit.engines import ContinuousEngine, Query, Reading
from rmkit.judge import Judge, Judging
from rmkit.readout import read_all
from rmkit.schema import JudgeItem, Judgment

logger = logging.getLogger(__name__)

_LONGEST_WAIT = 30.0  # seconds that a client is asked to stay away
_PACE_OVER = 256  # judgements over which the pace is measured


class QueueFullError(Exception):
    """There is no place for more items now; there may be in `seconds`."""

    def __init__(self, places: int, seconds: int) -> None:
        super().__init__(f"the queue is full: it takes {places:,} responses (--max-queue); ask again in {seconds} s")
        self.seconds = seconds


class ClosedError(Exception):
    """The server stops, and takes no more items."""


class EngineError(Exception):
    """The engine broke down over items that it had taken."""


@dataclass(slots=True, eq=False)
class _Job:
    """An item that was taken, and what has become of it."""

    item: JudgeItem
    future: Future[Judgment]
    judging: Judging | None = None
    left: int = 0


@dataclass(frozen=True, slots=True)
class _WatchedReading:
    """A reading that tells when all of it is read."""

    reading: Reading
    end: Callable[[], None]

    def ask(self, ahead: bool) -> list[Query]:
        queries = self.reading.ask(ahead)
        if not queries:
            self.end()
        return queries

    def take(self, answers: Sequence[np.ndarray]) -> None:
        self.reading.take(answers)


class Dispatcher:
    """Judges items in a thread of its own: those that wait are judged together.

    An engine that can take up items while others are being judged does so at any of its steps. Any other gets what
    waits whenever it is done with what it had.

    Args:
        judge: The judge; from now on only the dispatcher's thread may score with it.
        most_open: Items that may wait or be judged at a time.
        batch_items: Items that the engine is given at a time.
        watch_batch: Is told how many they were.

    Attributes:
        failure: What the engine broke down with, or None once it has judged again.
    """

    def __init__(
        self, judge: Judge, most_open: int, batch_items: int, watch_batch: Callable[[int], None] = lambda count: None
    ) -> None:
        self._judge = judge
        self._most_open = most_open
        self._batch_items = batch_items
        self._watch_batch = watch_batch
        self._waiting: deque[_Job] = deque()
        self._begun: set[_Job] = set()
        self._changed = threading.Condition()
        self._open = 0
        self._closed = False
        self._ended: deque[float] = deque(maxlen=_PACE_OVER)
        self.failure: str | None = None
        threading.Thread(target=self._run, name="judge", daemon=True).start()

    @property
    def open_items(self) -> int:
        """Items that wait or are being judged."""
        return self._open

    @property
    def closed(self) -> bool:
        """Whether no more items are taken."""
        return self._closed

    def submit(self, items: Sequence[JudgeItem]) -> list[Future[Judgment]]:
        """Take items, all or none. A future that is cancelled before its item's turn is never judged.

        Returns:
            A future for each item, in order, which ends in a judgement or an `EngineError`.

        Raises:
            QueueFullError: If there is no place for all of them.
            ClosedError: After `close`.
        """
        jobs = [_Job(item, Future()) for item in items]
        with self._changed:
            if self._closed:
                raise ClosedError("the server is stopping and takes no more requests")
            if self._open + len(jobs) > self._most_open:
                raise QueueFullError(self._most_open, self._estimate_wait())
            self._open += len(jobs)
            self._waiting.extend(jobs)
            self._changed.notify()
        for job in jobs:
            job.future.add_done_callback(self._leave)
        return [job.future for job in jobs]

    def close(self) -> None:
        """Take no more items. Those that were taken are judged still, and then the thread ends."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _leave(self, future: Future[Judgment]) -> None:
        with self._changed:
            self._open -= 1
            if not future.cancelled():
                self._ended.append(time.monotonic())

    def _estimate_wait(self) -> int:
        """Seconds, at least 1, in which what is open will be judged at the pace of late."""
        pace = (self._ended[-1] - self._ended[0]) / (len(self._ended) - 1) if len(self._ended) > 1 else 0.0
        return math.ceil(min(max(pace * self._open, 1.0), _LONGEST_WAIT))

    def _run(self) -> None:
        while self._wait():
            engine = self._judge.engine
            reason = "it took the item and gave no answer"
            try:
                if isinstance(engine, ContinuousEngine):
                    engine.follow_arriving(self._begin_next)
                else:
                    read_all(engine, self._begin_next())
            except BaseException as error:  # whatever it is, who waits must get an answer; a panic is no Exception
                logger.exception("the engine broke down")
                self.failure = reason = f"{type(error).__name__}: {error}"
            for job in self._begun:
                job.future.set_exception(EngineError(f"the engine broke down: {reason}"))
            self._begun.clear()

    def _wait(self) -> bool:
        """Wait for items; whether there are any, or none will ever come."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return bool(self._waiting)

    def _begin_next(self) -> list[Reading]:
        """Readings of the items whose turn it is."""
        with self._changed:
            count = min(len(self._waiting), self._batch_items)
            jobs = [self._waiting.popleft() for _ in range(count)]
        jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
        if jobs:
            self._watch_batch(len(jobs))
        return [reading for job in jobs for reading in self._begin(job)]

    def _begin(self, job: _Job) -> list[Reading]:
        self._begun.add(job)
        item = job.item
        try:
            job.judging = self._judge.begin(item.conversation, item.response, item.reference, item.rubric)
        except BaseException as error:  # one item that meets a mistake of ours must not stop the others
            logger.exception("an item can't be judged")
            self._end(job, Judgment({}, None, error=f"{type(error).__name__}: {error}"))
            return []
        job.left = len(job.judging.readings)
        if not job.left:
            self._end(job, job.judging.judgment())
        return [_WatchedReading(reading, lambda: self._count_down(job)) for reading in job.judging.readings]

    def _count_down(self, job: _Job) -> None:
        job.left -= 1
        if job.left == 0 and job.judging is not None:
            self.failure = None
            self._end(job, job.judging.judgment())

    def _end(self, job: _Job, judgment: Judgment) -> None:
        self._begun.remove(job)
        job.future.set_result(judgment)
