"""Rows: what is read, and what is refused where it enters."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rmkit.errors import DataError
from rmkit.rubric import load_rubric
from rmkit.schema import (
    Judgment,
    Message,
    PreferencePair,
    RatedResponse,
    read_conversation,
    read_response,
)
from rmkit.scores import ScoreDistribution

ROW: dict[str, Any] = {
    "id": "a/1",
    "source": "a",
    "conversation": [{"role": "user", "content": "Hi"}],
    "response": "Hello.",
    "scores": {"helpfulness": 4, "correctness": None},
}


def test_a_conversation_is_a_text_or_messages_of_any_role() -> None:
    assert read_conversation("Hi") == (Message("user", "Hi"),)
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "How "}, {"type": "text", "text": "warm?"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "weather"}}]},
        {"role": "tool", "content": "21"},
        Message("user", "Thanks"),
    ]
    assert read_conversation(turns) == (
        Message("system", "Be brief."),
        Message("user", "How warm?"),
        Message("assistant", '[{"function": {"name": "weather"}}]'),
        Message("tool", "21"),
        Message("user", "Thanks"),
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "expected a text or a list"),
        (None, "expected a text or a list"),
        ({"role": "user", "content": "Hi"}, "expected a text or a list"),
        (7, "expected a text or a list"),
        ("", "last user turn is empty"),
        ([{"role": "user", "content": " \n"}], "last user turn is empty"),
        ([{"role": "system", "content": "x"}], "no user turn among 1 messages"),
        ([{"role": "human", "content": "x"}], r"conversation\[0\]: expected a message with a role of system"),
        ([Message("human", "x")], r"conversation\[0\]: expected a message with a role of system"),
        ([Message("user", 4)], r"conversation\[0\]: content must be text"),  # type: ignore[arg-type]
        (["Hi"], r"conversation\[0\]: expected a message"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "content must be text"),
        ([{"role": "user", "content": 4}], "content must be text"),
        ([{"role": ["user"], "content": "x"}], "expected a message with a role"),
    ],
)
def test_a_broken_conversation_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_conversation(value)


def test_a_response_is_a_text_or_the_messages_of_a_completion() -> None:
    assert read_response(" Hello. ") == " Hello. "
    assert read_response([{"role": "assistant", "content": "Hello."}]) == "Hello."
    several = [{"role": "assistant", "content": "Wait."}, {"role": "tool", "content": "21"}]
    assert read_response(several) == "[assistant]\nWait.\n\n[tool]\n21"
    for empty in ("", " \n\t", [], [{"role": "assistant", "content": None}], None, 3, {"content": "x"}):
        with pytest.raises(DataError, match="response: "):
            read_response(empty)


def test_a_row_is_read_whole_and_unrated_attributes_leave() -> None:
    row = RatedResponse.from_dict(
        {
            **ROW,
            "reference": "Hello!",
            "rubric": load_rubric("dist2_paper").to_dict(),
            "derived": ["helpfulness"],
            "metadata": {"true": 3},
        }
    )
    assert row.scores == {"helpfulness": 4}
    assert row.rubric == load_rubric("dist2_paper")
    assert (row.reference, row.derived, row.metadata) == ("Hello!", ("helpfulness",), {"true": 3})
    assert RatedResponse.from_dict(ROW).rubric is None


@pytest.mark.parametrize("key", ["id", "conversation", "response", "scores"])
def test_a_row_without_a_field_names_it(key: str) -> None:
    with pytest.raises(DataError, match=rf"train.jsonl:3: field '{key}' is missing"):
        RatedResponse.from_dict({k: v for k, v in ROW.items() if k != key}, "train.jsonl:3")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"scores": [4]}, "scores must"),
        ({"scores": None}, "scores must"),
        ({"reference": 4}, "reference must"),
        ({"metadata": "x"}, "metadata must"),
        ({"derived": "helpfulness"}, "derived must"),
        ({"response": ""}, "response: it is empty"),
    ],
)
def test_a_field_of_the_wrong_kind_is_refused_with_its_place(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=f"train.jsonl:3: {reason}"):
        RatedResponse.from_dict({**ROW, **change}, "train.jsonl:3")


def test_a_pair_survives_its_json_form_and_both_sides_are_lists() -> None:
    pair = PreferencePair("p", "s", (Message("user", "Hi"),), ("good", "fine"), ("bad",), {"n": 1})
    assert PreferencePair.from_dict(json.loads(json.dumps(pair.to_dict()))) == pair
    data = pair.to_dict()
    for change, reason in (
        ({"chosen": "good"}, "chosen must be a list"),
        ({"rejected": []}, "rejected must be a list"),
        ({"rejected": [""]}, r"rejected\[0\]: it is empty"),
    ):
        with pytest.raises(DataError, match=reason):
            PreferencePair.from_dict({**data, **change}, "pairs.jsonl:1")


def test_a_judgment_survives_its_json_form() -> None:
    good = Judgment({"a": ScoreDistribution((1, 2), (0.25, 0.75), 0.1)}, 0.75, prompt_tokens=9, truncated=True)
    failed = Judgment({}, None, error="too long")
    for judgment in (good, failed):
        assert Judgment.from_dict(json.loads(json.dumps(judgment.to_dict()))) == judgment


@pytest.mark.parametrize("metadata", [[1, 2], "abc", {"length": float("nan")}])
def test_a_pair_with_metadata_that_can_not_be_written_is_refused(metadata: Any) -> None:
    pair = {"id": "a", "conversation": "Hi", "chosen": ["Hello."], "rejected": ["No."], "metadata": metadata}
    with pytest.raises(DataError, match=r"file:3: metadata"):
        PreferencePair.from_dict(pair, "file:3")
