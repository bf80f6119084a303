"""The rows that pass between stages, frozen and checked once, where they enter."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rmkit.errors import DataError
from rmkit.rubric import Rubric
from rmkit.scores import ScoreDistribution

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str

    def to_dict(self) -> dict[str, str]:
        """The message in the ecosystem's form."""
        return {"role": self.role, "content": self.content}


Conversation = tuple[Message, ...]


def read_text(content: Any, where: str) -> str:
    """The text of a message's content: a string, `None` (empty), or a list of text blocks.

    Raises:
        DataError: For anything else, such as an image: a text judge can't see it.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and all(
        isinstance(b, Mapping) and isinstance(b.get("text"), str) for b in content
    ):
        return "".join(block["text"] for block in content)
    raise DataError(f"{where}: content must be text, found {str(content)[:80]!r}")


def read_message(record: Any, where: str) -> Message:
    """Read one chat message; tool calls are written out as JSON after its text.

    Raises:
        DataError: For an unknown role or content that is no text.
    """
    if isinstance(record, Message):
        record = record.to_dict()
    if not isinstance(record, Mapping) or record.get("role") not in ROLES:
        raise DataError(f"{where}: expected a message with a role of {', '.join(ROLES)}; found {str(record)[:80]!r}")
    text = read_text(record.get("content"), where)
    if record.get("tool_calls"):
        calls = json.dumps(record["tool_calls"], ensure_ascii=False, default=str)
        text = f"{text}\n{calls}" if text else calls
    return Message(record["role"], text)


def read_conversation(value: Any, where: str = "conversation") -> Conversation:
    """Read a conversation from a string (one user turn) or a list of chat messages.

    Raises:
        DataError: If it is neither, has no user turn, or its last user turn is empty.
    """
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, Sequence) or not value:
        raise DataError(f"{where}: expected a text or a list of messages, found {str(value)[:80]!r}")
    messages = tuple(read_message(item, f"{where}[{index}]") for index, item in enumerate(value))
    users = [message for message in messages if message.role == "user"]
    if not users:
        raise DataError(f"{where}: no user turn among {len(messages)} messages")
    if not users[-1].content.strip():
        raise DataError(f"{where}: the last user turn is empty")
    return messages


def read_response(value: Any, where: str = "response") -> str:
    """Read a response from a string or from the messages of a completion.

    Raises:
        DataError: If it holds no text at all.
    """
    if isinstance(value, str):
        text = value
    elif isinstance(value, Sequence) and value:
        messages = [read_message(item, f"{where}[{index}]") for index, item in enumerate(value)]
        if len(messages) == 1:
            text = messages[0].content
        else:
            text = "\n\n".join(f"[{message.role}]\n{message.content}" for message in messages)
    else:
        raise DataError(f"{where}: expected a text or a list of messages, found {str(value)[:80]!r}")
    if not text.strip():
        raise DataError(f"{where}: it is empty, so there is nothing to judge")
    return text


def check_text(text: str) -> None:
    """Do nothing for a text that can be written as UTF-8.

    Raises:
        DataError: For a lone surrogate, with its place.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"the text can't be encoded as UTF-8: {error}") from error


@dataclass(frozen=True, slots=True)
class JudgeItem:
    """One response to judge, and what the judge is shown with it.

    Args:
        conversation: All turns before the response.
        response: The text to judge.
        reference: A reference answer, or None.
        rubric: A rubric of its own, in place of the judge's, or None.

    Raises:
        DataError: If a text can't be encoded.
    """

    conversation: Conversation
    response: str
    reference: str | None = None
    rubric: Rubric | None = None

    def __post_init__(self) -> None:
        for text in (*(message.content for message in self.conversation), self.response, self.reference or ""):
            check_text(text)

    def to_dict(self) -> dict[str, Any]:
        """The item as it is sent to a server."""
        data: dict[str, Any] = {
            "conversation": [message.to_dict() for message in self.conversation],
            "response": self.response,
        }
        if self.reference is not None:
            data["reference"] = self.reference
        if self.rubric is not None:
            data["rubric"] = self.rubric.to_dict()
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> JudgeItem:
        """Read an item.

        Args:
            data: `conversation` (a text or a list of messages), `response` (a text or the messages of a
                completion), and perhaps `reference` and `rubric` (a `Rubric`, or as `Rubric.to_dict` gives it).

        Raises:
            DataError: If a field is missing or of the wrong kind, or a text can't be encoded.
            RubricError: If the rubric can't be read.
        """
        reference, rubric = data.get("reference"), data.get("rubric")
        if reference is not None and not isinstance(reference, str):
            raise DataError(f"reference: expected a text or null, found {str(reference)[:80]!r}")
        return cls(
            read_conversation(data.get("conversation")),
            read_response(data.get("response")),
            reference,
            rubric if rubric is None or isinstance(rubric, Rubric) else Rubric.from_dict(rubric),
        )


