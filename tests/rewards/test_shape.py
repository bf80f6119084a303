from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmkit.errors import RubricError
from rmkit.rewards.shape import RewardShape, group_rows
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Judgment
from rmkit.scores import ScoreDistribution, aggregate, aggregate_std, lowest_aggregate

RUBRIC = Rubric(
    "mixed",
    (
        Attribute("truth", "Truth", weight=3.0),
        Attribute("length", "Length", minimum=0, maximum=2, weight=-1.0),
        Attribute("style", "Style", weight=0.0),
    ),
)
TRUTH = ScoreDistribution((1, 2, 3, 4, 5), (0.0, 0.0, 0.5, 0.0, 0.5))  # mean 4, deviation 1
LENGTH = ScoreDistribution((0, 1, 2), (0.5, 0.0, 0.5))  # mean 1, deviation 1
STYLE = ScoreDistribution((1, 2, 3, 4, 5), (0.2,) * 5)
JUDGED = {"truth": TRUTH, "length": LENGTH, "style": STYLE}
JUDGMENT = Judgment(JUDGED, aggregate(RUBRIC, JUDGED))  # (3 * 0.75 - 0.5) / 4 = 0.4375


def make(length: int = 10, **options: Any) -> float:
    shape = RewardShape(**options)
    return shape.make(RUBRIC, shape.read_raw(RUBRIC, "mean", JUDGMENT), JUDGMENT, length)


def test_the_aggregate_and_one_attribute_centred_and_not() -> None:
    assert make() == pytest.approx(2 * 0.4375 - 0.5)  # the range is [-0.25, 0.75]
    assert make(centred=False) == pytest.approx(0.4375)
    assert make(attribute="truth") == pytest.approx(0.5)
    assert make(attribute="truth", centred=False) == pytest.approx(0.75)
    assert make(attribute="length") == pytest.approx(0.0)  # whatever its weight
    assert RewardShape(attribute="truth").read_raw(RUBRIC, "mode", JUDGMENT) == 3
    with pytest.raises(RubricError, match="no attribute 'charm'"):
        RewardShape(attribute="charm").read_raw(RUBRIC, "mean", JUDGMENT)


def test_risk_takes_off_the_deviation() -> None:
    # On [0, 1] truth deviates by 1/4 and length by 1/2, so the aggregate by sqrt(0.75^2 + 0.5^2) / 4.
    deviation = math.sqrt(0.75**2 + 0.5**2) / 4
    assert aggregate_std(RUBRIC, JUDGED) == pytest.approx(deviation)
    assert make(risk=2.0) == pytest.approx(make() - 2 * 2 * deviation)
    assert make(risk=2.0, centred=False) == pytest.approx(0.4375 - 2 * deviation)
    assert make(attribute="truth", risk=1.0) == pytest.approx(0.0)


def test_the_deviation_is_that_of_all_outcomes() -> None:
    outcomes = [
        (p * q, (3 * (t - 1) / 4 - s / 2) / 4)
        for (t, p), (s, q) in itertools.product(
            zip(TRUTH.values, TRUTH.probabilities, strict=True), zip(LENGTH.values, LENGTH.probabilities, strict=True)
        )
    ]
    mean = sum(p * value for p, value in outcomes)
    assert mean == pytest.approx(JUDGMENT.aggregate)
    variance = sum(p * (value - mean) ** 2 for p, value in outcomes)
    assert aggregate_std(RUBRIC, JUDGED) == pytest.approx(math.sqrt(variance))


def test_a_length_budget_shrinks_what_is_above_the_lowest() -> None:
    assert lowest_aggregate(RUBRIC) == -0.25
    assert make(length=100, length_budget=100) == make()
    # At twice the budget, half of what is above -0.25 is left: -0.25 + 0.6875 / 2.
    assert make(length=200, length_budget=100, centred=False) == pytest.approx(0.09375)
    assert make(length=200, length_budget=100) == pytest.approx(2 * 0.09375 - 0.5)
    assert make(length=400, length_budget=100, attribute="truth") == pytest.approx(2 * 0.75 / 4 - 1)


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_a_longer_completion_never_gains_by_its_length(first: int, second: int) -> None:
    low, high = sorted((first, second))
    assert -1 - 1e-12 <= make(length=high, length_budget=50) <= make(length=low, length_budget=50) + 1e-12


def test_groups_are_normalised_then_scaled_then_clipped() -> None:
    rewards = [0.0, 0.5, 1.0, 5.0, None, None]
    groups = ["a", "b", "a", "b", "a", "c"]
    assert RewardShape().finish(rewards, groups) == rewards
    deviation_a, deviation_b = math.sqrt(0.5), 4.5 / math.sqrt(2)  # of two numbers, with n - 1
    expected = [
        -0.5 / (deviation_a + 1e-4),
        -2.25 / (deviation_b + 1e-4),
        0.5 / (deviation_a + 1e-4),
        2.25 / (deviation_b + 1e-4),
        None,
        None,
    ]
    assert RewardShape(group_normalised=True).finish(rewards, groups) == pytest.approx(expected)
    assert RewardShape(scale=-3.0, clip=2.0).finish(rewards, groups) == [0.0, -1.5, -2.0, -2.0, None, None]
    scaled = RewardShape(group_normalised=True, scale=2.0).finish(rewards, groups)
    assert scaled == pytest.approx([None if value is None else 2 * value for value in expected])
    assert RewardShape(group_normalised=True).finish([0.3], ["a"]) == [0.0]
    assert RewardShape(group_normalised=True).finish([], []) == []


def test_groups_in_the_order_in_which_they_begin() -> None:
    assert group_rows(["b", "a", "b", "c"]) == [[0, 2], [1], [3]]


@pytest.mark.parametrize(
    "options",
    [{"length_budget": 0}, {"clip": 0.0}, {"clip": math.nan}, {"risk": -1.0}, {"risk": math.inf}, {"scale": math.nan}],
)
def test_numbers_outside_their_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        RewardShape(**options)
