"""The exported judge, loaded and scored as a user would, against the model in memory."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import distributed, nn

from rmkit.errors import JudgeError, TokenizerError
from rmkit.judge import Judge
from rmkit.judge_config import FILE_NAME
from rmkit.schema import Judgment, RatedResponse
from rmkit.training.checkpoints import flush_to_disk

STAGING_FOLDER = "export.unchecked"
EXACT = 1e-3
"""Largest difference of a probability between memory and folder, where both compute in float32."""
ROUNDED = 0.1
"""The same where one of them computes in 16 bits, whose rounding moves logits by some hundredths."""
PACKED = 0.5
"""The same for adapters that were trained on a base in 4 bits and are merged into the whole one."""


def stage_export(folder: Path) -> Path:
    """An empty folder within the judge folder, for an export that is not checked yet; rank 0 makes it."""
    staging = folder / STAGING_FOLDER
    if not distributed.is_initialized() or distributed.get_rank() == 0:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
    if distributed.is_initialized():
        distributed.barrier()
    return staging


def score_rows(judge: Judge, rows: Sequence[RatedResponse]) -> list[Judgment]:
    """Judge rows with what they bring; under ZeRO-3 every rank calls it."""
    return judge.score(
        [row.conversation for row in rows],
        [row.response for row in rows],
        [row.reference for row in rows],
        [row.rubric for row in rows],
    )


def choose_bound(model: nn.Module, in_16_bits: bool) -> float:
    """How far a probability may be from the one in memory, for a model as it was trained."""
    kinds = {parameter.dtype for parameter in model.parameters()}
    if not all(kind.is_floating_point for kind in kinds):
        return PACKED
    return EXACT if kinds == {torch.float32} and not in_16_bits else ROUNDED


def publish_export(
    staging: Path, folder: Path, rows: Sequence[RatedResponse], expected: Sequence[Judgment], bound: float
) -> float:
    """Load the staged judge, score rows, and move it to its place if the scores are those of the model in memory.

    `judge_config.json`, which makes a folder a judge, is moved last. Every rank calls it; rank 0 works.

    Args:
        staging: From `stage_export`, with all files of the judge.
        folder: The judge folder.
        rows: Some rows.
        expected: What the model in memory says of them.
        bound: Largest difference of a probability, see `choose_bound`.

    Returns:
        The largest difference of a probability; 0.0 on ranks other than 0.

    Raises:
        JudgeError: On every rank, if the folder does not load or scores otherwise. It is left where it is.
    """
    outcome: list[str | float] = [0.0]
    if not distributed.is_initialized() or distributed.get_rank() == 0:
        try:
            outcome = [_compare(staging, rows, expected, bound)]
            _move(staging, folder)
        except (JudgeError, TokenizerError) as error:
            outcome = [f"{staging}: the exported judge is not the one that was trained: {error}"]
    if distributed.is_initialized():
        distributed.broadcast_object_list(outcome, src=0)
    if isinstance(outcome[0], str):
        raise JudgeError(outcome[0])
    return outcome[0]


def _compare(folder: Path, rows: Sequence[RatedResponse], expected: Sequence[Judgment], bound: float) -> float:
    judge = Judge.load(folder, truncate=True, device=_choose_device(folder))
    largest = 0.0
    for row, found, wanted in zip(rows, score_rows(judge, rows), expected, strict=True):
        if found.error != wanted.error or found.attributes.keys() != wanted.attributes.keys():
            raise JudgeError(f"row {row.id}: it says {found.error or 'scores'}, in memory {wanted.error or 'scores'}")
        for key, distribution in found.attributes.items():
            other = wanted.attributes[key]
            moved = np.abs(np.subtract(distribution.probabilities, other.probabilities)).max()
            difference = max(float(moved), abs(distribution.outside_mass - other.outside_mass))
            if not difference <= bound:
                raise JudgeError(
                    f"row {row.id}: a probability of {key} is {difference:.2g} from that in memory, where "
                    f"{bound:g} is allowed; please report it; the checkpoints are untouched"
                )
            largest = max(largest, difference)
    return largest


def _choose_device(folder: Path) -> str | None:
    """The CPU where the GPU, still full of the training, has no room for a second copy."""
    if not torch.cuda.is_available():
        return None
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return None if torch.cuda.mem_get_info()[0] > 1.5 * size + 2**30 else "cpu"


def _move(staging: Path, folder: Path) -> None:
    for path in staging.rglob("*"):
        flush_to_disk(path)
    for path in sorted(staging.iterdir(), key=lambda path: path.name == FILE_NAME):
        target = folder / path.name
        if target.is_dir():
            shutil.rmtree(target)
        path.replace(target)
    staging.rmdir()
