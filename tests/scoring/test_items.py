"""`rmkit.scoring.items`: input files read as items."""

from __future__ import annotations

import json

import pyarrow
import pyarrow.parquet
import pytest

from rmkit.errors import DataError
from rmkit.row_files import PAIR_SCHEMA, build_batch
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Message
from rmkit.scoring.items import ScoreInput, ScoreItem, find_input

ASK = (Message("user", "Count to 3."),)


@pytest.fixture
def write(tmp_path):
    """Writes rows (or raw lines) as JSON Lines and returns the file."""

    def write(*rows, name="input.jsonl"):
        path = tmp_path / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
        return path

    return write


def read(path, kind, limit=None):
    return list(ScoreInput(path, kind, limit).items())


def test_responses_in_every_form(write):
    rubric = Rubric("own", (Attribute("tone", "Tone"),))
    messages = [{"role": "user", "content": "Count to 3."}]
    path = write(
        {"id": "a", "conversation": messages, "response": "1 2 3"},
        {"id": "b", "prompt": "Count to 3.", "completion": [{"role": "assistant", "content": "1 2 3"}]},
        {"id": 7, "prompt": messages, "response": "1 2 3", "reference": "one two three", "rubric": rubric.to_dict()},
        {
            "id": "train",
            "prompt": [{"role": "user", "content": "Rate the response ..."}],
            "completion": [{"role": "assistant", "content": "Tone: 3"}],
            "conversation": messages,
            "response": "1 2 3",
            "rubric": None,
        },
    )
    assert read(path, "responses") == [
        ScoreItem("a", "response", 0, ASK, "1 2 3"),
        ScoreItem("b", "response", 0, ASK, "1 2 3"),
        ScoreItem("7", "response", 0, ASK, "1 2 3", "one two three", rubric),
        ScoreItem("train", "response", 0, ASK, "1 2 3"),
    ]


def test_row_without_an_id_gets_its_line_number(write):
    path = write({"prompt": "x", "response": "y"}, "", {"id": None, "prompt": "x", "response": "y"})
    assert [item.id for item in read(path, "responses")] == ["1", "3"]
    pair = {"conversation": "x", "chosen": ["y"], "rejected": ["z"]}
    path = write("", pair)
    assert [item.key for item in read(path, "pairs")] == [("2", "chosen", 0), ("2", "rejected", 0)]
    assert [pair.id for pair, _ in ScoreInput(path, "pairs").pairs()] == ["2"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"response": "y"}, "input.jsonl:2: neither 'conversation' nor 'prompt' is given"),
        ({"prompt": "x"}, "input.jsonl:2: neither 'response' nor 'completion' is given"),
        ({"prompt": "x", "response": "  "}, "DataError: input.jsonl:2: response: it is empty"),
        ({"prompt": [], "response": "y"}, "input.jsonl:2: conversation: expected a text or a list"),
        ({"prompt": "x", "response": "y", "reference": 3}, "input.jsonl:2: reference: expected a text, found '3'"),
        ({"prompt": "x", "response": "y", "rubric": "graded"}, "RubricError: input.jsonl:2: rubric: expected a map"),
    ],
)
def test_row_that_is_none_becomes_an_error(write, row, reason):
    path = write({"prompt": "x", "response": "y"}, {"id": "bad", **row}, {"prompt": "x", "response": "y"})
    items = read(path, "responses")
    assert [item.error is None for item in items] == [True, False, True]
    assert items[1].key == ("bad", "response", 0)
    assert reason in items[1].error


def test_pairs_keep_the_responses_of_a_conversation_together(write):
    row = {"id": "a", "conversation": "Count to 3.", "chosen": ["c0", "c1"], "rejected": ["r0", "r1", "r2"]}
    path = write(row, {**row, "id": "b", "chosen": ["c"], "rejected": ["r"]})
    assert [(*item.key, item.response) for item in read(path, "pairs")] == [
        ("a", "chosen", 0, "c0"),
        ("a", "chosen", 1, "c1"),
        ("a", "rejected", 0, "r0"),
        ("a", "rejected", 1, "r1"),
        ("a", "rejected", 2, "r2"),
        ("b", "chosen", 0, "c"),
        ("b", "rejected", 0, "r"),
    ]


