"""Manifests: whole or not at all, versioned, the same bytes for the same content."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from rmkit.errors import DataError
from rmkit.manifest import FORMAT_VERSION, read_json, sha256_file, write_json


def test_what_is_written_is_read_back_with_its_version(tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    write_json(file, {"rows": 3, "name": "größe"})
    assert read_json(file) == {"format_version": FORMAT_VERSION, "rows": 3, "name": "größe"}
    before = file.read_bytes()
    write_json(file, {"rows": 3, "name": "größe"})
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_value_that_json_can_not_carry_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    write_json(file, {"loss": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(file, {"loss": float("nan")})
    assert read_json(file)["loss"] == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"format_version": 2}', "format_version 2 is unknown; this rmkit reads 1"),
        ("{}", "format_version None is unknown"),
        ("[1]", "expected a JSON object, found list"),
        ('{"format_version": 1', "can't be read"),
        (b"\xff\xfe", "can't be read"),
    ],
)
def test_a_broken_or_unknown_file_is_refused_by_name(tmp_path: Path, text: str | bytes, reason: str) -> None:
    file = tmp_path / "manifest.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=rf"manifest\.json: {reason}"):
        read_json(file)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.json: can't be read"):
        read_json(tmp_path / "absent.json")


def test_the_checksum_is_that_of_the_bytes(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"rmkit" * 100_000)
    assert sha256_file(file) == hashlib.sha256(b"rmkit" * 100_000).hexdigest()
