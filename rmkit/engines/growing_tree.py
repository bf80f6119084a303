"""Queries answered from one tree of tokens: each beginning is computed once, also over several rounds of questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel

from rmkit.engines import Query
from rmkit.prefix_tree import PrefixTree
from rmkit.tree_attention import NAME, tree_inputs

_MOST_ROWS = 512  # of logits at a time, each as long as the vocabulary


def takes_trees(model: nn.Module) -> bool:
    """Whether a model, or the one in a wrapper such as peft's, was given `rmkit.tree_attention`."""
    part = next(part for part in model.modules() if isinstance(part, PreTrainedModel))
    return bool(part.config._attn_implementation == NAME)


class GrowingTree:
    """A tree of the prefixes that were asked about, and the keys and values of its tokens.

    Args:
        model: A model that takes trees, in evaluation mode.
        most_keys: Most tokens that the segments of one forward pass see, counted for each: what attention copies.
    """

    def __init__(self, model: nn.Module, most_keys: int = 131_072) -> None:
        self._model = model
        self._most_keys = most_keys
        self._tree = PrefixTree()
        self._cache = DynamicCache()
        self._device = next(model.parameters()).device

    def answer(self, queries: Sequence[Query]) -> list[np.ndarray]:
        """Log-probabilities, see `Engine.logprobs`; only what is new of the prefixes is computed."""
        answers: list[np.ndarray] = [np.empty(0)] * len(queries)
        for part in self._parts(queries):
            for index, answer in zip(part, self._compute([queries[index] for index in part]), strict=True):
                answers[index] = answer
        return answers

    def _parts(self, queries: Sequence[Query]) -> Iterator[list[int]]:
        """Indices of queries for one forward pass each, a prefix behind those that go on from it: they hold it."""
        part: list[int] = []
        keys, before = 0, tuple[int, ...]()
        for index in sorted(range(len(queries)), key=lambda index: queries[index].prefix, reverse=True):
            prefix = queries[index].prefix
            # Held by the one before, unless it was computed in an earlier pass: then its last token is once more.
            is_held = before[: len(prefix)] == prefix and len(self._tree.find(prefix)) < len(prefix)
            new = 0 if is_held else len(prefix)
            if part and (keys + new > self._most_keys or len(part) == _MOST_ROWS):
                yield part
                part, keys, new = [], 0, len(prefix)
            part.append(index)
            keys += new
            before = before if is_held else prefix
        if part:
            yield part

    def _compute(self, queries: Sequence[Query]) -> list[np.ndarray]:
        tree = self._tree
        start, known = len(tree.segments), len(tree.token_ids)
        lasts = []
        for query in queries:
            places = tree.add(query.prefix)
            if places[-1] < known:
                places = tree.repeat(places)
            lasts.append(places[-1] - known)
        inputs: dict[str, Any] = {
            name: value.to(self._device) if isinstance(value, torch.Tensor) else value
            for name, value in tree_inputs(tree, start).items()
        }
        rows = sorted(set(lasts))
        kept = torch.tensor(rows, device=self._device)
        found = self._model(**inputs, past_key_values=self._cache, use_cache=True, logits_to_keep=kept)
        place = {row: n for n, row in enumerate(rows)}
        return read_logprobs(found.logits[0], [place[last] for last in lasts], queries)


def read_logprobs(logits: torch.Tensor, rows: Sequence[int], queries: Sequence[Query]) -> list[np.ndarray]:
    """Log-probabilities of each query's tokens, normalised over the vocabulary.

    Args:
        logits: (R, V).
        rows: Which row answers which query.
        queries: As many.
    """
    precise = logits.float()
    width = max(len(query.token_ids) for query in queries)
    ids = torch.tensor([[*query.token_ids, *[0] * (width - len(query.token_ids))] for query in queries])
    at = torch.tensor(rows, device=logits.device)
    found = precise[at[:, None], ids.to(logits.device)] - precise.logsumexp(-1)[at, None]  # (N, K)
    values = found.double().cpu().numpy()
    return [row[: len(query.token_ids)] for row, query in zip(values, queries, strict=True)]
