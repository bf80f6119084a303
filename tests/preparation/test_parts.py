"""Preparing in parts: whatever the workers, the chunks and the interruptions, the folder is the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from rmkit.cleaning.drop import TURNS_LEFT_OUT, Row
from rmkit.cleaning.options import CleaningOptions
from rmkit.data import DATASETS
from rmkit.data.dataset import RawResponse
from rmkit.data.helpsteer2 import HELPSTEER2
from rmkit.data.reward_bench import REWARD_BENCH
from rmkit.errors import DataError, RubricError
from rmkit.inspection.folder import inspect_folder
from rmkit.preparation.folder import PARTS_FOLDER
from rmkit.preparation.published import (
    PreparationSettings,
    PreparationSource,
    prepare_published,
    prepare_sources,
)
from rmkit.row_files import read_rows
from rmkit.rubric import load_rubric

NAMES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
CLEANING = CleaningOptions(duplicates="exact", balance=("helpfulness",))


def record(number: int, **changes: Any) -> dict[str, Any]:
    """A record of HelpSteer2's form; two share a prompt."""
    rng = random.Random(number)
    ratings = {name: rng.choice((0, 2, 3, 4, 4, 4)) for name in NAMES}
    words = " ".join(rng.choices("wren heron kite crane stork swift owl robin".split(), k=40))
    return {"prompt": f"Name bird {number // 2}.", "response": f"{number}: {words}.", **ratings, **changes}


def raw_lines(count: int) -> list[bytes]:
    """Good records, and among them broken ones, refused ones, and duplicates of earlier ones."""
    lines = []
    for number in range(count):
        found: Any = record(number)
        if number % 17 == 5:
            found = record(number, helpfulness=9)
        if number % 29 == 7:
            found = record(number - 7)
        lines.append(json.dumps(found).encode() if number % 23 != 3 else b'{"prompt": ')
    return lines


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw file of 1,200 records."""
    path = tmp_path_factory.mktemp("raw") / "raw.jsonl"
    path.write_bytes(b"\n".join(raw_lines(1200)) + b"\n")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def settings(**changes: Any) -> PreparationSettings:
    """Small chunks, one worker, cleaning."""
    return PreparationSettings(**{"chunk_records": 50, "cleaning": CLEANING, "validation_fraction": 0.2, **changes})


@pytest.fixture(scope="module")
def whole(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed run on one worker writes."""
    output = tmp_path_factory.mktemp("whole") / "out"
    prepare_published(HELPSTEER2, output, str(raw), settings=settings())
    return contents(output)


def test_nothing_is_lost(whole: Mapping[str, bytes]) -> None:
    manifest = json.loads(whole["manifest.json"])
    assert manifest["raw_records"] == 1200 == manifest["accepted"] + sum(manifest["refused"].values())
    assert manifest["rows"] == manifest["rows_given"] - sum(manifest["dropped"].values())
    assert set(manifest["refused"]) == {"broken_json", "rating_out_of_range"}
    assert set(manifest["dropped"]) == {"exact_duplicate", "balance"}
    assert manifest["duplicate_index"]["bytes_per_row"] > 16
    assert sorted(whole) == ["dropped.jsonl", "manifest.json", "refused.jsonl", "train.jsonl", "validation.jsonl"]
    for name, file in manifest["files"].items():
        assert file == {"rows": whole[name].count(b"\n"), "sha256": hashlib.sha256(whole[name]).hexdigest()}
    rows = [json.loads(line) for name in ("train.jsonl", "validation.jsonl") for line in whole[name].splitlines()]
    dropped = [json.loads(line) for line in whole["dropped.jsonl"].splitlines()]
    assert len({row["id"] for row in [*rows, *dropped]}) == manifest["rows_given"]
    assert Counter(row["reason"] for row in dropped) == manifest["dropped"]
    for key, counts in manifest["histogram"].items():
        assert {score: n for score, n in counts.items() if n} == Counter(str(row["scores"][key]) for row in rows)
    texts = [json.dumps([row["conversation"], row["response"]]) for row in rows]
    assert len(set(texts)) == len(texts)
    assert manifest["sources"][0]["inputs"][0]["name"] == "raw.jsonl"


