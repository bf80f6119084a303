from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from rmkit.errors import DataError
from rmkit.raw.chunks import CHUNK_BYTES, LinesOnDisk, cut_file
from rmkit.raw.files import RawRecord, read_records


def lines() -> bytes:
    """A byte order mark, good and bad lines, blank ones, Windows line ends, and no line feed at the end."""
    good = [json.dumps({"a": number, "b": "é" * number}).encode() for number in range(25)]
    return b"\xef\xbb\xbf" + b"\n".join(
        [
            *good[:5],
            b"",
            b'{"a": ',
            b" \t\r",
            b'{"a": NaN}',
            b"[1]",
            b'{"a": 12345678901234567890123}',
            b"\xff",
            *good[5:],
        ]
    )


FILES = {
    "a.jsonl": lines(),
    "a.jsonl.gz": gzip.compress(lines()),
    "cut.jsonl.gz": gzip.compress(lines() * 50)[:-40],
    "a.json": json.dumps([{"a": number} for number in range(23)]).encode(),
    "a.csv": b"a,b\n" + b"1,x\n" * 21 + b"1\n2,y\n",
    "blank.jsonl": b"\xef\xbb\xbf\n \n\n",
    "empty.jsonl": b"",
    "mark.jsonl": b"\xef\xbb\xbf",
}


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize("name", FILES)
def test_chunks_hold_what_the_file_holds_whatever_their_size(tmp_path: Path, name: str, size: int) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    chunks = [pickle.loads(pickle.dumps(chunk)) for chunk in cut_file(tmp_path / name, ("a",), size)]
    records = [list(chunk.read()) for chunk in chunks]
    assert [chunk.records for chunk in chunks] == [len(found) for found in records]
    assert all(0 < len(found) <= size for found in records)
    assert [record for found in records for record in found] == list(read_records(tmp_path / name, ("a",)))


@pytest.mark.parametrize("size", [1, 256, 300, 2000])
def test_parquet_is_cut_by_batches(tmp_path: Path, size: int) -> None:
    rows = [{"a": number, "b": [{"c": "x" * number}]} for number in range(700)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=300)
    chunks = [pickle.loads(pickle.dumps(chunk)) for chunk in cut_file(tmp_path / "a.parquet", size=size)]
    records = [record for chunk in chunks for record in chunk.read()]
    assert sum(chunk.records for chunk in chunks) == 700
    assert records == [RawRecord(number, row) for number, row in enumerate(rows, start=1)]


@pytest.mark.parametrize("size", [256, 512, 5000])
def test_where_parquet_is_damaged_does_not_depend_on_the_chunks(tmp_path: Path, size: int) -> None:
    rows = [{"a": number, "b": f"{number:0500}"} for number in range(3000)]
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=500, compression="gzip")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 300] = bytes(300)
    path.write_bytes(content)
    records = [record for chunk in cut_file(path, size=size) for record in chunk.read()]
    assert records == list(read_records(path))
    assert records[-1].reason == "unreadable_file"


def test_a_chunk_of_large_records_ends_early(tmp_path: Path) -> None:
    record = json.dumps({"a": "x" * (CHUNK_BYTES // 2)}).encode()
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([record] * 5))
    assert [chunk.records for chunk in cut_file(tmp_path / "a.jsonl")] == [2, 2, 1]


def test_lines_stay_on_disk_until_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines())
    *_, last = cut_file(path, size=5)
    assert isinstance(last, LinesOnDisk) and len(pickle.dumps(last)) < 500
    path.write_bytes(lines()[:40])
    with pytest.raises(DataError, match="became shorter while it was read"):
        list(last.read())