def test_pair_that_is_none_becomes_an_error_for_each_response(write):
    good = {"id": "good", "conversation": "x", "chosen": ["y"], "rejected": ["z"]}
    path = write({"id": "empty", "conversation": "x", "chosen": ["y", ""], "rejected": ["z"]}, {"id": "bare"}, good)
    items = read(path, "pairs")
    assert [(*item.key, item.error is None) for item in items] == [
        ("empty", "chosen", 0, False),
        ("empty", "chosen", 1, False),
        ("empty", "rejected", 0, False),
        ("bare", "chosen", 0, False),
        ("bare", "rejected", 0, False),
        ("good", "chosen", 0, True),
        ("good", "rejected", 0, True),
    ]
    assert "input.jsonl:1: chosen[1]: it is empty" in items[0].error
    assert "input.jsonl:2: field 'conversation' is missing" in items[3].error
    rows = list(ScoreInput(path, "pairs").pairs())
    assert [(pair.id, len(pair.chosen), error) for pair, error in rows] == [
        ("empty", 2, items[0].error),
        ("bare", 1, items[3].error),
        ("good", 1, None),
    ]
    assert [
        pair.id for pair, error in ScoreInput(write(*(p.to_dict() for p, _ in rows)), "pairs").pairs() if error
    ] == [
        "empty",
        "bare",
    ]


@pytest.mark.parametrize("ids", [("a", "b", "a"), (5, "b", "5"), ("3", "b", None)])
def test_id_that_stands_twice_names_both_lines(write, ids):
    path = write(*({"id": row_id, "prompt": "x", "response": "y"} for row_id in ids))
    with pytest.raises(DataError, match=r"input\.jsonl:3: id '.' stands in line 1 too; make ids unique"):
        read(path, "responses")


def test_broken_line_is_named(write):
    path = write({"id": "a", "prompt": "x", "response": "y"}, '{"id": "b", "prom')
    with pytest.raises(DataError, match=r"input\.jsonl:2: not JSON"):
        read(path, "responses")


def test_limit_counts_rows(write):
    path = write(*({"id": str(i), "conversation": "x", "chosen": ["y"], "rejected": ["z"]} for i in range(4)))
    assert [item.id for item in read(path, "pairs", 2)] == ["0", "0", "1", "1"]
    assert len(list(ScoreInput(path, "pairs", 3).pairs())) == 3


def test_prepared_folder_as_input(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("")
    with pytest.raises(DataError, match=r"no manifest\.json, so it is not complete"):
        find_input(tmp_path, "pairs")
    (tmp_path / "manifest.json").write_text("{}")
    assert find_input(tmp_path, "pairs") == tmp_path / "pairs.jsonl"
    assert find_input(tmp_path / "pairs.jsonl", "responses") == tmp_path / "pairs.jsonl"
    with pytest.raises(
        DataError, match=r"no validation\.jsonl or validation\.parquet in this folder; name the JSON Lines"
    ):
        find_input(tmp_path, "responses")
    with pytest.raises(DataError, match="elsewhere: no such file"):
        find_input(tmp_path / "elsewhere", "pairs")


def test_prepared_parquet_as_input(tmp_path):
    pair = {
        "id": "a/1",
        "subset": "a",
        "conversation": [ASK[0].to_dict()],
        "chosen": ["1 2 3"],
        "rejected": ["1", "2"],
    }
    table = pyarrow.table(build_batch([pair | {"metadata": {"number": 1}}], PAIR_SCHEMA))
    pyarrow.parquet.write_table(table, tmp_path / "pairs.parquet")
    (tmp_path / "manifest.json").write_text("{}")
    found = ScoreInput(find_input(tmp_path, "pairs"), "pairs")
    assert [(item.key, item.response) for item in found.items()] == [
        (("a/1", "chosen", 0), "1 2 3"),
        (("a/1", "rejected", 0), "1"),
        (("a/1", "rejected", 1), "2"),
    ]
    assert [pair.metadata for pair, _ in found.pairs()] == [{"number": 1}]
