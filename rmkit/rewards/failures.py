"""What becomes of completions that can't be judged, and of a run whose judge is gone."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Sequence

from rmkit.errors import JudgeError
from rmkit.rewards.shape import group_rows

ON_FAILURE = ("none", "group_mean", "raise")
"""What may happen when a completion can't be judged: no reward, the mean of its group, or the end of the run."""


def fill_with_group_mean(rewards: Sequence[float | None], groups: Sequence[Hashable]) -> list[float | None]:
    """Rewards in which None is the mean of its group, and stays None in a group without any number.

    Args:
        rewards: The reward of each completion, or None.
        groups: What tells the group of each completion from others.
    """
    filled = list(rewards)
    for rows in group_rows(groups):
        found = [value for row in rows if (value := rewards[row]) is not None]
        if found:
            mean = statistics.fmean(found)
            for row in rows:
                filled[row] = mean if rewards[row] is None else rewards[row]
    return filled


class CircuitBreaker:
    """Stops a run whose judge gives nothing any more.

    A run that goes on without its judge learns nothing, so there is no state in which calls fail at once: each call
    asks the judge, with its time-outs and retries, until too many calls in a row got no judgement.

    Args:
        limit: Calls in a row without any judgement after which the run stops, at least 1.

    Raises:
        ValueError: For a limit below 1.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"max_outages {limit} must be at least 1")
        self._limit = limit
        self._count = 0

    def record_success(self) -> None:
        """Count anew from here: the judge is there."""
        self._count = 0

    def record_outage(self, reason: str) -> None:
        """Count a call in which the judge was asked and judged nothing.

        Raises:
            JudgeError: If it was one too many.
        """
        self._count += 1
        if self._count >= self._limit:
            raise JudgeError(
                f"the judge gave no judgement in {self._count} calls in a row, so the run stops; the last reason: "
                f"{reason}; see that the judge runs, then start again, from the last checkpoint if there is one"
            )
