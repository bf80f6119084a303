"""`evaluate/score_pairs.py`, `score_responses.py` and `run_benchmark.py --judge`, run as processes."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time

import pytest
from filelock import FileLock

from rmkit.jsonl import write_jsonl
from rmkit.rubric import Attribute, Rubric

RUBRIC = Rubric("two", (Attribute("helpfulness", "Helpfulness"), Attribute("verbosity", "Verbosity", weight=0.5)))
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")


@pytest.fixture(scope="module")
def start(repo):
    """Starts a script and returns the process."""

    def start(script, *arguments):
        command = [sys.executable, str(repo / "evaluate" / script), *map(str, arguments)]
        environment = {**os.environ, **ENVIRONMENT}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=repo, env=environment)

    return start


@pytest.fixture(scope="module")
def run(start):
    """Runs a script and returns the finished process."""

    def run(script, *arguments):
        process = start(script, *arguments)
        stdout, stderr = process.communicate(timeout=600)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    return run


@pytest.fixture(scope="module")
def judge(save_tiny_judge, tiny_tokenizer, tmp_path_factory):
    """A tiny judge's folder."""
    return save_tiny_judge(
        tmp_path_factory.mktemp("judge") / "tiny", tiny_tokenizer("split_digits"), RUBRIC, hidden=128
    )


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Sixty pairs, one without a conversation, as `data_prep/prepare.py` leaves them: 120 responses."""
    words = "red green blue white black grey pink brown".split()
    rows = [
        {
            "id": f"pair-{index}",
            "subset": words[index % 3],
            "conversation": [{"role": "user", "content": f"List {index % 7} words, please. " * (index % 5 + 1)}],
            "chosen": [", ".join(words[: index % 8 + 1])],
            "rejected": ["No. " * (index % 9 + 1)],
        }
        for index in range(60)
    ]
    del rows[20]["conversation"]
    folder = tmp_path_factory.mktemp("pairs")
    write_jsonl(folder / "pairs.jsonl", rows)
    (folder / "manifest.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def options(judge, pairs):
    """The options that every scoring of the pairs has."""
    return ["--judge", judge, "--input", pairs, "--batch-size", 1]


@pytest.fixture(scope="module")
def uninterrupted(run, options, tmp_path_factory):
    """A finished scoring of the pairs with the transformers engine, and what the script printed."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "scores"
    done = run("score_pairs.py", *options, "--engine", "transformers", "--output", folder)
    assert done.returncode == 3, done.stderr  # the pair without a conversation can't be judged
    return folder, done.stdout


def read_scores(folder):
    return [json.loads(line) for line in (folder / "scores.jsonl").read_text("utf-8").splitlines()]


def assert_same(folder, expected, tolerance):
    """The same ids in the same order, each once, and every number within a tolerance."""
    found, wanted = read_scores(folder), read_scores(expected)
    keys = [(record["id"], record["side"], record["index"]) for record in found]
    assert keys == [(record["id"], record["side"], record["index"]) for record in wanted]
    assert len(set(keys)) == len(keys)
    for record, other in zip(found, wanted, strict=True):
        assert record["error"] == other["error"]
        assert record["prompt_tokens"] == other["prompt_tokens"]
        assert record["aggregate"] == pytest.approx(other["aggregate"], abs=tolerance)
        for key, distribution in record["attributes"].items():
            assert sum(distribution["probabilities"]) == pytest.approx(1, abs=1e-5)
            for name in ("probabilities", "mean", "entropy", "outside_mass"):
                assert distribution[name] == pytest.approx(other["attributes"][key][name], abs=tolerance)


def kill_on_the_way(start, arguments, folder, total, seed):
    """Start a scoring, kill it when it has written a part of the records, and halve its last line."""
    rng = random.Random(seed)
    target = int(total * rng.uniform(0.1, 0.6))
    process = start("score_pairs.py", *arguments, "--output", folder)
    file = folder / "scores.jsonl"
    deadline = time.monotonic() + 180
    while not file.exists() or file.read_bytes().count(b"\n") < target:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    written = file.read_bytes()
    assert target <= written.count(b"\n") < total, "the process ended before it was killed"
    assert not (folder / "manifest.json").exists()
    file.write_bytes(written[: -rng.randrange(1, 200)])


