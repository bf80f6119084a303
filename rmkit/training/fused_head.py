"""The language-model head and its loss in one go: no logits but a tile of rows at a time, gradients made in place.

A plain head makes logits of shape (tokens, V), and autograd keeps several tensors of that size: many gigabytes for
positions that nobody trains on. Here the model runs as it is, with its head tapped (`tap_head`): the head hands out
the hidden states and sends a ruler through whatever the model does to its logits (`measure_logit_map`). The loss then
takes the rows with a label: logits, log-sum-exp, both terms of the loss, and the gradients of hidden
states, weight and bias, all in one buffer. A score loss needs `lse` and the K logits of its position, so it adds no
tensor of vocabulary size.

Shapes: R rows with a label, H the hidden size, V the vocabulary, N score positions with K tokens each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from scipy.optimize import brentq
from torch import nn

from rmkit.losses import SCORE_LOSSES, LossSettings, ScoreInputs
from rmkit.score_losses import scale_nll

# Logits of all R rows, in float32, are kept from the loss to its gradient where they take at most a tenth of what the
# weight's gradient would take in float32. Else they are made twice, a two-hundredth of that at a time.
_KEPT_SHARE, _TILE_SHARE = 10, 200
_LEAST_COLUMNS = 512  # narrower tiles cost more time than they save memory
_RULER_END = 200.0  # logits lie well within; a cap of 30 or 50 shows long before
_RULER_LEAST = 1e-3  # here tanh(x) / x is 1 to seven digits


@dataclass(frozen=True, slots=True)
class LogitMap:
    """What a model does to its head's output: `cap * tanh(scale * x / cap)`, or `scale * x` without a cap."""

    scale: float = 1.0
    cap: float | None = None

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Map logits in place."""
        if self.cap is not None:
            return logits.mul_(self.scale / self.cap).tanh_().mul_(self.cap)
        return logits if self.scale == 1 else logits.mul_(self.scale)

    def slopes(self, mapped: torch.Tensor) -> torch.Tensor | float | None:
        """The map's derivative where its values are these, of their shape or a number; None for 1 everywhere."""
        if self.cap is not None:
            return (mapped / self.cap).square_().mul_(-self.scale).add_(self.scale)
        return None if self.scale == 1 else self.scale


@dataclass(slots=True)
class Tap:
    """What a tapped head saw: hidden states (B, T, H), and the ruler that the model got for logits, (1, 1, V)."""

    ruler: torch.Tensor
    hidden: torch.Tensor | None = None


