"""A part of a prepared folder: what one chunk of raw records becomes, made by any process, kept until all are done."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson

from rmkit.cleaning.drop import TURNS_LEFT_OUT, Check, Drop, Row
from rmkit.cleaning.duplicates import Fingerprint, fingerprint
from rmkit.data.dataset import Dataset
from rmkit.errors import DataError
from rmkit.jsonl import dump_row
from rmkit.preparation.conversion import Outcome, RecordConverter, Refusal, needs_rubric
from rmkit.preparation.row_rendering import PAIRS, ROW_NAMES, RowRenderer, row_texts
from rmkit.raw.chunks import RawChunk
from rmkit.row_files import PAIR_SCHEMA, RATED_SCHEMA, pack_rows
from rmkit.rubric import Rubric
from rmkit.schema import RatedResponse

REFUSED, DROPPED, REPORTED = "refused", "dropped", "reported"
LINE_NAMES = (*ROW_NAMES, REFUSED, DROPPED, REPORTED)
"""Files of a prepared folder, without their suffix: rows, and beside them what became of the rest."""


_BUFFER = 2**18  # bytes
_PIECES = 512  # that are written at once; the least that systems take is 1,024


@dataclass(frozen=True, slots=True)
class PartForm:
    """What a part is made of. It can be pickled, and so handed to other processes.

    Args:
        rubric: The run's rubric; None where there are only pairs.
        seed: Of the split.
        validation_fraction: Expected share of conversations whose rows go to validation, in [0, 1).
        row_format: One of `rmkit.row_files.ROW_FORMATS`.
        checks: What each row is put through, in this order; the first drop counts.
        reports: Checks whose drops are written down only, and the row stays.
        duplicates: `none`, `exact` or `near`: which fingerprints rows get.
        indexed: Whether the part says what each line is, so that some can be left out of it.
    """

    rubric: Rubric | None
    seed: int = 0
    validation_fraction: float = 0.05
    row_format: str = "jsonl"
    checks: tuple[Check, ...] = ()
    reports: tuple[Check, ...] = ()
    duplicates: str = "none"
    indexed: bool = False


@dataclass(frozen=True, slots=True)
class PartPlan:
    """How the records of one data set become parts. It can be pickled, and so handed to other processes.

    Args:
        dataset: Whose records they are.
        form: What the parts are made of; its rubric is used where the data set gives ratings.
        rule: How comparisons are read; None for the data set's own rule.
        keep_derived: Whether scores that were derived from preferences count.
    """

    dataset: Dataset
    form: PartForm
    rule: str | None = None
    keep_derived: bool = True


@dataclass(frozen=True, slots=True)
class ChunkPlace:
    """Where a chunk stands.

    Args:
        file: What refusals call the source: a file name without its folder, or a hub id.
        index: Number of the chunk's first record within the data set, from 0.
    """

    file: str
    index: int


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a part.

    Args:
        name: Which file it belongs to: one of `LINE_NAMES`.
        record: Number of its record within the data set.
        size: Its length in bytes; 0 where rows are not lines.
        id: The row's id.
        scores: The row's scores that count in histograms.
        fingerprint: The row's; None where duplicates are not looked for.
    """

    name: str
    record: int
    size: int
    id: str = ""
    scores: Mapping[str, int] = field(default_factory=dict)
    fingerprint: Fingerprint | None = None

    def to_list(self) -> list[Any]:
        """The line as JSON data."""
        found = self.fingerprint
        parts = None if found is None else [found.key.hex(), found.signature.hex(), found.bands.hex()]
        return [LINE_NAMES.index(self.name), self.record, self.size, self.id, self.scores, parts]

    @classmethod
    def from_list(cls, data: Sequence[Any]) -> Line:
        """Read what `to_list` wrote."""
        found = None if data[5] is None else Fingerprint(*map(bytes.fromhex, data[5]))
        return cls(LINE_NAMES[data[0]], data[1], data[2], data[3], data[4], found)


