"""Raw records from files, each with its line number; what can't be read is handed on, never dropped."""

from __future__ import annotations

import csv
import gzip
import json
import math
import re
import sys
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pyarrow.parquet

from rmkit.errors import DataError

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
"""File formats that are read. All but Parquet may also be gzipped, as in `train.jsonl.gz`."""

BATCH = 256
"""Parquet rows read at once; where reading fails, those of the batch are lost with it."""

BOM = b"\xef\xbb\xbf"
"""A byte order mark, which editors may put before the first line."""

_CHUNK = 1 << 16  # bytes read at once
_LARGE = 2.0**62  # from about here on, orjson may have read an integer as a float
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One record of a file, or the place where none could be read.

    Args:
        line: Where it stands, from 1: the line where it begins in a text file, the row in a table.
        content: The record; where it can't be read, what there is of it.
        reason: Why it can't be read, as a short code; empty for a record that was read.
        message: The same for people.
    """

    line: int
    content: dict[str, Any] | str
    reason: str = ""
    message: str = ""


class StoppedError(Exception):
    """Reading of lines can't go on. `rest` is what came behind the last whole line, and `line` its number."""

    def __init__(self, reason: str, message: str, line: int, rest: bytes) -> None:
        super().__init__(message)
        self.reason, self.line, self.rest = reason, line, rest


def read_records(path: Path, numeric: Collection[str] = ()) -> Iterator[RawRecord]:
    """Read a file's records one by one, in order. Memory use does not grow with the file.

    A broken record comes with the `reason` `broken_json`, `broken_csv`, `broken_row`, `not_utf8` or
    `not_an_object`, and reading goes on. Where it can't go on (`truncated_file`, `corrupt_file`, `unreadable_file`, or
    broken JSON inside an array), a last record says so. Blank lines are skipped. NaN and Infinity, which Python's
    reader takes for JSON, are broken JSON. A `.json` file holds JSON Lines, or one array of objects, and then it is
    read whole.

    Args:
        path: A file whose name ends in one of `SUFFIXES`, or in one of them and `.gz`.
        numeric: Columns that hold numbers. CSV, which has no types, gives text for all others.

    Raises:
        DataError: At once, if the file can't be opened or its format is not known.
    """
    kind = find_format(path)
    if kind == "parquet":
        return _read_parquet(path)
    if kind == "csv":
        return _read_csv(path, numeric)
    return _read_array(path) if kind == "array" else _read_json_lines(path)


def find_format(path: Path) -> str:
    """How a file's records are written: `jsonl`, `array` (of JSON), `csv` or `parquet`.

    Raises:
        DataError: If the file can't be opened or its format is not known.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in SUFFIXES or (suffix == ".parquet" and path.suffix == ".gz"):
        raise DataError(f"{path}: unknown format {path.suffix!r}; use {', '.join(SUFFIXES)}, text formats also as .gz")
    try:
        if suffix == ".parquet":
            with pyarrow.parquet.ParquetFile(path):
                return "parquet"
        with _open(path) as file:
            opening = file.peek(_CHUNK)
    except (OSError, EOFError, ValueError, zlib.error, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: can't be read ({error})") from error
    if suffix == ".csv":
        return "csv"
    return "array" if suffix == ".json" and opening.removeprefix(BOM).lstrip().startswith(b"[") else "jsonl"


def _open(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers, split at line feeds only.

    Raises:
        StoppedError: Where the file gives no more.
    """
    number = 0
    pieces: list[bytes] = []  # of the line that is not whole yet; joined once, so that a huge one stays linear
    with _open(path) as file:
        while True:
            try:
                chunk = file.read1(_CHUNK)
            except EOFError as error:
                message = f"the compressed file is cut off ({error})"
                raise StoppedError("truncated_file", message, number + 1, b"".join(pieces)) from error
            except (gzip.BadGzipFile, zlib.error) as error:
                message = f"the compressed data is damaged ({error}); what came before may be damaged too"
                raise StoppedError("corrupt_file", message, number + 1, b"".join(pieces)) from error
            except OSError as error:
                message = f"reading failed here ({error})"
                raise StoppedError("unreadable_file", message, number + 1, b"".join(pieces)) from error
            if chunk and b"\n" not in chunk:
                pieces.append(chunk)
                continue
            *whole, rest = b"".join([*pieces, chunk]).split(b"\n")
            for line in whole if chunk else [*whole, rest]:
                number += 1
                yield number, line
            if not chunk:
                return
            pieces = [rest]


