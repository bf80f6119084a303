"""Putting parts together: in their order, into the files of a prepared folder, without what stands there already."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from rmkit.cleaning.balance import Balance
from rmkit.cleaning.drop import TURNS_LEFT_OUT, Drop
from rmkit.cleaning.duplicates import DuplicateIndex
from rmkit.jsonl import dump_row
from rmkit.manifest import sha256_file
from rmkit.preparation.conversion import Refusal
from rmkit.preparation.part import (
    DROPPED,
    REFUSED,
    REPORTED,
    AnyPart,
    Line,
    Tally,
    drop_to_dict,
    read_blob,
    read_index,
    write_all,
)
from rmkit.preparation.row_rendering import PAIRS, ROW_NAMES, TRAIN
from rmkit.row_files import PAIR_SCHEMA, RATED_SCHEMA, unpack_row
from rmkit.schema import RatedResponse

_ROW_GROUP = 2000  # rows; larger groups compress better and take more memory


@dataclass(frozen=True, slots=True)
class Repeated:
    """A pair's id that stands on an earlier pair, for which its record is refused."""

    id: str


class LineSelector:
    """Says which lines of the parts, met in order, are left out: repeated pairs, duplicates, rows of common scores.

    Args:
        duplicates: `none`, `exact` or `near`.
        threshold: Similarity from which rows are near-duplicates.
        balances: By data set, what its training rows are balanced by.
    """

    def __init__(
        self, duplicates: str = "none", threshold: float = 0.8, balances: Mapping[str, Sequence[Balance]] | None = None
    ) -> None:
        self._duplicates = None if duplicates == "none" else DuplicateIndex(threshold)
        self._balances = balances or {}
        self._pair_ids: set[bytes] = set()

    @property
    def index(self) -> DuplicateIndex | None:
        """The index of duplicates; None where they are not looked for."""
        return self._duplicates

    def select(self, lines: Iterable[Line], dataset: str) -> dict[int, Drop | Repeated]:
        """Lines that are left out, by their place in the part, and why.

        Args:
            lines: The part's.
            dataset: Name of the data set that they come from.
        """
        left_out: dict[int, Drop | Repeated] = {}
        for _, record in groupby(enumerate(lines), key=lambda item: item[1].record):
            places = list(record)
            repeated = self._find_repeated(line for _, line in places)
            if repeated:
                left_out.update((place, repeated) for place, _ in places)
                continue
            gone: dict[str, Drop] = {}
            for place, line in places:
                if line.name in ROW_NAMES:
                    drop = self._check(line, dataset)
                    if drop:
                        left_out[place] = gone[line.id] = drop
            if gone:  # what is reported is left in, so a row that goes is not reported
                reports = ((place, line.id) for place, line in places if line.name == REPORTED)
                left_out.update((place, gone[row_id]) for place, row_id in reports if row_id in gone)
        return left_out

    def _find_repeated(self, lines: Iterable[Line]) -> Repeated | None:
        keys = {
            hashlib.blake2b(line.id.encode(), digest_size=16).digest(): line.id for line in lines if line.name == PAIRS
        }
        for key, pair_id in keys.items():
            if key in self._pair_ids:
                return Repeated(pair_id)
        self._pair_ids.update(keys)
        return None

    def _check(self, line: Line, dataset: str) -> Drop | None:
        if self._duplicates is not None and line.fingerprint is not None:
            drop = self._duplicates.add(line.id, line.fingerprint)
            if drop:
                return drop
        if line.name == TRAIN:
            for balance in self._balances.get(dataset, ()):
                found = balance.check(RatedResponse(line.id, dataset, (), "", line.scores))
                if isinstance(found, Drop):
                    return found
        return None


def count_training_scores(lines: Iterable[Line], left_out: Collection[int], counts: dict[str, Counter[int]]) -> None:
    """Add the scores of a part's training rows to counts by attribute, but for the lines that are left out."""
    for place, line in enumerate(lines):
        if line.name == TRAIN and place not in left_out:
            for key, score in line.scores.items():
                counts.setdefault(key, Counter())[score] += 1


