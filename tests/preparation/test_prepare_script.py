from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from rmkit.data import DATASETS

Run = Callable[..., subprocess.CompletedProcess[str]]

GOOD = {
    "prompt": "Name a bird.",
    "response": "The wren.",
    "helpfulness": 3,
    "correctness": 3,
    "coherence": 3,
    "complexity": 2,
    "verbosity": 2,
}


@pytest.fixture
def run(repo: Path, tmp_path: Path) -> Run:
    """`run(script, *args)`: run a script of data_prep/ as a user would, offline; paths are relative to `tmp_path`."""

    def run_script(script: str, *args: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(repo / "data_prep" / f"{script}.py"), *map(str, args)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(repo), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run_script


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file."""
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]


def bad_lines() -> list[bytes]:
    """Three good records, and between them one of each kind of bad ones."""
    missing = {key: value for key, value in GOOD.items() if key != "coherence"}
    return [
        json.dumps(record).encode() if isinstance(record, dict) else record
        for record in (
            GOOD,
            b'{"prompt": "Name a bird.", "response": "The wr',
            missing,
            {**GOOD, "helpfulness": 7},
            {**GOOD, "verbosity": None},
            {**GOOD, "response": ""},
            {**GOOD, "response": "The kite."},
            {**GOOD, "response": "The crane."},
        )
    ]


REASONS = ["broken_json", "missing_column", "rating_out_of_range", "rating_missing", "empty_response"]


def test_each_bad_record_is_refused_with_its_line_and_the_good_ones_are_kept(run: Run, tmp_path: Path) -> None:
    (tmp_path / "raw.jsonl").write_bytes(b"\n".join(bad_lines()) + b"\n")
    done = run("prepare", "--dataset", "helpsteer2", "--input", "raw.jsonl", "--output", "out")
    assert (done.returncode, done.stderr) == (0, "")
    refused = read_lines(tmp_path / "out" / "refused.jsonl")
    assert [(row["line"], row["reason"]) for row in refused] == list(enumerate(REASONS, start=2))
    assert {row["file"] for row in refused} == {"raw.jsonl"}
    assert refused[0]["record"] == '{"prompt": "Name a bird.", "response": "The wr'
    assert refused[2]["record"] == {**GOOD, "helpfulness": 7}
    kept = read_lines(tmp_path / "out" / "train.jsonl") + read_lines(tmp_path / "out" / "validation.jsonl")
    assert [row["id"] for row in kept] == [f"helpsteer2/{index:06d}a" for index in (0, 6, 7)]
    lines = done.stdout.splitlines()
    assert lines[0] == "helpsteer2 from raw.jsonl: 8 records, 3 accepted, 5 refused"
    assert lines[1] == "refused: " + ", ".join(f"{reason} 1" for reason in sorted(REASONS))
    assert len(lines) <= 10 and lines[-1] == "written to out"


def test_a_truncated_gzip_keeps_its_good_rows_and_the_summary_says_so(run: Run, tmp_path: Path) -> None:
    records = [{**GOOD, "response": f"{hash((n, -n))} {n}"} for n in range(2000)]
    whole = gzip.compress(b"".join(json.dumps(record).encode() + b"\n" for record in records))
    (tmp_path / "raw.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    done = run("prepare", "--dataset", "helpsteer", "--input", "raw.jsonl.gz", "--output", "out")
    assert (done.returncode, done.stderr) == (0, "")
    kept = read_lines(tmp_path / "out" / "train.jsonl") + read_lines(tmp_path / "out" / "validation.jsonl")
    assert 300 < len(kept) < 2000
    assert [row["response"] for row in kept] == [record["response"] for record in records[: len(kept)]]
    (refusal,) = read_lines(tmp_path / "out" / "refused.jsonl")
    assert (refusal["reason"], refusal["line"]) == ("truncated_file", len(kept) + 1)
    assert "refused: truncated_file 1" in done.stdout


def test_nothing_accepted_exits_with_an_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "raw.jsonl").write_text('{"prompt": 1}\n', "utf-8")
    done = run("prepare", "--dataset", "helpsteer", "--input", "raw.jsonl", "--output", "out")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no record was accepted (wrong_type 1); see out/refused.jsonl")
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["refused.jsonl"]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("--dataset", "helpsteer", "--input", "none.jsonl"), 1, "there is no such file"),
        (("--dataset", "helpsteer", "--input", "raw.jsonl", "--rubric", "nope"), 1, "no rubric nope"),
        (("--dataset", "reward_bench", "--input", "raw.jsonl", "--rubric", "helpsteer"), 1, "leave the rubric out"),
        (("--dataset", "helpsteer", "--input", "raw.jsonl", "--validation-fraction", "1"), 1, "outside [0, 1)"),
        (("--dataset", "helpsteer", "--input", "raw.jsonl", "--max-rows", "0"), 2, "--max-rows 0: at least 1"),
        (("--dataset", "helpsteer", "--input", "raw.jsonl", "--rows", "5"), 2, "--rows does not go with"),
        (("--dataset", "graded", "--max-rows", "5"), 2, "--max-rows does not go with --dataset graded"),
        (("--dataset", "helpsteer", "--input", "out/x.jsonl"), 2, "lies in the output folder"),
        (("--dataset", "graded", "--dedupe", "near"), 2, "--dedupe and --contamination do not go with"),
        (("--dataset", "helpsteer", "--input", "raw.jsonl", "--workers", "0"), 2, "--workers 0: at least 1"),
        (("--dataset", "helpsteer", "--dedupe-threshold", "0.9"), 2, "goes with --dedupe near"),
        (("--dataset", "helpsteer", "--input", "raw.jsonl", "--pairs", "0"), 2, "--pairs does not go with"),
        (("--dataset", "graded", "--max-tokens", "0"), 2, "--max-tokens does not go with --dataset graded"),
        (("--dataset", "helpsteer", "--input", "raw.jsonl", "--contamination", "report"), 2, "with --decontaminate"),
        (("--dataset", "helpsteer", "--input", "raw.jsonl", "--rubric", ""), 2, "--rubric is empty: name one"),
        (("--dataset", "helpsteer", "--input", "raw.jsonl", "./raw.jsonl"), 1, "raw.jsonl is given more than once"),
        (("--dataset", "helpsteer", "--input", "raw.jsonl", "--languages", ", "), 2, "name at least one"),
        (("--dataset", "helpsteer", "--input", "raw.jsonl", "--truncate"), 1, "give one: --max-tokens"),
        (("--dataset", "helpsteer", "--input", "raw.jsonl", "--max-tokens", "9"), 1, "a tokenizer that counts them"),
        (("--dataset", "helpsteer", "--input", "raw.jsonl", "--languages", "tlh"), 1, "language tlh is unknown"),
        (("--dataset", "helpsteer", "--input", "raw.jsonl", "--rule", "pairs"), 1, "holds no comparisons"),
        (("--dataset", "nothing",), 2, "graded, helpsteer, helpsteer2, helpsteer2_preference"),
        (("--dataset", "helpsteer2",), 1, "nvidia/HelpSteer2 at revision 990b27"),
    ],
)  # fmt: skip
def test_wrong_calls_say_what_is_wrong(
    run: Run, tmp_path: Path, args: tuple[str, ...], code: int, message: str
) -> None:
    (tmp_path / "raw.jsonl").write_text(json.dumps(GOOD) + "\n", "utf-8")
    done = run("prepare", *args, "--output", "out")
    assert done.returncode == code
    assert message in done.stderr.replace("'", "")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("given", ["out", "out/pairs.jsonl", "reward_bench=out/pairs.jsonl"])
def test_a_benchmark_that_would_be_replaced_stays(run: Run, tmp_path: Path, given: str) -> None:
    (tmp_path / "raw.jsonl").write_text(json.dumps(GOOD) + "\n", "utf-8")
    run("prepare", "--dataset", "graded", "--rows", "5", "--pairs", "5", "--output", "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    done = run(
        "prepare", "--dataset", "helpsteer2", "--input", "raw.jsonl", "--decontaminate", given, "--output", "out"
    )
    assert (done.returncode, f"benchmark {given} lies in the output folder" in done.stderr) == (1, True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_options_reach_the_rows_and_the_manifest(run: Run, tmp_path: Path) -> None:
    records = [{**GOOD, "prompt": f"Name bird {n}."} for n in range(50)]
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    rubric = "attributes:\n- {key: verbosity, scale: [0, 40]}\n- {key: humour}\n"
    (tmp_path / "mine.yaml").write_text(rubric, "utf-8")
    common = ("--dataset", "helpsteer", "--input", "raw.jsonl", "--rubric", "mine.yaml", "--max-rows", "20")
    run("prepare", *common, "--output", "a", "--validation-fraction", "0.5", "--seed", "7")
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text("utf-8"))
    assert manifest["rubric"]["name"] == "mine"
    assert (manifest["seed"], manifest["validation_fraction"], manifest["max_rows"]) == (7, 0.5, 20)
    assert manifest["source"]["name"] == "raw.jsonl" and len(manifest["source"]["sha256"]) == 64
    assert (manifest["rows"], manifest["raw_records"], manifest["histogram"]["verbosity"]["20"]) == (20, 20, 20)
    train, validation = read_lines(tmp_path / "a" / "train.jsonl"), read_lines(tmp_path / "a" / "validation.jsonl")
    assert train[0]["completion"][0]["content"] == "Verbosity: 20"
    assert 3 < len(validation) < 17
    run("prepare", *common, "--output", "b", "--validation-fraction", "0.5", "--seed", "8")
    other = read_lines(tmp_path / "b" / "validation.jsonl")
    assert {row["id"] for row in other} != {row["id"] for row in validation}


def test_cleaning_is_asked_for_and_counted(run: Run, tmp_path: Path) -> None:
    records = [
        {**GOOD, "prompt": f"Which bird is number {number} of the list that I gave you?"} for number in range(9)
    ]
    records[1] = {**GOOD, "response": "\u200b"}
    records[2] = records[0]
    records[3] = {**GOOD, "prompt": "Wie heißt der Vogel, der im Winter nicht nach Süden zieht?"}
    records[4] = {**GOOD, "prompt": "What does the wren sing at night in the old garden?"}
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    (tmp_path / "bench.txt").write_text("What does the WREN sing, at night, in the old garden\n", "utf-8")
    given = ("--dataset", "helpsteer2", "--input", "raw.jsonl", "--workers", "2")
    cleaning = ("--dedupe", "exact", "--drop-blank", "--languages", "en", "--decontaminate", "bench.txt")
    done = run("prepare", *given, *cleaning, "--output", "a")
    assert (done.returncode, done.stderr) == (0, "")
    assert "dropped: blank_text 1, contamination_exact 1, exact_duplicate 1, other_language 1" in done.stdout
    assert "duplicate index: 5 rows, " in done.stdout
    dropped = read_lines(tmp_path / "a" / "dropped.jsonl")
    assert [row["id"] for row in dropped] == [f"helpsteer2/00000{number}a" for number in (1, 2, 3, 4)]
    assert dropped[3]["found"]["benchmark"] == "bench"
    assert dropped[3]["conversation"][0]["content"] == records[4]["prompt"]
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text("utf-8"))
    assert manifest["cleaning"]["languages"] == ["en"] and manifest["cleaning"]["decontaminate"][0]["prompts"] == 1
    assert manifest["rows"] == 5 == manifest["rows_given"] - sum(manifest["dropped"].values())
    done = run("prepare", *given, *cleaning, "--contamination", "report", "--output", "b")
    assert "reported: contamination_exact 1" in done.stdout
    assert [row["id"] for row in read_lines(tmp_path / "b" / "reported.jsonl")] == ["helpsteer2/000004a"]
    assert json.loads((tmp_path / "b" / "manifest.json").read_text("utf-8"))["rows"] == 6


def test_a_file_of_ones_own_becomes_parquet(run: Run, tmp_path: Path) -> None:
    mapping = "name: mine\nrubric: helpsteer\nconversation: q\nresponse: a\n"
    mapping += "attributes:\n  helpfulness: {path: score, range: [0, 1]}\n"
    (tmp_path / "mine.yaml").write_text(mapping, "utf-8")
    for name, score in (("one.csv", 0.5), ("two.csv", 1)):
        (tmp_path / name).write_text(f"q,a,score\nWhich?,The wren.,{score}\n", "utf-8")
    given = ("--mapping", "mine.yaml", "--input", "one.csv", "two.csv", "--validation-fraction", "0")
    done = run("prepare", *given, "--format", "parquet", "--output", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "rows: train.parquet 2" in done.stdout
    rows = pyarrow.parquet.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert [row["id"] for row in rows] == ["mine/000000a", "mine/000001a"]
    assert [row["completion"][0]["content"] for row in rows] == ["Helpfulness: 3", "Helpfulness: 5"]
    assert "2 raw records" in run("inspect_data", "out").stdout


def test_generated_data_fills_all_three_files(run: Run, tmp_path: Path) -> None:
    args = ("--dataset", "graded", "--rows", "200", "--pairs", "20", "--seed", "3", "--difficulty", "0.5")
    done = run("prepare", *args, "--rater-noise", "0.2", "--validation-fraction", "0.2", "--output", "a")
    assert (done.returncode, done.stderr) == (0, "")
    sides = [read_lines(tmp_path / "a" / name) for name in ("train.jsonl", "validation.jsonl", "pairs.jsonl")]
    assert len(sides[0]) + len(sides[1]) == 200 and len(sides[2]) == 20
    asked = [{json.dumps(row["conversation"]) for row in side} for side in sides]
    assert not asked[0] & asked[1] and not asked[0] & asked[2] and not asked[1] & asked[2]
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text("utf-8"))
    assert manifest["source"] == {
        "name": "generator", "rows": 200, "pairs": 20, "seed": 3, "difficulty": 0.5, "rater_noise": 0.2
    }  # fmt: skip
    assert (manifest["raw_records"], manifest["rows"], manifest["rubric"]["name"]) == (220, 220, "graded")
    run("prepare", *args, "--rater-noise", "0.2", "--validation-fraction", "0.2", "--output", "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_the_look_at_a_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "raw.jsonl").write_bytes(b"\n".join(bad_lines()))
    run("prepare", "--dataset", "helpsteer2", "--input", "raw.jsonl", "--output", "out")
    done = run("inspect_data", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "8 raw records = 3 accepted + 5 refused" in done.stdout
    assert done.stdout.count(">>> Helpfulness: 4, Correctness: 4") == 3
    (tmp_path / "out" / "manifest.json").unlink()
    done = run("inspect_data", "out")
    assert done.returncode == 1 and "run data_prep/prepare.py" in done.stderr and "Traceback" not in done.stderr


def test_names_that_are_not_utf_8_and_other_terminals_will_do(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = os.fsdecode(b"v\xf6gel.jsonl")
    (tmp_path / name).write_bytes(b"\n".join(bad_lines()))
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    for args in (
        ("prepare", "--dataset", "helpsteer2", "--input", name, "--output", "größe"),
        ("inspect_data", "größe"),
    ):
        done = run(*args)
        assert (done.returncode, done.stderr) == (0, "")
        assert "gr\\xf6\\xdfe" in done.stdout
    manifest = json.loads((tmp_path / "größe" / "manifest.json").read_bytes())
    assert manifest["source"]["name"] == name


def test_help_names_every_data_set(run: Run) -> None:
    text = run("prepare", "--help").stdout
    assert "examples:" in text and all(name in text for name in DATASETS)


# On real files.


def test_helpsteer2_for_real(run: Run, shared: Path, tmp_path: Path) -> None:
    raw = shared / "data" / "helpsteer2" / "train_sample.jsonl"
    assert run("prepare", "--dataset", "helpsteer2", "--input", raw, "--output", "out").returncode == 0
    train, validation = (read_lines(tmp_path / "out" / name) for name in ("train.jsonl", "validation.jsonl"))
    assert len(train) + len(validation) == 60 and validation
    asked = [{json.dumps(row["conversation"]) for row in side} for side in (train, validation)]
    assert not asked[0] & asked[1] and len(asked[0] | asked[1]) == 30
    (first,) = (row for row in train + validation if row["id"] == "helpsteer2/000000a")
    text = "Helpfulness: 4, Correctness: 4, Coherence: 4, Complexity: 3, Verbosity: 3"
    assert first["completion"] == [{"role": "assistant", "content": text}]
    assert (tmp_path / "out" / "refused.jsonl").read_bytes() == b""


def test_helpsteer_for_real(run: Run, shared: Path, tmp_path: Path) -> None:
    raw = shared / "data" / "helpsteer" / "train_sample.jsonl.gz"
    assert run("prepare", "--dataset", "helpsteer", "--input", raw, "--output", "out").returncode == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    assert (manifest["raw_records"], manifest["accepted"], manifest["rows"]) == (379, 379, 379)


def test_reward_bench_for_real_from_two_formats(run: Run, shared: Path, tmp_path: Path) -> None:
    for suffix in ("jsonl", "parquet"):
        raw = shared / "data" / "reward_bench_sample" / f"filtered_sample.{suffix}"
        assert run("prepare", "--dataset", "reward_bench", "--input", raw, "--output", suffix).returncode == 0
    pairs = (tmp_path / "jsonl" / "pairs.jsonl").read_bytes()
    assert pairs.count(b"\n") == 248
    assert pairs == (tmp_path / "parquet" / "pairs.jsonl").read_bytes()
    assert (tmp_path / "parquet" / "refused.jsonl").read_bytes() == b""
