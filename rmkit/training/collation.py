"""Batches of examples: left-padded ids, labels, and the score positions among the completion tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rmkit.distances import DISTANCES, soft_minimum
from rmkit.losses import LossSettings
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
    - `score_distances`: float32, (N, K), padded with +inf.
    - `score_weights`: float32, (N,), place weights, or ones.

    Args:
        pad_id: Any token id; the attention mask decides what counts.
        settings: Gives the distance, its temperature, and whether place weights are used.
    """

    def __init__(self, pad_id: int, settings: LossSettings) -> None:
        self.pad_id = pad_id
        self.settings = settings
        self._distances: dict[tuple[str, int, Choice], torch.Tensor] = {}

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Collate examples; see the class for names and shapes."""
        longest = max(len(e.prompt_ids) + len(e.completion_ids) for e in examples)
        width = max(len(e.completion_ids) for e in examples)
        input_ids = torch.full((len(examples), longest), self.pad_id)
        attention_mask = torch.zeros_like(input_ids)
        labels = torch.full((len(examples), width), IGNORED)
        rows, positions = [], []
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
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": (attention_mask.cumsum(-1) - 1).clamp(min=0),
            "labels": labels,
            "score_rows": torch.tensor(rows, dtype=torch.long),
            **self._score_tensors(positions),
        }

    def _score_tensors(self, positions: list[ScorePosition]) -> dict[str, torch.Tensor]:
        size = max((len(p.choice.token_ids) for p in positions), default=1)
        ids = torch.zeros((len(positions), size), dtype=torch.long)
        distances = torch.full((len(positions), size), torch.inf)
        for n, position in enumerate(positions):
            tokens = position.choice.token_ids
            ids[n] = tokens[0]
            ids[n, : len(tokens)] = torch.tensor(tokens)
            distances[n, : len(tokens)] = self._distance(position)
        places = [p.place if self.settings.place_weights else 1 for p in positions]
        return {
            "score_ids": ids,
            "score_labels": torch.tensor([p.choice.token_ids[p.label] for p in positions], dtype=torch.long),
            "score_distances": distances,
            "score_weights": torch.tensor(places, dtype=torch.float32),
        }

    def _distance(self, position: ScorePosition) -> torch.Tensor:
        cache_key = (position.key, position.score, position.choice)
        if cache_key not in self._distances:
            distance = DISTANCES[self.settings.distance]
            label = torch.tensor(float(position.score))
            each = [
                soft_minimum(distance(torch.tensor(scores, dtype=torch.float32), label), self.settings.tau)
                for scores in position.choice.scores
            ]
            self._distances[cache_key] = torch.stack(each)
        return self._distances[cache_key]
