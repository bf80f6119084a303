"""Queries answered in padded batches, for models that can't take trees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from rmkit.engines import Query
from rmkit.engines.growing_tree import read_logprobs

_Chain = list[tuple[int, int]]
"""Pairs of query index and prefix length, each prefix the beginning of the next one."""


def answer_padded(model: nn.Module, queries: Sequence[Query], batch_tokens: int) -> list[np.ndarray]:
    """Log-probabilities, see `Engine.logprobs`.

    Args:
        model: The model, on its device, in evaluation mode.
        queries: What is asked.
        batch_tokens: Most tokens of one forward pass, padding included.
    """
    answers: list[np.ndarray] = [np.empty(0)] * len(queries)
    for batch in _batches(_merge_prefixes(queries), batch_tokens):
        _answer(model, batch, queries, answers)
    return answers


def _batches(chains: list[_Chain], batch_tokens: int) -> Iterator[list[_Chain]]:
    """Chains by length, as many at a time as fit into `batch_tokens`."""
    batch: list[_Chain] = []
    for chain in sorted(chains, key=lambda chain: -chain[-1][1]):
        width = batch[0][-1][1] if batch else chain[-1][1]
        if batch and (len(batch) + 1) * width > batch_tokens:
            yield batch
            batch = []
        batch.append(chain)
    if batch:
        yield batch


def _answer(model: nn.Module, batch: list[_Chain], queries: Sequence[Query], answers: list[np.ndarray]) -> None:
    width = max(chain[-1][1] for chain in batch)
    device = next(model.parameters()).device
    input_ids = torch.zeros((len(batch), width), dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for b, chain in enumerate(batch):
        index, length = chain[-1]
        input_ids[b, width - length :] = torch.tensor(queries[index].prefix)
        attention_mask[b, width - length :] = 1
    keep = max(chain[-1][1] - length + 1 for chain in batch for _, length in chain)
    logits = model(
        input_ids=input_ids.to(device),
        attention_mask=attention_mask.to(device),
        position_ids=(attention_mask.cumsum(-1) - 1).clamp(min=0).to(device),
        logits_to_keep=keep,
        use_cache=False,
    ).logits  # (B, keep, V)
    asked = [
        (b * keep + keep - 1 - (chain[-1][1] - length), index)
        for b, chain in enumerate(batch)
        for index, length in chain
    ]
    found = read_logprobs(logits.flatten(0, 1), [row for row, _ in asked], [queries[index] for _, index in asked])
    for (_, index), answer in zip(asked, found, strict=True):
        answers[index] = answer


def _merge_prefixes(queries: Sequence[Query]) -> list[_Chain]:
    chains: list[_Chain] = []
    previous: tuple[int, ...] = ()
    for index in sorted(range(len(queries)), key=lambda i: queries[i].prefix):
        prefix = queries[index].prefix
        if chains and prefix[: len(previous)] == previous:
            chains[-1].append((index, len(prefix)))
        else:
            chains.append([(index, len(prefix))])
        previous = prefix
    return chains
