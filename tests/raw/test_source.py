from __future__ import annotations

import dataclasses
import gzip
import hashlib
import re
import shutil
from pathlib import Path

import pytest

from rmkit.data import DATASETS
from rmkit.errors import DataError
from rmkit.raw.files import read_records
from rmkit.raw.source import open_source, read_hub, split_hub_id

GOLDEN = Path(__file__).parents[1] / "data" / "golden"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nvidia/HelpSteer2", ("nvidia/HelpSteer2", None)),
        ("me/my.set-1@refs/pr/1", ("me/my.set-1", "refs/pr/1")),
        ("me/my_set@0a1b", ("me/my_set", "0a1b")),
    ],
)
def test_hub_ids(text: str, expected: tuple[str, str | None]) -> None:
    assert split_hub_id(text) == expected


@pytest.mark.parametrize("text", ["nvidia", "a/b/c", "/a/b", "a/b@", "a b/c", ""])
def test_what_is_no_hub_id(text: str) -> None:
    with pytest.raises(DataError, match="neither a file nor a hub id"):
        split_hub_id(text)


def test_a_file_comes_with_its_hash_and_without_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    shutil.copy(GOLDEN / "helpsteer" / "input.jsonl", path)
    source = open_source(DATASETS["helpsteer"], str(path))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert source.to_dict() == {"name": "mine.jsonl", "revision": None, "sha256": sha256}
    assert [record.line for record in source.records] == [1, 2, 3]


def test_csv_ratings_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,response,helpfulness\n1,2,3\n", "utf-8")
    (record,) = open_source(DATASETS["helpsteer"], str(tmp_path / "a.csv")).records
    assert record.content == {"prompt": "1", "response": "2", "helpfulness": 3}


def test_unusable_inputs_say_what_to_do(tmp_path: Path) -> None:
    dataset = DATASETS["helpsteer2"]
    with pytest.raises(DataError, match="is a folder; give one of its files"):
        open_source(dataset, str(tmp_path))
    with pytest.raises(DataError, match="there is no such file"):
        open_source(dataset, "data/none.jsonl.gz")
    with pytest.raises(DataError, match="someone/copy@REVISION"):
        open_source(dataset, "someone/copy")


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_a_data_set_pins_a_commit_or_asks_for_one(name: str) -> None:
    dataset = DATASETS[name]
    if not dataset.hub_id:
        assert re.fullmatch("https://.+/[0-9a-f]{40}/.+", dataset.url)
        with pytest.raises(DataError, match=f"{name} is not on the hub: download a file from https"):
            open_source(dataset)
        return
    split_hub_id(dataset.hub_id)
    if dataset.revision:
        assert len(dataset.revision) == 40 and int(dataset.revision, 16)
    else:
        with pytest.raises(DataError, match=f"--input {dataset.hub_id}@REVISION"):
            open_source(dataset)


def test_a_home_without_a_known_commit_must_be_pinned() -> None:
    dataset = dataclasses.replace(DATASETS["helpsteer"], revision="")
    for given in (None, dataset.hub_id):
        with pytest.raises(DataError, match="--input nvidia/HelpSteer@REVISION, with a commit from https"):
            open_source(dataset, given)


def test_a_hub_repository_is_read_by_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(GOLDEN / "reward_bench" / "input.jsonl", copy / "train.jsonl")
    from_hub = list(read_hub(str(copy), None, "train"))
    from_file = list(open_source(DATASETS["reward_bench"], str(copy / "train.jsonl")).records)
    assert from_hub == from_file
    with pytest.raises(DataError, match="split 'filtered' of .* can't be loaded"):
        read_hub(str(copy), None, "filtered")


def test_one_file_of_a_hub_repository_is_read_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees of any depth, with keys that not every message has, as no table holds them."""
    dataset = DATASETS["oasst"]
    file = dataset.hub_options["data_files"]
    for folder in (tmp_path, tmp_path / "hub/datasets--OpenAssistant--oasst1/snapshots" / dataset.revision):
        folder.mkdir(parents=True, exist_ok=True)
        with gzip.open(folder / file, "wb") as out:
            out.write((GOLDEN / "oasst" / "input.jsonl").read_bytes())
    expected = list(read_records(GOLDEN / "oasst" / "input.jsonl"))
    assert list(read_hub(str(tmp_path), None, "train", dataset.hub_options)) == expected
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source = open_source(dataset)
    assert (source.name, source.revision) == ("OpenAssistant/oasst1", dataset.revision)
    assert list(source.records) == expected
    with pytest.raises(DataError, match="can't be loaded .* or download the file and name it with --input"):
        open_source(dataset, "someone/copy@main")
