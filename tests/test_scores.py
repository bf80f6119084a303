"""Score sequences and what is read from distributions."""

from __future__ import annotations

import doctest
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rmkit.scores
from rmkit.errors import RubricError, ScoreParseError
from rmkit.rubric import Attribute, Rubric, load_rubric
from rmkit.scores import (
    ScoreDistribution,
    aggregate,
    centre,
    parse_scores,
    probability_higher,
    render_scores,
    verdict,
)

PAPER_PARTS = load_rubric("dist2_paper").keys[1:]


@st.composite
def rubrics(draw: st.DrawFn) -> Rubric:
    names = draw(
        st.lists(
            st.text(st.characters(exclude_characters=":,\n\r", codec="utf-8"), min_size=1, max_size=8)
            .map(str.strip)
            .filter(bool),
            min_size=1,
            max_size=4,
            unique=True,
        )
    )
    scales = [draw(st.tuples(st.integers(0, 30), st.integers(1, 120))) for _ in names]
    weights = [draw(st.sampled_from([-2.0, -0.5, 0.25, 1.0, 3.0])) for _ in names]
    return Rubric(
        "drawn",
        tuple(
            Attribute(f"k{i}", name, minimum=low, maximum=low + size, weight=weight)
            for i, (name, (low, size), weight) in enumerate(zip(names, scales, weights, strict=True))
        ),
    )


@st.composite
def rated(draw: st.DrawFn) -> tuple[Rubric, dict[str, int]]:
    rubric = draw(rubrics())
    keys = draw(st.lists(st.sampled_from(rubric.keys), min_size=1, unique=True))
    return rubric, {key: draw(st.sampled_from(rubric[key].values)) for key in keys}


def distribution(*probabilities: float, first: int = 1) -> ScoreDistribution:
    return ScoreDistribution(tuple(range(first, first + len(probabilities))), probabilities)


def random_distributions(rubric: Rubric, seed: int) -> dict[str, ScoreDistribution]:
    rng = np.random.default_rng(seed)
    return {
        a.key: ScoreDistribution(tuple(a.values), tuple(rng.dirichlet(np.ones(len(a.values)))))
        for a in rubric.attributes
    }


@given(rated())
def test_parse_is_the_inverse_of_render(case: tuple[Rubric, dict[str, int]]) -> None:
    rubric, scores = case
    assert parse_scores(rubric, render_scores(rubric, scores)) == scores


@given(rated(), st.data())
def test_parse_takes_only_what_render_writes(case: tuple[Rubric, dict[str, int]], data: st.DataObject) -> None:
    rubric, scores = case
    text = render_scores(rubric, scores)
    at = data.draw(st.integers(0, len(text)))
    insert = data.draw(st.sampled_from(["", " ", "0", "1", "9", ",", ": ", "\n", "+", "-", "٣", "x"]))
    changed = text[:at] + insert + text[at + data.draw(st.integers(0, 2)) :]
    try:
        parsed = parse_scores(rubric, changed)
    except ScoreParseError:
        return
    assert render_scores(rubric, parsed) == changed


@given(st.fixed_dictionaries({key: st.integers(0, 4) for key in PAPER_PARTS}))
def test_the_paper_s_sequence_starts_with_the_sum(parts: dict[str, int]) -> None:
    rubric = load_rubric("dist2_paper")
    text = render_scores(rubric, parts)
    assert text.startswith(f"Overall: {sum(parts.values())}, Helpfulness: ")
    assert parse_scores(rubric, text) == {"overall": sum(parts.values()), **parts}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not 'Name: n'"),
        ("Helpfulness: 6", "not an integer in 1-5"),
        ("Helpfulness: 0", "not an integer in 1-5"),
        ("Helpfulness: 04", "not an integer in 1-5"),
        ("Helpfulness: +4", "not an integer in 1-5"),
        ("Helpfulness: 4.0", "not an integer in 1-5"),
        ("Helpfulness: ٤", "not an integer in 1-5"),
        ("Helpfulness: 4\n", "not an integer in 1-5"),
        ("Helpfulness: 4.", "not an integer in 1-5"),
        ("Helpfulness:  4", "not an integer in 1-5"),
        (f"Helpfulness: {'9' * 5000}", "not an integer in 1-5"),
        (" Helpfulness: 4", "is not 'Name: n'"),
        ("helpfulness: 4", "is not 'Name: n'"),
        ("Helpfulness:4", "is not 'Name: n'"),
        ("Humour: 4", "is not 'Name: n'"),
        ("Helpfulness: 4,Correctness: 4", "not an integer in 1-5"),
        ("Helpfulness: 4, ", "is not 'Name: n'"),
        ("Helpfulness: 4, Helpfulness: 4", "stands twice"),
        ("Correctness: 4, Helpfulness: 4", "not in rubric order"),
    ],
)
def test_anything_else_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(ScoreParseError, match=reason):
        parse_scores(load_rubric("helpsteer"), text)


