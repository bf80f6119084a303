from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rmkit import __version__
from rmkit.errors import DataError
from rmkit.manifest import write_json
from rmkit.preparation.conversion import Outcome, Refusal
from rmkit.preparation.folder import PAIR_FILES, RATED_FILES, read_manifest, summarise, write_prepared
from rmkit.rubric import Rubric, load_rubric
from rmkit.schema import Message, PreferencePair, RatedResponse

RUBRIC = load_rubric("helpsteer")
ORIGIN = {"dataset": "mine", "source": {"name": "mine.jsonl"}, "max_rows": None}


def rows(count: int) -> list[RatedResponse]:
    """Two responses per conversation, scores 1-5 in turn."""
    return [
        RatedResponse(
            id=f"mine/{n:06d}a",
            source="mine",
            conversation=(Message("user", f"Question {n // 2}"),),
            response="x" * (n + 1),
            scores={"helpfulness": n % 5 + 1, "verbosity": 5 - n % 5},
        )
        for n in range(count)
    ]


def pair(number: int) -> PreferencePair:
    """A pair whose rejected side is longer."""
    return PreferencePair(f"a/{number}", "a", (Message("user", "Hi"),), ("Hello!",), ("Go away.",))


WHY = "helpfulness: the rating is null"
REFUSAL = Refusal("mine.jsonl", 7, "mine/000006", "rating_missing", WHY, {"odd": "\ud800"})


