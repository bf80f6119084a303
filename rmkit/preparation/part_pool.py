"""Making parts on several processes, and reusing those that an interrupted run has finished."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from rmkit.errors import DataError
from rmkit.preparation.part import ChunkPlace, PartFile, PartMaker, PartPlan, find_part
from rmkit.raw.chunks import RawChunk

_FEW = 4  # parts that are made sooner than other processes start


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class PartJob:
    """A part to be made.

    Args:
        plan: Number of its plan.
        chunk: The raw records.
        place: Where they stand.
        path: The part's file.
        key: What determines the part.
    """

    plan: int
    chunk: RawChunk
    place: ChunkPlace
    path: Path
    key: str


@dataclass(slots=True)
class _Task:
    job: PartJob
    state: PartFile | Future[PartFile] | None  # finished, under way, or not begun


class PartPool:
    """Makes parts in their order, as many at once as there are workers.

    Args:
        plans: Plans that jobs name by their number.
        workers: Processes; 1 makes all parts in this one. Others are started afresh ("spawn"), which is safe whatever
            threads this one has, and only if there is enough to do.
    """

    def __init__(self, plans: Sequence[PartPlan], workers: int) -> None:
        self._plans = tuple(plans)
        self._workers = workers
        self._executor: ProcessPoolExecutor | None = None
        self._makers: dict[int, PartMaker] = {}

    def __enter__(self) -> PartPool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def maker(self, plan: int) -> PartMaker:
        """Makes parts in this process by the plan with this number."""
        if plan not in self._makers:
            self._makers[plan] = PartMaker(self._plans[plan])
        return self._makers[plan]

    def run(self, jobs: Iterable[PartJob]) -> Iterator[tuple[PartJob, PartFile]]:
        """Each job with its finished part, in order. Jobs are taken no sooner than the workers need them.

        Raises:
            DataError: If a worker was killed.
        """
        ahead = 0 if self._workers == 1 else 2 * self._workers + _FEW
        tasks: deque[_Task] = deque()
        for job in jobs:
            tasks.append(_Task(job, find_part(job.path, job.key)))
            self._hand_out(tasks)
            if len(tasks) > ahead:
                yield self._finish(tasks.popleft())
        while tasks:
            yield self._finish(tasks.popleft())

    def _hand_out(self, tasks: Iterable[_Task]) -> None:
        open_tasks = [task for task in tasks if task.state is None]
        if self._workers == 1 or (self._executor is None and len(open_tasks) <= _FEW):
            return
        if self._executor is None:
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(self._workers, context, _start_worker, (self._plans,))
        # Workers, which are started here, must not hear of Ctrl-C before they ignore it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for task in open_tasks:
                task.state = self._executor.submit(_make_in_worker, task.job)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _finish(self, task: _Task) -> tuple[PartJob, PartFile]:
        job, state = task.job, task.state
        if isinstance(state, PartFile):
            return job, state
        if state is None:
            return job, _make(self.maker(job.plan), job)
        try:
            return job, state.result()
        except BrokenProcessPool as error:
            raise DataError(
                "a worker process was killed, perhaps for want of memory; try fewer workers. Finished parts are kept: "
                "the same command goes on from there"
            ) from error


def _make(maker: PartMaker, job: PartJob) -> PartFile:
    return maker.make(job.chunk, job.place).save(job.path, job.key)


_worker_makers: list[PartMaker] = []  # of a worker process; set once, when it starts


def _start_worker(plans: Sequence[PartPlan]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process stops the others
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the workers are the parallelism
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker_makers[:] = [PartMaker(plan) for plan in plans]


def _end_with_parent() -> None:
    """End when the first process was killed, which would otherwise leave this one waiting for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make_in_worker(job: PartJob) -> PartFile:
    return _make(_worker_makers[job.plan], job)