def check_kill(start, run, options, engine, folder, uninterrupted, seed):
    arguments = [*options, "--engine", engine]
    kill_on_the_way(start, arguments, folder, 120, seed)
    done = run("score_pairs.py", *arguments, "--output", folder)
    assert done.returncode == 3, done.stderr
    assert_same(folder, uninterrupted, 1e-4)


def test_uninterrupted_run(uninterrupted):
    folder, printed = uninterrupted
    records = read_scores(folder)
    assert len(records) == 120
    assert [record["id"] for record in records if record["error"]] == ["pair-20", "pair-20"]
    lines = printed.splitlines()
    assert len(lines) <= 10
    assert lines[:2] == ["responses      120", "errors         2 (DataError 2)"]
    assert lines[-1].endswith(str(folder / "scores.jsonl"))
    assert sorted(path.name for path in folder.iterdir() if path.name != ".lock") == [
        "manifest.json",
        "pairs.jsonl",
        "scores.jsonl",
        "settings.json",
    ]
    for name in ("manifest.json", "settings.json", "scores.jsonl"):
        assert str(folder.parent) not in (folder / name).read_text("utf-8")


def test_killed_and_started_again(start, run, options, uninterrupted, tmp_path):
    check_kill(start, run, options, "transformers", tmp_path / "scores", uninterrupted[0], seed=0)
    assert (tmp_path / "scores/manifest.json").read_bytes() == (uninterrupted[0] / "manifest.json").read_bytes()


@needs_vllm
def test_killed_and_started_again_with_vllm(start, run, options, uninterrupted, tmp_path):
    # Compared with the other engine's uninterrupted run, to within what a resumed run of the same engine may differ.
    check_kill(start, run, options, "vllm", tmp_path / "scores", uninterrupted[0], seed=1)


@pytest.mark.long
@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=needs_vllm)])
def test_ten_kills_in_one_run(start, run, judge, tmp_path, engine):
    """2,020 responses; some kills come while they are judged, some before the run has got anywhere."""
    rows = [
        {"conversation": f"List {n % 7} words. " * (n % 5 + 1), "chosen": ["red, " * (n % 8 + 1)], "rejected": ["No."]}
        for n in range(1010)
    ]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    arguments = ["--judge", judge, "--input", tmp_path / "pairs.jsonl", "--batch-size", 4, "--output"]
    done = run("score_pairs.py", *arguments, tmp_path / "whole", "--engine", "transformers")
    assert done.returncode == 0, done.stderr
    rng = random.Random(0)
    file = tmp_path / "killed/scores.jsonl"
    for target in sorted(rng.sample(range(20, 1990), 10)):
        process = start("score_pairs.py", *arguments, tmp_path / "killed", "--engine", engine)
        deadline = time.monotonic() + (rng.uniform(0, 8) if rng.random() < 0.3 else 240)
        while time.monotonic() < deadline and (not file.exists() or file.read_bytes().count(b"\n") < target):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.002)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (tmp_path / "killed/manifest.json").exists()
    done = run("score_pairs.py", *arguments, tmp_path / "killed", "--engine", engine)
    assert done.returncode == 0, done.stderr
    assert len(read_scores(tmp_path / "killed")) == 2020
    assert_same(tmp_path / "killed", tmp_path / "whole", 1e-4)


def test_complete_folder_ends_at_once(run, options, uninterrupted):
    folder, printed = uninterrupted
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = run("score_pairs.py", *options, "--engine", "transformers", "--output", folder)
    assert done.returncode == 3, done.stderr
    assert done.stdout == "already complete: nothing was left to judge\n" + printed
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_other_settings_in_the_same_folder(run, options, uninterrupted):
    done = run("score_pairs.py", *options, "--engine", "transformers", "--output", uninterrupted[0], "--limit", 5)
    assert done.returncode == 1
    assert "was begun with another --limit: null then, 5 now" in done.stderr
    assert "choose another --output" in done.stderr
    assert "Traceback" not in done.stderr


