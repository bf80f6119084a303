"""Every loss against its oracle, its identities, its gradients, and what it does at the edges."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from dlordinal.losses import CDWCELoss, EMDLoss, SORDLoss
from ntloss import NTLoss

from rmkit.distances import MetricSpace, absolute, squared
from rmkit.score_losses import (
    cdw_ce,
    ce_vocab,
    contrastive,
    cross_entropy,
    dist2,
    dist2_random,
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

Case = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""A loss of logits (N, K), label indices (N,) and a mask (N, K), on the scale 0 to K - 1."""

ELSEWHERE = 0.7  # log-sum-exp of the logits outside the scale, for p over the vocabulary


def lse(z: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    inside = z.masked_fill(~mask, -torch.inf).logsumexp(-1)
    return torch.logaddexp(inside, torch.tensor(ELSEWHERE, dtype=z.dtype))


def values(z: torch.Tensor) -> torch.Tensor:
    return torch.arange(z.shape[-1], dtype=z.dtype)


def far(z: torch.Tensor, y: torch.Tensor, mask: torch.Tensor, distance: Any = squared) -> torch.Tensor:
    return distance(values(z), y.to(z.dtype)).masked_fill(~mask, torch.inf)


def rejected(z: torch.Tensor) -> torch.Tensor:
    return torch.linspace(1, -1, z.shape[-1], dtype=z.dtype).expand_as(z)


CASES: dict[str, Case] = {
    "cdw_ce": lambda z, y, m: cdw_ce(z, far(z, y, m, absolute), 1.5, 0.05),
    "ce_vocab": lambda z, y, m: ce_vocab(z, y, mask=m),
    "ce_vocab full": lambda z, y, m: ce_vocab(z, y, lse(z, m), m),
    "contrastive": lambda z, y, m: contrastive(z, far(z, y, m, absolute), 2.0),
    "dist2": lambda z, y, m: dist2(z, far(z, y, m)),
    "dist2 full": lambda z, y, m: dist2(z, far(z, y, m), 2.0, lse(z, m)),
    "emd2": lambda z, y, m: emd2(z, y, m),
    "label_smoothing": lambda z, y, m: label_smoothing(z, y, 0.2, mask=m),
    "label_smoothing full": lambda z, y, m: label_smoothing(z, y, 0.2, lse(z, m), m),
    "ntl_mse": lambda z, y, m: ntl_mse(z, values(z), y.to(z.dtype), m),
    "ntl_was": lambda z, y, m: ntl_was(z, far(z, y, m, absolute)),
    "oll": lambda z, y, m: oll(z, far(z, y, m, absolute), 1.5),
    "oprm": lambda z, y, m: oprm(z, rejected(z), m),
    "raft": lambda z, y, m: raft(z, values(z), y.to(z.dtype), lse(z, m), m),
    "sord": lambda z, y, m: sord(z, far(z, y, m, absolute)),
    "sord full": lambda z, y, m: sord(z, far(z, y, m, absolute), 1.0, lse(z, m)),
    "weighted_ce": lambda z, y, m: weighted_ce(z, y, torch.full(y.shape, 2.0, dtype=z.dtype), mask=m),
}

REFERENCES: dict[str, Callable[[list[float], int], float]] = {
    "cdw_ce": lambda p, y: -sum(abs(k - y) ** 1.5 * math.log(min(1 - q + 0.05, 1)) for k, q in enumerate(p)),
    "ce_vocab": lambda p, y: -math.log(p[y]),
    "emd2": lambda p, y: sum((sum(p[: k + 1]) - (k >= y)) ** 2 for k in range(len(p))),
    "label_smoothing": lambda p, y: -sum((0.8 * (k == y) + 0.2 / len(p)) * math.log(q) for k, q in enumerate(p)),
    "ntl_mse": lambda p, y: (sum(k * q for k, q in enumerate(p)) - y) ** 2,
    "ntl_was": lambda p, y: sum(q * abs(k - y) for k, q in enumerate(p)),
    "oll": lambda p, y: -sum(abs(k - y) ** 1.5 * math.log(1 - q) for k, q in enumerate(p)),
    "weighted_ce": lambda p, y: -2 * math.log(p[y]),
}


def random_case(
    n: int = 8, k: int = 10, spread: float = 2.0, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    z = spread * torch.randn(n, k, generator=generator, dtype=torch.float64)
    return z.to(dtype), torch.randint(k, (n,), generator=generator), torch.ones(n, k, dtype=torch.bool)


# Oracles: other people's code, or the formula in Python's floats.


@pytest.mark.parametrize("name", REFERENCES)
def test_each_loss_is_its_formula(name: str) -> None:
    z, y, mask = random_case()
    found = CASES[name](z, y, mask)
    for row in range(len(y)):
        weights = [math.exp(x) for x in z[row].tolist()]
        p = [w / sum(weights) for w in weights]
        assert found[row].item() == pytest.approx(REFERENCES[name](p, int(y[row])), abs=1e-9)


def test_sord_is_dlordinal_s() -> None:
    z, y, mask = random_case()
    for tau in (0.5, 1.0, 3.0):
        oracle = SORDLoss(alpha=1 / tau, num_classes=10, train_targets=y)
        found = sord(z, far(z, y, mask, absolute), tau)
        for row in range(len(y)):
            assert found[row].item() == pytest.approx(oracle(z[[row]], y[[row]]).item(), abs=1e-6)


def test_cdw_ce_and_oll_are_dlordinal_s_but_for_its_epsilons() -> None:
    # It adds 1e-8 inside its logarithms, so logits are moderate here.
    z, y, mask = random_case(spread=1.0)
    for power in (1.0, 2.0):
        for margin in (0.0, 0.1):
            oracle = CDWCELoss(num_classes=10, alpha=power, margin=margin)
            found = cdw_ce(z, far(z, y, mask, absolute), power, margin)
            for row in range(len(y)):
                assert found[row].item() == pytest.approx(oracle(z[[row]], y[[row]]).item(), abs=1e-6)
        torch.testing.assert_close(
            oll(z, far(z, y, mask, absolute), power), cdw_ce(z, far(z, y, mask, absolute), power)
        )


def test_emd2_is_dlordinal_s() -> None:
    z, y, _ = random_case()
    for row, found in enumerate(emd2(z, y)):
        assert found.item() == pytest.approx(EMDLoss(num_classes=10)(z[[row]], y[[row]]).item(), abs=1e-6)


def test_ntl_was_is_ntloss_s(tiny: Any) -> None:
    tokenizer = tiny.build_tokenizer("split_digits")  # one of its own: ntloss may add tokens
    size = len(tokenizer)
    oracle = NTLoss(tokenizer, reweigh=False)
    assert len(tokenizer) == size
    digits = torch.tensor(tokenizer.convert_tokens_to_ids([*"0123456789"]))
    z, y, mask = random_case()
    logits = torch.zeros(8, 1, size, dtype=torch.float64)
    logits[:, 0, digits] = z
    expected = oracle(logits, digits[y].unsqueeze(-1), reduction="none").flatten()
    torch.testing.assert_close(ntl_was(z, far(z, y, mask, absolute)), expected, atol=1e-6, rtol=0)


def test_raft_takes_the_mean_over_the_whole_vocabulary() -> None:
    z, y, mask = random_case()
    total = lse(z, mask)
    for row, found in enumerate(CASES["raft"](z, y, mask)):
        mean = sum(k * math.exp(x - total[row].item()) for k, x in enumerate(z[row].tolist()))
        assert found.item() == pytest.approx((mean - int(y[row])) ** 2, abs=1e-9)
    torch.testing.assert_close(raft(z, values(z), y.double(), z.logsumexp(-1)), ntl_mse(z, values(z), y.double()))


def test_oprm_sums_over_all_pairs() -> None:
    z, _, _ = random_case()
    other = z.flip(0)
    for row, found in enumerate(oprm(z, other)):
        chosen, rejected_ = z[row].softmax(-1).tolist(), other[row].softmax(-1).tolist()
        wins = sum(chosen[i] * rejected_[j] for i in range(10) for j in range(i))
        assert found.item() == pytest.approx(-math.log(wins), abs=1e-9)


def test_the_contrastive_term_compares_whole_numbers() -> None:
    logprobs, distances = torch.tensor([[-3.0, -1.0, -9.0]]).double(), torch.tensor([[0.0, 1.0, 4.0]]).double()
    target = [math.exp(-d) / (1 + math.exp(-1) + math.exp(-4)) for d in (0, 1, 4)]
    total = math.exp(-3) + math.exp(-1) + math.exp(-9)
    share = [math.exp(x) / total for x in (-3, -1, -9)]
    expected = sum(t * math.log(t / s) for t, s in zip(target, share, strict=True))
    assert contrastive(logprobs, distances).item() == pytest.approx(expected, abs=1e-9)


# Identities.


def test_sord_has_dist2_s_target_and_gradient() -> None:
    z, y, mask = random_case()
    for tau in (0.5, 2.0):
        target = distance_target(far(z, y, mask), tau)
        entropy = -torch.special.xlogy(target, target).sum(-1)
        torch.testing.assert_close(sord(z, far(z, y, mask), tau), dist2(z, far(z, y, mask), tau) + entropy)
        [a], [b] = (
            torch.autograd.grad(loss(leaf, far(z, y, mask), tau).sum(), leaf)
            for loss in (sord, dist2)
            for leaf in [z.clone().requires_grad_()]
        )
        torch.testing.assert_close(a, b)


def test_towards_tau_zero_dist2_becomes_cross_entropy() -> None:
    z, y, mask = random_case()
    torch.testing.assert_close(dist2(z, far(z, y, mask), 1e-3), ce_vocab(z, y))
    logits = torch.cat([z, torch.full((8, 1), ELSEWHERE, dtype=torch.float64)], dim=-1)  # the whole vocabulary
    torch.testing.assert_close(dist2(z, far(z, y, mask), 1e-3, lse(z, mask)), cross_entropy(logits, y))
    torch.testing.assert_close(ce_vocab(z, y, lse(z, mask)), cross_entropy(logits, y))
    with pytest.raises(ValueError, match="tau must be above 0.*'ce_vocab'"):
        dist2(z, far(z, y, mask), 0.0)


def test_the_random_metric_is_another_one_of_the_same_distances() -> None:
    z, y, mask = random_case()
    space = MetricSpace(torch.arange(10), values(z), squared)
    shuffled = space.permuted(3).distances(torch.arange(10))
    straight = space.distances(torch.arange(10))
    assert torch.equal(shuffled.flatten().sort().values, straight.flatten().sort().values)
    assert torch.equal(shuffled, shuffled.T) and not shuffled.diagonal().any()
    found = dist2_random(z, y, space, seed=3)
    torch.testing.assert_close(found, dist2(z, shuffled[y]))
    assert ((found - dist2(z, far(z, y, mask))).abs() > 1e-3).any()
    assert not torch.equal(found, dist2_random(z, y, space, seed=4))
    torch.testing.assert_close(found, dist2_random(z, y, space, seed=3))


# Gradients and edges.


@pytest.mark.parametrize("name", CASES)
def test_the_gradients_are_right(name: str) -> None:
    z, y, mask = random_case(n=3, k=5)
    mask[0, 3:], y[0] = False, 1
    assert torch.autograd.gradcheck(lambda x: CASES[name](x, y, mask), z.clone().requires_grad_())


def test_the_gradient_of_dist2_random_and_of_both_sides_of_oprm_are_right() -> None:
    z, y, _ = random_case(n=3, k=5)
    space = MetricSpace(torch.arange(5), values(z), squared)
    assert torch.autograd.gradcheck(lambda x: dist2_random(x, y, space), z.clone().requires_grad_())
    assert torch.autograd.gradcheck(oprm, (z.clone().requires_grad_(), z.flip(0).clone().requires_grad_()))


@pytest.mark.parametrize("name", CASES)
def test_no_positions_give_zero_with_zero_gradients(name: str) -> None:
    hidden = torch.ones(4, 5, requires_grad=True)
    none = hidden[torch.zeros(4, dtype=torch.bool)]
    loss = CASES[name](none, torch.empty(0, dtype=torch.long), torch.empty(0, 5, dtype=torch.bool))
    assert loss.shape == (0,)
    [gradient] = torch.autograd.grad(loss.sum(), hidden)
    assert loss.sum().item() == 0.0 and not gradient.any()


@pytest.mark.parametrize("name", CASES)
def test_padding_has_no_effect_whatever_stands_there(name: str) -> None:
    z, y, mask = random_case(k=6)
    if name != "oprm":
        expected = CASES[name](z, y, mask)
    else:
        expected = oprm(z, rejected(torch.zeros(8, 9).double())[:, :6])
    wide = torch.cat([mask, torch.zeros(8, 3, dtype=torch.bool)], dim=-1)
    for filler in (0.0, 1e4, -torch.inf, torch.inf, torch.nan):
        padded = torch.cat([z, torch.full((8, 3), filler).double()], dim=-1).requires_grad_()
        found = CASES[name](padded, y, wide)
        torch.testing.assert_close(found, expected)
        [gradient] = torch.autograd.grad(found.sum(), padded)
        assert gradient.isfinite().all() and not gradient[:, 6:].any()


@pytest.mark.parametrize("name", CASES)
def test_masked_equals_indexed(name: str) -> None:
    z, y, mask = random_case(k=6)
    mask[:, [1, 4]] = False
    y = torch.tensor([0, 2, 3, 5, 5, 3, 2, 0])
    kept = torch.tensor([0, 2, 3, 5])
    there, at = z[:, kept], torch.searchsorted(kept, y)
    v, targets, d = kept.double(), y.double(), absolute(kept.double(), y.double())
    total, weights = lse(z, mask), torch.full((8,), 2.0).double()
    indexed = {
        "cdw_ce": lambda: cdw_ce(there, d, 1.5, 0.05),
        "ce_vocab": lambda: ce_vocab(there, at),
        "ce_vocab full": lambda: ce_vocab(there, at, total),
        "contrastive": lambda: contrastive(there, d, 2.0),
        "dist2": lambda: dist2(there, d.square()),
        "dist2 full": lambda: dist2(there, d.square(), 2.0, total),
        "emd2": lambda: emd2(there, at),
        "label_smoothing": lambda: label_smoothing(there, at, 0.2),
        "label_smoothing full": lambda: label_smoothing(there, at, 0.2, total),
        "ntl_mse": lambda: ntl_mse(there, v, targets),
        "ntl_was": lambda: ntl_was(there, d),
        "oll": lambda: oll(there, d, 1.5),
        "oprm": lambda: oprm(there, rejected(z)[:, kept]),
        "raft": lambda: raft(there, v, targets, total),
        "sord": lambda: sord(there, d),
        "sord full": lambda: sord(there, d, 1.0, total),
        "weighted_ce": lambda: weighted_ce(there, at, weights),
    }
    torch.testing.assert_close(CASES[name](z, y, mask), indexed[name]())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("k", [1, 2, 16_384])
def test_any_number_of_tokens_is_finite(name: str, k: int) -> None:
    if name == "oprm" and k == 1:
        with pytest.raises(ValueError, match="a preference needs at least two scores"):
            oprm(torch.zeros(1, 1), torch.zeros(1, 1))
        return
    z, y, mask = random_case(n=2, k=k, dtype=torch.float32)
    leaf = z.requires_grad_()
    loss = CASES[name](leaf, y, mask)
    [gradient] = torch.autograd.grad(loss.sum(), leaf)
    assert loss.isfinite().all() and gradient.isfinite().all()
    if k == 1 and "full" not in name and name != "raft":
        assert loss.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", ["ce_vocab", "dist2", "label_smoothing", "raft", "sord"])
def test_hardly_any_mass_on_the_scale_is_finite(name: str) -> None:
    z, y, mask = random_case(dtype=torch.float32)
    leaf = z.requires_grad_()
    total = leaf.logsumexp(-1) + 80  # the scale has e^-80, and all else of the vocabulary may be -inf
    found = {
        "ce_vocab": lambda: ce_vocab(leaf, y, total),
        "dist2": lambda: dist2(leaf, far(leaf, y, mask), 1.0, total),
        "label_smoothing": lambda: label_smoothing(leaf, y, 0.1, total),
        "raft": lambda: raft(leaf, values(leaf), y.float(), total),
        "sord": lambda: sord(leaf, far(leaf, y, mask), 1.0, total),
    }[name]()
    [gradient] = torch.autograd.grad(found.sum(), leaf)
    assert found.isfinite().all() and gradient.isfinite().all()
    if name == "raft":
        torch.testing.assert_close(found, y.float().square())
    else:
        assert (found > 70).all()


PAYS_EVERYWHERE = {
    "contrastive",
    "dist2",
    "dist2 full",
    "label_smoothing",
    "label_smoothing full",
    "sord",
    "sord full",
}
PAYS_AT_THE_LABEL = PAYS_EVERYWHERE | {"ce_vocab", "ce_vocab full", "weighted_ce"}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("where", [1, 3])  # the label, and another
def test_a_legal_token_without_probability_gives_infinity_or_a_number(name: str, where: int) -> None:
    z, y, mask = random_case(n=1, k=5)
    z[0, where], y[0] = -torch.inf, 1
    leaf = z.requires_grad_()
    loss = CASES[name](leaf, y, mask)
    if name in (PAYS_AT_THE_LABEL if where == 1 else PAYS_EVERYWHERE):
        assert loss.item() == math.inf
    else:
        assert math.isfinite(loss.item())
        assert torch.autograd.grad(loss.sum(), leaf)[0].isfinite().all()


@pytest.mark.parametrize("name", CASES)
def test_no_probability_on_the_scale_at_all_is_infinite_and_never_nan(name: str) -> None:
    z, y, mask = random_case(n=1, k=5)
    loss = CASES[name](torch.full_like(z, -torch.inf), y, mask)
    assert loss.item() == (float(y) ** 2 if name == "raft" else math.inf)


def test_certainty_of_a_wrong_score_is_dear_but_finite() -> None:
    z = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)  # p rounds to 1 in float32
    d = torch.tensor([[2.0, 1.0, 0.0]])
    loss = oll(z, d)
    assert loss.item() == pytest.approx(2 * (200 - math.log(2)), rel=1e-6)
    [gradient] = torch.autograd.grad(loss.sum(), z)
    assert gradient.tolist()[0] == pytest.approx([2.0, -1.0, -1.0], abs=1e-5)
    assert oll(torch.tensor([[0.0, -torch.inf, -torch.inf]]), d).tolist() == [math.inf]
    assert oll(torch.tensor([[-torch.inf, -torch.inf, 0.0]]), d).tolist() == [0.0]


@pytest.mark.parametrize("name", CASES)
def test_nan_stays_nan_and_in_its_row(name: str) -> None:
    z, y, mask = random_case(n=3, k=5)
    z[1, 2] = torch.nan
    assert CASES[name](z, y, mask).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("name", [n for n in CASES if n not in ("raft", "weighted_ce") and "full" not in n])
def test_half_precision_is_summed_in_float32(name: str) -> None:
    z, y, mask = random_case(dtype=torch.float32)
    rounded = z.bfloat16()
    found = CASES[name](rounded, y, mask)
    assert found.dtype == torch.float32
    if name != "oprm":
        torch.testing.assert_close(found, CASES[name](rounded.float(), y, mask))


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda z, y, d: label_smoothing(z, y, 1.5), r"smoothing must be in \[0, 1\], found 1.5"),
        (lambda z, y, d: oll(z, d, 0.0), "power must be above 0, found 0.0"),
        (lambda z, y, d: cdw_ce(z, d, 1.0, 1.0), r"margin must be in \[0, 1\), found 1.0"),
        (lambda z, y, d: cdw_ce(z, d, -1.0, 0.1), "power must be above 0, found -1.0"),
        (lambda z, y, d: sord(z, d, 0.0), "tau must be above 0"),
    ],
)
def test_options_without_meaning_are_refused(call: Any, reason: str) -> None:
    z, y, mask = random_case()
    with pytest.raises(ValueError, match=reason):
        call(z, y, far(z, y, mask))
