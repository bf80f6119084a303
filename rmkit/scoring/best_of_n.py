"""Choosing among n candidates per prompt by a judge's scores: the best one, or pairs with margins.

A candidate whose judgement failed is counted, and never chosen or rejected. Equal aggregates are no preference.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from rmkit import __version__
from rmkit.errors import DataError
from rmkit.jsonl import dump_line, read_jsonl
from rmkit.manifest import read_json, sha256_file, write_json
from rmkit.schema import Conversation
from rmkit.scoring.folder import MANIFEST_FILE, SCORES_FILE
from rmkit.scoring.items import ScoreInput, ScoreItem

CHOICES = ("best", "best_worst", "best_rest")
"""What is written of each prompt: its best candidate; the best against the worst; the best against each other one."""

FILE_NAMES = {"best": "best.jsonl", "best_worst": "preferences.jsonl", "best_rest": "preferences.jsonl"}
"""The file that a choice goes into."""

REPORT_FILE = "best_of_n.json"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A judged candidate: its place among the row's, its text, its aggregate."""

    index: int
    response: str
    aggregate: float


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """One prompt with its candidates.

    Args:
        id: The row's id.
        conversation: All turns before the response; empty where the row could not be read.
        ranked: The judged candidates, the best first; equal ones in their order.
        failed: How many have no judgement.
        error: Why the first of those has none, or None.
    """

    id: str
    conversation: Conversation
    ranked: tuple[Candidate, ...]
    failed: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Selection:
    """What became of the prompts of a file.

    Args:
        path: The file that was written.
        prompts: Number of prompts.
        candidates: Number of candidates.
        failed: Candidates without a judgement.
        first_error: Id of the prompt and reason of the first of them, or None.
        rows: Rows written.
        unjudged: Prompts that gave no row because too few candidates have a judgement.
        close: Pairs that were left out because their margin is not above the least one.
    """

    path: Path
    prompts: int
    candidates: int
    failed: int
    first_error: str | None
    rows: int
    unjudged: int
    close: int

    @property
    def exit_status(self) -> int:
        """0 if all candidates are judged, 3 if some are not, 1 if nothing was written."""
        return 1 if not self.rows else 3 if self.failed else 0

    def render(self) -> str:
        """The numbers in at most eight lines."""
        lines = [
            f"prompts        {self.prompts}",
            f"candidates     {self.candidates}",
            f"failed         {self.failed}",
            f"first error    {self.first_error}" if self.first_error else "",
            f"too few judged {self.unjudged}",
            f"margin too low {self.close}",
            f"rows           {self.rows}",
            f"written        {self.path}",
        ]
        return "\n".join(filter(None, lines))


def read_candidates(source: ScoreInput, scores: Path) -> Iterator[CandidateRow]:
    """The prompts of a file with their scored candidates, in order.

    Args:
        source: The candidates, as they were scored.
        scores: The finished scoring folder of them.

    Raises:
        DataError: If the folder is unfinished, or its records are not those of the candidates.
    """
    if not (scores / MANIFEST_FILE).is_file():
        raise DataError(f"{scores}: no {MANIFEST_FILE}, so scoring has not ended here; run the same command again")
    manifest = read_json(scores / MANIFEST_FILE)
    if manifest.get("kind") != source.kind or manifest.get("input_sha256") != sha256_file(source.path):
        raise DataError(
            f"{scores}: holds no scores of {source.path.name} as it is now; score it anew, into another --output"
        )
    limited = ScoreInput(source.path, source.kind, manifest.get("limit"))
    for row_id, pairs in groupby(_join(limited, scores), key=lambda pair: pair[0].id):
        row = list(pairs)
        judged = [
            Candidate(item.index, item.response, record["aggregate"])
            for item, record in row
            if record["error"] is None
        ]
        conversation = next((item.conversation for item, _ in row if item.error is None), ())
        ranked = tuple(sorted(judged, key=lambda candidate: -candidate.aggregate))
        error = next((record["error"] for _, record in row if record["error"] is not None), None)
        yield CandidateRow(row_id, conversation, ranked, len(row) - len(judged), error)


