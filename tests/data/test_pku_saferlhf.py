from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rmkit.data import DATASETS
from rmkit.data.dataset import RecordError
from rmkit.data.pku_saferlhf import read_record
from rmkit.preparation.conversion import Refusal, convert_records
from rmkit.raw.files import read_records
from rmkit.rubric import load_rubric
from rmkit.schema import RatedResponse

RECORD = {
    "prompt": "May I?",
    "response_0": "Yes.",
    "response_1": "No.",
    "response_0_severity_level": 1,
    "response_1_severity_level": 0,
    "response_0_harm_category": {"Violence": True, "Drugs": False},
    "response_1_harm_category": {"Violence": False, "Drugs": False},
    "better_response_id": 0,
    "safer_response_id": 1,
}


def test_the_real_records_keep_levels_and_ids(shared: Path) -> None:
    path = shared / "data" / "noncommercial" / "pku_saferlhf_train_sample.jsonl.gz"
    dataset = DATASETS["pku_saferlhf"]
    with gzip.open(path, "rt", encoding="utf-8") as file:
        raw = [json.loads(line) for line in file]
    outcomes = list(convert_records(dataset, load_rubric(dataset.rubric), read_records(path), path.name))
    assert len(outcomes) == len(raw) == 294 and not any(isinstance(outcome, Refusal) for outcome in outcomes)
    levels: Counter[int] = Counter()
    contradictions = 0
    for record, outcome in zip(raw, outcomes, strict=True):
        assert not isinstance(outcome, Refusal)
        for i, row in enumerate(outcome):
            assert isinstance(row, RatedResponse) and row.response == record[f"response_{i}"]
            level = record[f"response_{i}_severity_level"]
            assert row.scores["safety"] == (5, 4, 2, 1)[level]
            assert record[f"is_response_{i}_safe"] == (level == 0) == (row.scores["safety"] == 5)
            assert row.scores["helpfulness"] == (5 if record["better_response_id"] == i else 1)
            assert row.metadata["is_safer"] == (record["safer_response_id"] == i)
            assert bool(row.metadata["harms"]) == (level > 0)
            assert row.derived == ("helpfulness",)
            levels[level] += 1
        safer = record["safer_response_id"]
        levels_of = [record[f"response_{i}_severity_level"] for i in (0, 1)]
        contradictions += levels_of[safer] > levels_of[1 - safer]
    assert levels == {0: 270, 1: 37, 2: 242, 3: 39}
    assert contradictions == 8  # of 49 records with two levels


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"response_1": "Yes."}, "same_response"),
        ({"response_1": ""}, "empty_response"),
        ({"better_response_id": 2}, "rating_out_of_range"),
        ({"safer_response_id": None}, "rating_missing"),
        ({"response_0_severity_level": 4}, "rating_out_of_range"),
        ({"response_0_severity_level": 1.5}, "rating_wrong_type"),
        ({"response_0_severity_level": "minor"}, "rating_wrong_type"),
        ({"response_0_harm_category": None}, "wrong_type"),
        ({"response_0_harm_category": ["Violence"]}, "wrong_type"),
    ],
)
def test_a_record_that_says_too_little_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        list(read_record({**RECORD, **change}))
    assert caught.value.reason == reason


def test_numbers_may_be_text_as_in_csv_or_floats_as_in_tables_with_gaps() -> None:
    plain = list(read_record(RECORD))
    assert list(read_record({**RECORD, "better_response_id": "0", "response_0_severity_level": 1.0})) == plain
