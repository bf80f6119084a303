"""The losses on score tokens: pure, unreduced functions of the logits at score positions.

Shapes: N score positions, each with K tokens that could stand there (legal scores, digits, angles, codebook
vectors). A position with fewer is padded, by a distance of +inf or by `mask`; what stands at padding, NaN included,
has no effect. Everything is computed in float32 or better. For no positions a loss has shape (0,), connected to the
graph: its sum is 0 and has gradients of zero. NaN at a token that counts gives NaN for its position. Where tokens
that count have a logit of -inf each loss says what it gives; where all have, p over them does not exist and the loss
is +inf.

"p over the scale" is a softmax over the K tokens. With `lse`, the log-sum-exp of the logits over the whole
vocabulary, shape (N,), log p(v) = z_v - lse is "p over the vocabulary", which also draws mass onto the scale.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from rmkit.distances import MetricSpace


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The token cross entropy -log p(label), per row.

    Args:
        logits: Any float dtype, shape (R, V). Computed in float32 or better.
        labels: int64, shape (R,); -100 marks a row that does not count.

    Returns:
        Shape (R,), in nats; 0 where the label is -100.
    """
    return functional.cross_entropy(_at_least_float32(logits), labels, ignore_index=-100, reduction="none")


def distance_target(distances: torch.Tensor, tau: float) -> torch.Tensor:
    """The target distribution p_d(v) = exp(-d(v, y) / tau) / sum over v'.

    Args:
        distances: Shape (N, K), at least 0; +inf takes a token out.
        tau: Temperature, above 0.

    Returns:
        Shape (N, K), rows summing to 1.

    Raises:
        ValueError: If tau is not above 0: the limit tau -> 0 is the one-hot target.
    """
    if not tau > 0:
        raise ValueError(f"tau must be above 0, found {tau}; for a one-hot target use the loss 'ce_vocab'")
    return torch.softmax(-distances / tau, dim=-1)


def dist2(
    score_logits: torch.Tensor, distances: torch.Tensor, tau: float = 1.0, lse: torch.Tensor | None = None
) -> torch.Tensor:
    """The distance term of DIST2Loss, KL(p_d || p), per score position.

    Formula (arXiv 2503.02379): sum over v of p_d(v) * (log p_d(v) - log p(v)), with p_d from
    `distance_target` and log p(v) = z_v - lse. KL over the vocabulary = KL over the scale - log(mass on the scale).

    Args:
        score_logits: Logits z of the tokens that could stand there, shape (N, K).
        distances: Distance of each from the right one, shape (N, K); +inf pads.
        tau: Temperature, above 0.
        lse: Log-sum-exp of the logits over the whole vocabulary, shape (N,), for p over the vocabulary
            (`normalize="full"`, which also draws mass onto the scale). None for p over these tokens only.

    Returns:
        Shape (N,), in nats, at least 0 up to rounding, 0 at p = p_d. +inf where a token with target mass has a
        logit of -inf. NaN where an input is NaN. Shape (0,), connected to the graph, for no positions.

    Example:
        >>> z = torch.log(torch.tensor([[0.1, 0.8, 0.1]]))
        >>> d = torch.tensor([[1.0, 0.0, 1.0]])
        >>> [round(x, 4) for x in dist2(z, d).tolist()]
        [0.1293]
    """
    log_p = _log_p(score_logits, distances.isposinf(), lse)
    target = distance_target(distances.to(log_p.dtype), tau)
    return _soft_cross_entropy(log_p, target) + torch.special.xlogy(target, target).sum(-1)


def dist2_random(
    score_logits: torch.Tensor,
    labels: torch.Tensor,
    space: MetricSpace,
    tau: float = 1.0,
    lse: torch.Tensor | None = None,
    seed: int = 0,
) -> torch.Tensor:
    """The random-metric control: `dist2` in a space whose points are dealt out to its tokens by chance.

    As many tokens are as far from each other as before, but nearness means nothing: what `dist2` gains over this,
    it gains by the metric, and what this gains over `ce`, it gains by smoothing.

    Args:
        score_logits: Logits of all tokens of the space, shape (N, K).
        labels: Indices of the right tokens in the space, int64, shape (N,).
        space: The metric space.
        tau: As in `dist2`.
        lse: As in `dist2`.
        seed: Chooses the permutation.

    Returns:
        As `dist2`.

    Example:
        >>> from rmkit.distances import squared
        >>> space = MetricSpace(torch.arange(5), torch.arange(1.0, 6.0), squared)
        >>> z = torch.log(torch.tensor([[0.02, 0.08, 0.8, 0.08, 0.02]]))
        >>> [round(f.item(), 4) for f in (dist2(z, space.distances(torch.tensor([2]))),
        ...                               dist2_random(z, torch.tensor([2]), space))]
        [0.1851, 0.4801]
    """
    return dist2(score_logits, space.permuted(seed).distances(labels), tau, lse)