def test_second_process_refuses(run, options, tmp_path):
    with FileLock(tmp_path / ".lock"):
        done = run("score_pairs.py", *options, "--engine", "transformers", "--output", tmp_path)
    assert done.returncode == 1
    assert "another process is scoring into this folder" in done.stderr
    assert not (tmp_path / "scores.jsonl").exists()


def test_benchmark_with_a_judge(run, options, uninterrupted, tmp_path):
    arguments = [*options, "--engine", "transformers", "--output", tmp_path / "scores"]
    done = run("run_benchmark.py", "--benchmark", "pairs", "--resamples", 20, *arguments)
    assert done.returncode == 3, done.stderr  # as score_pairs.py, for one pair can't be judged
    assert_same(tmp_path / "scores", uninterrupted[0], 1e-4)
    both = json.loads((tmp_path / "scores/results.json").read_text("utf-8"))
    done = run("run_benchmark.py", "--benchmark", "pairs", "--resamples", 20, "--scores", tmp_path / "scores")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "scores/results.json").read_text("utf-8")) == both
    assert sum(subset["n"] for subset in both["subsets"].values()) == 60
    everything = both["all_pairs"]
    assert everything["errors"] == 1
    # The row that can't be read counts as wrong here and in what the scoring scripts print.
    assert f"pair accuracy  {everything['accuracy']['ties_half']:.4f}" in uninterrupted[1]


