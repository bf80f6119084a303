"""Validation while training, through the same read-out that scoring uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import distributed

from rmkit.engines import Engine, Query
from rmkit.evaluation.reliability import Reliability
from rmkit.judge import Judge
from rmkit.rubric import Rubric
from rmkit.schema import Conversation, Judgment
from rmkit.training.figures import find_figures
from rmkit.training.validation_sample import ValidationSample


class SynchronisedEngine:
    """An engine of which every rank gets rank 0's answers, so that all ranks ask the same next questions.

    Under ZeRO-3 each forward pass gathers parameters from all ranks, so all must make the same passes.

    Args:
        engine: The engine that each rank runs.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name = engine.name
        self.max_length = engine.max_length
        self.vocab_size = engine.vocab_size
        self.merges_prefixes = engine.merges_prefixes

    def logprobs(self, queries: Sequence[Query]) -> list[np.ndarray]:
        """See `Engine.logprobs`."""
        answers = [self.engine.logprobs(queries)]
        distributed.broadcast_object_list(answers, src=0)
        return answers[0]


class Validation:
    """Scores the validation sample and compares with ratings and preferences.

    Args:
        judge: Reads scores from the model in training.
        sample: What is scored.
        shard: Whether each rank scores its share. Otherwise each scores all of it.

    Attributes:
        reliability: Reliability bins by attribute, of the last evaluation.
    """

    def __init__(self, judge: Judge, sample: ValidationSample, shard: bool) -> None:
        self.judge = judge
        self.sample = sample
        self.shard = shard
        self.reliability: dict[str, Reliability] = {}
        self._comparisons = sample.comparisons
        self._responses: list[tuple[Conversation, str, str | None, Rubric | None]] = [
            *((row.conversation, row.response, row.reference, row.rubric) for row in sample.rows),
            *((pair.conversation, text, None, None) for pair in sample.pairs for text in pair.chosen + pair.rejected),
        ]

    def __call__(self) -> dict[str, float]:
        """Score, on every rank; each gets the same figures, see `find_figures`."""
        figures = find_figures(self.sample.rubric, self.sample.rows, self._comparisons, self._score())
        self.reliability = figures.reliability
        return figures.metrics

    def _score(self) -> list[Judgment]:
        ranks = distributed.get_world_size() if self.shard and distributed.is_initialized() else 1
        rank = distributed.get_rank() if ranks > 1 else 0
        mine = self._responses[rank::ranks]
        judgments = self.judge.score(
            [conversation for conversation, *_ in mine],
            [text for _, text, *_ in mine],
            [reference for *_, reference, _ in mine],
            [rubric for *_, rubric in mine],
        )
        if ranks == 1:
            return judgments
        parts: list[Any] = [None] * ranks
        distributed.all_gather_object(parts, judgments)
        return [parts[place % ranks][place // ranks] for place in range(len(self._responses))]


def unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """The transformers model inside DDP or a DeepSpeed engine; ZeRO-3's hooks stay on it."""
    return getattr(model, "module", model)
