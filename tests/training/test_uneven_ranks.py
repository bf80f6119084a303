"""A rank, or a whole step, without a score token: no hang, no NaN, and the loss that one process has."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROGRAM = "tests/training/uneven_ranks.py"
FEW_MINUTES = 300  # seconds; a run takes 15 on two idle cores


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, run_command: Callable[..., tuple[int, str]]) -> Path:
    folder = tmp_path_factory.mktemp("uneven")
    for more in ([], ["wide"]):
        command = [sys.executable, PROGRAM, "none", str(folder), *more]
        status, text = run_command(command, folder / f"none{''.join(more)}.log", FEW_MINUTES)
        assert status == 0, text[-4000:]
    return folder


def logged(folder: Path, setup: str) -> dict[str, Any]:
    return json.loads((folder / f"{setup}.json").read_text("utf-8"))


def test_one_process_meets_steps_with_and_without_score_tokens(output: Path) -> None:
    scores = [line["loss_scores"] for line in logged(output, "none")["log"]]
    assert all(score > 0.01 for score in scores[:-1])
    assert scores[-1] == 0.0
    pairs = [line["loss_preferences"] for line in logged(output, "none")["log"]]
    assert all(pair > 0.01 for pair in pairs[:-1])
    assert pairs[-1] == 0.0


@pytest.mark.parametrize("setup", ["zero1", "zero2", "zero3", "ddp", "ddp wide", "zero3 wide"])
def test_ranks_without_score_tokens(
    output: Path, launch: Callable[..., list[str]], run_command: Callable[..., tuple[int, str]], setup: str
) -> None:
    kind, *more = setup.split()
    command = [*launch("torchrun", 2), PROGRAM, kind, str(output), *more]
    status, text = run_command(command, output / f"{setup}.log", FEW_MINUTES)
    assert status == 0, text[-4000:]
    suffix = "_wide" if more else ""
    found, expected = logged(output, kind + suffix), logged(output, "none" + suffix)
    assert found["zero3"] == (kind == "zero3")
    assert found["ranks"] == 2
    assert len(found["log"]) == len(expected["log"]) == 4
    for line, alone in zip(found["log"], expected["log"], strict=True):
        for name in ("loss", "loss_tokens", "loss_scores", "loss_preferences"):
            assert line[name] == pytest.approx(alone[name], abs=1e-5), (line["step"], name)
    # Under SGD equal weights after each step are equal gradients.
    assert found["weights"].keys() == expected["weights"].keys()
    for name, values in expected["weights"].items():
        assert found["weights"][name] == pytest.approx(values, abs=1e-5), name
