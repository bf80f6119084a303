from __future__ import annotations

import doctest
import io
import json
from itertools import product

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

import rmkit.evaluation.agreement as agreement_module
import rmkit.evaluation.reliability as reliability_module
from rmkit.evaluation.agreement import measure_agreement, quadratic_kappa, rank_correlation
from rmkit.evaluation.plots import plot_score_reliability
from rmkit.evaluation.reliability import Reliability, ReliabilityBin, bin_reliability
from rmkit.scores import ScoreDistribution


def draw_judged(values: range, n: int, seed: int) -> tuple[list[ScoreDistribution], list[int]]:
    """Distributions of a judge that is always right about its own probabilities, and ratings drawn from them."""
    generator = np.random.default_rng(seed)
    rows = generator.dirichlet(np.ones(len(values)), n)
    ratings = [int(generator.choice(values, p=row)) for row in rows]
    return [ScoreDistribution(tuple(values), tuple(row)) for row in rows], ratings


@pytest.mark.parametrize("module", [agreement_module, reliability_module])
def test_examples(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted >= 3 and result.failed == 0


def test_a_case_worked_by_hand() -> None:
    scale = (1, 2, 3)
    judged = [
        ScoreDistribution(scale, (0.2, 0.8, 0.0)),  # mean 1.8, mode 2
        ScoreDistribution(scale, (0.0, 0.4, 0.6)),  # mean 2.6, mode 3
        ScoreDistribution(scale, (0.7, 0.2, 0.1)),  # mean 1.4, mode 1
        ScoreDistribution(scale, (0.0, 0.15, 0.85)),  # mean 2.85, mode 3
    ]
    found = measure_agreement(judged, [2, 3, 1, 1])
    assert found.n == 4
    assert found.mae == pytest.approx((0.2 + 0.4 + 0.4 + 1.85) / 4)
    # Modes 2 3 1 3: mean square error 1. Drawn independently: 11/16 + 11/16 + (9/4 - 7/4)^2.
    assert found.qwk == pytest.approx(1 - 1 / (11 / 16 + 11 / 16 + 1 / 4))
    # The ranks of the means, and of the ratings, of which two are tied.
    ranks, rated = np.array([2, 3, 1, 4]), np.array([3, 4, 1.5, 1.5])
    assert found.spearman == pytest.approx(np.corrcoef(ranks, rated)[0, 1])
    # Bins 0.6-0.7 with 0.6, right; 0.7-0.8 with 0.7, right; 0.8-0.9 with 0.8, right, and 0.85, wrong.
    assert found.calibration_error == pytest.approx((0.4 + 0.3 + 2 * abs(0.825 - 0.5)) / 4)
    assert [part.n for part in found.reliability.bins] == [1, 1, 2]


@pytest.mark.parametrize("values", [range(1, 6), range(0, 21), range(0, 1001)])
@pytest.mark.parametrize("seed", range(3))
def test_kappa_is_that_of_two_other_formulas(values: range, seed: int) -> None:
    generator = np.random.default_rng(seed)
    ratings = generator.choice(values, 60)
    scores = np.clip(ratings + generator.integers(-2, 3, 60), values[0], values[-1])
    found = quadratic_kappa(scores.tolist(), ratings.tolist())
    assert found == pytest.approx(cohen_kappa_score(scores, ratings, weights="quadratic", labels=list(values)))
    by_chance = np.mean([(score - rating) ** 2 for score, rating in product(scores, ratings)])
    assert found == pytest.approx(1 - np.mean((scores - ratings) ** 2) / by_chance)


def test_kappa_at_its_ends() -> None:
    assert quadratic_kappa([1, 2, 5], [1, 2, 5]) == pytest.approx(1)
    assert quadratic_kappa([1, 5], [5, 1]) == pytest.approx(-1)
    # One score for all is what chance gives, whatever the score: no kappa is better by a rounding error.
    ratings = np.random.default_rng(0).integers(1, 6, 200).tolist()
    assert {str(quadratic_kappa([score] * 200, ratings)) for score in range(1, 6)} == {"0.0"}


def test_what_the_data_do_not_define_is_none() -> None:
    sure = ScoreDistribution((1, 2), (0.0, 1.0))
    torn = ScoreDistribution((1, 2), (0.6, 0.4))
    found = measure_agreement([sure, torn], [2, 2])
    assert (found.qwk, found.spearman) == (None, None)
    assert found.mae == pytest.approx(0.3)
    alone = measure_agreement([sure], [1])
    assert (alone.n, alone.mae, alone.qwk, alone.spearman, alone.calibration_error) == (1, 1.0, None, None, 1.0)
    assert rank_correlation([1.5, 1.5], [1, 2]) is None
    assert bin_reliability([], []) == Reliability((), None)
    with pytest.raises(ValueError, match="0 distributions and 0 ratings"):
        measure_agreement([], [])
    with pytest.raises(ValueError, match="1 distributions and 2 ratings"):
        measure_agreement([sure], [1, 2])


def test_the_error_is_that_of_a_loop_over_bins() -> None:
    judged, ratings = draw_judged(range(1, 6), 500, seed=1)
    error = 0.0
    for low in range(10):
        inside = [
            (max(d.probabilities), d.mode == rating)
            for d, rating in zip(judged, ratings, strict=True)
            if low <= 10 * max(d.probabilities) < low + 1
        ]
        if inside:
            error += abs(sum(right for _, right in inside) - sum(p for p, _ in inside)) / len(judged)
    assert measure_agreement(judged, ratings).calibration_error == pytest.approx(error)


def test_calibration_tells_an_honest_judge_from_a_boastful_one() -> None:
    judged, ratings = draw_judged(range(1, 6), 4000, seed=0)
    sharper = []
    for distribution in judged:
        powers = np.asarray(distribution.probabilities) ** 4
        sharper.append(ScoreDistribution(distribution.values, tuple(powers / powers.sum())))
    honest, boastful = measure_agreement(judged, ratings), measure_agreement(sharper, ratings)
    assert honest.calibration_error < 0.03 < 0.2 < boastful.calibration_error
    assert honest.qwk == boastful.qwk  # the modes are the same
    assert sum(part.n for part in honest.reliability.bins) == 4000
    assert all(part.confidence > part.accuracy for part in boastful.reliability.bins if part.n > 100)


def test_bins_hold_their_ends() -> None:
    found = bin_reliability([0.0, 0.5, 1.0], [0, 0.5, 1], bins=2)
    assert found.bins == (ReliabilityBin(0.0, 0.5, 1, 0.0, 0.0), ReliabilityBin(0.5, 1.0, 2, 0.75, 0.75))
    assert found.expected_calibration_error == 0
    assert [part.low for part in bin_reliability([0.5, 1.0], [1, 1], lowest=0.5).bins] == [0.5, 0.95]


def test_reliability_survives_json() -> None:
    found = measure_agreement(*draw_judged(range(1, 6), 50, seed=2)).reliability
    assert Reliability.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_a_diagram_for_each_attribute() -> None:
    found = {f"cost in ${n}$": measure_agreement(*draw_judged(range(1, 6), 80, seed=n)).reliability for n in range(4)}
    figure = plot_score_reliability(found)
    assert [axes.get_title().partition(":")[0] for axes in figure.axes] == list(found)
    points = figure.axes[2].collections[0].get_offsets()
    assert np.allclose(points, [(part.confidence, part.accuracy) for part in found["cost in $2$"].bins])
    figure.savefig(io.BytesIO(), format="png")