def test_benchmark_with_two_judges(run, judge, pairs, save_tiny_judge, tiny_tokenizer, tmp_path):
    other = save_tiny_judge(tmp_path / "tiny", tiny_tokenizer("split_digits"), RUBRIC)
    judges = ["--judge", judge, "--judge", other]
    arguments = ["--input", pairs, "--limit", 8, "--engine", "transformers", "--resamples", 20, "--output", tmp_path]
    done = run("run_benchmark.py", "--benchmark", "pairs", *judges, *arguments)
    assert done.returncode == 0, done.stderr
    assert "#### tiny (tiny.1) minus tiny (tiny.2)" in done.stdout
    (comparison,) = json.loads((tmp_path / "results.json").read_text("utf-8"))["comparisons"]
    assert (comparison["first"], comparison["second"]) == ("tiny (tiny.1)", "tiny (tiny.2)")
    first, second = (read_scores(tmp_path / "judges" / name) for name in ("tiny.1", "tiny.2"))
    assert len(first) == len(second) == 16
    assert first[0]["aggregate"] != second[0]["aggregate"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the folder with the --scores, or a --judge"),
        (["--judge", "y", "--input", "z"], "--judge needs --output"),
        (["--judge", "y", "--output", "o"], "--judge with --benchmark pairs needs --input"),
        (["--judge", "y", "--judge", "z", "--input", "i"], "--judge needs --output"),
        (["--scores", "x", "--truncate-turns"], "--truncate-turns says how to score, which needs a --judge"),
    ],
)
def test_benchmark_refuses_options_that_do_not_fit(run, arguments, message):
    done = run("run_benchmark.py", "--benchmark", "pairs", *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_responses_zero_shot(run, save_tiny_model, tiny_tokenizer, tmp_path):
    model = save_tiny_model(tmp_path / "model", tiny_tokenizer("byte_level"))
    conversation = [{"role": "user", "content": "List a word."}]
    rated = {
        "prompt": [{"role": "user", "content": "Rate ..."}],
        "completion": [{"role": "assistant", "content": "3"}],
    }
    write_jsonl(
        tmp_path / "rows.jsonl",
        [
            {"prompt": "List a word.", "response": "red"},
            {"id": "trained", **rated, "conversation": conversation, "response": "red"},
            {"id": "empty", "prompt": "List a word.", "response": ""},
        ],
    )
    arguments = ["--judge", model, "--input", tmp_path / "rows.jsonl", "--engine", "transformers", "--output"]
    done = run("score_responses.py", *arguments, tmp_path / "out")
    assert done.returncode == 1
    assert "say which rubric (--rubric NAME|FILE)" in done.stderr
    done = run("score_responses.py", *arguments, tmp_path / "out", "--rubric", "helpsteer")
    assert done.returncode == 3, done.stderr
    first, second, third = read_scores(tmp_path / "out")
    assert [record["id"] for record in (first, second, third)] == ["1", "trained", "empty"]
    assert {record["side"] for record in (first, second, third)} == {"response"}
    assert first["aggregate"] == pytest.approx(second["aggregate"], abs=1e-6)
    assert (first["prompt_tokens"], third["aggregate"]) == (second["prompt_tokens"], None)
    assert "rows.jsonl:3: response: it is empty" in third["error"]
    assert not (tmp_path / "out/pairs.jsonl").exists()


def test_bad_rows_get_records_and_the_others_scores(run, judge, tmp_path):
    conversation = [{"role": "user", "content": "List a word."}]
    system = [{"role": "system", "content": "Be kind."}]
    good = {"conversation": conversation, "chosen": ["red"], "rejected": ["No."]}
    rows = {
        "good": good,
        "empty side": {**good, "chosen": [" "]},
        "no side": {**good, "rejected": []},
        "no user turn": {**good, "conversation": system},
        "image": {**good, "chosen": [{"type": "image"}]},
        "too long": {**good, "rejected": ["words " * 200_000]},
        "surrogate": {**good, "rejected": ["red \ud83d"]},
        "last": good,
    }
    write_jsonl(tmp_path / "rows.jsonl", ({"id": name, **row} for name, row in rows.items()))
    arguments = ["--judge", judge, "--input", tmp_path / "rows.jsonl", "--output", tmp_path / "out"]
    done = run("score_pairs.py", *arguments, "--engine", "transformers")
    assert done.returncode == 3, done.stderr
    found = {(record["id"], record["side"]): record for record in read_scores(tmp_path / "out")}
    assert len(found) == 2 * len(rows)
    errors = {key: record["error"] for key, record in found.items() if record["error"]}
    assert all(found[key]["aggregate"] is None for key in errors)
    assert found["last", "chosen"]["aggregate"] == pytest.approx(found["good", "chosen"]["aggregate"], abs=1e-6)
    sides = ("chosen", "rejected")
    unreadable = [(name, side) for name in ("empty side", "no side", "no user turn", "image") for side in sides]
    assert sorted(errors) == sorted([*unreadable, ("too long", "rejected"), ("surrogate", "rejected")])
    assert "no user turn among 1 messages" in errors["no user turn", "chosen"]
    assert errors["too long", "rejected"].startswith("PromptTooLongError: the prompt has 2")
    assert "can't be encoded as UTF-8" in errors["surrogate", "rejected"]


def test_a_tokenizer_of_other_weights_and_another_rubric_are_refused(
    run, judge, tiny_tokenizer, save_tiny_judge, tmp_path
):
    write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "List a word.", "response": "red"}])
    small = save_tiny_judge(tmp_path / "small", tiny_tokenizer("split_digits"), RUBRIC, vocab_size=200)
    other = save_tiny_judge(tmp_path / "other", tiny_tokenizer("split_digits"), RUBRIC)
    tiny_tokenizer("sentencepiece").save_pretrained(other)
    for folder, options, message in (
        (small, [], "does not belong to these weights"),
        (other, [], "gives other score tokens than"),
        (judge, ["--rubric", "helpsteer"], "was trained with rubric 'two' and can't follow"),
    ):
        arguments = ["--judge", folder, "--input", tmp_path / "rows.jsonl", "--output", tmp_path / folder.name / "out"]
        done = run("score_responses.py", *arguments, *options, "--engine", "transformers")
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_nothing_but_failures_is_a_failure(run, judge, tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "List a word."}])
    arguments = ["--judge", judge, "--input", tmp_path / "rows.jsonl", "--output", tmp_path / "out"]
    done = run("score_responses.py", *arguments, "--engine", "transformers")
    assert done.returncode == 1
    assert "errors         1 (DataError 1)" in done.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--judge", "no-one/no-such-judge"], "no-one/no-such-judge is neither a folder here nor a model on the hub"),
        (["--judge", "./nowhere"], "there is no judge folder ./nowhere"),
        (["--rubric", "no_such"], "no rubric 'no_such': ready ones are"),
        (["--input", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--tensor-parallel-size", "2"], "--tensor-parallel-size belongs to --engine vllm"),
        (["--engine", "vllm", "--device", "cuda"], "--device belongs to --engine transformers"),
        (["--url", "http://127.0.0.1:8000"], "--url belongs to --engine http"),
        (["--data-parallel-size", "4"], "use evaluate/score_ray.py --workers 4, or a server"),
        (["--engine", "http"], "--engine http needs the --url of the server"),
        (["--engine", "http", "--url", "http://x", "--dtype", "float32"], "--dtype is the server's to choose"),
    ],
)
def test_error_says_what_to_do(run, options, tmp_path, change, message):
    done = run("score_pairs.py", *options, "--engine", "transformers", "--output", tmp_path / "out", *change)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("script", ["score_pairs.py", "score_responses.py"])
