"""Losses on score tokens: pure, unreduced functions of the logits at score positions.

Shapes: N score positions, each with K tokens that could stand there (the legal scores, or the legal next
digits). Positions with fewer than K are padded: distance +inf, any logit.

`SCORE_LOSSES` names them for a training configuration, where one is added to the cross entropy over all
completion tokens with the weight `alpha`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The token cross entropy -log p(label), per row.

    Args:
        logits: Any float dtype, shape (R, V). Computed in float32 or better.
        labels: int64, shape (R,); -100 marks a row that does not count.

    Returns:
        Shape (R,), in nats; 0 where the label is -100.
    """
    return functional.cross_entropy(_at_least_float32(logits), labels, ignore_index=-100, reduction="none")


def distance_target(distances: torch.Tensor, tau: float) -> torch.Tensor:
    """The target distribution p_d(v) = exp(-d(v, y) / tau) / sum over v'.

    Args:
        distances: Shape (N, K), at least 0; +inf takes a token out.
        tau: Temperature, above 0.

    Returns:
        Shape (N, K), rows summing to 1.

    Raises:
        ValueError: If tau is not above 0: the limit tau -> 0 is the one-hot target.
    """
    if not tau > 0:
        raise ValueError(f"tau must be above 0, found {tau}; for a one-hot target use the loss 'ce'")
    return torch.softmax(-distances / tau, dim=-1)


def dist2(
    score_logits: torch.Tensor, distances: torch.Tensor, tau: float = 1.0, lse: torch.Tensor | None = None
) -> torch.Tensor:
    """The distance term of DIST2Loss, KL(p_d || p), per score position.

    Formula (arXiv 2503.02379): sum over v of p_d(v) * (log p_d(v) - log p(v)), with p_d from
    `distance_target` and log p(v) = z_v - lse.

    Args:
        score_logits: Logits z of the tokens that could stand there, shape (N, K).
        distances: Distance of each from the right one, shape (N, K); +inf pads.
        tau: Temperature, above 0.
        lse: Log-sum-exp of the logits over the whole vocabulary, shape (N,), for p over the vocabulary
            (`normalize="full"`, which also draws mass onto the scale). None for p over these tokens only.

    Returns:
        Shape (N,), in nats, at least 0 up to rounding. +inf where a token with target mass has a logit of
        -inf. NaN where an input is NaN. Shape (0,), connected to the graph, for no positions.

    Example:
        >>> z = torch.log(torch.tensor([[0.1, 0.8, 0.1]]))
        >>> d = torch.tensor([[1.0, 0.0, 1.0]])
        >>> [round(x, 4) for x in dist2(z, d).tolist()]
        [0.1293]
    """
    logits = _at_least_float32(score_logits)
    target = distance_target(distances.to(logits.dtype), tau)
    counted = target > 0
    logits = logits.masked_fill(~torch.isfinite(distances), -torch.inf)
    normaliser = torch.logsumexp(logits, dim=-1) if lse is None else lse.to(logits.dtype)
    # 0 * -inf is NaN, so tokens without target mass leave before the product and not after it.
    surplus = torch.log(target.where(counted, 1.0)) - logits.where(counted, 0.0)
    return (target * surplus).sum(-1) + normaliser


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@dataclass(frozen=True, slots=True)
class LossSettings:
    """Which loss is trained, in the words of a training configuration.

    The total is `sum(CE) / tokens + alpha * sum(w * score loss) / D`. `tokens` is the global number of
    supervised tokens. With `reduction="tokens"` D is `tokens` too, with "scores" the global sum of the place
    weights w. Both counts cover gradient accumulation and all ranks.

    Args:
        loss: `ce` for cross entropy alone, or a name in `SCORE_LOSSES`.
        alpha: Weight of the score term, at least 0.
        tau: Temperature of the target, above 0, in units of the distance.
        distance: A name in `rmkit.distances.DISTANCES`.
        normalize: `full` takes p over the vocabulary, `scale` over the tokens that could stand there.
        reduction: `tokens` or `scores`.
        place_weights: Weigh a digit by how many tokens of its score are still to come (1 for the last).
    """

    loss: str = "dist2"
    alpha: float = 0.1
    tau: float = 1.0
    distance: str = "squared"
    normalize: str = "full"
    reduction: str = "tokens"
    place_weights: bool = False

    def __post_init__(self) -> None:
        choices = {
            "loss": ("ce", *SCORE_LOSSES),
            "normalize": ("full", "scale"),
            "reduction": ("tokens", "scores"),
            "distance": ("absolute", "squared"),
        }
        for option, allowed in choices.items():
            if getattr(self, option) not in allowed:
                raise ValueError(f"{option}={getattr(self, option)!r} is unknown; choose {', '.join(allowed)}")
        if not self.tau > 0:
            raise ValueError(f"tau={self.tau} must be above 0; for a one-hot target use loss: ce")
        if not self.alpha >= 0:
            raise ValueError(f"alpha={self.alpha} must be at least 0")


@dataclass(frozen=True, slots=True)
class ScoreInputs:
    """What a score loss may look at; N positions, K tokens each.

    Args:
        logits: Logits of the tokens that could stand there, shape (N, K).
        lse: Log-sum-exp of the logits over the vocabulary, shape (N,).
        distances: Distance of each token from the right one, shape (N, K); +inf pads.
    """

    logits: torch.Tensor
    lse: torch.Tensor
    distances: torch.Tensor


def _dist2(inputs: ScoreInputs, settings: LossSettings) -> torch.Tensor:
    lse = inputs.lse if settings.normalize == "full" else None
    return dist2(inputs.logits, inputs.distances, settings.tau, lse)


SCORE_LOSSES: dict[str, Callable[[ScoreInputs, LossSettings], torch.Tensor]] = {"dist2": _dist2}
"""Score losses by name; to add one, write its function above and its line here."""

PRESETS: dict[str, LossSettings] = {
    "paper": LossSettings(),
    "released": LossSettings(alpha=1.0, tau=2.0, normalize="scale", reduction="scores", place_weights=True),
}
"""`paper`: the published formula and constants. `released`: what the authors' released fragments compute."""
