from __future__ import annotations

from typing import Any

import pytest

from rmkit.data.dataset import RecordError
from rmkit.errors import DataError
from rmkit.preparation.record_path import parse_path

RECORD = {"a": {"b": [{"c": 1}, {"c": None}]}, "x.y": 2, "rating [1-5]": 3, "d": 4, "é ü": {"z z": 5}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("d", 4), ("a.b[0].c", 1), ("a.b[-1].c", None), ("a.b[1]", {"c": None}), (["x.y"], 2),
        (["rating [1-5]"], 3), (["a", "b", 0, "c"], 1), ("é ü.z z", 5),
    ],
)  # fmt: skip
def test_paths_lead_to_values(path: Any, value: Any) -> None:
    assert parse_path(path, "here").read(RECORD) == value


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("e", "column 'e' is missing; the record has 'a', 'x.y'"),
        ("x.y", "column 'x' is missing"),
        ("a.c", "path 'a.c': 'a' has no key 'c'"),
        ("a.b[2].c", r"'a.b' has no place \[2\]; it is list"),
        ("a.b.c", "'a.b' has no key 'c'; it is list"),
        ("a[0]", r"'a' has no place \[0\]; it is dict"),
        ("d.e", "'d' has no key 'e'; it is int 4"),
    ],
)
def test_a_place_that_is_not_there_is_named(path: str, match: str) -> None:
    with pytest.raises(RecordError, match=match) as caught:
        parse_path(path, "here").read(RECORD)
    assert caught.value.reason == "missing_column"


@pytest.mark.parametrize(
    "path", ["", ".a", "a.", "a..b", "[0]", "a[b]", "a[0", "a[0]b", 5, None, [], [0], ["a", True]]
)
def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(DataError, match="my.yaml: response: expected a path such as"):
        parse_path(path, "my.yaml: response")


@pytest.mark.parametrize("path", ["a", "a.b", "a[0].b[-1]"])
def test_a_path_is_written_as_it_was_read(path: str) -> None:
    assert str(parse_path(path, "here")) == path
