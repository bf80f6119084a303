from __future__ import annotations

import doctest

from hypothesis import given
from hypothesis import strategies as st

from rmkit import prefix_tree
from rmkit.prefix_tree import Segment, find_places, lay_down

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9).map(tuple), min_size=1, max_size=8)


def test_the_docstring_s_example_holds() -> None:
    assert doctest.testmod(prefix_tree).failed == 0


@given(sequences=SEQUENCES, least=st.integers(1, 4), share=st.booleans())
def test_each_path_spells_its_sequence(sequences: list[tuple[int, ...]], least: int, share: bool) -> None:
    tree = lay_down(sequences, share, least)
    assert len(tree.positions) == len(tree.token_ids)
    for tokens, path in zip(sequences, tree.sequences, strict=True):
        places = find_places(path)
        assert tuple(tree.token_ids[place] for place in places) == tokens
        assert [tree.positions[place] for place in places] == list(range(len(tokens)))
    for branch in tree.branches:
        assert branch[0].depth == 0
        assert all(a.depth + a.length == b.depth for a, b in zip(branch, branch[1:], strict=False))
    ends = [path[-1] for path in tree.branches]
    assert [place for segment in ends for place in segment.places] == list(range(len(tree.token_ids)))
    assert all(path[-1].start < later[-1].start for path, later in zip(tree.branches, tree.branches[1:], strict=False))


@given(sequences=SEQUENCES)
def test_with_a_least_of_one_no_two_tokens_follow_the_same_beginning_twice(sequences: list[tuple[int, ...]]) -> None:
    beginnings = {tokens[: end + 1] for tokens in sequences for end in range(len(tokens))}
    assert len(lay_down(sequences, least=1).token_ids) == len(beginnings)


@given(sequences=SEQUENCES)
def test_without_sharing_every_sequence_stands_by_itself(sequences: list[tuple[int, ...]]) -> None:
    tree = lay_down(sequences, share=False)
    assert tree.token_ids == tuple(token for tokens in sequences for token in tokens)
    assert all(len(path) == 1 for path in tree.sequences)


def test_beginnings_that_are_too_short_are_not_shared() -> None:
    sequences = [(1, 2, 3, 4), (1, 2, 5, 6), (1, 9)]
    assert len(lay_down(sequences, least=3).token_ids) == 10
    assert lay_down(sequences, least=2).token_ids == (1, 2, 3, 4, 5, 6, 1, 9)


def test_rubric_conversation_and_responses_make_three_levels() -> None:
    rubric, first, second = (1,) * 5, (2,) * 4, (3,) * 4
    tree = lay_down([rubric + first + (4,), rubric + second + (5,), rubric + first + (6, 7)], least=4)
    assert tree.branches[0] == (Segment(0, 0, 5),)
    assert [path[-1].length for path in tree.branches] == [5, 4, 1, 2, 5]
    assert [len(path) for path in tree.sequences] == [3, 2, 3]
