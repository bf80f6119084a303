"""What an adapter is: a data set's origin, its scales, and one function from a raw record to rows."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any

from rmkit.errors import DataError
from rmkit.rubric import Rubric
from rmkit.schema import Conversation, PreferencePair, RatedResponse, read_conversation


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
        derived: Keys whose rating was derived from a preference, by a rule of `rmkit.preparation.preferences`.
        metadata: Anything else worth keeping.
        rubric: A rubric of this response's own, where each record brings its own criteria.
    """

    conversation: Conversation
    response: str
    ratings: Mapping[str, Any]
    reference: str | None = None
    derived: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    rubric: Rubric | None = None


@dataclass(frozen=True, slots=True)
class RawComparison:
    """Two or more responses to one conversation in an order of preference, without ratings.

    A rule of `rmkit.preparation.preferences`, chosen by name, makes scores of it, or a `PreferencePair`.

    Args:
        conversation: All turns before the responses.
        responses: Two or more.
        ranks: A whole number per response, the lowest for the best; equal numbers are a tie.
        attribute: Key of the attribute that they are compared on.
        strength: How much better the better of two is: 0 for a tie to 1 for the clearest; None where nobody said.
        id: The published id, which the pair gets; empty where there is none.
        subset: The published subset.
        reference: A reference answer, or None.
        metadata: Anything else worth keeping, such as single votes.
    """

    conversation: Conversation
    responses: tuple[str, ...]
    ranks: tuple[int, ...]
    attribute: str = "overall"
    strength: float | Fraction | None = None
    id: str = ""
    subset: str = ""
    reference: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A published data set and how its raw records are read.

    Args:
        name: What it is called on the command line, in row ids and in each row's `source`.
        hub_id: Its home on the Hugging Face hub; empty where it has none.
        revision: The commit of that home which the adapter was written for; empty where none is known, and then the
            user must give one.
        split: The published split that is read from there.
        read: Raw record to rows: `RawResponse` for rated responses, `RawComparison` for preferences, `PreferencePair`
            for benchmark pairs, `RatedResponse` for rows that have ids and scores already. It raises `RecordError` for
            a record that gives none.
        rubric: The rubric its ratings or derived scores fit, a ready one by name or as it is; empty for pairs.
        scales: Worst and best raw rating per attribute key, so the larger number comes first where less is better;
            (0, 1) for what an adapter derives itself. Empty for comparisons and pairs.
        rule: For comparisons, the rule of `rmkit.preparation.preferences` that is used unless another one is asked
            for.
        hub_options: What `datasets.load_dataset` needs besides, such as `{"data_dir": "preference"}`; `data_files` is
            one file, read as it is.
        numeric: Columns that hold numbers where a CSV file is read; None for those named like the scales.
        url: Where its raw files are, pinned to a commit, for a data set that is not on the hub.
    """

    name: str
    hub_id: str
    revision: str
    split: str
    read: Callable[[Mapping[str, Any]], Iterable[RawResponse | RawComparison | RatedResponse | PreferencePair]]
    rubric: str | Rubric = ""
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    rule: str = ""
    hub_options: Mapping[str, str] = field(default_factory=dict)
    numeric: tuple[str, ...] | None = None
    url: str = ""


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
    return value if _is_plain_text(value) else check_text(value, f"column {column!r}", if_empty)


def read_list_column(record: Mapping[str, Any], column: str) -> Sequence[Any]:
    """The list in a column.

    Raises:
        RecordError: `missing_column`, or `wrong_type` for anything else, null included.
    """
    value = read_column(record, column)
    if not isinstance(value, list | tuple):
        raise RecordError("wrong_type", f"column {column!r}: expected a list, found {describe(value)}")
    return value


def read_texts_column(record: Mapping[str, Any], column: str, if_empty: str) -> tuple[str, ...]:
    """The texts of a column that holds a list of them, at least one.

    Raises:
        RecordError: As for `read_text_column`, for the column or any of its texts.
    """
    values = read_list_column(record, column)
    if not values:
        raise RecordError(if_empty, f"column {column!r} holds an empty list")
    return tuple(check_text(value, f"column {column!r}[{index}]", if_empty) for index, value in enumerate(values))


def read_id_column(record: Mapping[str, Any], column: str) -> str:
    """An id that may be a whole number or text, as text: CSV has no numbers, and copies of a data set change types.

    Raises:
        RecordError: As for `read_text_column`, with `empty_id` for a blank one.
    """
    value = read_column(record, column)
    if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        return str(value)
    return check_text(value, f"column {column!r}", "empty_id")


def read_objects_column(record: Mapping[str, Any], column: str) -> tuple[Mapping[str, Any], ...]:
    """The objects of a column that holds a list of them, maybe none; null is none, as Parquet has it.

    Raises:
        RecordError: `missing_column`; `wrong_type` for anything but a list of objects.
    """
    values = read_column(record, column)
    if values is not None and not isinstance(values, list | tuple):
        raise RecordError("wrong_type", f"column {column!r}: expected a list of objects, found {describe(values)}")
    for index, value in enumerate(values or ()):
        check_object(value, f"column {column!r}[{index}]")
    return tuple(values or ())


def read_whole_column(record: Mapping[str, Any], column: str, lowest: int, highest: int) -> int:
    """The whole number of a column; text that is one counts, as CSV has it, and 2.0, as tables with gaps have it.

    Raises:
        RecordError: `missing_column`; `rating_missing` for null; `rating_wrong_type`; `rating_out_of_range`.
    """
    value = read_column(record, column)
    if value is None:
        raise RecordError("rating_missing", f"column {column!r}: expected {lowest} to {highest}, found null")
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value, re.ASCII):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        message = f"column {column!r}: expected a whole number in {lowest} to {highest}, found {describe(value)}"
        raise RecordError("rating_wrong_type", message)
    if not lowest <= value <= highest:
        found = f"column {column!r}: {str(value)[:60]} is outside {lowest} to {highest}"
        raise RecordError("rating_out_of_range", found)
    return int(value)


def read_rating_column(record: Mapping[str, Any], column: str) -> Any:
    """The rating of a column that may hold it as text: the number, or None where the text is N/A, "not rated".

    Anything that is no number is left as it is, to be refused where ratings are checked.

    Raises:
        RecordError: `missing_column`; `rating_missing` for null.
    """
    value = read_column(record, column)
    if value is None:
        raise RecordError("rating_missing", f"column {column!r}: the rating is null")
    return _read_rating_text(value) if isinstance(value, str) else value


@lru_cache(maxsize=1024)  # of millions of ratings, few are different
def _read_rating_text(text: str) -> int | float | str | None:
    if text.strip() == "N/A":
        return None
    if re.fullmatch(r"\s*-?[0-9]{1,9}(\.[0-9]{1,9})?\s*", text, re.ASCII):
        return float(text) if "." in text else int(text)
    return text


def read_conversation_column(record: Mapping[str, Any], column: str) -> Conversation:
    """The turns of a column of chat messages, the last of which is the user's; one text is that turn alone.

    Raises:
        RecordError: `missing_column`; `empty_prompt` for null or a blank text; `broken_text`; `broken_turns` for
            messages that are no such conversation, such as those whose last turn is blank.
    """
    value = read_column(record, column)
    if value is None or isinstance(value, str):
        return read_conversation(check_text(value, f"column {column!r}", "empty_prompt"))
    try:
        turns = read_conversation(value, f"column {column!r}")
    except (ValueError, RecursionError) as error:  # a DataError is a ValueError
        raise RecordError("broken_turns", str(error)) from error
    if turns[-1].role != "user":
        message = f"column {column!r}: expected a last turn of the user's, found one of role {turns[-1].role}"
        raise RecordError("broken_turns", message)
    for index, turn in enumerate(turns):
        if turn.content.strip():
            check_text(turn.content, f"column {column!r}[{index}]", "empty_turn")
    return turns


def check_object(value: Any, where: str) -> Mapping[str, Any]:
    """The value, if it is an object, that is a mapping.

    Raises:
        RecordError: `wrong_type`.
    """
    if type(value) is not dict and not isinstance(value, Mapping):  # the first is all that JSON gives, and fast
        raise RecordError("wrong_type", f"{where}: expected an object, found {describe(value)}")
    return value


def check_text(value: Any, where: str, if_empty: str) -> str:
    """The value, if it is text that can be judged.

    Args:
        value: Anything.
        where: What messages call it, such as `column 'prompt'`.
        if_empty: The reason to refuse the record for if the text is null or blank.

    Raises:
        RecordError: `wrong_type` for anything but text; `broken_text` for text with lone surrogates, which no
            tokenizer takes; or `if_empty`.
    """
    if _is_plain_text(value):
        return value
    if value is not None and not isinstance(value, str):
        raise RecordError("wrong_type", f"{where}: expected text, found {describe(value)}")
    if value is None or not value.strip():
        raise RecordError(if_empty, f"{where} holds no text: {describe(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RecordError(
            "broken_text", f"{where}: character {error.start} is half of a surrogate pair, not a character"
        ) from error
    return value


def _is_plain_text(value: Any) -> bool:
    """Whether it is a text that nothing is wrong with, told at once; False for what takes a closer look."""
    return type(value) is str and value.isascii() and bool(value) and not value.isspace()


class within:  # noqa: N801 - it is used like a function
    """Puts a place, such as `answers[2]`, before the message of a `RecordError` that is raised inside."""

    __slots__ = ("_place",)  # a class of its own, for it is entered for each part of each record

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RecordError):
            raise RecordError(error.reason, f"{self._place}: {error}") from error


def describe(value: Any) -> str:
    """A value's type and a short form of it, for messages; safe for values of any size and depth."""
    return f"{type(value).__name__} {reprlib.repr(value)}"


def _list(record: Mapping[str, Any]) -> str:
    columns = ", ".join(repr(str(key)[:40]) for key in list(record)[:12])
    return f"{columns} and {len(record) - 12} more" if len(record) > 12 else columns or "no columns"