def _join(source: ScoreInput, scores: Path) -> Iterator[tuple[ScoreItem, dict[str, Any]]]:
    for item, found in zip_longest(source.items(), read_jsonl(scores / SCORES_FILE)):
        where, record = found if found is not None else (str(scores / SCORES_FILE), {})
        key = (record.get("id"), record.get("side"), record.get("index"))
        if item is None or item.key != key or "aggregate" not in record or "error" not in record:
            raise DataError(f"{where}: not the record of the next candidate; score anew, into another --output")
        yield item, record


def write_selection(
    source: ScoreInput, scores: Path, output: Path, choice: str = "best_worst", least_margin: float = 0.0
) -> Selection:
    """Write the best candidates, or pairs, of all prompts; the file is the old one or the whole new one.

    Args:
        source: The candidates.
        scores: The finished scoring folder of them.
        output: The folder to write into; `best_of_n.json` there has the numbers.
        choice: One of `CHOICES`.
        least_margin: A pair needs a margin above this, which is 0 or more.

    Raises:
        DataError: See `read_candidates`.
    """
    output.mkdir(parents=True, exist_ok=True)
    path = output / FILE_NAMES[choice]
    temporary = path.with_name(path.name + ".tmp")
    prompts = candidates = failed = rows = unjudged = close = 0
    first_error = None
    with temporary.open("w", encoding="utf-8") as file:
        for row in read_candidates(source, scores):
            prompts += 1
            candidates += len(row.ranked) + row.failed
            failed += row.failed
            if row.error is not None and first_error is None:
                first_error = f"{row.id}: {row.error}"
            if len(row.ranked) < (1 if choice == "best" else 2):
                unjudged += 1
                continue
            found = [_best(row)] if choice == "best" else list(_pairs(row, choice))
            kept = [line for line in found if choice == "best" or line["margin"] > least_margin]
            close += len(found) - len(kept)
            rows += len(kept)
            file.writelines(map(dump_line, kept))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    selection = Selection(path, prompts, candidates, failed, first_error, rows, unjudged, close)
    manifest = read_json(scores / MANIFEST_FILE)
    numbers = {key: value for key, value in asdict(selection).items() if key != "path"}
    write_json(
        output / REPORT_FILE,
        {
            "choice": choice,
            "least_margin": least_margin,
            **numbers,
            "file": path.name,
            "sha256": sha256_file(path),
            **{key: manifest.get(key) for key in ("judge", "judge_sha256", "input", "input_sha256")},
            "rmkit_version": __version__,
        },
    )
    return selection


def _best(row: CandidateRow) -> dict[str, Any]:
    """A row in TRL's conversational prompt-completion format, with what it was chosen by."""
    best = row.ranked[0]
    return {
        "id": row.id,
        "prompt": [message.to_dict() for message in row.conversation],
        "completion": _turn(best),
        "index": best.index,
        "score": best.aggregate,
        "candidates": len(row.ranked) + row.failed,
        "failed": row.failed,
    }


def _pairs(row: CandidateRow, choice: str) -> Iterator[Mapping[str, Any]]:
    """Rows in TRL's conversational preference format with an explicit prompt; `margin`: of the aggregates."""
    best, *others = row.ranked
    for other in others if choice == "best_rest" else others[-1:]:
        yield {
            "id": f"{row.id}/{best.index}-{other.index}",
            "prompt": [message.to_dict() for message in row.conversation],
            "chosen": _turn(best),
            "rejected": _turn(other),
            "margin": best.aggregate - other.aggregate,
            "chosen_score": best.aggregate,
            "rejected_score": other.aggregate,
        }


def _turn(candidate: Candidate) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": candidate.response}]
