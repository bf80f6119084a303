"""What an epoch reads: rows, tokens and batches, counted before a model is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rmkit.errors import DataError, RubricError
from rmkit.judge_encoder import JudgeEncoder
from rmkit.prefix_tree import PrefixTree
from rmkit.prompt_tokens import PromptTooLongError
from rmkit.rubric import Rubric
from rmkit.schema import RatedResponse
from rmkit.training.activations import BatchSize
from rmkit.training.batches import ConversationOrder, TokenBatches
from rmkit.training.examples import Example, ExampleDataset, part_rows
from rmkit.training.layout import count_tokens
from rmkit.training.run import batch_items, order_items
from rmkit.training.settings import TrainingSettings
from rmkit.training.token_estimate import CharacterEncoder


@dataclass(frozen=True, slots=True)
class CountedRows:
    """Training rows as token ids, real ones or estimated.

    Args:
        examples: Those that are trained on.
        too_long: How many were left out.
        encoder: What encoded them; None where they are estimated.
        dataset: As training has them; None where they are estimated.
    """

    examples: Sequence[Example]
    too_long: int
    encoder: JudgeEncoder | None = None
    dataset: ExampleDataset | None = None

    @property
    def truncated(self) -> int:
        """How many lost their oldest turns."""
        return sum(example.truncated for example in self.examples)

    @property
    def supervised(self) -> int:
        """Tokens that are trained on."""
        return sum(len(example.completion_ids) - len(example.untrained) for example in self.examples)


@dataclass(frozen=True, slots=True)
class EpochCounts:
    """What one epoch computes, on all GPUs.

    Args:
        batches: Micro-batches.
        computed: Tokens computed, padding included and shared beginnings once.
        pairs: Pairs of query and key that attention computes.
        largest: The micro-batch with most tokens.
        steps: Optimizer steps of an epoch.
    """

    batches: int
    computed: int
    pairs: float
    largest: BatchSize
    steps: int


def encode_rows(
    rows: Sequence[RatedResponse], rubric: Rubric, tokenizer: Any, settings: TrainingSettings
) -> CountedRows:
    """Training rows as the run would encode them.

    Args:
        rows: Of the data folder.
        rubric: Its rubric.
        tokenizer: The model's, or None for an estimate.
        settings: Of the run.

    Raises:
        DataError: If a row can't be trained on, or none is left.
        TokenizerError: If the tokenizer can't serve.
    """
    max_length, truncate, fill = settings.data.max_length, settings.data.truncate_turns, settings.data.fill_unrated
    if settings.data.mode == "independent":
        rows, fill = part_rows(rows, rubric), False
    if tokenizer is not None:
        encoder = JudgeEncoder(tokenizer, rubric)
        neighbours = settings.loss.settings().contrasted
        dataset = ExampleDataset(encoder, rows, max_length, truncate, "encode train", neighbours, fill)
        return CountedRows(dataset.examples, dataset.skipped["too_long"], encoder, dataset)
    estimate = CharacterEncoder(rubric)
    examples, too_long = [], 0
    for row in rows:
        try:
            examples.append(estimate.encode_example(row, max_length, truncate, fill))
        except PromptTooLongError:
            too_long += 1
        except (DataError, RubricError) as error:
            raise DataError(f"row {row.id}: {error}") from error
    if not examples:
        raise DataError(f"no training row is left: all {too_long} seem longer than max_length={max_length}")
    return CountedRows(examples, too_long)


def count_epoch(rows: CountedRows, settings: TrainingSettings, packing: str, ranks: int) -> EpochCounts:
    """Put the first epoch's micro-batches together as the run would, and count what they compute."""
    batches = computed = 0
    pairs, largest = 0.0, BatchSize(0, 0, 0)
    has_masks = not settings.model.attn_implementation.startswith("flash")
    for batch in _batches(rows, settings, packing):
        size, seen = _measure(batch, packing, has_masks)
        batches, computed, pairs = batches + 1, computed + size.tokens, pairs + seen
        largest = max(largest, size, key=lambda each: (each.tokens, each.keys))
    accumulation = settings.training.gradient_accumulation_steps
    return EpochCounts(batches, computed, pairs, largest, max(math.ceil(math.ceil(batches / ranks) / accumulation), 1))


def _batches(rows: CountedRows, settings: TrainingSettings, packing: str) -> Iterator[tuple[Example, ...]]:
    args = settings.training
    items: Any = rows.examples
    order: ConversationOrder | None = None
    if rows.dataset is not None:
        items = batch_items(rows.dataset, settings.loss.settings(), settings, packing)
        order = order_items(items, settings)
    elif settings.data.batch_tokens is not None:
        items = TokenBatches(rows.examples, settings.data.batch_tokens, packing, args.order_seed)
    else:  # estimated ones have no scores to be grouped by
        order = ConversationOrder([example.group for example in rows.examples], args.order_seed)
    size = 1 if order is None else args.per_device_train_batch_size
    indices = list(range(len(items)) if order is None else order)
    for start in range(0, len(indices), size):
        chosen = [items[index] for index in indices[start : start + size]]
        yield tuple(e for item in chosen for e in (item if isinstance(item, tuple) else (item,)))


def _measure(batch: Sequence[Example], packing: str, has_masks: bool) -> tuple[BatchSize, float]:
    """Sizes of a micro-batch, and the pairs of query and key that its attention computes in each layer."""
    sequences = [example.token_ids for example in batch]
    sequences += [  # a row for each neighbour of a number, as JudgeCollator makes them
        (*example.prompt_ids, *example.completion_ids[: contrast.index], *tokens)
        for example in batch
        for contrast in example.contrasts
        for _, tokens in contrast.numbers[1:]
    ]
    labels = sum(len(example.completion_ids) for example in batch)
    if packing == "none":
        tokens = count_tokens(sequences, packing)
        longest = tokens // len(sequences)
        is_masked = has_masks and any(len(ids) < longest for ids in sequences)
        return BatchSize(tokens, tokens, labels, tokens * longest if is_masked else 0), tokens * longest / 2
    tree = PrefixTree(share=packing == "shared")
    for ids in sequences:
        tree.add(ids)
    keys, pairs = 0, 0.0
    for segment in tree.segments:
        keys += len(segment.places)
        pairs += segment.length * (len(segment.places) - segment.length / 2)
    return BatchSize(len(tree.token_ids), keys, labels), pairs
