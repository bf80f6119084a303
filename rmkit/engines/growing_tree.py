"""Queries answered from one tree of tokens: each beginning is computed once, also over several rounds of questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel

from rmkit.engines import Query
from rmkit.prefix_tree import PrefixTree
from rmkit.tree_attention import NAME, tree_inputs


def takes_trees(model: nn.Module) -> bool:
    """Whether a model, or the one in a wrapper such as peft's, was given `rmkit.tree_attention`."""
    part = next(part for part in model.modules() if isinstance(part, PreTrainedModel))
    return bool(part.config._attn_implementation == NAME)


class GrowingTree:
    """A tree of the prefixes that were asked about, and the keys and values of its tokens.

    Args:
        model: A model that takes trees, in evaluation mode.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._tree = PrefixTree()
        self._cache = DynamicCache()
        self._device = next(model.parameters()).device

    def answer(self, queries: Sequence[Query]) -> list[np.ndarray]:
        """Log-probabilities, see `Engine.logprobs`; only what is new of the prefixes is computed."""
        tree = self._tree
        start, known = len(tree.segments), len(tree.token_ids)
        lasts = [0] * len(queries)
        # The longest first: what others begin with is then there, and each response adds one segment.
        for index in sorted(range(len(queries)), key=lambda index: -len(queries[index].prefix)):
            places = tree.add(queries[index].prefix)
            if places[-1] < known:
                places = tree.repeat(places)
            lasts[index] = places[-1] - known
        rows = sorted(set(lasts))
        inputs: dict[str, Any] = {
            name: value.to(self._device) if isinstance(value, torch.Tensor) else value
            for name, value in tree_inputs(tree, start).items()
        }
        kept = torch.tensor(rows, device=self._device)
        logits = self._model(**inputs, past_key_values=self._cache, use_cache=True, logits_to_keep=kept).logits[
            0
        ]  # (R, V)
        place = {row: n for n, row in enumerate(rows)}
        return read_logprobs(logits, [place[last] for last in lasts], queries)


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
