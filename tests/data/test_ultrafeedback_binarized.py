from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rmkit.data import DATASETS
from rmkit.data.dataset import RecordError
from rmkit.data.ultrafeedback_binarized import read_record
from rmkit.preparation.conversion import Refusal, convert_records
from rmkit.raw.files import read_records
from rmkit.rubric import Attribute, Rubric, load_rubric
from rmkit.schema import RatedResponse

TEXTS = {"prompt": "Name a bird.", "chosen": "A wren.", "rejected": "A bat."}


def messages(prompt: str, response: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


PUBLISHED = {
    "prompt": "Name a bird.",
    "prompt_id": "0a",
    "chosen": messages("Name a bird.", "A wren."),
    "rejected": messages("Name a bird.", "A bat."),
    "messages": messages("Name a bird.", "A wren."),
    "score_chosen": 8.5,
    "score_rejected": 3.0,
}


def test_the_real_pairs_keep_their_scores_and_ties(shared: Path) -> None:
    path = shared / "data" / "ultrafeedback_binarized" / "train_clean.jsonl.gz"
    dataset = DATASETS["ultrafeedback_binarized"]
    with gzip.open(path, "rt", encoding="utf-8") as file:
        raw = [json.loads(line) for line in file]
    scores = [(record["metadata"]["score_chosen"], record["metadata"]["score_rejected"]) for record in raw]
    assert sum(chosen == rejected for chosen, rejected in scores) == 111  # 11 %
    assert {2 * score for pair in scores for score in pair} <= set(range(2, 21))

    # A scale of 19 steps holds every half, so that nothing is lost and each row can be compared.
    halves = Rubric("halves", (Attribute("overall", "Overall", minimum=0, maximum=18),))
    outcomes = list(convert_records(dataset, halves, read_records(path), path.name))
    refused = Counter(outcome.reason for outcome in outcomes if isinstance(outcome, Refusal))
    assert refused == {"same_response": 4, "empty_response": 2} and len(outcomes) == 1000
    ties = 0
    for record, pair, outcome in zip(raw, scores, outcomes, strict=True):
        if isinstance(outcome, Refusal):
            continue
        chosen, rejected = outcome
        assert isinstance(chosen, RatedResponse) and isinstance(rejected, RatedResponse)
        assert (chosen.response, rejected.response) == (record["chosen"], record["rejected"])
        assert (chosen.scores["overall"], rejected.scores["overall"]) == tuple(2 * (score - 1) for score in pair)
        assert chosen.derived == rejected.derived == ()
        ties += chosen.scores == rejected.scores
    assert ties == 110  # one of the 111 holds the same text twice

    rows = convert_records(dataset, load_rubric(dataset.rubric), read_records(path), path.name)
    kept = [outcome for outcome in rows if not isinstance(outcome, Refusal)]
    assert all(
        chosen.scores["overall"] >= rejected.scores["overall"]  # type: ignore[union-attr]
        for chosen, rejected in kept
    )


def test_all_forms_give_the_same_rows() -> None:
    plain = list(read_record({**TEXTS, "score_chosen": 8.5, "score_rejected": 3.0}))
    assert list(read_record(PUBLISHED)) == plain
    assert list(read_record({**TEXTS, "metadata": {"score_chosen": 8.5, "score_rejected": 3.0}})) == plain
    assert list(read_record({**TEXTS, "score_chosen": "8.5", "score_rejected": "3.0"})) == plain  # as CSV has it
    assert [(found.response, found.ratings) for found in plain] == [
        ("A wren.", {"overall": 8.5}),
        ("A bat.", {"overall": 3}),
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chosen": PUBLISHED["rejected"]}, "same_response"),
        ({"chosen": messages("Name a bird.", " ")}, "empty_response"),
        ({"chosen": messages("Name a bird.", None)}, "empty_response"),
        ({"chosen": messages("Name a bird.", ["A wren."])}, "wrong_type"),
        ({"chosen": messages("Name a bird.", "\udfff")}, "broken_text"),
        ({"chosen": messages("Name two birds.", "A wren.")}, "broken_turns"),
        ({"chosen": [{"role": "user", "content": "Name a bird."}]}, "broken_turns"),
        ({"chosen": [{"role": "assistant", "content": "A wren."}]}, "broken_turns"),
        (
            {"chosen": [{"role": "system", "content": "Be brief."}, *messages("Name a bird.", "A wren.")]},
            "prefix_differs",
        ),
        ({"chosen": []}, "broken_turns"),
        ({"chosen": None}, "empty_response"),
        ({"chosen": 8}, "wrong_type"),
        ({"prompt": ""}, "empty_prompt"),
        ({"score_chosen": None}, "rating_missing"),
    ],
)
def test_a_record_that_is_no_pair_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        list(read_record({**PUBLISHED, **change}))
    assert caught.value.reason == reason


def test_scores_are_looked_for_where_they_may_be() -> None:
    for record, match in (
        (TEXTS, "column 'score_chosen' is missing"),
        ({**TEXTS, "metadata": {}}, "column 'score_chosen' is missing"),
        ({**TEXTS, "metadata": None}, "column 'metadata': expected an object"),
        ({**TEXTS, "score_chosen": 8, "metadata": {"score_rejected": 3}}, "column 'score_rejected' is missing"),
    ):
        with pytest.raises(RecordError, match=match):
            list(read_record(record))
