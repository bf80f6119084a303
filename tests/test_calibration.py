"""Isotonic curves: the least-squares fit that never falls, and a file that fits one judge only."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmkit.calibration import Calibration, Curve, fit_curve
from rmkit.errors import DataError
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Judgment
from rmkit.scores import ScoreDistribution

RUBRIC = Rubric("two", (Attribute("truth", "Truth", weight=3), Attribute("tone", "Tone", minimum=0, weight=1)))
CURVES = {"truth": Curve((1.0, 5.0), (3.0, 5.0), 9), "tone": Curve((0.0, 5.0), (0.0, 2.5), 9)}


def certain(minimum, score):
    values = tuple(range(minimum, 6))
    return ScoreDistribution(values, tuple(float(value == score) for value in values))


def test_pooled_steps_by_hand():
    # 3 and 2 fall, so both become 2.5; the two observations at 4 are averaged first.
    curve = fit_curve([1, 2, 3, 4, 4], [1, 3, 2, 4, 6])
    assert curve.inputs == (1.0, 2.0, 3.0, 4.0)
    assert curve.outputs == (1.0, 2.5, 2.5, 5.0)
    assert [curve(x) for x in (0, 1.5, 2.5, 3.5, 9)] == [1.0, 1.75, 2.5, 3.75, 5.0]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5)), min_size=1, max_size=60))
def test_curves_never_fall_and_keep_the_mean(observations):
    inputs, targets = zip(*observations, strict=True)
    curve = fit_curve(inputs, targets)
    rescaled = [curve(x) for x in sorted(inputs)]
    assert (np.diff(rescaled) >= -1e-12).all()
    assert np.mean(rescaled) == pytest.approx(np.mean(targets))
    assert min(targets) - 1e-9 <= rescaled[0] and rescaled[-1] <= max(targets) + 1e-9


def test_rescaled_scores_and_aggregate_stand_beside_the_raw_ones():
    calibration = Calibration("tiny", "abc", RUBRIC, CURVES)
    judgment = Judgment({"truth": certain(1, 5), "tone": certain(0, 2)}, 0.9)
    found = calibration.rescale(judgment)
    assert found["scores"] == {"truth": 5.0, "tone": 1.0}
    assert found["aggregate"] == pytest.approx((3 * 1.0 + 1 * 0.2) / 4)
    assert calibration.rescale(Judgment({}, None, error="too long")) is None
    half = Calibration("tiny", "abc", RUBRIC, {"tone": CURVES["tone"]}).rescale(judgment)
    assert half == {"scores": {"tone": 1.0}, "aggregate": None}


def test_probabilities_are_rescaled_alike_on_both_sides():
    calibration = Calibration("tiny", "abc", RUBRIC, preference=Curve((0.5, 1.0), (0.5, 0.8), 9))
    assert calibration.rescale_probability(1.0) == pytest.approx(0.8)
    assert calibration.rescale_probability(0.0) == pytest.approx(0.2)
    assert calibration.rescale_probability(0.5) == 0.5
    with pytest.raises(DataError, match="nothing of preferences"):
        Calibration("tiny", "abc", RUBRIC).rescale_probability(0.7)


def test_saved_and_loaded(tmp_path):
    calibration = Calibration("tiny", "abc", RUBRIC, CURVES, Curve((0.5,), (0.7,), 3), {"input": "x.jsonl"})
    calibration.save(tmp_path / "judge/calibration.json")
    assert Calibration.load(tmp_path / "judge/calibration.json") == calibration
    calibration.check_judge("abc", "here")
    with pytest.raises(DataError, match="here: was fitted to another judge"):
        calibration.check_judge("abd", "here")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": {"truth": {"inputs": [1, 2], "outputs": [2, 1], "n": 2}}}, "no calibration"),
        ({"scores": {"wit": {"inputs": [1], "outputs": [2], "n": 2}}}, "'wit', which its rubric 'two'"),
        ({"rubric": None}, "rubric"),
        ({"preference": 3}, "no calibration"),
    ],
)
def test_broken_files_are_refused(tmp_path, changes, message):
    path = tmp_path / "calibration.json"
    Calibration("tiny", "abc", RUBRIC, CURVES).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")
    with pytest.raises(ValueError, match=message):
        Calibration.load(path)
