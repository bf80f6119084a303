"""What an adapter is: a data set's origin, its scales, and one function from a raw record to rows."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rmkit.errors import DataError
from rmkit.schema import Conversation, PreferencePair


class RecordError(DataError):
    """A raw record that gives no row.

    Args:
        reason: A short code such as `missing_column`, under which refusals are counted.
        message: What was found, in which column, for people.
    """

    def __init__(self, reason: str, message: str) -> None:
        """Keep both; `str` of the error is the message."""
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class RawResponse:
    """A response as a data set rates it, before its ratings are checked and put on a rubric's scale.

    Args:
        conversation: All turns before the response.
        response: The text that is rated.
        ratings: Rating per attribute key, as the raw record has it. A key that is left out means "not rated".
        reference: A reference answer, or None.
        derived: Keys whose rating was derived from a preference.
        metadata: Anything else worth keeping.
    """

    conversation: Conversation
    response: str
    ratings: Mapping[str, Any]
    reference: str | None = None
    derived: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A published data set and how its raw records are read.

    Args:
        name: What it is called on the command line, in row ids and in each row's `source`.
        hub_id: Its home on the Hugging Face hub.
        revision: The commit of that home which the adapter was written for.
        split: The published split that is read from there.
        read: Raw record to rows: `RawResponse` for rated responses, `PreferencePair` for pairs. It raises
            `RecordError` for a record that gives none.
        rubric: The ready rubric its ratings fit; empty for pairs.
        scales: Lowest and highest raw rating per attribute key; empty for pairs.
    """

    name: str
    hub_id: str
    revision: str
    split: str
    read: Callable[[Mapping[str, Any]], Iterable[RawResponse | PreferencePair]]
    rubric: str = ""
    scales: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def read_column(record: Mapping[str, Any], column: str) -> Any:
    """The value of a column.

    Raises:
        RecordError: `missing_column` if the record has no such column.
    """
    if column not in record:
        raise RecordError("missing_column", f"column {column!r} is missing; the record has {_list(record)}")
    return record[column]


def read_text_column(record: Mapping[str, Any], column: str, if_empty: str) -> str:
    """The text of a column, exactly as it stands there.

    Args:
        record: The raw record.
        column: Which column.
        if_empty: The reason to refuse the record for if the text is null or blank.

    Raises:
        RecordError: `missing_column`; `wrong_type` for anything but text; `broken_text` for text with lone
            surrogates, which no tokenizer takes; or `if_empty`.
    """
    value = read_column(record, column)
    if value is not None and not isinstance(value, str):
        raise RecordError("wrong_type", f"column {column!r}: expected text, found {describe(value)}")
    if value is None or not value.strip():
        raise RecordError(if_empty, f"column {column!r} holds no text: {describe(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RecordError(
            "broken_text", f"column {column!r}: character {error.start} is half of a surrogate pair, not a character"
        ) from error
    return value


def describe(value: Any) -> str:
    """A value's type and a short form of it, for messages; safe for values of any size and depth."""
    return f"{type(value).__name__} {reprlib.repr(value)}"


def _list(record: Mapping[str, Any]) -> str:
    columns = ", ".join(repr(str(key)[:40]) for key in list(record)[:12])
    return f"{columns} and {len(record) - 12} more" if len(record) > 12 else columns or "no columns"
