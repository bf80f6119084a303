"""`evaluate/score_ray.py` on a cluster of this machine, with real workers that really die."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rmkit.jsonl import write_jsonl
from rmkit.rubric import Attribute, Rubric

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")

RUBRIC = Rubric("two", (Attribute("helpfulness", "Helpfulness"), Attribute("verbosity", "Verbosity", weight=0.5)))
# Ray makes its workers yield to all other processes, which on a busy machine leaves them nothing.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "RAY_worker_niceness": "0"}


@pytest.fixture
def arguments(save_tiny_judge: Callable[..., Path], tiny_tokenizer: Callable[..., Any], tmp_path: Path) -> list[str]:
    """A judge, 400 responses, two of which are empty, and how to score them."""
    save_tiny_judge(tmp_path / "judge", tiny_tokenizer("split_digits"), RUBRIC, hidden=128)
    rows = [{"prompt": f"List {n % 7} words. " * (n % 5 + 1), "response": "red, " * (n % 8)} for n in range(400)]
    for number in range(0, 400, 8):
        rows[number]["response"] = "" if number in (0, 200) else "red"
    write_jsonl(tmp_path / "rows.jsonl", rows)
    return ["--judge", "judge", "--input", "rows.jsonl", "--engine", "transformers", "--batch-size", "4", "--output"]


def read_scores(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "scores.jsonl").read_text("utf-8").splitlines()]


def workers_of(process: subprocess.Popen[str]) -> Iterator[psutil.Process]:
    for child in psutil.Process(process.pid).children(recursive=True):
        if "MapWorker" in "".join(child.cmdline()):
            yield child


def test_a_worker_dies_and_every_row_is_scored_once(repo: Path, arguments: list[str], tmp_path: Path) -> None:
    ray = [sys.executable, str(repo / "evaluate/score_ray.py"), "--kind", "responses", "--workers", "2"]
    process = subprocess.Popen(
        [*ray, "--address", "local", *arguments, "ray"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
    )
    file = tmp_path / "ray/scores.jsonl"
    deadline = time.monotonic() + 240
    while not file.exists() or file.read_bytes().count(b"\n") < 40:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.01)
    workers = list(workers_of(process))
    assert len(workers) == 2
    workers[0].kill()
    assert file.read_bytes().count(b"\n") < 400, "the run ended before a worker was killed"
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 3, printed
    assert "errors         2 (DataError 2)" in printed

    one = [sys.executable, str(repo / "evaluate/score_responses.py"), *arguments, "one"]
    assert subprocess.run(one, capture_output=True, cwd=tmp_path, env=ENVIRONMENT).returncode == 3
    found, expected = read_scores(tmp_path / "ray"), read_scores(tmp_path / "one")
    assert [record["id"] for record in found] == [record["id"] for record in expected]
    assert len({record["id"] for record in found}) == 400
    for record, other in zip(found, expected, strict=True):
        assert record["error"] == other["error"]
        assert record["aggregate"] == pytest.approx(other["aggregate"], abs=1e-4)
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("ray", "one")]
    assert [manifest.pop("device") for manifest in manifests] == ["ray", "cpu"]
    assert manifests[0] == manifests[1]
