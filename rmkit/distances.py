"""Distances between tokens: between what can stand at a position and what should.

A distance function takes what K tokens stand for (values, or vectors) and the label, and says how far each is from
it. `MetricSpace` joins token ids, what they stand for, and a distance; it never holds a K x K matrix unless it is made
from one, so a codebook of 16,384 vectors fits. `soft_minimum` carries distances between scores over to tokens that
lead to several scores, which is what the first digit of a number does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from scipy.optimize import brentq

Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(points, labels) -> distances: from (..., K) and (...) to (..., K), or of vectors (K, D) and (N, D) to (N, K)."""


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


def circular(values: torch.Tensor, labels: torch.Tensor, period: float = 360.0) -> torch.Tensor:
    """The shorter way round a circle, min(|v - y| mod P, P - |v - y| mod P); shapes as in `squared`.

    Args:
        values: Angles, hours or whatever repeats.
        labels: The right one.
        period: P, above 0: 360 for degrees, 24 for hours.

    Example:
        >>> circular(torch.tensor([359.0, 1.0, 181.0]), torch.tensor(1.0)).tolist()
        [2.0, 0.0, 180.0]
    """
    if not period > 0:
        raise ValueError(f"period must be above 0, found {period}")
    way = absolute(values, labels).remainder(period)
    return torch.minimum(way, period - way)


def circular_squared(values: torch.Tensor, labels: torch.Tensor, period: float = 360.0) -> torch.Tensor:
    """The square of `circular`, which near the label is `squared`."""
    return circular(values, labels, period).square()


DISTANCES: dict[str, Distance] = {
    "absolute": absolute,
    "circular": circular,
    "circular_squared": circular_squared,
    "squared": squared,
}
"""Distances between scores by the name they have in a training configuration."""


