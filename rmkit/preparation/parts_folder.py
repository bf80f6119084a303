"""The folder that holds finished parts until the last one is, so that a run that was killed can go on."""

from __future__ import annotations

import json
import os
from pathlib import Path

from rmkit.errors import DataError

KEY_FILE = "key.json"


class PartsFolder:
    """Finished parts of one run, and what determines them.

    Parts carry a token that is drawn when the run begins. What it stands for, the run's key, is noted beside them as
    soon as it is known: the hash of a large file takes seconds, in which parts are made already.

    Args:
        path: The folder; made where there is none.

    Raises:
        DataError: If it can't be made.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"output folder {path.parent}: can't be written ({error})") from error
        self.path = path
        self.token = ""
        self._is_noted = False

    @property
    def is_begun(self) -> bool:
        """Whether an earlier run has noted its key here."""
        return (self.path / KEY_FILE).is_file()

    def go_on(self, key: str) -> bool:
        """Take up an earlier run's token if that run had this key; whether it had."""
        try:
            found = json.loads((self.path / KEY_FILE).read_text("utf-8"))
            self._is_noted = found["key"] == key
            self.token = found["token"]
        except (OSError, ValueError, KeyError, TypeError):
            self._is_noted = False
        return self._is_noted

    def begin(self) -> None:
        """Begin anew: what an earlier run has left is removed."""
        (self.path / KEY_FILE).unlink(missing_ok=True)  # first of all: without it, parts are nobody's
        for part in self.path.glob("*.part*"):
            part.unlink()
        self.token = os.urandom(16).hex()

    def note(self, key: str) -> None:
        """Note the run's key, from when on its parts are kept for another run."""
        temporary = self.path / f"{KEY_FILE}.tmp"
        temporary.write_text(json.dumps({"key": key, "token": self.token}), "utf-8")
        temporary.replace(self.path / KEY_FILE)
        self._is_noted = True

    @property
    def is_noted(self) -> bool:
        """Whether the run's key stands here."""
        return self._is_noted

    def part(self, source: int, number: int) -> tuple[Path, str]:
        """A part's file, and the key that it is saved with."""
        return self.path / f"{source:03d}-{number:07d}.part", f"{self.token} {source} {number}"
