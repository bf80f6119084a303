"""Shares of a scale: what single ranks, margins, labels, levels and votes are worth, by the rules of preferences.

A share is a number in [0, 1], kept exact: 0 is the worst score of a scale and 1 the best.
`rmkit.preparation.preferences` has the table of the rules. Adapters, which it imports, use these functions from here.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from fractions import Fraction

Share = Fraction


def share_rank(ranks: Sequence[int]) -> tuple[Share, ...]:
    """The share of each rank: evenly spread from 1 for the best to 0 for the worst; ties share their mean place.

    Args:
        ranks: Two or more, the lowest for the best. Only their order counts.

    Example:
        >>> [str(share) for share in share_rank([1, 2, 2, 9])]
        ['1', '1/2', '1/2', '0']
    """
    order = sorted(ranks)
    below = [bisect_left(order, rank) for rank in ranks]
    equal = [bisect_right(order, rank) - low for rank, low in zip(ranks, below, strict=True)]
    most = len(ranks) - 1
    return tuple(1 - (Fraction(b) + Fraction(e - 1, 2)) / most for b, e in zip(below, equal, strict=True))


def share_margin(strength: float | Fraction) -> tuple[Share, Share]:
    """The shares of the better and the worse of two responses, as far apart as the preference is strong.

    Args:
        strength: 0 for a tie to 1 for the clearest preference.

    Raises:
        ValueError: If it is outside [0, 1].
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"a strength of preference lies in [0, 1], found {strength}")
    half = Fraction(strength) / 2
    return Fraction(1, 2) + half, Fraction(1, 2) - half


def share_label(is_good: bool) -> Share:
    """The share of a response that is labelled good (1) or bad (0)."""
    return Fraction(int(is_good))


def share_severity(level: int, worst: int) -> Share:
    """The share of a level of harm, from 0, harmless, which gets 1, to `worst`, which gets 0.

    Raises:
        ValueError: If the level is outside 0 to `worst`.
    """
    if not 0 <= level <= worst:
        raise ValueError(f"a level of severity lies in 0-{worst}, found {level}")
    return 1 - Fraction(level, worst)


def take_majority(votes: Sequence[int]) -> tuple[int, Fraction]:
    """What most votes say of two responses, and how strongly.

    Args:
        votes: One per annotator: 1 or 2 for the better response, 0 for a tie.

    Returns:
        1 or 2, or 0 where no choice has more votes than any other or most say tie; and the strength for `margin`,
        (most - second most) / votes, 0 for a tie.

    Example:
        >>> take_majority([1, 1, 2])
        (1, Fraction(1, 3))
    """
    counts = sorted(((votes.count(choice), choice) for choice in (0, 1, 2)), reverse=True)
    (most, choice), (second, _), _ = counts
    if choice == 0 or most == second:
        return 0, Fraction(0)
    return choice, Fraction(most - second, len(votes))
