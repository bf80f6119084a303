from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from rmkit.jsonl import write_jsonl
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Message, PreferencePair, RatedResponse
from rmkit.training.validation_sample import draw_validation, spread

RUBRIC = Rubric("one", (Attribute("overall", "Overall"),))


def rated(source: str, conversation: int, response: int = 0, score: int = 3) -> RatedResponse:
    name = f"{source}/{conversation}"
    return RatedResponse(f"{name}/{response}", source, (Message("user", name),), "words", {"overall": score})


def source_of(row: RatedResponse) -> str:
    return row.source


@pytest.fixture
def mixed() -> list[RatedResponse]:
    """A mix in file order: 400 rows of one source, four to a conversation, then 90 of another and 10 of a third."""
    return [
        *(rated("big", n // 4, n % 4) for n in range(400)),
        *(rated("middle", n // 2, n % 2) for n in range(90)),
        *(rated("small", n) for n in range(10)),
    ]


@pytest.mark.parametrize("most", [50, 100, 200])
def test_each_source_has_its_share(mixed: list[RatedResponse], most: int) -> None:
    sample = spread(mixed, most, source_of)
    assert len(sample) == most
    found = Counter(row.source for row in sample)
    for source, rows in {"big": 400, "middle": 90, "small": 10}.items():
        assert found[source] == pytest.approx(most * rows / 500, abs=4)
        assert found[source] > 0


def test_conversations_stay_whole(mixed: list[RatedResponse]) -> None:
    whole = Counter(row.conversation for row in mixed)
    found = Counter(row.conversation for row in spread(mixed, 101, source_of))
    assert sum(found[conversation] < whole[conversation] for conversation in found) <= 1


def test_the_sample_is_random_and_in_file_order(mixed: list[RatedResponse]) -> None:
    sample = spread(mixed, 60, source_of)
    places = [mixed.index(row) for row in sample]
    assert places == sorted(places)
    big = [place for place in places if place < 400]
    assert max(big) > 200 and min(big) < 100  # not the first of the file
    assert spread(mixed, 60, source_of) == sample


def test_a_smaller_sample_is_part_of_a_larger_one(mixed: list[RatedResponse]) -> None:
    larger = spread(mixed, 90, source_of)
    assert all(row in larger for row in spread(mixed, 40, source_of))
    assert spread(mixed, 500, source_of) == spread(mixed, 900, source_of) == mixed
    assert spread(mixed, 0, source_of) == []


def test_every_source_comes_first(mixed: list[RatedResponse]) -> None:
    assert {row.source for row in spread(mixed, 7, source_of)} == {"big", "middle", "small"}


@pytest.fixture
def write_pairs(tmp_path: Path) -> Callable[..., Path]:
    """`write_pairs(*conversations)`: a folder with a pair for each conversation."""

    def write(*names: str) -> Path:
        pairs = [PreferencePair(name, "", (Message("user", name),), ("good",), ("bad",)) for name in names]
        write_jsonl(tmp_path / "pairs.jsonl", [pair.to_dict() for pair in pairs])
        return tmp_path

    return write


def test_pairs_of_the_folder_where_ratings_make_none(write_pairs: Callable[..., Path]) -> None:
    folder = write_pairs("new", "a/1", "other")
    sample = draw_validation(folder, RUBRIC, [rated("a", 1)], [rated("a", 2), rated("a", 3)], 100)
    assert [pair.id for pair in sample.pairs] == ["new", "other"]  # the second is trained on
    assert [(c.better, c.worse) for c in sample.comparisons] == [(2, 3), (4, 5)]
    assert sample.to_dict() == {
        "rows": 2,
        "pairs_of_ratings": 0,
        "pairs_without_ratings": 2,
        "pairs_left_out_as_trained_on": 1,
    }
    assert {"pair_accuracy", "pair_accuracy_mode", "mae"} <= sample.choosing_figures
    assert "pairs" not in sample.choosing_figures
    assert len(draw_validation(folder, RUBRIC, [], [rated("a", 2)], 4).pairs) == 2  # of four responses


def test_rated_pairs_come_first(write_pairs: Callable[..., Path]) -> None:
    folder = write_pairs("new")
    validation = [rated("a", 1, 0, score=5), rated("a", 1, 1, score=2)]
    sample = draw_validation(folder, RUBRIC, [], validation, 100)
    assert sample.pairs == ()
    assert [(c.better, c.worse) for c in sample.comparisons] == [(0, 1)]


def test_without_rows_nothing_is_scored(write_pairs: Callable[..., Path]) -> None:
    for validation, most in (([], 10), ([rated("a", 1)], 0)):
        sample = draw_validation(write_pairs("new"), RUBRIC, [], validation, most)
        assert (sample.rows, sample.pairs, sample.choosing_figures) == ((), (), set())