@dataclass(slots=True)
class Tally:
    """What is counted of a part, and of a whole folder.

    Args:
        raw: Raw records.
        refused: Refused records by reason.
        given: Rows that accepted records gave.
        dropped: Rows that were left out, by reason.
        reported: Rows that were written down and stay, by reason.
        shortened: Rows without their oldest turns, left out now or in a folder that is mixed.
        rows: Rows by file.
        histogram: Rows per score per attribute; rows with a rubric of their own don't count.
    """

    raw: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    given: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    reported: Counter[str] = field(default_factory=Counter)
    shortened: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    histogram: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def accepted(self) -> int:
        """Raw records that were not refused."""
        return self.raw - self.refused.total()

    def count_scores(self, scores: Mapping[str, int], rows: int = 1) -> None:
        """Count rows with these scores in the histogram; with a negative number, no longer."""
        for key, score in scores.items():
            self.histogram.setdefault(key, Counter())[str(score)] += rows

    def add(self, other: Tally) -> None:
        """Count what the other has counted."""
        self.raw += other.raw
        self.given += other.given
        self.shortened += other.shortened
        for name in ("refused", "dropped", "reported", "rows"):
            getattr(self, name).update(getattr(other, name))
        for key, counts in other.histogram.items():
            self.histogram.setdefault(key, Counter()).update(counts)

    def to_dict(self) -> dict[str, Any]:
        """The counts as JSON data."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Tally:
        """Read what `to_dict` wrote."""
        counters = {name: Counter(data[name]) for name in ("refused", "dropped", "reported", "rows")}
        histogram = {key: Counter(counts) for key, counts in data["histogram"].items()}
        return cls(**{**data, **counters, "histogram": histogram})


class AnyPart(Protocol):
    """A finished part, in memory or in its file: counts, and by file name without suffix its lines.

    Where rows are no lines but Parquet, they are an Arrow stream. A further name, `index`, says what each line is.
    """

    @property
    def tally(self) -> Tally:
        """The part's counts."""

    @property
    def names(self) -> Collection[str]:
        """Names of what it has."""

    def pieces(self, name: str) -> Iterator[bytes | memoryview]:
        """What it has under a name, in pieces; each is to be used before the next one is asked for."""


def read_blob(part: AnyPart, name: str) -> bytes:
    """What a part has under a name; empty if it has nothing there."""
    return b"".join(map(bytes, part.pieces(name))) if name in part.names else b""


def read_index(part: AnyPart) -> Iterator[Line]:
    """What each line of a part is, if its form is indexed."""
    return map(Line.from_list, orjson.loads(read_blob(part, "index")))


@dataclass(frozen=True, slots=True)
class Part:
    """A part in memory.

    Args:
        tally: Its counts.
        blobs: What it has by name, in pieces, which are never copied to be put together.
    """

    tally: Tally
    blobs: Mapping[str, Sequence[bytes]]

    @property
    def names(self) -> Collection[str]:
        """Names of what it has."""
        return self.blobs.keys()

    def pieces(self, name: str) -> Iterator[bytes]:
        """What it has under a name, in pieces."""
        return iter(self.blobs[name])

    def save(self, path: Path, key: str) -> PartFile:
        """Write the part so that the file is whole or not there at all.

        Args:
            path: Where to.
            key: What determines the part; `find_part` asks for it.
        """
        sizes = {name: sum(map(len, pieces)) for name, pieces in self.blobs.items()}
        head = orjson.dumps({"key": key, "tally": self.tally.to_dict(), "sizes": sizes}) + b"\n"
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        with temporary.open("wb", buffering=0) as file:
            write_all(file.fileno(), [head])
            for pieces in self.blobs.values():
                write_all(file.fileno(), pieces)
        temporary.replace(path)
        return PartFile(path, self.tally, sizes, len(head))


def write_all(file: int, pieces: Sequence[bytes | memoryview]) -> None:
    """Write pieces one after the other to a file descriptor, without copying them together."""
    for start in range(0, len(pieces), _PIECES):
        some = pieces[start : start + _PIECES]
        left = sum(map(len, some)) - os.writev(file, some)
        if left:  # something stopped it halfway, such as a disk that is nearly full
            rest = memoryview(b"".join(some))[-left:]
            while rest:
                rest = rest[os.write(file, rest) :]


@dataclass(frozen=True, slots=True)
class PartFile:
    """A part in its file.

    Args:
        path: The file.
        tally: The part's counts.
        sizes: By name, in the file's order, how many bytes it has.
        start: Where the first of them begins.
    """

    path: Path
    tally: Tally
    sizes: Mapping[str, int]
    start: int

    @property
    def names(self) -> Collection[str]:
        """Names of what it has."""
        return self.sizes.keys()

    def pieces(self, name: str) -> Iterator[memoryview]:
        """What it has under a name, in pieces that stay in a processor's cache."""
        before = list(self.sizes).index(name)
        left = self.sizes[name]
        buffer = memoryview(bytearray(min(left, _BUFFER)))
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.start + sum(list(self.sizes.values())[:before]))
            while left:
                count = file.readinto(buffer[: min(left, _BUFFER)])
                if not count:
                    raise DataError(f"{self.path} became shorter while it was read; run the command again")
                left -= count
                yield buffer[:count]