def sord(
    score_logits: torch.Tensor, distances: torch.Tensor, tau: float = 1.0, lse: torch.Tensor | None = None
) -> torch.Tensor:
    """The cross entropy with SORD's soft label, H(p_d, p).

    Formula (Diaz and Marathe, CVPR 2019): -sum over v of p_d(v) log p(v), p_d(v) proportional to exp(-phi(v, y)),
    with phi = d / tau. It is `dist2` + H(p_d): another value, the same gradient. It differs from `dist2` where it
    is used as published: in place of the one-hot cross entropy and not beside it.

    Args:
        score_logits: As in `dist2`.
        distances: As in `dist2`; the absolute difference in the ordinal benchmarks.
        tau: As in `dist2`.
        lse: As in `dist2`; published without.

    Returns:
        As `dist2`, but for its least value, H(p_d).

    Example:
        >>> z = torch.log(torch.tensor([[0.1, 0.8, 0.1]]))
        >>> [round(x, 4) for x in sord(z, torch.tensor([[1.0, 0.0, 1.0]])).tolist()]
        [1.1046]
    """
    log_p = _log_p(score_logits, distances.isposinf(), lse)
    return _soft_cross_entropy(log_p, distance_target(distances.to(log_p.dtype), tau))


def ce_vocab(
    score_logits: torch.Tensor,
    labels: torch.Tensor,
    lse: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """The cross entropy over the scale, -log p(y): the limit of `dist2` for tau -> 0, and its first control.

    Source: the "vocab" baseline of arXiv 2503.02379.

    Args:
        score_logits: Logits of the tokens that could stand there, shape (N, K).
        labels: Index of the right one among them, int64, shape (N,).
        lse: As in `dist2`; with it this is the plain cross entropy at score positions.
        mask: True where a token could stand, shape (N, K); all by default.

    Returns:
        Shape (N,), in nats, at least 0. +inf where the label's logit is -inf.

    Example:
        >>> z = torch.log(torch.tensor([[0.1, 0.8, 0.1]]))
        >>> [round(x, 4) for x in ce_vocab(z, torch.tensor([1])).tolist()]
        [0.2231]
    """
    log_p = _log_p(score_logits, _padding(score_logits, mask), lse)
    return -log_p.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def weighted_ce(
    score_logits: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    lse: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """The place-weighted cross entropy, -w log p(y): what place weights do alone, without a distance.

    Args:
        score_logits: As in `ce_vocab`.
        labels: As in `ce_vocab`.
        weights: Place weight of each position, shape (N,), at least 0.
        lse: As in `ce_vocab`.
        mask: As in `ce_vocab`.

    Returns:
        Shape (N,), at least 0. +inf where the label's logit is -inf.

    Example:
        >>> z = torch.log(torch.tensor([[0.1, 0.8, 0.1], [0.1, 0.8, 0.1]]))
        >>> [round(x, 4) for x in weighted_ce(z, torch.tensor([1, 1]), torch.tensor([2.0, 1.0])).tolist()]
        [0.4463, 0.2231]
    """
    return weights * ce_vocab(score_logits, labels, lse, mask)


def label_smoothing(
    score_logits: torch.Tensor,
    labels: torch.Tensor,
    smoothing: float = 0.1,
    lse: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """The cross entropy with a smoothed label, which knows no near and far: "minus distance" in the ablations.

    Formula (Szegedy et al., CVPR 2016): -sum over v of q(v) log p(v), q = (1 - s) one-hot + s / K.

    Args:
        score_logits: As in `ce_vocab`.
        labels: As in `ce_vocab`.
        smoothing: s, in [0, 1].
        lse: As in `ce_vocab`.
        mask: As in `ce_vocab`; K counts what is not masked.

    Returns:
        Shape (N,), in nats; its least value is H(q), at p = q. +inf where a token with target mass has -inf.

    Raises:
        ValueError: If `smoothing` is outside [0, 1].

    Example:
        >>> z = torch.log(torch.tensor([[0.1, 0.8, 0.1]]))
        >>> [round(x, 4) for x in label_smoothing(z, torch.tensor([1]), 0.3).tolist()]
        [0.639]
    """
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing must be in [0, 1], found {smoothing}")
    padding = _padding(score_logits, mask)
    log_p = _log_p(score_logits, padding, lse)
    uniform = (~padding).to(log_p.dtype) / (~padding).sum(-1, keepdim=True)
    one_hot = functional.one_hot(labels, padding.shape[-1]).to(log_p.dtype)
    return _soft_cross_entropy(log_p, (1 - smoothing) * one_hot + smoothing * uniform)


def ntl_was(score_logits: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
    """The number token loss NTL-WAS, the expected distance: the exact Wasserstein-1 distance from the one-hot label.

    Formula (Zausinger et al., ICML 2025, arXiv 2411.02083): sum over v of p(v) d(v, y), p over the scale, with
    d = |v - y|. They add it to the cross entropy with alpha = 0.3.

    Args:
        score_logits: Logits of the tokens that could stand there, shape (N, K).
        distances: Distance of each from the right one, shape (N, K); +inf pads.

    Returns:
        Shape (N,), in units of the distance, from 0 (all mass on the label) to the largest distance. A token with a
        logit of -inf has no probability and costs nothing.

    Example:
        >>> z = torch.log(torch.tensor([[0.1, 0.2, 0.7]]))
        >>> [round(x, 4) for x in ntl_was(z, torch.tensor([[2.0, 1.0, 0.0]])).tolist()]
        [0.4]
    """
    padding = distances.isposinf()
    log_p = _log_p(score_logits, padding)
    return _infinite_without_mass((log_p.exp() * distances.masked_fill(padding, 0)).sum(-1), log_p)


def ntl_mse(
    score_logits: torch.Tensor, values: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """The squared error of the expected score, (mean - y)^2, with p over the scale.

    Formula (NTL-MSE, arXiv 2411.02083): (sum over v of p(v) v - y)^2. Any distribution with the right mean is a
    minimum, also one between two wrong scores.

    Args:
        score_logits: Logits of the tokens that could stand there, shape (N, K).
        values: Value of each, shape (K,) or (N, K).
        targets: y, shape (N,); it need not be one of the values (a mean rating).
        mask: True where a token could stand, shape (N, K); all by default.

    Returns:
        Shape (N,), in squared units of the values, at least 0. A logit of -inf is no probability.

    Example:
        >>> z = torch.log(torch.tensor([[0.1, 0.2, 0.7]]))
        >>> [round(x, 4) for x in ntl_mse(z, torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0])).tolist()]
        [0.16]
    """
    padding = _padding(score_logits, mask)
    log_p = _log_p(score_logits, padding)
    return _infinite_without_mass((_mean(log_p, values, padding) - targets.to(log_p.dtype)).square(), log_p)


def raft(
    score_logits: torch.Tensor,
    values: torch.Tensor,
    targets: torch.Tensor,
    lse: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """The regression-aware loss RAFT, (sum over v of p(v) v - y)^2, with p over the whole vocabulary.

    Source: Lukasik et al., ICLR 2025; TRACT (arXiv 2503.04381) adds it to a cross entropy. Mass outside the scale
    counts as the value 0, so it is pulled onto the scale, or pushed off it where the mean is too high.

    Args:
        score_logits: As in `ntl_mse`.
        values: As in `ntl_mse`.
        targets: As in `ntl_mse`.
        lse: Log-sum-exp of the logits over the whole vocabulary, shape (N,).
        mask: As in `ntl_mse`.

    Returns:
        As `ntl_mse`; y^2 where no legal token has any probability.

    Example:
        >>> z = torch.log(torch.tensor([[0.1, 0.1, 0.3]]))  # half the mass is elsewhere
        >>> [round(x, 4) for x in raft(z, torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0]), torch.zeros(1)).tolist()]
        [3.24]
    """
    padding = _padding(score_logits, mask)
    log_p = _log_p(score_logits, padding, lse)
    return (_mean(log_p, values, padding) - targets.to(log_p.dtype)).square()


def emd2(score_logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """The squared earth mover's distance, which is the ranked probability score (RPS).

    Formula (Hou et al., arXiv 1611.05916; Epstein 1969): sum over k of (F_p(k) - F_y(k))^2, with cumulative sums
    over the tokens in their order, p over the scale. It sees the order of the values and not how far they lie apart.

    Args:
        score_logits: Logits of the tokens that could stand there, ascending by value, shape (N, K).
        labels: Index of the right one, int64, shape (N,).
        mask: True where a token could stand, shape (N, K); all by default.

    Returns:
        Shape (N,), from 0 (all mass on the label) to K - 1. A logit of -inf is no probability.

    Example:
        >>> z = torch.log(torch.tensor([[0.1, 0.2, 0.7]]))
        >>> [round(x, 4) for x in emd2(z, torch.tensor([2])).tolist()]
        [0.1]
    """
    padding = _padding(score_logits, mask)
    log_p = _log_p(score_logits, padding)
    reached = torch.arange(log_p.shape[-1], device=labels.device) >= labels.unsqueeze(-1)
    surplus = log_p.exp().cumsum(-1) - reached.to(log_p.dtype)
    return _infinite_without_mass(surplus.masked_fill(padding, 0).square().sum(-1), log_p)


def oll(score_logits: torch.Tensor, distances: torch.Tensor, power: float = 1.0) -> torch.Tensor:
    """The ordinal log loss OLL-a, which makes wrong tokens unlikely in proportion to how wrong they are.

    Formula (Castagnos et al., COLING 2022): -sum over v of d(v, y)^a log(1 - p(v)), p over the scale, with d the
    absolute difference and a in {1, 1.5, 2}.

    Args:
        score_logits: Logits of the tokens that could stand there, shape (N, K).
        distances: Distance of each from the right one, shape (N, K); +inf pads.
        power: a, above 0.

    Returns:
        Shape (N,), at least 0, 0 where all mass is on the label. Finite also where one wrong token has nearly all
        mass; +inf where it has all of it, the others being at -inf.

    Raises:
        ValueError: If `power` is not above 0.

    Example:
        >>> z = torch.log(torch.tensor([[0.1, 0.2, 0.7]]))
        >>> [round(x, 4) for x in oll(z, torch.tensor([[2.0, 1.0, 0.0]])).tolist()]
        [0.4339]
    """
    padding = distances.isposinf()
    log_p = _log_p(score_logits, padding)
    return _weighted_log_complement(_log_complement(log_p), distances, power, log_p)


def cdw_ce(
    score_logits: torch.Tensor, distances: torch.Tensor, power: float = 1.0, margin: float = 0.0
) -> torch.Tensor:
    """The class distance weighted cross entropy, with a margin.

    Formula (Polat et al., 2022, arXiv 2202.05167): -sum over v of d(v, y)^a log(1 - p(v)), p over the scale, which
    is `oll` of another year. The margin is that of the package `dlordinal`, log(min(1 - p(v) + m, 1)): a wrong token
    with a probability below m costs nothing.

    Args:
        score_logits: As in `oll`.
        distances: As in `oll`; the absolute difference as published.
        power: As in `oll`.
        margin: m, in [0, 1).

    Returns:
        As `oll`; with a margin always finite.

    Raises:
        ValueError: If `power` is not above 0 or `margin` is outside [0, 1).

    Example:
        >>> z = torch.log(torch.tensor([[0.1, 0.2, 0.7]]))
        >>> [round(x, 4) for x in cdw_ce(z, torch.tensor([[2.0, 1.0, 0.0]]), margin=0.1).tolist()]
        [0.1054]
    """
    if not 0 <= margin < 1:
        raise ValueError(f"margin must be in [0, 1), found {margin}")
    if margin == 0:
        return oll(score_logits, distances, power)
    log_p = _log_p(score_logits, distances.isposinf())
    return _weighted_log_complement((1 - log_p.exp() + margin).clamp(max=1).log(), distances, power, log_p)


def oprm(chosen_logits: torch.Tensor, rejected_logits: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """The pairwise loss -log P(chosen > rejected), for preferences without ratings.

    Formula (OPRM, arXiv 2602.12660): -log of the sum over i > j of p_chosen(i) p_rejected(j), each p over the scale
    and both independent. Ties count for the rejected side, as published.

    Args:
        chosen_logits: Logits of the scores at the chosen response, ascending by value, shape (N, K).
        rejected_logits: The same at the rejected response.
        mask: True where a score is legal, shape (N, K); all by default.

    Returns:
        Shape (N,), in nats, above 0; near 0 where all mass of the chosen side is above that of the other. +inf where
        P is 0.

    Raises:
        ValueError: If K is 1: one score can't be above itself.

    Example:
        >>> chosen, rejected = torch.log(torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])).split(1)
        >>> [round(x, 4) for x in oprm(chosen, rejected).tolist()]
        [0.4155]
    """
    if chosen_logits.shape[-1] < 2:
        raise ValueError("a preference needs at least two scores, found one")
    padding = _padding(chosen_logits, mask)
    chosen, rejected = (_log_p(logits, padding) for logits in (chosen_logits, rejected_logits))
    least = torch.finfo(chosen.dtype).min / 4  # in place of -inf, of which cumulative sums give NaN gradients
    below = torch.logcumsumexp(rejected.clamp(min=least), dim=-1)
    log_wins = torch.logsumexp(chosen.clamp(min=least)[:, 1:] + below[:, :-1], dim=-1)
    return -log_wins.masked_fill(log_wins < least / 2, -torch.inf)


def scale_nll(score_logits: torch.Tensor, lse: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """The cross entropy of any legal score, -log(sum over v of p(v)) with p over the whole vocabulary.

    What is left of -log p(y) = -log(mass on the scale) - log p(y | scale) where y is not known: that a score stands
    there, and not which.

    Args:
        score_logits: Logits of the tokens that could stand there, shape (N, K).
        lse: Log-sum-exp of the logits over the whole vocabulary, shape (N,).
        mask: True where a token could stand, shape (N, K); all by default.

    Returns:
        Shape (N,), in nats, at least 0; +inf where no legal token has any probability.

    Example:
        >>> z = torch.log(torch.tensor([[0.1, 0.1, 0.3]]))  # half the mass is elsewhere
        >>> [round(x, 4) for x in scale_nll(z, torch.zeros(1)).tolist()]
        [0.6931]
    """
    return -torch.logsumexp(_log_p(score_logits, _padding(score_logits, mask), lse), dim=-1)


def contrastive(sequence_logprobs: torch.Tensor, distances: torch.Tensor, tau: float = 1.0) -> torch.Tensor:
    """A contrastive term over whole numbers of several tokens. OUR RECONSTRUCTION: the source gives no formula.

    Formula: KL(p_d || softmax over m of log p(number m)), over the label and some of its near neighbours, each
    written out in full behind the same prompt. arXiv 2503.02379 speaks of "contrastive target augmentation" and
    reports an ablation without details; this is the reading that its distance target suggests.

    Args:
        sequence_logprobs: log p of each candidate, the sum over its tokens, shape (N, M).
        distances: Distance of each from the label, shape (N, M); 0 for the label, +inf pads.
        tau: Temperature, above 0.

    Returns:
        As `dist2`.

    Example:
        >>> logprobs = torch.tensor([[-1.0, -2.0, -2.0]])  # 39, 38 and 40
        >>> [round(x, 4) for x in contrastive(logprobs, torch.tensor([[0.0, 1.0, 1.0]])).tolist()]
        [0.0]
    """
    return dist2(sequence_logprobs, distances, tau)


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _padding(logits: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return torch.zeros_like(logits, dtype=torch.bool) if mask is None else ~mask


def _log_p(logits: torch.Tensor, padding: torch.Tensor, lse: torch.Tensor | None = None) -> torch.Tensor:
    """Log-probabilities over the scale, or with `lse` over the vocabulary; -inf at padding."""
    logits = _at_least_float32(logits).masked_fill(padding, -torch.inf)
    normaliser = torch.logsumexp(logits, dim=-1, keepdim=True) if lse is None else lse.to(logits.dtype).unsqueeze(-1)
    return logits - normaliser.masked_fill(normaliser.isneginf(), 0)  # -inf everywhere, and not NaN


def _soft_cross_entropy(log_p: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    # 0 * -inf is NaN, so tokens without target mass leave before the product and not after it.
    return -(target * log_p.where(target > 0, 0.0)).sum(-1)


def _mean(log_p: torch.Tensor, values: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
    return (log_p.exp() * values.to(log_p.dtype).expand_as(log_p).masked_fill(padding, 0)).sum(-1)


def _infinite_without_mass(loss: torch.Tensor, log_p: torch.Tensor) -> torch.Tensor:
    return loss.masked_fill(log_p.isneginf().all(-1), torch.inf)


def _log_complement(log_p: torch.Tensor) -> torch.Tensor:
    """log(1 - p) of each token, also where p rounds to 1: then it is the sum over all other tokens."""
    top = log_p.argmax(-1, keepdim=True)
    least = torch.finfo(log_p.dtype).min / 4  # in place of -inf, of which logsumexp gives NaN gradients
    rest = torch.logsumexp(log_p.clamp(min=least).scatter(-1, top, least), dim=-1, keepdim=True)
    small = torch.log1p(-log_p.exp().scatter(-1, top, 0))  # at most 1/2 each
    return small.scatter(-1, top, rest.masked_fill(rest < least / 2, -torch.inf))


def _weighted_log_complement(
    log_complement: torch.Tensor, distances: torch.Tensor, power: float, log_p: torch.Tensor
) -> torch.Tensor:
    if not power > 0:
        raise ValueError(f"power must be above 0, found {power}")
    weights = distances.to(log_p.dtype).masked_fill(distances.isposinf(), 0).pow(power)
    # The label itself has distance 0, and log(1 - p) of -inf where it has all mass.
    return _infinite_without_mass(-(weights * log_complement.where(weights != 0, 0.0)).sum(-1), log_p)
