"""Judgements on disk, so that what was judged once is not judged again, by any process."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rmkit.client import read_judgment
from rmkit.errors import DataError
from rmkit.schema import Judgment

_VERSION = 1
_AT_A_TIME = 500  # SQLite takes at least 999 parameters
_SECONDS = 60.0  # to wait for other writers


class JudgmentCache:
    """A file of judgements, which several processes of one machine may use at a time.

    Args:
        path: The file; it is made when it is first written to. Its folder must exist.
        judge: What tells this judge, and how it is run, from all others.
    """

    def __init__(self, path: Path, judge: str) -> None:
        self._path = path
        self._judge = judge

    def read(self, items: Iterable[str]) -> dict[str, Judgment]:
        """The judgements that are there.

        Args:
            items: What is judged, each as a text that says all of it.

        Raises:
            DataError: If the file is no cache.
        """
        wanted = {self._hash(item): item for item in items}
        hashes = list(wanted)
        found = {}
        with self._open() as database:
            for start in range(0, len(hashes), _AT_A_TIME):
                part = hashes[start : start + _AT_A_TIME]
                marks = ", ".join("?" * len(part))
                for key, text in database.execute(f"SELECT key, judgment FROM judgments WHERE key IN ({marks})", part):
                    found[wanted[key]] = self._read_row(text)
        return found

    def write(self, judgments: Mapping[str, Judgment]) -> None:
        """Add judgements.

        Args:
            judgments: By what is judged; none of them failed.

        Raises:
            DataError: If the file is no cache, or can't be written.
        """
        rows = [
            (self._hash(item), json.dumps(judged.to_dict(), allow_nan=False)) for item, judged in judgments.items()
        ]
        with self._open() as database:
            database.executemany("INSERT OR REPLACE INTO judgments VALUES (?, ?)", rows)

    def _read_row(self, text: str) -> Judgment:
        try:
            return read_judgment(json.loads(text))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{self._path}: {str(text)[:80]!r} is no judgement ({error}); delete the file, or name another cache"
            ) from error

    def _hash(self, item: str) -> str:
        return hashlib.sha256(json.dumps([_VERSION, self._judge, item]).encode()).hexdigest()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection and a transaction. They don't outlast the call: no process or thread inherits them."""
        try:
            database = sqlite3.connect(self._path, timeout=_SECONDS)
            try:
                with database:
                    database.execute("CREATE TABLE IF NOT EXISTS judgments (key TEXT PRIMARY KEY, judgment TEXT)")
                    yield database
            finally:
                database.close()
        except sqlite3.Error as error:
            raise DataError(f"{self._path}: can't be used as a cache of judgements: {error}") from error
