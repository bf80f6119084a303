"""Whether confidence is earned: reliability bins and their expected calibration error.

The binning and the error are those of Guo et al., On Calibration of Modern Neural Networks (arXiv 1706.04599).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Statements of about the same confidence, at least one.

    Args:
        low: Lowest confidence that falls in here.
        high: Upper end, which falls into the next bin, or here in the last one.
        n: How many there are.
        confidence: Their mean confidence, in [0, 1].
        accuracy: The share of them that is right.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """Reliability bins of some statements.

    Args:
        bins: By rising confidence; empty ones are left out.
        expected_calibration_error: Mean of |accuracy - confidence| over the bins, weighted by n, in [0, 1]; None
            without a statement. With few statements it is too high, since each bin's accuracy is a noisy mean.
    """

    bins: tuple[ReliabilityBin, ...]
    expected_calibration_error: float | None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data; `Reliability.from_dict` reads it back."""
        return {
            "bins": [asdict(part) for part in self.bins],
            "expected_calibration_error": self.expected_calibration_error,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Reliability:
        """Read what `to_dict` wrote."""
        return cls(tuple(ReliabilityBin(**part) for part in data["bins"]), data["expected_calibration_error"])


def bin_reliability(
    confidences: Sequence[float] | np.ndarray,
    outcomes: Sequence[float] | np.ndarray,
    lowest: float = 0.0,
    bins: int = 10,
) -> Reliability:
    """Put statements into bins of equal width by their confidence.

    Args:
        confidences: Of each statement, shape (n,), in [`lowest`, 1].
        outcomes: Whether it is right: 1 or 0, or 0.5 for half right; shape (n,).
        lowest: The least confidence that is possible, where the bins begin.
        bins: How many, up to 1.

    Example:
        >>> found = bin_reliability([0.9, 0.94, 0.9, 0.3], [1, 1, 0, 0])
        >>> [(part.n, round(part.confidence, 3), round(part.accuracy, 3)) for part in found.bins]
        [(1, 0.3, 0.0), (3, 0.913, 0.667)]
        >>> round(found.expected_calibration_error, 3)
        0.26
    """
    confidences, outcomes = np.asarray(confidences, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    if not len(confidences):
        return Reliability((), None)
    edges = np.linspace(lowest, 1.0, bins + 1)
    places = np.clip(np.digitize(confidences, edges) - 1, 0, bins - 1)
    found, error = [], 0.0
    for place in np.unique(places):
        inside = places == place
        confidence, accuracy = float(confidences[inside].mean()), float(outcomes[inside].mean())
        error += float(inside.mean()) * abs(accuracy - confidence)
        found.append(
            ReliabilityBin(float(edges[place]), float(edges[place + 1]), int(inside.sum()), confidence, accuracy)
        )
    return Reliability(tuple(found), error)
