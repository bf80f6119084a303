"""Scoring folders: what `evaluate/score_pairs.py` wrote, read and checked once, where it enters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmkit.errors import DataError
from rmkit.jsonl import read_jsonl
from rmkit.manifest import read_json, sha256_file
from rmkit.row_files import find_rows
from rmkit.rubric import Rubric
from rmkit.schema import Judgment, PreferencePair
from rmkit.scoring.items import SIDES, ScoreInput

ResponseKey = tuple[str, str, int]
"""Pair id, side and index of one response."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """One judge's judgements of one file of pairs.

    Args:
        pairs: The pairs to report on, in file order.
        judgments: Judgement per response. A response without one was not scored.
        rubric: The rubric that the judge used.
        manifest: The scoring folder's manifest.
        scores_sha256: SHA-256 of `scores.jsonl`.
        notes: What a reader of the figures must know, a sentence each.
        unread: Stand-ins, without texts, for rows that could not be read: comparisons without a verdict.
    """

    pairs: tuple[PreferencePair, ...]
    judgments: Mapping[ResponseKey, Judgment]
    rubric: Rubric
    manifest: Mapping[str, Any]
    scores_sha256: str
    notes: tuple[str, ...] = ()
    unread: tuple[PreferencePair, ...] = ()


def read_scoring(scores: Path, pairs: Path | None = None) -> Scoring:
    """Read a finished scoring folder and the pairs that it scored.

    Args:
        scores: Folder with `scores.jsonl` and `manifest.json`.
        pairs: The pairs file, or a folder that `data_prep/prepare.py` wrote. Without it, the copy
            `pairs.jsonl` in the scoring folder is read.

    Raises:
        DataError: If the folder is unfinished, its files don't fit together, or no pair was scored.
    """
    manifest, rubric = read_scoring_manifest(scores)
    judgments = read_judgments(scores / "scores.jsonl", rubric)
    check_count(scores, manifest, len(judgments))
    file = _find_pairs(scores, pairs)
    rows, unread = read_pairs(file)
    return Scoring(
        pairs=rows,
        judgments=judgments,
        rubric=rubric,
        manifest=manifest,
        scores_sha256=sha256_file(scores / "scores.jsonl"),
        notes=tuple(_compare_files(file, rows + unread, judgments, manifest, given=pairs is not None)),
        unread=unread,
    )


def read_scoring_manifest(scores: Path) -> tuple[dict[str, Any], Rubric]:
    """The manifest of a finished scoring folder, and the judge's rubric.

    Raises:
        DataError: If the folder is unfinished or something else.
    """
    if not (scores / "manifest.json").is_file():
        raise DataError(
            f"{scores}: no manifest.json, so scoring has not ended here; "
            "run evaluate/score_pairs.py again with the same command"
        )
    manifest = read_json(scores / "manifest.json")
    if "rubric" not in manifest:
        raise DataError(f"{scores / 'manifest.json'}: field 'rubric' is missing; this is no scoring folder")
    return manifest, Rubric.from_dict(manifest["rubric"], f"{scores / 'manifest.json'}: rubric")


def check_count(scores: Path, manifest: Mapping[str, Any], found: int) -> None:
    """Refuse a scoring folder that has not as many records as its manifest says.

    Raises:
        DataError: If the numbers differ.
    """
    if manifest.get("records", found) != found:
        raise DataError(
            f"{scores / 'scores.jsonl'}: {found} records, but the manifest says {manifest['records']}; "
            "the file was changed after scoring: score again into a new folder"
        )


def read_pairs(path: Path) -> tuple[tuple[PreferencePair, ...], tuple[PreferencePair, ...]]:
    """Read the rows of a pairs file as scoring does.

    Returns:
        The pairs, and stand-ins without texts for rows that can't be read.

    Raises:
        DataError: For an id that stands twice, or a file without any pair that can be read.
    """
    rows = list(ScoreInput(path, "pairs").pairs())
    pairs = tuple(pair for pair, error in rows if error is None)
    if not pairs:
        reason = f"; the first of {len(rows)} rows that can't be read: {rows[0][1]}" if rows else ""
        raise DataError(f"{path}: no pairs, so there is nothing to report on{reason}")
    return pairs, tuple(pair for pair, error in rows if error is not None)


def read_judgments(
    path: Path, rubric: Rubric, sides: tuple[str, ...] = SIDES, own_rubrics: Mapping[str, Rubric] | None = None
) -> dict[ResponseKey, Judgment]:
    """Read all records of a `scores.jsonl`, by pair id, side and index.

    Args:
        path: The file.
        rubric: The judge's rubric.
        sides: What a record's side may be.
        own_rubrics: Rubrics that rows brought, by id.

    Raises:
        DataError: For a record that is broken, stands twice, or does not fit the rubric.
    """
    judgments: dict[ResponseKey, Judgment] = {}
    for where, record in read_jsonl(path):
        try:
            key = (str(record["id"]), record["side"], record["index"])
            judgment = Judgment.from_dict(record)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{where}: not a record of score_pairs.py ({error!r})") from error
        if key[1] not in sides or not isinstance(key[2], int):
            expected = " or ".join(map(repr, sides))
            raise DataError(f"{where}: side {key[1]!r}, index {key[2]!r}: expected {expected} and a number")
        if key in judgments:
            raise DataError(f"{where}: {key[0]!r}, {key[1]} {key[2]} stands twice; score again into a new folder")
        if judgment.error is None:
            _check_judgment(judgment, (own_rubrics or {}).get(key[0], rubric), where)
        judgments[key] = judgment
    return judgments


def _check_judgment(judgment: Judgment, rubric: Rubric, where: str) -> None:
    """A record without an error must be a judgement: all attributes, real distributions, a finite aggregate."""
    if not isinstance(judgment.aggregate, int | float) or not math.isfinite(judgment.aggregate):
        raise DataError(f"{where}: aggregate {judgment.aggregate!r} without an error; expected a finite number")
    for attribute in rubric.attributes:
        if attribute.key not in judgment.attributes:
            raise DataError(f"{where}: no distribution for {attribute.key!r}, which the manifest's rubric has")
        distribution = judgment.attributes[attribute.key]
        if distribution.values != tuple(attribute.values) or len(distribution.probabilities) != len(attribute.values):
            raise DataError(
                f"{where}: {attribute.key!r} has scores {list(distribution.values)} with "
                f"{len(distribution.probabilities)} probabilities; the rubric's scale is "
                f"{attribute.minimum}-{attribute.maximum}"
            )
        # Written so that NaN fails too.
        if not abs(sum(distribution.probabilities) - 1) <= 1e-3 or min(distribution.probabilities) < 0:
            raise DataError(f"{where}: the probabilities of {attribute.key!r} are no distribution; score it again")


def _find_pairs(scores: Path, pairs: Path | None) -> Path:
    folder = scores if pairs is None else pairs
    if not folder.is_dir():
        return folder
    file = find_rows(folder, "pairs")
    if file is None:
        advice = "name the file that was scored with --pairs" if pairs is None else "name the file itself"
        raise DataError(f"{folder}: no pairs.jsonl or pairs.parquet here; {advice}")
    return file


def _compare_files(
    file: Path,
    pairs: tuple[PreferencePair, ...],
    judgments: Mapping[ResponseKey, Judgment],
    manifest: Mapping[str, Any],
    given: bool,
) -> list[str]:
    """Notes on how pairs and records fit together; nothing in common is an error."""
    notes = []
    wanted = {(pair.id, side, index) for pair in pairs for side in SIDES for index in range(len(getattr(pair, side)))}
    strangers = len(judgments.keys() - wanted)
    if judgments and strangers == len(judgments):
        raise DataError(f"{file}: none of its pairs was scored here; name the file that was scored with --pairs")
    if strangers:
        notes.append(f"{strangers} of {len(judgments)} score records belong to no pair of {file.name}; left out.")
    expected = manifest.get("input_sha256")
    if given and expected and sha256_file(file) != expected:
        notes.append(f"{file.name} is not the file that was scored (its SHA-256 differs); matched by id.")
    return notes
