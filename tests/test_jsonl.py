"""JSON Lines as other programs write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmkit.errors import DataError
from rmkit.jsonl import read_jsonl


def test_a_byte_order_mark_and_windows_line_ends_are_no_content(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"id": "a"}\r\n\r\n{"id": "b"}\r\n')
    assert list(read_jsonl(file)) == [(f"{file}:1", {"id": "a"}), (f"{file}:3", {"id": "b"})]


@pytest.mark.parametrize("line", ["{broken", "[" * 200_000])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f'{{"id": "a"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"rows\.jsonl:2: not JSON"):
        list(read_jsonl(file))
