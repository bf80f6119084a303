"""A mapping at work: which columns or JSON paths of a raw record are its conversation, responses and ratings."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

from rmkit.data.dataset import RawComparison, RawResponse, RecordError, check_text, describe, read_list_column, within
from rmkit.errors import DataError
from rmkit.preparation.ratings import exact_rating
from rmkit.preparation.record_path import RecordPath
from rmkit.schema import Conversation, Message, read_message

_NUMBER = re.compile(r"\s*[+-]?[0-9]{1,300}(\.[0-9]{1,300})?\s*")


@dataclass(frozen=True, slots=True)
class Turn:
    """Where turns of the conversation stand.

    Args:
        path: A text, or a list of messages.
        role: Whose turn the text is; empty for a list of messages, or a text that is the user's.
    """

    path: RecordPath
    role: str = ""


@dataclass(frozen=True, slots=True)
class MessageForm:
    """What the messages of a file call their parts.

    Args:
        role: The key of the role.
        content: The key of the text.
        roles: The file's names of roles, such as `human`, to `user`, `assistant`, `system` or `tool`.
    """

    role: str = "role"
    content: str = "content"
    roles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RawRating:
    """Where a rating stands and how it is written.

    Args:
        path: A number; with `labels`, one of those.
        scale: Worst and best raw rating; the first is the larger where less is better.
        labels: Pairs of a label, such as `fair`, and the number that it stands for.
    """

    path: RecordPath
    scale: tuple[float, float]
    labels: tuple[tuple[Any, float], ...] = ()


@dataclass(frozen=True, slots=True)
class RecordMapping:
    """Reads raw records by paths: called with one, it gives a `RawResponse` or a `RawComparison`.

    It can be pickled, so that worker processes can be handed one.

    Args:
        conversation: The turns before the response, in order; empty where the responses are lists of messages that
            begin with them.
        responses: One path for rated responses; those of the chosen and the rejected one for comparisons.
        ratings: Per attribute key; empty for comparisons.
        compared: For comparisons, the attribute that they are compared on.
        strength: For comparisons, how much better the chosen one is.
        reference: A reference answer.
        id: The id that a pair gets.
        subset: The subset that a pair gets.
        metadata: Paths by the name that their values get.
        each: A column that holds a list: each of its elements is read as if it stood there in place of the list.
        messages: What messages call their parts.
        optional: Paths that a record may lack or have null.
        missing: Values that mean "not rated".
        text_numbers: Whether ratings may be numbers written as text.
    """

    conversation: tuple[Turn, ...]
    responses: tuple[RecordPath, ...]
    ratings: Mapping[str, RawRating] = field(default_factory=dict)
    compared: str = "overall"
    strength: RawRating | None = None
    reference: RecordPath | None = None
    id: RecordPath | None = None
    subset: RecordPath | None = None
    metadata: Mapping[str, RecordPath] = field(default_factory=dict)
    each: str = ""
    messages: MessageForm = field(default_factory=MessageForm)
    optional: tuple[RecordPath, ...] = ()
    missing: tuple[Any, ...] = ()
    text_numbers: bool = False

    def __call__(self, record: Mapping[str, Any]) -> Iterator[RawResponse | RawComparison]:
        """One rated response or one comparison, or one for each element of the column that `each` names.

        Raises:
            RecordError: For a record that gives none; the message names the path.
        """
        try:
            if not self.each:
                yield self._read(record)
                return
            elements = read_list_column(record, self.each)
            if not elements:
                raise RecordError("empty_response", f"column {self.each!r} holds an empty list")
            for index, element in enumerate(elements):
                with within(f"{self.each}[{index}]"):
                    yield self._read({**record, self.each: element})
        except RecursionError as error:
            raise RecordError("wrong_type", "the record is nested too deeply") from error

    def _read(self, record: Mapping[str, Any]) -> RawResponse | RawComparison:
        conversation, responses = self._read_texts(record)
        reference = None if self.reference is None else self._read_text(record, self.reference, "empty_reference")
        metadata = {name: _storable(self._read_value(record, path), path) for name, path in self.metadata.items()}
        if len(responses) == 1:
            found = {key: self._read_rating(record, rating) for key, rating in self.ratings.items()}
            ratings = {key: rating for key, rating in found.items() if rating is not _NOT_RATED}
            return RawResponse(conversation, responses[0], ratings, reference, metadata=metadata)
        strength = None if self.strength is None else self._read_strength(record, self.strength)
        return RawComparison(
            conversation=conversation,
            responses=responses,
            ranks=(1, 1) if strength == 0 else (1, 2),
            attribute=self.compared,
            strength=strength,
            id=self._read_name(record, self.id),
            subset=self._read_name(record, self.subset),
            reference=reference,
            metadata=metadata,
        )

    def _read_value(self, record: Mapping[str, Any], path: RecordPath) -> Any:
        """The value; None where an optional one is not there."""
        try:
            return path.read(record)
        except RecordError:
            if path in self.optional:
                return None
            raise

    def _read_text(self, record: Mapping[str, Any], path: RecordPath, if_empty: str) -> str | None:
        """The text; None where an optional one is not there or blank."""
        value = self._read_value(record, path)
        if path in self.optional and (value is None or (isinstance(value, str) and not value.strip())):
            return None
        return check_text(value, f"path {str(path)!r}", if_empty)

    def _read_name(self, record: Mapping[str, Any], path: RecordPath | None) -> str:
        if path is None:
            return ""
        value = self._read_value(record, path)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self._read_text(record, path, "empty_id") or ""

    def _read_texts(self, record: Mapping[str, Any]) -> tuple[Conversation, tuple[str, ...]]:
        before = self._read_conversation(record)
        conversation, responses = before, []
        for path in self.responses:
            value = self._read_value(record, path)
            if not isinstance(value, list):
                if not self.conversation:
                    message = f"path {str(path)!r}: expected messages that begin with the conversation, found "
                    raise RecordError("wrong_type", message + describe(value))
                responses.append(check_text(value, f"path {str(path)!r}", "empty_response"))
                continue
            *context, last = self._read_messages(value, path)
            if last.role != "assistant" or not last.content.strip():
                raise RecordError("empty_response", f"path {str(path)!r}: the last message is no assistant's text")
            if context and conversation and tuple(context) != conversation:
                message = f"path {str(path)!r}: its messages do not begin with the same conversation"
                raise RecordError("different_conversations", message)
            conversation = conversation or tuple(context)
            responses.append(last.content)
        asked = [turn.content for turn in conversation if turn.role == "user"]
        if not asked or not asked[-1].strip():
            raise RecordError("empty_prompt", "the conversation has no turn of a user, or the last one holds no text")
        if conversation[-1].role == "assistant":
            message = "the conversation ends with an assistant's turn; if that is the response, map no conversation"
            raise RecordError("broken_turns", message)
        return conversation, tuple(responses)

    def _read_conversation(self, record: Mapping[str, Any]) -> Conversation:
        turns: list[Message] = []
        from_text = False
        for turn in self.conversation:
            value = self._read_value(record, turn.path)
            if isinstance(value, list) and not turn.role:
                turns += self._read_messages(value, turn.path) if value else []
                from_text = False
                continue
            text = self._read_text(record, turn.path, "empty_prompt")
            if text is None:
                continue
            role = turn.role or "user"
            if from_text and turns[-1].role == role:
                text = f"{turns.pop().content}\n\n{text}"
            turns.append(Message(role, text))
            from_text = True
        return tuple(turns)

    def _read_messages(self, value: Sequence[Any], path: RecordPath) -> list[Message]:
        found = []
        form = self.messages
        for index, item in enumerate(value):
            where = f"path '{path}[{index}]'"
            if form != MessageForm() and isinstance(item, Mapping):
                role = item.get(form.role)
                role = form.roles.get(role, role) if isinstance(role, str) else role
                item = {"role": role, "content": item.get(form.content)}
            try:
                message = read_message(item, where)
                message.content.encode("utf-8")
            except UnicodeEncodeError as error:
                text = f"{where}: character {error.start} is half of a surrogate pair, not a character"
                raise RecordError("broken_text", text) from error
            except (DataError, TypeError) as error:  # a role that can't be looked up is a TypeError
                raise RecordError("broken_turns", str(error)) from error
            found.append(message)
        if not found:
            raise RecordError("broken_turns", f"path {str(path)!r}: the list of messages is empty")
        return found

    def _read_rating(self, record: Mapping[str, Any], rating: RawRating) -> Any:
        """The raw rating, to be checked against its scale; `_NOT_RATED` where there is none."""
        value = self._read_value(record, rating.path)
        if (value is None and rating.path in self.optional) or _is_among(value, self.missing):
            return _NOT_RATED
        if rating.labels:
            numbers = [number for label, number in rating.labels if _is_among(value, (label,))]
            if not numbers:
                known = ", ".join(repr(label) for label, _ in rating.labels)
                message = f"path {str(rating.path)!r}: expected a label of {known}; found {describe(value)}"
                raise RecordError("rating_unknown_label", message)
            return numbers[0]
        if isinstance(value, Decimal) and value.is_finite():
            return Fraction(value)
        if not isinstance(value, str):
            return value
        if not self.text_numbers or not _NUMBER.fullmatch(value):
            hint = "name it under missing if it means 'not rated'"
            if not self.text_numbers:
                hint = f"set text_numbers: true if ratings are numbers as text, or {hint}"
            message = f"path {str(rating.path)!r}: expected a number, found {describe(value)}; {hint}"
            raise RecordError("rating_wrong_type", message)
        return float(value) if "." in value else int(value)

    def _read_strength(self, record: Mapping[str, Any], rating: RawRating) -> Fraction | None:
        value = self._read_rating(record, rating)
        if value is _NOT_RATED:
            return None
        worst, best = map(exact_rating, rating.scale)
        is_number = isinstance(value, int | float | Fraction) and not isinstance(value, bool)
        if not is_number or (isinstance(value, float) and not math.isfinite(value)):
            message = f"path {str(rating.path)!r}: expected a strength in {worst}-{best}, found {describe(value)}"
            raise RecordError("rating_wrong_type", message)
        share = (exact_rating(value) - worst) / (best - worst)
        if not 0 <= share <= 1:
            message = f"path {str(rating.path)!r}: the strength {str(value)[:60]} is outside {worst}-{best}"
            raise RecordError("rating_out_of_range", message)
        return share


_NOT_RATED: Any = object()


def _is_among(value: Any, values: Iterable[Any]) -> bool:
    """Whether the value is one of them; `true` is no 1 here, and NaN is NaN."""
    for other in values:
        if isinstance(value, bool) == isinstance(other, bool) and value == other:
            return True
        if isinstance(value, float) and isinstance(other, float) and math.isnan(value) and math.isnan(other):
            return True
    return False


def _storable(value: Any, path: RecordPath) -> Any:
    """The value as JSON can hold it: dates as text, NaN, with which tables write "nothing there", as null."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        message = f"path {str(path)!r}: {describe(value)} can't be kept as metadata ({error})"
        raise RecordError("metadata_wrong_type", message) from error
    return value
