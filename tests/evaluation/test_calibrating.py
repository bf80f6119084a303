"""A calibration makes an overconfident judge honest on records held out, and is used when asked for."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from rmkit.calibration import Calibration
from rmkit.errors import DataError
from rmkit.evaluation.calibrating import fit_calibration
from rmkit.evaluation.rated import read_rated
from rmkit.evaluation.records import read_scoring
from rmkit.jsonl import read_jsonl, write_jsonl
from rmkit.rubric import Attribute, Rubric


def test_an_overconfident_judge_becomes_honest(write_scoring, tmp_path):
    rng = np.random.default_rng(0)
    # It is always sure, and right in 70 %.
    rows = [(str(i), "x", *((5, 1) if rng.random() < 0.7 else (1, 5))) for i in range(1500)]
    calibration, (gain,) = fit_calibration(read_scoring(write_scoring(tmp_path, rows)))
    assert (gain.name, gain.n) == ("preference", 1500)
    assert gain.before == pytest.approx(0.3, abs=0.06) and gain.after < 0.05
    assert calibration.rescale_probability(1.0) == pytest.approx(1 - gain.before, abs=1e-9)
    assert calibration.scores == {} and list(calibration.fitted_on) == ["pairs"]


def test_scores_are_moved_to_the_ratings(write_rated, tmp_path):
    rng = np.random.default_rng(1)
    ratings = rng.integers(1, 6, 300)
    rows = [
        (str(i), int(r), float(np.clip(1 + 0.5 * (r - 1) + rng.normal(0, 0.1), 1, 5))) for i, r in enumerate(ratings)
    ]
    calibration, (gain,) = fit_calibration(rated=read_rated(*write_rated(tmp_path, rows)))
    assert (gain.name, gain.n) == ("truth", 300)
    assert gain.before > 0.8 and gain.after < 0.15
    assert calibration.scores["truth"](1 + 0.5 * 3) == pytest.approx(4, abs=0.15)
    assert calibration.judge_sha256 == "abc"


def test_what_can_not_be_fitted_is_refused(write_scoring, write_rated, tmp_path):
    few = read_scoring(write_scoring(tmp_path / "few", [("1", "x", 4, 2)]))
    with pytest.raises(DataError, match="1 judged pairs of one with one: a calibration needs 50"):
        fit_calibration(few)
    with pytest.raises(DataError, match="nothing to fit to"):
        fit_calibration()
    rated = read_rated(*write_rated(tmp_path / "rated", [("1", 4, 2.0)]))
    with pytest.raises(DataError, match="of two judges"):
        fit_calibration(few, rated)


def test_scoring_applies_it_when_told_to(repo, save_tiny_judge, tiny_tokenizer, tmp_path):
    def run(script, *arguments):
        command = [sys.executable, f"evaluate/{script}", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=repo, timeout=600)

    rubric = Rubric("one", (Attribute("quality", "Quality"),))
    judge = save_tiny_judge(tmp_path / "judge", tiny_tokenizer("split_digits"), rubric)
    rows = [
        {
            "id": str(i),
            "prompt": f"Count to {i}.",
            "response": "1, 2, 3" * (i % 4 + 1),
            "scores": {"quality": i % 5 + 1},
        }
        for i in range(60)
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    options = ["--judge", judge, "--engine", "transformers", "--input", tmp_path / "rows.jsonl"]
    assert run("score_responses.py", *options, "--output", tmp_path / "raw").returncode == 0
    file = judge / "calibration.json"
    write_jsonl(tmp_path / "more.jsonl", [*rows, {**rows[0], "id": "60", "response": ""}])
    done = run("calibrate.py", "--ratings", tmp_path / "raw", "--input", tmp_path / "more.jsonl", "--output", file)
    assert done.returncode == 0 and "quality" in done.stdout, done.stderr
    assert "note: 1 rows can't be read; left out. The first: more.jsonl:61: response: it is empty" in done.stdout
    done = run("score_responses.py", *options, "--output", tmp_path / "both", "--calibration", file)
    assert done.returncode == 0, done.stderr  # the file in its folder does not make it another judge
    raw, both = ([record for _, record in read_jsonl(tmp_path / name / "scores.jsonl")] for name in ("raw", "both"))
    curve = Calibration.load(file).scores["quality"]
    for before, after in zip(raw, both, strict=True):
        assert "calibrated" not in before
        assert after["aggregate"] == pytest.approx(before["aggregate"], abs=1e-6)
        assert after["calibrated"]["scores"]["quality"] == curve(after["attributes"]["quality"]["mean"])
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), "judge_sha256": "0" * 64}), "utf-8")
    done = run("score_responses.py", *options, "--output", tmp_path / "other", "--calibration", file)
    assert done.returncode == 1 and "was fitted to another judge" in done.stderr