def _read_json_lines(path: Path) -> Iterator[RawRecord]:
    try:
        for number, line in read_lines(path):
            if number == 1:
                line = line.removeprefix(BOM)
            if line.strip():
                yield parse_line(number, line)
    except StoppedError as stop:
        yield from read_last_line(stop)


def read_last_line(stop: StoppedError) -> Iterator[RawRecord]:
    """What reading JSON Lines ends with where it can't go on: perhaps a last record, and why it stopped."""
    last = parse_line(stop.line, stop.rest)
    if last.reason:
        last = RawRecord(stop.line, _as_text(stop.rest), stop.reason, str(stop))
    else:  # cut off right behind a whole record
        yield last
        last = RawRecord(stop.line + 1, "", stop.reason, str(stop))
    yield last


def parse_line(number: int, line: bytes) -> RawRecord:
    """The record of one line of JSON Lines, which is not blank; a line feed at its end is no part of it.

    orjson reads nearly all lines. What it refuses, or reads as something other than Python's reader does (integers
    beyond 64 bits), is left to Python's, which also says what is wrong.
    """
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return _parse_carefully(number, line)
    if type(value) is not dict or _holds_large_number(value):
        return _parse_carefully(number, line)
    return RawRecord(number, value)


def _holds_large_number(value: dict[str, Any]) -> bool:
    holders: list[Any] = [value]  # objects and arrays
    for holder in holders:
        for item in holder.values() if type(holder) is dict else holder:
            kind = type(item)
            if kind is str:
                continue  # most are
            if kind is dict or kind is list:
                holders.append(item)
            elif kind is float and not -_LARGE < item < _LARGE:
                return True
    return False


def _parse_carefully(number: int, line: bytes) -> RawRecord:
    line = line.removesuffix(b"\n")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return RawRecord(number, _as_text(line), "not_utf8", f"byte {error.start} is not UTF-8 ({error.reason})")
    record, end = _decode(number, text, 0)
    if not record.reason and text[end:].strip():
        return RawRecord(number, text, "broken_json", f"more text follows the object: {text[end:].strip()[:40]!r}")
    return record


def _decode(number: int, text: str, start: int) -> tuple[RawRecord, int]:
    """The JSON value at `start` as a record, and the index behind it, or -1 where there is no telling."""
    strange: list[str] = []  # NaN, Infinity, and numbers too large for a float

    def read_float(digits: str) -> float:
        value = float(digits)
        if math.isinf(value):
            strange.append(digits)
        return value

    decoder = json.JSONDecoder(parse_constant=strange.append, parse_float=read_float)
    try:
        value, end = decoder.raw_decode(text, _skip_space(text, start))
    except json.JSONDecodeError as error:
        return RawRecord(number, text[start:], "broken_json", f"{error.msg} at column {error.colno}"), -1
    except (ValueError, RecursionError) as error:
        message = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        return RawRecord(number, text[start:], "broken_json", message), -1
    if strange:
        return RawRecord(number, text[start:end], "broken_json", f"{strange[0][:40]} is no JSON number"), end
    if not isinstance(value, dict):
        message = f"expected a JSON object, found {type(value).__name__}"
        return RawRecord(number, text[start:end], "not_an_object", message), end
    return RawRecord(number, value), end


