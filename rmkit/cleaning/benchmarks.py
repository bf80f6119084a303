"""Benchmark prompts, read from wherever they stand."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmkit.data import DATASETS
from rmkit.data.dataset import Dataset, RecordError
from rmkit.errors import DataError
from rmkit.manifest import read_json
from rmkit.raw.files import RawRecord, read_records
from rmkit.raw.source import open_source
from rmkit.row_files import find_rows
from rmkit.schema import Conversation, read_conversation

PROMPT_COLUMNS = ("conversation", "messages", "turns", "prompt", "question", "instruction", "input", "text")
"""Columns that may hold the prompts of a file; the first that a record has counts."""

_ID_COLUMNS = ("id", "question_id", "prompt_id", "pair_id")
_MAX_NAMED = 3  # unread records that the warning names

logger = logging.getLogger(__name__)

Prompt = tuple[str, Conversation]
"""A prompt's id and its conversation."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The prompts of one benchmark.

    Args:
        name: What hits call it.
        prompts: Id and conversation of each.
        unread: Records that no prompt could be read from.
    """

    name: str
    prompts: tuple[Prompt, ...]
    unread: int = 0


def read_benchmark(given: str, column: str | None = None) -> Benchmark:
    """Read a benchmark's prompts.

    Args:
        given: One of

            - a folder that data_prep/prepare.py wrote;
            - a file: JSON Lines, JSON, CSV or Parquet with one of `PROMPT_COLUMNS`, which holds a text, a list of user
              turns, or chat messages; or `.txt` with one prompt a line;
            - `NAME=FILE`: a file as published for a data set in `DATASETS`, read by its adapter;
            - `NAME`: the same from the hub.
        column: The column that holds the prompts of a file; None for the first of the usual ones.

    Raises:
        DataError: If it is none of these, can't be read, or holds no prompt.
    """
    name, _, file = given.partition("=")
    path = Path(given)
    if name in DATASETS and (file or not path.exists()):
        found = _read_published(DATASETS[name], file or None)
    elif path.is_dir():
        name, found = path.name, _read_prepared(path)
    elif path.is_file():
        name = path.name.partition(".")[0]
        found = _read_lines(path) if path.suffix == ".txt" else _read_file(path, column)
    else:
        raise DataError(
            f"benchmark {given}: neither a file, a prepared folder nor a known data set; known are "
            f"{', '.join(sorted(DATASETS))}, also as NAME=FILE"
        )
    prompts, unread = [], []
    for item in found:
        if isinstance(item, str):
            unread.append(item)
        else:
            prompts.append(item)
    if unread:
        shown = "; ".join(unread[:_MAX_NAMED])
        if not prompts:
            raise DataError(f"benchmark {given}: no prompt could be read ({shown})")
        logger.warning("benchmark %s: no prompt could be read from %d records (%s)", given, len(unread), shown)
    if not prompts:
        raise DataError(f"benchmark {given}: it holds no prompt")
    return Benchmark(name, tuple(prompts), len(unread))


def _read_published(dataset: Dataset, file: str | None) -> Iterator[Prompt | str]:
    source = open_source(dataset, file)
    for raw in source.records:
        try:
            if isinstance(raw.content, str) or raw.reason:
                raise RecordError(raw.reason, raw.message)
            for number, item in enumerate(dataset.read(raw.content)):
                yield getattr(item, "id", "") or f"{raw.line}.{number}", item.conversation
        except RecordError as error:
            # Whatever is wrong with its responses or ratings, its prompt must not be trained on.
            try:
                yield _read_record(raw, None)
            except DataError:
                yield f"{source.name}:{raw.line}: {error}"


def _read_prepared(folder: Path) -> Iterator[Prompt | str]:
    read_json(folder / "manifest.json")  # there is one, so the folder is complete
    for name in ("train", "validation", "pairs"):
        if path := find_rows(folder, name):
            yield from _read_file(path, "conversation")


def _read_lines(path: Path) -> Iterator[Prompt | str]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"line {number}", read_conversation(line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read ({error})") from error


def _read_file(path: Path, column: str | None) -> Iterator[Prompt | str]:
    for raw in read_records(path):
        try:
            yield _read_record(raw, column)
        except DataError as error:
            yield f"{path.name}:{raw.line}: {error}"


def _read_record(raw: RawRecord, column: str | None) -> Prompt:
    if isinstance(raw.content, str) or raw.reason:
        raise DataError(raw.message)
    names: Iterable[str] = (column,) if column else PROMPT_COLUMNS
    used = next((name for name in names if raw.content.get(name)), None)
    if used is None:
        raise DataError(
            f"expected a prompt in {column or 'one of ' + ', '.join(PROMPT_COLUMNS)}; the columns are "
            f"{', '.join(map(str, list(raw.content)[:12]))}"
        )
    value: Any = raw.content[used]
    if isinstance(value, list) and all(isinstance(turn, str) for turn in value):
        value = [{"role": "user", "content": turn} for turn in value]
    return _read_id(raw.content) or f"line {raw.line}", read_conversation(value, used)


def _read_id(record: Mapping[str, Any]) -> str:
    found = next((record[name] for name in _ID_COLUMNS if isinstance(record.get(name), str | int)), "")
    return str(found)
