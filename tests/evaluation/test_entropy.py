"""Entropy against error, and correlations of attributes."""

from __future__ import annotations

import numpy as np
import pytest

from rmkit.evaluation.correlations import correlate_attributes
from rmkit.evaluation.entropy import compare_entropies, entropy_of_pairs, relative_entropy
from rmkit.evaluation.outcomes import compare_pairs
from rmkit.evaluation.records import read_scoring
from rmkit.rubric import Attribute, Rubric
from rmkit.scores import ScoreDistribution


def test_relative_entropy_is_weighted_and_on_a_scale_of_one():
    rubric = Rubric(
        "two", (Attribute("a", "A", weight=3), Attribute("b", "B", weight=-1), Attribute("c", "C", weight=0))
    )
    even, sure = (ScoreDistribution((1, 2, 3, 4, 5), p) for p in ((0.2,) * 5, (1.0, 0, 0, 0, 0)))
    assert relative_entropy(rubric, {"a": even, "b": sure, "c": even}) == pytest.approx(0.75)
    assert relative_entropy(rubric, {"a": sure, "b": sure, "c": even}) == 0.0


def test_unsure_pairs_are_wrong_more_often(write_scoring, tmp_path):
    # A score of 3.5 is spread over two scores, 3 is certain.
    rows = [(f"sure {i}", "x", 4, 3) for i in range(10)] + [(f"torn {i}", "x", 2.5, 3.5) for i in range(10)]
    scoring = read_scoring(write_scoring(tmp_path, [*rows, ("failed", "x", None, 3)]))
    found = entropy_of_pairs(scoring, compare_pairs(scoring))
    assert found["n"] == 20
    assert found["spearman"] == pytest.approx(1.0)
    assert [(row["n"], row["error"]) for row in found["bins"]] == [(10, 0.0), (10, 1.0)]
    assert found["bins"][1]["entropy"] == pytest.approx(np.log(2) / np.log(5))


def test_constant_or_empty_entropies():
    assert compare_entropies([], []) == {"n": 0, "spearman": None, "bins": []}
    found = compare_entropies([0.5] * 4, [0, 1, 0, 1])
    assert found["spearman"] is None
    assert [(row["n"], row["error"]) for row in found["bins"]] == [(4, 0.5)]


def test_correlations_over_responses_that_have_both():
    columns = np.array([[1, 1, 5], [2, 4, 5], [3, 9, np.nan], [4, np.nan, 5], [5, np.nan, 5]], dtype=float)
    found = correlate_attributes(["a", "b", "c"], columns)
    assert found["spearman"][0][1] == found["spearman"][1][0] == pytest.approx(1.0)
    assert found["n"][0] == [5, 3, 4]
    assert found["spearman"][0][2] is None  # a constant has no ranks
    assert found["spearman"][1][2] is None and found["n"][1][2] == 2
