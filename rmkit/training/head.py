"""The loss at the language-model head, on completion positions only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from rmkit.losses import SCORE_LOSSES, LossSettings, ScoreInputs, cross_entropy


@dataclass(frozen=True, slots=True)
class LossTerms:
    """Sums over one batch, connected to the graph also where nothing is summed.

    Args:
        token_sum: Sum of the cross entropy over completion tokens, a scalar in nats.
        score_sum: Sum of the weighted score loss over score positions, a scalar.
        score_nll_sum: Sum of -log p(score token), for the log, detached.
    """

    token_sum: torch.Tensor
    score_sum: torch.Tensor
    score_nll_sum: torch.Tensor


def completion_logits(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Logits that predict the completion tokens, shape (B, C, V); the head sees no other position.

    Raises:
        TypeError: If the model returns logits for other positions than it was asked for.
    """
    width = batch["labels"].shape[1]
    outputs = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        position_ids=batch["position_ids"],
        logits_to_keep=width + 1,
        use_cache=False,
    )
    if outputs.logits is None or outputs.logits.shape[1] != width + 1:
        found = None if outputs.logits is None else tuple(outputs.logits.shape)
        raise TypeError(
            f"{type(model).__name__} gave logits {found} where the last {width + 1} positions were asked for; "
            "rmkit trains causal language models that take logits_to_keep"
        )
    return outputs.logits[:, :-1]


def loss_terms(logits: torch.Tensor, batch: Mapping[str, torch.Tensor], settings: LossSettings) -> LossTerms:
    """Sum both terms of the loss over one batch.

    The score term needs no tensor of vocabulary size: log-sum-exp at a score position is z_y + NLL_y, and both
    come from the cross entropy that is computed anyway.

    Args:
        logits: From `completion_logits`, shape (B, C, V).
        batch: From `JudgeCollator`.
        settings: Chooses the score loss.
    """
    nll, scores = _unreduced(logits, batch, settings)
    return LossTerms(nll.sum(), scores.sum(), nll[batch["score_rows"]].detach().sum())


def row_sums(logits: torch.Tensor, batch: Mapping[str, torch.Tensor], settings: LossSettings) -> torch.Tensor:
    """Both terms of the loss, summed over each example: shape (B, 2); arguments as in `loss_terms`."""
    nll, scores = _unreduced(logits, batch, settings)
    return torch.stack([nll.reshape(batch["labels"].shape).sum(1), _by_example(scores, batch)], dim=1)


def row_counts(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Completion tokens and summed place weights of each example: float32, shape (B, 2)."""
    tokens = batch["labels"].ne(-100).sum(1).float()
    return torch.stack([tokens, _by_example(batch["score_weights"], batch)], dim=1)


def _unreduced(
    logits: torch.Tensor, batch: Mapping[str, torch.Tensor], settings: LossSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy at every position, shape (B * C,), and weighted losses at score positions, shape (N,)."""
    rows = logits.flatten(0, 1)  # (B * C, V)
    nll = cross_entropy(rows, batch["labels"].flatten())  # (B * C,)
    at = batch["score_rows"]  # (N,)
    if settings.loss == "ce":
        return nll, torch.zeros_like(nll[at])
    score_logits = rows[at.unsqueeze(-1), batch["score_ids"]].to(nll.dtype)  # (N, K)
    label_logits = rows[at, batch["score_labels"]].to(nll.dtype)  # (N,)
    inputs = ScoreInputs(
        score_logits,
        label_logits + nll[at],
        batch["score_distances"],
        batch["score_indices"],
        batch["score_values"],
    )
    return nll, SCORE_LOSSES[settings.loss].function(inputs, settings) * batch["score_weights"]


def _by_example(values: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Sum what belongs to score positions, shape (N,), over each example: shape (B,)."""
    examples, width = batch["labels"].shape
    return values.new_zeros(examples).index_add(0, batch["score_rows"] // width, values)
