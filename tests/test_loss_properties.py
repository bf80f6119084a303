"""What holds of the losses for any logits: where their minimum stands, and what does not change them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rmkit.distances import absolute, squared
from rmkit.score_losses import (
    cdw_ce,
    ce_vocab,
    cross_entropy,
    dist2,
    distance_target,
    emd2,
    label_smoothing,
    ntl_mse,
    ntl_was,
    oll,
    oprm,
    raft,
    sord,
    weighted_ce,
)

PROPERTY = settings(deadline=None, max_examples=50)  # the first call of a torch function takes what it takes

K = 5
VALUES = torch.arange(1, K + 1, dtype=torch.float64)
Logits = arrays("float64", (4, K), elements=st.floats(-20, 20, width=32))
Labels = st.lists(st.integers(0, K - 1), min_size=4, max_size=4).map(torch.tensor)
Weights = arrays("float64", 4, elements=st.floats(0.5, 4)).map(torch.from_numpy)

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""A loss of logits (N, K), label indices (N,) and place weights (N,), on the scale 1 to K."""


def far(y: torch.Tensor, distance: Any = absolute) -> torch.Tensor:
    return distance(VALUES, VALUES[y])


ONE_HOT: dict[str, Loss] = {
    "cdw_ce": lambda z, y, w: cdw_ce(z, far(y), 2.0),
    "cdw_ce margin": lambda z, y, w: cdw_ce(z, far(y), 2.0, 0.05),
    "ce": lambda z, y, w: cross_entropy(z, y),
    "ce_vocab": lambda z, y, w: ce_vocab(z, y),
    "emd2": lambda z, y, w: emd2(z, y),
    "ntl_was": lambda z, y, w: ntl_was(z, far(y)),
    "oll": lambda z, y, w: oll(z, far(y), 1.5),
    "weighted_ce": lambda z, y, w: weighted_ce(z, y, w),
}
MEAN: dict[str, Loss] = {
    "ntl_mse": lambda z, y, w: ntl_mse(z, VALUES, VALUES[y]),
    "raft": lambda z, y, w: raft(z, VALUES, VALUES[y], z.logsumexp(-1)),
}
SOFT: dict[str, Loss] = {
    "dist2": lambda z, y, w: dist2(z, far(y, squared), 2.0),
    "label_smoothing": lambda z, y, w: label_smoothing(z, y, 0.2),
    "sord": lambda z, y, w: sord(z, far(y)),
}
LOSSES = {**ONE_HOT, **MEAN, **SOFT}
BY_DISTANCE = ("cdw_ce", "cdw_ce margin", "dist2", "emd2", "ntl_mse", "ntl_was", "oll", "raft", "sord")


def targets(y: torch.Tensor) -> dict[str, torch.Tensor]:
    one_hot = torch.nn.functional.one_hot(y, K).double()
    return {
        "dist2": distance_target(far(y, squared), 2.0),
        "label_smoothing": 0.8 * one_hot + 0.2 / K,
        "sord": distance_target(far(y), 1.0),
    }


@pytest.mark.parametrize("name", ONE_HOT)
@PROPERTY
@given(logits=Logits, y=Labels, weights=Weights)
def test_the_minimum_is_zero_and_stands_at_the_one_hot_label(
    name: str, logits: Any, y: torch.Tensor, weights: torch.Tensor
) -> None:
    loss = ONE_HOT[name]
    z = torch.from_numpy(logits)
    found = loss(z, y, weights)
    assert (found >= -1e-12).all()
    sure = z.scatter(-1, y.unsqueeze(-1), 80.0)
    torch.testing.assert_close(loss(sure, y, weights), torch.zeros(4).double(), atol=1e-12, rtol=0)
    unsure = z.softmax(-1).gather(-1, y.unsqueeze(-1)).squeeze(-1) < 0.7  # then some mass is above the margin
    assert (found[unsure] > 1e-4).all()


