"""Raw ratings as exact numbers, so that a score never depends on how a float was rounded."""

from __future__ import annotations

from fractions import Fraction

_MAX_DENOMINATOR = 1000
_PRECISION = Fraction(1, 2**23)  # relative, of float32


def exact_rating(rating: int | float | Fraction) -> Fraction:
    """The number that a rating stands for.

    A float counts as the nearest fraction with a denominator of at most 1,000 if it differs from that by no more than
    float32 does, and as it is otherwise: 0.15 is 15/100 and 0.6666666666666666 is 2/3, though no float is either. So
    decimals of up to three places and means of up to 1,000 whole numbers are exact, also from float32 columns, and
    the halves among them are rounded as halves.

    Args:
        rating: Any finite number.

    Raises:
        ValueError: For NaN or an infinity.

    Example:
        >>> exact_rating(0.15), exact_rating(0.6666666666666666), exact_rating(4)
        (Fraction(3, 20), Fraction(2, 3), Fraction(4, 1))
    """
    try:
        exact = Fraction(rating)
    except OverflowError as error:
        raise ValueError(f"{rating} is no rating") from error
    if exact.denominator <= _MAX_DENOMINATOR:
        return exact
    near = exact.limit_denominator(_MAX_DENOMINATOR)
    return near if isinstance(rating, float) and abs(near - exact) <= _PRECISION * abs(exact) else exact
