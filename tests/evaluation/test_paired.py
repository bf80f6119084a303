"""Two judges on the same records: differences, intervals that use the pairing, McNemar's test."""

from __future__ import annotations

import numpy as np
import pytest

from rmkit.errors import DataError
from rmkit.evaluation.benchmarks import BENCHMARKS
from rmkit.evaluation.outcomes import Contest, Outcome, Standing
from rmkit.evaluation.paired import apply_mcnemar, compare_judges
from rmkit.evaluation.records import read_scoring
from rmkit.evaluation.results import evaluate_judges


def outcome(number, verdict, record=None):
    standing = Standing(verdict, 0.5, float(verdict), 0.0)
    contest = Contest(str(number) if record is None else record, "x")
    return Outcome(str(number), contest, {name: standing for name in ("stored", "mean", "mode")})


def outcomes(verdicts):
    return [outcome(number, verdict) for number, verdict in enumerate(verdicts)]


def test_mcnemar_counts_what_one_judge_alone_wins():
    first = outcomes([1] * 8 + [-1] * 2 + [1] * 5 + [-1] * 3)
    second = outcomes([0] * 8 + [1] * 2 + [1] * 5 + [-1] * 3)  # a tie is no win
    # Two-sided binomial: 2 * (C(10,8) + C(10,9) + C(10,10)) / 2^10.
    expected = {"only_first": 8, "only_second": 2, "p_value": pytest.approx(2 * 56 / 1024)}
    assert apply_mcnemar(first, second) == expected
    assert apply_mcnemar(first, first)["p_value"] == 1.0


def test_mcnemar_needs_independent_comparisons():
    both = [outcome("a", 1, "r"), outcome("b", 1, "r")]
    assert apply_mcnemar(both, both) is None


def test_sections_and_average_are_differences_of_official_figures(write_scoring, tmp_path):
    subsets = ["mt-bench-easy", "mt-bench-hard", "donotanswer", "math-prm", "hep-go"]
    rng = np.random.default_rng(5)
    rows = [(str(i), subsets[i % 5], float(a), float(b)) for i, (a, b) in enumerate(rng.integers(1, 6, (100, 2)))]
    other = [(i, subset, b, a) if int(i) % 3 == 0 else (i, subset, a, b) for i, subset, a, b in rows]
    scorings = {
        "A": read_scoring(write_scoring(tmp_path / "a", rows)),
        "B": read_scoring(write_scoring(tmp_path / "b", other)),
    }
    found = evaluate_judges(scorings, "reward_bench", resamples=200)
    (comparison,) = found["comparisons"]
    assert (comparison["first"], comparison["second"]) == ("A", "B")
    for level in ("subsets", "sections"):
        for name, figures in comparison[level].items():
            for convention, difference in figures["difference"].items():
                of_each = [found["judges"][judge][level][name]["accuracy"][convention] for judge in "AB"]
                assert difference == pytest.approx(of_each[0] - of_each[1], abs=1e-12)
    averages = [found["judges"][judge]["average"]["accuracy"]["ties_zero"] for judge in "AB"]
    assert comparison["average"]["difference"]["ties_zero"] == pytest.approx(averages[0] - averages[1], abs=1e-12)
    low, high = comparison["average"]["interval"]["ties_zero"]
    assert low < averages[0] - averages[1] < high


def test_pairing_narrows_the_interval(write_scoring, tmp_path):
    rng = np.random.default_rng(1)
    rows = [(str(i), "x", *map(float, scores)) for i, scores in enumerate(rng.integers(1, 6, (200, 2)))]
    better = [(i, s, 5.0, 1.0) if int(i) < 10 else (i, s, a, b) for i, s, a, b in rows]
    scorings = {
        name: read_scoring(write_scoring(tmp_path / name, data)) for name, data in (("B", better), ("A", rows))
    }
    found = evaluate_judges(scorings, "pairs", resamples=2000)
    all_pairs = found["comparisons"][0]["all_pairs"]
    low, high = all_pairs["interval"]["ties_half"]
    alone = found["judges"]["A"]["all_pairs"]["interval"]["ties_half"]
    assert 0 < low < all_pairs["difference"]["ties_half"] < high
    assert high - low < (alone[1] - alone[0]) / 2
    assert all_pairs["mcnemar"]["only_second"] == 0


def test_other_pairs_are_refused(write_scoring, tmp_path):
    one = read_scoring(write_scoring(tmp_path / "one", [("1", "x", 4, 2)]))
    two = read_scoring(write_scoring(tmp_path / "two", [("2", "x", 4, 2)]))
    with pytest.raises(DataError, match="did not score the same pairs"):
        evaluate_judges({"one": one, "two": two}, "pairs", resamples=5)


def test_ties_of_reward_bench_2_are_compared_by_their_own_score(write_lists, tmp_path):
    good = [("Ties/ref:1", "Ties", [5.0], [2.0]), ("Ties/tied:1", "Ties", [5.0, 4.0], [2.0])]
    bad = [("Ties/ref:1", "Ties", [5.0], [2.0]), ("Ties/tied:1", "Ties", [2.0, 4.0], [2.0])]
    scorings = [read_scoring(write_lists(tmp_path / str(i), rows)) for i, rows in enumerate((good, bad))]
    found = evaluate_judges(dict(zip(("good", "bad"), scorings, strict=True)), "reward_bench_2", resamples=5)
    ties = found["comparisons"][0]["subsets"]["Ties"]
    scores = [found["judges"][name]["subsets"]["Ties"]["accuracy"]["ties_zero"] for name in ("good", "bad")]
    assert ties["difference"]["ties_zero"] == pytest.approx(scores[0] - scores[1])
    assert ties["mcnemar"] is None


def test_comparison_is_seeded():
    rng = np.random.default_rng(0)
    first, second = (outcomes(rng.integers(-1, 2, 50).tolist()) for _ in range(2))
    rules = BENCHMARKS["pairs"]
    same = compare_judges(first, second, rules, seed=1, resamples=50)
    assert same == compare_judges(first, second, rules, seed=1, resamples=50)
    assert same != compare_judges(first, second, rules, seed=2, resamples=50)
