"""Each adapter on three raw records: `golden/NAME/input.jsonl` and, written by hand, `expected.json`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rmkit.data import DATASETS
from rmkit.preparation import Refusal, convert_records, row_to_dict
from rmkit.prompts import render_prompt
from rmkit.raw_files import RawRecord, read_records
from rmkit.rubric import load_rubric
from rmkit.schema import RatedResponse
from rmkit.scores import parse_scores

GOLDEN = Path(__file__).parent / "golden"


def test_every_data_set_has_golden_rows() -> None:
    assert sorted(DATASETS) == sorted(folder.name for folder in GOLDEN.iterdir())
    assert len(DATASETS) >= 3


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_rows_are_as_expected(name: str) -> None:
    dataset = DATASETS[name]
    rubric = load_rubric(dataset.rubric) if dataset.rubric else None
    records = read_records(GOLDEN / name / "input.jsonl")
    found = []
    for outcome in convert_records(dataset, rubric, records, "input.jsonl"):
        assert not isinstance(outcome, Refusal), outcome
        for row in outcome:
            if isinstance(row, RatedResponse):
                assert rubric is not None
                data = row_to_dict(row, rubric)
                prompt = data.pop("prompt")
                text = render_prompt(rubric, row.conversation, row.response)
                assert prompt == [{"role": "user", "content": text}]
                (completion,) = data["completion"]
                assert completion["role"] == "assistant"
                data["completion"] = completion["content"]
                assert parse_scores(rubric, data["completion"]) == row.scores
            else:
                data = row.to_dict()
            found.append(data)
    expected = json.loads((GOLDEN / name / "expected.json").read_text("utf-8"))
    assert found == expected
    assert [list(row) for row in found] == [list(row) for row in expected]  # the order of keys, too


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_a_missing_column_is_named(name: str) -> None:
    dataset = DATASETS[name]
    rubric = load_rubric(dataset.rubric) if dataset.rubric else None
    first, whole, third = read_records(GOLDEN / name / "input.jsonl")
    assert isinstance(whole.content, dict)
    for column in whole.content:
        cut = RawRecord(2, {key: value for key, value in whole.content.items() if key != column})
        outcomes = list(convert_records(dataset, rubric, [first, cut, third], "input.jsonl"))
        refusal = outcomes[1]
        assert isinstance(refusal, Refusal), column
        assert (refusal.reason, refusal.line, refusal.id) == ("missing_column", 2, f"{name}/000001")
        assert repr(column) in refusal.message
        assert isinstance(outcomes[0], tuple) and isinstance(outcomes[2], tuple)
