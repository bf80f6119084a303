"""Distances between tokens, and what they become for tokens that lead to several scores."""

from __future__ import annotations

import doctest
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from rmkit import distances as module
from rmkit.distances import (
    DISTANCES,
    MetricSpace,
    absolute,
    canonical_numbers,
    circular,
    circular_squared,
    cosine,
    euclidean,
    match_entropy,
    mean_entropy,
    mean_squared_error,
    near_values,
    permutation,
    soft_minimum,
    squared,
)
from rmkit.score_losses import dist2, distance_target


def test_distances_over_a_scale() -> None:
    values = torch.arange(1, 6, dtype=torch.float64)
    labels = torch.tensor([1.0, 4.0], dtype=torch.float64)
    assert squared(values, labels).tolist() == [[0, 1, 4, 9, 16], [9, 4, 1, 0, 1]]
    assert absolute(values, labels).tolist() == [[0, 1, 2, 3, 4], [3, 2, 1, 0, 1]]
    assert squared(values, torch.tensor(3.0)).tolist() == [4, 1, 0, 1, 4]


@settings(deadline=None)
@given(st.integers(0, 100), st.integers(0, 100), st.sampled_from(sorted(DISTANCES)))
def test_a_distance_is_symmetric_and_zero_only_at_the_label(a: int, b: int, name: str) -> None:
    forth = DISTANCES[name](torch.tensor([float(a)]), torch.tensor(float(b))).item()
    back = DISTANCES[name](torch.tensor([float(b)]), torch.tensor(float(a))).item()
    assert forth == back
    assert (forth == 0) == (a == b)


def test_the_soft_minimum_of_one_score_is_its_own_distance() -> None:
    for tau in (0.5, 1.0, 2.0):
        assert soft_minimum(torch.tensor([9.0]), tau).item() == pytest.approx(9.0)


def test_the_soft_minimum_stays_finite_far_from_the_label() -> None:
    assert soft_minimum(torch.tensor([1e6, 1e6 + 1]), 1.0).item() == pytest.approx(1e6)


@pytest.mark.parametrize("tau", [1.0, 2.0, 50.0])
@pytest.mark.parametrize("label", [0, 4, 39, 40, 95, 100])
def test_first_digits_get_the_mass_of_all_numbers_that_start_so(label: int, tau: float) -> None:
    scores = range(101)
    weights = {v: math.exp(-((v - label) ** 2) / tau) for v in scores}
    starts = {digit: [v for v in scores if str(v)[0] == digit] for digit in "0123456789"}
    distances = torch.stack(
        [
            soft_minimum(
                squared(torch.tensor(numbers, dtype=torch.float64), torch.tensor(float(label), dtype=torch.float64)),
                tau,
            )
            for numbers in starts.values()
        ]
    )
    target = torch.softmax(-distances / tau, dim=0)
    for digit, found in zip(starts, target.tolist(), strict=True):
        assert found == pytest.approx(sum(weights[v] for v in starts[digit]) / sum(weights.values()), abs=1e-12)


def test_thirty_nine_is_near_forty_although_no_digit_is() -> None:
    threes, fours = torch.arange(30.0, 40.0), torch.arange(40.0, 50.0)
    distances = torch.stack([soft_minimum(squared(group, torch.tensor(39.0)), 1.0) for group in (threes, fours)])
    share = torch.softmax(-distances, dim=0)[1].item()
    near = math.exp(-1) + math.exp(-4) + math.exp(-9)
    assert share == pytest.approx(near / (near + 1 + math.exp(-1) + math.exp(-4) + math.exp(-9)), abs=1e-6)
    assert share > 0.2


