"""Which examples make a batch: responses to one conversation together, and as many as a budget of tokens allows."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence

from torch.utils.data import Dataset, Sampler

from rmkit.errors import DataError
from rmkit.training.examples import Example
from rmkit.training.layout import count_tokens


class ConversationOrder(Sampler[int]):
    """Examples in random order, the responses to one conversation next to each other; another order each epoch.

    Batches are consecutive parts of this order, so a step trains on the same rows however it is split into ranks and
    micro-batches.

    Args:
        groups: For each example, what is the same for all responses to its conversation.
        seed: Of the order.
    """

    def __init__(self, groups: Sequence[str], seed: int) -> None:
        self._members = list(_by_group(groups).values())
        self._length = len(groups)
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = random.Random(f"{self._seed}/{self._epoch}")
        for members in generator.sample(self._members, len(self._members)):
            yield from generator.sample(members, len(members))

    def __len__(self) -> int:
        return self._length


class TokenBatches(Dataset[tuple[Example, ...]]):
    """Batches of as many examples as fit into a budget of computed tokens, each batch one item.

    Responses to one conversation stay together where the budget takes them all. Padded batches hold examples of
    similar length. What is in a batch stays the same in all epochs; the order of batches does not.

    Args:
        examples: In any order.
        budget: Most tokens that the model computes for a batch, padding included.
        packing: See `rmkit.training.layout.lay_out`.
        seed: Decides what comes together.

    Attributes:
        tokens: How many tokens the model computes in an epoch, at most: batches may share more than they count on.

    Raises:
        DataError: If one example has more tokens than the budget.
    """

    def __init__(self, examples: Sequence[Example], budget: int, packing: str, seed: int) -> None:
        generator = random.Random(seed)
        members = _by_group(example.group for example in examples).values()
        groups = [tuple(examples[index] for index in indices) for indices in members]
        generator.shuffle(groups)
        if packing == "none":
            groups.sort(key=_longest)  # stable: equal lengths stay shuffled
        self._batches: list[tuple[Example, ...]] = []
        self.tokens = 0
        batch: list[Example] = []
        size = 0
        for group in _fit(groups, budget, packing):
            grown = _grown(size, batch, group, packing)
            if batch and grown > budget:
                self._close(batch, size)
                batch, grown = [], _grown(0, [], group, packing)
            batch += group
            size = grown
        if batch:
            self._close(batch, size)

    def _close(self, batch: list[Example], size: int) -> None:
        self._batches.append(tuple(batch))
        self.tokens += size

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> tuple[Example, ...]:
        return self._batches[index]


def _fit(groups: Iterable[tuple[Example, ...]], budget: int, packing: str) -> Iterator[tuple[Example, ...]]:
    """Groups that fit into the budget; those that don't are parted as often as needed."""
    for group in groups:
        if count_tokens([example.token_ids for example in group], packing) <= budget:
            yield group
        elif len(group) > 1:
            half = len(group) // 2
            yield from _fit((group[:half], group[half:]), budget, packing)
        else:
            raise DataError(
                f"row {group[0].id} has {len(group[0].token_ids)} tokens, more than batch_tokens={budget}; raise it "
                "to max_length at least"
            )


def _grown(size: int, batch: Sequence[Example], group: Sequence[Example], packing: str) -> int:
    """Tokens of a batch of `size` tokens with a group more; never too few."""
    sequences = [example.token_ids for example in group]
    if packing == "none":
        return (len(batch) + len(group)) * _longest([*batch, *group])
    if packing == "separate" or not batch:
        return size + count_tokens(sequences, packing)
    # What it shares with the first one; it may share more with others.
    first = batch[0].token_ids
    return size + count_tokens([first, *sequences], packing) - len(first)


def _longest(examples: Sequence[Example]) -> int:
    return max(len(example.token_ids) for example in examples)


def _by_group(groups: Iterable[str]) -> dict[str, list[int]]:
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return members
