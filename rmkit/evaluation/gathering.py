"""Several scoring folders for one report: prior sets beside a benchmark, and judges under names of their own."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rmkit.errors import DataError
from rmkit.evaluation.records import Scoring, read_scoring


def add_prior_sets(scoring: Scoring, folders: Mapping[str, Path]) -> Scoring:
    """The scoring of a benchmark with those of its prior sets.

    Args:
        scoring: The benchmark's scoring.
        folders: Scoring folder of each prior set; the name becomes the subset of its pairs, and goes before their ids.

    Raises:
        DataError: If a folder is of another judge, or can't be read.
    """
    pairs, unread = list(scoring.pairs), list(scoring.unread)
    judgments, digests = dict(scoring.judgments), [scoring.scores_sha256]
    notes = list(scoring.notes)
    for name, folder in folders.items():
        found = read_scoring(folder)
        for field in ("judge_sha256", "rubric"):
            if found.manifest.get(field) != scoring.manifest.get(field):
                raise DataError(f"{folder}: was scored by another judge ({field} differs); score {name} with the same")
        pairs += [replace(pair, id=f"{name}/{pair.id}", subset=name) for pair in found.pairs]
        unread += [replace(pair, id=f"{name}/{pair.id}", subset=name) for pair in found.unread]
        judgments |= {(f"{name}/{key[0]}", *key[1:]): judgment for key, judgment in found.judgments.items()}
        digests.append(found.scores_sha256)
        notes += [f"{name}: {note}" for note in found.notes]
    manifest = {**scoring.manifest, "records": len(judgments)}
    digest = hashlib.sha256("".join(digests).encode()).hexdigest()
    return Scoring(tuple(pairs), judgments, scoring.rubric, manifest, digest, tuple(notes), tuple(unread))


def name_folders(judges: Sequence[str]) -> list[str]:
    """A folder name for each judge, from its folder or hub id; a number tells those of one name apart.

    Raises:
        DataError: If a judge is given twice.
    """
    paths = [Path(judge) for judge in judges]
    places = [str(path.resolve()) if path.is_dir() else judge for path, judge in zip(paths, judges, strict=True)]
    _refuse_twice(places)
    own = [
        Path(place).name if path.is_dir() else place.replace("/", "--")
        for path, place in zip(paths, places, strict=True)
    ]
    return [name if own.count(name) == 1 else f"{name}.{own[:i].count(name) + 1}" for i, name in enumerate(own)]


def _refuse_twice(places: Iterable[object]) -> None:
    for place, count in Counter(places).items():
        if count > 1:
            raise DataError(f"{place}: is given twice, and a judge can't be compared with itself")


def name_judges(folders: Sequence[Path], manifests: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each judge: its own, with the folder where several have the same.

    Args:
        folders: The scoring folders.
        manifests: Their manifests.

    Raises:
        DataError: If a folder is given twice.
    """
    _refuse_twice(folder.resolve() for folder in folders)
    own = [str(manifest.get("judge") or "unnamed judge") for manifest in manifests]
    names = [
        name if own.count(name) == 1 else f"{name} ({folder.resolve().name})"
        for name, folder in zip(own, folders, strict=True)
    ]
    if len(set(names)) < len(names):
        names = [f"{name} ({folder})" for name, folder in zip(own, folders, strict=True)]
    return names
