"""How the rows of a batch are laid out: padded side by side, or end to end with shared beginnings once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig

from rmkit.errors import JudgeError
from rmkit.prefix_tree import PrefixTree, count_shared
from rmkit.tree_attention import find_obstacle, tree_inputs

PACKINGS = ("shared", "separate", "none")
"""Names of layouts, see `lay_out`."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the batch.

    Args:
        prompt_ids: What the judge reads, at least one token.
        completion_ids: What it writes.
        unlabelled: How many of its first completion tokens have no label.
        item: The item of the batch that it belongs to.
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    unlabelled: int
    item: int

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Prompt and completion."""
        return self.prompt_ids + self.completion_ids


def lay_out(rows: Sequence[Row], packing: str, pad_id: int) -> dict[str, Any]:
    """What the model reads, and which of its hidden states predict the completion tokens.

    Args:
        rows: B rows, the longest completion of C tokens.
        packing: `none`: B rows, padded on the left. `separate`: one row of all tokens, end to end, and each sequence
            sees itself alone. `shared`: the same with what sequences begin with in common computed once.
        pad_id: Any token id.

    Returns:
        `input_ids`, `attention_mask` and `position_ids`, with what `tree_inputs` adds where rows are packed; and
        `label_states`, int64, (B, C): the index, among all hidden states, of the one that predicts each completion
        token. Completions end at the last column; before a shorter one stands 0.

    Raises:
        ValueError: For a row without a prompt.
    """
    if not all(row.prompt_ids for row in rows):
        raise ValueError("a row without a prompt: its first label has no position that predicts it")
    width = max(len(row.completion_ids) for row in rows)
    states = torch.zeros((len(rows), width), dtype=torch.long)
    if packing == "none":
        inputs = _pad(rows, pad_id)
        length = inputs["input_ids"].shape[1]
        places = [tuple(range((b + 1) * length - len(row.token_ids), (b + 1) * length)) for b, row in enumerate(rows)]
    else:
        tree = PrefixTree(share=packing == "shared")
        places = [tree.add(row.token_ids) for row in rows]
        inputs = tree_inputs(tree)
    for b, (row, found) in enumerate(zip(rows, places, strict=True)):
        count = len(row.completion_ids)
        states[b, width - count :] = torch.tensor(found[-count - 1 : -1])
    return {**inputs, "label_states": states}


def count_tokens(rows: Sequence[tuple[int, ...]], packing: str) -> int:
    """How many tokens the model computes for a batch of these sequences, padding included."""
    if packing == "none":
        return len(rows) * max(map(len, rows))
    return count_shared(rows) if packing == "shared" else sum(map(len, rows))


def _pad(rows: Sequence[Row], pad_id: int) -> dict[str, Any]:
    length = max(len(row.token_ids) for row in rows)
    input_ids = torch.full((len(rows), length), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    for b, row in enumerate(rows):
        input_ids[b, length - len(row.token_ids) :] = torch.tensor(row.token_ids)
        attention_mask[b, length - len(row.token_ids) :] = 1
    positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)
    return {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": positions}


def find_packing(packing: str, config: PreTrainedConfig, attention: str, max_length: int) -> tuple[str, str | None]:
    """What `packing` comes to with a model of this config, and why it is not more, or None.

    Args:
        packing: `auto`, or one of `PACKINGS`.
        config: The model's.
        attention: The attention that it is loaded with.
        max_length: Most tokens of a row.

    Raises:
        JudgeError: If the model can't pack rows and was told to.
    """
    if packing == "none":
        return packing, None
    obstacle = find_obstacle(config, attention, max_length)
    if obstacle is None:
        return "shared" if packing == "auto" else packing, None
    if packing != "auto":
        raise JudgeError(f"packing={packing!r} can't be had with this model: {obstacle}; choose packing=none")
    return "none", obstacle
