from __future__ import annotations

import doctest

from hypothesis import given
from hypothesis import strategies as st

from rmkit import prefix_tree
from rmkit.prefix_tree import PrefixTree, Segment, count_shared

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9).map(tuple), min_size=1, max_size=8)


def test_the_docstring_s_example_holds() -> None:
    assert doctest.testmod(prefix_tree).failed == 0


@given(sequences=SEQUENCES, share=st.booleans())
def test_places_spell_their_sequences(sequences: list[tuple[int, ...]], share: bool) -> None:
    tree = PrefixTree(share)
    found = [tree.add(tokens) for tokens in sequences]
    assert len(tree.positions) == len(tree.token_ids)
    for tokens, places in zip(sequences, found, strict=True):
        assert tuple(tree.token_ids[place] for place in places) == tokens
        assert [tree.positions[place] for place in places] == list(range(len(tokens)))
    own = [place for segment in tree.segments for place in segment.places[-segment.length :]]
    assert own == list(range(len(tree.token_ids)))
    for segment in tree.segments:
        assert [tree.positions[place] for place in segment.places] == list(range(len(segment.places)))


@given(sequences=SEQUENCES)
def test_no_two_tokens_follow_the_same_beginning_twice(sequences: list[tuple[int, ...]]) -> None:
    beginnings = {tokens[: end + 1] for tokens in sequences for end in range(len(tokens))}
    assert count_shared(sequences) == len(beginnings)


@given(sequences=SEQUENCES)
def test_without_sharing_every_sequence_stands_by_itself(sequences: list[tuple[int, ...]]) -> None:
    tree = PrefixTree(share=False)
    for tokens in sequences:
        tree.add(tokens)
    assert tree.token_ids == [token for tokens in sequences for token in tokens]
    assert all(segment.length == len(segment.places) for segment in tree.segments)


def test_a_sequence_that_is_there_adds_nothing() -> None:
    tree = PrefixTree()
    tree.add((1, 2, 3))
    assert tree.find((1, 2, 9)) == [0, 1]
    assert tree.add((1, 2)) == (0, 1)
    assert tree.segments == [Segment((0, 1, 2), 3)]


def test_a_last_token_can_be_laid_down_anew() -> None:
    tree = PrefixTree()
    places = tree.add((1, 2, 3))
    assert tree.repeat(places[:2]) == (0, 3)
    assert tree.token_ids == [1, 2, 3, 2]
    assert tree.positions == [0, 1, 2, 1]
    assert tree.segments[-1] == Segment((0, 3), 1)
    assert tree.add((1, 2, 3, 4)) == (0, 1, 2, 4)
