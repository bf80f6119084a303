"""HelpSteer2's and HelpSteer3's preferences: below 0 the first response is better; strengths become margins."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from rmkit.data import DATASETS
from rmkit.data.dataset import RecordError
from rmkit.data.helpsteer2_preference import compare_two
from rmkit.preparation.conversion import Refusal, convert_records, rescale
from rmkit.preparation.preferences import score_comparison
from rmkit.raw.files import RawRecord
from rmkit.rubric import Attribute
from rmkit.schema import Message

HELLO = (Message("user", "Hello"),)
RECORDS: dict[str, dict[str, Any]] = {
    "helpsteer2_preference": {
        "split": "train",
        "prompt": "Hello",
        "response_1": "a",
        "response_2": "b",
        "preference_strength": -2,
        "three_most_similar_preferences": [{"strength": -2}, {"strength": -2}, {"strength": -1}],
    },
    "helpsteer3": {
        "domain": "general",
        "language": "english",
        "context": [{"role": "user", "content": "Hello"}],
        "response1": "a",
        "response2": "b",
        "overall_preference": -2,
        "individual_preference": [{"score": -2}, {"score": -2}, {"score": -1}],
    },
}
VOTES = {"helpsteer2_preference": "three_most_similar_preferences", "helpsteer3": "individual_preference"}
PREFERENCE = {"helpsteer2_preference": "preference_strength", "helpsteer3": "overall_preference"}


def scores(preference: int, minimum: int, maximum: int) -> tuple[int, ...]:
    rows = score_comparison(compare_two(HELLO, "a", "b", preference, {}), "margin")
    scale = Attribute("overall", "Overall", minimum=minimum, maximum=maximum)
    return tuple(rescale(row.ratings["overall"], (0, 1), scale) for row in rows)


def test_strengths_on_scales_of_five_and_of_seven() -> None:
    assert [scores(preference, 1, 5) for preference in range(-3, 4)] == [
        (5, 1),
        (4, 2),
        (4, 2),
        (3, 3),
        (2, 4),
        (2, 4),
        (1, 5),
    ]
    assert [scores(preference, 1, 7) for preference in range(-3, 4)] == [
        (7, 1),
        (6, 2),
        (5, 3),
        (4, 4),
        (3, 5),
        (2, 6),
        (1, 7),
    ]


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_votes_are_kept_and_strength_is_a_third(name: str) -> None:
    (found,) = DATASETS[name].read(RECORDS[name])
    assert found.responses == ("a", "b") and found.ranks == (1, 2)  # type: ignore[union-attr]
    assert found.strength == Fraction(2, 3)  # type: ignore[union-attr]
    assert found.metadata["votes"] == [-2, -2, -1]


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_a_tie_makes_no_pair(name: str) -> None:
    record = RawRecord(1, {**RECORDS[name], PREFERENCE[name]: 0})
    (outcome,) = convert_records(DATASETS[name], None, [record], "f", rule="pairs")
    assert isinstance(outcome, Refusal) and outcome.reason == "tie"


@pytest.mark.parametrize("name", sorted(RECORDS))
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (4, "rating_out_of_range"),
        (0.5, "rating_wrong_type"),
        (float("inf"), "rating_wrong_type"),
        (False, "rating_wrong_type"),
        ([1], "rating_wrong_type"),
        (None, "rating_missing"),
    ],
)
def test_a_preference_that_is_none_is_refused(name: str, value: Any, reason: str) -> None:
    votes = [{key: value} for key in RECORDS[name][VOTES[name]][0]]
    for change in ({PREFERENCE[name]: value}, {VOTES[name]: votes}):
        with pytest.raises(RecordError) as caught:
            list(DATASETS[name].read({**RECORDS[name], **change}))
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        ([], "broken_turns"),
        (None, "empty_prompt"),
        ([{"role": "human", "content": "Hello"}], "broken_turns"),
        ([{"role": "user", "content": {"text": "Hello"}}], "broken_turns"),
        ([{"role": "user", "content": " "}], "broken_turns"),
        ([{"role": "user", "content": "\ud800"}], "broken_text"),
        ([["user", "Hello"]], "broken_turns"),
    ],
)
def test_a_context_that_is_no_conversation_is_refused(context: Any, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        list(DATASETS["helpsteer3"].read({**RECORDS["helpsteer3"], "context": context}))
    assert caught.value.reason == reason
