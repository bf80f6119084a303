"""Sequences of tokens laid end to end, with what they begin with in common laid down once.

Prompts of one rubric begin alike, and responses to one conversation share all that stands before the response. A
causal model gives equal beginnings equal hidden states, so it needs to compute them only once: a sequence that begins
as others did adds only what follows, and its tokens attend to that beginning and to themselves.
`rmkit.tree_attention` does so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    """What one sequence added to a tree.

    Args:
        places: Where the tokens of the sequence lie, its beginning first; the last `length` of them are its own.
        length: Number of tokens that it added, at least 1.
    """

    places: tuple[int, ...]
    length: int


class PrefixTree:
    """Tokens of sequences, each beginning once.

    >>> tree = PrefixTree()
    >>> tree.add((7, 8, 9, 1)), tree.add((7, 8, 9, 2, 3))
    ((0, 1, 2, 3), (0, 1, 2, 4, 5))
    >>> tree.token_ids, tree.positions
    ([7, 8, 9, 1, 2, 3], [0, 1, 2, 3, 3, 4])

    Args:
        share: Whether to share at all; without, each sequence stands by itself.

    Attributes:
        token_ids: All tokens that are laid down, T of them.
        positions: The position of each in its sequences, from 0; T of them.
        segments: In the order of their tokens.
    """

    def __init__(self, share: bool = True) -> None:
        self.share = share
        self.token_ids: list[int] = []
        self.positions: list[int] = []
        self.segments: list[Segment] = []
        self._children: dict[tuple[int, int], int] = {}

    def find(self, tokens: Sequence[int]) -> list[int]:
        """Where the longest beginning of a sequence lies that is there already."""
        places: list[int] = []
        place = -1
        for token in tokens if self.share else ():
            found = self._children.get((place, token))
            if found is None:
                break
            places.append(found)
            place = found
        return places

    def add(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """Lay down what is new of a sequence, and return where all its tokens lie."""
        places = self.find(tokens)
        known = len(places)
        for position, token in enumerate(tokens[known:], known):
            place = len(self.token_ids)
            if self.share:
                self._children[places[-1] if places else -1, token] = place
            self.token_ids.append(token)
            self.positions.append(position)
            places.append(place)
        if known < len(tokens):
            self.segments.append(Segment(tuple(places), len(tokens) - known))
        return tuple(places)

    def repeat(self, places: Sequence[int]) -> tuple[int, ...]:
        """Lay down the last token of a sequence once more, to have it computed anew, and return its places."""
        place = len(self.token_ids)
        self.token_ids.append(self.token_ids[places[-1]])
        self.positions.append(self.positions[places[-1]])
        self.segments.append(Segment((*places[:-1], place), 1))
        return self.segments[-1].places


def count_shared(sequences: Iterable[Sequence[int]]) -> int:
    """How many tokens a tree of these sequences has."""
    tree = PrefixTree()
    for tokens in sequences:
        tree.add(tokens)
    return len(tree.token_ids)
