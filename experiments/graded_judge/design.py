"""The design of the experiment: which losses, how many rows, and what all runs share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from rmkit.losses import LossSettings

LOSSES = {
    "ce": LossSettings("ce", alpha=0.0),
    **{
        name: LossSettings(name, alpha=1.0, reduction="scores")
        for name in ("label_smoothing", "weighted_ce", "dist2_random", "dist2", "sord", "raft", "emd2")
    },
}
"""Cross entropy on all completion tokens, and what is added to it: with the weight 1, as a mean over score tokens, as
in the authors' released fragments. All other constants are the published ones, and none is tuned."""


def soft_smoothing(scores: int = 5, tau: float = 1.0) -> float:
    """The `smoothing` with which a smoothed label keeps as much mass as the target of `dist2`, on average.

    That target is softmax(-(v - y)^2 / tau) over the scores v.
    """
    kept = [1 / sum(math.exp(-((v - y) ** 2) / tau) for v in range(scores)) for y in range(scores)]
    return (1 - sum(kept) / scores) / (1 - 1 / scores)


LOSSES["label_smoothing_soft"] = LossSettings(
    "label_smoothing", alpha=1.0, reduction="scores", smoothing=soft_smoothing()
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What all runs of an experiment share.

    Args:
        layers: Of the model.
        width: Its hidden size, a multiple of 32.
        vocab_size: Tokens of its tokenizer.
        batch: Rows a step.
        learning_rate: Peak of the schedule, which warms up for a twentieth of the steps and falls by a cosine.
        difficulty: Of the generated texts, see `rmkit.data.graded`.
        test_pairs: Held-out pairs that each run is tested on.
        test_rows: Rated responses that it is tested on, of another seed.
    """

    layers: int
    width: int
    vocab_size: int
    batch: int
    learning_rate: float
    difficulty: float
    test_pairs: int
    test_rows: int


@dataclass(frozen=True, slots=True)
class Preset:
    """How large an experiment is.

    Args:
        recipe: Model, texts and test.
        epochs: By number of training rows, how often each row is seen.
        noises: Probabilities that a training score is off by one or two.
        seeds: How many seeds, counted from 1. Seeds 0 and 100 were looked at while the recipe was chosen.
    """

    recipe: Recipe
    epochs: dict[int, int]
    noises: tuple[float, ...]
    seeds: int


PRESETS = {
    "smoke": Preset(Recipe(1, 32, 600, 8, 3e-3, 0.3, 8, 12), {16: 1, 24: 1}, (0.0, 0.3), 2),
    "cpu": Preset(Recipe(2, 32, 2048, 8, 5e-3, 0.5, 300, 500), {250: 12, 1000: 6, 4000: 2, 16000: 1}, (0.0, 0.2), 3),
    "full": Preset(
        Recipe(4, 256, 4096, 8, 1e-3, 0.7, 1000, 2000), {250: 12, 1000: 6, 4000: 3, 16000: 2}, (0.0, 0.2), 5
    ),
}


@dataclass(frozen=True, slots=True)
class Run:
    """One training and its test.

    Args:
        noise: Probability that a training score is off.
        loss: Name in `LOSSES`.
        rows: Number of training rows.
        seed: Of rows, first weights, order, and test.
    """

    noise: float
    loss: str
    rows: int
    seed: int


def plan_runs(preset: Preset, seeds: int, losses: Iterable[str] | None = None) -> list[Run]:
    """All runs, seed by seed, so that what is there after a while can be looked at.

    Args:
        preset: Gives sizes and noises.
        seeds: How many seeds.
        losses: Losses beside `ce`; all by default.

    Raises:
        ValueError: If a loss is unknown, naming those there are.
    """
    chosen = set(LOSSES) if losses is None else {"ce", *losses}
    if chosen - set(LOSSES):
        raise ValueError(f"unknown loss {min(chosen - set(LOSSES))!r}; choose {', '.join(LOSSES)}")
    return [
        Run(noise, loss, rows, seed)
        for seed in range(1, seeds + 1)
        for noise in preset.noises
        for rows in preset.epochs
        for loss in LOSSES
        if loss in chosen
    ]
