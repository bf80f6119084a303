"""Score sequences and what is read from them: text, distributions, aggregate, preference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmkit.errors import RubricError, ScoreParseError
from rmkit.rubric import Rubric

_MAX_SUPPORT = 4096  # points of an aggregate's distribution, before it is put on a grid of as many


def render_scores(rubric: Rubric, scores: Mapping[str, int]) -> str:
    """Write scores as a score sequence; the exact inverse of `parse_scores`.

    Args:
        rubric: Gives order, names and scales.
        scores: Score per attribute key. A missing one is left out of the sequence.

    Raises:
        RubricError: For no scores, an unknown attribute, or a score off its scale.

    Example:
        >>> from rmkit.rubric import load_rubric
        >>> render_scores(load_rubric("helpsteer"), {"correctness": 5, "helpfulness": 4})
        'Helpfulness: 4, Correctness: 5'
    """
    complete = rubric.complete(scores)
    if not complete:
        raise RubricError("no scores to render: rate at least one attribute")
    return ", ".join(f"{rubric[key].name}: {score}" for key, score in complete.items())


def parse_scores(rubric: Rubric, text: str) -> dict[str, int]:
    """Read a score sequence; the exact inverse of `render_scores`, and strict.

    Raises:
        ScoreParseError: For anything that `render_scores` would not write, with the place and the reason.

    Example:
        >>> from rmkit.rubric import load_rubric
        >>> parse_scores(load_rubric("helpsteer"), "Helpfulness: 4, Correctness: 5")
        {'helpfulness': 4, 'correctness': 5}
    """
    by_name = {attribute.name: attribute for attribute in rubric.attributes}
    scores: dict[str, int] = {}
    for item in text.split(", "):
        name, colon, digits = item.partition(": ")
        if not colon or name not in by_name:
            raise ScoreParseError(f"{item!r} in {text!r} is not 'Name: n' with a name of rubric {rubric.name!r}")
        attribute = by_name[name]
        legal = {str(value): value for value in attribute.values}
        if digits not in legal:
            raise ScoreParseError(
                f"{item!r} in {text!r}: {digits!r} is not an integer in {attribute.minimum}-{attribute.maximum}"
            )
        if attribute.key in scores:
            raise ScoreParseError(f"{name!r} stands twice in {text!r}")
        scores[attribute.key] = legal[digits]
    if list(scores) != [key for key in rubric.keys if key in scores]:
        raise ScoreParseError(f"the attributes of {text!r} are not in rubric order: {', '.join(rubric.keys)}")
    if rubric.complete(scores) != scores:
        raise ScoreParseError(f"{text!r}: a sum does not equal its parts")
    return scores


@dataclass(frozen=True, slots=True)
class ScoreDistribution:
    """P(score) over the legal scores of one attribute.

    Args:
        values: Legal scores, ascending, length K.
        probabilities: Their probabilities, length K, summing to 1.
        outside_mass: Probability in [0, 1] that the model gave to anything else at this place, before
            the legal scores were normalised.
    """

    values: tuple[int, ...]
    probabilities: tuple[float, ...]
    outside_mass: float = 0.0

    @property
    def mean(self) -> float:
        """The expected score."""
        return float(np.dot(self.values, self.probabilities))

    @property
    def mode(self) -> int:
        """The most probable score; the lowest of several."""
        return self.values[int(np.argmax(self.probabilities))]

    @property
    def median(self) -> int:
        """The lowest score with at least half of the probability at or below it."""
        index = int(np.searchsorted(np.cumsum(self.probabilities), 0.5 - 1e-12))
        return self.values[min(index, len(self.values) - 1)]

    @property
    def std(self) -> float:
        """The standard deviation of the score."""
        variance = float(np.dot(np.square(self.values), self.probabilities)) - self.mean**2
        return math.sqrt(max(variance, 0.0))

    @property
    def entropy(self) -> float:
        """The entropy in nats, between 0 and log K."""
        probabilities = np.asarray(self.probabilities)
        positive = probabilities[probabilities > 0]
        return float(-(positive * np.log(positive)).sum()) + 0.0

    def to_dict(self) -> dict[str, Any]:
        """The distribution as it stands in `scores.jsonl`."""
        return {
            "values": list(self.values),
            "probabilities": list(self.probabilities),
            "mean": self.mean,
            "mode": self.mode,
            "entropy": self.entropy,
            "outside_mass": self.outside_mass,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ScoreDistribution:
        """Read what `to_dict` wrote; the derived figures are computed anew."""
        return cls(tuple(data["values"]), tuple(data["probabilities"]), data["outside_mass"])


READOUTS = ("mean", "mode", "median")
"""Ways to read one number from a score distribution; `mean` is the default."""


def aggregate(rubric: Rubric, distributions: Mapping[str, ScoreDistribution], readout: str = "mean") -> float:
    """Weighted mean of the attributes, each mapped to [0, 1] on its scale: sum(w * m) / sum(|w|).

    Args:
        rubric: Gives scales and weights.
        distributions: One for each attribute of the rubric.
        readout: Which figure of a distribution counts: `mean`, `mode` or `median`.

    Returns:
        A number in [0, 1] when all weights are positive; in general between minus the share of the
        negative weights and the share of the positive ones.

    Raises:
        RubricError: If an attribute with a weight has no distribution.
    """
    if readout not in READOUTS:
        raise RubricError(f"readout {readout!r} is unknown; choose {', '.join(READOUTS)}")
    total = 0.0
    for attribute in rubric.attributes:
        if attribute.weight:
            score = getattr(_weighted(distributions, attribute.key), readout)
            total += attribute.weight * attribute.to_unit(score)
    return total / _total_weight(rubric)


def aggregate_scores(rubric: Rubric, scores: Mapping[str, float]) -> float | None:
    """Weighted mean of single scores, each mapped to [0, 1] on its scale: the `aggregate` of numbers.

    Args:
        rubric: Gives scales and weights.
        scores: Score per attribute key, perhaps not for all: only those given count.

    Returns:
        A number in the range of `aggregate`; None if no given attribute has a weight.

    Example:
        >>> from rmkit.rubric import Attribute
        >>> rubric = Rubric("two", (Attribute("truth", "Truth", weight=3), Attribute("wit", "Wit")))
        >>> aggregate_scores(rubric, {"truth": 5, "wit": 3})
        0.875
    """
    given = [attribute for attribute in rubric.attributes if attribute.weight and attribute.key in scores]
    if not given:
        return None
    total = sum(attribute.weight * attribute.to_unit(scores[attribute.key]) for attribute in given)
    return total / sum(abs(attribute.weight) for attribute in given)


def aggregate_std(rubric: Rubric, distributions: Mapping[str, ScoreDistribution]) -> float:
    """Standard deviation of the aggregate: sqrt(sum((w * s)^2)) / sum(|w|), with s on [0, 1] as the scores are.

    Attributes are taken as independent.

    Args:
        rubric: Gives scales and weights.
        distributions: One for each attribute of the rubric.

    Returns:
        A number in [0, 0.5].

    Raises:
        RubricError: If an attribute with a weight has no distribution.
    """
    deviations = [
        attribute.weight * attribute.width_to_unit(_weighted(distributions, attribute.key).std)
        for attribute in rubric.attributes
        if attribute.weight
    ]
    return math.hypot(*deviations) / _total_weight(rubric)


def lowest_aggregate(rubric: Rubric) -> float:
    """The lowest aggregate that a rubric allows: minus the share of its negative weights, 0 without any.

    The highest one is 1 above it.
    """
    return sum(min(attribute.weight, 0.0) for attribute in rubric.attributes) / _total_weight(rubric)


def _weighted(distributions: Mapping[str, ScoreDistribution], key: str) -> ScoreDistribution:
    if key not in distributions:
        raise RubricError(f"no score distribution for {key!r}, which counts in the aggregate")
    return distributions[key]


def _total_weight(rubric: Rubric) -> float:
    return sum(abs(attribute.weight) for attribute in rubric.attributes)


def centre(rubric: Rubric, value: float) -> float:
    """Map an aggregate to [-1, 1] with 0 in the middle of its range: 2 * aggregate - sum(w) / sum(|w|).

    With positive weights this is `2 * aggregate - 1`: every attribute at the middle of its scale gives 0.
    """
    return 2 * value - sum(attribute.weight for attribute in rubric.attributes) / _total_weight(rubric)


def verdict(first: float, second: float, tolerance: float = 0.0) -> int:
    """Which aggregate is higher: 1 for the first, -1 for the second, 0 for a tie.

    A tie is exact equality; with a tolerance, any difference of at most that size.
    """
    if abs(first - second) <= tolerance:
        return 0
    return 1 if first > second else -1


def probability_higher(
    rubric: Rubric, first: Mapping[str, ScoreDistribution], second: Mapping[str, ScoreDistribution]
) -> float:
    """P(first > second) + P(first = second) / 2 for the aggregates of two responses.

    Attributes are taken as independent, so each aggregate's distribution is a convolution. Above 4,096
    distinct values it is put on a grid of as many points, which moves no mass by more than one step for
    each attribute from there on.

    Returns:
        A probability in [0, 1]; 0.5 for two equal distributions.

    Raises:
        RubricError: If an attribute with a weight has no distribution.
    """
    values_1, mass_1 = _aggregate_distribution(rubric, first)
    values_2, mass_2 = _aggregate_distribution(rubric, second)
    below = np.concatenate([[0.0], np.cumsum(mass_2)])
    strictly = below[np.searchsorted(values_2, values_1 - 1e-9, side="left")]
    at_most = below[np.searchsorted(values_2, values_1 + 1e-9, side="right")]
    return float(np.clip((mass_1 * (strictly + at_most) / 2).sum(), 0.0, 1.0))


def _aggregate_distribution(
    rubric: Rubric, distributions: Mapping[str, ScoreDistribution]
) -> tuple[np.ndarray, np.ndarray]:
    """Distinct aggregates (n,), ascending, and their probabilities (n,)."""
    values, mass = np.zeros(1), np.ones(1)
    for attribute in rubric.attributes:
        if not attribute.weight:
            continue
        distribution = _weighted(distributions, attribute.key)
        share = attribute.weight / _total_weight(rubric)
        steps = np.array([share * attribute.to_unit(value) for value in distribution.values])
        values = np.add.outer(values, steps).ravel()
        mass = np.multiply.outer(mass, np.asarray(distribution.probabilities)).ravel()
        values, mass = _merge(np.round(values, 10), mass)
        if len(values) > _MAX_SUPPORT:
            grid = np.linspace(values[0], values[-1], _MAX_SUPPORT)
            values, mass = _merge(grid[np.searchsorted(grid, values).clip(max=_MAX_SUPPORT - 1)], mass)
    return values, mass / mass.sum()


def _merge(values: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distinct, index = np.unique(values, return_inverse=True)
    return distinct, np.bincount(index, weights=mass, minlength=len(distinct))
