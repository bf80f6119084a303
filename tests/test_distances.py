"""Distances between scores, and what they become for tokens that lead to several scores."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rmkit.distances import DISTANCES, absolute, soft_minimum, squared


def test_distances_over_a_scale() -> None:
    values = torch.arange(1, 6, dtype=torch.float64)
    labels = torch.tensor([1.0, 4.0], dtype=torch.float64)
    assert squared(values, labels).tolist() == [[0, 1, 4, 9, 16], [9, 4, 1, 0, 1]]
    assert absolute(values, labels).tolist() == [[0, 1, 2, 3, 4], [3, 2, 1, 0, 1]]
    assert squared(values, torch.tensor(3.0)).tolist() == [4, 1, 0, 1, 4]


@given(st.integers(0, 100), st.integers(0, 100), st.sampled_from(sorted(DISTANCES)))
def test_a_distance_is_symmetric_and_zero_only_at_the_label(a: int, b: int, name: str) -> None:
    forth = DISTANCES[name](torch.tensor([float(a)]), torch.tensor(float(b))).item()
    back = DISTANCES[name](torch.tensor([float(b)]), torch.tensor(float(a))).item()
    assert forth == back
    assert (forth == 0) == (a == b)


def test_the_soft_minimum_of_one_score_is_its_own_distance() -> None:
    for tau in (0.5, 1.0, 2.0):
        assert soft_minimum(torch.tensor([9.0]), tau).item() == pytest.approx(9.0)


def test_the_soft_minimum_stays_finite_far_from_the_label() -> None:
    assert soft_minimum(torch.tensor([1e6, 1e6 + 1]), 1.0).item() == pytest.approx(1e6)


@pytest.mark.parametrize("tau", [1.0, 2.0, 50.0])
@pytest.mark.parametrize("label", [0, 4, 39, 40, 95, 100])
def test_first_digits_get_the_mass_of_all_numbers_that_start_so(label: int, tau: float) -> None:
    scores = range(101)
    weights = {v: math.exp(-((v - label) ** 2) / tau) for v in scores}
    starts = {digit: [v for v in scores if str(v)[0] == digit] for digit in "0123456789"}
    distances = torch.stack(
        [
            soft_minimum(
                squared(torch.tensor(numbers, dtype=torch.float64), torch.tensor(float(label), dtype=torch.float64)),
                tau,
            )
            for numbers in starts.values()
        ]
    )
    target = torch.softmax(-distances / tau, dim=0)
    for digit, found in zip(starts, target.tolist(), strict=True):
        assert found == pytest.approx(sum(weights[v] for v in starts[digit]) / sum(weights.values()), abs=1e-12)


def test_thirty_nine_is_near_forty_although_no_digit_is() -> None:
    threes, fours = torch.arange(30.0, 40.0), torch.arange(40.0, 50.0)
    distances = torch.stack([soft_minimum(squared(group, torch.tensor(39.0)), 1.0) for group in (threes, fours)])
    share = torch.softmax(-distances, dim=0)[1].item()
    near = math.exp(-1) + math.exp(-4) + math.exp(-9)
    assert share == pytest.approx(near / (near + 1 + math.exp(-1) + math.exp(-4) + math.exp(-9)), abs=1e-6)
    assert share > 0.2
