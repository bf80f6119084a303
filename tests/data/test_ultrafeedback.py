from __future__ import annotations

import re
from typing import Any

import pytest

from rmkit.data import DATASETS
from rmkit.data.dataset import RecordError
from rmkit.data.ultrafeedback import SCALES, read_record
from rmkit.preparation.conversion import Refusal, convert_records
from rmkit.raw.files import RawRecord
from rmkit.rubric import load_rubric


def completion(*ratings: Any, response: Any = "Yes.") -> dict[str, Any]:
    annotations = {key: {"Rating": rating, "Rationale": "So."} for key, rating in zip(SCALES, ratings, strict=True)}
    return {"model": "gpt-4", "response": response, "annotations": annotations, "overall_score": 10.0}


def record(*completions: Any, source: Any = "flan") -> dict[str, Any]:
    return {"source": source, "instruction": "Is it so?", "completions": list(completions)}


def convert(raw: dict[str, Any]) -> Any:
    dataset = DATASETS["ultrafeedback"]
    (outcome,) = convert_records(dataset, load_rubric(dataset.rubric), [RawRecord(1, raw)], "f")
    return outcome


def test_text_ratings_are_numbers_and_na_is_none() -> None:
    first, second = read_record(record(completion("1", "N/A", " 3 ", "5"), completion(2, "2", "4", "N/A")))
    assert first.ratings == {"instruction_following": 1, "truthfulness": 3, "helpfulness": 5}
    assert second.ratings == {"instruction_following": 2, "honesty": 2, "truthfulness": 4}
    assert first.derived == ()


def test_responses_without_any_rating_are_left_out() -> None:
    (found,) = read_record(record(completion(*["N/A"] * 4), completion("5", "5", "5", "5")))
    assert found.ratings == dict.fromkeys(SCALES, 5)
    with pytest.raises(RecordError) as caught:
        list(read_record(record(completion(*["N/A"] * 4), completion(*["N/A"] * 4))))
    assert caught.value.reason == "no_rating"


def test_questions_of_truthful_qa_are_refused_by_name() -> None:
    refusal = convert(record(completion("5", "5", "5", "5"), source="truthful_qa"))
    assert isinstance(refusal, Refusal) and refusal.reason == "truthful_qa"


def test_the_overall_score_changes_nothing() -> None:
    """Early copies of the set have a 10 where a 1 was meant, so it is no rating here."""
    worst = {**completion("1", "1", "1", "1"), "overall_score": 10.0}
    (row,) = convert(record(worst))
    assert row.scores == dict.fromkeys(SCALES, 1)


@pytest.mark.parametrize(
    ("broken", "reason", "match"),
    [
        (completion("6", "5", "5", "5"), "rating_out_of_range", "instruction_following: 6"),
        (completion("5", "five", "5", "5"), "rating_wrong_type", "honesty"),
        (
            completion("5", None, "5", "5"),
            "rating_missing",
            r"completions\[1\]: annotations, honesty: column 'Rating'",
        ),
        (completion("5", "5", "5", float("nan")), "rating_out_of_range", "helpfulness"),
        (completion("5", "5", "5", True), "rating_wrong_type", "helpfulness"),
        (completion("5", "5", "5", "5", response=None), "empty_response", r"completions\[1\]: column 'response'"),
        ({"model": "gpt-4", "response": "Yes."}, "missing_column", r"completions\[1\]: column 'annotations'"),
        ({"model": "gpt-4", "response": "Yes.", "annotations": {"honesty": 5}}, "missing_column", "following"),
        ("Yes.", "wrong_type", r"'completions'\[1\]"),
        (None, "wrong_type", r"'completions'\[1\]"),
    ],
)
def test_a_broken_completion_refuses_its_record(broken: Any, reason: str, match: str) -> None:
    refusal = convert(record(completion("5", "5", "5", "5"), broken))
    assert isinstance(refusal, Refusal) and refusal.reason == reason
    assert re.search(match, refusal.message)


@pytest.mark.parametrize(("completions", "reason"), [([], "no_response"), (None, "no_response"), ({}, "wrong_type")])
def test_completions_must_be_a_list_of_some(completions: Any, reason: str) -> None:
    refusal = convert({**record(), "completions": completions})
    assert isinstance(refusal, Refusal) and refusal.reason == reason
