"""Paths into raw records: `scores.helpful` and `answers[0].text` name what a mapping reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rmkit.data.dataset import RecordError, describe, read_column
from rmkit.errors import DataError

_PATH = re.compile(r"[^.\[\]]+(\.[^.\[\]]+|\[-?[0-9]{1,9}\])*")
_STEP = re.compile(r"\[(-?[0-9]+)\]|[^.\[\]]+")


@dataclass(frozen=True, slots=True)
class RecordPath:
    """A column, and the way from there to a value within it.

    Args:
        steps: The column; then keys of objects, and places in lists, from 0, or from -1 at the end.
    """

    steps: tuple[str | int, ...]

    def __str__(self) -> str:
        """The path as people write it."""
        return str(self.steps[0]) + "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in self.steps[1:])

    def read(self, record: Mapping[str, Any]) -> Any:
        """The value at the end of the path.

        Raises:
            RecordError: `missing_column` where the record has no such column, key or place.
        """
        value = read_column(record, str(self.steps[0]))
        for done, step in enumerate(self.steps[1:], start=1):
            try:
                if isinstance(value, Mapping) and isinstance(step, str):
                    value = value[step]
                    continue
                if isinstance(value, list) and isinstance(step, int):
                    value = value[step]
                    continue
            except (KeyError, IndexError):
                pass
            here = f"path {str(self)!r}: {str(RecordPath(self.steps[:done]))!r}"
            what = f"key {step!r}" if isinstance(step, str) else f"place [{step}]"
            raise RecordError("missing_column", f"{here} has no {what}; it is {describe(value)}")
        return value


def parse_path(value: Any, where: str) -> RecordPath:
    """Read a path that people wrote: text such as `answers[0].text`, or its steps as a list.

    The list serves names that hold dots or brackets: `["rating [1-5]"]`.

    Raises:
        DataError: If it is neither.

    Example:
        >>> parse_path("answers[0].text", "here").steps
        ('answers', 0, 'text')
    """
    if isinstance(value, str) and _PATH.fullmatch(value):
        found = _STEP.finditer(value)
        return RecordPath(tuple(int(match[1]) if match[1] else match[0] for match in found))
    steps = value if isinstance(value, list) else []
    whole = all(isinstance(step, str) or (isinstance(step, int) and not isinstance(step, bool)) for step in steps)
    if steps and whole and isinstance(steps[0], str):
        return RecordPath(tuple(steps))
    raise DataError(
        f"{where}: expected a path such as question, scores.helpful or answers[0].text, found {str(value)[:80]!r}; "
        "a name with dots or brackets is written as a list: ['rating [1-5]']"
    )
