"""The folder that a scoring writes: settings first, then scores, a chunk at a time, and the manifest last.

`scores.jsonl` only grows, in the order of the input, so a scoring that is killed goes on where it stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rmkit.errors import DataError
from rmkit.jsonl import dump_line, read_jsonl, write_jsonl
from rmkit.manifest import read_json, write_json
from rmkit.schema import Judgment
from rmkit.scoring.items import ItemKey, ScoreItem

SETTINGS_FILE = "settings.json"
SCORES_FILE = "scores.jsonl"
PAIRS_FILE = "pairs.jsonl"
MANIFEST_FILE = "manifest.json"
LOCK_FILE = ".lock"

_NAMES = ("format_version", "judge", "input")
"""Settings for the reader. What counts are the hashes beside them: a file may be moved and stay the same."""

_OPTIONS = {
    "judge_sha256": "--judge (the files of the model)",
    "input_sha256": "--input (the content of the file)",
    "calibration_sha256": "--calibration (the content of the file)",
    "truncate": "--truncate-turns",
    "kind": "kind of input",
    "prompt_version": "version of rmkit (its prompts)",
}


class ScoreFolder:
    """The output of one scoring. `ScoreFolder.open` gives one that no other process writes to.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scores = path / SCORES_FILE
        self.manifest = path / MANIFEST_FILE

    @classmethod
    @contextmanager
    def open(cls, path: Path, settings: Mapping[str, Any]) -> Iterator[ScoreFolder]:
        """Lock a new folder, or one that was begun with the same settings, and repair what a kill left.

        The lock goes with the process, also when that is killed; its empty file may stay.

        Args:
            path: The folder; made where there is none.
            settings: What determines the scores, as JSON data. `judge` and `input` are names for the reader.

        Raises:
            DataError: If another process writes here, the settings differ, or the folder holds something else.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path / LOCK_FILE)
            lock.acquire(timeout=0)
        except Timeout as error:
            raise DataError(f"{path}: another process is scoring into this folder; wait for it to end") from error
        except OSError as error:
            raise DataError(f"{path}: can't be written to ({error})") from error
        try:
            folder = cls(path)
            folder._check_settings(settings)
            folder._repair()
            yield folder
        finally:
            lock.release()

    @property
    def is_complete(self) -> bool:
        """Whether the scoring has ended."""
        return self.manifest.is_file()

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        file = self.path / SETTINGS_FILE
        if not file.is_file():
            for name in (SCORES_FILE, PAIRS_FILE, MANIFEST_FILE):
                if (self.path / name).exists():
                    raise DataError(
                        f"{self.path}: holds {name} but no {SETTINGS_FILE}, so no scoring was begun here; "
                        "choose another --output"
                    )
        elif "judge" not in read_json(file):
            raise DataError(
                f"{self.path}: its {SETTINGS_FILE} is of something else, such as a training; choose another --output"
            )
        if not self.scores.is_file() and not self.is_complete:  # nothing is scored, so nothing is bound yet
            write_json(file, dict(settings))
            return
        before = read_json(file)
        now = json.loads(json.dumps(settings))  # as it would come back: tuples are lists, keys are texts
        for key in (*now, *before):
            if key not in _NAMES and before.get(key) != now.get(key):
                option = _OPTIONS.get(key, f"--{key}")
                raise DataError(
                    f"{self.path}: was begun with another {option}: {_shorten(before.get(key))} then, "
                    f"{_shorten(now.get(key))} now; repeat the command it was begun with, or choose another --output"
                )

    def _repair(self) -> None:
        """Cut a last line that was only half written."""
        if not self.scores.is_file():
            return
        with self.scores.open("rb+") as file:
            size = end = file.seek(0, os.SEEK_END)
            while end:
                start = max(end - 65_536, 0)
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                if newline >= 0:
                    end = start + newline + 1
                    break
                end = start
            if end < size:
                file.truncate(end)
                os.fsync(file.fileno())

    def match(self, items: Iterator[ScoreItem]) -> Iterator[tuple[ScoreItem, dict[str, Any]]]:
        """The records that are here, each with its item, which it takes from `items`; those left are to be judged.

        Raises:
            DataError: If a line is no record, or the records are not those of the items, in their order.
        """
        if not self.scores.is_file():
            return
        for where, record in read_jsonl(self.scores):
            key = _read_key(record, where)
            item = next(items, None)
            if item is None or item.key != key:
                found = "nothing" if item is None else _describe_key(item.key)
                raise DataError(
                    f"{where}: holds the score of {_describe_key(key)} where the input has {found}; the file was "
                    "changed by hand: choose another --output"
                )
            yield item, record

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add records for good: when this returns, they are on the disk.

        Raises:
            DataError: If they can't be written, for example because the disk is full.
        """
        try:
            with self.scores.open("a", encoding="utf-8") as file:
                file.write("".join(map(dump_line, records)))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DataError(
                f"{self.scores}: can't be written to ({error}); make room, and the same command goes on from here"
            ) from error

    def replace(self, records: Mapping[ItemKey, Mapping[str, Any]]) -> None:
        """Put new records in the place of old ones, all at once; the folder is not complete any more."""
        temporary = self.scores.with_name(SCORES_FILE + ".tmp")
        old = read_jsonl(self.scores)
        write_jsonl(temporary, (records.get(_read_key(record, where), record) for where, record in old))
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        self.manifest.unlink(missing_ok=True)
        temporary.replace(self.scores)

    def write_pairs(self, pairs: Iterable[Mapping[str, Any]]) -> None:
        """Keep the pairs beside their scores, for the report; the file is the old one or the new one."""
        temporary = self.path / (PAIRS_FILE + ".tmp")
        write_jsonl(temporary, pairs)
        temporary.replace(self.path / PAIRS_FILE)

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest: the folder is complete."""
        write_json(self.manifest, dict(manifest))


def to_record(item: ScoreItem, judgment: Judgment) -> dict[str, Any]:
    """A line of `scores.jsonl`."""
    return {"id": item.id, "side": item.side, "index": item.index, **judgment.to_dict()}


def _read_key(record: Mapping[str, Any], where: str) -> ItemKey:
    missing = {"id", "side", "index", "aggregate", "truncated", "error"} - record.keys()
    if missing:
        raise DataError(f"{where}: no score record, {sorted(missing)[0]!r} is missing; choose another --output")
    return record["id"], record["side"], record["index"]


def _describe_key(key: ItemKey) -> str:
    return f"{key[0]!r} ({key[1]} {key[2]})"


def _shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:56] + " ..."
