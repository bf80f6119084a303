"""What a scoring folder must be, and what is said of one that is not."""

from __future__ import annotations

import json

import pyarrow
import pyarrow.parquet
import pytest

from rmkit.errors import DataError
from rmkit.evaluation.records import read_pairs, read_scoring
from rmkit.evaluation.results import evaluate
from rmkit.jsonl import read_jsonl, write_jsonl
from rmkit.manifest import read_json, write_json
from rmkit.row_files import PAIR_SCHEMA, build_batch

ROWS = [("a", "x", 4, 2), ("b", "x", 3, 3), ("c", "y", 1.5, None)]


@pytest.fixture
def folder(write_scoring, tmp_path):
    return write_scoring(tmp_path / "scores", ROWS)


def edit_record(folder, number, **changes):
    records = [record for _, record in read_jsonl(folder / "scores.jsonl")]
    records[number] = {**records[number], **changes}
    write_jsonl(folder / "scores.jsonl", records)


def test_reads_pairs_and_judgements(folder):
    scoring = read_scoring(folder)
    assert [pair.id for pair in scoring.pairs] == ["a", "b", "c"]
    assert scoring.judgments["a", "chosen", 0].attributes["quality"].mean == 4
    assert scoring.judgments["c", "rejected", 0].error == "the prompt is too long"
    assert scoring.rubric.keys == ("quality",)
    assert scoring.notes == ()


def test_pairs_may_be_a_file_or_a_prepared_folder(folder, tmp_path):
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    (folder / "pairs.jsonl").rename(prepared / "pairs.jsonl")
    with pytest.raises(DataError, match="--pairs"):
        read_scoring(folder)
    expected = read_scoring(folder, prepared)
    assert expected.pairs == read_scoring(folder, prepared / "pairs.jsonl").pairs
    assert expected.notes == ()
    rows = [record for _, record in read_jsonl(prepared / "pairs.jsonl")]
    (prepared / "pairs.jsonl").unlink()
    with pytest.raises(DataError, match=r"no pairs.jsonl or pairs.parquet here; name the file itself"):
        read_scoring(folder, prepared)
    pyarrow.parquet.write_table(
        pyarrow.Table.from_batches([build_batch(rows, PAIR_SCHEMA)]), prepared / "pairs.parquet"
    )
    assert read_scoring(folder, prepared).pairs == expected.pairs


def test_rows_that_can_not_be_read_are_comparisons_without_a_verdict(folder, tmp_path):
    rows = [record for _, record in read_jsonl(folder / "pairs.jsonl")]
    rows[0]["conversation"] = []
    rows[1] |= {"chosen": ["", "two"]}
    write_jsonl(tmp_path / "broken.jsonl", rows)
    scoring = read_scoring(folder, tmp_path / "broken.jsonl")
    assert [pair.id for pair in scoring.pairs] == ["c"]
    assert [(pair.id, pair.subset, pair.chosen) for pair in scoring.unread] == [
        ("a", "x", ("",)),
        ("b", "x", ("", "")),
    ]
    edit_record(folder, 0, error="DataError: broken.jsonl:1: conversation", aggregate=None, attributes={})
    results = evaluate(read_scoring(folder, tmp_path / "broken.jsonl"), "pairs", resamples=5)
    everything = results["all_pairs"]
    assert (everything["n"], everything["records"], everything["errors"]) == (4, 3, 4)  # b has two right responses
    assert everything["accuracy"] == {"ties_half": 0, "ties_zero": 0}
    assert results["subsets"]["x"]["errors"] == 3
    assert {"id": "a", "error": "chosen: DataError: broken.jsonl:1: conversation"} in results["error_examples"]


def test_other_pairs_are_noted_or_refused(folder, tmp_path):
    pairs = [record for _, record in read_jsonl(folder / "pairs.jsonl")]
    write_jsonl(tmp_path / "fewer.jsonl", pairs[:1])
    notes = " ".join(read_scoring(folder, tmp_path / "fewer.jsonl").notes)
    assert "4 of 6 score records belong to no pair of fewer.jsonl" in notes
    assert "SHA-256 differs" in notes
    write_jsonl(tmp_path / "others.jsonl", [{**pair, "id": f"other-{pair['id']}"} for pair in pairs])
    with pytest.raises(DataError, match="none of its pairs was scored"):
        read_scoring(folder, tmp_path / "others.jsonl")


def test_unfinished_folder_is_refused(folder):
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match="scoring has not ended"):
        read_scoring(folder)


def test_unknown_format_version_is_refused(folder):
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format_version": 99}), "utf-8")
    with pytest.raises(DataError, match="format_version 99"):
        read_scoring(folder)


def test_lost_records_are_noticed(folder):
    lines = (folder / "scores.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "scores.jsonl").write_text("".join(lines[:-1]), "utf-8")
    with pytest.raises(DataError, match="5 records, but the manifest says 6"):
        read_scoring(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aggregate": None}, "aggregate None without an error"),
        ({"aggregate": float("nan")}, "aggregate nan without an error"),
        ({"attributes": {}}, "no distribution for 'quality'"),
        ({"side": "left"}, "side 'left'"),
        ({"id": "b"}, "stands twice"),
        ({"prompt_tokens": None, "attributes": None}, "not a record of score_pairs.py"),
    ],
)
def test_broken_record_is_refused_with_its_line(folder, changes, message):
    # Plain json, because write_jsonl refuses NaN.
    lines = (folder / "scores.jsonl").read_text("utf-8").splitlines()
    lines[0] = json.dumps({**json.loads(lines[0]), **changes})
    (folder / "scores.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    with pytest.raises(DataError, match=rf"scores\.jsonl:\d: .*{message}"):
        read_scoring(folder)


@pytest.mark.parametrize("probabilities", [[0.5, 0.5, 0.5, 0, 0], [1, -1, 1, 0, 0], [1.0]])
def test_probabilities_that_are_no_distribution_are_refused(folder, probabilities):
    quality = {"values": [1, 2, 3, 4, 5], "probabilities": probabilities, "outside_mass": 0.0}
    edit_record(folder, 0, attributes={"quality": quality})
    with pytest.raises(DataError, match="scores.jsonl:1: .*'quality'"):
        read_scoring(folder)


def test_scores_of_another_rubric_are_refused(folder):
    manifest = read_json(folder / "manifest.json")
    manifest["rubric"]["attributes"][0]["scale"] = [0, 20]
    write_json(folder / "manifest.json", manifest)
    with pytest.raises(DataError, match="the rubric's scale is 0-20"):
        read_scoring(folder)


def test_pairs_files_without_rows_or_with_an_id_twice_are_refused(folder, tmp_path):
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match="no pairs"):
        read_pairs(tmp_path / "empty.jsonl")
    pairs = [record for _, record in read_jsonl(folder / "pairs.jsonl")]
    write_jsonl(tmp_path / "twice.jsonl", [*pairs, pairs[0]])
    with pytest.raises(DataError, match=r"twice.jsonl:4: id 'a' stands in line 1 too"):
        read_pairs(tmp_path / "twice.jsonl")
    write_jsonl(tmp_path / "text.jsonl", [{**pairs[0], "chosen": "not a list"}])
    with pytest.raises(DataError, match=r"text.jsonl:1: chosen must be a list"):
        read_pairs(tmp_path / "text.jsonl")
