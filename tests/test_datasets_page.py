"""The page of data sets lists all of them, and its examples run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rmkit.data import DATASETS
from rmkit.jsonl import write_jsonl

REPO = Path(__file__).resolve().parents[1]
GOLDEN = REPO / "tests/data/golden"
PAGE = (REPO / "docs/datasets.md").read_text("utf-8")


def test_every_data_set_has_one_row_and_one_note() -> None:
    names = sorted([*DATASETS, "graded"])
    assert sorted(re.findall(r"^\| \[`(\w+)`\]", PAGE, re.M)) == names
    assert sorted(re.findall(r"^- \*\*`(\w+)`\*\*: ", PAGE, re.M)) == names


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_the_row_of_a_data_set_says_where_it_comes_from(name: str) -> None:
    dataset = DATASETS[name]
    [row] = re.findall(rf"^\| \[`{name}`\] \| (.+) \|$", PAGE, re.M)
    [link] = re.findall(rf"^\[`{name}`\]: (.+)$", PAGE, re.M)
    cells = row.split(" | ")
    came_from = "file" if not dataset.hub_id else "hub" if dataset.revision else "pin"
    assert cells[-1].split(",")[0] == came_from
    assert ("--input" in cells[-1]) == (came_from != "hub")
    assert len(cells) == 7 and all(cells)
    worst_and_best = {f"{min(ends)}-{max(ends)}" for ends in dataset.scales.values() if ends != (0, 1)}
    assert worst_and_best <= set(re.findall(r"\d+-\d+", cells[3]))
    home = f"https://huggingface.co/datasets/{dataset.hub_id}" if dataset.hub_id else dataset.url
    assert link == home or link == "https://huggingface.co/lmarena-ai"  # five homes, one name


def run(folder: Path, script: str, *arguments: str | Path) -> list[dict[str, Any]]:
    """Run a script in a folder; its rows of training."""
    command = [sys.executable, REPO / "data_prep" / script, *arguments, "--validation-fraction", "0"]
    done = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    output = folder / arguments[list(arguments).index("--output") + 1]
    return [json.loads(line) for line in (output / "train.jsonl").read_text("utf-8").splitlines()]


def test_the_example_files_work(tmp_path: Path) -> None:
    mapping, mix = re.findall(r"```yaml\n(.+?)```", PAGE, re.S)
    (tmp_path / "mine.yaml").write_text(mapping, "utf-8")
    # The page reads UltraFeedback from the hub.
    there = f"- dataset: ultrafeedback\n  input: {json.dumps(str(GOLDEN / 'ultrafeedback/input.jsonl'))}\n"
    (tmp_path / "mix.yaml").write_text(re.sub(r"- dataset: ultrafeedback .+\n", there, mix), "utf-8")
    record = {"question": "Why?", "answer": "So.", "scores": {"accurate": 0.625}, "clarity": "N/A", "rude": 1}
    write_jsonl(tmp_path / "mine.jsonl", [record])

    rows = run(tmp_path, "prepare.py", "--mapping", "mine.yaml", "--input", "mine.jsonl", "--output", "data/mine")
    assert [row["scores"] for row in rows] == [{"accuracy": 4, "politeness": 5}]
    raw = GOLDEN / "helpsteer2/input.jsonl"
    run(tmp_path, "prepare.py", "--dataset", "helpsteer2", "--input", raw, "--output", "data/helpsteer2")
    rows = run(tmp_path, "mix.py", "mix.yaml", "--dedupe", "near", "--output", "data/mix")
    assert {row["source"] for row in rows} >= {"ultrafeedback", "mine"}
    assert any("usefulness" in row["scores"] for row in rows)
