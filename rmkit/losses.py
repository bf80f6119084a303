"""Losses on score tokens: by function, and by the name that a training configuration calls them.

The functions live in `rmkit.score_losses` and are offered here too. `SCORE_LOSSES` names those that can be trained
with: one of them is added to the cross entropy over all completion tokens with the weight `alpha`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch

from rmkit import score_losses
from rmkit.distances import DISTANCES, PLACE_WEIGHTS, Distance
from rmkit.score_losses import (
    cdw_ce,
    ce_vocab,
    contrastive,
    cross_entropy,
    dist2,
    dist2_random,
    distance_target,
    emd2,
    label_smoothing,
    ntl_mse,
    ntl_was,
    oll,
    oprm,
    raft,
    sord,
    weighted_ce,
)

__all__ = [
    "PRESETS",
    "SCORE_LOSSES",
    "LossSettings",
    "ScoreInputs",
    "ScoreLoss",
    "cdw_ce",
    "ce_vocab",
    "contrastive",
    "cross_entropy",
    "dist2",
    "dist2_random",
    "distance_target",
    "emd2",
    "label_smoothing",
    "ntl_mse",
    "ntl_was",
    "oll",
    "oprm",
    "raft",
    "sord",
    "weighted_ce",
]


@dataclass(frozen=True, slots=True)
class LossSettings:
    """Which loss is trained, in the words of a training configuration.

    The total is `sum(CE) / tokens + alpha * sum(w * score loss) / D`. `tokens` is the global number of
    supervised tokens. With `reduction="tokens"` D is `tokens` too, with "scores" the global sum of the weights w.
    Both counts cover gradient accumulation and all ranks. A loss ignores options that are not its own.

    A weight of an attribute multiplies the cross entropy and w of its score's tokens, and each such token counts
    that much in `tokens`: both terms are weighted means. With `preference_loss`, a score that was derived from a
    preference counts in neither term. It adds `preference_alpha * w * (preference loss - log m) / D`, and w to a D of
    scores: the loss where it is the better one of a comparison, and everywhere m, the mass on the scale, which says
    that a score stands there and not which.

    Args:
        loss: `ce` for cross entropy alone, or a name in `SCORE_LOSSES`.
        alpha: Weight of the score term, at least 0.
        tau: Temperature of the target, above 0, in units of the distance.
        distance: A name in `rmkit.distances.DISTANCES`, or `published` for the one that the loss was published
            with, which takes its place.
        normalize: `full` takes p over the vocabulary, `scale` over the tokens that could stand there. For
            ce_vocab, weighted_ce, label_smoothing, dist2, dist2_random and sord; the others' formulas fix it.
        reduction: `tokens` or `scores`.
        place_weights: Weigh a digit by its place in the score; always on for weighted_ce.
        place_scale: `linear` (how many tokens of the score are still to come, 1 for the last) or `decimal` (what
            the digit is worth).
        period: Length of a full circle, above 0, for circular distances.
        smoothing: Mass that label_smoothing spreads over the scale, in [0, 1].
        power: Exponent of the distance, above 0, for oll and cdw_ce.
        margin: Margin of cdw_ce, in [0, 1).
        metric_seed: Seed of the permutation of dist2_random.
        neighbours: How many near numbers contrastive holds against the right one, at least 1.
        attribute_weights: Weight by attribute key, at least 0; 1 for those not named. With 0 an attribute is written
            and read by those behind it, and not trained.
        preference_loss: A pairwise loss for scores that were derived from a preference, of which only the order is
            known; None trains on them as on ratings.
        preference_alpha: Weight of its term, in place of `alpha`, at least 0.
    """

    loss: str = "dist2"
    alpha: float = 0.1
    tau: float = 1.0
    distance: str = "published"
    normalize: str = "full"
    reduction: str = "tokens"
    place_weights: bool = False
    place_scale: str = "linear"
    period: float = 360.0
    smoothing: float = 0.1
    power: float = 1.0
    margin: float = 0.0
    metric_seed: int = 0
    neighbours: int = 4
    attribute_weights: Mapping[str, float] = field(default_factory=dict)
    preference_loss: str | None = None
    preference_alpha: float = 1.0

    def __post_init__(self) -> None:
        choices = {
            "loss": ("ce", *SCORE_LOSSES),
            "normalize": ("full", "scale"),
            "reduction": ("tokens", "scores"),
            "distance": ("published", *DISTANCES),
            "place_scale": tuple(PLACE_WEIGHTS),
            "preference_loss": (None, *PAIRWISE_LOSSES),
        }
        for option, allowed in choices.items():
            if getattr(self, option) not in allowed:
                known = ", ".join(filter(None, allowed))
                raise ValueError(f"{option}={getattr(self, option)!r} is unknown; choose {known}")
        if not self.tau > 0:
            raise ValueError(f"tau={self.tau} must be above 0; for a one-hot target use loss: ce_vocab")
        if not self.alpha >= 0:
            raise ValueError(f"alpha={self.alpha} must be at least 0")
        for option, value in (("period", self.period), ("power", self.power)):
            if not value > 0:
                raise ValueError(f"{option}={value} must be above 0")
        if not 0 <= self.smoothing <= 1:
            raise ValueError(f"smoothing={self.smoothing} must be in [0, 1]")
        if not 0 <= self.margin < 1:
            raise ValueError(f"margin={self.margin} must be in [0, 1)")
        if not self.neighbours >= 1:
            raise ValueError(f"neighbours={self.neighbours} must be at least 1")
        if not self.preference_alpha >= 0:
            raise ValueError(f"preference_alpha={self.preference_alpha} must be at least 0")
        if self.preference_loss is not None:
            if self.loss in PAIRWISE_LOSSES:
                raise ValueError(f"loss={self.loss!r} compares all scores already; leave preference_loss out")
            if self.alpha == 0:
                raise ValueError("alpha=0 with a preference_loss: say loss: ce, which has no other score term")
        for key, weight in self.attribute_weights.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise ValueError(f"attribute_weights: {key} has {weight!r}; a weight is a number of at least 0")
        # Written out, so that the record of a run says what was trained and not where to look it up.
        if self.distance == "published":
            published = SCORE_LOSSES[self.loss].distance if self.loss in SCORE_LOSSES else "squared"
            object.__setattr__(self, "distance", published)
        if self.loss == "weighted_ce":
            object.__setattr__(self, "place_weights", True)

    @property
    def metric(self) -> Distance:
        """The distance between scores, as a function of values and labels."""
        function: Callable[..., torch.Tensor] = DISTANCES[self.distance]
        return partial(function, period=self.period) if self.distance.startswith("circular") else function

    def place_weight(self, place: int) -> float:
        """The weight w of a position; `place` tokens of its score are still to come, itself included."""
        return PLACE_WEIGHTS[self.place_scale](place) if self.place_weights else 1.0

    def attribute_weight(self, key: str) -> float:
        """The weight of an attribute, 1 unless one is given."""
        return float(self.attribute_weights.get(key, 1.0))

    @property
    def has_score_term(self) -> bool:
        """Whether there is anything but cross entropy."""
        return self.loss != "ce" or self.preference_loss is not None

    @property
    def compares(self) -> bool:
        """Whether responses to one conversation are compared, all of them or those that a preference compared."""
        return self.loss in PAIRWISE_LOSSES or self.preference_loss is not None

    @property
    def contrasted(self) -> int:
        """How many near numbers examples must bring: `neighbours` for a loss over whole numbers, else 0."""
        return self.neighbours if self.loss in SCORE_LOSSES and SCORE_LOSSES[self.loss].sequences else 0


@dataclass(frozen=True, slots=True)
class ScoreInputs:
    """What a score loss may look at; N positions, K tokens each, ascending by the lowest score they lead to.

    Args:
        logits: Logits of the tokens that could stand there, shape (N, K).
        lse: Log-sum-exp of the logits over the vocabulary, shape (N,).
        distances: Distance of each token from the right one, shape (N, K); +inf pads. Of a token that leads to
            several scores: the distance of the nearest, or the soft minimum (`ScoreLoss.soft`).
        labels: Index of the right one, int64, shape (N,).
        values: The score that each token stands for, shape (N, K); NaN where it leads to several, and at padding.
        rivals: For a pairwise loss, the position of the same attribute at a worse response, int64, shape (N,); -1
            where there is none, and where another loss is trained.
        sequences: For a loss over whole numbers, log p of M numbers, the sum over their tokens, shape (N, M).
        sequence_distances: Distance of each from the right one, shape (N, M); +inf pads, all of a row where a
            position starts no number.
    """

    logits: torch.Tensor
    lse: torch.Tensor
    distances: torch.Tensor
    labels: torch.Tensor
    values: torch.Tensor
    rivals: torch.Tensor | None = None
    sequences: torch.Tensor | None = None
    sequence_distances: torch.Tensor | None = None

    @property
    def mask(self) -> torch.Tensor:
        """True where a token could stand, False at padding; shape (N, K)."""
        return ~self.distances.isposinf()

    @property
    def targets(self) -> torch.Tensor:
        """The right score, shape (N,)."""
        return self.values.gather(-1, self.labels.unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True, slots=True)
class ScoreLoss:
    """A loss that can be trained with, and what it needs from the scale.

    Args:
        function: From inputs and settings to one loss per position, shape (N,).
        distance: The distance it was published with, a name in `rmkit.distances.DISTANCES`.
        soft: A token that leads to several scores has their soft minimum for a distance, which makes the target
            the mass of all scores behind it. Without, that of the nearest: what it costs to go that way and then
            do one's best.
        permuted: Distances are those of a permuted scale.
        whole_scores: It needs one token per score, since its formula has no meaning for a first digit.
        pairwise: It compares two responses to one conversation: batches keep them together, `rivals` tells which,
            and the cross entropy leaves out scores that were derived from a preference.
        sequences: It compares whole numbers, each written out in a row of its own.
    """

    function: Callable[[ScoreInputs, LossSettings], torch.Tensor]
    distance: str = "squared"
    soft: bool = False
    permuted: bool = False
    whole_scores: bool = False
    pairwise: bool = False
    sequences: bool = False


def _lse(x: ScoreInputs, settings: LossSettings) -> torch.Tensor | None:
    return x.lse if settings.normalize == "full" else None


def _ce_vocab(x: ScoreInputs, s: LossSettings) -> torch.Tensor:
    return ce_vocab(x.logits, x.labels, _lse(x, s), x.mask)


def _dist2(x: ScoreInputs, s: LossSettings) -> torch.Tensor:
    return dist2(x.logits, x.distances, s.tau, _lse(x, s))


def _oprm(x: ScoreInputs, s: LossSettings) -> torch.Tensor:
    assert x.rivals is not None  # what the collator brings for a pairwise loss
    if x.logits.shape[-1] < 2:
        return x.logits.sum(-1)  # no position at all: an empty tensor, connected to the graph
    better = (x.rivals >= 0).nonzero().squeeze(-1)
    found = oprm(x.logits[better], x.logits[x.rivals[better]], x.mask[better])
    return found.new_zeros(len(x.logits)).index_copy(0, better, found)


def _contrastive(x: ScoreInputs, s: LossSettings) -> torch.Tensor:
    assert x.sequences is not None and x.sequence_distances is not None  # likewise
    starts = (~x.sequence_distances.isposinf()).any(-1).nonzero().squeeze(-1)
    found = contrastive(x.sequences[starts], x.sequence_distances[starts], s.tau)
    return found.new_zeros(len(x.sequences)).index_copy(0, starts, found)


SCORE_LOSSES: dict[str, ScoreLoss] = {
    "cdw_ce": ScoreLoss(
        lambda x, s: score_losses.cdw_ce(x.logits, x.distances, s.power, s.margin), distance="absolute"
    ),
    "ce_vocab": ScoreLoss(_ce_vocab),
    "contrastive": ScoreLoss(_contrastive, sequences=True),
    "dist2": ScoreLoss(_dist2, soft=True),
    "dist2_random": ScoreLoss(_dist2, soft=True, permuted=True),
    "emd2": ScoreLoss(lambda x, s: score_losses.emd2(x.logits, x.labels, x.mask), whole_scores=True),
    "label_smoothing": ScoreLoss(
        lambda x, s: score_losses.label_smoothing(x.logits, x.labels, s.smoothing, _lse(x, s), x.mask)
    ),
    "ntl_mse": ScoreLoss(lambda x, s: score_losses.ntl_mse(x.logits, x.values, x.targets, x.mask), whole_scores=True),
    "ntl_was": ScoreLoss(lambda x, s: score_losses.ntl_was(x.logits, x.distances), distance="absolute"),
    "oll": ScoreLoss(lambda x, s: score_losses.oll(x.logits, x.distances, s.power), distance="absolute"),
    "oprm": ScoreLoss(_oprm, whole_scores=True, pairwise=True),
    "raft": ScoreLoss(lambda x, s: score_losses.raft(x.logits, x.values, x.targets, x.lse, x.mask), whole_scores=True),
    "sord": ScoreLoss(
        lambda x, s: score_losses.sord(x.logits, x.distances, s.tau, _lse(x, s)), distance="absolute", soft=True
    ),
    "weighted_ce": ScoreLoss(_ce_vocab),  # place weights are applied to every loss, and for this one always on
}
"""Score losses by name; to add one, write its function in `rmkit.score_losses` and its line here."""

PAIRWISE_LOSSES = tuple(name for name, loss in SCORE_LOSSES.items() if loss.pairwise)
"""Those that compare two responses, which a preference without ratings can be trained with."""

PRESETS: dict[str, LossSettings] = {
    "paper": LossSettings(),
    "released": LossSettings(alpha=1.0, tau=2.0, normalize="scale", reduction="scores", place_weights=True),
}
"""`paper`: the published formula and constants. `released`: what the authors' released fragments compute."""
