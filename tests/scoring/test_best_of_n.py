"""The best of n and pairs with margins: what is chosen, what never is, and that TRL takes the file."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from rmkit.errors import DataError
from rmkit.jsonl import read_jsonl, write_jsonl
from rmkit.manifest import sha256_file, write_json
from rmkit.rubric import Attribute, Rubric
from rmkit.scoring.best_of_n import read_candidates, write_selection
from rmkit.scoring.items import ScoreInput

RUBRIC = Rubric("one", (Attribute("quality", "Quality"),))


@pytest.fixture
def scored(tmp_path):
    """Writes candidates and scores of them; returns the input and the scoring folder."""

    def scored(rows, **changes):
        path, folder = tmp_path / "candidates.jsonl", tmp_path / "scores"
        folder.mkdir(exist_ok=True)
        write_jsonl(
            path,
            [{"id": i, "prompt": f"Q {i}", "responses": [f"{i} {n}" for n in range(len(s))]} for i, s in rows],
        )
        records = [
            {"id": i, "side": "response", "index": n, "aggregate": score, "error": None if score is not None else "no"}
            for i, scores in rows
            for n, score in enumerate(scores)
        ]
        write_jsonl(folder / "scores.jsonl", records)
        manifest = {"kind": "candidates", "judge": "tiny", "input": path.name, "input_sha256": sha256_file(path)}
        write_json(folder / "manifest.json", {**manifest, **changes})
        return ScoreInput(path, "candidates"), folder

    return scored


ROWS = [
    ("a", [0.2, 0.9, 0.5]),
    ("failed", [None, 0.4, None]),
    ("all failed", [None, None]),
    ("tie", [0.5, 0.5]),
    ("one wins a tie", [0.1, 0.7, 0.7, None]),
]


def test_best_is_the_first_of_the_highest(scored, tmp_path):
    selection = write_selection(*scored(ROWS), tmp_path / "out", "best")
    found = [record for _, record in read_jsonl(tmp_path / "out/best.jsonl")]
    assert [(r["id"], r["index"], r["score"]) for r in found] == [
        ("a", 1, 0.9), ("failed", 1, 0.4), ("tie", 0, 0.5), ("one wins a tie", 1, 0.7),
    ]  # fmt: skip
    assert found[0] == {
        "id": "a",
        "prompt": [{"role": "user", "content": "Q a"}],
        "completion": [{"role": "assistant", "content": "a 1"}],
        "index": 1,
        "score": 0.9,
        "candidates": 3,
        "failed": 0,
    }
    assert (selection.prompts, selection.candidates, selection.failed) == (5, 14, 5)
    assert (selection.rows, selection.unjudged, selection.close) == (4, 1, 0)
    assert selection.exit_status == 3
    assert "\nfailed         5\nfirst error    failed: " in selection.render()
    whole = write_selection(*scored(ROWS[:1]), tmp_path / "whole", "best")
    assert whole.exit_status == 0 and "first error" not in whole.render()


def test_pairs_have_margins_and_no_failed_or_equal_side(scored, tmp_path):
    selection = write_selection(*scored(ROWS), tmp_path / "out")
    found = [record for _, record in read_jsonl(tmp_path / "out/preferences.jsonl")]
    assert [(r["id"], r["chosen"][0]["content"], r["rejected"][0]["content"]) for r in found] == [
        ("a/1-0", "a 1", "a 0"),
        ("one wins a tie/1-0", "one wins a tie 1", "one wins a tie 0"),
    ]
    assert found[0]["margin"] == pytest.approx(0.7)
    assert (found[0]["chosen_score"], found[0]["rejected_score"]) == (0.9, 0.2)
    assert (selection.rows, selection.unjudged, selection.close) == (2, 2, 1)
    report = json.loads((tmp_path / "out/best_of_n.json").read_text("utf-8"))
    assert (report["failed"], report["rows"], report["judge"]) == (5, 2, "tiny")


def test_best_against_each_other_one_above_a_margin(scored, tmp_path):
    source, scores = scored(ROWS)
    selection = write_selection(source, scores, tmp_path / "out", "best_rest", 0.45)
    found = [record["id"] for _, record in read_jsonl(tmp_path / "out/preferences.jsonl")]
    assert found == ["a/1-0", "one wins a tie/1-0"]
    assert selection.close == 3  # 0.9 to 0.5, and two ties


def test_scores_of_something_else_are_refused(scored):
    source, scores = scored(ROWS, kind="responses")
    with pytest.raises(DataError, match="holds no scores of candidates.jsonl"):
        list(read_candidates(source, scores))
    source, scores = scored(ROWS)
    records = [record for _, record in read_jsonl(scores / "scores.jsonl")]
    write_jsonl(scores / "scores.jsonl", records[:-1])
    with pytest.raises(DataError, match="not the record of the next candidate"):
        list(read_candidates(source, scores))
    (scores / "manifest.json").unlink()
    with pytest.raises(DataError, match="scoring has not ended"):
        list(read_candidates(source, scores))


def test_broken_rows_and_candidates_are_errors_of_their_own(tmp_path):
    path = tmp_path / "candidates.jsonl"
    write_jsonl(
        path,
        [
            {"prompt": "Q", "responses": ["a", "", [{"role": "assistant", "content": "c"}]]},
            {"responses": ["a", "b"]},
            {"prompt": "Q", "responses": "a"},
            {"conversation": [{"role": "user", "content": "Q"}], "completions": ["a"], "reference": "R"},
        ],
    )
    items = list(ScoreInput(path, "candidates").items())
    assert [item.key for item in items] == [
        ("1", "response", 0), ("1", "response", 1), ("1", "response", 2), ("2", "response", 0), ("2", "response", 1),
        ("3", "response", 0), ("4", "response", 0),
    ]  # fmt: skip
    assert [item.error is None for item in items] == [True, False, True, False, False, False, True]
    assert "candidates.jsonl:1: responses[1]: it is empty" in items[1].error
    assert "expected" not in items[3].error and "responses (or completions) must be a list" in items[5].error
    assert (items[2].response, items[6].reference) == ("c", "R")


@pytest.fixture(scope="module")
def run(repo, save_tiny_judge, tiny_tokenizer, tmp_path_factory):
    """Runs the script with a tiny judge on eight prompts of three candidates; returns its folder."""
    folder = tmp_path_factory.mktemp("best")
    judge = save_tiny_judge(folder / "judge", tiny_tokenizer("split_digits"), RUBRIC)
    words = "red green blue white black grey pink brown teal gold".split()
    rows = [
        {
            "prompt": f"List {n + 1} words.",
            "responses": [" ".join(words[: n + k]) for k in (1, 2, 3)] + [""] * (n == 0),
        }
        for n in range(8)
    ]
    write_jsonl(folder / "candidates.jsonl", rows)

    def run(*arguments):
        command = [sys.executable, "evaluate/best_of_n.py", "--input", folder / "candidates.jsonl"]
        options = ["--judge", judge, "--engine", "transformers", "--batch-size", "5", "--output", folder / "out"]
        options = options if "--scores" not in arguments else []
        return subprocess.run(
            [*map(str, [*command, *options, *arguments])], capture_output=True, text=True, cwd=repo, timeout=600
        )

    run.folder = folder
    return run


def test_script_ends_where_an_uninterrupted_run_ends(run):
    done = run()
    assert done.returncode == 3, done.stderr
    assert "candidates     25" in done.stdout and "failed         1\nfirst error    1: DataError: " in done.stdout
    out = run.folder / "out"
    before = {name: (out / name).read_bytes() for name in ("scores.jsonl", "preferences.jsonl", "best_of_n.json")}
    assert before["preferences.jsonl"].count(b"\n") == 8
    lines = before["scores.jsonl"].splitlines(keepends=True)
    (out / "scores.jsonl").write_bytes(b"".join(lines[:12]) + lines[12][:20])  # as a kill leaves it
    for name in ("manifest.json", "preferences.jsonl", "best_of_n.json"):
        (out / name).unlink()
    assert run().returncode == 3
    after = json.loads((out / "best_of_n.json").read_text("utf-8"))
    assert after["rows"] == json.loads(before["best_of_n.json"])["rows"]
    found = [record for _, record in read_jsonl(out / "preferences.jsonl")]
    wanted = [json.loads(line) for line in before["preferences.jsonl"].splitlines()]
    assert [row["id"] for row in found] == [row["id"] for row in wanted]
    assert [row["margin"] for row in found] == pytest.approx([row["margin"] for row in wanted], abs=1e-4)
    best = run("--scores", out, "--output", run.folder / "best", "--write", "best")
    assert best.returncode == 3, best.stderr
    assert (run.folder / "best/best.jsonl").is_file() and not (run.folder / "best/scores.jsonl").exists()
    assert run("--scores", out, "--output", out, "--least-margin", "0.999").returncode == 1


def test_trl_trains_on_the_pairs_with_their_margins(scored, tiny_tokenizer, tmp_path):
    pytest.importorskip("trl", reason="TRL is not installed")
    import torch  # noqa: PLC0415 (slow, as are the others)
    from datasets import load_dataset  # noqa: PLC0415
    from transformers import LlamaConfig, LlamaForSequenceClassification  # noqa: PLC0415
    from trl import RewardConfig, RewardTrainer  # noqa: PLC0415

    write_selection(*scored(ROWS), tmp_path / "out")
    tokenizer = tiny_tokenizer("split_digits")
    data = load_dataset("json", data_files=str(tmp_path / "out/preferences.jsonl"), split="train", cache_dir=tmp_path)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, num_labels=1, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    arguments = RewardConfig(
        str(tmp_path / "reward"),
        per_device_train_batch_size=2,
        max_steps=1,
        report_to="none",
        use_cpu=True,
        bf16=False,
    )
    model = LlamaForSequenceClassification(config)
    trainer = RewardTrainer(model, arguments, train_dataset=data, processing_class=tokenizer)
    batch = next(iter(trainer.get_train_dataloader()))
    assert sorted(batch["margin"].tolist()) == pytest.approx([0.6, 0.7])
    assert torch.isfinite(torch.tensor(trainer.train().training_loss))
