"""Why a row is left out, or which of its turns are, and what says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from rmkit.errors import DataError
from rmkit.schema import Conversation, PreferencePair, RatedResponse, read_message

Row = RatedResponse | PreferencePair

TURNS_LEFT_OUT = "turns_left_out"
"""Metadata key of a row whose oldest turns were left out to fit: these turns, the oldest first."""


def whole_conversation(row: Row) -> Conversation:
    """A row's conversation with the turns that were left out of it.

    Raises:
        DataError: If its metadata has something else under `TURNS_LEFT_OUT`.
    """
    if TURNS_LEFT_OUT not in row.metadata:
        return row.conversation
    turns, where = row.metadata[TURNS_LEFT_OUT], f"row {row.id}, metadata {TURNS_LEFT_OUT!r}"
    if not isinstance(turns, list | tuple):
        raise DataError(f"{where}: expected a list of messages, found {str(turns)[:80]!r}")
    return (*(read_message(turn, f"{where}[{index}]") for index, turn in enumerate(turns)), *row.conversation)


@dataclass(frozen=True, slots=True)
class Drop:
    """A row that is left out, and why.

    Args:
        reason: A short code such as `near_duplicate`, under which drops are counted.
        message: The same for people, with what was found.
        found: What was found as data that JSON holds, such as both texts of a contamination.
        noted: Whether the row is written down beside the kept ones, or only counted, as one that was not drawn.
    """

    reason: str
    message: str
    found: Mapping[str, Any] = field(default_factory=dict)
    noted: bool = True


class Check(Protocol):
    """Looks at one row. It must be possible to pickle it."""

    def check(self, row: Row) -> Row | Drop:
        """The row, a changed one in its place, or why it is left out."""
