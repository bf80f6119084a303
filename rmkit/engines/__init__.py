"""Engines: from token ids to log-probabilities of the next token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

ENGINES = ("transformers", "vllm", "http")
"""Names of the engines that a judge can be loaded with."""

DTYPES = ("auto", "float32", "bfloat16", "float16")
"""Names of the dtypes that a model can be loaded in; `auto` lets model and machine choose."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked of an engine: how probable are these tokens after this prefix?

    Args:
        prefix: Token ids, at least one.
        token_ids: The K tokens that are asked about.
    """

    prefix: tuple[int, ...]
    token_ids: tuple[int, ...]


class Reading(Protocol):
    """One response that is being read: it asks, and what it asks next depends on the answers."""

    def ask(self, ahead: bool) -> list[Query]:
        """Queries to answer next, none once all is read; with `ahead`, also later ones, on guesses.

        The first is where the score sequence goes on. The prefixes of the others go on from its prefix, and its own
        prefix from that of the first query asked before, unless a guess was wrong.
        """
        ...

    def take(self, answers: Sequence[np.ndarray]) -> None:
        """Take the answers to what was asked, in its order."""
        ...


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


@runtime_checkable
class FollowingEngine(Protocol):
    """An engine that follows each reading by itself, rather than all of them step by step."""

    def follow(self, readings: Sequence[Reading]) -> None:
        """Answer readings until none of them asks any more."""
        ...


@runtime_checkable
class ContinuousEngine(Protocol):
    """An engine that takes up further readings while it follows others, so that they share its steps."""

    def follow_arriving(self, arrivals: Callable[[], Sequence[Reading]]) -> None:
        """Answer readings until none of them asks any more, and no further one arrives.

        Args:
            arrivals: Gives the readings that have arrived since it was asked last; it does not wait.
        """
        ...


def follow_in_rounds(engine: Engine, readings: Sequence[Reading]) -> None:
    """Answer readings until none of them asks any more: in each round, everything that is asked by then at once."""
    while asked := [(reading, queries) for reading in readings if (queries := reading.ask(engine.merges_prefixes))]:
        answers = iter(engine.logprobs([query for _, queries in asked for query in queries]))
        for reading, queries in asked:
            reading.take([next(answers) for _ in queries])
