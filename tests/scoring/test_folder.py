"""`rmkit.scoring.folder`: settings, lock, repair, order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rmkit.errors import DataError
from rmkit.manifest import read_json, write_json
from rmkit.schema import Judgment
from rmkit.scoring.folder import ScoreFolder, to_record
from rmkit.scoring.items import ScoreItem

SETTINGS = {"judge": "tiny", "judge_sha256": "1f", "engine": "vllm", "limit": None, "rubric": {"scale": (1, 5)}}
ITEMS = [ScoreItem(row_id, side, 0) for row_id in ("ä", "b") for side in ("chosen", "rejected")]
RECORDS = [to_record(item, Judgment({}, 0.25 * index)) for index, item in enumerate(ITEMS)]


@pytest.fixture
def begun(tmp_path):
    """A folder with all of `RECORDS`, not finished."""
    with ScoreFolder.open(tmp_path / "scores", SETTINGS) as folder:
        folder.append(RECORDS)
    return folder


def test_settings_come_first_and_the_same_ones_go_on(tmp_path):
    path = tmp_path / "new/scores"
    for _ in range(2):
        with ScoreFolder.open(path, SETTINGS) as folder:
            assert read_json(path / "settings.json")["engine"] == "vllm"
            assert not folder.is_complete
            assert list(folder.match(iter(ITEMS))) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_full_disk_is_named(tmp_path):
    with ScoreFolder.open(tmp_path, SETTINGS) as folder:
        folder.scores.symlink_to("/dev/full")
        with pytest.raises(
            DataError, match=r"scores.jsonl: can't be written to \(.*No space left.*make room, and the same"
        ):
            folder.append(RECORDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": "transformers"}, 'another --engine: "vllm" then, "transformers" now; repeat the command'),
        ({"limit": 3}, "another --limit: null then, 3 now"),
        ({"judge_sha256": "2e", "limit": 3}, r"another --judge \(the files of the model\)"),
        ({"seed": 0}, "another --seed: null then, 0 now"),
    ],
)
def test_other_settings_are_refused(begun, change, message):
    before = begun.scores.read_bytes(), (begun.path / "settings.json").read_bytes()
    with pytest.raises(DataError, match=message), ScoreFolder.open(begun.path, {**SETTINGS, **change}):
        pass
    assert (begun.scores.read_bytes(), (begun.path / "settings.json").read_bytes()) == before


def test_left_out_setting_is_refused(begun):
    settings = {key: value for key, value in SETTINGS.items() if key != "engine"}
    with pytest.raises(DataError, match='another --engine: "vllm" then, null now'):
        ScoreFolder.open(begun.path, settings).__enter__()


def test_moved_judge_is_the_same_judge(begun):
    with ScoreFolder.open(begun.path, {**SETTINGS, "judge": "renamed"}) as folder:
        assert len(list(folder.match(iter(ITEMS)))) == 4


def test_failed_start_binds_nothing(tmp_path):
    with ScoreFolder.open(tmp_path, {**SETTINGS, "engine": "typo"}):
        pass
    with ScoreFolder.open(tmp_path, SETTINGS):
        assert read_json(tmp_path / "settings.json")["engine"] == "vllm"


@pytest.mark.parametrize("name", ["scores.jsonl", "pairs.jsonl", "manifest.json"])
def test_foreign_folder_is_refused(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(DataError, match=f"holds {name} but no settings.json"):
        ScoreFolder.open(tmp_path, SETTINGS).__enter__()
    assert (tmp_path / name).read_text() == "mine"


def test_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file: can't be written to"):
        ScoreFolder.open(tmp_path / "file", SETTINGS).__enter__()


def test_only_one_writer(tmp_path):
    with (
        ScoreFolder.open(tmp_path, SETTINGS),
        pytest.raises(DataError, match="another process is scoring into this folder"),
    ):
        ScoreFolder.open(tmp_path, SETTINGS).__enter__()
    with pytest.raises(ZeroDivisionError), ScoreFolder.open(tmp_path, SETTINGS):
        raise ZeroDivisionError
    with ScoreFolder.open(tmp_path, SETTINGS):
        pass


def test_half_written_last_line_is_cut_at_every_byte(begun):
    whole = begun.scores.read_bytes()
    ends = [0, *(index + 1 for index, byte in enumerate(whole) if byte == ord("\n"))]
    for length in (*range(ends[1]), *range(ends[-2], len(whole) + 1)):  # the first line and the last
        begun.scores.write_bytes(whole[:length])
        with ScoreFolder.open(begun.path, SETTINGS) as folder:
            kept = max(end for end in ends if end <= length)
            assert folder.scores.read_bytes() == whole[:kept], length
            items = iter(ITEMS)
            assert len(list(folder.match(items))) == ends.index(kept)
            assert list(items) == ITEMS[ends.index(kept) :]


def test_half_written_line_longer_than_what_is_read_at_a_time(begun):
    whole = begun.scores.read_bytes()
    begun.scores.write_bytes(whole + b"x" * 200_000)
    with ScoreFolder.open(begun.path, SETTINGS) as folder:
        assert folder.scores.read_bytes() == whole


@pytest.mark.parametrize("line", ['{"id": "b", "side"', "\0\0\0", "[]", '{"id": "b"}'])
def test_broken_line_in_the_middle_is_named(begun, line):
    lines = begun.scores.read_text("utf-8").splitlines()
    begun.scores.write_text("\n".join([*lines[:2], line, lines[3]]) + "\n", "utf-8")
    with ScoreFolder.open(begun.path, SETTINGS) as folder, pytest.raises(DataError, match=r"scores\.jsonl:3: "):
        list(folder.match(iter(ITEMS)))


def test_records_of_another_order_are_refused(begun):
    with ScoreFolder.open(begun.path, SETTINGS) as folder:
        with pytest.raises(DataError, match=r"jsonl:2: holds the score of 'ä' \(rejected 0\) where the input has 'b'"):
            list(folder.match(iter([ITEMS[0], ITEMS[2], ITEMS[1]])))
        with pytest.raises(DataError, match=r"jsonl:4: .* where the input has nothing"):
            list(folder.match(iter(ITEMS[:3])))


def test_records_are_replaced_in_their_places(begun):
    with ScoreFolder.open(begun.path, SETTINGS) as folder:
        folder.finish({"records": 4})
        assert folder.is_complete
        new = to_record(ITEMS[1], Judgment({}, 0.9))
        folder.replace({ITEMS[1].key: new})
        assert not folder.is_complete
        lines = [json.loads(line) for line in folder.scores.read_text("utf-8").splitlines()]
    assert lines == [RECORDS[0], new, *RECORDS[2:]]


def test_the_folder_of_a_training_is_left_alone(tmp_path):
    write_json(tmp_path / "settings.json", {"options": {"max_steps": 20}, "world_size": 2})
    before = (tmp_path / "settings.json").read_bytes()
    with pytest.raises(DataError, match="of something else"), ScoreFolder.open(tmp_path, SETTINGS):
        pass
    assert (tmp_path / "settings.json").read_bytes() == before
