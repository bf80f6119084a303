from __future__ import annotations

import copy

import pytest

from rmkit.errors import JudgeError
from rmkit.rewards.failures import CircuitBreaker, fill_with_group_mean


def test_a_failure_gets_the_mean_of_its_group_or_none() -> None:
    rewards = [0.2, None, None, 0.6, -0.5, None]
    groups = ["a", "a", "b", "a", "c", "c"]
    assert fill_with_group_mean(rewards, groups) == [0.2, pytest.approx(0.4), None, 0.6, -0.5, -0.5]
    assert fill_with_group_mean([], []) == []


def test_the_breaker_counts_outages_in_a_row() -> None:
    breaker = CircuitBreaker(3)
    for _ in range(2):
        breaker.record_outage("gone")
    breaker.record_success()
    for _ in range(2):
        breaker.record_outage("gone")
    other = copy.deepcopy(breaker)
    with pytest.raises(JudgeError, match="no judgement in 3 calls in a row.*the last reason: http://there: no answer"):
        breaker.record_outage("http://there: no answer")
    other.record_success()
    with pytest.raises(ValueError, match="max_outages 0 must be at least 1"):
        CircuitBreaker(0)