class FolderMerger:
    """Writes parts, one after the other, into the files of a folder.

    Args:
        output: The folder.
        names: Files to write, without suffix; rows go to those of `rmkit.preparation.row_rendering.ROW_NAMES`.
        row_format: One of `rmkit.row_files.ROW_FORMATS`, for rows; the rest is JSON Lines.
    """

    def __init__(self, output: Path, names: Iterable[str], row_format: str = "jsonl") -> None:
        self._files: dict[str, _LineFile | _TableFile] = {}
        for name in names:
            if name in ROW_NAMES and row_format == "parquet":
                self._files[name] = _TableFile(
                    output / f"{name}.parquet", PAIR_SCHEMA if name == PAIRS else RATED_SCHEMA
                )
            else:
                self._files[name] = _LineFile(output / f"{name}.jsonl")
        self.tally = Tally()

    def __enter__(self) -> FolderMerger:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def add(
        self,
        part: AnyPart,
        left_out: Mapping[int, Drop | Repeated] | None = None,
        refuse: Callable[[int, str], Refusal] | None = None,
    ) -> Tally:
        """Write a part, and return what is counted of it.

        Args:
            part: The next one.
            left_out: What `LineSelector.select` said of it.
            refuse: Makes the refusal of a record, from its number and the id of the pair that stands twice.
        """
        tally = part.tally
        if left_out:
            assert refuse is not None
            tally = self._add_selected(part, left_out, refuse)
        else:
            for name in part.names:
                if name in self._files:
                    self._files[name].add(part.pieces(name), tally.rows[name] if name in ROW_NAMES else None)
        self.tally.add(tally)
        return tally

    def _add_selected(
        self, part: AnyPart, left_out: Mapping[int, Drop | Repeated], refuse: Callable[[int, str], Refusal]
    ) -> Tally:
        tally = Tally()
        tally.add(part.tally)
        cutters = {name: file.cut(read_blob(part, name)) for name, file in self._files.items()}
        for record, group in groupby(enumerate(read_index(part)), key=lambda item: item[1].record):
            refusal: Refusal | None = None
            for place, line in group:
                cutter, reason = cutters[line.name], left_out.get(place)
                cutter.advance(line.size)
                if reason is None:
                    cutter.keep()
                elif isinstance(reason, Drop) and line.name == REPORTED:
                    tally.reported[cutter.read()["reason"]] -= 1
                elif isinstance(reason, Drop):
                    _discount(tally, line)
                    tally.dropped[reason.reason] += 1
                    content = cutter.read() if reason.noted or tally.shortened else {"metadata": {}}
                    tally.shortened -= TURNS_LEFT_OUT in content["metadata"]
                    if reason.noted:
                        cutters[DROPPED].insert(dump_row(drop_to_dict(line.id, reason, content)))
                else:
                    _discount_refused(tally, line, cutter.read())
                    refusal = refusal or refuse(record, reason.id)
            if refusal:
                tally.refused[refusal.reason] += 1
                cutters[REFUSED].insert(dump_row(refusal.to_dict()))
        for cutter in cutters.values():
            cutter.finish()
        return tally

    def finish(self) -> dict[str, dict[str, Any]]:
        """Close the files; per name with suffix, how many rows and which SHA-256 each has."""
        return {file.path.name: file.finish() for file in self._files.values()}


def _discount(tally: Tally, line: Line) -> None:
    tally.rows[line.name] -= 1
    tally.count_scores(line.scores, -1)


def _discount_refused(tally: Tally, line: Line, content: Mapping[str, Any]) -> None:
    """A line of a record that is refused after all."""
    if line.name in ROW_NAMES:
        _discount(tally, line)
        tally.given -= 1
        tally.shortened -= TURNS_LEFT_OUT in content["metadata"]
    elif line.name == DROPPED:
        tally.given -= 1
        tally.dropped[content["reason"]] -= 1
    elif line.name == REPORTED:
        tally.reported[content["reason"]] -= 1


