"""`settings.json` and `run.json`: what a run was told, and what came of it."""

from __future__ import annotations

import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from rmkit import __version__
from rmkit.errors import DataError
from rmkit.judge_config import FILE_NAME
from rmkit.manifest import read_json, write_json
from rmkit.training.checkpoints import agree_on_checkpoint

SETTINGS_FILE = "settings.json"
RUN_FILE = "run.json"

_FREE = {
    *("logging_steps", "logging_strategy", "report_to", "run_name", "save_total_limit", "disable_tqdm", "log_level"),
    "divergence_factor",  # it stops a run, and moves no step before
    *("push_to_hub", "hub_model_id", "hub_private_repo"),
    *("data", "deepspeed"),  # paths, of which the content is compared
}
"""Options that change no number, so that a run may be resumed with others."""

_PACKAGES = ("torch", "transformers", "accelerate", "deepspeed", "peft", "tokenizers", "datasets")


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write down what a run was told; it binds those that resume it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS_FILE, dict(settings))


def take_up(folder: Path, settings: Mapping[str, Any]) -> tuple[bool, str | None]:
    """Make sure that a training may use a folder, and find how far an earlier one came there.

    Returns:
        Whether the folder is complete; if not, the checkpoint to go on from, or None.

    Raises:
        DataError: If it can't be written to, or is of other settings or of something else.
    """
    is_complete = (folder / FILE_NAME).exists()
    checkpoint = None if is_complete else agree_on_checkpoint(folder)
    if not is_complete:
        _check_writable(folder)
    if checkpoint or is_complete:  # before that nothing can be lost, and a typing error may be corrected
        check_settings(folder, settings)
    else:
        _check_unused(folder)
    return is_complete, checkpoint


def _check_writable(folder: Path) -> None:
    """Make sure, before a model is loaded, that a folder can be written to, or made.

    Raises:
        DataError: If it can't be.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir():
        raise DataError(f"{place} is a file, not a folder; choose another output_dir")
    if not os.access(place, os.W_OK | os.X_OK):
        raise DataError(f"{place} can't be written to; choose another output_dir, or see to its rights")


def _check_unused(folder: Path) -> None:
    """Make sure that a training may write to a folder in which none has got anywhere yet.

    Raises:
        DataError: If its settings are of something else, such as a scoring.
    """
    path = folder / SETTINGS_FILE
    if path.exists() and "options" not in read_json(path):
        raise DataError(f"{folder}: its {SETTINGS_FILE} is not of a training; choose another output_dir")


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Compare with the settings that a folder was started with.

    Raises:
        DataError: If a setting differs, naming it and both values, or the folder says nothing of its settings.
    """
    path = folder / SETTINGS_FILE
    if not path.exists():
        raise DataError(
            f"{folder} has checkpoints but no {SETTINGS_FILE}, so it can't be resumed; choose another output_dir"
        )
    before = {key: value for key, value in read_json(path).items() if key != "format_version"}
    for key in sorted(set(before) | set(settings)):
        old, new = before.get(key), settings.get(key)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changed = sorted(o for o in set(old) | set(new) if old.get(o) != new.get(o) and o not in _FREE)
            if not changed:
                continue
            key, old, new = changed[0], old.get(changed[0]), new.get(changed[0])
        raise DataError(
            f"{folder} was started with {key}={old!r} and is now told {key}={new!r}; resume it with the settings "
            "it has, or choose another output_dir"
        )


def write_run(folder: Path, settings: Mapping[str, Any], figures: Mapping[str, Any], started: float) -> None:
    """Write `run.json`: settings, figures, versions, commit, device, times and memory.

    Args:
        folder: The judge folder.
        settings: What `check_settings` compares, and every argument with its resolved value.
        figures: What the run found, such as its last metrics and row counts.
        started: `time.time()` at the start.
    """
    write_json(
        folder / RUN_FILE,
        {
            "settings": dict(settings),
            **_speakable(dict(figures)),
            "versions": {"rmkit": __version__, "python": platform.python_version(), **_versions()},
            "commit": _commit(),
            "command": sys.argv,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})",
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "seconds": round(time.time() - started, 1),
            "peak_memory_bytes": _peak_memory(),
        },
    )


def _speakable(value: Any) -> Any:
    """The value with numbers that JSON has no word for, such as a loss of NaN, as texts."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _speakable(item) for key, item in value.items()}
    return [_speakable(item) for item in value] if isinstance(value, list) else value


def _versions() -> dict[str, str]:
    installed = {distribution.metadata["Name"] for distribution in metadata.distributions()}
    return {name: metadata.version(name) for name in _PACKAGES if name in installed}


def _commit() -> str | None:
    """The commit of the clone that runs, with `-dirty` where files differ; None outside a clone."""
    file = Path(__file__).resolve()
    git = ["git", "-C", str(file.parent)]
    try:
        # An installed rmkit may lie in somebody else's repository; there this file is not tracked.
        subprocess.run([*git, "ls-files", "--error-unmatch", file.name], capture_output=True, check=True)
        describe = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
