"""The benchmark of training in small: all trainers run on the same rows, and the counts are what the layouts say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SMALL = ["--rounds", "1", "--conversations", "3", "--hidden", "64", "--layers", "1", "--rows", "6", "--no-memory"]


def test_it_prints_its_table(repo: Path) -> None:
    command = [sys.executable, "benchmarks/training.py", *SMALL, "--variants", "padded", "trl", "separate", "shared"]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    cells = [line.split("|") for line in done.stdout.splitlines() if line.startswith(("| padded", "| SFT", "| rmkit"))]
    padded, trl, separate, shared = (int(row[2].replace(",", "")) for row in cells)
    assert shared < separate == trl < padded
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("shared prompts over SFTTrainer, packed")]
    assert line.endswith(f"tokens allow {trl / shared:.2f}")