class _LineFile:
    """A file of JSON Lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows = 0
        self._digest = hashlib.sha256()
        self._file = path.open("wb", buffering=0)

    def add(self, pieces: Iterable[bytes | memoryview], lines: int | None) -> None:
        """Write lines; how many they are is counted where the caller does not know."""
        self._rows += lines or 0
        for piece in pieces:
            if lines is None:
                self._rows += bytes(piece).count(b"\n")
            self._digest.update(piece)
            write_all(self._file.fileno(), [piece])

    def cut(self, blob: bytes) -> _LineCutter:
        return _LineCutter(self, blob)

    def close(self) -> None:
        self._file.close()

    def finish(self) -> dict[str, Any]:
        self.close()
        return {"rows": self._rows, "sha256": self._digest.hexdigest()}


class _LineCutter:
    """Goes through the lines of one part."""

    def __init__(self, file: _LineFile, blob: bytes) -> None:
        self._file = file
        self._blob = memoryview(blob)
        self._start = self._end = 0
        self._kept: list[bytes | memoryview] = []

    def advance(self, size: int) -> None:
        self._start, self._end = self._end, self._end + size

    def keep(self) -> None:
        self._kept.append(self._blob[self._start : self._end])

    def insert(self, line: bytes) -> None:
        self._kept.append(line)

    def read(self) -> dict[str, Any]:
        return json.loads(bytes(self._blob[self._start : self._end]))

    def finish(self) -> None:
        self._file.add([b"".join(self._kept)], len(self._kept))


class _TableFile:
    """A file of Parquet. Its row groups have a fixed size, so that it does not show how the parts were cut."""

    def __init__(self, path: Path, schema: pyarrow.Schema) -> None:
        self.path = path
        self._rows = 0
        self._schema = schema
        self._held: list[pyarrow.Table] = []
        self._writer = pyarrow.parquet.ParquetWriter(path, schema, compression="zstd")

    def add(self, pieces: Iterable[bytes | memoryview], lines: int | None) -> None:
        blob = b"".join(map(bytes, pieces))  # a copy of each, for pieces share their memory
        with pyarrow.ipc.open_stream(blob) as stream:
            self.add_table(stream.read_all())

    def add_table(self, table: pyarrow.Table) -> None:
        self._rows += table.num_rows
        self._held.append(table)
        if sum(held.num_rows for held in self._held) >= _ROW_GROUP:
            table = pyarrow.concat_tables(self._held)
            whole = table.num_rows // _ROW_GROUP * _ROW_GROUP
            self._write(table.slice(0, whole))
            self._held = [table.slice(whole)]

    def _write(self, table: pyarrow.Table) -> None:
        for start in range(0, table.num_rows, _ROW_GROUP):
            self._writer.write_table(table.slice(start, _ROW_GROUP).combine_chunks())

    def cut(self, blob: bytes) -> _TableCutter:
        if not blob:
            return _TableCutter(self, self._schema.empty_table())
        with pyarrow.ipc.open_stream(blob) as stream:
            return _TableCutter(self, stream.read_all())

    def close(self) -> None:
        self._writer.close()

    def finish(self) -> dict[str, Any]:
        if self._held:
            self._write(pyarrow.concat_tables(self._held))
        self.close()
        return {"rows": self._rows, "sha256": sha256_file(self.path)}


class _TableCutter:
    """Goes through the rows of one part."""

    def __init__(self, file: _TableFile, table: pyarrow.Table) -> None:
        self._file = file
        self._table = table
        self._row = -1
        self._kept: list[int] = []

    def advance(self, size: int) -> None:
        self._row += 1

    def keep(self) -> None:
        self._kept.append(self._row)

    def insert(self, line: bytes) -> None:
        raise TypeError("lines go to files of lines")

    def read(self) -> dict[str, Any]:
        return unpack_row(self._table.slice(self._row, 1).to_pylist()[0], self._table.schema)

    def finish(self) -> None:
        self._file.add_table(self._table.take(pyarrow.array(self._kept, pyarrow.int64())))
