"""Which validation rows and pairs are scored at each evaluation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rmkit.cleaning.balance import draw
from rmkit.row_files import find_rows, read_rows
from rmkit.rubric import Rubric
from rmkit.schema import Conversation, PreferencePair, RatedResponse
from rmkit.training.figures import Comparison, figure_names, preferred_comparisons, rated_comparisons

logger = logging.getLogger(__name__)

_Row = TypeVar("_Row", RatedResponse, PreferencePair)


@dataclass(frozen=True, slots=True)
class ValidationSample:
    """What is scored at each evaluation; the same for every seed of a training, so that runs can be compared.

    Args:
        rubric: The run's.
        rows: Rated responses.
        pairs: Pairs without ratings, used where no two of the rows make a pair.
        trained_on: Pairs that were left out because training rows have their conversation.
    """

    rubric: Rubric
    rows: tuple[RatedResponse, ...]
    pairs: tuple[PreferencePair, ...] = ()
    trained_on: int = 0

    @property
    def comparisons(self) -> list[Comparison]:
        """Who is preferred, by places among the rows and then the responses of the pairs, chosen ones first."""
        rated = rated_comparisons(self.rubric, self.rows)
        return [*rated, *preferred_comparisons(self.rubric, self.pairs, len(self.rows))]

    @property
    def choosing_figures(self) -> set[str]:
        """Names of the figures that an evaluation gives and a checkpoint can be chosen by; none without rows."""
        return figure_names(self.rubric, self.rows, self.comparisons) - {"pairs"} if self.rows else set()

    def to_dict(self) -> dict[str, int]:
        """How much is scored, as it stands in `run.json`."""
        return {
            "rows": len(self.rows),
            "pairs_of_ratings": len(rated_comparisons(self.rubric, self.rows)),
            "pairs_without_ratings": len(self.pairs),
            "pairs_left_out_as_trained_on": self.trained_on,
        }


def draw_validation(
    folder: Path, rubric: Rubric, train: Sequence[RatedResponse], validation: Sequence[RatedResponse], most: int
) -> ValidationSample:
    """Choose what is scored at each evaluation.

    Args:
        folder: The data folder. Its `pairs` are used, half as many as rows at most, where no two of the chosen rows
            make a pair; those with a conversation of the training rows are left out.
        rubric: The run's.
        train: All training rows.
        validation: All validation rows.
        most: Most rows to score.

    Raises:
        DataError: If the pairs can't be read.
    """
    rows = spread(validation, most, lambda row: row.source)
    if not rows or rated_comparisons(rubric, rows) or find_rows(folder, "pairs") is None:
        return ValidationSample(rubric, tuple(rows))
    trained: set[Conversation] = {row.conversation for row in train}
    pairs = [PreferencePair.from_dict(record, where) for where, record in read_rows(folder, "pairs")]
    held_out = [pair for pair in pairs if pair.conversation not in trained]
    sample = spread(held_out, max(most // 2, 1), lambda pair: pair.subset)
    logger.info(
        "no two validation rows make a pair: %d of the folder's %d pairs are scored at each evaluation; %d are left "
        "out, as training rows have their conversation",
        *(len(sample), len(pairs), len(pairs) - len(held_out)),
    )
    return ValidationSample(rubric, tuple(rows), tuple(sample), len(pairs) - len(held_out))


def spread(rows: Sequence[_Row], most: int, source: Callable[[_Row], str]) -> list[_Row]:
    """A random sample in which each source has its share, and conversations stay whole.

    A hash of ids decides, so the sample of a smaller number is part of that of a larger one. Every source has at least
    one conversation as long as `most` allows; only the last conversation that fits may be cut.

    Args:
        rows: In any order.
        most: Most rows to take, 0 or more.
        source: Where a row comes from. All rows of a conversation count for the source of its first.

    Returns:
        The sample in the order of `rows`.
    """
    conversations: dict[Conversation, list[int]] = {}
    for place, row in enumerate(rows):
        conversations.setdefault(row.conversation, []).append(place)
    by_source: dict[str, list[list[int]]] = {}
    for places in conversations.values():
        by_source.setdefault(source(rows[places[0]]), []).append(places)
    order = []
    for name, groups in by_source.items():
        groups.sort(key=lambda places: draw(f"validation\n{rows[places[0]].id}", 0))
        total, before = sum(map(len, groups)), 0
        for places in groups:
            order.append((before / total, name, places))  # sources advance at the same pace through their rows
            before += len(places)
    order.sort(key=lambda item: item[:2])
    taken = [place for *_, places in order for place in places][:most]
    return [rows[place] for place in sorted(taken)]
