from __future__ import annotations

from typing import Any

import pytest

from rmkit.data.dataset import RecordError
from rmkit.data.reward_bench import read_record

RECORD = {
    "prompt": "Greet me.",
    "chosen": "Hello!",
    "chosen_model": "a",
    "rejected": "Go.",
    "rejected_model": "b",
    "subset": "math-prm",
    "id": 3,
}


def test_an_id_may_be_text_as_in_csv() -> None:
    (from_text,) = read_record({**RECORD, "id": "3"})
    (from_number,) = read_record(RECORD)
    assert from_text == from_number
    assert from_number.id == "math-prm/3"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chosen": ""}, "empty_response"),
        ({"rejected": None}, "empty_response"),
        ({"rejected": "Hello!"}, "same_response"),
        ({"prompt": " \n"}, "empty_prompt"),
        ({"subset": ""}, "empty_subset"),
        ({"id": True}, "wrong_type"),
        ({"id": 3.0}, "wrong_type"),
        ({"id": None}, "empty_id"),
        ({"id": "\ud800"}, "broken_text"),
        ({"chosen": ["Hello!"]}, "wrong_type"),
        ({"chosen_model": 5}, "wrong_type"),
    ],
)
def test_a_record_that_is_no_pair_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        list(read_record({**RECORD, **change}))
    assert caught.value.reason == reason
