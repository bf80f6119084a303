"""The benchmark of reading scores in small: it holds all variants to one another, and counts what each computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_it_prints_its_table(repo: Path) -> None:
    command = [
        sys.executable,
        "benchmarks/scoring.py",
        "--rounds",
        "1",
        "--pairs",
        "3",
        "--hidden",
        "64",
        "--layers",
        "1",
    ]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [
        line.split("|") for line in done.stdout.splitlines() if line.startswith(("| one", "| five", "| a forward"))
    ]
    plain, alone, shared, independent, prefills = (int(row[2].replace(",", "")) for row in rows)
    assert independent < shared < alone < plain < prefills
