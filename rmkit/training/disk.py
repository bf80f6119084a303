"""A full disk, whatever the library that met it calls it."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from rmkit.errors import TrainingError
from rmkit.training.checkpoints import find_checkpoint

_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
_WORDS = ("no space left on device", "disk quota exceeded", *(f"(os error {number})" for number in _ERRNOS))
_LITTLE = 2**20  # bytes; torch says only that a write came out short, and the last page may stay free


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Turn what is raised for a full disk into an error that says so; other errors pass.

    Args:
        folder: Where training writes.

    Raises:
        TrainingError: If the disk is full.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, TrainingError) or not folder.exists():
            raise
        free = shutil.disk_usage(folder).free
        if not _is_full(error, free):
            raise
        last = find_checkpoint(folder)
        raise TrainingError(
            f"no space left on the disk of {folder} ({free} bytes free): {error}; "
            f"{'there is no whole checkpoint yet' if last is None else f'the last whole checkpoint is {last}'}; "
            "make space, and the same command goes on"
        ) from error


def _is_full(error: BaseException, free: int) -> bool:
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any(isinstance(cause, OSError) and cause.errno in _ERRNOS for cause in causes):
        return True
    texts = [str(cause).lower() for cause in causes]
    if any(word in text for text in texts for word in _WORDS):
        return True
    return free < _LITTLE and any("inline_container" in text or "streamwriter" in text for text in texts)
