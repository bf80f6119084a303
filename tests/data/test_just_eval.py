from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rmkit.data.just_eval import JUST_EVAL, SCALES
from rmkit.preparation.conversion import Outcome, Refusal, convert_records
from rmkit.raw.files import RawRecord, read_records
from rmkit.rubric import load_rubric
from rmkit.schema import RatedResponse

RECORD = {
    "input": "Hi",
    "output_cand": "Hello!",
    "generator_cand": "m",
    "eval_config": {"gpt": "judge"},
    "parsed_result": {"depth": {"reason": "", "score": "2"}, "safety": {"reason": "", "score": "5"}},
}


def convert(content: dict[str, Any]) -> Outcome:
    (outcome,) = convert_records(JUST_EVAL, load_rubric("just_eval"), [RawRecord(1, content)], "f")
    return outcome


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({}, "no_rating"),
        ({"depth": {"score": "N/A"}}, "no_rating"),
        ({"depth": {"score": None}}, "rating_missing"),
        ({"depth": {"score": "6"}}, "rating_out_of_range"),
        ({"depth": {"score": "0"}}, "rating_out_of_range"),
        ({"depth": {"score": "high"}}, "rating_wrong_type"),
        ({"depth": {"score": float("nan")}}, "rating_out_of_range"),
        ({"depth": {"score": True}}, "rating_wrong_type"),
        ({"depth": {"reason": "none"}}, "missing_column"),
        ({"depth": "5"}, "wrong_type"),
        ({"Depth": {"score": "5"}}, "unknown_attribute"),
        ([], "wrong_type"),
    ],
)
def test_a_result_that_says_nothing_is_refused(result: Any, reason: str) -> None:
    outcome = convert({**RECORD, "parsed_result": result})
    assert isinstance(outcome, Refusal)
    assert outcome.reason == reason


@pytest.mark.parametrize("settings", [None, {}, {"gpt": 4}, {"gpt": ""}])
def test_who_rated_must_be_said(settings: Any) -> None:
    assert isinstance(convert({**RECORD, "eval_config": settings}), Refusal)


@pytest.mark.parametrize(
    ("file", "count", "left_out"),
    [
        ("just_eval/general_multi_mtbench.jsonl", 50, {"factuality": 2}),
        ("just_eval/safety.jsonl.gz", 1600, {}),
        ("noncommercial/just_eval_general_multi.jsonl.gz", 504, {"factuality": 25, "depth": 4}),
    ],
)
def test_real_records_leave_out_what_does_not_apply(
    shared: Path, file: str, count: int, left_out: dict[str, int]
) -> None:
    path = shared / "data" / file
    records = list(read_records(path))
    outcomes = list(convert_records(JUST_EVAL, load_rubric("just_eval"), records, path.name))
    assert len(outcomes) == len(records) == count
    missing: Counter[str] = Counter()
    for record, outcome in zip(records, outcomes, strict=True):
        assert isinstance(outcome, tuple) and isinstance(record.content, dict)
        (row,) = outcome
        assert isinstance(row, RatedResponse)
        raw = {key: found["score"] for key, found in record.content["parsed_result"].items()}
        assert row.scores == {key: int(raw[key]) for key in SCALES if raw.get(key, "N/A") != "N/A"}
        missing.update(raw.keys() - row.scores.keys())
    assert missing == left_out
