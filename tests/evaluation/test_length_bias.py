"""Length bias: what is counted, and a slope that quality does not hide."""

from __future__ import annotations

import numpy as np
import pytest

from rmkit.evaluation.length_bias import fit_slope, measure_length_bias
from rmkit.evaluation.outcomes import compare_pairs, group_by_subset
from rmkit.evaluation.records import Scoring
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Judgment, Message, PreferencePair
from rmkit.scores import ScoreDistribution

RUBRIC = Rubric("one", (Attribute("quality", "Quality"),))
EVEN = {"quality": ScoreDistribution((1, 2, 3, 4, 5), (0.2,) * 5)}


def measure(rows):
    """Figures for rows of (chosen length, rejected length, chosen score, rejected score)."""
    pairs, judgments = [], {}
    for number, (chosen, rejected, *scores) in enumerate(rows):
        pairs.append(PreferencePair(str(number), "x", (Message("user", "Q"),), ("c" * chosen,), ("r" * rejected,)))
        for side, score in zip(("chosen", "rejected"), scores, strict=True):
            error = "too long" if score is None else None
            judgments[str(number), side, 0] = Judgment({} if error else EVEN, score, error=error)
    scoring = Scoring(tuple(pairs), judgments, RUBRIC, {}, "")
    return measure_length_bias(scoring, group_by_subset(compare_pairs(scoring)), resamples=200)


def test_counts_by_hand():
    rows = [
        (20, 10, 0.9, 0.1),  # the longer one wins, rightly
        (10, 20, 0.1, 0.9),  # the longer one wins, wrongly
        (10, 20, 0.5, 0.5),  # a tie
        (20, 10, None, 0.5),  # no verdict: wrong, and nobody is preferred
        (10, 10, 0.9, 0.1),  # as long
    ]
    figures = measure(rows)["subsets"]["x"]
    assert [figures[key] for key in ("chosen_longer", "chosen_shorter", "equal_length")] == [2, 2, 1]
    shares = {
        key: (figures[key]["share"], figures[key]["n"])
        for key in ("longer_preferred", "longer_chosen", "accuracy_longer", "accuracy_shorter")
    }
    assert shares == {
        "longer_preferred": (pytest.approx(2.5 / 3), 3),
        "longer_chosen": (0.5, 4),
        "accuracy_longer": (0.5, 2),
        "accuracy_shorter": (0.25, 2),
    }
    assert figures["excess"]["mean"] == pytest.approx((2.5 - 1) / 3)
    low, high = figures["accuracy_longer"]["interval"]
    assert low < 0.5 < high
    by_ratio = [(row["low"], row["high"], row["n"], row["accuracy"]) for row in measure(rows)["by_ratio"]]
    assert by_ratio == [(-1.5, -0.5, 2, 0.25), (-0.1, 0.1, 1, 1.0), (0.5, 1.5, 1, 1.0)]


def test_a_judge_that_prefers_length_is_found_out():
    rng = np.random.default_rng(2)
    lengths = rng.integers(50, 2000, (300, 2))
    noise = rng.normal(0, 0.02, (300, 2))
    good = np.array([0.2, 0.0])  # what chosen is better by
    biased = 0.04 * np.log2(lengths) + good + noise
    figures = measure([(*map(int, size), *map(float, score)) for size, score in zip(lengths, biased, strict=True)])
    slope = figures["slope"]
    assert slope["interval"][0] < 0.04 < slope["interval"][1]
    assert slope["slope"] == pytest.approx(0.04, abs=0.003) and slope["quality"] == pytest.approx(0.2, abs=0.01)
    assert (slope["responses"], slope["groups"]) == (600, 300)
    fair = measure([(*map(int, s), *map(float, v)) for s, v in zip(lengths, good + noise, strict=True)])
    assert fair["slope"]["interval"][0] < 0 < fair["slope"]["interval"][1]
    assert fair["all_pairs"]["excess"]["interval"][0] <= 0 <= fair["all_pairs"]["excess"]["interval"][1]


def test_slope_at_equal_rating_not_because_better_answers_are_longer():
    rng = np.random.default_rng(3)
    ratings = rng.integers(1, 6, 400).astype(float)
    lengths = 2 ** (5 + ratings + rng.normal(0, 1, 400))  # better responses are longer
    scores = 0.1 * ratings + rng.normal(0, 0.05, 400)  # but the judge sees quality alone
    groups = np.arange(400) // 2
    found = fit_slope(scores, lengths, ratings, groups, within=False)
    assert found["interval"][0] < 0 < found["interval"][1]
    alone = fit_slope(scores, lengths, rng.normal(0, 1, 400), groups, within=False)
    assert alone["interval"][0] > 0.02  # without the ratings it looks like a preference for length


def test_no_slope_where_there_is_none_to_see():
    assert measure([(10, 20, 0.4, 0.6)] * 3)["slope"] is None  # too few pairs
    assert measure([(10, 10, 0.4, 0.6)] * 20)["slope"] is None  # lengths don't vary
    assert measure([(10, 20, 0.5, 0.5)] * 20)["slope"] is None  # scores don't vary
    assert measure([(10, 20, None, None)] * 20)["slope"] is None


def test_nothing_judged_is_none():
    figures = measure([(10, 20, None, 0.5)])["all_pairs"]
    assert figures["longer_preferred"] == {"share": None, "n": 0, "interval": None}
    assert figures["excess"] == {"mean": None, "interval": None}


def test_a_perfect_fit_has_no_nan():
    lengths, quality = np.array([8, 16, 8, 32] * 10), np.array([1.0, 0.0] * 20)
    for scores in (quality, np.log2(lengths)):
        found = fit_slope(scores, lengths, quality, np.arange(40) // 2, within=True)
        assert found["p_value"] is None or 0 <= found["p_value"] <= 1
        assert np.isfinite([found["slope"], *found["interval"], found["quality"]]).all()
