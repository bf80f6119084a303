"""Distances between the tokens that can stand at a score position and the one that should.

A distance function takes the values of the legal scores and the label, and says how far each is from it.
`soft_minimum` carries distances between scores over to tokens that lead to several scores, which is what the
first digit of a number does.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def squared(values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The squared difference (v - y)^2, the distance that DIST2Loss uses for numbers (arXiv 2503.02379).

    Args:
        values: Legal scores, shape (..., K).
        labels: The right score, shape (...).

    Returns:
        Distances, shape (..., K), in squared score steps, 0 at the label.
    """
    return (values - labels.unsqueeze(-1)).square()


def absolute(values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The absolute difference |v - y|; shapes as in `squared`."""
    return (values - labels.unsqueeze(-1)).abs()


DISTANCES: dict[str, Distance] = {"absolute": absolute, "squared": squared}
"""Distances by the name they have in a training configuration."""


def soft_minimum(distances: torch.Tensor, tau: float) -> torch.Tensor:
    """The distance of a token that leads to several scores: -tau * log(sum(exp(-d / tau))).

    With it, `softmax(-d / tau)` over the tokens equals the target distribution over whole scores, summed over
    the scores that each token leads to: a score's first digit is trained on the mass of all numbers that start
    so, and 39 is near 40 although no digit is.

    Args:
        distances: Distances of the scores that the token leads to, shape (n,).
        tau: Temperature, above 0.

    Returns:
        A scalar; for one score, its own distance.
    """
    return -tau * torch.logsumexp(-distances / tau, dim=-1)
