"""Sequences of tokens laid end to end, with what they begin with in common laid down once.

Prompts of one rubric begin alike, and responses to one conversation share all that stands before the response. A
causal model gives equal beginnings equal hidden states, so it needs to compute them only once: each later token
attends to the beginnings that lead to it, and to nothing else. `rmkit.tree_attention` does so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEAST_SHARED = 16
"""Tokens that a shared beginning must have: a shorter one costs more in attention calls than it saves."""

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens that stand in a row, in all sequences that share them.

    Args:
        start: Place of its first token among all that are laid down.
        depth: Position of its first token in the sequences that hold it.
        length: Number of its tokens, at least 1.
    """

    start: int
    depth: int
    length: int

    @property
    def places(self) -> range:
        """Where its tokens lie."""
        return range(self.start, self.start + self.length)


Path = tuple[Segment, ...]
"""Segments from a root on, each following the one before it."""


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """Sequences that `lay_down` laid end to end.

    Args:
        token_ids: All tokens that are laid down, T of them.
        branches: A path for each segment, with that segment last; in the order of their tokens.
        sequences: A path for each sequence, in the order they were given; its tokens make the sequence.
    """

    token_ids: Tokens
    branches: tuple[Path, ...]
    sequences: tuple[Path, ...]

    @property
    def positions(self) -> list[int]:
        """The position of each token in its sequences, from 0; T of them."""
        return [p for *_, last in self.branches for p in range(last.depth, last.depth + last.length)]


def lay_down(sequences: Sequence[Tokens], share: bool = True, least: int = LEAST_SHARED) -> PrefixTree:
    """Lay sequences end to end; equal beginnings of at least `least` tokens, and equal sequences, once.

    >>> tree = lay_down([(7, 8, 9, 1), (7, 8, 9, 2, 3)], least=2)
    >>> tree.token_ids, tree.positions
    ((7, 8, 9, 1, 2, 3), [0, 1, 2, 3, 3, 4])
    >>> find_places(tree.sequences[1])
    [0, 1, 2, 4, 5]

    Args:
        sequences: Token ids, each sequence with at least one.
        share: Whether to share at all; without, each sequence stands by itself.
        least: Fewest tokens worth sharing, at least 1.
    """
    builder = _Builder(sequences, least)
    for members in [range(len(sequences))] if share else [[index] for index in range(len(sequences))]:
        builder.branch(members, ())
    return PrefixTree(tuple(builder.token_ids), tuple(builder.branches), tuple(builder.found))


def find_places(path: Path) -> list[int]:
    """Where the tokens along a path lie."""
    return [place for segment in path for place in segment.places]


class _Builder:
    """A tree in the making: what most sequences share comes first, then what follows it, branch by branch."""

    def __init__(self, sequences: Sequence[Tokens], least: int) -> None:
        self.sequences, self.least = sequences, least
        self.token_ids: list[int] = []
        self.branches: list[Path] = []
        self.found: list[Path] = [()] * len(sequences)

    def branch(self, members: Sequence[int], path: Path) -> None:
        """Lay down what these sequences hold after a path that they share."""
        depth = path[-1].depth + path[-1].length if path else 0
        groups: dict[Tokens, list[int]] = {}
        for index in members:
            groups.setdefault(self.sequences[index][depth : depth + self.least], []).append(index)
        for head, group in groups.items():
            if not head:
                for index in group:
                    self.found[index] = path
                continue
            end = _shared_length([self.sequences[index] for index in group])
            segment = Segment(len(self.token_ids), depth, end - depth)
            self.token_ids += self.sequences[group[0]][depth:end]
            self.branches.append((*path, segment))
            self.branch(group, self.branches[-1])


def _shared_length(sequences: Sequence[Tokens]) -> int:
    """How many tokens all have in common: as many as the first and the last of them in order."""
    first, last = min(sequences), max(sequences)
    return next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
