from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rmkit.cleaning.options import CleaningOptions
from rmkit.data.graded import GradedSettings, generate_pairs, generate_rows
from rmkit.errors import DataError
from rmkit.preparation.conversion import Row
from rmkit.preparation.folder import PAIR_FILES, RATED_FILES, write_prepared
from rmkit.preparation.mapping import load_mapping
from rmkit.preparation.mixing import prepare_mix
from rmkit.preparation.published import PreparationSettings, prepare_published
from rmkit.rubric import load_rubric

Run = Callable[..., subprocess.CompletedProcess[str]]
ROWS = ("train.jsonl", "validation.jsonl", "pairs.jsonl")


@pytest.fixture
def command(repo: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`command(script, *args)`: how to run a script of data_prep/, offline, in `tmp_path`."""

    def build(script: str, *args: object) -> dict[str, Any]:
        return {
            "args": [sys.executable, str(repo / "data_prep" / f"{script}.py"), *map(str, args)],
            "cwd": tmp_path,
            "env": {**os.environ, "PYTHONPATH": str(repo), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
        }

    return build


@pytest.fixture
def run(command: Callable[..., dict[str, Any]]) -> Run:
    """`run(script, *args)`: run it to its end."""

    def run_script(script: str, *args: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(**command(script, *args), capture_output=True, text=True, timeout=600)

    return run_script


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; none where there is no file."""
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]] if path.is_file() else []


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder."""
    return json.loads((folder / "manifest.json").read_text("utf-8"))


def read_bytes(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def make_texts(kind: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Raw records of a made-up set; two follow each other on one question."""
    draw = random.Random(seed)
    return [
        {
            "q": f"What does {kind} {number // 2} mean?",
            "r": " ".join(draw.choices(["It", "means", "less", "more", "than", kind], k=12)) + f" {number}.",
            "quality": draw.randrange(11),
            "tone": draw.choice([1, 2, 3, None]),
        }
        for number in range(count)
    ]