def euclidean(points: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The straight line between coordinates, sqrt(sum over D of (v_i - y_i)^2).

    Args:
        points: Coordinates of K tokens, shape (K, D).
        labels: Coordinates of N labels, shape (N, D).

    Returns:
        Shape (N, K), exactly 0 for equal coordinates. No tensor of shape (N, K, D) is made.
    """
    # The quicker way through a matrix product loses the small distances, which matter most here.
    return torch.cdist(labels, points, compute_mode="donot_use_mm_for_euclid_dist")


def mean_squared_error(points: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean over D of (v_i - y_i)^2, DIST2Loss's distance of codebook vectors; shapes as in `euclidean`."""
    return euclidean(points, labels).square() / points.shape[-1]


def cosine(points: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The cosine distance 1 - v.y / (|v| |y|), in [0, 2]; shapes as in `euclidean`.

    Raises:
        ValueError: If a vector is all zeros, which has no direction.
    """
    norms, label_norms = points.norm(dim=-1), labels.norm(dim=-1)
    if (norms == 0).any() or (label_norms == 0).any():
        raise ValueError("a vector of zeros has no cosine distance; use mean_squared_error or leave it out")
    return (1 - (labels / label_norms.unsqueeze(-1)) @ (points / norms.unsqueeze(-1)).T).clamp(0, 2)


@dataclass(frozen=True, slots=True, eq=False)
class MetricSpace:
    """Tokens, what they stand for, and how far they are from each other.

    Args:
        token_ids: The K tokens, int64, shape (K,), each once.
        points: What they stand for: values, shape (K,), or coordinates or embeddings, shape (K, D); finite.
        distance: Any function of this module, or one like them.

    Raises:
        ValueError: If the shapes don't fit, an id is there twice, or a point is not finite.

    Example:
        >>> space = MetricSpace(torch.tensor([70, 71, 72]), torch.tensor([1.0, 2.0, 3.0]), squared)
        >>> space.distances(space.index(torch.tensor([72]))).tolist()
        [[4.0, 1.0, 0.0]]
    """

    token_ids: torch.Tensor
    points: torch.Tensor
    distance: Distance

    def __post_init__(self) -> None:
        if self.token_ids.ndim != 1 or self.points.ndim not in (1, 2) or len(self.points) != len(self.token_ids):
            shapes = f"token_ids {tuple(self.token_ids.shape)} and points {tuple(self.points.shape)}"
            raise ValueError(f"expected token_ids (K,) and points (K,) or (K, D), found {shapes}")
        if len(self.token_ids.unique()) != len(self.token_ids):
            raise ValueError("a token id is there twice; a token stands for one point")
        if not torch.isfinite(self.points).all():
            raise ValueError("a point is not finite")

    @classmethod
    def from_matrix(cls, token_ids: torch.Tensor, matrix: torch.Tensor) -> MetricSpace:
        """A space with any distances at all.

        Args:
            token_ids: Shape (K,).
            matrix: Shape (K, K); row y holds the distances of all tokens from the label y: at least 0, and 0 on
                the diagonal.
        """
        if matrix.shape != (len(token_ids), len(token_ids)):
            raise ValueError(f"expected a matrix of {len(token_ids)} x {len(token_ids)}, found {tuple(matrix.shape)}")
        if not (matrix >= 0).all() or matrix.diagonal().any():
            raise ValueError("distances must be at least 0, and 0 from a token to itself")
        return cls(token_ids, torch.arange(len(token_ids)), lambda points, labels: matrix[labels][:, points])

    def distances(self, labels: torch.Tensor) -> torch.Tensor:
        """Distances of all tokens from N labels.

        Args:
            labels: Indices into `token_ids`, int64, shape (N,); `index` finds them.

        Returns:
            Shape (N, K). Only these rows are computed.
        """
        return self.distance(self.points, self.points[labels])

    def index(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Where tokens stand in the space: indices of the same shape.

        Raises:
            ValueError: If one is no token of it.
        """
        order = self.token_ids.argsort()
        at = torch.searchsorted(self.token_ids[order], token_ids).clamp(max=len(order) - 1)
        found = order[at]
        foreign = token_ids[self.token_ids[found] != token_ids]
        if len(foreign.flatten()):
            raise ValueError(f"token {int(foreign.flatten()[0])} is no token of this space")
        return found

    def permuted(self, seed: int = 0) -> MetricSpace:
        """The random-metric control: the same tokens, the same set of distances, dealt out by chance.

        Distances stay symmetric where they were, and 0 at the label; nearness no longer means anything.
        """
        return replace(self, points=self.points[torch.tensor(permutation(len(self.token_ids), seed))])


def permutation(size: int, seed: int = 0) -> list[int]:
    """A seeded order of 0 to size - 1 that is neither ascending nor descending, which would keep neighbours.

    Of fewer than three there is no such order: they stay as they are.
    """
    generator = torch.Generator().manual_seed(seed)
    order = list(range(size))
    while size > 2 and order in (list(range(size)), list(range(size))[::-1]):
        order = torch.randperm(size, generator=generator).tolist()
    return order


def canonical_numbers(vocabulary: Mapping[str, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that write a whole number as it is written, for a `MetricSpace` over a vocabulary.

    `007` is left out: it would share the target's mass of the value 7, which only `7` should have.

    Args:
        vocabulary: Token to id, as `tokenizer.get_vocab()` gives it.

    Returns:
        Token ids and float32 values, both of shape (K,), ascending by value.

    Example:
        >>> canonical_numbers({"7": 3, "007": 4, "12": 5, "x": 6})
        (tensor([3, 5]), tensor([ 7., 12.]))
    """
    digits = {token: i for token, i in vocabulary.items() if token.isascii() and token.isdigit()}
    numbers = sorted((int(token), i) for token, i in digits.items() if str(int(token)) == token)
    return torch.tensor([i for _, i in numbers]), torch.tensor([float(value) for value, _ in numbers])


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


def near_values(label: int, legal: Sequence[int], count: int) -> list[int]:
    """The label and its `count` nearest legal numbers (the lower of two first): candidates of a contrastive term.

    Raises:
        ValueError: If the label is not legal.
    """
    if label not in legal:
        raise ValueError(f"{label} is not among the legal numbers")
    return sorted(legal, key=lambda value: (abs(value - label), value))[: count + 1]


def linear_place(place: int) -> float:
    """The published place weight of a digit: how many are still to come, this one included (4, 3, 2, 1)."""
    return float(place)


def decimal_place(place: int) -> float:
    """What a digit is worth, in units of the last one (1000, 100, 10, 1); `place` as in `linear_place`."""
    return 10.0 ** (place - 1)


PLACE_WEIGHTS: dict[str, Callable[[int], float]] = {"decimal": decimal_place, "linear": linear_place}
"""Place weights by the name they have in a training configuration."""


def mean_entropy(space: MetricSpace, tau: float, labels: torch.Tensor | None = None, batch_size: int = 256) -> float:
    """The mean entropy of the target distributions p_d, over labels.

    Args:
        space: Gives the distances.
        tau: Temperature of the target, above 0.
        labels: Indices of the labels to look at, shape (N,); all K by default.
        batch_size: Labels at a time; memory is of the order of batch_size x K.

    Returns:
        Nats, in [0, log K].
    """
    chosen = torch.arange(len(space.token_ids)) if labels is None else labels
    total = 0.0
    for batch in chosen.split(batch_size):
        logs = torch.log_softmax(-space.distances(batch).double() / tau, dim=-1)
        total -= float((logs.exp() * logs).where(logs > -torch.inf, 0.0).sum())
    return total / len(chosen)


def match_entropy(
    space: MetricSpace, entropy: float, labels: torch.Tensor | None = None, batch_size: int = 256
) -> float:
    """The temperature at which the target distributions have a given mean entropy.

    It carries a temperature that is known to work over to another space: measure `mean_entropy` there, and ask for
    the same here. (The source says that the temperature of a codebook comes from entropy matching and not what is
    matched; this is our reading.)

    Args:
        space: Gives the distances.
        entropy: Nats, between 0 and log K.
        labels: As in `mean_entropy`; evenly spaced ones save time on a large codebook.
        batch_size: As in `mean_entropy`.

    Returns:
        tau, to six digits.

    Raises:
        ValueError: If no temperature gives that entropy.

    Example:
        >>> digits = MetricSpace(torch.arange(10), torch.arange(10.0), squared)
        >>> round(match_entropy(digits, mean_entropy(digits, 1.0)), 4)
        1.0
    """

    def excess(log_tau: float) -> float:
        return mean_entropy(space, math.exp(log_tau), labels, batch_size) - entropy

    if not 0 < entropy < math.log(len(space.token_ids)):
        raise ValueError(f"entropy={entropy} must lie between 0 and log K = {math.log(len(space.token_ids)):.4g} nats")
    low = high = 0.0
    while excess(low) > 0:
        low -= 2.0
        if low < -60:
            raise ValueError(f"entropy={entropy} is not reached: so many tokens are no distance apart")
    while excess(high) < 0:
        high += 2.0
        if high > 60:
            raise ValueError(f"entropy={entropy} is not reached at any temperature up to {math.exp(high):.1g}")
    return math.exp(brentq(excess, low, high, xtol=1e-7)) if low < high else 1.0
