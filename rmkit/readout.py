"""Reading scores: the exact distributions at each score position, never text that was sampled.

An attribute's distribution is conditioned on the prompt and on the scores before it, each written as its most
probable value (greedy).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rmkit.engines import Engine, FollowingEngine, Query, Reading, follow_in_rounds
from rmkit.score_tokens import AttributeTokens, ScoreTokens
from rmkit.scores import ScoreDistribution


@dataclass(slots=True)
class ScoreReading:
    """One score sequence that is being read: what is read, and guesses for what is not.

    Args:
        prefix: Token ids of the prompt.
        tokens: The score tokens that may follow it.

    Attributes:
        found: The distributions that were read so far, by attribute key.
        error: Why there are no more, or None.
    """

    prefix: tuple[int, ...]
    tokens: ScoreTokens
    guesses: list[int] = field(default_factory=list)
    found: dict[str, ScoreDistribution] = field(default_factory=dict)
    error: str | None = None
    asked: list[AttributeTokens] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.guesses = [item.attribute.values[len(item.attribute.values) // 2] for item in self.tokens.attributes]

    def ask(self, ahead: bool) -> list[Query]:
        """See `rmkit.engines.Reading.ask`: the next attribute, and with `ahead` those after it, on the guesses."""
        queries: list[Query] = []
        self.asked = []
        if self.error is not None:
            return queries
        prefix = self.prefix
        for item, guess in list(zip(self.tokens.attributes, self.guesses, strict=True))[len(self.found) :]:
            prefix += item.before
            self.asked.append(item)
            queries += [Query(prefix + path, choice.token_ids) for path, choice in item.choices.items()]
            if not ahead or len(item.choices) > 1:
                break
            prefix += item.written[guess]
        return queries

    def take(self, answers: Sequence[np.ndarray]) -> None:
        """Keep the answers whose prefix turned out right; the others become guesses."""
        first = len(self.found)
        right = True
        rest = iter(answers)
        for offset, item in enumerate(self.asked):
            try:
                distribution = item.distribution({path: next(rest) for path in item.choices})
            except FloatingPointError as error:
                if right:
                    self.error = f"no probabilities to read: {error}"
                return
            score = distribution.mode
            if right:
                self.found[item.attribute.key] = distribution
                self.prefix += item.before + item.written[score]
            right = right and score == self.guesses[first + offset]
            self.guesses[first + offset] = score


def read_scores(
    engine: Engine, prompts: Sequence[tuple[tuple[int, ...], ScoreTokens]]
) -> list[dict[str, ScoreDistribution] | str]:
    """Read every attribute of every prompt.

    Args:
        engine: Runs the model.
        prompts: Token ids of each prompt, and the score tokens that may follow it.

    Returns:
        For each prompt its distributions by attribute key, or a text that says why there are none.
    """
    readings = [ScoreReading(prefix, tokens) for prefix, tokens in prompts]
    read_all(engine, readings)
    return [reading.error or reading.found for reading in readings]


def read_all(engine: Engine, readings: Sequence[Reading]) -> None:
    """Read on until all is read, in the way that suits the engine."""
    if isinstance(engine, FollowingEngine):
        engine.follow(readings)
    else:
        follow_in_rounds(engine, readings)
