"""The benchmark of rewards in small: every reward is measured on the same steps of TRL, in process and over HTTP."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def test_it_prints_its_tables(repo: Path) -> None:
    sizes = "--rounds 1 --prompts 2 --generations 2 --completion 12 --hidden 64 --layers 1 --vocabulary 800"
    command = [sys.executable, "benchmarks/reward.py", *sizes.split()]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    names = [row[0].strip() for row in rows]
    assert len(rows) == 7 and names[0].startswith("TRL's scalar") and sum("HTTP" in name for name in names) == 2
    ratios, shares = ([float(row[column].strip().rstrip("%")) for row in rows] for column in (5, 6))
    assert ratios[0] == 1 and all(ratio > 0 for ratio in ratios) and all(0 < share < 100 for share in shares)
    # The naive judge generates a line of dozens of tokens, one step at a time; the others do not.
    assert ratios[1] > ratios[2]
    assert re.search(r"Async over HTTP beside another async reward: .* s together", done.stdout)
