"""The bound of the check, and the folder that waits for it; what it refuses is in test_faults.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rmkit.training.export_check import EXACT, PACKED, ROUNDED, choose_bound, stage_export


@pytest.mark.parametrize(
    ("dtype", "in_16_bits", "bound"),
    [
        (torch.float32, False, EXACT),
        (torch.float32, True, ROUNDED),
        (torch.bfloat16, False, ROUNDED),
        (torch.uint8, False, PACKED),
    ],
)
def test_what_training_computed_in_sets_the_bound(dtype: torch.dtype, in_16_bits: bool, bound: float) -> None:
    model = nn.Linear(2, 2)
    model.weight = nn.Parameter(torch.zeros(2, 2, dtype=dtype), requires_grad=False)
    assert choose_bound(model, in_16_bits) == bound


def test_what_an_export_left_that_was_cut_off_is_removed(tmp_path: Path) -> None:
    staging = stage_export(tmp_path / "judge")
    (staging / "model.safetensors").write_bytes(b"half of it")
    assert stage_export(tmp_path / "judge") == staging
    assert list(staging.iterdir()) == []
