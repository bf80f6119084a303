from __future__ import annotations

import math
import struct
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmkit.preparation.conversion import rescale
from rmkit.preparation.ratings import exact_rating
from rmkit.rubric import Attribute


def to_float32(value: float) -> float:
    """What a float32 column gives back."""
    return struct.unpack("f", struct.pack("f", value))[0]


@given(st.integers(-5000, 5000), st.integers(1, 1000))
def test_fractions_come_back_from_floats_of_either_width(number: int, count: int) -> None:
    mean = Fraction(number, count)
    assert exact_rating(float(mean)) == mean
    assert exact_rating(to_float32(float(mean))) == mean


@given(st.floats(-1e6, 1e6))
def test_no_float_moves_by_more_than_float32_rounds(rating: float) -> None:
    assert abs(exact_rating(rating) - Fraction(rating)) <= abs(Fraction(rating)) / 2**23


def test_sums_that_floats_miss_count_as_meant() -> None:
    assert exact_rating(0.1 + 0.2) == Fraction(3, 10)
    assert exact_rating(math.nextafter(1.0, 2.0)) == 1
    assert exact_rating(0.123456) == Fraction(0.123456)  # no such fraction: as the float is
    assert exact_rating(Fraction(1, 1001)) == Fraction(1, 1001)


@pytest.mark.parametrize("rating", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(rating: float) -> None:
    with pytest.raises(ValueError, match="nan|inf|NaN"):
        exact_rating(rating)


@pytest.mark.parametrize(
    ("rating", "score"),
    [(0.05, 1), (0.15, 2), (0.25, 3), (0.35, 4), (0.45, 5), (0.55, 6), (0.65, 7), (0.75, 8), (0.85, 9), (0.95, 10)],
)
def test_decimal_halves_round_up_whatever_their_floats_are(rating: float, score: int) -> None:
    attribute = Attribute("a", "A", minimum=0, maximum=10)
    assert rescale(rating, (0, 1), attribute) == score
    assert rescale(to_float32(rating), (0, 1), attribute) == score
    assert rescale(7 * rating / 10, (0, 0.7), attribute) == score


def test_halves_among_thirds_round_up() -> None:
    attribute = Attribute("a", "A", minimum=1, maximum=10)
    assert [rescale((0 + 1 + 1) / 3, (0, 4), attribute), rescale(1 + 2 / 3, (1, 5), attribute)] == [3, 3]