@contextmanager
def tap_head(head: nn.Linear) -> Iterator[Tap]:
    """Let the head hand out its input instead of computing logits, while the context lasts.

    The model's own forward runs, with all hooks of DDP, DeepSpeed and peft around it.
    """
    rows, precise = head.out_features, torch.promote_types(head.weight.dtype, torch.float32)
    tap = Tap(make_ruler(rows, precise))

    def look(_: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        tap.hidden = given[0]

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        return _Connected.apply(tap.ruler.to(hidden.device), hidden, *head.parameters())

    # Before all other hooks: ZeRO-3's puts a marker around the input that waits for a backward pass through the head.
    hook = head.register_forward_pre_hook(look, prepend=True)
    own = vars(head).get("forward")  # accelerate's hooks put one there
    head.forward = forward  # type: ignore[method-assign, assignment]
    try:
        yield tap
    finally:
        hook.remove()
        del head.forward
        if own is not None:
            head.forward = own  # type: ignore[method-assign]


def make_ruler(size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Logits that show what a model does to them, (1, 1, V): evenly spaced, and a small one that shows the slope."""
    ruler = torch.linspace(-_RULER_END, _RULER_END, size, dtype=dtype)
    ruler[0] = _RULER_LEAST
    return ruler.reshape(1, 1, size)


class _Connected(torch.autograd.Function):
    """A tensor that seems to come from others: DDP looks in the graph of a model's outputs for parameters in use."""

    @staticmethod
    def forward(ctx: Any, ruler: torch.Tensor, *parts: torch.Tensor) -> torch.Tensor:
        ctx.parts = len(parts)
        return ruler.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[None, ...]:
        return (None,) * (1 + ctx.parts)


def measure_logit_map(ruler: torch.Tensor, found: torch.Tensor | None) -> LogitMap | None:
    """What a model did to a ruler of logits, or None where it is neither a scale nor a soft cap.

    Args:
        ruler: From `make_ruler`, what the model got in place of logits.
        found: What it returned as its logits.
    """
    if found is None or found.shape != ruler.shape:
        return None
    x, y = (tensor.detach().flatten().double().cpu() for tensor in (ruler, found))
    scale = float(y[0] / x[0])
    end, reached = float(x[-1]), float(y[-1])
    if torch.allclose(y, scale * x, rtol=1e-5, atol=1e-6):
        return LogitMap(1.0 if abs(scale - 1) < 1e-6 else scale)
    if not 0 < reached < scale * end:
        return None

    def miss(cap: float) -> float:
        return float(cap * torch.tanh(torch.tensor(scale * end / cap, dtype=torch.float64))) - reached

    try:
        cap = brentq(miss, reached * 1e-3, reached * 1e3, xtol=1e-9)
    except ValueError:
        return None
    expected = cap * torch.tanh(scale * x / cap)
    return LogitMap(scale, cap) if torch.allclose(y, expected, rtol=1e-4, atol=1e-4) else None


def gather_weights(head: nn.Linear) -> AbstractContextManager[Any]:
    """A context in which the head's weights are whole, also under ZeRO-3, where each rank holds a part."""
    split = [p for p in (head.weight, head.bias) if p is not None and hasattr(p, "ds_id")]
    if not split:
        return nullcontext()
    from deepspeed import zero  # noqa: PLC0415 - only where it split the weights

    return zero.GatheredParameters(split)


def fused_loss(
    hidden: torch.Tensor,
    head: nn.Linear,
    logit_map: LogitMap,
    batch: Mapping[str, torch.Tensor],
    settings: LossSettings,
    token_weight: torch.Tensor | float,
    score_weight: torch.Tensor | float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The weighted loss of a batch, and its unreduced terms.

    Args:
        hidden: Hidden states that the head is applied to, (B, T, H), float32, float64 or bfloat16 (float16 can't hold
            these gradients). Everything but the products with the weight is computed in float32 or better; those are
            rounded to bfloat16 once where the hidden states are bfloat16 and the device can't keep float32.
        head: The head. Its weight gets a gradient unless it is frozen.
        logit_map: What the model does to its head's output.
        batch: From `JudgeCollator`.
        settings: Chooses the score loss.
        token_weight: What each token's cross entropy counts for.
        score_weight: What each position's score loss counts for, alpha included.

    Returns:
        The loss, a scalar that can be backpropagated once; the cross entropy at each position, (B * C,), 0 where it
        does not count; and the weighted score losses, (N,). The last two are detached.
    """
    labels = batch["labels"]
    rows = labels.flatten().ne(-100).nonzero().squeeze(-1)  # (R,), each b * C + c
    # One index into all hidden states: its gradient is the only other tensor of their size.
    states = hidden.flatten(0, 1)[batch["label_states"].flatten()[rows]]  # (R, H)
    place = torch.zeros(labels.numel(), dtype=torch.long, device=rows.device)
    place[rows] = torch.arange(len(rows), device=rows.device)
    scores = None
    if settings.has_score_term:
        scores = {name: value for name, value in batch.items() if name.startswith(("score_", "sequence_"))}
        scores["score_rows"] = place[batch["score_rows"]]
        if "sequence_rows" in scores:
            flat = scores["sequence_rows"]
            scores["sequence_rows"] = place[flat.clamp(min=0)].where(flat >= 0, -1)
    precise = torch.promote_types(hidden.dtype, torch.float32)
    counted = batch["label_weights"].flatten()[rows].to(precise)
    with gather_weights(head):
        loss, nll, weighted = _HeadLoss.apply(
            states,
            head.weight,
            head.bias,
            labels.flatten()[rows],
            counted,
            scores,
            logit_map,
            settings,
            torch.as_tensor(token_weight, dtype=precise, device=hidden.device),
            torch.as_tensor(score_weight, dtype=precise, device=hidden.device),
            torch.is_grad_enabled(),
        )
    if scores is None:
        weighted = nll.new_zeros(len(batch["score_rows"]))
    return loss, nll.new_zeros(labels.numel()).index_copy(0, rows, nll * counted), weighted


class _HeadLoss(torch.autograd.Function):
    """Makes its gradients in the forward pass, while a tile's logits are there; backward only hands them out."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        counted: torch.Tensor,
        scores: Mapping[str, torch.Tensor] | None,
        logit_map: LogitMap,
        settings: LossSettings,
        token_weight: torch.Tensor,
        score_weight: torch.Tensor,
        trains: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # Without gradients (validation) needs_input_grad still says what the weights' requires_grad says.
        needed = [trains and each for each in ctx.needs_input_grad[:3]]
        tiles = _Tiles(hidden, weight, bias, logit_map)
        found = _Rows(labels, scores, tiles.dtype)
        for start, logits in tiles:
            found.take(start, logits, tiles.is_whole)
        lse, nll = found.lse, found.lse - found.label_logits
        by_nll, by_scores, weighted = token_weight * counted, None, nll.new_zeros(0)
        spread = by_nll
        if scores is not None and not any(needed):
            weighted = score_losses(found.score_logits, lse[scores["score_rows"]], nll, scores, settings)
        elif scores is not None:
            weighted, by_scores, by_lse, more = _score_gradients(found.score_logits, lse, nll, scores, settings)
            by_nll = by_nll + more * score_weight
            spread = by_nll.index_add(0, scores["score_rows"], by_lse * score_weight)
            by_scores *= score_weight
        grads: list[torch.Tensor | None] = [None] * 3
        if any(needed):
            shapes = (hidden.shape, weight.shape, weight.shape[:1])
            dtypes = (tiles.dtype, weight.dtype, weight.dtype)
            grads = [
                torch.zeros(shape, dtype=dtype, device=hidden.device) if wanted else None
                for shape, dtype, wanted in zip(shapes, dtypes, needed, strict=True)
            ]
            for start, logits in tiles:
                slopes = logit_map.slopes(logits)
                # By nll and lse: (a + b) * softmax - a * one-hot(label); and what the score loss gives at K tokens.
                logits.sub_(lse.unsqueeze(1)).exp_().mul_(spread.unsqueeze(1))
                found.add(start, logits, -by_nll.unsqueeze(1), by_scores)
                if slopes is not None:
                    logits *= slopes
                tiles.accumulate(grads, start, logits)
        ctx.grads, ctx.dtype = grads, hidden.dtype
        ctx.mark_non_differentiable(nll, weighted)
        return (nll * counted).sum() * token_weight + weighted.sum() * score_weight, nll, weighted

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
        if ctx.grads is None:
            raise RuntimeError("the loss at the head hands out its gradients once; compute the loss again")
        grads, ctx.grads = ctx.grads, None
        if not torch.equal(grad_loss, torch.ones_like(grad_loss)):
            for grad in grads:
                if grad is not None:
                    grad *= grad_loss
        if grads[0] is not None:
            grads[0] = grads[0].to(ctx.dtype)
        return (*grads, *[None] * 8)


def tile_columns(rows: int, size: int, width: int) -> int:
    """How many of `size` tokens a tile of logits has, for R = `rows` and H = `width`: all where that is little."""
    if rows * _KEPT_SHARE <= width:
        return size
    return min(max(size * width // (_TILE_SHARE * rows), _LEAST_COLUMNS), size)


class _Tiles:
    """Logits of all rows, a range of the vocabulary at a time; as one tile, and made once, where that is small."""

    def __init__(
        self, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, logit_map: LogitMap
    ) -> None:
        self.hidden, self.weight, self.bias, self.logit_map = hidden, weight, bias, logit_map
        self.dtype = torch.promote_types(hidden.dtype, torch.float32)
        self.columns = tile_columns(max(len(hidden), 1), *weight.shape)
        self._kept: torch.Tensor | None = None

    def __iter__(self) -> Iterator[tuple[int, torch.Tensor]]:
        """The first token of each tile, and its logits (R, columns), which may be changed in the second round."""
        for start in range(0, len(self.weight), self.columns):
            logits, self._kept = self._kept, None
            if logits is None:
                logits = self._make(start)
                if self.is_whole:
                    self._kept = logits
            yield start, logits

    @property
    def is_whole(self) -> bool:
        """Whether one tile holds all logits, made once for both rounds."""
        return self.columns == len(self.weight)

    def _make(self, start: int) -> torch.Tensor:
        part = slice(start, start + self.columns)
        logits = _multiply(self.hidden, self.weight[part].to(self.hidden.dtype).t())
        if self.bias is not None:
            logits += self.bias[part]
        return self.logit_map.apply(logits)

    def accumulate(self, grads: list[torch.Tensor | None], start: int, by_logits: torch.Tensor) -> None:
        """Add what the gradient by a tile's logits gives for hidden states, and write it for weight and bias."""
        by_hidden, by_weight, by_bias = grads
        part = slice(start, start + self.columns)
        narrow = by_logits.to(self.hidden.dtype)
        if by_hidden is not None:
            by_hidden += _multiply(narrow, self.weight[part].to(self.hidden.dtype))
        if by_weight is not None and by_weight.dtype == self.hidden.dtype:
            torch.mm(narrow.t(), self.hidden, out=by_weight[part])
        elif by_weight is not None:
            by_weight[part] = _multiply(narrow.t(), self.hidden)
        if by_bias is not None:
            by_bias[part] = by_logits.sum(0)


class _Rows:
    """What the loss needs of the logits of R rows, gathered tile by tile: log-sum-exp, the labels', the scores'."""

    def __init__(self, labels: torch.Tensor, scores: Mapping[str, torch.Tensor] | None, dtype: torch.dtype) -> None:
        self.labels = labels.unsqueeze(1)
        self.rows = None if scores is None else scores["score_rows"].unsqueeze(1)
        self.ids = None if scores is None else scores["score_ids"]
        self.top = torch.full(labels.shape, -torch.inf, dtype=dtype, device=labels.device)
        self.mass = torch.zeros_like(self.top)
        self.label_logits = torch.zeros_like(self.top)
        self.score_logits = torch.zeros(
            (0, 0) if self.ids is None else self.ids.shape, dtype=dtype, device=labels.device
        )

    @property
    def lse(self) -> torch.Tensor:
        return self.top + self.mass.log()

    def take(self, start: int, logits: torch.Tensor, keep: bool) -> None:
        """Gather what a tile holds; its logits are used up unless they are to be kept."""
        at, inside = _locate(self.labels, start, logits)
        self.label_logits = self.label_logits.where(~inside.squeeze(1), logits.gather(1, at).squeeze(1))
        if self.rows is not None and self.ids is not None:
            at, inside = _locate(self.ids, start, logits)
            found = logits.view(-1)[at.add_(self.rows * logits.shape[1])]
            torch.where(inside, found, self.score_logits, out=self.score_logits)
        top = torch.maximum(self.top, logits.amax(1))
        base = top.masked_fill(top.isneginf(), 0).unsqueeze(1)  # a tile, or all so far, of -inf: no mass, and not NaN
        above = logits - base if keep else logits.sub_(base)
        self.mass = self.mass * (self.top - base.squeeze(1)).exp() + above.exp_().sum(1)
        self.top = top

    def add(self, start: int, by_logits: torch.Tensor, label: torch.Tensor, scores: torch.Tensor | None) -> None:
        """Add to a tile's gradient a number at each row's label, and the scores' gradient (N, K) at their tokens."""
        at, inside = _locate(self.labels, start, by_logits)
        by_logits.scatter_add_(1, at, label * inside)
        if scores is not None and self.rows is not None and self.ids is not None:
            at, inside = _locate(self.ids, start, by_logits)
            at.add_(self.rows * by_logits.shape[1])
            by_logits.view(-1).index_add_(0, at.flatten(), scores.where(inside, 0).flatten())


def _locate(ids: torch.Tensor, start: int, tile: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns of token ids in a tile, and which of them stand there at all; the columns of the others mean nothing."""
    at = ids - start
    inside = (at >= 0).logical_and_(at < tile.shape[1])
    return at.clamp_(0, tile.shape[1] - 1), inside


def _multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The product in float32 or better, without rounding it to the factors' dtype where the device can."""
    precise = torch.promote_types(a.dtype, torch.float32)
    if a.dtype != precise and a.device.type == "cuda":
        return torch.mm(a, b, out_dtype=precise)
    return torch.mm(a, b).to(precise)


def _score_gradients(
    score_logits: torch.Tensor,
    lse: torch.Tensor,
    nll: torch.Tensor,
    scores: Mapping[str, torch.Tensor],
    settings: LossSettings,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weighted score losses (N,), and the gradients of their sum by logits (N, K), by lse (N,), and by nll (R,)."""
    with torch.enable_grad():
        leaves = (score_logits, lse[scores["score_rows"]], nll.clone())
        for leaf in leaves:
            leaf.requires_grad_()
        losses = score_losses(leaves[0], leaves[1], leaves[2], scores, settings)
        grads = torch.autograd.grad(losses.sum(), leaves, allow_unused=True, materialize_grads=True)
    return losses.detach(), grads[0], grads[1], grads[2]


def score_losses(
    score_logits: torch.Tensor,
    lse: torch.Tensor,
    nll: torch.Tensor,
    batch: Mapping[str, torch.Tensor],
    settings: LossSettings,
) -> torch.Tensor:
    """The weighted score loss at each position, (N,), from its K logits and log-sum-exp over the vocabulary.

    That of a preference loss comes times `preference_alpha / alpha`.

    Args:
        score_logits: Logits at `score_ids`, (N, K).
        lse: (N,); z_y + NLL_y gives it where a cross entropy is at hand.
        nll: Cross entropy of the rows that `sequence_rows` points to, (R,).
        batch: From `JudgeCollator`.
        settings: Chooses the loss.
    """
    sequences = None
    if "sequence_rows" in batch:
        sequences = -torch.cat([nll, nll.new_zeros(1)])[batch["sequence_rows"]].sum(-1)  # -1, which pads, is the last
    inputs = ScoreInputs(
        score_logits,
        lse,
        batch["score_distances"],
        batch["score_indices"],
        batch["score_values"],
        batch.get("score_rivals"),
        sequences,
        batch.get("sequence_distances"),
    )
    losses = lse.new_zeros(lse.shape)
    if settings.loss != "ce":
        losses = SCORE_LOSSES[settings.loss].function(inputs, settings)
    if settings.preference_loss is not None:  # in units of alpha, which the whole term is multiplied with
        ordered = SCORE_LOSSES[settings.preference_loss].function(inputs, settings)
        ordered = ordered + scale_nll(score_logits, lse, inputs.mask)
        losses = losses.where(~batch["score_ordered"], ordered * (settings.preference_alpha / settings.alpha))
    return losses * batch["score_weights"]