def test_a_sum_that_is_wrong_or_left_out_is_refused() -> None:
    rubric = load_rubric("dist2_paper")
    parts = "Helpfulness: 4, Correctness: 4, Coherence: 4, Complexity: 3, Verbosity: 2"
    assert parse_scores(rubric, f"Overall: 17, {parts}")["overall"] == 17
    for text in (f"Overall: 18, {parts}", parts):
        with pytest.raises(ScoreParseError, match="a sum does not equal its parts"):
            parse_scores(rubric, text)


def test_nothing_to_render_is_an_error() -> None:
    with pytest.raises(RubricError, match="no scores to render"):
        render_scores(load_rubric("helpsteer"), {})


def test_the_docstring_examples_hold() -> None:
    result = doctest.testmod(rmkit.scores)
    assert result.attempted > 0 and result.failed == 0


def test_the_figures_of_a_distribution() -> None:
    d = distribution(0.1, 0.2, 0.0, 0.3, 0.4)
    assert d.mean == pytest.approx(0.1 + 0.4 + 1.2 + 2.0)
    assert d.mode == 5
    assert d.median == 4
    assert d.std == pytest.approx(math.sqrt(0.1 * 2.7**2 + 0.2 * 1.7**2 + 0.3 * 0.3**2 + 0.4 * 1.3**2))
    assert d.entropy == pytest.approx(-sum(p * math.log(p) for p in (0.1, 0.2, 0.3, 0.4)))
    assert ScoreDistribution.from_dict(d.to_dict()) == d


def test_ties_of_mode_and_median_go_to_the_lower_score() -> None:
    assert distribution(0.1, 0.4, 0.1, 0.4).mode == 2
    assert distribution(0.25, 0.25, 0.25, 0.25).median == 2
    assert distribution(0.5, 0.0, 0.5).median == 1
    assert distribution(*10 * [0.1]).median == 5  # ten tenths do not add up to 0.5 in binary
    assert distribution(0.0, 0.0, 1.0).median == 3
    assert distribution(1.0, 0.0).entropy == 0.0


def test_the_aggregate_is_the_weighted_mean_on_unit_scales() -> None:
    rubric = Rubric(
        "r",
        (
            Attribute("a", "A", weight=2.0),
            Attribute("b", "B", minimum=0, maximum=10, weight=-1.0),
            Attribute("c", "C", weight=0.0),
        ),
    )
    found = {"a": distribution(0, 0, 0, 0.5, 0.5), "b": distribution(0.5, 0.5, *9 * [0.0], first=0)}
    unit_a, unit_b = 3.5 / 4, 0.5 / 10
    assert aggregate(rubric, found) == pytest.approx((2 * unit_a - unit_b) / 3)
    assert aggregate(rubric, found, "mode") == pytest.approx((2 * 0.75 - 0.0) / 3)
    assert aggregate(rubric, found, "median") == pytest.approx((2 * 0.75 - 0.0) / 3)
    with pytest.raises(RubricError, match="no score distribution for 'b'"):
        aggregate(rubric, {"a": found["a"]})
    with pytest.raises(RubricError, match="readout 'average' is unknown"):
        aggregate(rubric, found, "average")


@given(rubrics(), st.integers(0, 2**32 - 1))
def test_the_centred_aggregate_fills_minus_one_to_one(rubric: Rubric, seed: int) -> None:
    def sure(a: Attribute, score: int) -> ScoreDistribution:
        return ScoreDistribution(tuple(a.values), tuple(float(v == score) for v in a.values))

    best = {a.key: sure(a, a.maximum if a.weight > 0 else a.minimum) for a in rubric.attributes}
    worst = {a.key: sure(a, a.minimum if a.weight > 0 else a.maximum) for a in rubric.attributes}
    assert centre(rubric, aggregate(rubric, best)) == pytest.approx(1)
    assert centre(rubric, aggregate(rubric, worst)) == pytest.approx(-1)
    assert abs(centre(rubric, aggregate(rubric, random_distributions(rubric, seed)))) <= 1 + 1e-12
    flat = {a.key: ScoreDistribution(tuple(a.values), (1 / len(a.values),) * len(a.values)) for a in rubric.attributes}
    assert centre(rubric, aggregate(rubric, flat)) == pytest.approx(0, abs=1e-12)


def test_a_verdict_is_a_tie_only_for_equal_aggregates_unless_a_tolerance_is_asked_for() -> None:
    assert [verdict(0.5, 0.4), verdict(0.4, 0.5), verdict(0.5, 0.5)] == [1, -1, 0]
    assert verdict(0.5, math.nextafter(0.5, 1)) == -1
    assert [verdict(0.5, 0.75, 0.25), verdict(0.5, 0.75, 0.2)] == [0, -1]


