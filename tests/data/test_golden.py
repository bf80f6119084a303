"""Each adapter on 3 to 6 raw records: `golden/NAME/input.jsonl` and, written by hand, `expected.json`.

The expected file lists what becomes of the records, in their order and by the data set's own rule: the rows of those
that are accepted, and `{"line": 3, "refused": "REASON"}` for those that are not. A row's prompt is left out: it is the
rubric, which is the same everywhere, with the conversation and the response, which stand there anyway.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rmkit.data import DATASETS
from rmkit.preparation.conversion import Outcome, Refusal, Row, convert_records, row_to_dict
from rmkit.prompts import render_prompt
from rmkit.raw.files import RawRecord, read_records
from rmkit.rubric import Rubric, load_rubric
from rmkit.schema import RatedResponse
from rmkit.scores import parse_scores

GOLDEN = Path(__file__).parent / "golden"


def rubric_of(name: str) -> Rubric | None:
    dataset = DATASETS[name]
    return load_rubric(dataset.rubric) if dataset.rubric and dataset.rule != "pairs" else None


def convert(name: str, records: list[RawRecord]) -> list[Outcome]:
    return list(convert_records(DATASETS[name], rubric_of(name), records, "input.jsonl"))


def show(row: Row, rubric: Rubric | None) -> dict[str, Any]:
    """The row as it stands in the expected file, after its prompt and its score sequence were checked."""
    if not isinstance(row, RatedResponse):
        return row.to_dict()
    assert rubric is not None
    used = row.rubric or rubric
    data = row_to_dict(row, rubric)
    text = render_prompt(used, row.conversation, row.response, row.reference)
    assert data.pop("prompt") == [{"role": "user", "content": text}]
    (completion,) = data["completion"]
    assert completion["role"] == "assistant"
    data["completion"] = completion["content"]
    assert parse_scores(used, data["completion"]) == row.scores
    return data


def test_every_data_set_has_golden_rows() -> None:
    assert sorted(DATASETS) == sorted(folder.name for folder in GOLDEN.iterdir())
    assert len(DATASETS) >= 3


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_rows_are_as_expected(name: str) -> None:
    records = list(read_records(GOLDEN / name / "input.jsonl"))
    assert 3 <= len(records) <= 6
    found = []
    for outcome in convert(name, records):
        if isinstance(outcome, Refusal):
            assert outcome.message
            found.append({"line": outcome.line, "refused": outcome.reason})
        else:
            assert outcome, "an accepted record gives a row"
            found += [show(row, rubric_of(name)) for row in outcome]
    expected = json.loads((GOLDEN / name / "expected.json").read_text("utf-8"))
    assert found == expected
    assert [list(row) for row in found] == [list(row) for row in expected]  # the order of keys, too


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_a_missing_column_is_named(name: str) -> None:
    """A record that lacks a column is refused and names it, or the column says nothing; its neighbours stay."""
    records = list(read_records(GOLDEN / name / "input.jsonl"))
    before = convert(name, records)
    index = next(i for i, outcome in enumerate(before) if not isinstance(outcome, Refusal))
    whole = records[index]
    assert isinstance(whole.content, dict)
    needed = []
    for column in whole.content:
        cut = RawRecord(whole.line, {key: value for key, value in whole.content.items() if key != column})
        after = convert(name, [*records[:index], cut, *records[index + 1 :]])
        refusal = after[index]
        if isinstance(refusal, Refusal):
            assert (refusal.reason, refusal.line) == ("missing_column", whole.line), column
            assert refusal.id == f"{name}/{index:06d}"
            assert repr(column) in refusal.message
            needed.append(column)
        else:
            assert refusal == before[index], f"{column} is read, so it must be asked for"
        after[index] = before[index]
        assert after == before
    assert needed
