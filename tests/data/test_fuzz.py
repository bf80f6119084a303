"""Whatever a raw record holds, it becomes rows or a refusal with a reason: no traceback, no score off its scale."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmkit.data import DATASETS
from rmkit.jsonl import dump_row
from rmkit.preparation.conversion import Outcome, RecordConverter, Refusal, needs_rubric
from rmkit.preparation.preferences import RULES
from rmkit.preparation.row_rendering import RowRenderer
from rmkit.raw.files import RawRecord, parse_line
from rmkit.rubric import Rubric, load_rubric
from rmkit.schema import PreferencePair, RatedResponse
from rmkit.scores import parse_scores

GOLDEN = Path(__file__).parent / "golden"
STRANGE_TEXTS = (
    "",
    " \n\t",
    "\u200b",
    "\ud800",
    "half \udfff",
    "\x00",
    "4",
    "N/A",
    "nan",
    "1e999",
    "[[4]]",
    "A>B",
    "\n\nHuman:",
)
STRANGE_NUMBERS = (math.nan, math.inf, -math.inf, 1e308, -1, 0.5, 10**400, 2**64, True, False)

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(STRANGE_TEXTS)
    | st.sampled_from(STRANGE_NUMBERS)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def good_records(name: str) -> list[dict[str, Any]]:
    """Records that can be read, from the data set's golden file."""
    lines = (GOLDEN / name / "input.jsonl").read_bytes().splitlines()
    found = [parse_line(1, line).content for line in lines if line.strip()]
    return [content for content in found if isinstance(content, dict)]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is a value in a record, outermost first."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def changed(record: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The record with another value at a place, if the place is still there."""
    record = copy.deepcopy(record)
    holder: Any = record
    for key in path[:-1]:
        try:
            holder = holder[key]
        except (KeyError, IndexError, TypeError):
            return record
    if isinstance(holder, dict) or (isinstance(holder, list) and isinstance(path[-1], int) and path[-1] < len(holder)):
        holder[path[-1]] = value
    return record


def converters(name: str) -> list[RecordConverter]:
    """One for each rule by which the data set can be read."""
    dataset = DATASETS[name]
    found = []
    for rule in RULES if dataset.rule else (None,):
        named = dataset.rubric or "overall"
        rubric = load_rubric(named) if isinstance(named, str) else named
        found.append(RecordConverter(dataset, rubric if needs_rubric(dataset, rule) else None, rule))
    return found


def check(outcome: Outcome, rubric: Rubric | None) -> None:
    """Rows whose scores are on their scales and which can be written and read, or a refusal that can be written."""
    if isinstance(outcome, Refusal):
        assert outcome.reason and outcome.message
        assert json.loads(dump_row(outcome.to_dict()))["reason"] == outcome.reason
        return
    assert outcome
    renderer = RowRenderer(rubric, 0, 0.5)
    for row in outcome:
        written = json.loads(dump_row(renderer.render(row)))
        if isinstance(row, RatedResponse):
            used = row.rubric or rubric
            assert used is not None and row.scores
            assert all(score in used[key].values for key, score in row.scores.items())
            assert parse_scores(used, written["completion"][0]["content"]) == row.scores
            assert RatedResponse.from_dict(written).scores == row.scores
            json.dumps(written["prompt"], ensure_ascii=False).encode("utf-8")
            assert renderer.name(row) in ("train", "validation")
        else:
            assert PreferencePair.from_dict(written).chosen == row.chosen


def convert(name: str, record: dict[str, Any]) -> None:
    """Convert a record by all rules, and check what comes out."""
    for converter in converters(name):
        check(converter.convert(RawRecord(1, record), 0, "a.jsonl"), converter.rubric)


def bounded(examples: int) -> Any:
    """So many examples; each test draws for one data set, so that none is left out."""
    unhealthy = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=examples, deadline=None, suppress_health_check=unhealthy)


@pytest.mark.parametrize("name", sorted(DATASETS))
@bounded(20)
@given(data=st.data())
def test_a_good_record_with_strange_values(name: str, data: st.DataObject) -> None:
    convert_changed(name, data)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(DATASETS))
@bounded(1000)
@given(data=st.data())
def test_many_good_records_with_strange_values(name: str, data: st.DataObject) -> None:
    convert_changed(name, data)


def convert_changed(name: str, data: st.DataObject) -> None:
    """Convert a good record of which one to three values are drawn anew."""
    record = data.draw(st.sampled_from(good_records(name)))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(places(record))))
        record = changed(record, path, data.draw(VALUES))
    convert(name, record)


@pytest.mark.parametrize("name", sorted(DATASETS))
@bounded(10)
@given(data=st.data())
def test_any_record(name: str, data: st.DataObject) -> None:
    columns = sorted({str(path[0]) for record in good_records(name) for path in places(record)})
    convert(name, data.draw(st.dictionaries(st.sampled_from(columns) | st.text(max_size=5), VALUES, max_size=8)))


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_each_value_replaced_by_each_strange_one(name: str) -> None:
    for record in good_records(name)[:1]:
        for path in list(places(record))[:16]:
            for value in (None, [], {}, [None], {"a": [None]}, *STRANGE_TEXTS, *STRANGE_NUMBERS):
                convert(name, changed(record, path, value))


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_large_and_deep_records(name: str) -> None:
    record = good_records(name)[0]
    deep: Any = 1
    for _ in range(3000):
        deep = [deep]
    many = {str(number): number for number in range(100_000)}
    convert(name, many)
    convert(name, {**many, **record})
    for path in list(places(record))[:3]:
        for value in ("x" * 10_000_000, deep, many):
            convert(name, changed(record, path, value))
