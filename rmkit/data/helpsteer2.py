"""HelpSteer2: HelpSteer's successor, with two rated responses per prompt and some prompts of several turns.

Source: https://huggingface.co/datasets/nvidia/HelpSteer2 (`train.jsonl.gz`, 20,324 records; arXiv 2406.08673).
Licence: CC-BY-4.0, NVIDIA.
Columns: `prompt`, `response`; `helpfulness`, `correctness`, `coherence`, `complexity`, `verbosity` (integers 0-4).
Traps: scores start at 0, so a 1-5 rubric needs +1. The two responses to a prompt are adjacent records. A prompt of
several turns is one text: the first user turn, then a line `<extra_id_1>Assistant` or `<extra_id_1>User` before
each further turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rmkit.data.dataset import Dataset, RawResponse, RecordError, read_column, read_text_column
from rmkit.schema import Conversation, Message

SCALES = dict.fromkeys(("helpfulness", "correctness", "coherence", "complexity", "verbosity"), (0, 4))

_MARKER = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")


def read_record(record: Mapping[str, Any]) -> Iterator[RawResponse]:
    """One rated response per record."""
    yield RawResponse(
        conversation=split_turns(read_text_column(record, "prompt", if_empty="empty_prompt")),
        response=read_text_column(record, "response", if_empty="empty_response"),
        ratings={key: read_column(record, key) for key in SCALES},
    )


def split_turns(prompt: str) -> Conversation:
    r"""The turns of a prompt; one user turn where it has no markers.

    Raises:
        RecordError: `broken_turns` if user and assistant don't take turns up to a last turn of the user's;
            `empty_prompt` if that last turn is blank.

    Example:
        >>> [m.role for m in split_turns("Hi\n<extra_id_1>Assistant\nHello!\n<extra_id_1>User\nBye")]
        ['user', 'assistant', 'user']
    """
    pieces = _MARKER.split(prompt)
    turns = [Message("user", pieces[0])]
    turns += [Message(role.lower(), text) for role, text in zip(pieces[1::2], pieces[2::2], strict=True)]
    if not pieces[0].strip() and [turn.role for turn in turns[:2]] == ["user", "user"]:
        del turns[0]  # the first turn has a marker of its own, and nothing stands before it
    expected = ["user", "assistant"] * (len(turns) // 2) + ["user"]
    if [turn.role for turn in turns] != expected:
        found = ", ".join(turn.role for turn in turns)
        raise RecordError("broken_turns", f"column 'prompt': expected turns {', '.join(expected)}; found {found}")
    if not turns[-1].content.strip():
        raise RecordError("empty_prompt", f"column 'prompt': the last of its {len(turns)} turns holds no text")
    return tuple(turns)


HELPSTEER2 = Dataset(
    name="helpsteer2",
    hub_id="nvidia/HelpSteer2",
    revision="990b2711a36180dd19d9c94b8627844866f8982a",
    split="train",
    read=read_record,
    rubric="helpsteer",
    scales=SCALES,
)
