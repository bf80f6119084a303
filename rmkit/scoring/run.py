"""Scoring a file: judge each response of it once, in its order, and go on where an earlier run stopped."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tqdm import tqdm

from rmkit import __version__
from rmkit.calibration import Calibration
from rmkit.errors import DataError
from rmkit.jsonl import read_jsonl
from rmkit.manifest import sha256_file
from rmkit.rubric import Rubric
from rmkit.schema import Judgment
from rmkit.scores import verdict
from rmkit.scoring.folder import ScoreFolder, to_record
from rmkit.scoring.items import SIDES, ItemKey, ScoreInput, ScoreItem

if TYPE_CHECKING:
    from rmkit.judge import Judge  # heavy, and a finished scoring is read without it

_LOG_SECONDS = 60.0


@runtime_checkable
class ChunkJudge(Protocol):
    """A judge that is given all chunks at once, because it runs in several processes."""

    @property
    def rubric(self) -> Rubric:
        """The rubric of responses that bring none of their own."""
        ...

    @property
    def readout(self) -> str:
        """Which figure of a distribution counts."""
        ...

    def judge_chunks(
        self, chunks: Iterable[list[ScoreItem]], calibration: Calibration | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """The records of each chunk, as `judge_items` gives them, in order."""
        ...


@dataclass(frozen=True, slots=True)
class ScoringSummary:
    """What a scoring folder holds.

    Args:
        folder: Where it lies.
        was_complete: Whether there was nothing left to do.
        records: Number of responses.
        errors: Number of responses without a judgement, by type of error.
        first_error: Id and reason of the first of them, or None.
        truncated: Number of responses judged without the oldest turns.
        means: Mean aggregate of each side, over the judged responses.
        outside_mass: Mean over their attributes, in [0, 1]; None where nothing is judged.
        accuracy: Share of pairs whose chosen side has the higher aggregate; ties count a half, and a pair with
            a failed side counts as wrong. Of several responses on a side, each chosen one meets each rejected
            one. None where there are no pairs.
    """

    folder: Path
    was_complete: bool
    records: int
    errors: Mapping[str, int]
    first_error: str | None
    truncated: int
    means: Mapping[str, float]
    outside_mass: float | None
    accuracy: float | None

    @property
    def all_failed(self) -> bool:
        """Whether no response at all has a judgement."""
        return sum(self.errors.values()) == self.records

    @property
    def exit_status(self) -> int:
        """What a script ends with: 0 if all is judged, 3 if some responses are not, 1 if none is."""
        if self.all_failed:
            return 1
        return 3 if self.errors else 0

    def render(self) -> str:
        """The summary in at most nine lines."""
        errors = ", ".join(f"{name} {count}" for name, count in sorted(self.errors.items()))
        lines = [
            "already complete: nothing was left to judge" if self.was_complete else "",
            f"responses      {self.records}",
            f"errors         {sum(self.errors.values())}{f' ({errors})' if errors else ''}",
            f"first error    {self.first_error}" if self.first_error else "",
            f"truncated      {self.truncated}",
            "".join(f"mean {side:<9} {mean:.4f}   " for side, mean in self.means.items()).rstrip(),
            "" if self.outside_mass is None else f"outside mass   {self.outside_mass:.4f} (mean; given to no score)",
            ""
            if self.accuracy is None
            else f"pair accuracy  {self.accuracy:.4f} (ties count a half, errors as wrong)",
            f"scores         {self.folder / 'scores.jsonl'}",
        ]
        return "\n".join(line for line in lines if line)


def score_file(
    load_judge: Callable[[], Judge | ChunkJudge],
    source: ScoreInput,
    output: Path,
    settings: Mapping[str, Any],
    batch_size: int,
    retry_errors: bool = False,
    calibration: Calibration | None = None,
) -> ScoringSummary:
    """Judge every response of a file into a folder, or those that are still missing there.

    Killed at any moment and called again with the same arguments, it ends with the same records.

    Args:
        load_judge: Loads the judge. It is called once the input and the folder are found to be in order, and not
            at all if nothing is left to judge.
        source: The input.
        output: The folder: `settings.json`, `scores.jsonl`, `manifest.json`, and for pairs `pairs.jsonl`.
        settings: What else than the input determines the scores; see `ScoreFolder.open`.
        batch_size: Responses that are handed to the engine at a time, and lost at most when killed.
        retry_errors: Whether responses that failed are judged anew. Rows that can't be read stay as they are.
        calibration: Rescales the numbers, which then stand in each record beside the raw ones.

    Raises:
        DataError: If the input or the folder can't be used.
        JudgeError: If the judge can't be loaded or run.
    """
    total = sum(1 for _ in source.items())
    if not total:
        raise DataError(f"{source.path}: no rows, so there is nothing to score")
    settings = {
        **settings,
        "kind": source.kind,
        "limit": source.limit,
        "input": source.path.name,
        "input_sha256": sha256_file(source.path),
    }
    with ScoreFolder.open(output, settings) as folder:
        items = source.items()
        done, failed = 0, []
        for item, record in folder.match(items):
            done += 1
            if retry_errors and record["error"] is not None and item.error is None:
                failed.append(item)
        if folder.is_complete and done == total and not failed:
            return summarise(folder, was_complete=True)
        judge = load_judge()
        folder.manifest.unlink(missing_ok=True)
        if source.kind == "pairs":
            folder.write_pairs(pair.to_dict() for pair, _ in source.pairs())
        with _progress(total, done - len(failed)) as bar:
            retried: dict[ItemKey, dict[str, Any]] = {}
            waiting = iter(failed)
            for records in _judge_chunks(judge, _chunks(iter(failed), batch_size), calibration):
                retried.update((next(waiting).key, record) for record in records)
                bar.update(len(records))
            if retried:
                folder.replace(retried)
            # A resumed run has its chunks where an uninterrupted one has them, and so the same batches.
            chunks = _chunks(items, batch_size, batch_size - done % batch_size)
            for records in _judge_chunks(judge, chunks, calibration):
                folder.append(records)
                bar.update(len(records))
        summary = summarise(folder)
        folder.finish(
            {
                **settings,
                "rubric": judge.rubric.to_dict(),
                "readout": judge.readout,
                "records": summary.records,
                "errors": dict(sorted(summary.errors.items())),
                "truncated": summary.truncated,
                "rmkit_version": __version__,
            }
        )
        return summary


def _progress(total: int, initial: int) -> tqdm[Any]:
    """A bar on a terminal; elsewhere, as in the log of a batch job, its state once in a while."""
    seconds = 0.1 if sys.stderr is None or sys.stderr.isatty() else _LOG_SECONDS
    return tqdm(
        total=total,
        initial=initial,
        desc="judging",
        unit="response",
        mininterval=seconds,
        delay=seconds,
        disable=sys.stderr is None,
    )


def _judge_chunks(
    judge: Judge | ChunkJudge, chunks: Iterable[list[ScoreItem]], calibration: Calibration | None
) -> Iterator[list[dict[str, Any]]]:
    if isinstance(judge, ChunkJudge):
        return judge.judge_chunks(chunks, calibration)
    return (judge_items(judge, chunk, calibration) for chunk in chunks)


def judge_items(
    judge: Judge, items: Sequence[ScoreItem], calibration: Calibration | None = None
) -> list[dict[str, Any]]:
    """The records of `scores.jsonl` for some items, one each, in order.

    With a calibration each has `calibrated`, as `Calibration.rescale` gives it; None for an own rubric.
    """
    readable = [item for item in items if item.error is None]
    judged = iter(
        judge.score(
            [item.conversation for item in readable],
            [item.response for item in readable],
            [item.reference for item in readable],
            [item.rubric for item in readable],
        )
    )
    judgments = [next(judged) if item.error is None else Judgment({}, None, error=item.error) for item in items]
    records = [to_record(item, judgment) for item, judgment in zip(items, judgments, strict=True)]
    if calibration is not None:
        for item, judgment, record in zip(items, judgments, records, strict=True):
            record["calibrated"] = calibration.rescale(judgment) if item.rubric is None else None
    return records


def _chunks(items: Iterator[ScoreItem], size: int, first: int | None = None) -> Iterator[list[ScoreItem]]:
    chunk = list(islice(items, first or size))
    while chunk:
        yield chunk
        chunk = list(islice(items, size))


def summarise(folder: ScoreFolder, was_complete: bool = False) -> ScoringSummary:
    """Read the summary of a scoring folder from its records."""
    count, truncated, errors, first_error = 0, 0, Counter[str](), None
    aggregates: defaultdict[str, list[float]] = defaultdict(list)
    credits: list[float] = []
    masses: list[float] = []
    records = (record for _, record in read_jsonl(folder.scores))
    for _, group in groupby(records, key=lambda record: record["id"]):
        row = list(group)
        for record in row:
            count += 1
            truncated += record["truncated"]
            if record["error"] is None:
                aggregates[record["side"]].append(record["aggregate"])
                masses.extend(attribute["outside_mass"] for attribute in record["attributes"].values())
            else:
                first_error = first_error or f"{record['id']}: {record['error']}"
                errors[record["error"].partition(":")[0]] += 1
        if row[0]["side"] in SIDES:
            credits.append(_credit(row))
    return ScoringSummary(
        folder=folder.path,
        was_complete=was_complete,
        records=count,
        errors=errors,
        first_error=first_error,
        truncated=truncated,
        means={side: fmean(values) for side, values in aggregates.items()},
        outside_mass=fmean(masses) if masses else None,
        accuracy=fmean(credits) if credits else None,
    )


def _credit(row: Iterable[Mapping[str, Any]]) -> float:
    """Share of the comparisons of one pair that chosen wins; a tie is a half, a failed side a loss."""
    sides: dict[str, list[float | None]] = {side: [] for side in SIDES}
    for record in row:
        sides[record["side"]].append(record["aggregate"])
    return fmean(
        0.0 if chosen is None or rejected is None else (verdict(chosen, rejected) + 1) / 2
        for chosen in sides["chosen"]
        for rejected in sides["rejected"]
    )
