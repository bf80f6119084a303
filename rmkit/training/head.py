"""The loss at the language-model head, on completion positions only."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from rmkit.losses import LossSettings, cross_entropy
from rmkit.training.fused_head import LogitMap, fused_loss, measure_logit_map, score_losses, tap_head

_LOG = logging.getLogger(__name__)
_READ = ("input_ids", "attention_mask", "position_ids")


@dataclass(frozen=True, slots=True)
class LossTerms:
    """The loss of one batch, connected to the graph also where nothing is summed, and its unreduced terms, detached.

    Args:
        loss: token_weight * sum of the cross entropy + score_weight * sum of the weighted score losses, a scalar.
        nll: Cross entropy at each position in nats, shape (B * C,); 0 without a label.
        scores: Score losses times place weights at score positions, shape (N,).
    """

    loss: torch.Tensor
    nll: torch.Tensor
    scores: torch.Tensor


class CompletionHead:
    """The head of a causal language model, as the loss uses it.

    A plain head (`nn.Linear`, whatever scale or soft cap the model puts on its logits) is fused with the loss and
    holds logits for a tile of completion positions only. Any other one (with an adapter on it, or of a model that
    does something else to its logits) computes logits for the completion positions, through `logits_to_keep`.

    Args:
        model: A transformers model, or one of peft's, not yet wrapped for DDP or DeepSpeed.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        head = model.get_output_embeddings()
        self._head = head if type(head) is nn.Linear else None
        self._map: LogitMap | None = None
        if self._head is None:
            self._fall_back(f"its head is {type(head).__name__}")

    @property
    def is_fused(self) -> bool:
        """Whether the loss is computed tile by tile; known for certain after the first batch."""
        return self._head is not None

    def loss(
        self,
        model: nn.Module,
        batch: Mapping[str, torch.Tensor],
        settings: LossSettings,
        token_weight: torch.Tensor | float = 1.0,
        score_weight: torch.Tensor | float = 1.0,
    ) -> LossTerms:
        """The loss of one batch.

        Args:
            model: The model, wrapped or not.
            batch: From `JudgeCollator`.
            settings: Chooses the score loss.
            token_weight: What each token's cross entropy counts for, 1 / tokens for a mean.
            score_weight: What each position's score loss counts for, alpha included.
        """
        if self._head is not None and getattr(model, "static_graph", False):
            self._fall_back("DDP with static_graph follows the backward pass from the model's outputs only")
        if self._head is not None:
            with tap_head(self._head) as tap:
                found = model(**_inputs(batch)).logits
            if self._map is None:
                self._map = measure_logit_map(tap.ruler, found)
            if tap.hidden is not None and tap.hidden.dtype == torch.float16:
                self._fall_back("its hidden states are float16, where gradients made before loss scaling vanish")
            elif self._map is None or tap.hidden is None or tap.hidden.shape[:2] != batch["input_ids"].shape:
                self._fall_back("it does more to its logits than to scale or cap them")
            else:
                return LossTerms(
                    *fused_loss(tap.hidden, self._head, self._map, batch, settings, token_weight, score_weight)
                )
        nll, scores = unreduced_losses(completion_logits(model, batch), batch, settings)
        return LossTerms(nll.sum() * token_weight + scores.sum() * score_weight, nll.detach(), scores.detach())

    def _fall_back(self, reason: str) -> None:
        self._head = None
        _LOG.warning("the loss is not fused with this model's head, since %s: logits take more memory", reason)


def judge_loss(
    model: PreTrainedModel,
    batch: Mapping[str, torch.Tensor],
    settings: LossSettings,
    head: CompletionHead | None = None,
) -> torch.Tensor:
    """The training loss of one batch alone, as in docs/losses.md: a scalar to backpropagate, for a loop of your own.

    Args:
        model: A causal language model of transformers or peft.
        batch: From `JudgeCollator`, on the model's device.
        settings: The loss.
        head: The model's head, kept from an earlier call; None finds it anew.
    """
    counts = row_counts(batch).sum(0)
    tokens, weights = counts.where(counts > 0, 1)
    divisor = tokens if settings.reduction == "tokens" else weights
    return (head or CompletionHead(model)).loss(model, batch, settings, 1 / tokens, settings.alpha / divisor).loss


def completion_logits(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Logits that predict the completion tokens, shape (B, C, V); the head sees no other position.

    Raises:
        TypeError: If the model returns logits for other positions than it was asked for.
    """
    rows, width = batch["labels"].shape
    packed = "tree_keys" in batch
    # Packed rows lie anywhere in one row of tokens; padded ones end in the same columns.
    kept = batch["label_states"].flatten() if packed else width + 1
    count = rows * width if packed else width + 1
    outputs = model(**_inputs(batch), logits_to_keep=kept)
    if outputs.logits is None or outputs.logits.shape[1] != count:
        found = None if outputs.logits is None else tuple(outputs.logits.shape)
        raise TypeError(
            f"{type(model).__name__} gave logits {found} where {count} positions were asked for; rmkit trains causal "
            "language models that take logits_to_keep"
        )
    return outputs.logits.unflatten(1, (rows, width))[0] if packed else outputs.logits[:, :-1]


def unreduced_losses(
    logits: torch.Tensor, batch: Mapping[str, torch.Tensor], settings: LossSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy at every position, shape (B * C,), and weighted score losses at score positions, shape (N,).

    Args:
        logits: From `completion_logits`, shape (B, C, V).
        batch: From `JudgeCollator`.
        settings: Chooses the score loss.
    """
    rows = logits.flatten(0, 1)  # (B * C, V)
    nll = cross_entropy(rows, batch["labels"].flatten())  # (B * C,)
    counted = batch["label_weights"].flatten().to(nll.dtype)
    at = batch["score_rows"]  # (N,)
    if not settings.has_score_term:
        return nll * counted, torch.zeros_like(nll[at])
    score_logits = rows[at.unsqueeze(-1), batch["score_ids"]].to(nll.dtype)  # (N, K)
    label_logits = rows[at, batch["score_labels"]].to(nll.dtype)  # (N,)
    # Log-sum-exp over the vocabulary is z_y + NLL_y, and both are there.
    return nll * counted, score_losses(score_logits, label_logits + nll[at], nll, batch, settings)


def row_sums(terms: LossTerms, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Both terms of the loss, summed over each item of the batch: shape (items, 2)."""
    tokens = terms.nll.reshape(batch["labels"].shape).sum(1)
    return torch.stack([_by_item(tokens, batch["items"], batch), _by_position(terms.scores, batch)], dim=1)


def row_counts(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Completion tokens that count, and summed place weights, of each item: float32, shape (items, 2)."""
    tokens = batch["label_weights"].sum(1)
    return torch.stack([_by_item(tokens, batch["items"], batch), _by_position(batch["score_weights"], batch)], dim=1)


def _inputs(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor | bool]:
    read = {name: value for name, value in batch.items() if name in _READ or name.startswith("tree_")}
    return {**read, "use_cache": False}


def _by_position(values: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Sum what belongs to score positions, shape (N,), over each item."""
    return _by_item(values, batch["items"][batch["score_rows"] // batch["labels"].shape[1]], batch)


def _by_item(values: torch.Tensor, items: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return values.new_zeros(int(batch["items"].max()) + 1).index_add(0, items, values)
