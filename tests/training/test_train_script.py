"""`train/train.py` as a process: its exit status, what it says, and that a refusal loses nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_finished_folder_is_left_alone(
    single_run: Any, run_command: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    before = contents(single_run.folder)
    status, text = run_command(single_run.command, tmp_path / "again.log")
    assert status == 0, text
    assert f"{single_run.folder} is complete already; choose another output_dir to train anew" in text
    assert contents(single_run.folder) == before

    status, text = run_command([*single_run.command, "--learning_rate", "0.5"], tmp_path / "changed.log")
    assert status == 1
    assert f"train.py: {single_run.folder} was started with learning_rate=0.001 and is now told " in text
    assert "learning_rate='0.5'; resume it with the settings it has, or choose another output_dir" in text
    assert "Traceback" not in text
    assert contents(single_run.folder) == before


def test_what_a_run_says(single_run: Any) -> None:
    lines = single_run.output.splitlines()
    rows = single_run.record["rows"]["train"]
    assert f"trained 20 steps on {rows} rows; left out as too long: {{'train': 0, 'validation': 0}}" in lines
    assert lines[-1] == f"judge: {single_run.folder}"
    assert f"  loss: {single_run.record['metrics']['eval_loss']:.4f}" in lines
    assert "it/s]" not in single_run.output  # no progress bars in a file


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (
            ("--learning_rat", "1"),
            2,
            "unknown option 'learning_rat' in the command line; did you mean 'learning_rate'?",
        ),
        (("--data", "absent"), 1, "train.py: absent has no manifest.json"),
    ],
)
def test_bad_input(
    train_command: Callable[..., list[str]],
    run_command: Callable[..., tuple[int, str]],
    tmp_path: Path,
    options: tuple[str, ...],
    status: int,
    message: str,
) -> None:
    command = train_command(tmp_path / "judge", *options, name="python", ranks=1)
    assert command[0] == sys.executable
    found, text = run_command(command, tmp_path / "log")
    assert found == status
    assert message in text
    assert "Traceback" not in text
    assert not (tmp_path / "judge").exists()


def test_accelerate_launches_it(train: Callable[..., Any], zero2_run: Any, tmp_path: Path) -> None:
    once = ("--max_steps", "2", "--eval_steps", "2", "--save_steps", "2", "--validation_rows", "2")
    run = train(tmp_path / "judge", *once, name="accelerate")
    assert run.record["settings"]["world_size"] == 2
    assert run.losses == pytest.approx({step: zero2_run.losses[step] for step in (1, 2)}, abs=1e-4)
