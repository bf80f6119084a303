from __future__ import annotations

import pytest

from rmkit.data.dataset import RecordError
from rmkit.data.helpsteer2 import split_turns

A, U = "<extra_id_1>Assistant", "<extra_id_1>User"


@pytest.mark.parametrize(
    ("prompt", "turns"),
    [
        ("Hi", [("user", "Hi")]),
        ("Hi\n", [("user", "Hi\n")]),
        (f"a\n{A}\nb\n{U}\nc", [("user", "a"), ("assistant", "b"), ("user", "c")]),
        (f"a\n\n{A}\nb\n\n{U}\n\nc\n", [("user", "a\n"), ("assistant", "b\n"), ("user", "\nc\n")]),
        (f"{U}\na\n{A}\nb\n{U}\nc", [("user", "a"), ("assistant", "b"), ("user", "c")]),
        (f"a\n{A}\n\n{U}\nc", [("user", "a"), ("assistant", ""), ("user", "c")]),
        (f"what does {U} mean", [("user", f"what does {U} mean")]),
    ],
)
def test_turns_are_split_at_markers(prompt: str, turns: list[tuple[str, str]]) -> None:
    assert [(message.role, message.content) for message in split_turns(prompt)] == turns


@pytest.mark.parametrize(
    ("prompt", "reason", "match"),
    [
        (f"a\n{A}\nb", "broken_turns", "found user, assistant"),
        (f"a\n{U}\nb", "broken_turns", "found user, user"),
        (f"a\n{A}\nb\n{A}\nc\n{U}\nd", "broken_turns", "found user, assistant, assistant, user"),
        (f"a\n{A}\nb\n{U}\n \n", "empty_prompt", "last of its 3 turns"),
    ],
)
def test_turns_that_are_none_are_refused(prompt: str, reason: str, match: str) -> None:
    with pytest.raises(RecordError, match=match) as caught:
        split_turns(prompt)
    assert caught.value.reason == reason