def find_part(path: Path, key: str) -> PartFile | None:
    """The part in a file if it is whole and was saved with this key, else None."""
    try:
        with path.open("rb") as file:
            line = file.readline()
            head = orjson.loads(line)
            whole = os.fstat(file.fileno()).st_size == len(line) + sum(head["sizes"].values())
        found = PartFile(path, Tally.from_dict(head["tally"]), head["sizes"], len(line))
        return found if whole and head["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


class PartBuilder:
    """Builds a part from outcomes.

    Args:
        form: What the part is made of.
        index: Number of the first record within the data set.
        room: Take records only as long as their rows, checked, are at most so many; None for no limit.
        renderer: Of the same form; None makes one.
    """

    def __init__(
        self, form: PartForm, index: int, room: int | None = None, renderer: RowRenderer | None = None
    ) -> None:
        self._form = form
        self._renderer = renderer or RowRenderer(form.rubric, form.seed, form.validation_fraction)
        self._record = index
        self._room = room
        self._tally = Tally()
        self._lines: dict[str, list[bytes]] = {name: [] for name in LINE_NAMES}
        self._rows: dict[str, list[Mapping[str, Any]]] = {name: [] for name in ROW_NAMES}
        self._index: list[list[Any]] = []
        self._seen: Counter[str] = Counter()  # rows by score sequence, of which few are different
        self._scores: dict[str, Mapping[str, int]] = {}
        self._as_lines = form.row_format == "jsonl"

    def add(self, outcome: Outcome) -> bool:
        """Take an outcome, the next one; False if it and all further ones are left alone for want of room."""
        if self._room is not None and self._room <= 0:
            return False
        if isinstance(outcome, Refusal):
            self._tally.refused[outcome.reason] += 1
            self._write(REFUSED, outcome.to_dict())
        else:
            checked = [self._check(row) for row in outcome] if self._form.checks else outcome
            if self._room is not None:
                self._room -= sum(not isinstance(found, Drop) for found in checked)
                if self._room < 0:
                    return False
            self._tally.given += len(outcome)
            for row, found in zip(outcome, checked, strict=True):
                if isinstance(found, Drop):
                    self._tally.dropped[found.reason] += 1
                    if found.noted:
                        self._write(DROPPED, drop_to_dict(row.id, found, row))
                else:
                    self._add_row(found)
                    self._tally.shortened += TURNS_LEFT_OUT in found.metadata
        self._tally.raw += 1
        self._record += 1
        return True

    def _check(self, row: Row) -> Row | Drop:
        for check in self._form.checks:
            found = check.check(row)
            if isinstance(found, Drop):
                return found
            row = found
        return row

    def _add_row(self, row: Row) -> None:
        form = self._form
        for check in form.reports:
            found = check.check(row)
            if isinstance(found, Drop):
                self._tally.reported[found.reason] += 1
                self._write(REPORTED, drop_to_dict(row.id, found, row), row.id)
        name = self._renderer.name(row)
        self._tally.rows[name] += 1
        rendered = self._renderer.render(row)
        scores: Mapping[str, int] = {}
        if isinstance(row, RatedResponse) and row.rubric is None:
            scores = row.scores
            sequence = rendered["completion"][0]["content"]
            self._seen[sequence] += 1
            if self._seen[sequence] == 1:
                self._scores[sequence] = scores
        marks = None if form.duplicates == "none" else fingerprint(row, form.duplicates == "near")
        self._write(name, rendered, row.id, scores, marks)

    def _write(
        self,
        name: str,
        content: Mapping[str, Any],
        row_id: str = "",
        scores: Mapping[str, int] | None = None,
        marks: Fingerprint | None = None,
    ) -> None:
        size = 0
        if self._as_lines or name not in self._rows:
            line = dump_row(content)
            self._lines[name].append(line)
            size = len(line)
        else:
            self._rows[name].append(content)
        if self._form.indexed:
            self._index.append(Line(name, self._record, size, row_id, scores or {}, marks).to_list())

    def finish(self) -> Part:
        """The part."""
        for sequence, count in self._seen.items():
            self._tally.count_scores(self._scores[sequence], count)
        blobs = {name: lines for name, lines in self._lines.items() if lines}
        for name, rows in self._rows.items():
            if rows:
                blobs[name] = [pack_rows(rows, PAIR_SCHEMA if name == PAIRS else RATED_SCHEMA)]
        if self._form.indexed:
            blobs["index"] = [orjson.dumps(self._index)]
        return Part(self._tally, blobs)


def drop_to_dict(row_id: str, drop: Drop, row: Mapping[str, Any] | Row) -> dict[str, Any]:
    """A row that was left out, as it stands in `dropped.jsonl`."""
    found = {"found": dict(drop.found)} if drop.found else {}
    return {"id": row_id, "reason": drop.reason, "message": drop.message, **found, **row_texts(row)}


class PartMaker:
    """Makes parts of one data set's records.

    Raises:
        DataError: If the plan's rule does not fit the data set.
        RubricError: If its rubric does not.
    """

    def __init__(self, plan: PartPlan) -> None:
        form = self._form = plan.form
        self._renderer = RowRenderer(form.rubric, form.seed, form.validation_fraction)
        rubric = plan.form.rubric if needs_rubric(plan.dataset, plan.rule) else None
        self._converter = RecordConverter(plan.dataset, rubric, plan.rule, plan.keep_derived)

    def make(self, chunk: RawChunk, place: ChunkPlace, room: int | None = None) -> Part:
        """The part of a chunk.

        Args:
            chunk: The raw records.
            place: Where it stands.
            room: As for `PartBuilder`.
        """
        builder = PartBuilder(self._form, place.index, room, self._renderer)
        for index, raw in enumerate(chunk.read(), start=place.index):
            if not builder.add(self._converter.convert(raw, index, place.file)):
                break
        return builder.finish()