@pytest.mark.parametrize("chunk_records", [1, 37, 5000])
def test_chunks_leave_no_trace(raw: Path, whole: Mapping[str, bytes], tmp_path: Path, chunk_records: int) -> None:
    prepare_published(HELPSTEER2, tmp_path / "out", str(raw), settings=settings(chunk_records=chunk_records))
    assert contents(tmp_path / "out") == whole


@pytest.mark.parametrize("row_format", ["jsonl", "parquet"])
def test_two_workers_write_what_one_does(raw: Path, tmp_path: Path, row_format: str) -> None:
    for workers in (1, 2):
        given = settings(workers=workers, row_format=row_format, chunk_records=50 * workers)
        prepare_published(HELPSTEER2, tmp_path / str(workers), str(raw), settings=given)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_parquet_holds_the_same_rows(raw: Path, whole: Mapping[str, bytes], tmp_path: Path) -> None:
    manifest = prepare_published(HELPSTEER2, tmp_path, str(raw), settings=settings(row_format="parquet"))
    for name in ("train", "validation"):
        expected = [json.loads(line) for line in whole[f"{name}.jsonl"].splitlines()]
        assert [row for _, row in read_rows(tmp_path, name)] == expected
        assert manifest["files"][f"{name}.parquet"]["rows"] == len(expected)
    assert (tmp_path / "dropped.jsonl").read_bytes() == whole["dropped.jsonl"]
    assert inspect_folder(tmp_path).manifest["rows"] == manifest["rows"]


def test_parquet_is_whole_where_nothing_is_left_out(raw: Path, tmp_path: Path) -> None:
    for row_format in ("jsonl", "parquet"):
        given = settings(row_format=row_format, chunk_records=5000, cleaning=CleaningOptions())
        prepare_published(HELPSTEER2, tmp_path / row_format, str(raw), settings=given)
    for name in ("train", "validation"):
        rows = {row_format: list(read_rows(tmp_path / row_format, name)) for row_format in ("jsonl", "parquet")}
        assert [row for _, row in rows["parquet"]] == [row for _, row in rows["jsonl"]]
        assert sum(len(row["response"]) for _, row in rows["jsonl"]) > 10_000


@pytest.mark.parametrize("most", [1, 49, 333, 5000])
def test_a_limit_counts_rows_and_reads_no_further(raw: Path, tmp_path: Path, most: int) -> None:
    plain = {"cleaning": CleaningOptions(), "validation_fraction": 0.0}
    manifests = []
    for chunk_records, workers in ((1, 1), (64, 1), (40, 2)):
        given = settings(chunk_records=chunk_records, workers=workers, **plain)
        output = tmp_path / f"{chunk_records}"
        manifests.append(prepare_published(HELPSTEER2, output, str(raw), settings=given, max_rows=most))
    assert contents(tmp_path / "1") == contents(tmp_path / "64") == contents(tmp_path / "40")
    rows = manifests[0]["rows"]
    assert rows == min(most, manifests[0]["accepted"])
    if most < 1000:
        *_, last = (json.loads(line) for line in (tmp_path / "1" / "train.jsonl").read_bytes().splitlines())
        assert manifests[0]["raw_records"] == int(last["id"][-7:-1]) + 1


PROBE = """
import sys
from pathlib import Path
from rmkit.cleaning.options import CleaningOptions
from rmkit.data.helpsteer2 import HELPSTEER2
from rmkit.preparation.published import PreparationSettings, prepare_published

if __name__ == "__main__":
    cleaning = CleaningOptions(duplicates="exact", balance=("helpfulness",))
    given = PreparationSettings(validation_fraction=0.2, chunk_records=50, cleaning=cleaning, workers=int(sys.argv[3]))
    prepare_published(HELPSTEER2, Path(sys.argv[2]), sys.argv[1], settings=given)
"""


def kill_after(parts: int, raw: Path, output: Path, workers: int, repo: Path) -> int:
    """Prepare in another process and kill it once so many parts are finished; returns how many there were."""
    command = [sys.executable, "-c", PROBE, str(raw), str(output), str(workers)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(repo)})
    folder = output / PARTS_FOLDER
    while process.poll() is None and len(list(folder.glob("*.part"))) < parts:
        time.sleep(0.0005)
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == [], "workers outlive the process that started them"
    return len(list(folder.glob("*.part")))


