"""Agreement with human ratings: figures by hand, what is left out, and two judges on the same rows."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rmkit.errors import DataError
from rmkit.evaluation.rated import read_rated
from rmkit.evaluation.ratings import evaluate_rating_judges, evaluate_ratings
from rmkit.jsonl import read_jsonl, write_jsonl
from rmkit.rubric import Attribute, Rubric

ROWS = [("a", 5, 4.0), ("b", 3, 3.0), ("c", 1, 1.5), ("d", 2, None), ("e", 4, 4.0), ("f", 4, 2.0)]


@pytest.fixture
def evaluate(write_rated, tmp_path):
    return lambda rows, **options: evaluate_ratings(read_rated(*write_rated(tmp_path, rows)), **options)


def test_figures_by_hand(evaluate):
    results = evaluate(ROWS, resamples=100)
    truth = results["attributes"]["truth"]
    assert results["responses"] == {
        "n": 6,
        "judged": 5,
        "errors": 1,
        "error_rate": pytest.approx(1 / 6),
        "truncated": 0,
        "truncation_rate": 0.0,
    }
    assert (truth["n"], truth["judge_mean"], truth["human_mean"]) == (5, 2.9, 3.4)
    assert truth["mae"] == pytest.approx((1 + 0 + 0.5 + 0 + 2) / 5)
    # Modes 4, 3, 1, 4, 2 (1.5 is 1 or 2, and the lower one counts) against 5, 3, 1, 4, 4.
    assert truth["qwk"] == pytest.approx(
        1 - (1 + 4) / 5 / ((np.var([4, 3, 1, 4, 2]) + np.var([5, 3, 1, 4, 4])) + 0.36)
    )
    assert truth["outside_mass"] == pytest.approx(0.01)
    assert not any("outside the scale" in note for note in results["notes"])
    for name in ("mae", "qwk", "spearman"):
        low, high = truth["intervals"][name]
        assert low <= truth[name] <= high
    assert sum(row["n"] for row in truth["rating_bins"]) == 5
    assert results["error_examples"] == [{"id": "d", "error": "the prompt is too long"}]
    assert [item["id"] for item in results["disagreements"]] == ["f", "a", "c"]
    worst = results["disagreements"][0]
    assert (worst["difference"], worst["ratings"], worst["response"]["text"]) == (-0.5, {"truth": 4}, "Yes.")
    json.dumps(results, allow_nan=False)


def test_ratings_of_what_the_judge_does_not_rate_are_noted(evaluate):
    row = ("x", 4, 4.0, {"scores": {"truth": 4, "wit": 2, "charm": 1}})
    results = evaluate([row], resamples=10)
    assert list(results["attributes"]) == ["truth"]
    assert results["notes"] == ["Ratings of charm, wit left out: the judge has no such attributes."]
    assert not evaluate(ROWS[:3], resamples=10)["notes"]


def test_an_attribute_without_ratings_has_no_row(evaluate):
    results = evaluate(ROWS, resamples=10)
    assert list(results["attributes"]) == ["truth"]
    assert results["human_correlations"]["n"][0][1] == 0


def test_scores_from_preferences_are_no_ratings(evaluate):
    derived = [("x", 5, 1.0, {"derived": ["truth"]})]
    results = evaluate([*ROWS, *derived], resamples=10)
    assert results["responses"]["n"] == 6
    assert "1 scores that were derived from preferences are no ratings; left out." in results["notes"]
    with pytest.raises(DataError, match="no row has a rating"):
        evaluate(derived)


def test_rows_of_their_own_rubric_stand_apart(evaluate):
    own = Rubric("own", (Attribute("truth", "Truth"), Attribute("tone", "Tone")))
    results = evaluate([*ROWS, ("own", 5, 5.0, {"rubric": own.to_dict()})], resamples=10)
    assert {name: figures["n"] for name, figures in results["attributes"].items()} == {
        "truth": 5,
        "truth (rows' own rubrics, 1-5)": 1,
    }


def test_slope_on_length_at_equal_rating(evaluate):
    rng = np.random.default_rng(0)
    rows = []
    for number in range(120):
        rating, doublings = int(rng.integers(2, 5)), int(rng.integers(0, 6))
        score = min(max(rating - 0.5 + 0.2 * doublings + rng.normal(0, 0.1), 1), 5)
        rows.append((str(number), rating, float(score), {"response": "x" * 10 * 2**doublings}))
    slope = evaluate(rows, resamples=10)["length_slope"]
    assert slope["interval"][0] < 0.2 / 4 < slope["interval"][1]
    assert slope["interval"][0] > 0.03


def test_two_judges_are_compared_response_by_response(write_rated, tmp_path):
    rows = [(str(i), i % 5 + 1, float(i % 5 + 1)) for i in range(40)]
    worse = [(i, rating, 1 + (score - 1) / 2) for i, rating, score in rows]
    scorings = {
        "good": read_rated(*write_rated(tmp_path / "good", rows)),
        "worse": read_rated(*write_rated(tmp_path / "worse", [*worse[:-1], (worse[-1][0], worse[-1][1], None)])),
    }
    (comparison,) = evaluate_rating_judges(scorings, resamples=200)["comparisons"]
    truth = comparison["attributes"]["truth"]
    assert (comparison["first"], truth["n"]) == ("good", 39)
    assert truth["interval"][0] <= truth["mae_difference"] <= truth["interval"][1] < 0
    others = {**scorings, "other": read_rated(*write_rated(tmp_path / "other", rows[:5]))}
    with pytest.raises(DataError, match="'other' was given other rated responses"):
        evaluate_rating_judges(others)


def test_what_does_not_fit_is_refused(write_rated, tmp_path):
    folder, file = write_rated(tmp_path, ROWS)
    records = [record for _, record in read_jsonl(file)]
    write_jsonl(file, [{**records[0], "scores": {"truth": 0}}, *records[1:]])
    with pytest.raises(DataError, match="row 'a': rating 0 of 'truth' is off the judge's scale 1-5"):
        read_rated(folder, file)
    write_jsonl(file, [{**record, "id": "other " + record["id"]} for record in records])
    with pytest.raises(DataError, match="none of its rows was scored"):
        read_rated(folder, file)
    write_jsonl(file, [{key: value for key, value in records[0].items() if key != "scores"}])
    with pytest.raises(DataError, match="rows.jsonl:1: field 'scores' is missing"):
        read_rated(folder, file)


def test_rows_that_can_not_be_read_are_counted_and_left_out(evaluate):
    empty = [("x", 5, None, {"response": ""}), ("y", 2, None, {"conversation": []})]
    results = evaluate([ROWS[0], *empty, *ROWS[1:]], resamples=10)
    assert results["responses"]["n"] == 6
    (note,) = [note for note in results["notes"] if "can't be read" in note]
    assert note.startswith("2 rows can't be read; left out. The first: rows.jsonl:2: response: it is empty")
    wrong = [("x", 5, 4.0, {"derived": 5}), ("y", 5, 4.0, {"scores": [3]}), ("z", 5, 4.0, {"metadata": [1]})]
    results = evaluate([*ROWS, *wrong], resamples=10)
    assert results["responses"]["n"] == 7  # what stands beside the ratings is not read
    (note,) = [note for note in results["notes"] if "can't be read" in note]
    assert note.startswith("2 rows can't be read; left out. The first: rows.jsonl:7: derived must be a list")
    with pytest.raises(DataError, match="no row has a rating; 2 can't be read, the first: rows.jsonl:1: response"):
        evaluate(empty)


def test_nothing_judged_leaves_no_nan(evaluate):
    results = evaluate([("a", 5, None), ("b", 3, None)], resamples=10)
    assert results["attributes"] == {} and results["disagreements"] == []
    assert results["responses"]["judged"] == 0
    json.dumps(results, allow_nan=False)
