"""Engines: from token ids to log-probabilities of the next token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

ENGINES = ("transformers", "vllm", "http")
"""Names of the engines that a judge can be loaded with."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked of an engine: how probable are these tokens after this prefix?

    Args:
        prefix: Token ids, at least one.
        token_ids: The K tokens that are asked about.
    """

    prefix: tuple[int, ...]
    token_ids: tuple[int, ...]


class Engine(Protocol):
    """Anything that runs the judge's model.

    Attributes:
        name: `transformers`, `vllm` or `http`.
        max_length: Most tokens of a prefix and the token after it.
        vocab_size: Number of token ids the model knows.
        merges_prefixes: Whether queries whose prefix is the beginning of another's cost nothing extra in one
            call, so that it pays to ask ahead on a guess.
    """

    name: str
    max_length: int
    vocab_size: int
    merges_prefixes: bool

    def logprobs(self, queries: Sequence[Query]) -> list[np.ndarray]:
        """Natural log-probabilities, normalised over the whole vocabulary: one float64 (K,) array a query."""
        ...