def check_kills(raw: Path, whole: Mapping[str, bytes], output: Path, repo: Path, seed: int, kills: int) -> None:
    """Kill at seeded moments, then let one run end: the folder must be that of an undisturbed one."""
    rng = random.Random(seed)
    for _ in range(kills):
        finished = kill_after(rng.randint(1, 23), raw, output, rng.choice((1, 2)), repo)
        if (output / "manifest.json").exists():
            break  # it was done sooner
        assert finished >= 1
    prepare_published(HELPSTEER2, output, str(raw), settings=settings())
    assert contents(output) == whole


def test_a_killed_run_goes_on(raw: Path, whole: Mapping[str, bytes], tmp_path: Path, repo: Path) -> None:
    check_kills(raw, whole, tmp_path / "out", repo, seed=0, kills=1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 6))
def test_runs_killed_twice_go_on(raw: Path, whole: Mapping[str, bytes], tmp_path: Path, repo: Path, seed: int) -> None:
    check_kills(raw, whole, tmp_path / "out", repo, seed, kills=2)


read_numbers: list[str] = []


class Interrupting:
    """HelpSteer2's reader, which is interrupted at a record."""

    stop_at = ""

    def __call__(self, found: Mapping[str, Any]) -> Iterator[RawResponse]:
        if found["response"].startswith(f"{self.stop_at}:"):
            raise KeyboardInterrupt
        read_numbers.append(found["response"].partition(":")[0])
        yield from READ(found)

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return str, ("reader",)  # what parts are known by; this module can't be imported by name


READ: Any = HELPSTEER2.read
INTERRUPTED = dataclasses.replace(HELPSTEER2, read=Interrupting())