def enumerate_probability(
    rubric: Rubric, first: dict[str, ScoreDistribution], second: dict[str, ScoreDistribution]
) -> float:
    """P(first > second) + P(tie) / 2 by listing every combination of scores of both responses."""

    def outcomes(found: dict[str, ScoreDistribution]) -> list[tuple[float, float]]:
        weighted = [a for a in rubric.attributes if a.weight]
        combinations = itertools.product(
            *(zip(found[a.key].values, found[a.key].probabilities, strict=True) for a in weighted)
        )
        return [
            (
                sum(
                    a.weight * (v - a.minimum) / (a.maximum - a.minimum) for a, (v, _) in zip(weighted, c, strict=True)
                ),
                math.prod(p for _, p in c),
            )
            for c in combinations
        ]

    total = 0.0
    ours, theirs = outcomes(first), outcomes(second)
    for value_1, mass_1 in ours:
        for value_2, mass_2 in theirs:
            win = 0.5 if math.isclose(value_1, value_2, abs_tol=1e-9) else float(value_1 > value_2)
            total += mass_1 * mass_2 * win
    return total


@pytest.mark.parametrize(
    "weights", [(1.0, 1.0, 0.0), (1.0, -1.0, 1.0), (0.3, 0.2, -0.7), (-1.0, 0.0, 0.0), (1e-3, 1.0, 1e3)]
)
def test_probability_higher_equals_an_enumeration(weights: tuple[float, ...]) -> None:
    scales = [(1, 5), (0, 4), (1, 3)]
    rubric = Rubric(
        "r",
        tuple(
            Attribute(f"k{i}", f"K{i}", minimum=low, maximum=high, weight=weight)
            for i, (weight, (low, high)) in enumerate(zip(weights, scales, strict=True))
        ),
    )
    for seed in range(3):
        first, second = random_distributions(rubric, seed), random_distributions(rubric, seed + 100)
        assert probability_higher(rubric, first, second) == pytest.approx(
            enumerate_probability(rubric, first, second), abs=1e-12
        )


@settings(max_examples=30, deadline=None)
@given(rubrics(), st.integers(0, 2**32 - 2))
def test_probability_higher_is_antisymmetric(rubric: Rubric, seed: int) -> None:
    first, second = random_distributions(rubric, seed), random_distributions(rubric, seed + 1)
    forth, back = probability_higher(rubric, first, second), probability_higher(rubric, second, first)
    assert 0 <= forth <= 1
    assert forth + back == pytest.approx(1, abs=1e-9)
    assert probability_higher(rubric, first, first) == pytest.approx(0.5, abs=1e-9)


def test_sure_scores_give_certainty() -> None:
    rubric = Rubric("r", (Attribute("a", "A"),))
    high, low = {"a": distribution(0, 0, 0, 0, 1.0)}, {"a": distribution(1.0, 0, 0, 0, 0)}
    assert probability_higher(rubric, high, low) == 1
    assert probability_higher(rubric, low, high) == 0
    assert probability_higher(rubric, high, high) == 0.5


def test_a_support_too_large_to_list_is_put_on_a_grid_close_to_the_exact_value() -> None:
    # 101 * 101 aggregates with an irrational ratio of weights are all distinct: more than 4,096.
    rubric = Rubric(
        "r",
        (
            Attribute("a", "A", minimum=0, maximum=100, weight=1.0),
            Attribute("b", "B", minimum=0, maximum=100, weight=math.sqrt(2)),
        ),
    )
    first, second = random_distributions(rubric, 0), random_distributions(rubric, 1)
    shares = np.array([1, math.sqrt(2)]) / (1 + math.sqrt(2))

    def outcomes(found: dict[str, ScoreDistribution]) -> tuple[np.ndarray, np.ndarray]:
        values = np.add.outer(shares[0] * np.arange(101) / 100, shares[1] * np.arange(101) / 100).ravel()
        mass = np.multiply.outer(np.array(found["a"].probabilities), np.array(found["b"].probabilities)).ravel()
        order = np.argsort(values)
        return values[order], mass[order]

    values_1, mass_1 = outcomes(first)
    values_2, mass_2 = outcomes(second)
    below = np.concatenate([[0.0], np.cumsum(mass_2)])

    def win(shift: float) -> float:
        """P(first > second + shift) + P(tie) / 2, exact."""
        left = below[np.searchsorted(values_2, values_1 - shift - 1e-12, side="left")]
        right = below[np.searchsorted(values_2, values_1 - shift + 1e-12, side="right")]
        return float((mass_1 * (left + right) / 2).sum())

    found = probability_higher(rubric, first, second)
    # Each value moves up by less than a step, so a difference moves by less than one either way.
    step = 1 / 4095
    assert win(step) - 1e-9 <= found <= win(-step) + 1e-9
    assert found == pytest.approx(win(0), abs=1e-3)
    assert found + probability_higher(rubric, second, first) == pytest.approx(1, abs=1e-9)


def test_a_preference_without_a_counting_distribution_is_an_error() -> None:
    rubric = load_rubric("helpsteer")
    with pytest.raises(RubricError, match="no score distribution for 'helpfulness'"):
        probability_higher(rubric, {}, {})
