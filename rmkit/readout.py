"""Reading scores: the exact distributions at each score position, never text that was sampled.

An attribute's distribution is conditioned on the prompt and on the scores before it, each written as its most
probable value (greedy).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rmkit.engines import Engine, Query
from rmkit.score_tokens import AttributeTokens, Path, ScoreTokens
from rmkit.scores import ScoreDistribution


@dataclass(slots=True)
class _Reading:
    """The state of one response: what is read, and guesses for what is not."""

    prefix: tuple[int, ...]
    tokens: ScoreTokens
    guesses: list[int] = field(default_factory=list)
    found: dict[str, ScoreDistribution] = field(default_factory=dict)
    error: str | None = None

    def __post_init__(self) -> None:
        self.guesses = [item.attribute.values[len(item.attribute.values) // 2] for item in self.tokens.attributes]

    @property
    def is_done(self) -> bool:
        return self.error is not None or len(self.found) == len(self.tokens.attributes)

    def ask(self, ahead: bool) -> list[tuple[AttributeTokens, list[Query]]]:
        """Queries for the next attribute; with `ahead`, also for those after it, on the guesses."""
        asked = []
        prefix = self.prefix
        for item, guess in list(zip(self.tokens.attributes, self.guesses, strict=True))[len(self.found) :]:
            prefix += item.before
            asked.append((item, [Query(prefix + path, choice.token_ids) for path, choice in item.choices.items()]))
            if not ahead or len(item.choices) > 1:
                break
            prefix += item.written[guess]
        return asked

    def take(self, answers: list[tuple[AttributeTokens, dict[Path, np.ndarray]]]) -> None:
        """Keep the answers whose prefix turned out right; the others become guesses."""
        first = len(self.found)
        right = True
        for offset, (item, logprobs) in enumerate(answers):
            try:
                distribution = item.distribution(logprobs)
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
    readings = [_Reading(prefix, tokens) for prefix, tokens in prompts]
    while open_readings := [reading for reading in readings if not reading.is_done]:
        asked = [reading.ask(engine.merges_prefixes) for reading in open_readings]
        answers = iter(engine.logprobs([query for items in asked for _, queries in items for query in queries]))
        for reading, items in zip(open_readings, asked, strict=True):
            reading.take([(item, {path: next(answers) for path in item.choices}) for item, _ in items])
    return [reading.error or reading.found for reading in readings]
