"""What number a judgement gives as a reward: which score, how it is centred, and what is done to it after that."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from rmkit.rubric import Rubric
from rmkit.schema import Judgment
from rmkit.scores import aggregate_std, centre, lowest_aggregate

_EPSILON = 1e-4  # beside the standard deviation, as in TRL's own normalisation


@dataclass(frozen=True, slots=True)
class RewardShape:
    """How rewards are made of scores; the steps are taken in the order of the arguments.

    Args:
        attribute: Key of the one attribute that makes the reward, on [0, 1] and without its weight; None for the
            aggregate.
        length_budget: Characters of a completion, above 0. In a longer one, what the score has above the lowest
            possible is multiplied by `length_budget / length`. Characters, because TRL's OnlineDPO pads the token
            ids that it gives.
        risk: k in `score - k * its standard deviation`, at least 0. Attributes are taken as independent.
        centred: Whether 0 is put in the middle of the range, which then is [-1, 1].
        group_normalised: Whether `(reward - mean) / (standard deviation + 1e-4)` of its group takes its place.
        scale: What the reward is multiplied by.
        clip: Bound above 0: the reward is kept in [-clip, clip].

    Raises:
        ValueError: For a number outside its range.
    """

    attribute: str | None = None
    length_budget: int | None = None
    risk: float = 0.0
    centred: bool = True
    group_normalised: bool = False
    scale: float = 1.0
    clip: float | None = None

    def __post_init__(self) -> None:
        for name in ("length_budget", "clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} {value} must be above 0; leave it out to do without")
        if not (math.isfinite(self.risk) and self.risk >= 0):
            raise ValueError(f"risk {self.risk} must be a number from 0 on; 0 leaves the deviation out")
        if not math.isfinite(self.scale):
            raise ValueError(f"scale {self.scale} is no number")

    def read_raw(self, rubric: Rubric, readout: str, judgment: Judgment) -> float:
        """The score as the judge gave it: the aggregate, or the attribute's on its scale.

        Args:
            rubric: The rubric that was followed.
            readout: Which figure of an attribute's distribution counts.
            judgment: A judgement that did not fail.

        Raises:
            RubricError: If the rubric has no such attribute.
        """
        if self.attribute is None:
            assert judgment.aggregate is not None
            return judgment.aggregate
        return float(getattr(judgment.attributes[rubric[self.attribute].key], readout))

    def make(self, rubric: Rubric, raw: float, judgment: Judgment, length: int) -> float:
        """The reward of one completion, before its group plays a part.

        Args:
            rubric: The rubric that was followed.
            raw: What `read_raw` gave.
            judgment: The judgement.
            length: Characters of the completion, at least 1.
        """
        if self.attribute is None:
            value, lowest, std = raw, lowest_aggregate(rubric), aggregate_std(rubric, judgment.attributes)
        else:
            attribute = rubric[self.attribute]
            value, lowest = attribute.to_unit(raw), 0.0
            std = attribute.width_to_unit(judgment.attributes[attribute.key].std)
        if self.length_budget is not None:
            value = lowest + (value - lowest) * min(1.0, self.length_budget / length)
        value -= self.risk * std
        if not self.centred:
            return value
        return centre(rubric, value) if self.attribute is None else 2 * value - 1

    def finish(self, rewards: Sequence[float | None], groups: Sequence[Hashable]) -> list[float | None]:
        """The rewards of one call: normalised within their groups, scaled and clipped as asked for.

        Args:
            rewards: What `make` gave for each completion, or None.
            groups: What tells the group of each completion from others.

        Returns:
            As many rewards; None stays None.
        """
        finished = list(rewards)
        if self.group_normalised:
            for rows in group_rows(groups):
                found = [value for row in rows if (value := rewards[row]) is not None]
                mean = statistics.fmean(found) if found else 0.0
                std = statistics.stdev(found) if len(found) > 1 else 0.0
                for row in rows:
                    value = rewards[row]
                    finished[row] = None if value is None else (value - mean) / (std + _EPSILON)
        bound = math.inf if self.clip is None else self.clip
        return [None if value is None else max(-bound, min(bound, self.scale * value)) for value in finished]


def group_rows(groups: Sequence[Hashable]) -> list[list[int]]:
    """Row numbers of each group, in the order in which groups begin."""
    rows: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    return list(rows.values())
