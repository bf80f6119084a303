"""Batches of examples: left-padded ids, labels, and the score positions among the completion tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rmkit.distances import permutation, soft_minimum
from rmkit.errors import TokenizerError
from rmkit.losses import SCORE_LOSSES, LossSettings
from rmkit.score_tokens import Choice, ScorePosition
from rmkit.training.examples import Example

IGNORED = -100


class JudgeCollator:
    """Makes one batch from B examples.

    Rows are padded on the left, so that all completions end at the last column and the head is applied to the
    last C columns only. The batch holds, for T tokens, C = the longest completion, N score positions and at
    most K tokens at each:

    - `input_ids`, `attention_mask`, `position_ids`: int64, (B, T).
    - `labels`: int64, (B, C), -100 before a shorter completion.
    - `score_rows`: int64, (N,), index b * C + c of each score position.
    - `score_ids`: int64, (N, K), tokens that could stand there, padded with the first of them.
    - `score_labels`: int64, (N,), the token that does.
    - `score_indices`: int64, (N,), its index among the K.
    - `score_distances`: float32, (N, K), padded with +inf; see `ScoreInputs` for tokens that lead to several scores.
    - `score_values`: float32, (N, K), the score that a token stands for; NaN where it leads to several, and padding.
    - `score_weights`: float32, (N,), place weights, or ones.

    Args:
        pad_id: Any token id; the attention mask decides what counts.
        settings: Gives the loss, the distance, its temperature, and place weights.
    """

    def __init__(self, pad_id: int, settings: LossSettings) -> None:
        self.pad_id = pad_id
        self.settings = settings
        self._loss = SCORE_LOSSES.get(settings.loss, SCORE_LOSSES["ce_vocab"])  # `ce` asks for nothing either
        self._known: dict[tuple[int, Choice, tuple[int, ...]], tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Collate examples; see the class for names and shapes."""
        longest = max(len(e.prompt_ids) + len(e.completion_ids) for e in examples)
        width = max(len(e.completion_ids) for e in examples)
        input_ids = torch.full((len(examples), longest), self.pad_id)
        attention_mask = torch.zeros_like(input_ids)
        labels = torch.full((len(examples), width), IGNORED)
        rows: list[int] = []
        positions: list[ScorePosition] = []
        scales: list[tuple[int, ...]] = []
        for b, example in enumerate(examples):
            ids = torch.tensor([*example.prompt_ids, *example.completion_ids])
            input_ids[b, longest - len(ids) :] = ids
            attention_mask[b, longest - len(ids) :] = 1
            first = width - len(example.completion_ids)
            labels[b, first:] = ids[len(example.prompt_ids) :]
            # Where only one token can stand there is nothing to tell apart; cross entropy has it.
            told_apart = [p for p in example.positions if len(p.choice.token_ids) > 1]
            rows += [b * width + first + p.index for p in told_apart]
            positions += told_apart
            if self._loss.permuted:
                whole = _scales(example.positions)
                scales += [whole[p.key] for p in told_apart]
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": (attention_mask.cumsum(-1) - 1).clamp(min=0),
            "labels": labels,
            "score_rows": torch.tensor(rows, dtype=torch.long),
            **self._score_tensors(positions, scales or [()] * len(positions)),
        }

    def _score_tensors(
        self, positions: Sequence[ScorePosition], scales: Sequence[tuple[int, ...]]
    ) -> dict[str, torch.Tensor]:
        size = max((len(p.choice.token_ids) for p in positions), default=1)
        ids = torch.zeros((len(positions), size), dtype=torch.long)
        distances = torch.full((len(positions), size), torch.inf)
        values = torch.full((len(positions), size), torch.nan)
        for n, (position, scale) in enumerate(zip(positions, scales, strict=True)):
            tokens = position.choice.token_ids
            ids[n] = tokens[0]
            ids[n, : len(tokens)] = torch.tensor(tokens)
            distances[n, : len(tokens)], values[n, : len(tokens)] = self._look_up(position, scale)
        return {
            "score_ids": ids,
            "score_labels": torch.tensor([p.choice.token_ids[p.label] for p in positions], dtype=torch.long),
            "score_indices": torch.tensor([p.label for p in positions], dtype=torch.long),
            "score_distances": distances,
            "score_values": values,
            "score_weights": torch.tensor([self.settings.place_weight(p.place) for p in positions]),
        }

    def _look_up(self, position: ScorePosition, scale: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Distances and values of the tokens that could stand there, computed once for each score."""
        key = (position.score, position.choice, scale)
        if key not in self._known:
            self._known[key] = self._measure(position, scale)
        return self._known[key]

    def _measure(self, position: ScorePosition, scale: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        groups = position.choice.scores
        whole = not position.choice.path and all(len(group) == 1 for group in groups)
        if self._loss.whole_scores and not whole:
            raise TokenizerError(
                f"loss {self.settings.loss!r} needs one token for each score, but those of {position.key!r} take "
                "several in this tokenizer; choose dist2, sord, ntl_was or oll, or a scale of single digits"
            )
        order = permutation(len(scale), self.settings.metric_seed)
        moved = {score: scale[at] for score, at in zip(scale, order, strict=True)}
        flat = torch.tensor([float(moved.get(score, score)) for group in groups for score in group])
        distances = self.settings.metric(flat, torch.tensor(float(moved.get(position.score, position.score))))
        if len(flat) > len(groups):
            parts = distances.split([len(group) for group in groups])
            soft, tau = self._loss.soft, self.settings.tau
            distances = torch.stack([soft_minimum(part, tau) if soft else part.min() for part in parts])
        return distances, torch.tensor([float(g[0]) if len(g) == 1 else torch.nan for g in groups])


def _scales(positions: Sequence[ScorePosition]) -> dict[str, tuple[int, ...]]:
    """The legal scores of each attribute: what its first token can lead to."""
    first = {p.key: p.choice.scores for p in positions if not p.choice.path}
    return {key: tuple(sorted(score for group in groups for score in group)) for key, groups in first.items()}
