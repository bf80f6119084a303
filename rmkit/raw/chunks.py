"""Raw records in chunks that are cheap to cut and to hand to another process, which then reads the records."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import pyarrow
import pyarrow.parquet

from rmkit.errors import DataError
from rmkit.raw.files import (
    BATCH,
    BOM,
    RawRecord,
    StoppedError,
    find_format,
    parse_line,
    read_last_line,
    read_lines,
    read_records,
    read_table,
)

CHUNK_RECORDS = 1000
"""Records of a chunk, unless they are so large that fewer of them reach `CHUNK_BYTES`."""

CHUNK_BYTES = 16 * 2**20
"""Bytes of text after which a chunk ends, so that memory use does not depend on the size of records."""


_BUFFER = 2**18  # bytes


class RawChunk(Protocol):
    """Consecutive raw records of one file."""

    @property
    def records(self) -> int:
        """How many there are."""

    def read(self) -> Iterator[RawRecord]:
        """The records, in order."""


@dataclass(frozen=True, slots=True)
class LinesOnDisk:
    """Whole lines of an uncompressed file of JSON Lines, which stay there until they are read.

    Args:
        path: The file.
        offset: Where the first line begins, in bytes.
        size: Length of all lines, in bytes.
        line: Number of the first line, from 1.
        records: How many of the lines are not blank.
    """

    path: Path
    offset: int
    size: int
    line: int
    records: int

    def read(self) -> Iterator[RawRecord]:
        """The records, in order.

        Raises:
            DataError: If the file is shorter now.
        """
        return _parse_lines(self.line, self._lines())

    def _lines(self) -> Iterator[bytes]:
        left = self.size
        with self.path.open("rb", buffering=_BUFFER) as file:
            file.seek(self.offset)
            while left > 0:
                line = file.readline(left)
                if not line:
                    raise DataError(f"{self.path} became shorter while it was read; run the command again")
                left -= len(line)
                yield line


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of JSON Lines.

    Args:
        lines: The lines, without line feeds.
        line: Number of the first one, from 1.
        records: How many of them are not blank.
    """

    lines: tuple[bytes, ...]
    line: int
    records: int

    def read(self) -> Iterator[RawRecord]:
        """The records, in order."""
        return _parse_lines(self.line, self.lines)


@dataclass(frozen=True, slots=True)
class TableRows:
    """Rows of a table.

    Args:
        stream: They, as an Arrow stream.
        row: Number of the first one, from 1.
        records: How many there are.
    """

    stream: bytes
    row: int
    records: int

    def read(self) -> Iterator[RawRecord]:
        """The records, in order."""
        row = self.row
        with pyarrow.ipc.open_stream(self.stream) as batches:
            for batch in batches:
                yield from read_table(row, batch)
                row += batch.num_rows


@dataclass(frozen=True, slots=True)
class ReadRecords:
    """Records that have been read."""

    content: tuple[RawRecord, ...]

    @property
    def records(self) -> int:
        """How many there are."""
        return len(self.content)

    def read(self) -> Iterator[RawRecord]:
        """The records, in order."""
        return iter(self.content)


def cut_file(path: Path, numeric: Collection[str] = (), size: int = CHUNK_RECORDS) -> Iterator[RawChunk]:
    """Cut a file into chunks that together hold what `read_records` gives.

    Lines are cut without being read, and Parquet by batches. CSV and arrays of JSON are read here.

    Args:
        path: As for `read_records`.
        numeric: As for `read_records`.
        size: Records of a chunk, at most.

    Raises:
        DataError: At once, if the file can't be opened or its format is not known.
    """
    kind = find_format(path)
    if kind == "parquet":
        return _cut_parquet(path, size)
    if kind == "jsonl":
        return _cut_packed_lines(path, size) if path.suffix == ".gz" else _cut_lines(path, size)
    return cut_records(read_records(path, numeric), size)


def cut_records(records: Iterable[RawRecord], size: int = CHUNK_RECORDS) -> Iterator[ReadRecords]:
    """Chunks of records that have been read."""
    records = iter(records)
    while content := tuple(islice(records, size)):
        yield ReadRecords(content)


def cut_table(table: pyarrow.Table | pyarrow.RecordBatch, row: int) -> TableRows:
    """A chunk of a table's rows, of which the first has the number `row`, from 1."""
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as stream:
        stream.write(table)
    return TableRows(sink.getvalue().to_pybytes(), row, table.num_rows)


def _parse_lines(number: int, lines: Iterable[bytes]) -> Iterator[RawRecord]:
    for line in lines:
        if number == 1:
            line = line.removeprefix(BOM)
        if line and not line.isspace():
            yield parse_line(number, line)
        number += 1


def _cut_lines(path: Path, size: int) -> Iterator[RawChunk]:
    offset = end = 0
    first = number = 1
    records = 0
    stop = None
    with path.open("rb", buffering=_BUFFER) as file:
        try:
            for line in file:
                content = line.removeprefix(BOM) if number == 1 else line
                records += not content.isspace() and bool(content)
                number += 1
                end += len(line)
                if records == size or end - offset >= CHUNK_BYTES:
                    yield LinesOnDisk(path, offset, end - offset, first, records)
                    offset, first, records = end, number, 0
        except OSError as error:
            stop = RawRecord(number, "", "unreadable_file", f"reading failed here ({error})")
    if records:
        yield LinesOnDisk(path, offset, end - offset, first, records)
    if stop:
        yield ReadRecords((stop,))


def _cut_packed_lines(path: Path, size: int) -> Iterator[RawChunk]:
    lines: list[bytes] = []
    first = 1
    records = taken = 0
    last: tuple[RawRecord, ...] = ()
    try:
        for number, line in read_lines(path):
            content = line.removeprefix(BOM) if number == 1 else line
            records += not content.isspace() and bool(content)
            lines.append(line)
            taken += len(line)
            if records == size or taken >= CHUNK_BYTES:
                yield Lines(tuple(lines), first, records)
                lines, first, records, taken = [], number + 1, 0, 0
    except StoppedError as stop:
        last = tuple(read_last_line(stop))
    if records:
        yield Lines(tuple(lines), first, records)
    if last:
        yield ReadRecords(last)


def _cut_parquet(path: Path, size: int) -> Iterator[RawChunk]:
    row = 1
    held: list[pyarrow.RecordBatch] = []
    last: tuple[RawRecord, ...] = ()
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH):
                held.append(batch)
                taken = sum(part.num_rows for part in held)
                if taken >= size or sum(part.nbytes for part in held) >= CHUNK_BYTES:
                    yield cut_table(pyarrow.Table.from_batches(held), row)
                    row, held = row + taken, []
    except (OSError, ValueError, pyarrow.ArrowException) as error:  # a damaged name of a column is a ValueError
        number = row + sum(part.num_rows for part in held)
        last = (RawRecord(number, "", "unreadable_file", f"reading failed here ({error})"),)
    if held:
        yield cut_table(pyarrow.Table.from_batches(held), row)
    if last:
        yield ReadRecords(last)
