"""Checkpoints that are whole or do not count."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import distributed

from rmkit.errors import DataError
from rmkit.manifest import read_json, write_json

COMPLETE_FILE = "complete.json"
"""Names and sizes of a checkpoint's files, written last, when all ranks have written theirs."""

logger = logging.getLogger(__name__)


def find_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that can be resumed, or None."""
    whole = (path for step, path in sorted(_checkpoints(folder), reverse=True) if find_fault(path, step) is None)
    return next(map(str, whole), None)


def agree_on_checkpoint(folder: Path) -> str | None:
    """What rank 0 finds with `find_checkpoint`, on every rank; says of each newer checkpoint what is torn.

    Raises:
        DataError: If this rank can't see the folder that rank 0 found.
    """
    rank = distributed.get_rank() if distributed.is_initialized() else 0
    found = [find_checkpoint(folder) if rank == 0 else None]
    for step, path in sorted(_checkpoints(folder), reverse=True) if rank == 0 else ():
        if str(path) == found[0]:
            break
        logger.warning("%s is not resumed: %s", path, find_fault(path, step))
    if distributed.is_initialized():
        distributed.broadcast_object_list(found, src=0)
    if found[0] is not None and not Path(found[0]).is_dir():
        raise DataError(
            f"{found[0]} is not there on rank {rank} ({socket.gethostname()}); output_dir must be on a file system "
            "that all nodes share"
        )
    return found[0]


def find_fault(checkpoint: Path, step: int) -> str | None:
    """Why a checkpoint can't be resumed, or None if it can."""
    if not (checkpoint / COMPLETE_FILE).is_file():
        return f"it has no {COMPLETE_FILE}, so it was cut off while it was written"
    try:
        record = read_json(checkpoint / COMPLETE_FILE)
        for name, size in record["files"].items():
            file = checkpoint / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != size:
                return f"{name} has {file.stat().st_size} bytes of {size}"
        if record["model_only"]:
            return "it holds the model only (save_only_model)"
        found = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))["global_step"]
    except (DataError, KeyError, TypeError, ValueError, OSError) as error:
        return f"{COMPLETE_FILE} or trainer_state.json is damaged ({error})"
    return None if found == step else f"its trainer_state.json is of step {found}"


def clear_checkpoint(checkpoint: Path) -> None:
    """Make room for a checkpoint where a torn one may lie, of which no file shall be taken for one of the new."""
    if checkpoint.is_dir():
        (checkpoint / COMPLETE_FILE).unlink(missing_ok=True)
        shutil.rmtree(checkpoint)


def complete_checkpoint(checkpoint: Path, model_only: bool) -> None:
    """Write down that a checkpoint is whole, once all that it holds is on the disk.

    Args:
        checkpoint: Its folder, to which all ranks have written.
        model_only: Whether it lacks what resuming needs.
    """
    files = {}
    for path in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
        flush_to_disk(path)
        files[path.relative_to(checkpoint).as_posix()] = path.stat().st_size
    write_json(checkpoint / COMPLETE_FILE, {"files": files, "model_only": model_only})
    flush_to_disk(checkpoint)
    flush_to_disk(checkpoint.parent)


def remove_old_checkpoints(folder: Path, limit: int | None, best: str | None) -> None:
    """Delete torn checkpoints, and the oldest whole ones beyond the limit; to be called when a new one is whole.

    Args:
        folder: Holds them.
        limit: Whole ones to keep, the newest and the best among them; None or 0 keeps all.
        best: The best one so far, which is kept.
    """
    whole = [path for _, path in sorted(_checkpoints(folder)) if (path / COMPLETE_FILE).is_file()]
    kept = set(whole[-1:]) | {path for path in whole if best is not None and path.name == Path(best).name}
    for path in reversed(whole):
        if not limit or limit < 0 or len(kept) < limit:
            kept.add(path)
    for _, path in _checkpoints(folder):
        if path not in kept and whole:
            clear_checkpoint(path)


def _checkpoints(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in list(folder.glob("checkpoint-*")):
        if path.is_dir() and re.fullmatch(r"checkpoint-\d+", path.name):
            yield int(path.name.rpartition("-")[2]), path


def flush_to_disk(path: Path) -> None:
    """Wait until a file or folder is on the disk, as far as the system can tell."""
    handle: Any = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