@pytest.mark.parametrize("name", MEAN)
@PROPERTY
@given(logits=Logits, y=Labels, weights=Weights, shift=st.floats(0, 1))
def test_the_minimum_is_wherever_the_mean_is_the_label(
    name: str, logits: Any, y: torch.Tensor, weights: torch.Tensor, shift: float
) -> None:
    z = torch.from_numpy(logits)
    mean = (z.softmax(-1) * VALUES).sum(-1)
    torch.testing.assert_close(MEAN[name](z, y, weights), (mean - VALUES[y]).square(), atol=1e-9, rtol=1e-9)
    inner = y.clamp(1, K - 2)
    aside = torch.full((4, K), 1e-30).double()  # split over both neighbours, with none on the label if shift is 1
    aside.scatter_(-1, inner.unsqueeze(-1), 1 - shift + 1e-30)
    for neighbour in (inner - 1, inner + 1):
        aside.scatter_(-1, neighbour.unsqueeze(-1), shift / 2 + 1e-30)
    torch.testing.assert_close(MEAN[name](aside.log(), inner, weights), torch.zeros(4).double(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", SOFT)
@PROPERTY
@given(logits=Logits, y=Labels, weights=Weights)
def test_the_minimum_stands_at_the_target_with_its_entropy(
    name: str, logits: Any, y: torch.Tensor, weights: torch.Tensor
) -> None:
    z = torch.from_numpy(logits)
    target = targets(y)[name]
    least = torch.zeros(4).double() if name == "dist2" else -torch.special.xlogy(target, target).sum(-1)
    found = SOFT[name](z, y, weights)
    torch.testing.assert_close(SOFT[name](target.log() + 3.0, y, weights), least, atol=1e-9, rtol=0)
    assert (found >= least - 1e-9).all()
    away = (z.softmax(-1) - target).abs().sum(-1)
    assert (found - least >= away.square() / 2 - 1e-9).all()  # Pinsker's inequality


@PROPERTY
@given(chosen=Logits, rejected=Logits)
def test_oprm_is_above_zero_and_nears_it_where_the_sides_part(chosen: Any, rejected: Any) -> None:
    a, b = torch.from_numpy(chosen), torch.from_numpy(rejected)
    assert (oprm(a, b) > 0).all()
    apart = oprm(a + torch.tensor([0.0, 0, 0, 0, 99]), b + torch.tensor([99.0, 0, 0, 0, 0]))
    assert (apart < 1e-9).all()
    torch.testing.assert_close(oprm(a, b), oprm(b.flip(-1), a.flip(-1)))
    ties = (a.softmax(-1) * b.softmax(-1)).sum(-1)
    torch.testing.assert_close((-oprm(a, b)).exp() + (-oprm(b, a)).exp() + ties, torch.ones(4).double())


@pytest.mark.parametrize("name", BY_DISTANCE)
@pytest.mark.parametrize("sureness", [3.0, 8.0, 25.0])
@pytest.mark.parametrize("label", range(K))
def test_a_farther_miss_costs_no_less(name: str, sureness: float, label: int) -> None:
    sure = sureness * torch.eye(K, dtype=torch.float64)  # row v is nearly sure of v
    loss = LOSSES[name](sure, torch.full((K,), label), torch.ones(K).double()).tolist()
    for side in (range(label, K), range(label, -1, -1)):
        for near, farther in zip(side, list(side)[1:], strict=False):
            assert loss[farther] >= loss[near] - 1e-9
    assert loss.index(min(loss)) == label
    if name in ("ntl_was", "emd2", "oll", "ntl_mse", "raft"):
        assert all(loss[v] > 1.5 * loss[label + 1] for v in range(label + 2, K))  # clearly dearer, not just no cheaper


@pytest.mark.parametrize("name", LOSSES)
@PROPERTY
@given(logits=Logits, y=Labels, weights=Weights)
def test_turning_the_scale_round_changes_nothing(
    name: str, logits: Any, y: torch.Tensor, weights: torch.Tensor
) -> None:
    z = torch.from_numpy(logits)
    turned = LOSSES[name](z.flip(-1), K - 1 - y, weights)
    torch.testing.assert_close(turned, LOSSES[name](z, y, weights), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
@PROPERTY
@given(logits=Logits, y=Labels, weights=Weights, order=st.permutations(range(4)))
def test_rows_do_not_see_each_other(
    name: str, logits: Any, y: torch.Tensor, weights: torch.Tensor, order: list[int]
) -> None:
    z = torch.from_numpy(logits)
    found = LOSSES[name](z[order], y[order], weights[order])
    torch.testing.assert_close(found, LOSSES[name](z, y, weights)[order])


@pytest.mark.parametrize("name", LOSSES)
@PROPERTY
@given(logits=Logits, y=Labels, weights=Weights, constant=st.floats(-50, 50))
def test_a_constant_added_to_the_logits_changes_nothing(
    name: str, logits: Any, y: torch.Tensor, weights: torch.Tensor, constant: float
) -> None:
    z = torch.from_numpy(logits)
    found = LOSSES[name](z + constant, y, weights)
    torch.testing.assert_close(found, LOSSES[name](z, y, weights), atol=1e-9, rtol=1e-9)
