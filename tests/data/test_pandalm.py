from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rmkit.data.dataset import RecordError
from rmkit.data.pandalm import PANDALM, read_record
from rmkit.preparation.conversion import Refusal, convert_records
from rmkit.raw.files import read_records
from rmkit.rubric import load_rubric
from rmkit.schema import PreferencePair, RatedResponse

RECORD = {
    "idx": 3,
    "cmp_key": "a_b",
    "instruction": "Translate.",
    "input": "",
    "response1": "Ja",
    "response2": "Nein",
    "annotator1": 1,
    "annotator2": 1,
    "annotator3": 2,
}


@pytest.mark.parametrize(("extra", "prompt"), [("", "Translate."), ("Yes", "Translate.\n\nYes")])
def test_the_input_follows_the_instruction(extra: str, prompt: str) -> None:
    (found,) = read_record({**RECORD, "input": extra})
    assert found.conversation[0].content == prompt


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"input": None}, "empty_input"),
        ({"input": " "}, "empty_input"),
        ({"annotator3": None}, "rating_missing"),
        ({"annotator3": 3}, "rating_out_of_range"),
        ({"annotator3": True}, "rating_wrong_type"),
        ({"response2": False}, "wrong_type"),
        ({"idx": "x"}, "rating_wrong_type"),
    ],
)
def test_what_is_no_record_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        list(read_record({**RECORD, **change}))
    assert caught.value.reason == reason


def test_real_votes_become_scores_or_pairs(shared: Path) -> None:
    path = shared / "data" / "pandalm_testset" / "testset-v1_part.jsonl.gz"
    records = list(read_records(path))
    assert len(records) == 601
    scores: Counter[tuple[tuple[int, ...], tuple[int, ...]]] = Counter()
    refused: Counter[str] = Counter()
    for outcome in convert_records(PANDALM, load_rubric("overall"), records, path.name):
        if isinstance(outcome, Refusal):
            refused[outcome.reason] += 1
            continue
        assert all(isinstance(row, RatedResponse) and row.derived == ("overall",) for row in outcome)
        pair = tuple(row.scores["overall"] for row in outcome if isinstance(row, RatedResponse))
        scores[tuple(sorted(outcome[0].metadata["votes"])), pair] += 1
    # Nothing to judge, `True` in place of a text, and an instruction of one space.
    assert refused == {"empty_response": 23, "wrong_type": 6, "empty_prompt": 1}
    assert sum(scores.values()) + refused.total() == 601
    assert {votes: pair for votes, pair in scores} == {
        (0, 0, 0): (3, 3),
        (0, 0, 1): (3, 3),
        (0, 0, 2): (3, 3),
        (0, 1, 1): (4, 2),
        (0, 2, 2): (2, 4),
        (1, 1, 1): (5, 1),
        (1, 1, 2): (4, 2),
        (1, 2, 2): (2, 4),
        (2, 2, 2): (1, 5),
    }
    assert len(scores) == 9  # no votes got two different pairs of scores
    pairs = list(convert_records(PANDALM, None, records, path.name, rule="pairs"))
    kept = [row for outcome in pairs if isinstance(outcome, tuple) for row in outcome]
    assert all(isinstance(row, PreferencePair) for row in kept)
    ties = sum(count for (_, pair), count in scores.items() if pair == (3, 3))
    assert ties == 65
    assert Counter(outcome.reason for outcome in pairs if isinstance(outcome, Refusal)) == {**refused, "tie": ties}
    assert len(kept) == 601 - refused.total() - ties