def _read_array(path: Path) -> Iterator[RawRecord]:
    pieces: list[bytes] = []
    stop = None
    try:
        for _, piece in read_lines(path):
            pieces.append(piece)
    except StoppedError as error:
        stop = error
        pieces.append(error.rest)
    text = b"\n".join(pieces).removeprefix(BOM).decode("utf-8", "surrogateescape")
    line, counted = 1, 0
    start = _skip_space(text, _skip_space(text, 0) + 1)  # behind the bracket
    while not text.startswith("]", start):
        line, counted = line + text.count("\n", counted, start), start
        record, end = _decode(line, text, start)
        if end < 0 and stop:
            record = RawRecord(line, text[start:], stop.reason, str(stop))
        yield record
        if end < 0:
            return
        start = _skip_space(text, end)
        if text.startswith(",", start):
            start = _skip_space(text, start + 1)
    if text[start + 1 :].strip():
        line += text.count("\n", counted, start)
        yield RawRecord(line, text[start + 1 :], "broken_json", "more text follows the array")


def _read_csv(path: Path, numeric: Collection[str]) -> Iterator[RawRecord]:
    csv.field_size_limit(sys.maxsize)  # the default refuses long responses
    taken: list[str] = []  # the lines of the row being read

    def texts() -> Iterator[str]:
        for _, line in read_lines(path):
            # What is not UTF-8 becomes lone surrogates, which the adapters refuse by column.
            taken.append(line.removeprefix(BOM).decode("utf-8", "surrogateescape") + "\n")
            yield taken[-1]

    rows = csv.reader(texts(), strict=True)
    header: list[str] | None = None
    while True:
        begin = rows.line_num + 1
        taken.clear()
        try:
            row = next(rows)
        except StopIteration:
            return
        except StoppedError as stop:
            yield RawRecord(begin, "".join(taken) + _as_text(stop.rest), stop.reason, str(stop))
            return
        except csv.Error as error:
            yield RawRecord(begin, "".join(taken), "broken_csv", str(error))
            continue
        if header is None:
            header = row
            twice = sorted({name for name in row if row.count(name) > 1})
            if twice:
                raise DataError(f"{path}: column {twice[0]!r} stands more than once in the header; rename one of them")
        elif len(row) == len(header):
            cells = zip(header, row, strict=True)
            yield RawRecord(begin, {key: _number(cell) if key in numeric else cell for key, cell in cells})
        elif row:
            message = f"expected {len(header)} cells as in the header, found {len(row)}"
            yield RawRecord(begin, "".join(taken), "broken_csv", message)


def _number(cell: str) -> int | float | str | None:
    if not cell.strip():
        return None
    if re.fullmatch(r"\s*-?[0-9]{1,300}(\.[0-9]{1,300})?\s*", cell):
        return float(cell) if "." in cell else int(cell)
    return cell


def _read_parquet(path: Path) -> Iterator[RawRecord]:
    row = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH):
                yield from read_table(row + 1, batch)
                row += batch.num_rows
    except (OSError, ValueError, pyarrow.ArrowException) as error:  # a damaged name of a column is a ValueError
        yield RawRecord(row + 1, "", "unreadable_file", f"reading failed here ({error})")


def read_table(number: int, batch: pyarrow.RecordBatch) -> Iterator[RawRecord]:
    """The records of a table's rows, of which the first has this number."""
    try:
        rows = batch.to_pylist()
    except ValueError:  # one of them is broken
        yield from (_table_row(number + index, batch.slice(index, 1)) for index in range(batch.num_rows))
    else:
        yield from (RawRecord(number + index, row) for index, row in enumerate(rows))


def _table_row(number: int, batch: pyarrow.RecordBatch) -> RawRecord:
    try:
        return RawRecord(number, batch.to_pylist()[0])
    except ValueError as error:  # text that is not UTF-8, or a time that Python can't hold
        return RawRecord(number, "", "broken_row", str(error))


def _skip_space(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    return match.end() if match else start


def _as_text(content: bytes) -> str:
    return content.decode("utf-8", "replace")
