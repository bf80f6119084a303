"""HelpSteer: responses of language models, rated by people on five attributes.

Source: https://huggingface.co/datasets/nvidia/HelpSteer (`train.jsonl.gz`, 35,331 records).
Licence: CC-BY-4.0, NVIDIA.
Columns: `prompt`, `response`; `helpfulness`, `correctness`, `coherence`, `complexity`, `verbosity` (integers 0-4).
Traps: scores start at 0, so a 1-5 rubric needs +1. Complexity and verbosity describe, they don't praise. A prompt
has 1-4 responses in records of their own, so split by prompt, never by record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rmkit.data.dataset import Dataset, RawResponse, read_column, read_text_column
from rmkit.schema import read_conversation

SCALES = dict.fromkeys(("helpfulness", "correctness", "coherence", "complexity", "verbosity"), (0, 4))


def read_record(record: Mapping[str, Any]) -> Iterator[RawResponse]:
    """One rated response per record."""
    yield RawResponse(
        conversation=read_conversation(read_text_column(record, "prompt", if_empty="empty_prompt")),
        response=read_text_column(record, "response", if_empty="empty_response"),
        ratings={key: read_column(record, key) for key in SCALES},
    )


HELPSTEER = Dataset(
    name="helpsteer",
    hub_id="nvidia/HelpSteer",
    revision="3ca5d59c1bc1080af195b4254e7407db60b6f450",
    split="train",
    read=read_record,
    rubric="helpsteer",
    scales=SCALES,
)
