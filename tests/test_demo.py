"""The whole way, in small: what `make demo` runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from rmkit.judge import Judge


def test_the_demo_runs_every_stage(repo: Path, tmp_path: Path) -> None:
    command = [sys.executable, "demo.py", "--output", str(tmp_path / "demo"), "--rows", "240", "--pairs", "12"]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    out = tmp_path / "demo"
    assert json.loads((out / "scores" / "manifest.json").read_text())["records"] == 24
    assert json.loads((out / "scores" / "results.json").read_text())["all_pairs"]["judged"] == 12
    assert json.loads((out / "policy" / "trainer_state.json").read_text())["global_step"] == 3
    assert (out / "score_distributions.png").stat().st_size > 5000
    assert re.search(r"^pair accuracy [\d.]+ % on 12 held-out pairs", done.stdout, re.MULTILINE)
    for attribute in Judge.load(out / "judge").rubric.keys:
        assert re.search(rf"^{attribute} +-?[\d.]+ +[\d.]+$", done.stdout, re.MULTILINE), done.stdout[-2000:]

    # The README's five lines, in the folder where the demo's output lies.
    [block] = re.findall(r"```python\n(.*?)```", (repo / "README.md").read_text("utf-8"), re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) == 5
    shown = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert shown.returncode == 0, shown.stderr[-3000:]
    assert len(re.findall(r"mean \d\.\d\d  mode [1-5]", shown.stdout)) == 5