@pytest.fixture
def interrupted(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which eleven of 24 parts are finished."""
    monkeypatch.setattr(Interrupting, "stop_at", "570")
    with pytest.raises(KeyboardInterrupt):
        prepare_published(INTERRUPTED, tmp_path / "out", str(raw), settings=settings(cleaning=CleaningOptions()))
    monkeypatch.setattr(Interrupting, "stop_at", "")
    read_numbers.clear()
    return tmp_path / "out"


def test_finished_parts_are_used_again(raw: Path, interrupted: Path) -> None:
    assert not (interrupted / "manifest.json").exists()
    assert len(list((interrupted / PARTS_FOLDER).glob("*.part"))) == 11
    prepare_published(INTERRUPTED, interrupted, str(raw), settings=settings(cleaning=CleaningOptions()))
    assert int(read_numbers[0]) == 550
    assert not (interrupted / PARTS_FOLDER).exists()


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"validation_fraction": 0.5}, {"row_format": "parquet"}, {"chunk_records": 49}]
)
def test_other_settings_use_no_parts(raw: Path, interrupted: Path, change: dict[str, Any]) -> None:
    given = settings(**{"cleaning": CleaningOptions(), **change})
    prepare_published(INTERRUPTED, interrupted, str(raw), settings=given)
    assert read_numbers[0] == "0"


def test_other_data_uses_no_parts(interrupted: Path, tmp_path: Path) -> None:
    (tmp_path / "raw.jsonl").write_bytes(b"\n".join(raw_lines(1199)))
    prepare_published(
        INTERRUPTED, interrupted, str(tmp_path / "raw.jsonl"), settings=settings(cleaning=CleaningOptions())
    )
    assert read_numbers[0] == "0"


def test_a_damaged_part_is_made_again(raw: Path, interrupted: Path) -> None:
    first, second, *_ = sorted((interrupted / PARTS_FOLDER).glob("*.part"))
    first.write_bytes(first.read_bytes()[:-1])
    second.write_bytes(b"not a part")
    prepare_published(INTERRUPTED, interrupted, str(raw), settings=settings(cleaning=CleaningOptions()))
    read = {int(number) for number in read_numbers}
    assert {0, 50} <= read and not read & set(range(100, 550))


def test_two_processes_do_not_write_into_one_folder(raw: Path, interrupted: Path) -> None:
    from filelock import FileLock  # noqa: PLC0415 - here alone

    before = {path: path.read_bytes() for path in interrupted.rglob("*.*") if path.is_file()}
    assert len(before) > 11
    with FileLock(interrupted / PARTS_FOLDER / "lock"), pytest.raises(DataError, match="another process is preparing"):
        prepare_published(HELPSTEER2, interrupted, str(raw), settings=settings())
    assert {path: path.read_bytes() for path in interrupted.rglob("*.*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["train.jsonl", "pairs.parquet", "manifest.json"])
def test_files_that_no_run_wrote_are_not_replaced(raw: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text('{"records": 3}\n', "utf-8")
    with pytest.raises(DataError, match=f"{name} (has no manifest.json|is no manifest).*choose another output folder"):
        prepare_published(HELPSTEER2, tmp_path / "out", str(raw), settings=settings())
    assert contents(tmp_path / "out") == {name: b'{"records": 3}\n'}


def test_an_output_that_is_a_file_is_named(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("", "utf-8")
    with pytest.raises(DataError, match="out: can't be written"):
        prepare_published(HELPSTEER2, tmp_path / "out", str(raw))


# Several data sets.


def pair(number: int, **changes: Any) -> dict[str, Any]:
    """A record of RewardBench's form."""
    names = {"chosen_model": "a", "rejected_model": "b", "subset": "s"}
    return {
        "prompt": f"Bird {number}?",
        "chosen": f"Wren {number}.",
        "rejected": "No.",
        "id": number,
        **names,
        **changes,
    }


def write_lines(path: Path, records: list[dict[str, Any]]) -> str:
    """Write records as JSON Lines."""
    path.write_text("".join(json.dumps(found) + "\n" for found in records), "utf-8")
    return str(path)


@pytest.mark.parametrize("chunk_records", [1, 7, 1000])
@pytest.mark.parametrize("row_format", ["jsonl", "parquet"])
def test_a_record_with_the_id_of_an_earlier_pair_is_refused(
    tmp_path: Path, chunk_records: int, row_format: str
) -> None:
    records = [pair(number) for number in range(30)]
    records[20]["id"] = records[11]["id"] = 4
    records[25]["prompt"] = ""
    given = write_lines(tmp_path / "raw.jsonl", records)
    options = PreparationSettings(chunk_records=chunk_records, row_format=row_format)
    manifest = prepare_published(REWARD_BENCH, tmp_path / "out", given, settings=options)
    assert manifest["refused"] == {"duplicate_id": 2, "empty_prompt": 1}
    assert (manifest["accepted"], manifest["rows"], manifest["rows_given"]) == (27, 27, 27)
    refused = [json.loads(line) for line in (tmp_path / "out" / "refused.jsonl").read_bytes().splitlines()]
    assert [(line["line"], line["reason"]) for line in refused] == [
        (12, "duplicate_id"),
        (21, "duplicate_id"),
        (26, "empty_prompt"),
    ]
    assert refused[0]["record"] == records[11] and "'s/4'" in refused[0]["message"]
    found = [row["conversation"][0]["content"] for _, row in read_rows(tmp_path / "out", "pairs")]
    assert found == [f"Bird {number}?" for number in range(30) if number not in (11, 20, 25)]


def test_another_data_set_moves_no_row(tmp_path: Path, raw: Path) -> None:
    others = [record(number, prompt=f"Question {number}?") for number in range(300)]
    given = write_lines(tmp_path / "other.jsonl", others)
    own = PreparationSource(HELPSTEER2, (str(raw),))
    other = PreparationSource(DATASETS["helpsteer"], (given,))
    rubric = load_rubric("helpsteer")
    prepare_sources([own], tmp_path / "alone", rubric, settings(cleaning=CleaningOptions()))
    mixed = prepare_sources(
        [other, own], tmp_path / "mixed", rubric, settings(cleaning=CleaningOptions()), name="both"
    )
    for name in ("train", "validation"):
        alone = [row for _, row in read_rows(tmp_path / "alone", name)]
        assert [row for _, row in read_rows(tmp_path / "mixed", name) if row["source"] == "helpsteer2"] == alone
    assert mixed["dataset"] == "both" and [part["name"] for part in mixed["sources"]] == ["helpsteer", "helpsteer2"]
    assert sum(part["rows"] for part in mixed["sources"]) == mixed["rows"]
    assert mixed["sources"][0]["rows"] == 300


def test_files_of_one_data_set_are_numbered_on(tmp_path: Path) -> None:
    files = [write_lines(tmp_path / f"{name}.jsonl", [record(number) for number in range(7)]) for name in "ab"]
    (tmp_path / "b.jsonl").write_text(json.dumps(record(100)) + "\nbroken\n", "utf-8")
    manifest = prepare_published(HELPSTEER2, tmp_path / "out", files, settings=PreparationSettings(chunk_records=2))
    (refusal,) = (json.loads(line) for line in (tmp_path / "out" / "refused.jsonl").read_bytes().splitlines())
    assert (refusal["file"], refusal["line"], refusal["id"]) == ("b.jsonl", 2, "helpsteer2/000008")
    assert manifest["source"]["name"] == "a.jsonl, b.jsonl" and manifest["raw_records"] == 9


def test_ratings_and_pairs_fill_one_folder(tmp_path: Path) -> None:
    rated = PreparationSource(
        HELPSTEER2, (write_lines(tmp_path / "a.jsonl", [record(number) for number in range(9)]),)
    )
    paired = PreparationSource(
        REWARD_BENCH, (write_lines(tmp_path / "b.jsonl", [pair(number) for number in range(5)]),)
    )
    manifest = prepare_sources([rated, paired], tmp_path / "out", load_rubric("helpsteer"), PreparationSettings())
    assert manifest["rows"] == 14 and manifest["files"]["pairs.jsonl"]["rows"] == 5


# What does not fit.


def test_wrong_settings_are_named_before_anything_is_written(raw: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(DataError, match="format 'csv' is unknown; choose jsonl, parquet"):
        prepare_published(HELPSTEER2, output, str(raw), settings=settings(row_format="csv"))
    with pytest.raises(RubricError, match="no attribute 'humour'"):
        prepare_published(
            HELPSTEER2, output, str(raw), settings=settings(cleaning=CleaningOptions(balance=("humour",)))
        )
    with pytest.raises(DataError, match="holds no comparisons"):
        prepare_published(HELPSTEER2, output, str(raw), rule="rank")
    with pytest.raises(RubricError, match="needs a rubric"):
        prepare_published(dataclasses.replace(HELPSTEER2, rubric=""), output, str(raw))
    for options, message in (
        ({"duplicates": "some"}, "duplicates 'some' is unknown"),
        ({"max_tokens": 5}, "needs both the limit and a tokenizer"),
        ({"truncate": True}, "to a limit in tokens; give one"),
    ):
        with pytest.raises(DataError, match=message):
            CleaningOptions(**options)
    assert not output.exists()


def test_when_no_row_is_left_the_drops_say_why(tmp_path: Path) -> None:
    given = write_lines(tmp_path / "raw.jsonl", [record(number, prompt="\u200b") for number in range(3)])
    cleaning = CleaningOptions(drop_blank=True)
    with pytest.raises(DataError, match=r"no row is left \(dropped: blank_text 3\); see .*dropped\.jsonl"):
        prepare_published(HELPSTEER2, tmp_path / "out", given, settings=settings(cleaning=cleaning))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["dropped.jsonl", "refused.jsonl"]


def grow(content: Mapping[str, Any]) -> list[RawResponse]:
    """Reads a record, and adds another one to its file."""
    with Path(content["path"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(content) + "\n")
    return list(HELPSTEER2.read(content))  # type: ignore[arg-type]


def test_a_file_that_is_still_written_is_named(tmp_path: Path) -> None:
    given = write_lines(tmp_path / "raw.jsonl", [record(0, path=str(tmp_path / "raw.jsonl"))])
    dataset = dataclasses.replace(HELPSTEER2, read=grow)
    with pytest.raises(DataError, match=r"raw\.jsonl has changed while it was read"):
        prepare_published(dataset, tmp_path / "out", given, settings=settings(cleaning=CleaningOptions()))
    assert not (tmp_path / "out" / "manifest.json").exists()


class Shortener:
    """Says of each row that a turn of it was left out."""

    def check(self, row: Row) -> Row:
        """The row, marked."""
        return dataclasses.replace(row, metadata={TURNS_LEFT_OUT: [{"role": "user", "content": "Hi."}]})


@pytest.mark.parametrize("row_format", ["jsonl", "parquet"])
def test_only_rows_that_stay_count_as_shortened(tmp_path: Path, row_format: str) -> None:
    given = write_lines(tmp_path / "raw.jsonl", [record(0), record(0), record(1)])
    source = PreparationSource(HELPSTEER2, (given,), checks=(Shortener(),))
    found = settings(cleaning=CleaningOptions(duplicates="exact"), row_format=row_format)
    manifest = prepare_sources([source], tmp_path / "out", load_rubric("helpsteer"), found)
    assert (manifest["dropped"], manifest["rows"], manifest["turns_left_out"]) == ({"exact_duplicate": 1}, 2, 2)


@pytest.mark.parametrize("row_format", ["jsonl", "parquet"])
def test_only_rows_that_stay_are_reported(tmp_path: Path, row_format: str) -> None:
    given = write_lines(tmp_path / "raw.jsonl", [record(0), record(0), record(1)])
    cleaning = CleaningOptions(duplicates="exact", decontaminate=(given,), contamination="report")
    found = settings(cleaning=cleaning, row_format=row_format)
    manifest = prepare_published(HELPSTEER2, tmp_path / "out", given, settings=found)
    assert (manifest["rows"], manifest["reported"]) == (2, {"contamination_exact": 2})
    reported = [json.loads(line)["id"] for line in (tmp_path / "out" / "reported.jsonl").read_text().splitlines()]
    assert reported == ["helpsteer2/000000a", "helpsteer2/000002a"]


def run_probe(text: str, raw: Path, folder: Path, repo: Path) -> subprocess.CompletedProcess[str]:
    """Run a script that prepares `raw` into the folder `out`, and starts workers that read the script again."""
    (folder / "probe.py").write_text(text, "utf-8")
    return subprocess.run(
        [sys.executable, str(folder / "probe.py"), str(raw), str(folder / "out")],
        env={**os.environ, "PYTHONPATH": str(repo)},
        capture_output=True,
        text=True,
        timeout=600,
    )


DYING_PROBE = """
import os, signal, sys
from pathlib import Path
from rmkit.data.dataset import Dataset
from rmkit.errors import DataError
from rmkit.preparation.published import PreparationSettings, prepare_published

def read(record):
    os.kill(os.getpid(), signal.SIGKILL)

dataset = Dataset("dying", "", "", "", read, "helpsteer", {"helpfulness": (0, 4)})
if __name__ == "__main__":
    try:
        settings = PreparationSettings(workers=2, chunk_records=50)
        prepare_published(dataset, Path(sys.argv[2]), sys.argv[1], settings=settings)
    except DataError as error:
        print(error)
"""


def test_a_killed_worker_is_named(raw: Path, tmp_path: Path, repo: Path) -> None:
    done = run_probe(DYING_PROBE, raw, tmp_path, repo)
    assert "a worker process was killed, perhaps for want of memory; try fewer workers" in done.stdout
    assert not (tmp_path / "out" / "manifest.json").exists()


STARTING_PROBE = """
import os, signal, sys
from pathlib import Path
from rmkit.data.helpsteer2 import HELPSTEER2
from rmkit.preparation.published import PreparationSettings, prepare_published

if __name__ == "__main__":
    settings = PreparationSettings(workers=2, chunk_records=50)
    prepare_published(HELPSTEER2, Path(sys.argv[2]), sys.argv[1], settings=settings)
else:  # a worker, which reads this file before anything else
    os.kill(os.getpid(), signal.SIGINT)
"""


def test_workers_do_not_hear_of_ctrl_c_while_they_start(raw: Path, tmp_path: Path, repo: Path) -> None:
    done = run_probe(STARTING_PROBE, raw, tmp_path, repo)
    assert (done.returncode, done.stderr) == (0, "")
