"""Judging on the workers of a Ray cluster, one copy of the judge in each, by Ray Data.

Ray starts a worker anew that dies, and gives its chunk to another; the chunks come back in their order.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rmkit.calibration import Calibration
from rmkit.errors import JudgeError
from rmkit.judge import Judge
from rmkit.rubric import Rubric
from rmkit.scoring.items import ScoreItem
from rmkit.scoring.run import judge_items

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported

import ray  # noqa: E402
import ray.data  # noqa: E402
from ray.exceptions import RayError  # noqa: E402


@dataclass(frozen=True, slots=True)
class RayJudge:
    """A judge whose copies run on a Ray cluster; see `rmkit.scoring.run.ChunkJudge`.

    Args:
        load: Loads one copy, in a worker.
        rubric: The judge's rubric.
        readout: The judge's read-out.
        workers: Number of copies.
        gpus: GPUs for each copy, where the cluster has any.
        address: The cluster: `auto` for the one that `ray start` made here, `HOST:PORT`, or `local` for one on this
            machine that ends with the process. By default `RAY_ADDRESS`, or one that runs here, or `local`.
    """

    load: Callable[[], Judge]
    rubric: Rubric
    readout: str
    workers: int
    gpus: int = 1
    address: str | None = None

    def judge_chunks(
        self, chunks: Iterable[list[ScoreItem]], calibration: Calibration | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """The records of each chunk, in order.

        Raises:
            JudgeError: If there is no such cluster, or the judge can't be loaded or run.
        """
        try:
            ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True)
        except (RayError, ConnectionError, ValueError) as error:
            raise JudgeError(f"the Ray cluster {self.address} can't be reached: {error}; see `ray status`") from error
        try:
            yield from self._judge_chunks(chunks, calibration)
        except RayError as error:
            reason = str(error).strip().splitlines()[-1]  # the error in the worker, below its own and Ray's frames
            raise JudgeError(f"a worker of the Ray cluster failed: {reason}") from error
        finally:
            ray.shutdown()

    def _judge_chunks(
        self, chunks: Iterable[list[ScoreItem]], calibration: Calibration | None
    ) -> Iterator[list[dict[str, Any]]]:
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = context.print_on_execution_start = False
        # One block for each chunk, in Ray's object store, which moves to disk what does not fit.
        blocks: list[Any] = [
            ray.put(pa.table({"chunk": [number], "items": [pickle.dumps(chunk)]}))
            for number, chunk in enumerate(chunks)
        ]
        if not blocks:
            return
        judged = ray.data.from_arrow_refs(blocks).map_batches(
            _Worker,
            fn_constructor_args=(self.load, calibration),
            compute=ray.data.ActorPoolStrategy(size=self.workers),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=1,
            num_gpus=self.gpus if ray.cluster_resources().get("GPU") else 0,
        )
        expected = 0
        batch: Any
        for batch in judged.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in batch.to_pylist():
                if row["chunk"] != expected:
                    raise JudgeError(
                        f"Ray gave chunk {row['chunk']} in the place of {expected}; give the command again"
                    )
                yield pickle.loads(row["records"])
                expected += 1
        if expected != len(blocks):
            raise JudgeError(f"Ray gave {expected} of {len(blocks)} chunks; give the same command again")


class _Worker:
    def __init__(self, load: Callable[[], Judge], calibration: Calibration | None) -> None:
        self._judge = load()
        self._calibration = calibration

    def __call__(self, batch: pa.Table) -> pa.Table:
        [row] = batch.to_pylist()
        records = judge_items(self._judge, pickle.loads(row["items"]), self._calibration)
        return pa.table({"chunk": [row["chunk"]], "records": [pickle.dumps(records)]})
