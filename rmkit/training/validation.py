"""Validation while training, through the same read-out that scoring uses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import distributed

from rmkit.engines import Engine, Query
from rmkit.judge import Judge
from rmkit.rubric import Rubric
from rmkit.schema import Conversation, Judgment, RatedResponse
from rmkit.scores import ScoreDistribution, aggregate, verdict


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


def validate(judge: Judge, rows: Sequence[RatedResponse], shard: bool) -> dict[str, float]:
    """Score rows and compare with their ratings; every rank gets the same figures.

    Args:
        judge: Reads scores from the model in training.
        rows: Rated responses; those that share a conversation give pairs.
        shard: Whether each rank scores its share of the rows. Otherwise each scores all of them.

    Returns:
        Figures by name, see `agreement`.
    """
    ranks = distributed.get_world_size() if shard and distributed.is_initialized() else 1
    rank = distributed.get_rank() if ranks > 1 else 0
    mine = rows[rank::ranks]
    judgments = judge.score(
        [row.conversation for row in mine],
        [row.response for row in mine],
        [row.reference for row in mine],
        [row.rubric for row in mine],
    )
    if ranks > 1:
        parts: list[Any] = [None] * ranks
        distributed.all_gather_object(parts, judgments)
        judgments = [parts[index % ranks][index // ranks] for index in range(len(rows))]
    return agreement(judge, rows, judgments)


def figure_names(rubric: Rubric, rows: Sequence[RatedResponse]) -> set[str]:
    """Names of the figures that `agreement` finds on these rows, if the judge fails on none of them."""
    keys = {key for row in rows for key in (row.rubric or rubric).complete(row.scores)}
    names = {"errors", *(f"mae_{key}" for key in keys)}
    if keys:
        names |= {"mae", "outside_mass"}
    return names | {"pair_accuracy", "pairs"} if _rated_pairs(rubric, rows) else names


def agreement(judge: Judge, rows: Sequence[RatedResponse], judgments: Sequence[Judgment]) -> dict[str, float]:
    """How well judgements agree with ratings.

    Returns:
        `mae_KEY` for each attribute (mean absolute error of the expected score, in score steps), `mae` (their
        mean), `pair_accuracy` (over pairs of responses to one conversation whose ratings have different
        aggregates; ties half) and `pairs`, `outside_mass` (mean probability outside the scale), `errors`
        (responses without a judgement). A figure without data is absent.
    """
    errors: dict[str, list[float]] = defaultdict(list)
    outside: list[float] = []
    for row, judgment in zip(rows, judgments, strict=True):
        scores = (row.rubric or judge.rubric).complete(row.scores)
        for key, distribution in judgment.attributes.items():
            outside.append(distribution.outside_mass)
            if key in scores:
                errors[key].append(abs(distribution.mean - scores[key]))
    figures = {f"mae_{key}": float(np.mean(values)) for key, values in sorted(errors.items())}
    if figures:
        figures["mae"] = float(np.mean(list(figures.values())))
        figures["outside_mass"] = float(np.mean(outside))
    outcomes = []
    for i, j, truth in _rated_pairs(judge.rubric, rows):
        first, second = judgments[i].aggregate, judgments[j].aggregate
        if first is not None and second is not None:
            outcomes.append((1 + truth * verdict(first, second)) / 2)
    if outcomes:
        figures["pair_accuracy"] = float(np.mean(outcomes))
        figures["pairs"] = float(len(outcomes))
    figures["errors"] = float(sum(judgment.error is not None for judgment in judgments))
    return figures


def _rated_pairs(rubric: Rubric, rows: Sequence[RatedResponse]) -> list[tuple[int, int, int]]:
    """Indices of two responses to one conversation with different rated aggregates, and which is higher: 1 or -1."""
    groups: dict[Conversation, list[tuple[int, float]]] = defaultdict(list)
    for index, row in enumerate(rows):
        rated = None if row.rubric is not None else _rated_aggregate(rubric, row.scores)
        if rated is not None:
            groups[row.conversation].append((index, rated))
    return [
        (i, j, verdict(rated_i, rated_j))
        for members in groups.values()
        for (i, rated_i), (j, rated_j) in combinations(members, 2)
        if rated_i != rated_j
    ]


def _rated_aggregate(rubric: Rubric, ratings: Mapping[str, int]) -> float | None:
    scores = rubric.complete(ratings)
    if any(attribute.weight and attribute.key not in scores for attribute in rubric.attributes):
        return None
    return aggregate(rubric, {key: ScoreDistribution((score,), (1.0,)) for key, score in scores.items()})


def unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """The transformers model inside DDP or a DeepSpeed engine; ZeRO-3's hooks stay on it."""
    return getattr(model, "module", model)
