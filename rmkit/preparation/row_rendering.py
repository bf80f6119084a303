"""Rows as lines of prepared files: which file they belong to, and what stands there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rmkit.cleaning.drop import whole_conversation
from rmkit.preparation.conversion import Row, is_validation, lay_out_row, row_to_dict
from rmkit.prompts import finish_prompt, render_opening, render_rubric
from rmkit.rubric import Rubric
from rmkit.schema import Conversation, PreferencePair, RatedResponse
from rmkit.scores import render_scores

TRAIN, VALIDATION, PAIRS = ROW_NAMES = ("train", "validation", "pairs")
"""Names of the files that rows go to, without their suffix."""

_MAX_REMEMBERED = 4096  # score sequences; a rubric of many attributes has more of them


class RowRenderer:
    """Renders rows as `row_to_dict` does. What many of them share is made once.

    Args:
        rubric: The run's rubric; None where there are only pairs.
        seed: Of the split.
        validation_fraction: Expected share of conversations whose rows go to validation, in [0, 1).
    """

    def __init__(self, rubric: Rubric | None, seed: int, validation_fraction: float) -> None:
        self._rubric = rubric
        self._seed = seed
        self._fraction = validation_fraction
        self._rubric_text = "" if rubric is None else render_rubric(rubric)
        self._completions: dict[tuple[tuple[str, int], ...], str] = {}
        # Responses to one conversation follow each other, so what they share is made once for all of them.
        self._named: tuple[Conversation, str] = ((), TRAIN)
        self._opened: tuple[Conversation, str, list[dict[str, str]]] = ((), self._rubric_text, [])

    def name(self, row: Row) -> str:
        """Which file the row belongs to: one of `ROW_NAMES`."""
        if isinstance(row, PreferencePair):
            return PAIRS
        conversation, name = self._named
        if row.conversation is not conversation:
            # Siblings of different lengths lose different turns; the whole conversation is what they share.
            whole = whole_conversation(row)
            name = VALIDATION if is_validation(whole, self._seed, self._fraction) else TRAIN
            self._named = row.conversation, name
        return name

    def render(self, row: Row) -> dict[str, Any]:
        """The row as it stands in its file."""
        if isinstance(row, PreferencePair):
            return row.to_dict()
        assert self._rubric is not None  # rated rows come with one
        if row.rubric is not None:
            return row_to_dict(row, self._rubric)
        conversation, opening, turns = self._opened
        if row.conversation is not conversation:
            opening = render_opening(self._rubric_text, row.conversation)
            turns = [message.to_dict() for message in row.conversation]
            self._opened = row.conversation, opening, turns
        prompt = finish_prompt(opening, row.response, row.reference)
        return lay_out_row(row, prompt, self._complete(row), turns)

    def _complete(self, row: RatedResponse) -> str:
        assert self._rubric is not None
        scores = tuple(row.scores.items())
        completion = self._completions.get(scores)
        if completion is None:
            completion = render_scores(self._rubric, row.scores)
            if len(self._completions) < _MAX_REMEMBERED:
                self._completions[scores] = completion
        return completion


def row_texts(row: Mapping[str, Any] | Row) -> dict[str, Any]:
    """The texts of a row, rendered or not, by which a person knows it again."""
    if isinstance(row, RatedResponse):
        return {"conversation": [message.to_dict() for message in row.conversation], "response": row.response}
    if isinstance(row, PreferencePair):
        row = row.to_dict()
    return {key: row[key] for key in ("conversation", "response", "chosen", "rejected") if key in row}
