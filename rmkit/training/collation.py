"""Batches of examples: token ids, labels, and the score positions among the completion tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rmkit.distances import permutation, soft_minimum
from rmkit.errors import TokenizerError
from rmkit.losses import SCORE_LOSSES, LossSettings
from rmkit.score_tokens import Choice, ScorePosition
from rmkit.training.examples import Example, find_rivals
from rmkit.training.layout import PACKINGS, Row, lay_out

IGNORED = -100


@dataclass(frozen=True, slots=True)
class _Place:
    """A score position of an example, and its place among all labels of the batch."""

    example: int
    at: int
    position: ScorePosition


class JudgeCollator:
    """Makes one batch from B examples.

    Rows are laid out as `packing` says, and the head is applied to hidden states that predict completion tokens only.
    The batch holds, for C = the longest completion, N score positions and at most K tokens at each:

    - What the model reads, and `label_states`, int64, (B, C), the hidden states that predict: see `lay_out`.
    - `labels`: int64, (B, C), -100 before a shorter completion.
    - `score_rows`: int64, (N,), index b * C + c of each score position.
    - `score_ids`: int64, (N, K), tokens that could stand there, padded with the first of them.
    - `score_labels`: int64, (N,), the token that does.
    - `score_indices`: int64, (N,), its index among the K.
    - `score_distances`: float32, (N, K), padded with +inf; see `ScoreInputs` for tokens that lead to several scores.
    - `score_values`: float32, (N, K), the score that a token stands for; NaN where it leads to several, and padding.
    - `score_weights`: float32, (N,), place weights, or ones, times the attribute's; 0 where a pairwise loss or one
      over whole numbers has nothing to compare.
    - `label_weights`: float32, (B, C), what the cross entropy counts for: 1, at scores the attribute's weight, and 0
      where only the order of scores is known.
    - `items`: int64, (B,), which item of the batch a row belongs to.
    - `row_tokens`: int64, (B,), how many tokens each row has, prompt and completion.
    - `ids`: list of texts, ids of the examples; no model reads them, a message that a step went wrong does.

    A pairwise loss adds `score_rivals` (see `ScoreInputs`), and takes items of several examples, `GroupedExamples`. A
    `preference_loss` does so too, with -1 at ratings, and adds `score_ordered`: bool, (N,), whether a score was
    derived from a preference. A loss over whole numbers adds a row for each neighbour of a number, which ends with it,
    and with M numbers of at most L tokens:

    - `sequence_rows`: int64, (N, M, L), index b * C + c of each token; -1 pads.
    - `sequence_distances`: float32, (N, M), of each number from the right one; +inf pads.

    Args:
        pad_id: Any token id; the attention mask decides what counts.
        settings: Gives the loss, the distance, its temperature, and place weights.
        packing: One of `PACKINGS`; any but `none` needs a model with `rmkit.tree_attention`.

    Raises:
        ValueError: For a packing that does not exist.
    """

    def __init__(self, pad_id: int, settings: LossSettings, packing: str = "none") -> None:
        if packing not in PACKINGS:
            raise ValueError(f"packing={packing!r} is unknown; choose {', '.join(PACKINGS)}")
        self.pad_id = pad_id
        self.settings = settings
        self.packing = packing
        self._loss = SCORE_LOSSES.get(settings.loss, SCORE_LOSSES["ce_vocab"])  # `ce` asks for nothing either
        self._known: dict[tuple[int, Choice, tuple[int, ...], bool], tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, batch: Sequence[Example | tuple[Example, ...]]) -> dict[str, Any]:
        """Collate examples, or groups of them; see the class for names and shapes.

        Raises:
            ValueError: If a pairwise loss gets single examples, which have nothing to be compared with.
        """
        self._refuse_parted([item for item in batch if isinstance(item, Example)])
        grouped = [item if isinstance(item, tuple) else (item,) for item in batch]
        examples = [example for group in grouped for example in group]
        rows = [Row(e.prompt_ids, e.completion_ids, 0, n) for n, group in enumerate(grouped) for e in group]
        if self._loss.sequences:
            rows += [
                Row(e.prompt_ids, (*e.completion_ids[: contrast.index], *tokens), contrast.index, row.item)
                for e, row in zip(examples, rows, strict=True)
                for contrast in e.contrasts
                for _, tokens in contrast.numbers[1:]
            ]
        width = max(len(row.completion_ids) for row in rows)
        labels = torch.full((len(rows), width), IGNORED)
        for b, row in enumerate(rows):
            first = width - len(row.completion_ids) + row.unlabelled
            labels[b, first:] = torch.tensor(row.completion_ids[row.unlabelled :])
        everywhere = [
            _Place(b, (b + 1) * width - len(example.completion_ids) + position.index, position)
            for b, example in enumerate(examples)
            for position in example.positions
        ]
        # Where only one token can stand there is nothing to tell apart; cross entropy has it.
        places = [place for place in everywhere if len(place.position.choice.token_ids) > 1]
        ordered = [self._is_ordered(place, examples) for place in places]
        label_weights = labels.ne(IGNORED).float()
        label_weights[len(examples) :] = 0
        weights = [self._label_weight(place, examples) for place in everywhere]
        label_weights.view(-1)[torch.tensor([p.at for p in everywhere], dtype=torch.long)] = torch.tensor(weights)
        for b, example in enumerate(examples):
            label_weights[b, [width - len(example.completion_ids) + index for index in example.untrained]] = 0
        tensors: dict[str, Any] = {
            **lay_out(rows, self.packing, self.pad_id),
            "labels": labels,
            "label_weights": label_weights,
            "items": torch.tensor([row.item for row in rows]),
            "row_tokens": torch.tensor([len(row.token_ids) for row in rows]),
            "score_rows": torch.tensor([place.at for place in places], dtype=torch.long),
            **self._score_tensors([place.position for place in places], self._find_scales(examples, places), ordered),
        }
        is_ordered = torch.tensor(ordered, dtype=torch.bool)
        if self._loss.sequences:
            tensors |= self._sequence_tensors(places, examples, width)
            tensors["score_weights"] *= (tensors["sequence_distances"] == 0).any(-1) | is_ordered
        if self.settings.compares:
            found = find_rivals([(examples[place.example], place.position) for place in places])
            tensors["score_rivals"] = torch.tensor(found, dtype=torch.long)
            if self._loss.pairwise:
                tensors["score_weights"] *= tensors["score_rivals"] >= 0
            else:
                tensors["score_rivals"].masked_fill_(~is_ordered, -1)
                tensors["score_ordered"] = is_ordered
        return tensors | {"ids": [example.id for example in examples]}

    def _refuse_parted(self, alone: Sequence[Example]) -> None:
        if any(self._loss.pairwise or (self.settings.compares and example.derived) for example in alone):
            name, how = self.settings.loss, ""
            if self.settings.preference_loss is not None:
                name, how = self.settings.preference_loss, ", derived_only=True"
            raise ValueError(
                f"loss {name!r} compares the responses to one conversation, and single examples may part them; hand "
                f"GroupedExamples(examples{how}) to the data loader in place of examples"
            )

    def _is_ordered(self, place: _Place, examples: Sequence[Example]) -> bool:
        """Whether a score stands for its order alone: it was derived from a preference, and a loss compares it."""
        return self.settings.compares and place.position.key in examples[place.example].derived

    def _label_weight(self, place: _Place, examples: Sequence[Example]) -> float:
        """What the cross entropy of a score's token counts for."""
        return 0.0 if self._is_ordered(place, examples) else self.settings.attribute_weight(place.position.key)

    def _find_scales(self, examples: Sequence[Example], places: Sequence[_Place]) -> list[tuple[int, ...]]:
        """The legal scores of each place's attribute, where the loss deals them out anew; else empty."""
        if not self._loss.permuted:
            return [()] * len(places)
        scales = [_scales(example.positions) for example in examples]
        return [scales[place.example][place.position.key] for place in places]

    def _sequence_tensors(
        self, places: Sequence[_Place], examples: Sequence[Example], width: int
    ) -> dict[str, torch.Tensor]:
        """Rows and distances of numbers and their neighbours, at the first place where each number is told apart."""
        numbers = [contrast.numbers for example in examples for contrast in example.contrasts]
        most = max((len(found) for found in numbers), default=1)
        longest = max((len(tokens) for found in numbers for _, tokens in found), default=1)
        rows = torch.full((len(places), most, longest), -1)
        distances = torch.full((len(places), most), torch.inf)
        firsts: dict[tuple[int, str], int] = {}
        for n, place in enumerate(places):
            firsts.setdefault((place.example, place.position.key), n)
        extra = len(examples)
        for b, example in enumerate(examples):
            for contrast in example.contrasts:
                n = firsts[b, contrast.key]
                label = torch.tensor(float(contrast.numbers[0][0]))
                for m, (score, tokens) in enumerate(contrast.numbers):
                    # The right number stands in the example's own row, each of the others ends one of its own.
                    first = (b + 1) * width - len(example.completion_ids) + contrast.index
                    if m > 0:
                        extra += 1
                        first = extra * width - len(tokens)
                    rows[n, m, : len(tokens)] = torch.arange(first, first + len(tokens))
                    distances[n, m] = self.settings.metric(torch.tensor([float(score)]), label)[0]
        return {"sequence_rows": rows, "sequence_distances": distances}

    def _score_tensors(
        self, positions: Sequence[ScorePosition], scales: Sequence[tuple[int, ...]], ordered: Sequence[bool]
    ) -> dict[str, torch.Tensor]:
        size = max((len(p.choice.token_ids) for p in positions), default=1)
        ids = torch.zeros((len(positions), size), dtype=torch.long)
        distances = torch.full((len(positions), size), torch.inf)
        values = torch.full((len(positions), size), torch.nan)
        for n, (position, scale, is_ordered) in enumerate(zip(positions, scales, ordered, strict=True)):
            tokens = position.choice.token_ids
            ids[n] = tokens[0]
            ids[n, : len(tokens)] = torch.tensor(tokens)
            distances[n, : len(tokens)], values[n, : len(tokens)] = self._look_up(position, scale, is_ordered)
        return {
            "score_ids": ids,
            "score_labels": torch.tensor([p.choice.token_ids[p.label] for p in positions], dtype=torch.long),
            "score_indices": torch.tensor([p.label for p in positions], dtype=torch.long),
            "score_distances": distances,
            "score_values": values,
            "score_weights": torch.tensor(
                [self.settings.place_weight(p.place) * self.settings.attribute_weight(p.key) for p in positions]
            ),
        }

    def _look_up(
        self, position: ScorePosition, scale: tuple[int, ...], is_ordered: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Distances and values of the tokens that could stand there, computed once for each score."""
        key = (position.score, position.choice, scale, is_ordered)
        if key not in self._known:
            self._check_whole(position, is_ordered)
            self._known[key] = self._measure(position, scale)
        return self._known[key]

    def _check_whole(self, position: ScorePosition, is_ordered: bool) -> None:
        name, loss = self.settings.loss, self._loss
        if is_ordered and self.settings.preference_loss is not None:
            name, loss = self.settings.preference_loss, SCORE_LOSSES[self.settings.preference_loss]
        whole = not position.choice.path and all(len(group) == 1 for group in position.choice.scores)
        if loss.whole_scores and not whole:
            raise TokenizerError(
                f"loss {name!r} needs one token for each score, but those of {position.key!r} take "
                "several in this tokenizer; choose dist2, sord, ntl_was or oll, or a scale of single digits"
            )

    def _measure(self, position: ScorePosition, scale: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        groups = position.choice.scores
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
