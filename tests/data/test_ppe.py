from __future__ import annotations

from typing import Any

import pytest

from rmkit.data.dataset import RecordError
from rmkit.data.ppe_correctness import PARTS, read_record
from rmkit.data.ppe_preference import PPE_PREFERENCE
from rmkit.data.ppe_preference import read_record as read_vote
from rmkit.preparation.conversion import convert_records
from rmkit.raw.files import RawRecord
from rmkit.rubric import load_rubric
from rmkit.schema import RatedResponse

BEST_OF_K = {
    "question_id": "q1",
    "model_name": "small-2b",
    "prompt": "6 * 7?",
    "problem": "6 * 7?",
    "scores": [False, True, True, False],
    "response_1": "40",
    "response_2": "42",
    "response_3": "It is 42.",
    "response_4": "41",
    "sampled_conflict_pairs": [[0, 1], [2, 3]],
}

VOTE = {
    "question_id": "v1",
    "winner": "model_b",
    "model_a": "a",
    "model_b": "b",
    "prompt": "Hi!",
    "response_1": "Hello!",
    "response_2": "Hi there!",
    "language": "English",
    "is_code": False,
    "hard_prompt": None,
    "easy_prompt": True,
    "if_prompt": False,
    "math_prompt": False,
}


def test_metadata_restores_the_published_order() -> None:
    (pair,) = read_record(BEST_OF_K)
    at = dict(zip(pair.metadata["chosen_positions"], pair.chosen, strict=True))
    at |= dict(zip(pair.metadata["rejected_positions"], pair.rejected, strict=True))
    assert [at[position] for position in range(4)] == [BEST_OF_K[f"response_{number}"] for number in (1, 2, 3, 4)]
    assert pair.metadata["sampled_conflict_pairs"] == [[0, 1], [2, 3]]


@pytest.mark.parametrize(("column", "part"), PARTS.items())
def test_each_part_is_told_by_its_own_column(column: str, part: str) -> None:
    record = {**BEST_OF_K, **dict.fromkeys(PARTS), column: ["x"]}  # one table of all parts has null elsewhere
    (pair,) = read_record(record)
    assert (pair.subset, pair.id) == (part, f"{part}/q1/small-2b")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"problem": None}, "missing_column"),
        ({"options": ["40", "42"]}, "unknown_part"),
        ({"scores": [0, 1, 1, 0]}, "wrong_type"),
        ({"scores": "0110"}, "wrong_type"),
        ({"scores": []}, "wrong_count"),
        ({"scores": [False, True, True]}, "wrong_count"),
        ({"scores": [False, True, True, False, True]}, "missing_column"),
        ({"scores": [True] * 4}, "one_sided"),
        ({"scores": [False] * 4}, "one_sided"),
        ({"response_3": ""}, "empty_response"),
        ({"question_id": None}, "empty_id"),
        ({"model_name": None}, "empty_model_name"),
        ({"prompt": 5}, "wrong_type"),
        ({"sampled_conflict_pairs": None}, "wrong_type"),
        ({"sampled_conflict_pairs": [0, 1]}, "wrong_pair"),
        ({"sampled_conflict_pairs": [[0, 1, 2]]}, "wrong_pair"),
        ({"sampled_conflict_pairs": [[0, 4]]}, "wrong_pair"),
        ({"sampled_conflict_pairs": [[-1, 1]]}, "wrong_pair"),
        ({"sampled_conflict_pairs": [[False, True]]}, "wrong_pair"),
        ({"sampled_conflict_pairs": [[1, 2]]}, "wrong_pair"),
    ],
)
def test_what_is_no_best_of_k_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        list(read_record({**BEST_OF_K, **change}))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("winner", "scores"), [("model_a", [5, 1]), ("model_b", [1, 5]), ("tie", [3, 3]), ("tie (bothbad)", [3, 3])]
)
def test_votes_become_scores_by_the_rule_margin(winner: str, scores: list[int]) -> None:
    records = [RawRecord(1, {**VOTE, "winner": winner})]
    (rows,) = convert_records(PPE_PREFERENCE, load_rubric("overall"), records, "file", rule="margin")
    assert isinstance(rows, tuple)
    assert [row.scores["overall"] for row in rows if isinstance(row, RatedResponse)] == scores


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"winner": "model_c"}, "unknown_winner"),
        ({"winner": {"model_a": 1}}, "unknown_winner"),
        ({"response_2": " "}, "empty_response"),
        ({"prompt": ["Hi!"]}, "wrong_type"),
        ({"question_id": ""}, "empty_id"),
        ({"language": None}, "empty_subset"),
        ({"model_a": None}, "empty_model_name"),
        ({"is_code": "no"}, "wrong_type"),
        ({"math_prompt": 1}, "wrong_type"),
    ],
)
def test_what_is_no_vote_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        list(read_vote({**VOTE, **change}))
    assert caught.value.reason == reason