@dataclass(frozen=True, slots=True)
class RatedResponse:
    """One response with its scores: a row of `train.jsonl`.

    Args:
        id: Unique within its file.
        source: Name of the data set.
        conversation: All turns before the response.
        response: The text that is rated.
        scores: Score per attribute key; a missing key means "not rated".
        reference: A reference answer, shown to the judge when given.
        rubric: A rubric of this row's own, in place of the run's.
        derived: Keys whose score was derived from a preference.
        metadata: Anything else worth keeping, such as true scores of generated data.
    """

    id: str
    source: str
    conversation: Conversation
    response: str
    scores: Mapping[str, int]
    reference: str | None = None
    rubric: Rubric | None = None
    derived: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "row") -> RatedResponse:
        """Read a row of `train.jsonl`.

        Raises:
            DataError: If a field is missing or of the wrong kind.
        """
        missing = [key for key in ("id", "conversation", "response", "scores") if key not in data]
        if missing:
            raise DataError(f"{where}: field {missing[0]!r} is missing; prepare the file with data_prep/prepare.py")
        for key, kind, what in (
            ("scores", Mapping, "be a mapping from attribute to score"),
            ("reference", str | None, "be a text or null"),
            ("derived", list | tuple | None, "be a list of attribute keys"),
            ("metadata", Mapping | None, "be a mapping"),
        ):
            if not isinstance(data.get(key), kind):
                raise DataError(f"{where}: {key} must {what}, found {str(data[key])[:80]!r}")
        rubric = data.get("rubric")
        return cls(
            id=str(data["id"]),
            source=str(data.get("source", "")),
            conversation=read_conversation(data["conversation"], f"{where}: conversation"),
            response=read_response(data["response"], f"{where}: response"),
            scores={key: score for key, score in data["scores"].items() if score is not None},
            reference=data.get("reference"),
            rubric=None if rubric is None else Rubric.from_dict(rubric, f"{where}: rubric"),
            derived=tuple(data.get("derived") or ()),
            metadata=data.get("metadata") or {},
        )


def _check_metadata(metadata: Any, where: str) -> None:
    """Metadata is written again beside the scores, so it must be what JSON can hold."""
    if not isinstance(metadata, Mapping | None):
        raise DataError(f"{where}: metadata must be a mapping, found {str(metadata)[:80]!r}")
    try:
        json.dumps(metadata, allow_nan=False)
    except ValueError as error:
        raise DataError(f"{where}: metadata holds NaN or Infinity, which is no JSON; write null") from error


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Responses of which one side is better: a row of `pairs.jsonl`.

    Both sides are lists, so that pairs, best-of-n, ties and 3 x 3 benchmarks have one form.
    """

    id: str
    subset: str
    conversation: Conversation
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The pair as it stands in `pairs.jsonl`."""
        return {
            "id": self.id,
            "subset": self.subset,
            "conversation": [message.to_dict() for message in self.conversation],
            "chosen": list(self.chosen),
            "rejected": list(self.rejected),
            "metadata": dict(self.metadata),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "row") -> PreferencePair:
        """Read a row of `pairs.jsonl`.

        Raises:
            DataError: If a field is missing or of the wrong kind, or a side has no response.
        """
        missing = [key for key in ("id", "conversation", "chosen", "rejected") if key not in data]
        if missing:
            raise DataError(f"{where}: field {missing[0]!r} is missing; prepare the file with data_prep/prepare.py")
        sides = {}
        for side in ("chosen", "rejected"):
            if not isinstance(data[side], list) or not data[side]:
                raise DataError(f"{where}: {side} must be a list of responses, found {str(data[side])[:80]!r}")
            sides[side] = tuple(read_response(r, f"{where}: {side}[{i}]") for i, r in enumerate(data[side]))
        _check_metadata(data.get("metadata"), where)
        return cls(
            id=str(data["id"]),
            subset=str(data.get("subset", "")),
            conversation=read_conversation(data["conversation"], f"{where}: conversation"),
            metadata=data.get("metadata") or {},
            **sides,
        )


@dataclass(frozen=True, slots=True)
class Judgment:
    """What a judge says of one response.

    Args:
        attributes: A score distribution per attribute key; empty when `error` is set.
        aggregate: The weighted mean in the rubric's range, or None when `error` is set.
        prompt_tokens: Length of the judge's prompt, in tokens.
        truncated: Whether old turns were dropped to fit the context.
        error: Why there is no judgement, or None.
    """

    attributes: Mapping[str, ScoreDistribution]
    aggregate: float | None
    prompt_tokens: int = 0
    truncated: bool = False
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The judgement as it stands in `scores.jsonl`."""
        return {
            "attributes": {key: distribution.to_dict() for key, distribution in self.attributes.items()},
            "aggregate": self.aggregate,
            "prompt_tokens": self.prompt_tokens,
            "truncated": self.truncated,
            "error": self.error,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Judgment:
        """Read what `to_dict` wrote."""
        return cls(
            attributes={key: ScoreDistribution.from_dict(item) for key, item in data["attributes"].items()},
            aggregate=data["aggregate"],
            prompt_tokens=data["prompt_tokens"],
            truncated=data["truncated"],
            error=data["error"],
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a judge says of two responses to one conversation.

    Args:
        first: Judgement of the first response.
        second: Judgement of the second.
        verdict: 1 if the first has the higher aggregate, -1 if the second, 0 for a tie, None if one failed.
        probability_first: P(first > second) with ties half, or None if one failed.
    """

    first: Judgment
    second: Judgment
    verdict: int | None
    probability_first: float | None

    def to_dict(self) -> dict[str, Any]:
        """The comparison as a server answers it."""
        return {
            "first": self.first.to_dict(),
            "second": self.second.to_dict(),
            "verdict": self.verdict,
            "probability_first": self.probability_first,
        }