def test_angles_are_near_across_the_end_of_the_circle() -> None:
    angles = torch.tensor([359.0, 0.0, 1.0, 90.0, 181.0, 270.0])
    assert circular(angles, torch.tensor(1.0)).tolist() == [2, 1, 0, 89, 180, 91]
    assert circular_squared(angles, torch.tensor(359.0)).tolist() == [0, 1, 4, 91**2, 178**2, 89**2]
    assert circular(torch.tensor([23.0, 11.0]), torch.tensor([0.0, 5.0]), 24.0).tolist() == [[1, 11], [6, 6]]
    with pytest.raises(ValueError, match="period must be above 0"):
        circular(angles, torch.tensor(1.0), 0.0)


@settings(deadline=None)
@given(*(3 * [st.floats(-1000, 1000)]), st.floats(0.5, 400), st.integers(-3, 3))
def test_a_circle_is_a_metric_that_does_not_see_whole_turns(
    a: float, b: float, c: float, period: float, turns: int
) -> None:
    def way(x: float, y: float) -> float:
        values, label = torch.tensor([[x], [y]], dtype=torch.float64)
        return circular(values, label[0], period).item()

    assert 0 <= way(a, b) <= period / 2 + 1e-9
    assert way(a, b) == pytest.approx(way(b, a), abs=1e-9)
    assert way(a + turns * period, b) == pytest.approx(way(a, b), abs=1e-9)
    assert way(a, c) <= way(a, b) + way(b, c) + 1e-9


def test_coordinates_and_embeddings() -> None:
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 2.0]])
    labels = points[[0, 2]]
    assert euclidean(points, labels).tolist() == [[0, 5, 2], pytest.approx([2, math.sqrt(13), 0])]
    assert mean_squared_error(points, labels).tolist() == [pytest.approx([0, 12.5, 2]), pytest.approx([2, 6.5, 0])]
    directions = torch.tensor([[1.0, 0.0], [5.0, 5.0], [-2.0, 0.0]])
    found = cosine(directions, directions[:1])
    assert found[0].tolist() == pytest.approx([0, 1 - math.sqrt(0.5), 2], abs=1e-6)
    with pytest.raises(ValueError, match="a vector of zeros has no cosine distance"):
        cosine(points, labels)


def test_a_space_finds_its_tokens_and_their_distances() -> None:
    space = MetricSpace(torch.tensor([40, 10, 30]), torch.tensor([1.0, 2.0, 4.0]), squared)
    assert space.index(torch.tensor([[30, 40]])).tolist() == [[2, 0]]
    assert space.distances(space.index(torch.tensor([10, 30]))).tolist() == [[1, 0, 4], [9, 4, 0]]
    for foreign in (9, 20, 41):
        with pytest.raises(ValueError, match=f"token {foreign} is no token of this space"):
            space.index(torch.tensor([10, foreign]))


def test_any_matrix_makes_a_space() -> None:
    matrix = torch.tensor([[0.0, 1.0, 5.0], [2.0, 0.0, 1.0], [7.0, 3.0, 0.0]])
    space = MetricSpace.from_matrix(torch.tensor([5, 6, 7]), matrix)
    assert space.distances(torch.tensor([2, 0])).tolist() == [[7, 3, 0], [0, 1, 5]]
    shuffled = space.permuted(1)
    order = permutation(3, 1)
    assert shuffled.distances(torch.arange(3)).tolist() == matrix[order][:, order].tolist()
    for wrong in (matrix[:2], matrix - 1, matrix + torch.eye(3)):
        with pytest.raises(ValueError):
            MetricSpace.from_matrix(torch.tensor([5, 6, 7]), wrong)