MAPPING = """
conversation: q
response: r
attributes: {quality: {range: [0, 10]}, tone: {range: [1, 3]}}
missing: [null]
rubric: {attributes: [{key: quality, description: How good.}, {key: tone, description: "How kind.", scale: [1, 3]}]}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two raw sets of 400 and 300 records with their mappings, and the second one prepared, beside 30 pairs."""
    folder = tmp_path_factory.mktemp("sets")
    for name, count in (("owls", 400), ("larks", 300)):
        lines = [json.dumps(record) for record in make_texts(name, count, count)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        (folder / f"{name}.yaml").write_text(MAPPING, "utf-8")
    prepare_published(load_mapping(folder / "larks.yaml"), folder / "data" / "larks", str(folder / "larks.jsonl"))
    settings = GradedSettings(rows=60, pairs=30)
    rows: list[Row] = [*generate_rows(settings), *generate_pairs(settings)]
    origin = {"dataset": "graded", "source": {"name": "generator"}}
    files = (*RATED_FILES, *PAIR_FILES)
    write_prepared(folder / "data" / "graded", ((row,) for row in rows), files, load_rubric("graded"), 0, 0.05, origin)
    return folder


@pytest.fixture
def sets(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of them, which is the working directory."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mix(folder: Path, text: str, output: str, **settings: Any) -> dict[str, Any]:
    """Mix, and return the manifest."""
    (folder / "mix.yaml").write_text(text, "utf-8")
    manifest = prepare_mix(Path("mix.yaml"), Path(output), PreparationSettings(**settings))
    assert manifest | {"format_version": 1} == read_manifest(folder / output)
    return manifest


OWLS = "- {mapping: owls.yaml, input: owls.jsonl}\n"
LARKS = "- {folder: data/larks}\n"


def test_all_rows_of_all_sources_stand_in_one_folder(run: Run, sets: Path) -> None:
    text = "sources:\n" + OWLS + LARKS + "- {folder: data/graded, rename: {safety: harmlessness}}\n"
    (sets / "mix.yaml").write_text(text, "utf-8")
    done = run("mix", "mix.yaml", "--output", "out", "--validation-fraction", "0.2")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    lines = done.stdout.splitlines()
    assert lines[:4] == [
        "owls: 400 records, 400 rows", "larks: 300 records, 300 rows", "graded: 60 records, 60 rows",
        "graded: 30 records, 30 rows",
    ]  # fmt: skip
    assert lines[4] == "mix from owls, larks, graded: 790 records, 790 accepted, 0 refused"
    manifest = read_manifest(sets / "out")
    assert [part["name"] for part in manifest["sources"]] == ["owls", "larks", "graded", "graded"]
    assert [part["rows"] for part in manifest["sources"]] == [400, 300, 60, 30]
    assert (manifest["dataset"], manifest["rows"], manifest["source"]["name"]) == ("mix", 790, "owls, larks, graded")
    assert [item["key"] for item in manifest["rubric"]["attributes"]] == [
        "quality", "tone", "completeness", "correctness", "politeness", "harmlessness", "verbosity"
    ]  # fmt: skip
    assert manifest["sources"][1]["folder"] == "larks" and len(manifest["sources"][1]["manifest_sha256"]) == 64
    train, validation, pairs = (read_lines(sets / "out" / name) for name in ROWS)
    assert len(train) + len(validation) == 760 and len(pairs) == 30 and len(validation) > 100
    ids = [row["id"] for row in train + validation + pairs]
    assert len(set(ids)) == 790
    asked = [{json.dumps(row["conversation"]) for row in rows} for rows in (train, validation)]
    assert not asked[0] & asked[1]
    # What was not rated is not rated; what was, says the same as before.
    before = {row["id"]: row for name in ROWS for row in read_lines(sets / "data" / "larks" / name)}
    moved = {row["id"]: row for row in train + validation if row["source"] == "larks"}
    assert {key: row["scores"] for key, row in moved.items()} == {key: row["scores"] for key, row in before.items()}
    assert {len(row["scores"]) for row in moved.values()} == {1, 2}
    graded = next(row for row in train if row["source"] == "graded")
    assert "harmlessness" in graded["scores"] and "safety" not in graded["scores"]
    assert "Harmlessness: " in graded["completion"][0]["content"]
    assert all(name in graded["prompt"][0]["content"] for name in ("Quality", "Tone", "Harmlessness"))
    raw = make_texts("owls", 400, 400)
    for row in (row for row in train + validation if row["source"] == "owls"):
        record = raw[int(row["id"][5:11])]
        assert (row["response"], row["scores"].get("tone")) == (record["r"], record["tone"])
    done = run("inspect_data", "out")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_reruns_are_identical_whatever_the_workers(run: Run, sets: Path) -> None:
    lines = [json.dumps(record) for record in make_texts("owls", 9000, 2)]
    (sets / "owls.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    (sets / "mix.yaml").write_text("sources:\n" + OWLS + LARKS + "- {folder: data/graded, weight: 0.5}\n", "utf-8")
    for output, workers in (("a", "1"), ("b", "2"), ("a", "1")):
        done = run("mix", "mix.yaml", "--output", output, "--dedupe", "exact", "--workers", workers)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        before = read_bytes(sets / output)
    assert read_bytes(sets / "b") == before


def test_adding_a_source_moves_no_row_of_another(sets: Path) -> None:
    owls = "- {mapping: owls.yaml, input: owls.jsonl, weight: 0.6}\n"
    larks = "- {folder: data/larks, max_rows: 100}\n"
    texts = {"one": owls, "two": owls + larks, "three": larks + "- {folder: data/graded}\n" + owls, "four": larks}
    found = {}
    for name, text in texts.items():
        mix(sets, "sources:\n" + text, name, validation_fraction=0.3)
        found[name] = {
            source: [
                [row["id"] for row in read_lines(sets / name / file) if row["source"] == source] for file in ROWS[:2]
            ]
            for source in ("owls", "larks")
        }
    assert found["one"]["owls"] == found["two"]["owls"] == found["three"]["owls"]
    assert found["two"]["larks"] == found["three"]["larks"] == found["four"]["larks"]
    assert all(len(ids) > 20 for name in ("owls", "larks") for ids in found["two"][name])


def test_weights_and_limits_say_what_they_left_out(sets: Path) -> None:
    text = "sources:\n- {mapping: owls.yaml, input: owls.jsonl, weight: 0.25, max_rows: 50}\n"
    text += "- {folder: data/larks, weight: 0.5, max_rows: 40}\n- {folder: data/graded, max_rows: 20}\n"
    manifest = mix(sets, text, "out")
    owls, larks, graded, pairs = manifest["sources"]
    assert (owls["rows"], owls["max_rows"], owls["weight"]) == (50, 50, 0.25)
    assert 130 < owls["raw_records"] < 300 and owls["dropped"] == {"weight": owls["raw_records"] - 50}
    assert (larks["rows"], larks["raw_records"], larks["max_rows"], larks["weight"]) == (40, 300, 40, 0.5)
    assert 120 < larks["dropped"]["weight"] < 180 and sum(larks["dropped"].values()) == 260
    assert (graded["rows"], pairs["rows"]) == (20, 20)
    assert manifest["rows"] == 130 == manifest["rows_given"] - sum(manifest["dropped"].values())
    assert (sets / "out" / "dropped.jsonl").read_bytes() == b""  # what was not drawn still stands in its source
    ids = [row["id"] for row in read_lines(sets / "out" / "train.jsonl") if row["source"] == "larks"]
    assert len({id[6:9] for id in ids}) == 1 and len({int(id[6:12]) // 50 for id in ids}) == 6  # from the whole folder


def test_duplicates_and_benchmarks_are_looked_for_across_sources(sets: Path) -> None:
    text = "sources:\n" + LARKS + "- {mapping: larks.yaml, input: larks.jsonl, name: again}\n"
    manifest = mix(sets, text, "out", cleaning=CleaningOptions(duplicates="exact"))
    assert [part["rows"] for part in manifest["sources"]] == [300, 0]
    assert manifest["sources"][1]["dropped"] == {"exact_duplicate": 300}
    drop = read_lines(sets / "out" / "dropped.jsonl")[7]
    assert (drop["id"], drop["found"]["row"]) == ("again/000007a", "larks/000007a")
    (sets / "prompts.txt").write_text("what does OWLS 17 mean\n", "utf-8")
    manifest = mix(sets, "sources:\n" + LARKS + OWLS, "out", cleaning=CleaningOptions(decontaminate=("prompts.txt",)))
    assert [sum(part["dropped"].values()) for part in manifest["sources"]] == [0, 2]


def test_a_named_rubric_puts_all_on_its_scales(sets: Path) -> None:
    text = "rubric: {attributes: [{key: quality, scale: [0, 100]}]}\nsources:\n"
    text += "- {mapping: owls.yaml, input: owls.jsonl}\n- {folder: data/graded, rename: {completeness: quality}}\n"
    manifest = mix(sets, text, "out")
    rows = read_lines(sets / "out" / "train.jsonl")
    owls = {row["id"]: row["scores"] for row in rows if row["source"] == "owls"}
    raw = make_texts("owls", 400, 400)
    # Straight from the raw range 0-10, not by way of the five scores that the mapping's own rubric has.
    assert all(scores == {"quality": 10 * raw[int(id[5:11])]["quality"]} for id, scores in owls.items())
    assert {row["scores"]["quality"] for row in rows if row["source"] == "graded"} == {0, 25, 50, 75, 100}
    assert manifest["rubric"]["name"] == "mix"


def test_a_mix_can_stand_in_a_mix(sets: Path) -> None:
    first = mix(sets, "sources:\n" + LARKS + "- {folder: data/graded}\n", "first", row_format="parquet")
    assert set(first["files"]) >= {"train.parquet", "pairs.parquet"}
    manifest = mix(sets, "sources:\n- {folder: first, rename: {tone: warmth, quality: worth}}\n" + OWLS, "out")
    assert [part["rows"] for part in manifest["sources"]] == [360, 30, 400]
    rows = [row for name in ROWS[:2] for row in read_lines(sets / "out" / name)]
    assert {row["source"] for row in rows} == {"larks", "graded", "owls"}
    assert any("warmth" in row["scores"] for row in rows)


@pytest.mark.parametrize(
    ("text", "options", "code", "message"),
    [
        ("sources:\n- {mapping: owls.yaml, input: none.jsonl}\n", (), 1, "there is no such file"),
        ("sources:\n- {folder: data/larks, rename: {quality: correctness}}\n- {folder: data/graded}\n", (), 1,
         "'larks' and 'graded' define the attribute 'correctness' differently"),
        ("sources:\n- {folder: out}\n", (), 1, "lies in the output folder"),
        ("sources:\n- {folder: data/larks}\n", ("--workers", "0"), 2, "--workers 0: at least 1"),
        ("sources:\n- {folder: data/larks}\n", ("--balance", "nothing"), 1, "'nothing'"),
    ],
)  # fmt: skip
def test_wrong_calls_say_what_is_wrong(
    run: Run, sets: Path, text: str, options: tuple[str, ...], code: int, message: str
) -> None:
    mix(sets, "sources:\n" + LARKS, "out")
    before = read_bytes(sets / "out")
    (sets / "mix.yaml").write_text(text, "utf-8")
    done = run("mix", "mix.yaml", "--output", "out", *options)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert read_bytes(sets / "out") == before


def test_a_mix_without_rows_says_why(sets: Path) -> None:
    (sets / "mix.yaml").write_text("sources:\n- {folder: data/larks, weight: 1.0e-9}\n", "utf-8")
    with pytest.raises(DataError, match=r"no row is left \(dropped: weight 300\)$"):
        prepare_mix(Path("mix.yaml"), Path("out"), PreparationSettings())


def test_killed_and_run_again_gives_the_same_folder(
    command: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.dumps(record) for record in make_texts("owls", 24_000, 1)]
    (tmp_path / "owls.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    (tmp_path / "owls.yaml").write_text(MAPPING, "utf-8")
    text = "sources:\n- {mapping: owls.yaml, input: owls.jsonl, weight: 0.5}\n"
    monkeypatch.chdir(tmp_path)
    mix(tmp_path, text, "whole", cleaning=CleaningOptions(duplicates="exact"))
    killed = command("mix", "mix.yaml", "--output", "killed", "--dedupe", "exact", "--workers", "1")
    process = subprocess.Popen(**killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "killed" / ".parts").glob("*.part"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "manifest.json").exists()
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed" / ".parts").glob("*.part")}
    assert 5 <= len(parts) < 24
    process = subprocess.Popen(**killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kept: set[Path] = set()
    while process.poll() is None:
        kept |= {path for path, time_ in parts.items() if path.exists() and path.stat().st_mtime_ns == time_}
        time.sleep(0.01)
    assert process.returncode == 0 and kept == set(parts)
    assert read_bytes(tmp_path / "killed") == read_bytes(tmp_path / "whole")