def write(
    output: Path, outcomes: Iterable[Outcome], files: tuple[str, ...] = RATED_FILES, **changes: Any
) -> dict[str, Any]:
    """Write a folder with usual settings."""
    rubric: Rubric | None = None if files == PAIR_FILES else RUBRIC
    settings = {"rubric": rubric, "seed": 0, "validation_fraction": 0.2, "origin": ORIGIN, **changes}
    return write_prepared(output, outcomes, files, **settings)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file."""
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]


def test_a_rated_folder(tmp_path: Path) -> None:
    outcomes: list[Outcome] = [(row,) for row in rows(200)]
    outcomes.insert(6, REFUSAL)
    manifest = write(tmp_path / "new" / "out", outcomes)
    output = tmp_path / "new" / "out"
    assert sorted(path.name for path in output.iterdir()) == [
        "manifest.json",
        "refused.jsonl",
        "train.jsonl",
        "validation.jsonl",
    ]
    assert read_manifest(output) == json.loads((output / "manifest.json").read_text("utf-8"))
    assert read_manifest(output) == {"format_version": 1, **manifest}
    train, validation = read_lines(output / "train.jsonl"), read_lines(output / "validation.jsonl")
    assert sorted(row["id"] for row in train + validation) == [row.id for row in rows(200)]
    assert [row["id"] for row in train] == sorted(row["id"] for row in train)
    assert 10 < len(validation) < 80
    prompts = [{row["conversation"][0]["content"] for row in side} for side in (train, validation)]
    assert not prompts[0] & prompts[1]
    assert read_lines(output / "refused.jsonl") == [REFUSAL.to_dict()]
    assert manifest["raw_records"] == 201 and manifest["accepted"] == 200 and manifest["rows"] == 200
    assert manifest["refused"] == {"rating_missing": 1}
    assert manifest["rows_per_accepted_record"] == 1.0
    for name, file in manifest["files"].items():
        content = (output / name).read_bytes()
        assert file == {"rows": content.count(b"\n"), "sha256": hashlib.sha256(content).hexdigest()}
    assert manifest["histogram"]["helpfulness"] == {"1": 40, "2": 40, "3": 40, "4": 40, "5": 40}
    assert manifest["histogram"]["coherence"] == {"1": 0, "2": 0, "3": 0, "4": 0, "5": 0}
    assert Rubric.from_dict(manifest["rubric"]) == RUBRIC
    assert (manifest["seed"], manifest["validation_fraction"]) == (0, 0.2)
    assert manifest["rmkit_version"] == __version__
    assert str(tmp_path) not in (output / "manifest.json").read_text("utf-8")


def test_a_pair_folder(tmp_path: Path) -> None:
    manifest = write(tmp_path, [(pair(0),), (pair(1), pair(2))], PAIR_FILES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "pairs.jsonl", "refused.jsonl"]
    assert read_lines(tmp_path / "pairs.jsonl") == [pair(number).to_dict() for number in range(3)]
    assert manifest["rubric"] is None and manifest["histogram"] == {}
    assert (manifest["accepted"], manifest["rows"], manifest["rows_per_accepted_record"]) == (2, 3, 1.5)


def test_a_rerun_gives_the_same_bytes_and_leaves_other_files_alone(tmp_path: Path) -> None:
    outcomes: list[Outcome] = [*((row,) for row in rows(20)), REFUSAL]
    write(tmp_path / "a", outcomes)
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    (tmp_path / "a" / "notes.txt").write_text("mine", "utf-8")
    write(tmp_path / "a", outcomes)
    after = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert after == {**before, "notes.txt": b"mine"}
    write(tmp_path / "b", outcomes)
    assert {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()} == before


def test_what_another_run_left_is_no_part_of_this_one(tmp_path: Path) -> None:
    write(tmp_path, [(row,) for row in rows(4)])
    write(tmp_path, [(pair(0),)], PAIR_FILES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "pairs.jsonl", "refused.jsonl"]


def test_an_interrupted_run_leaves_no_manifest(tmp_path: Path) -> None:
    write(tmp_path, [(row,) for row in rows(4)])

    def interrupted() -> Iterator[Outcome]:
        yield (rows(1)[0],)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, interrupted())
    with pytest.raises(DataError, match="preparation did not finish"):
        read_manifest(tmp_path)

    write(tmp_path, [(row,) for row in rows(4)])  # it may be done again, and leaves nothing else behind
    names = ["manifest.json", "refused.jsonl", "train.jsonl", "validation.jsonl"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_no_other_run_writes_meanwhile(tmp_path: Path) -> None:
    def outcomes() -> Iterator[Outcome]:
        yield (rows(1)[0],)
        with pytest.raises(DataError, match="another process is preparing data into this folder"):
            write(tmp_path, [(row,) for row in rows(4)])

    manifest = write(tmp_path, outcomes())
    assert manifest["rows"] == 1
    assert (
        hashlib.sha256((tmp_path / "train.jsonl").read_bytes()).hexdigest()
        == manifest["files"]["train.jsonl"]["sha256"]
    )


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    def outcomes() -> Iterator[Outcome]:
        yield (rows(1)[0],)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DataError, match=f"{tmp_path}: the disk is full .* run the same command again"):
        write(tmp_path, outcomes())
    write(tmp_path, [(row,) for row in rows(4)])


def test_nothing_accepted_is_an_error_that_leaves_the_refusals(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"no record was accepted \(rating_missing 2\); see .*refused\.jsonl; the first is mine.jsonl:7: helpf",
    ):
        write(tmp_path, [REFUSAL, REFUSAL])
    assert [path.name for path in tmp_path.iterdir()] == ["refused.jsonl"]
    assert len(read_lines(tmp_path / "refused.jsonl")) == 2
    with pytest.raises(DataError, match="the input is empty"):
        write(tmp_path, [])


def test_a_fraction_that_leaves_no_training_rows_is_refused(tmp_path: Path) -> None:
    for fraction in (1.0, -0.1, float("nan")):
        with pytest.raises(DataError, match="validation fraction"):
            write(tmp_path, [(rows(1)[0],)], validation_fraction=fraction)


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(DataError, match="can't be written"):
        write(tmp_path / "file", [(rows(1)[0],)])


def test_a_row_may_bring_its_own_rubric(tmp_path: Path) -> None:
    own = load_rubric("dist2_paper")
    row = RatedResponse("a/1", "a", (Message("user", "Hi"),), "Hello", {"verbosity": 0}, rubric=own)
    manifest = write(tmp_path, [(row,)], validation_fraction=0.0)
    (written,) = read_lines(tmp_path / "train.jsonl")
    assert written["completion"][0]["content"] == "Verbosity: 0"
    assert "Verbosity (0-4)" in written["prompt"][0]["content"]
    assert RatedResponse.from_dict(written) == row
    assert manifest["histogram"]["verbosity"] == {"1": 0, "2": 0, "3": 0, "4": 0, "5": 0}


def test_the_summary_has_at_most_ten_lines(tmp_path: Path) -> None:
    outcomes: list[Outcome] = [*((row,) for row in rows(10)), REFUSAL]
    text = summarise(write(tmp_path, outcomes, validation_fraction=0.0), tmp_path)
    assert text.split("\n") == [
        "mine from mine.jsonl: 11 records, 10 accepted, 1 refused",
        "refused: rating_missing 1",
        "rows: train.jsonl 10, validation.jsonl 0 (raise --validation-fraction for validation rows)",
        "helpfulness  1: 2  2: 2  3: 2  4: 2  5: 2",
        "correctness  1: 0  2: 0  3: 0  4: 0  5: 0",
        "coherence    1: 0  2: 0  3: 0  4: 0  5: 0",
        "complexity   1: 0  2: 0  3: 0  4: 0  5: 0",
        "verbosity    1: 2  2: 2  3: 2  4: 2  5: 2",
        f"written to {tmp_path}",
    ]
    row = RatedResponse("a/1", "a", (Message("user", "Hi"),), "Hello", {"verbosity": 0})
    paper = write(tmp_path, [(row,), REFUSAL], rubric=load_rubric("dist2_paper"))
    assert len(summarise(paper, tmp_path).split("\n")) == 10


def test_the_summary_tells_what_was_looked_for_and_what_it_leaves_out(tmp_path: Path) -> None:
    outcomes = [(row,) for row in rows(1)]
    manifest = write(tmp_path, outcomes, validation_fraction=0.0)
    looked = {"decontaminate": [{"name": "bench", "prompts": 248}]}
    text = summarise({**manifest, "cleaning": looked, "dropped": {"contamination_exact": 2, "balance": 1}}, tmp_path)
    assert "decontamination: 2 rows hold one of 248 prompts of bench\n" in text
    assert "decontamination: 0 rows hold" in summarise({**manifest, "cleaning": looked}, tmp_path)
    more = {**manifest, "histogram": {f"attribute{n}": {"1": n} for n in range(8)}}
    assert "and 2 more: attribute6, attribute7\n" in summarise(more, tmp_path)


def test_the_rows_load_with_datasets_unaided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    write(tmp_path / "out", [(row,) for row in rows(6)])
    loaded = datasets.load_dataset("json", data_files=str(tmp_path / "out" / "train.jsonl"), split="train")
    assert loaded[0]["prompt"][0]["role"] == "user"
    assert loaded[0]["completion"] == [{"role": "assistant", "content": "Helpfulness: 1, Verbosity: 5"}]


def test_the_manifest_of_a_scoring_is_none_of_a_prepared_folder(tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", {"records": 3})
    with pytest.raises(DataError, match="no prepared folder"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("files", [["train.jsonl"], {"train.jsonl": 3}, {"train.jsonl": {"rows": 3}}])
def test_a_manifest_whose_files_say_too_little_is_refused(tmp_path: Path, files: Any) -> None:
    write_json(tmp_path / "manifest.json", {"files": files})
    with pytest.raises(DataError, match="must have rows and a sha256"):
        read_manifest(tmp_path)
