"""Rescaling a judge's numbers to what they turned out to mean: isotonic curves, kept in a file beside the judge.

Nothing is rescaled unless it is asked for, and then the raw numbers stay beside the rescaled ones. Curves never fall,
so within one attribute no order is turned round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from rmkit.errors import DataError
from rmkit.manifest import read_json, write_json
from rmkit.rubric import Rubric
from rmkit.schema import Judgment
from rmkit.scores import aggregate_scores

FILE_NAME = "calibration.json"
"""What the file is called in a judge folder."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A map that never falls: straight lines between knots, constant beyond them.

    Args:
        inputs: The knots' places, ascending.
        outputs: The map's values there.
        n: How many observations it was fitted to.
    """

    inputs: tuple[float, ...]
    outputs: tuple[float, ...]
    n: int

    def __call__(self, value: float) -> float:
        """The rescaled value."""
        return float(np.interp(value, self.inputs, self.outputs))


def fit_curve(inputs: Sequence[float], targets: Sequence[float]) -> Curve:
    """The curve that never falls with the least squared error (isotonic regression, by SciPy).

    Observations of one input are averaged first. Knots are the ends of its steps; between them it rises evenly.

    Args:
        inputs: What the judge said, of shape (N,), N > 0.
        targets: What it turned out to be, (N,).

    Example:
        >>> fit_curve([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0])
        Curve(inputs=(1.0, 2.0, 3.0, 4.0), outputs=(1.0, 2.5, 2.5, 4.0), n=4)
    """
    places, index, counts = np.unique(np.asarray(inputs, dtype=float), return_inverse=True, return_counts=True)
    means = np.bincount(index, weights=np.asarray(targets, dtype=float)) / counts
    fitted = isotonic_regression(means, weights=counts.astype(float)).x
    inner = np.zeros(len(fitted), dtype=bool)
    inner[1:-1] = (fitted[1:-1] == fitted[:-2]) & (fitted[1:-1] == fitted[2:])
    return Curve(tuple(places[~inner].tolist()), tuple(fitted[~inner].tolist()), len(inputs))


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a judge's numbers are rescaled.

    Args:
        judge: The judge's name, for the reader.
        judge_sha256: What tells it from every other judge.
        rubric: Its rubric.
        scores: Per attribute key, from the expected score to the mean human rating; both on the attribute's scale.
        preference: From the confidence max(P, 1 - P) to how often the preferred side is the better one, or None.
        fitted_on: Name and SHA-256 of the scored files, for the record.
    """

    judge: str
    judge_sha256: str
    rubric: Rubric
    scores: Mapping[str, Curve] = field(default_factory=dict)
    preference: Curve | None = None
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    def rescale(self, judgment: Judgment) -> dict[str, Any] | None:
        """The rescaled numbers of a judgement, None of a failed one.

        Returns:
            `scores`: the rescaled expected score of each attribute that has a curve. `aggregate`: of the rescaled
            scores, weighted as the rubric does; None where an attribute that counts has no curve.
        """
        if judgment.error is not None:
            return None
        scores = {key: curve(judgment.attributes[key].mean) for key, curve in self.scores.items()}
        lacking = any(attribute.weight and attribute.key not in scores for attribute in self.rubric.attributes)
        return {"scores": scores, "aggregate": None if lacking else aggregate_scores(self.rubric, scores)}

    def rescale_probability(self, probability: float) -> float:
        """P(first > second), rescaled; swapping the sides still gives 1 - P.

        Raises:
            DataError: If no curve of preferences was fitted.
        """
        if self.preference is None:
            raise DataError("this calibration was fitted to ratings and says nothing of preferences")
        confidence = self.preference(max(probability, 1 - probability))
        return confidence if probability > 0.5 else 1 - confidence if probability < 0.5 else 0.5

    def check_judge(self, judge_sha256: str, where: str) -> None:
        """Refuse another judge than the one it was fitted to.

        Raises:
            DataError: For another judge.
        """
        if judge_sha256 != self.judge_sha256:
            raise DataError(
                f"{where}: was fitted to another judge, or to {self.judge!r} before it was trained further; fit it "
                "anew with evaluate/calibrate.py"
            )

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            path,
            {
                "judge": self.judge,
                "judge_sha256": self.judge_sha256,
                "rubric": self.rubric.to_dict(),
                "scores": {key: _curve_to_dict(curve) for key, curve in self.scores.items()},
                "preference": None if self.preference is None else _curve_to_dict(self.preference),
                "fitted_on": dict(self.fitted_on),
            },
        )

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what `save` wrote.

        Raises:
            DataError: If it can't be read or is something else.
            RubricError: If its rubric is broken.
        """
        data = read_json(path)
        try:
            rubric = Rubric.from_dict(data["rubric"], f"{path}: rubric")
            scores = {key: _curve_from_dict(item) for key, item in data["scores"].items()}
            preference = None if data["preference"] is None else _curve_from_dict(data["preference"])
            found = cls(data["judge"], data["judge_sha256"], rubric, scores, preference, data["fitted_on"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"{path}: no calibration ({error!r}); fit one with evaluate/calibrate.py") from error
        strange = sorted(scores.keys() - set(rubric.keys))
        if strange:
            raise DataError(f"{path}: rescales {strange[0]!r}, which its rubric {rubric.name!r} does not have")
        return found


def _curve_to_dict(curve: Curve) -> dict[str, Any]:
    return {"inputs": list(curve.inputs), "outputs": list(curve.outputs), "n": curve.n}


def _curve_from_dict(data: Mapping[str, Any]) -> Curve:
    inputs, outputs = tuple(map(float, data["inputs"])), tuple(map(float, data["outputs"]))
    if not inputs or len(inputs) != len(outputs) or (np.diff(inputs) <= 0).any() or (np.diff(outputs) < 0).any():
        raise ValueError("a curve needs as many outputs as inputs, and both must rise")
    return Curve(inputs, outputs, int(data["n"]))
