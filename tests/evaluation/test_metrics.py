"""Ties, errors, read-outs, intervals, reliability and agreement with true scores."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from rmkit.errors import DataError
from rmkit.evaluation.intervals import percentile_intervals, resample_accuracies, wilson_intervals
from rmkit.evaluation.metrics import Counts, reliability, weighted_mean
from rmkit.evaluation.outcomes import Contest, Outcome, compare_pairs
from rmkit.evaluation.rated import read_rated
from rmkit.evaluation.ratings import evaluate_ratings
from rmkit.evaluation.records import Scoring, read_scoring
from rmkit.evaluation.results import evaluate
from rmkit.jsonl import read_jsonl, write_jsonl
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Judgment, Message, PreferencePair
from rmkit.scores import ScoreDistribution, aggregate

ROWS = [
    ("win", "x", 4.4, 2),
    ("tie", "x", 3.2, 3.2),
    ("loss", "x", 1, 2),
    ("close", "y", 3.4, 3.1),  # the modes are equal
    ("failed", "y", 5, None),
]


def test_ties_count_half_or_nothing_and_errors_count_as_wrong(write_scoring, tmp_path):
    results = evaluate(read_scoring(write_scoring(tmp_path, ROWS)), "pairs", resamples=20)
    x, y, everything = results["subsets"]["x"], results["subsets"]["y"], results["all_pairs"]
    assert [x[key] for key in ("n", "judged", "wins", "ties", "losses", "errors")] == [3, 3, 1, 1, 1, 0]
    assert x["accuracy"] == {"ties_half": 0.5, "ties_zero": pytest.approx(1 / 3)}
    assert [y[key] for key in ("n", "judged", "wins", "errors")] == [2, 1, 1, 1]
    assert y["accuracy"] == {"ties_half": 0.5, "ties_zero": 0.5}
    assert everything["accuracy"] == {"ties_half": pytest.approx(0.5), "ties_zero": pytest.approx(0.4)}
    assert everything["tie_rate"] == pytest.approx(0.2)
    counts = Counts(n=5, wins=2, ties=1, losses=1, errors=1, truncated=0)
    assert everything["interval"] == wilson_intervals(counts)  # even without a loss it would have a width
    assert results["error_examples"] == [{"id": "failed", "error": "rejected: the prompt is too long"}]
    assert results["notes"] == ["1 of 5 pairs have no verdict and count as wrong."]
    assert "average" not in results


def test_mode_and_mean_are_reported_side_by_side(write_scoring, tmp_path):
    figures = evaluate(read_scoring(write_scoring(tmp_path, ROWS)), "pairs", resamples=20)["subsets"]["y"]
    assert figures["by_readout"]["mean"] == figures["accuracy"]
    assert figures["by_readout"]["mode"] == {"ties_half": 0.25, "ties_zero": 0.0}


def test_equal_modes_tie_in_spite_of_rounding():
    rubric = Rubric("three", tuple(Attribute(key, key.upper(), minimum=0, maximum=10) for key in "abc"))

    def judge(*scores):
        certain = [tuple(float(value == score) for value in range(11)) for score in scores]
        distributions = {k: ScoreDistribution(tuple(range(11)), p) for k, p in zip("abc", certain, strict=True)}
        return Judgment(distributions, aggregate(rubric, distributions))

    pair = PreferencePair("p", "x", (Message("user", "Q"),), ("A",), ("B",))
    judgments = {("p", "chosen", 0): judge(1, 2, 0), ("p", "rejected", 0): judge(3, 0, 0)}
    (outcome,) = compare_pairs(Scoring((pair,), judgments, rubric, {}, ""))
    assert outcome.margin == pytest.approx(0) and outcome.margin != 0  # 0.1 + 0.2 is not 0.3
    assert outcome.standings["mode"].verdict == 0
    assert outcome.verdict == 1  # exact equality, as decided


def test_a_pair_without_records_is_an_error(write_scoring, tmp_path):
    folder = write_scoring(tmp_path, ROWS)
    pairs = [record for _, record in read_jsonl(folder / "pairs.jsonl")]
    write_jsonl(tmp_path / "more.jsonl", [*pairs, {**pairs[0], "id": "new"}])
    outcome = compare_pairs(read_scoring(folder, tmp_path / "more.jsonl"))[-1]
    assert (outcome.verdict, outcome.margin, outcome.probability) == (None, None, None)
    assert outcome.error == "chosen: not scored; rejected: not scored"


def test_several_responses_on_a_side_are_refused(write_scoring, tmp_path):
    folder = write_scoring(tmp_path, ROWS)
    pairs = [record for _, record in read_jsonl(folder / "pairs.jsonl")]
    write_jsonl(folder / "pairs.jsonl", [*pairs[:-1], {**pairs[-1], "rejected": ["Bad.", "Worse."]}])
    with pytest.raises(DataError, match="'failed': 1 chosen and 2 rejected"):
        compare_pairs(read_scoring(folder))


def test_truncated_pairs_are_counted_and_still_judged(write_scoring, tmp_path):
    folder = write_scoring(tmp_path, ROWS)
    records = [record for _, record in read_jsonl(folder / "scores.jsonl")]
    write_jsonl(folder / "scores.jsonl", [{**records[0], "truncated": True}, *records[1:]])
    x = evaluate(read_scoring(folder), "pairs", resamples=20)["subsets"]["x"]
    assert (x["truncated"], x["judged"]) == (1, 3)


def test_nothing_judged_leaves_no_nan(write_scoring, tmp_path):
    scoring = read_scoring(write_scoring(tmp_path, [("1", "hep-go", None, None), ("2", "hep-go", 3, None)]))
    for benchmark in ("pairs", "reward_bench"):
        results = evaluate(scoring, benchmark, resamples=20)
        json.dumps(results, allow_nan=False)
        figures = results["all_pairs"]
        assert (figures["n"], figures["judged"], figures["errors"], figures["probability"]) == (2, 0, 2, None)
        assert results["margins"]["mean"] is None
        assert results["reliability"]["expected_calibration_error"] is None
        assert results["attributes"]["quality"]["spearman"] is None
        assert any("None of the 2 pairs has a verdict" in note for note in results["notes"])


def test_probability_and_margin(write_scoring, tmp_path):
    outcomes = {o.id: o for o in compare_pairs(read_scoring(write_scoring(tmp_path, ROWS)))}
    # 3.4 is 3 or 4 with 0.6 and 0.4; 3.1 is 3 or 4 with 0.9 and 0.1.
    assert outcomes["close"].probability == pytest.approx(0.4 * 0.9 + (0.6 * 0.9 + 0.4 * 0.1) / 2)
    assert outcomes["close"].margin == pytest.approx(0.3 / 4)
    assert outcomes["tie"].probability == pytest.approx(0.5)
    assert outcomes["win"].probability == pytest.approx(1.0)


def test_wilson_interval_by_hand():
    # 8 of 10, z = 1.959964: centre (0.8 + z^2 / 20) / (1 + z^2 / 10), and so on.
    z2 = 1.959963984540054**2
    centre = (0.8 + z2 / 20) / (1 + z2 / 10)
    reach = math.sqrt(z2) * math.sqrt(0.8 * 0.2 / 10 + z2 / 400) / (1 + z2 / 10)
    found = wilson_intervals(Counts(n=10, wins=8, ties=0, losses=1, errors=1, truncated=0))
    assert found["ties_half"] == pytest.approx([centre - reach, centre + reach], abs=1e-12)
    assert found["ties_half"] == pytest.approx([0.49016, 0.94332], abs=1e-5)
    all_won = wilson_intervals(Counts(n=10, wins=10, ties=0, losses=0, errors=0, truncated=0))
    assert all_won["ties_zero"] == pytest.approx([0.72247, 1.0], abs=1e-5)


def test_bootstrap_is_seeded_stratified_and_around_the_estimate(write_scoring, tmp_path):
    rng = np.random.default_rng(3)
    subsets = ["mt-bench-easy", "mt-bench-hard", "donotanswer", "math-prm", "hep-go"]
    rows = [(str(i), subsets[i % 5], float(a), float(b)) for i, (a, b) in enumerate(rng.integers(1, 6, (200, 2)))]
    scoring = read_scoring(write_scoring(tmp_path, rows))
    first, again, other = (evaluate(scoring, "reward_bench", seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first["average"]["accuracy"] == other["average"]["accuracy"]
    assert first["average"]["interval"] != other["average"]["interval"]
    for figures in [first["average"], first["all_pairs"], *first["sections"].values(), *first["subsets"].values()]:
        for convention, accuracy in figures["accuracy"].items():
            low, high = figures["interval"][convention]
            assert low < accuracy < high
            assert 0.02 < high - low < 0.6


def test_bootstrap_spreads_as_resampling_pairs_does():
    credits = np.repeat([1, 0.5, 0], [20, 8, 12])
    rows = np.stack([credits, credits == 1, np.ones(40)], axis=1)
    drawn = np.random.default_rng(0).choice(credits, (20_000, 40)).mean(axis=1)
    resampled = resample_accuracies({"x": rows}, 20_000, seed=0)["x"]["ties_half"]
    assert resampled.mean() == pytest.approx(credits.mean(), abs=0.003)
    assert resampled.std() == pytest.approx(drawn.std(), rel=0.03)
    interval = percentile_intervals({"ties_half": resampled})["ties_half"]
    assert interval == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.02)


def test_comparisons_of_one_record_are_drawn_together():
    rows = np.array([[9.0, 9.0, 9.0]] * 20 + [[0.0, 0.0, 9.0]] * 20)
    resampled = resample_accuracies({"x": rows}, 20_000, seed=0)["x"]["ties_zero"]
    assert resampled.std() == pytest.approx((0.25 / 40) ** 0.5, rel=0.03)  # as of 40, not of 360


def test_weighted_mean_leaves_none_out_with_its_weight():
    assert weighted_mean([1.0, None, 0.0], [1, 98, 3]) == 0.25
    assert weighted_mean([None, None], [1, 2]) is None
    assert weighted_mean([{"a": np.array([1.0, 0.0])}, {"a": np.array([0.0, 0.0])}], [1, 1])["a"].tolist() == [
        0.5,
        0.0,
    ]


def test_reliability_of_confident_pairs():
    def outcome(probability):
        return Outcome("i", Contest("i", "x"), probability=probability)

    figures = reliability([outcome(p) for p in (0.92, 0.94, 0.08, 0.06)] + [outcome(0.5)])
    low, high = figures["bins"]
    assert (low["n"], low["confidence"], low["accuracy"]) == (1, 0.5, 0.5)
    assert (high["n"], high["low"], high["high"]) == (4, pytest.approx(0.9), pytest.approx(0.95))
    assert (high["confidence"], high["accuracy"]) == (pytest.approx(0.93), 0.5)
    assert figures["expected_calibration_error"] == pytest.approx(0.8 * 0.43)


def test_agreement_with_true_scores(write_scoring, tmp_path):
    rows = [("1", "t", 4.5, 2), ("2", "t", 4, 1.5), ("3", "t", 3, None), ("4", "t", 5, 1)]
    true = {i: {"chosen_true_scores": {"quality": 4}, "rejected_true_scores": {"quality": 2}} for i in ("1", "2", "3")}
    figures = evaluate(read_scoring(write_scoring(tmp_path, rows, true)), "pairs", resamples=20)["attributes"][
        "quality"
    ]
    assert (figures["n"], figures["n_true"]) == (7, 5)
    assert figures["mae"] == pytest.approx((0.5 + 0 + 0 + 0.5 + 1) / 5)
    # Ranks 5, 4, 3 against 2, 1 with true ranks 4, 4, 4 and 1.5, 1.5.
    assert figures["spearman"] == pytest.approx(np.corrcoef([5, 4, 3, 2, 1], [4, 4, 4, 1.5, 1.5])[0, 1])
    assert figures["chosen_mean"] == pytest.approx(16.5 / 4)
    assert figures["rejected_mean"] == pytest.approx(1.5)


@pytest.mark.parametrize(("mass", "noted"), [(0.4, False), (0.9971, True)])
def test_most_of_the_mass_outside_the_scale_is_noted(write_scoring, write_rated, tmp_path, mass, noted):
    folder = write_scoring(tmp_path / "pairs", [("1", "t", 4, 2)])
    rated, rows = write_rated(tmp_path / "rated", [("1", 4, 4.0)])
    for scores, written in ((folder, 0.0), (rated, 0.01)):
        text = (scores / "scores.jsonl").read_text("utf-8")
        (scores / "scores.jsonl").write_text(text.replace(f'"outside_mass": {written}', f'"outside_mass": {mass}'))
    for results, name in (
        (evaluate(read_scoring(folder), "pairs", resamples=5), "quality"),
        (evaluate_ratings(read_rated(rated, rows), resamples=5), "truth"),
    ):
        assert results["attributes"][name]["outside_mass"] == pytest.approx(mass)
        expected = f"to what is no score, so its scores say little: {name} 99.7% outside the scale."
        assert [note.endswith(expected) for note in results["notes"]] == [True] * noted
