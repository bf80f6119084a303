"""What is to be judged: an input file read as items, one for each (conversation, response)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from rmkit.errors import DataError, RubricError
from rmkit.row_files import find_rows, read_row_file
from rmkit.rubric import Rubric
from rmkit.schema import Conversation, PreferencePair, read_conversation, read_response

SIDES = ("chosen", "rejected")

InputKind = Literal["pairs", "responses", "candidates"]

_PREPARED_ROWS: dict[InputKind, str] = {"pairs": "pairs", "responses": "validation"}

ItemKey = tuple[str, str, int]
"""Row id, side and index of one response."""


@dataclass(frozen=True, slots=True)
class ScoreItem:
    """One response to judge.

    Args:
        id: The row's id.
        side: `chosen`, `rejected`, or `response` where there are no sides.
        index: Place among the responses of that side.
        conversation: All turns before the response.
        response: The text to judge.
        reference: A reference answer, shown to the judge when given.
        rubric: The row's own rubric, in place of the judge's.
        error: Why the row can't be judged, or None. Then it has no conversation and no response.
    """

    id: str
    side: str
    index: int
    conversation: Conversation = ()
    response: str = ""
    reference: str | None = None
    rubric: Rubric | None = None
    error: str | None = None

    @property
    def key(self) -> ItemKey:
        """What tells the item from all others of its file."""
        return self.id, self.side, self.index


@dataclass(frozen=True, slots=True)
class ScoreInput:
    """An input file. It is read anew each time, a row at a time, so it may be larger than memory.

    Args:
        path: JSON Lines, or Parquet that `data_prep/prepare.py` wrote.
        kind: `pairs`: rows as in `pairs.jsonl`. `responses`: rows with `conversation` (or `prompt`) and
            `response` (or `completion`), and perhaps `reference` and `rubric`. `candidates`: the same with a list
            `responses` (or `completions`).
        limit: Rows to use, from the first; all by default.
    """

    path: Path
    kind: InputKind
    limit: int | None = None

    def items(self) -> Iterator[ScoreItem]:
        """One item for each response, in the file's order; the responses of one conversation are neighbours.

        A row without an id gets its line number as its id. One that can't be judged gives items with an `error`.

        Raises:
            DataError: For a line that is no JSON object, or an id that stands twice.
        """
        for where, row_id, record in self.rows():
            if self.kind == "responses":
                yield _response_item(where, row_id, record)
            elif self.kind == "candidates":
                yield from _candidate_items(where, row_id, record)
            else:
                yield from _pair_items(where, row_id, record)

    def pairs(self) -> Iterator[tuple[PreferencePair, str | None]]:
        """The pairs of a file of pairs, in its order, each with why it can't be read, or None.

        One that can't be read is a stand-in: id, subset, and as many responses as the row has, all empty. Written
        with the others it can't be read either, so a copy of the file has the same rows.

        Raises:
            DataError: See `items`.
        """
        for where, row_id, record in self.rows():
            yield _read_pair(where, row_id, record)

    def rows(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Place (`name:line`, the same on every machine), id and record of each row.

        Raises:
            DataError: See `items`.
        """
        lines: dict[str, str] = {}
        for where, record in islice(read_row_file(self.path), self.limit):
            line = where.rpartition(":")[2]
            row_id = line if record.get("id") is None else str(record["id"])
            if row_id in lines:
                raise DataError(
                    f"{where}: id {row_id!r} stands in line {lines[row_id]} too; make ids unique (a row without one "
                    "has its line number), for a scoring that was stopped goes on by its ids"
                )
            lines[row_id] = line
            yield f"{self.path.name}:{line}", row_id, record


