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
    rows = logits.flatten(0, 1)  # (B * C, V)
    nll = cross_entropy(rows, batch["labels"].flatten())  # (B * C,)
    at = batch["score_rows"]  # (N,)
    score_nll = nll[at]
    zero = nll.new_zeros(())
    if settings.loss == "ce":
        return LossTerms(nll.sum(), zero, score_nll.detach().sum())
    score_logits = rows[at.unsqueeze(-1), batch["score_ids"]].to(nll.dtype)  # (N, K)
    label_logits = rows[at, batch["score_labels"]].to(nll.dtype)  # (N,)
    inputs = ScoreInputs(score_logits, label_logits + score_nll, batch["score_distances"])
    losses = SCORE_LOSSES[settings.loss](inputs, settings)
    return LossTerms(nll.sum(), (losses * batch["score_weights"]).sum(), score_nll.detach().sum())
