from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from rmkit.errors import DataError
from rmkit.raw.files import RawRecord, read_records

Read = Callable[..., list[RawRecord]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """`read(name, content, numeric=())`: the records of a file with that content."""

    def read_content(name: str, content: bytes, numeric: tuple[str, ...] = ()) -> list[RawRecord]:
        (tmp_path / name).write_bytes(content)
        return list(read_records(tmp_path / name, numeric))

    return read_content


def brief(records: list[RawRecord]) -> list[tuple]:
    """Lines with what was read, or why not."""
    return [(record.line, record.reason or record.content) for record in records]


TWO = b'{"a": 1}\n{"a": "x\\ny"}\n'
READ_TWO = [(1, {"a": 1}), (2, {"a": "x\ny"})]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.json.gz"])
def test_json_lines(read: Read, name: str) -> None:
    content = gzip.compress(TWO) if name.endswith(".gz") else TWO
    assert brief(read(name, content)) == READ_TWO


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"\n \n", []),
        (b'\xef\xbb\xbf{"a": 1}', [(1, {"a": 1})]),
        (b'{"a": 1}\r\n\r\n{"a": 2}', [(1, {"a": 1}), (3, {"a": 2})]),
        ('{"a": "x\u2028y\x85z"}\n{"a": 2}'.encode(), [(1, {"a": "x\u2028y\x85z"}), (2, {"a": 2})]),
        (b'{"a": 1\n{"a": 2}\n', [(1, "broken_json"), (2, {"a": 2})]),
        (b'{"a": 1} {"a": 2}\n{"a": 3}\n', [(1, "broken_json"), (2, {"a": 3})]),
        (b'{"a": NaN}\n{"a": -Infinity}\n{"a": 1e999}\n', [(n, "broken_json") for n in (1, 2, 3)]),
        (b'{"a": ' + b"9" * 5000 + b"}\n", [(1, "broken_json")]),
        (b"[" * 100_000 + b"\n" + TWO[:9], [(1, "broken_json"), (2, {"a": 1})]),
        (b'[1]\n"x"\nnull\n7\n', [(n, "not_an_object") for n in (1, 2, 3, 4)]),
        (b'{"a": "\xff"}\n{"a": 2}\n', [(1, "not_utf8"), (2, {"a": 2})]),
        (b"\x00\x01\n", [(1, "broken_json")]),
        ('{"a": 1}\n'.encode("utf-16"), [(1, "not_utf8"), (2, "broken_json")]),
    ],
)
def test_json_lines_that_are_broken_are_handed_on(read: Read, content: bytes, expected: list) -> None:
    assert brief(read("a.jsonl", content)) == expected


def test_a_broken_line_keeps_its_text_and_says_where(read: Read) -> None:
    (record,) = read("a.jsonl", b'{"prompt": "hello", oops}\n')
    assert record.content == '{"prompt": "hello", oops}'
    assert "column 21" in record.message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[]", []),
        (b' [\n{"a": 1},\n\n{"a":\n2}\n]\n', [(2, {"a": 1}), (4, {"a": 2})]),
        (
            b'[{"a": 1}, 5, {"a": NaN}, {"a": 2}]',
            [(1, {"a": 1}), (1, "not_an_object"), (1, "broken_json"), (1, {"a": 2})],
        ),
        (b'[\n{"a": 1},\n{"a": oops},\n{"a": 2}]', [(2, {"a": 1}), (3, "broken_json")]),
        (b'[\n{"a": 1},\n', [(2, {"a": 1}), (3, "broken_json")]),
        (b'[{"a": 1}]\nmore', [(1, {"a": 1}), (1, "broken_json")]),
    ],
)
def test_json_arrays(read: Read, content: bytes, expected: list) -> None:
    assert brief(read("a.json", content)) == expected


def test_csv_gives_numbers_only_where_they_are_due(read: Read) -> None:
    content = b'\xef\xbb\xbftext,score\r\n"two\nlines, ""quoted""",3\r\n42,2.5\r\n\r\nx,\r\ny,four\r\n'
    assert brief(read("a.csv", content, numeric=("score",))) == [
        (2, {"text": 'two\nlines, "quoted"', "score": 3}),
        (4, {"text": "42", "score": 2.5}),
        (6, {"text": "x", "score": None}),
        (7, {"text": "y", "score": "four"}),
    ]


def test_csv_rows_that_are_broken_are_handed_on(read: Read) -> None:
    content = b'a,b\n1,2\n3\n4,5,6\n"x"y,7\n8,9\n"open,1\n2,3\n'
    records = read("a.csv", content)
    assert brief(records) == [
        (2, {"a": "1", "b": "2"}),
        (3, "broken_csv"),
        (4, "broken_csv"),
        (5, "broken_csv"),
        (6, {"a": "8", "b": "9"}),
        (7, "broken_csv"),
    ]
    assert isinstance(records[-1].content, str) and records[-1].content.startswith('"open,1\n2,3\n')


def test_csv_with_a_column_twice_is_refused(read: Read) -> None:
    with pytest.raises(DataError, match="column 'b' stands more than once"):
        read("a.csv", b"a,b,b\n1,2,3\n")


def test_csv_fields_may_be_huge(read: Read) -> None:
    (record,) = read("a.csv", b"a\n" + b"x" * 1_000_000 + b"\n")
    assert record.content == {"a": "x" * 1_000_000}


