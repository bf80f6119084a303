from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from rmkit.data.llmbar import LLMBAR
from rmkit.preparation.conversion import Refusal, convert_records
from rmkit.raw.files import RawRecord, read_records
from rmkit.rubric import load_rubric
from rmkit.schema import PreferencePair, RatedResponse

FILES = {
    "case_base10": (54, {}),
    "case_base9": (54, {}),
    "case_constraint": (87, {}),
    "case_negation": (58, {}),
    "case_normal": (57, {}),
    "processed_llmeval2": (198, {"same_response": 1, "empty_response": 1}),
}


@pytest.mark.parametrize("name", FILES)
def test_real_labels_say_which_output_is_better(shared: Path, name: str) -> None:
    count, expected = FILES[name]
    records = list(read_records(shared / "data" / "llmbar_extra" / f"{name}.jsonl"))
    outcomes = list(convert_records(LLMBAR, None, records, name))
    assert len(records) == len(outcomes) == count
    refused = Counter(outcome.reason for outcome in outcomes if isinstance(outcome, Refusal))
    assert refused == expected
    better = set()
    for record, outcome in zip(records, outcomes, strict=True):
        if isinstance(outcome, Refusal):
            continue
        assert isinstance(record.content, dict)
        (pair,) = outcome
        assert isinstance(pair, PreferencePair)
        label = record.content["label"]
        assert pair.chosen == (record.content[f"output_{label}"],)
        assert pair.rejected == (record.content[f"output_{3 - label}"],)
        better.add(label)
    assert better == {1, 2}


def test_a_rule_makes_scores_of_it() -> None:
    record = RawRecord(1, {"input": "Hi", "output_1": "No.", "output_2": "Hello!", "label": 2})
    (rows,) = convert_records(LLMBAR, load_rubric("overall"), [record], "f", rule="rank")
    assert isinstance(rows, tuple)
    assert [row.scores for row in rows if isinstance(row, RatedResponse)] == [{"overall": 1}, {"overall": 5}]