def find_input(path: Path, kind: InputKind) -> Path:
    """The file to score: the path itself, or in a folder that `data_prep/prepare.py` wrote the one of this kind.

    Raises:
        DataError: If it is not there, or the folder is unfinished.
    """
    if not path.is_dir():
        if not path.is_file():
            raise DataError(f"{path}: no such file; name a JSON Lines file or a folder of data_prep/prepare.py")
        return path
    if kind not in _PREPARED_ROWS:
        raise DataError(f"{path}: is a folder; name the JSON Lines file of {kind}")
    file = find_rows(path, _PREPARED_ROWS[kind])
    if file is None:
        name = _PREPARED_ROWS[kind]
        raise DataError(f"{path}: no {name}.jsonl or {name}.parquet in this folder; name the JSON Lines file to score")
    if not (path / "manifest.json").is_file():
        raise DataError(f"{path}: no manifest.json, so it is not complete; prepare it again, or name the file itself")
    return file


def _response_item(where: str, row_id: str, record: dict[str, Any]) -> ScoreItem:
    try:
        response = _first(record, ("response", "completion"), where)
        text = read_response(response, f"{where}: response")
        return replace(_read_context(where, row_id, record), response=text)
    except (DataError, RubricError) as error:
        return ScoreItem(row_id, "response", 0, error=f"{type(error).__name__}: {error}")


def _candidate_items(where: str, row_id: str, record: dict[str, Any]) -> Iterator[ScoreItem]:
    """One item per candidate; a broken candidate is an error of its own, a broken row one of each."""
    responses = record.get("responses", record.get("completions"))
    try:
        if not isinstance(responses, list) or not responses:
            found = str(responses)[:80]
            raise DataError(f"{where}: responses (or completions) must be a list of responses, found {found!r}")
        context = _read_context(where, row_id, record)
    except (DataError, RubricError) as error:
        for index in range(len(responses) if isinstance(responses, list) and responses else 1):
            yield ScoreItem(row_id, "response", index, error=f"{type(error).__name__}: {error}")
        return
    for index, response in enumerate(responses):
        try:
            yield replace(context, index=index, response=read_response(response, f"{where}: responses[{index}]"))
        except DataError as error:
            yield ScoreItem(row_id, "response", index, error=f"DataError: {error}")


def _read_context(where: str, row_id: str, record: dict[str, Any]) -> ScoreItem:
    """The item of a row without its response."""
    # `conversation` first: in prepared data `prompt` is what the judge reads, rubric and all.
    conversation = _first(record, ("conversation", "prompt"), where)
    reference, rubric = record.get("reference"), record.get("rubric")
    if reference is not None and not isinstance(reference, str):
        raise DataError(f"{where}: reference: expected a text, found {str(reference)[:80]!r}")
    return ScoreItem(
        id=row_id,
        side="response",
        index=0,
        conversation=read_conversation(conversation, f"{where}: conversation"),
        reference=reference,
        rubric=None if rubric is None else Rubric.from_dict(rubric, f"{where}: rubric"),
    )


def _first(record: dict[str, Any], names: tuple[str, str], where: str) -> Any:
    value = next((record[name] for name in names if record.get(name) is not None), None)
    if value is None:
        raise DataError(f"{where}: neither {names[0]!r} nor {names[1]!r} is given")
    return value


def _read_pair(where: str, row_id: str, record: dict[str, Any]) -> tuple[PreferencePair, str | None]:
    try:
        return PreferencePair.from_dict({**record, "id": row_id}, where), None
    except DataError as error:
        given = (record.get(side) for side in SIDES)
        chosen, rejected = (("",) * len(r) if isinstance(r, list) and r else ("",) for r in given)
        return PreferencePair(row_id, str(record.get("subset", "")), (), chosen, rejected), f"DataError: {error}"


def _pair_items(where: str, row_id: str, record: dict[str, Any]) -> Iterator[ScoreItem]:
    pair, error = _read_pair(where, row_id, record)
    for side, responses in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        for index, response in enumerate(responses):
            yield ScoreItem(pair.id, side, index, pair.conversation, response, error=error)