@pytest.mark.parametrize(
    ("ids", "points", "reason"),
    [
        ([1, 2], [1.0], "expected token_ids"),
        ([1, 1], [1.0, 2.0], "a token id is there twice"),
        ([1, 2], [1.0, math.nan], "a point is not finite"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(ids: list[int], points: list[float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        MetricSpace(torch.tensor(ids), torch.tensor(points), squared)


@given(st.integers(1, 30), st.integers(0, 1000))
def test_a_permutation_takes_the_meaning_out_of_nearness(size: int, seed: int) -> None:
    order = permutation(size, seed)
    assert sorted(order) == list(range(size)) and order == permutation(size, seed)
    if size > 2:
        assert order not in (list(range(size)), list(range(size))[::-1])


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation gives."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.size = max(self.size, tensor.numel())
        return result


@pytest.mark.parametrize("distance", [mean_squared_error, cosine])
def test_a_codebook_of_16384_vectors_needs_no_matrix(distance: module.Distance) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(16_384, 8, generator=generator)
    space = MetricSpace(torch.arange(100, 16_484), vectors, distance)
    labels = space.index(torch.tensor([100, 5000, 16_483, 5000]))
    logits = torch.randn(4, 16_384, generator=generator)
    with Largest() as largest:
        loss = dist2(logits, space.distances(labels), tau=0.1)
        random = dist2(logits, space.permuted().distances(labels), tau=0.1)
        mean_entropy(space, 0.1, labels)
    assert loss.isfinite().all() and random.isfinite().all()
    assert 4 * 16_384 <= largest.size <= 8 * 16_384  # rows of the labels, or the vectors themselves
    by_hand = distance(vectors[:7], vectors[labels])
    torch.testing.assert_close(space.distances(labels)[:, :7], by_hand)


def test_the_temperature_that_gives_an_entropy() -> None:
    digits = MetricSpace(torch.arange(10), torch.arange(10.0), squared)
    target = distance_target(digits.distances(torch.arange(10)), 1.0)
    expected = -(target * target.log()).sum(-1).mean().item()
    assert mean_entropy(digits, 1.0) == pytest.approx(expected, rel=1e-5)
    assert mean_entropy(digits, 1.0, batch_size=3) == pytest.approx(expected, rel=1e-5)
    vectors = MetricSpace(
        torch.arange(300), torch.randn(300, 4, generator=torch.Generator().manual_seed(0)), mean_squared_error
    )
    for wanted in (0.01, expected, 5.0, 5.7):
        assert mean_entropy(vectors, match_entropy(vectors, wanted)) == pytest.approx(wanted, abs=1e-5)
    some = torch.arange(0, 300, 10)
    assert mean_entropy(vectors, match_entropy(vectors, 2.0, some), some) == pytest.approx(2.0, abs=1e-5)
    for impossible in (0.0, math.log(300), -1.0, math.nan):
        with pytest.raises(ValueError, match="must lie between 0 and log K = 5.704"):
            match_entropy(vectors, impossible)
    twins = MetricSpace(torch.arange(4), torch.tensor([0.0, 0.0, 1.0, 1.0]), squared)
    with pytest.raises(ValueError, match="so many tokens are no distance apart"):
        match_entropy(twins, 0.5)  # two tokens share each value: log 2 at least


def test_a_zero_padded_token_never_shares_a_value_s_mass(tiny_tokenizer: Any) -> None:
    vocabulary = tiny_tokenizer("three_digits").get_vocab()
    assert {"7", "07", "007"} <= vocabulary.keys()
    ids, values = canonical_numbers(vocabulary)
    assert values.tolist() == list(range(1000))
    assert ids[7] == vocabulary["7"] and not {vocabulary["07"], vocabulary["007"]} & set(ids.tolist())
    target = distance_target(MetricSpace(ids, values, squared).distances(torch.tensor([3])), 1.0)
    assert target[0, 3].item() == pytest.approx(1 / (1 + 2 * sum(math.exp(-n * n) for n in range(1, 4))), abs=1e-3)
    assert len(canonical_numbers({"x": 1, "²": 2, "٣": 3})[0]) == 0


def test_the_nearest_numbers_come_with_the_label_first() -> None:
    assert near_values(39, range(101), 4) == [39, 38, 40, 37, 41]
    assert near_values(0, range(101), 3) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="101 is not among the legal numbers"):
        near_values(101, range(101), 3)


def test_the_docstring_examples_hold() -> None:
    result = doctest.testmod(module)
    assert result.attempted > 3 and result.failed == 0
