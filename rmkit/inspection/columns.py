"""The rows of a prepared folder as columns of numbers: a few bytes a row, and no texts."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmkit.evaluation.texts import make_printable

MAX_OWN = 12
"""Attributes of rows' own rubrics that get a column; scores on further ones are only counted."""


@dataclass(frozen=True, slots=True)
class AttributeColumn:
    """One attribute's scores, one entry per row.

    Args:
        label: The attribute's key; where rows bring rubrics of their own, the key and a remark.
        scale: Lowest and highest legal score.
        weight: Its share in the rubric's aggregate; None for attributes of rows' own rubrics.
        scores: float32 of shape (N,), NaN where the row is not rated on it.
        derived: bool of shape (N,): the score was derived from a preference.
    """

    label: str
    scale: tuple[int, int]
    weight: float | None
    scores: np.ndarray
    derived: np.ndarray

    @property
    def rated(self) -> np.ndarray:
        """Which rows have a score: bool of shape (N,)."""
        return ~np.isnan(self.scores)


@dataclass(frozen=True, slots=True)
class RatedColumns:
    """Rated rows. Lengths are in characters.

    Args:
        attributes: The manifest's in rubric order, then those of rows' own rubrics.
        sources: Names of the data sets that rows come from, most rows first.
        source: int of shape (N,): each row's place in `sources`.
        turns: int of shape (N,): messages before the response.
        asked: int of shape (N,): length of the conversation.
        answered: int of shape (N,): length of the response.
        own_rubrics: Rows with a rubric of their own.
        not_shown: Scores on attributes of such rubrics that got no column.
    """

    attributes: tuple[AttributeColumn, ...]
    sources: tuple[str, ...]
    source: np.ndarray
    turns: np.ndarray
    asked: np.ndarray
    answered: np.ndarray
    own_rubrics: int
    not_shown: int

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True, slots=True)
class PairColumns:
    """Preference pairs. Lengths are in characters; that of a side is the mean of its responses.

    Args:
        subsets: Names, most pairs first.
        subset: int of shape (N,): each pair's place in `subsets`.
        asked: int of shape (N,): length of the conversation.
        chosen: float of shape (N,): length of the chosen side.
        rejected: float of shape (N,): length of the rejected side.
        sides: int of shape (N, 2): how many responses are chosen and rejected.
    """

    subsets: tuple[str, ...]
    subset: np.ndarray
    asked: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray
    sides: np.ndarray

    def __len__(self) -> int:
        return len(self.subset)


class RatedReader:
    """Takes rated rows one by one and keeps their numbers."""

    def __init__(self, rubric: Mapping[str, Any]) -> None:
        self._labels: dict[tuple[str, tuple[int, int] | None], int] = {}  # (key, own scale) -> column
        self._about: list[tuple[str, tuple[int, int], float | None]] = []
        self._scores: list[array[float]] = []
        self._derived: list[bytearray] = []
        self._names: dict[str, int] = {}
        self._source, self._turns, self._asked, self._answered = (array("I") for _ in range(4))
        self._own = self._not_shown = 0
        for attribute in rubric["attributes"]:
            self._add_column((attribute["key"], None), attribute["key"], attribute["scale"], attribute["weight"])

    def _add_column(
        self, name: tuple[str, tuple[int, int] | None], label: str, scale: tuple[int, int], weight: float | None
    ) -> None:
        self._labels[name] = len(self._about)
        self._about.append((label, (scale[0], scale[1]), weight))
        self._scores.append(array("f", [float("nan")]) * len(self._source))
        self._derived.append(bytearray(len(self._source)))

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one row of `train.jsonl` or `validation.jsonl`."""
        own = None
        if row.get("rubric"):
            self._own += 1
            own = {a["key"]: (a["scale"][0], a["scale"][1]) for a in row["rubric"]["attributes"]}
        here: dict[int, float] = {}
        derived = row.get("derived") or ()
        marked = set()
        for key, score in row["scores"].items():
            if score is None:
                continue
            name = (key, own[key] if own else None)
            if name not in self._labels:
                if own is None or len(self._own_labels()) >= MAX_OWN:
                    self._not_shown += 1
                    continue
                low, high = own[key]
                self._add_column(name, f"{key} (rows' own rubrics, {low}-{high})", own[key], None)
            place = self._labels[name]
            here[place] = float(score)
            if key in derived:
                marked.add(place)
        for place, (scores, flags) in enumerate(zip(self._scores, self._derived, strict=True)):
            scores.append(here.get(place, float("nan")))
            flags.append(place in marked)
        self._source.append(self._names.setdefault(str(row.get("source", "")), len(self._names)))
        self._turns.append(len(row["conversation"]))
        self._asked.append(sum(len(message["content"]) for message in row["conversation"]))
        self._answered.append(len(row["response"]))

    def _own_labels(self) -> list[tuple[str, tuple[int, int] | None]]:
        return [name for name in self._labels if name[1] is not None]

    def finish(self) -> RatedColumns:
        """The columns of all rows taken."""
        sources, source = _order_by_count(self._names, self._source)
        attributes = tuple(
            AttributeColumn(label, scale, weight, _view(scores), np.frombuffer(flags, dtype=bool))
            for (label, scale, weight), scores, flags in zip(self._about, self._scores, self._derived, strict=True)
        )
        turns, asked, answered = _view(self._turns), _view(self._asked), _view(self._answered)
        return RatedColumns(attributes, sources, source, turns, asked, answered, self._own, self._not_shown)


class PairReader:
    """Takes preference pairs one by one and keeps their numbers."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._subset, self._asked, self._sides = array("I"), array("I"), array("I")
        self._chosen, self._rejected = array("d"), array("d")

    def add(self, pair: Mapping[str, Any]) -> None:
        """Take one row of `pairs.jsonl`."""
        self._subset.append(self._names.setdefault(str(pair.get("subset", "")), len(self._names)))
        self._asked.append(sum(len(message["content"]) for message in pair["conversation"]))
        for column, side in ((self._chosen, pair["chosen"]), (self._rejected, pair["rejected"])):
            column.append(sum(map(len, side)) / len(side))
            self._sides.append(len(side))

    def finish(self) -> PairColumns:
        """The columns of all pairs taken."""
        subsets, subset = _order_by_count(self._names, self._subset)
        return PairColumns(
            subsets,
            subset,
            _view(self._asked),
            _view(self._chosen),
            _view(self._rejected),
            _view(self._sides).reshape(-1, 2),
        )


def _view(column: array[int] | array[float]) -> np.ndarray:
    """The numbers as an array of the same type, without a copy."""
    return np.frombuffer(column, dtype=column.typecode)


def _order_by_count(names: Mapping[str, int], places: array[int]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names by falling count, then by name, and each row's place among them."""
    column = _view(places)
    counts = np.bincount(column, minlength=len(names))
    ordered = sorted(names, key=lambda name: (-counts[names[name]], name))
    new_place = np.empty(len(names), dtype=np.uint32)
    new_place[[names[name] for name in ordered]] = np.arange(len(names))
    return tuple(make_printable(name) for name in ordered), new_place[column]