def test_help_teaches(run, script):
    done = run(script, "--help")
    assert done.returncode == 0
    assert f"python evaluate/{script} --judge runs/judge" in done.stdout
    assert "gets its line number as its id" in " ".join(done.stdout.split())


@needs_vllm
@pytest.mark.parametrize("count", [24, pytest.param(248, marks=pytest.mark.long)])
def test_real_pairs(run, repo, shared, judge_server, tmp_path, count):
    """Both sides of real RewardBench pairs: every engine gives the same scores."""
    raw = shared / "data/reward_bench_sample/filtered_sample.jsonl"
    prepare = [sys.executable, repo / "data_prep/prepare.py", "--dataset", "reward_bench", "--input", raw, "--output"]
    subprocess.run([*map(str, prepare), str(tmp_path / "data")], check=True, capture_output=True, cwd=repo)
    judge, url = judge_server
    arguments = ["--judge", judge, "--input", tmp_path / "data", "--limit", count]
    for engine, options in (("transformers", []), ("vllm", []), ("http", ["--url", url])):
        done = run("score_pairs.py", *arguments, "--engine", engine, *options, "--output", tmp_path / engine)
        assert done.returncode == 0, done.stderr
        records = read_scores(tmp_path / engine)
        assert len(records) == len({(record["id"], record["side"]) for record in records}) == 2 * count
        assert all(record["error"] is None for record in records)
        assert_same(tmp_path / engine, tmp_path / "transformers", 1e-3)


@needs_vllm
@pytest.mark.long
def test_a_copy_of_the_model_over_two_processes(run, options, uninterrupted, tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # or vLLM asks for a NUMA node for each
    arguments = [*options[:-1], 8, "--engine", "vllm", "--tensor-parallel-size", 2, "--output", tmp_path / "scores"]
    done = run("score_pairs.py", *arguments)
    assert done.returncode == 3, done.stderr
    assert_same(tmp_path / "scores", uninterrupted[0], 1e-3)


def test_full_disk_is_an_error_message(repo, options, tmp_path):
    command = [sys.executable, "evaluate/score_pairs.py", *map(str, options)]
    command += ["--engine", "transformers", "--output", str(tmp_path / "scores")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=repo,
        env={**os.environ, **ENVIRONMENT},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
        timeout=600,
    )
    assert done.returncode == 1
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("score_pairs: ") and "scores.jsonl: can't be written to ([Errno 27] File too large)" in said
    assert "Traceback" not in done.stderr