def test_parquet_counts_rows(tmp_path: Path) -> None:
    rows = [{"text": f"row {n}", "score": n if n % 3 else None} for n in range(600)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=100)
    records = list(read_records(tmp_path / "a.parquet"))
    assert [record.content for record in records] == rows
    assert [record.line for record in records] == list(range(1, 601))


def test_a_parquet_row_that_python_cannot_hold_is_handed_on(tmp_path: Path) -> None:
    good, bad = pyarrow.array([b"good", b"\xff", b"fine"]).view(pyarrow.string()), pyarrow.array([1, 2, 3])
    pyarrow.parquet.write_table(pyarrow.table({"text": good, "n": bad}), tmp_path / "a.parquet")
    assert brief(list(read_records(tmp_path / "a.parquet"))) == [
        (1, {"text": "good", "n": 1}),
        (2, "broken_row"),
        (3, {"text": "fine", "n": 3}),
    ]


def test_a_damaged_parquet_keeps_the_rows_before(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"n": range(512)})
    pyarrow.parquet.write_table(table, path, row_group_size=256, compression="gzip", use_dictionary=False)
    with pyarrow.parquet.ParquetFile(path) as file:
        start = file.metadata.row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[start + 60 : start + 90] = bytes(30)
    path.write_bytes(bytes(content))
    *good, last = read_records(path)
    assert [record.content for record in good] == [{"n": n} for n in range(256)]
    assert (last.line, last.reason) == (257, "unreadable_file")


def test_a_parquet_file_with_a_damaged_column_name_fails_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"response": ["a"]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"response", b"res\xff\xfense"))
    with pytest.raises(DataError, match=r"a\.parquet: can't be read"):
        read_records(path)


def many_lines() -> bytes:
    """Lines that compress badly, so that a cut falls between them."""
    return b"".join(json.dumps({"n": n, "noise": str(hash((n, n * n)))}).encode() + b"\n" for n in range(3000))


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_gzip_keeps_what_comes_before(read: Read, share: float) -> None:
    whole = read("whole.jsonl.gz", gzip.compress(many_lines()))
    compressed = gzip.compress(many_lines())
    *good, last = read("cut.jsonl.gz", compressed[: int(len(compressed) * share)])
    assert len(whole) == 3000 and 500 < len(good) < 3000
    assert good == whole[: len(good)]
    assert (last.reason, last.line) == ("truncated_file", len(good) + 1)
    assert "cut off" in last.message
    if last.content:
        assert many_lines().split(b"\n")[len(good)].startswith(str(last.content).encode())


def test_a_gzip_without_its_end_keeps_every_row_and_says_so(read: Read) -> None:
    *good, last = read("cut.jsonl.gz", gzip.compress(TWO.rstrip())[:-6])
    assert brief(good) == READ_TWO
    assert (last.line, last.reason, last.content) == (3, "truncated_file", "")


def test_a_damaged_gzip_says_so(read: Read) -> None:
    compressed = bytearray(gzip.compress(many_lines()))
    compressed[-6] ^= 255  # in the checksum
    *good, last = read("a.jsonl.gz", bytes(compressed))
    assert len(good) == 3000
    assert last.reason == "corrupt_file" and "damaged" in last.message


@pytest.mark.parametrize("name", ["a.csv.gz", "a.json.gz"])
def test_other_truncated_formats_keep_what_comes_before(read: Read, name: str) -> None:
    rows = [{"n": n, "noise": str(hash((n, -n)))} for n in range(3000)]
    if name == "a.csv.gz":
        text = "n,noise\n" + "".join(f'{row["n"]},"{row["noise"]}\n"\n' for row in rows)
    else:
        text = json.dumps(rows, indent=1)
    compressed = gzip.compress(text.encode())
    *good, last = read(name, compressed[: len(compressed) // 2], ("n",))
    assert 500 < len(good) < 3000
    assert [record.content["n"] for record in good if isinstance(record.content, dict)] == list(range(len(good)))
    assert last.reason == "truncated_file"
    assert last.line > good[-1].line


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.txt", TWO, "unknown format '.txt'; use .jsonl"),
        ("a.parquet.gz", TWO, "unknown format"),
        ("a.jsonl.gz", TWO, "Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress(TWO, mtime=0)[:10], "ended before"),
        ("a.parquet", TWO, "can't be read"),
    ],
)
def test_a_file_that_is_none_fails_at_once(tmp_path: Path, name: str, content: bytes, match: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=match):
        read_records(tmp_path / name)  # not iterated


def test_a_file_that_is_not_there_fails_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: can't be read"):
        read_records(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    "line",
    [
        '{"a": 12345678901234567890123, "b": [{"c": -9223372036854775809}]}',
        '{"a": 18446744073709551615, "b": 1e18, "c": -0.0}',
        '{"a": "\\ud800", "b": "\\ud83d\\ude00"}',
        '{"a": 1, "a": 2}',
        '{"a": 5e300}',
    ],
)
def test_numbers_and_escapes_are_read_as_python_reads_them(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(line + "\n", "utf-8")
    (record,) = read_records(tmp_path / "a.jsonl")
    assert record == RawRecord(1, json.loads(line))
    assert repr(record.content) == repr(json.loads(line))
