"""A client of the judge server, for rewards and for code of your own; it needs no model and no GPU packages.

The judge runs in another process, environment or machine (`python -m rmkit.server`), and scores come over HTTP.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import httpx

from rmkit.errors import DataError, JudgeError, RubricError
from rmkit.schema import Comparison, JudgeItem, Judgment
from rmkit.scores import ScoreDistribution
from rmkit.transport import Transport, read_json, read_url

ITEMS_PER_REQUEST = 16
"""Most items, or pairs, that are sent in one request: neighbours, which the server judges together."""

BYTES_PER_REQUEST = 2**19
"""Length of JSON beyond which a request has one item only; a server takes at least twice that."""

_TOO_LARGE = 413
_ROUNDING = 1e-6  # by which probabilities may miss their sum, or an aggregate its range

Answer = TypeVar("Answer", Judgment, Comparison)


class JudgeClient:
    """Asks a judge server for scores.

    It can be pickled and copied: connections are made on first use, in the process that uses them. The key that the
    server may ask for is read from the environment variable RMKIT_API_KEY then.

    Args:
        url: Address of the server, such as `http://127.0.0.1:8000`.
        timeout: Seconds to wait for an answer.
        retries: How often a request is repeated that met no server or one that is overloaded, with growing waits.
        concurrency: Requests that wait for the server at a time.

    Raises:
        JudgeError: If the url is no address of a server.
        ValueError: For a timeout, number of retries or concurrency that makes no sense.
    """

    def __init__(self, url: str, *, timeout: float = 60.0, retries: int = 5, concurrency: int = 32) -> None:
        self.url = read_url(url)
        self._transport = Transport(self.url, timeout, retries, concurrency)

    def score(self, items: Sequence[JudgeItem | Mapping[str, Any]]) -> list[Judgment]:
        """Judge responses.

        Args:
            items: Each a `JudgeItem`, or a mapping as `JudgeItem.from_dict` takes it.

        Returns:
            One judgement for each item, in order. What can't be judged (an empty response, a prompt that is too
            long, a text that is no text) has an `error` and no number.

        Raises:
            JudgeError: Naming the server, if it does not answer, also when asked again, or with anything but one
                judgement for each item.
        """
        return self._ask(_Batch(_SCORE, self.url, [_write_item(item) for item in items]))

    async def ascore(self, items: Sequence[JudgeItem | Mapping[str, Any]]) -> list[Judgment]:
        """`score` for an event loop, which goes on meanwhile."""
        batch = _Batch(_SCORE, self.url, [_write_item(item) for item in items])
        while bodies := batch.bodies():
            batch.take(await self._transport.apost_all(_SCORE.path, bodies, batch.read, (200, _TOO_LARGE)))
        return batch.answers()

    def compare(self, pairs: Sequence[Mapping[str, Any]], tolerance: float = 0.0) -> list[Comparison]:
        """Compare two responses to each conversation.

        Args:
            pairs: Each a mapping with `conversation`, `first` and `second`: texts or messages.
            tolerance: Aggregates this close count as a tie, at least 0; by default only equal ones do.

        Returns:
            One comparison for each pair, in order; without a verdict where a response can't be judged.

        Raises:
            JudgeError: See `score`.
        """
        return self._ask(_Batch(_COMPARE, self.url, [_write_pair(pair) for pair in pairs], {"tolerance": tolerance}))

    def _ask(self, batch: _Batch[Answer]) -> list[Answer]:
        while bodies := batch.bodies():
            batch.take(self._transport.post_all(batch.path, bodies, batch.read, (200, _TOO_LARGE)))
        return batch.answers()

    def health(self) -> dict[str, Any]:
        """Name, rubric, limits and versions of the judge that the server runs.

        Raises:
            JudgeError: Naming the server, if it does not answer as a judge server does.
        """
        where = f"{self.url}/health"
        found = read_json(where, self._transport.send("GET", "/health"))
        if not isinstance(found, dict) or "judge" not in found:
            raise JudgeError(f"{where}: {str(found)[:80]!r} names no judge; is it a judge server of rmkit?")
        return found


@dataclass(frozen=True, slots=True)
class _Endpoint(Generic[Answer]):
    """A path of the server, what is sent to it, and what it answers.

    Args:
        path: The path.
        sent: Field of the rows that are sent.
        answered: Field of the rows of the answer.
        read: Reads one of them; raises ValueError, or what broken data raises, for one that is none.
        fail: What stands for a row that can't be judged for this reason.
    """

    path: str
    sent: str
    answered: str
    read: Callable[[Any], Answer]
    fail: Callable[[str], Answer]


class _Batch(Generic[Answer]):
    """Rows as the bodies of requests, and the answers put together again.

    Where the server says that a request has too many rows or is too large, they are asked again in two.

    Args:
        endpoint: Where they go.
        url: Address of the server, for messages.
        rows: Each as JSON data; or what stands for it already, as it can't be sent.
        options: Further fields of each request.
    """

    def __init__(
        self,
        endpoint: _Endpoint[Answer],
        url: str,
        rows: Sequence[dict[str, Any] | Answer],
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._endpoint: _Endpoint[Answer] = endpoint
        self.path = endpoint.path
        self._where = f"{url}{endpoint.path}"
        self._options = options or {}
        self._answers: list[Answer | None] = [None if isinstance(row, dict) else row for row in rows]
        self._sent = {index: row for index, row in enumerate(rows) if isinstance(row, dict)}
        self._chunks = _split({index: len(json.dumps(row)) for index, row in self._sent.items()})

    def bodies(self) -> list[dict[str, Any]]:
        """Bodies of the requests to send next; none once every row has its answer."""
        return [
            {self._endpoint.sent: [self._sent[index] for index in chunk], **self._options} for chunk in self._chunks
        ]

    def read(self, number: int, response: httpx.Response) -> list[Answer] | None:
        """The answers of one request, or None if it was more than the server takes at a time.

        Raises:
            JudgeError: If they are none, or not as many as rows were sent.
        """
        count = len(self._chunks[number])
        if response.status_code == _TOO_LARGE:
            if count > 1:
                return None
            reason = f"{self._where}: status {_TOO_LARGE}, {response.text[:200]!r}"
            return [self._endpoint.fail(f"JudgeError: {reason}")]
        found = read_json(self._where, response)
        rows = found.get(self._endpoint.answered) if isinstance(found, dict) else None
        if not isinstance(rows, list):
            raise JudgeError(f"{self._where}: the answer holds no {self._endpoint.answered}: {str(found)[:80]!r}")
        if len(rows) != count:
            raise JudgeError(f"{self._where}: {len(rows)} {self._endpoint.answered} came back for {count} rows")
        return [self._read_row(row) for row in rows]

    def _read_row(self, row: Any) -> Answer:
        try:
            return self._endpoint.read(row)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise JudgeError(
                f"{self._where}: {str(row)[:80]!r} is none of {self._endpoint.answered}: {reason}"
            ) from error

    def take(self, found: Sequence[Sequence[Answer] | None]) -> None:
        """Keep what `read` gave for each request; the rows of those that were too much are left for the next."""
        left: list[list[int]] = []
        for chunk, answers in zip(self._chunks, found, strict=True):
            if answers is None:
                left += [chunk[: len(chunk) // 2], chunk[len(chunk) // 2 :]]
                continue
            for index, answer in zip(chunk, answers, strict=True):
                self._answers[index] = answer
        self._chunks = left

    def answers(self) -> list[Answer]:
        """All answers, in the order of the rows."""
        return [answer for answer in self._answers if answer is not None]


def _split(lengths: Mapping[int, int]) -> list[list[int]]:
    """Indices of rows by request: as many as it takes, none too long, unless it has but one row."""
    chunks: list[list[int]] = []
    room = 0
    for index, length in lengths.items():
        if not chunks or len(chunks[-1]) == ITEMS_PER_REQUEST or length > room:
            chunks.append([])
            room = BYTES_PER_REQUEST
        chunks[-1].append(index)
        room -= length
    return chunks


def _read_item(item: JudgeItem | Mapping[str, Any]) -> JudgeItem | str:
    """The item, or why it can't be judged, in the judge's own words."""
    try:
        return item if isinstance(item, JudgeItem) else JudgeItem.from_dict(item)
    except (DataError, RubricError) as error:
        return f"{type(error).__name__}: {error}"


def _write_item(item: JudgeItem | Mapping[str, Any]) -> dict[str, Any] | Judgment:
    found = _read_item(item)
    return Judgment({}, None, error=found) if isinstance(found, str) else found.to_dict()


def _write_pair(pair: Mapping[str, Any]) -> dict[str, Any] | Comparison:
    conversation = pair.get("conversation")
    first, second = (
        _read_item({"conversation": conversation, "response": pair.get(side)}) for side in ("first", "second")
    )
    if isinstance(first, JudgeItem) and isinstance(second, JudgeItem):
        return {
            "conversation": first.to_dict()["conversation"],
            "first": first.response,
            "second": second.response,
        }
    failed = [
        Judgment({}, None, error=side if isinstance(side, str) else "JudgeError: the other response can't be judged")
        for side in (first, second)
    ]
    return Comparison(failed[0], failed[1], None, None)


def read_judgment(data: Any) -> Judgment:
    """A judgement from JSON data that others wrote.

    Raises:
        ValueError: If it is none, such as one with an aggregate outside [-1, 1]; broken data may also raise
            AttributeError, KeyError or TypeError.
    """
    judgment = Judgment.from_dict(data)
    if judgment.error is not None:
        if not isinstance(judgment.error, str) or judgment.aggregate is not None or judgment.attributes:
            raise ValueError("it has an error and a number")
        return judgment
    _check_number(judgment.aggregate, "aggregate", -1.0, 1.0)
    if not judgment.attributes:
        raise ValueError("it has no attributes and no error")
    for key, distribution in judgment.attributes.items():
        _check_distribution(key, distribution)
    return judgment


def _check_distribution(key: str, distribution: ScoreDistribution) -> None:
    values, probabilities = distribution.values, distribution.probabilities
    if len(values) != len(probabilities) or not values or not all(type(value) is int for value in values):
        raise ValueError(f"{key}: there is not one probability for each of some integers")
    for probability in (*probabilities, distribution.outside_mass):
        _check_number(probability, f"{key}: probability", 0.0, 1.0)
    if abs(math.fsum(probabilities) - 1) > _ROUNDING * len(values):
        raise ValueError(f"{key}: the probabilities add up to {math.fsum(probabilities)}")


def _check_number(value: Any, what: str, low: float, high: float) -> None:
    """Do nothing for a number in the range; NaN is in none."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not low - _ROUNDING <= value <= high + _ROUNDING
    ):
        raise ValueError(f"{what} {value!r} is no number from {low:g} to {high:g}")


def _read_comparison(data: Any) -> Comparison:
    found = Comparison(
        read_judgment(data["first"]), read_judgment(data["second"]), data["verdict"], data["probability_first"]
    )
    if found.first.error is not None or found.second.error is not None:
        if found.verdict is not None or found.probability_first is not None:
            raise ValueError("it has a verdict on a response that was not judged")
        return found
    if type(found.verdict) is not int or found.verdict not in (-1, 0, 1):
        raise ValueError(f"verdict {found.verdict!r} is none of -1, 0, 1")
    _check_number(found.probability_first, "probability_first", 0.0, 1.0)
    return found


def _fail_comparison(error: str) -> Comparison:
    return Comparison(Judgment({}, None, error=error), Judgment({}, None, error=error), None, None)


_SCORE = _Endpoint("/score", "items", "judgments", read_judgment, lambda error: Judgment({}, None, error=error))
_COMPARE = _Endpoint("/compare", "pairs", "comparisons", _read_comparison, _fail_comparison)
