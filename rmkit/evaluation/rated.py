"""Scored responses that people rated: what `evaluate/score_responses.py` wrote, beside the ratings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rmkit.errors import DataError, RubricError
from rmkit.evaluation.records import check_count, read_judgments, read_scoring_manifest
from rmkit.manifest import sha256_file
from rmkit.rubric import Rubric
from rmkit.schema import Judgment, RatedResponse
from rmkit.scores import aggregate_scores
from rmkit.scoring.items import ScoreInput, find_input


@dataclass(frozen=True, slots=True)
class RatedScoring:
    """One judge's judgements of one file of rated responses.

    Args:
        rows: The rated responses, in file order. Scores that were derived from preferences are left out.
        judgments: Judgement per row id. A row without one was not scored.
        rubric: The judge's rubric.
        manifest: The scoring folder's manifest.
        scores_sha256: SHA-256 of `scores.jsonl`.
        notes: What a reader of the figures must know, a sentence each.
    """

    rows: tuple[RatedResponse, ...]
    judgments: Mapping[str, Judgment]
    rubric: Rubric
    manifest: Mapping[str, Any]
    scores_sha256: str
    notes: tuple[str, ...] = ()

    def rubric_of(self, row: RatedResponse) -> Rubric:
        """The rubric that a row was judged by."""
        return row.rubric or self.rubric

    def pairs(self) -> Iterator[tuple[RatedResponse, Judgment]]:
        """Rows with their judgement, where there is one that has not failed."""
        for row in self.rows:
            judgment = self.judgments.get(row.id)
            if judgment is not None and judgment.error is None:
                yield row, judgment

    def aggregate(self, row: RatedResponse, judgment: Judgment) -> tuple[float, float] | None:
        """Aggregates of the judge's expected scores and of the ratings, over what is rated; None without a weight."""
        shared = {key: float(score) for key, score in row.scores.items() if key in judgment.attributes}
        judged = aggregate_scores(self.rubric_of(row), {key: judgment.attributes[key].mean for key in shared})
        rated = aggregate_scores(self.rubric_of(row), shared)
        return None if judged is None or rated is None else (judged, rated)


def read_rated(scores: Path, rows: Path) -> RatedScoring:
    """Read a finished scoring folder and the rated rows that were scored.

    Args:
        scores: Folder that `evaluate/score_responses.py` wrote.
        rows: The file that was scored: rows with `scores`; or a folder of `data_prep/prepare.py`.

    Raises:
        DataError: If the folder is unfinished, the files don't fit together, or a rating is off its scale.
    """
    manifest, rubric = read_scoring_manifest(scores)
    file = find_input(rows, "responses")
    rated, derived, unreadable = _read_rows(file, manifest.get("limit"))
    own = {row.id: row.rubric for row in rated if row.rubric is not None}
    found = read_judgments(scores / "scores.jsonl", rubric, ("response",), own)
    check_count(scores, manifest, len(found))
    judgments = {key[0]: judgment for key, judgment in found.items()}
    for row in rated:
        _check_ratings(row, row.rubric or rubric, file)
    if not judgments.keys() & {row.id for row in rated}:
        raise DataError(f"{file}: none of its rows was scored in {scores}; name the file that was scored with --input")
    notes = []
    if manifest.get("input_sha256") not in (None, sha256_file(file)):
        notes.append(f"{file.name} is not the file that was scored (its SHA-256 differs); matched by id.")
    if derived:
        notes.append(f"{derived} scores that were derived from preferences are no ratings; left out.")
    if unreadable:
        notes.append(f"{len(unreadable)} rows can't be read; left out. The first: {unreadable[0]}.")
    strange = {key for row in rated for key in row.scores if key not in (row.rubric or rubric).keys}
    if strange:
        notes.append(f"Ratings of {', '.join(sorted(strange))} left out: the judge has no such attributes.")
    digest = sha256_file(scores / "scores.jsonl")
    return RatedScoring(tuple(rated), judgments, rubric, manifest, digest, tuple(notes))


def _read_rows(file: Path, limit: int | None) -> tuple[list[RatedResponse], int, list[str]]:
    """The rows that have a rating, how many scores were derived, and why rows can't be read, a sentence each."""
    rows, derived, unreadable = [], 0, []
    for where, row_id, record in ScoreInput(file, "responses", limit).rows():
        if record.get("scores") is None:
            raise DataError(f"{where}: field 'scores' is missing, so there is no rating to agree with")
        # The names that score_responses.py takes as well.
        named = {
            name: record.get(name) if record.get(name) is not None else record.get(other)
            for name, other in (("conversation", "prompt"), ("response", "completion"))
        }
        try:
            row = RatedResponse.from_dict({**record, **named, "id": row_id, "metadata": None}, where)
        except (DataError, RubricError) as error:
            unreadable.append(str(error))
            continue
        rated = {key: score for key, score in row.scores.items() if key not in row.derived}
        derived += len(row.scores) - len(rated)
        if rated:
            rows.append(replace(row, scores=rated))
    if not rows:
        refused = f"; {len(unreadable)} can't be read, the first: {unreadable[0]}" if unreadable else ""
        raise DataError(f"{file}: no row has a rating{refused}")
    return rows, derived, unreadable


def _check_ratings(row: RatedResponse, rubric: Rubric, file: Path) -> None:
    for key, score in row.scores.items():
        if key in rubric.keys and score not in rubric[key].values:
            scale = f"{rubric[key].minimum}-{rubric[key].maximum}"
            raise DataError(
                f"{file}: row {row.id!r}: rating {score!r} of {key!r} is off the judge's scale {scale}; prepare the "
                "file with the judge's rubric (data_prep/prepare.py --rubric)"
            )
