from __future__ import annotations

import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmkit.data.dataset import RawComparison, RawResponse
from rmkit.errors import DataError, RubricError
from rmkit.jsonl import dump_line
from rmkit.preparation.conversion import Outcome, Refusal, convert_records
from rmkit.preparation.mapping import load_mapping
from rmkit.raw.files import RawRecord
from rmkit.raw.source import open_source
from rmkit.rubric import Rubric
from rmkit.schema import Message, PreferencePair, RatedResponse

Write = Callable[[str], Path]

RATED = """
conversation: question
response: answer
attributes:
  helpfulness: {path: scores.helpful, range: [0, 1]}
  clarity: {range: [1, 3]}
  rudeness: {path: "rude", range: [1, 5], lower_is_better: true}
rubric:
  attributes: [{key: helpfulness}, {key: clarity}, {key: rudeness, name: Politeness}]
"""
GOOD: dict[str, Any] = {
    "question": "Why is the sky blue?",
    "answer": "It scatters blue light.",
    "scores": {"helpful": 0.5},
    "clarity": 2,
    "rude": 1,
}
COMPARED = "conversation: q\nchosen: good\nrejected: bad\n"
PAIR: dict[str, Any] = {"q": "Why?", "good": "Because.", "bad": "No."}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a mapping file."""

    def write_mapping(text: str) -> Path:
        (tmp_path / "my.yaml").write_text(text, "utf-8")
        return tmp_path / "my.yaml"

    return write_mapping


def convert(path: Path, *records: Any, rule: str | None = None) -> list[Outcome]:
    """What becomes of records that a mapping file reads."""
    dataset = load_mapping(path)
    rubric = dataset.rubric if isinstance(dataset.rubric, Rubric) and (rule or dataset.rule) != "pairs" else None
    raw = (RawRecord(number, record) for number, record in enumerate(records, start=1))
    return list(convert_records(dataset, rubric, raw, "raw.jsonl", rule))


def scores(path: Path, *records: Any) -> list[dict[str, int]]:
    """The scores of records that all give one row."""
    found = []
    for outcome in convert(path, *records):
        assert not isinstance(outcome, Refusal), outcome
        (row,) = outcome
        assert isinstance(row, RatedResponse)
        found.append(dict(row.scores))
    return found


def refuse(path: Path, record: Any, rule: str | None = None) -> Refusal:
    """The refusal of a record."""
    (refusal,) = convert(path, record, rule=rule)
    assert isinstance(refusal, Refusal), refusal
    return refusal


def read(path: Path, record: Any) -> RawResponse | RawComparison:
    """What a mapping reads from a record."""
    (found,) = load_mapping(path).read(record)
    assert isinstance(found, RawResponse | RawComparison)
    return found


def test_a_record_becomes_a_row(write: Write) -> None:
    (outcome,) = convert(write(RATED), GOOD)
    assert outcome == (
        RatedResponse(
            id="my/000000a",
            source="my",
            conversation=(Message("user", "Why is the sky blue?"),),
            response="It scatters blue light.",
            scores={"helpfulness": 3, "clarity": 3, "rudeness": 5},
        ),
    )


@pytest.mark.parametrize(
    ("raw", "rating", "expected"),
    [
        # The ends, the middle and the halves of each range; ranges per attribute, floats, and less is better.
        ("[0, 1]", [0, 0.12, 0.125, 0.375, 0.5, 0.625, 0.875, 1, 1.0], [1, 1, 2, 3, 3, 4, 5, 5, 5]),
        ("[1, 3]", [1, 1.24, 1.25, 1.75, 2, 2.25, 2.75, 3], [1, 1, 2, 3, 3, 4, 5, 5]),
        ("[1, 5]", [1, 1.5, 2.4999, 2.5, 3, 3.5, 4.5, 5], [1, 2, 2, 3, 3, 4, 5, 5]),
        ("[0, 100]", [0, 12, 12.5, 50, 87.4, 87.5, 100], [1, 1, 2, 3, 4, 5, 5]),
        ("[-1, 1]", [-1, -0.75, 0, 0.75, 1], [1, 2, 3, 5, 5]),
        ("[0.1, 0.7]", [0.1, 0.174, 0.175, 0.4, 0.7], [1, 1, 2, 3, 5]),
        ("[0, 3], lower_is_better: true", [0, 1, 1.5, 2, 3], [5, 4, 3, 2, 1]),
        ("[0, 6]", [(0 + 1 + 1) / 3, 5 / 3, 0.75], [1, 2, 2]),
    ],
)  # fmt: skip
def test_ranges_go_from_end_to_end_and_halves_up(
    write: Write, raw: str, rating: list[float], expected: list[int]
) -> None:
    path = write(
        f"conversation: q\nresponse: r\nattributes: {{a: {{range: {raw}}}}}\nrubric: {{attributes: [key: a]}}"
    )
    found = scores(path, *({"q": "Q?", "r": "R.", "a": value} for value in rating))
    assert [row["a"] for row in found] == expected


def test_the_read_function_and_the_data_set_go_to_worker_processes(write: Write) -> None:
    dataset = load_mapping(write(RATED))
    again = pickle.loads(pickle.dumps(dataset))
    assert again == dataset
    assert list(again.read(GOOD)) == list(dataset.read(GOOD))


def test_text_numbers_labels_and_missing_values(write: Write) -> None:
    path = write("""
conversation: q
response: r
attributes:
  a: {range: [0, 10]}
  b: {range: [1, 3], labels: {poor: 1, fair: 2, good: 3, true: 3}}
  c: {range: [0, 1]}
missing: [N/A, null, -1, .nan]
text_numbers: true
optional: [c]
rubric: {attributes: [{key: a}, {key: b}, {key: c}]}
""")
    base = {"q": "Q?", "r": "R."}
    rows: list[tuple[dict[str, Any], dict[str, int]]] = [
        ({"a": "7.5", "b": "fair", "c": " 1 "}, {"a": 4, "b": 3, "c": 5}),
        ({"a": "10", "b": "N/A", "c": 0}, {"a": 5, "c": 1}),
        ({"a": None, "b": True}, {"b": 5}),
        ({"a": -1, "b": "good", "c": None}, {"b": 5}),
        ({"a": math.nan, "b": "poor", "c": True}, {}),
        ({"a": Decimal("2.5"), "b": "poor", "c": 0.5}, {"a": 2, "b": 1, "c": 3}),
    ]
    assert scores(path, *({**base, **row} for row, found in rows if found)) == [found for _, found in rows if found]
    for change, reason, match in (
        ({"a": "many"}, "rating_wrong_type", "path 'a': expected a number, found str 'many'; name it under missing"),
        ({"a": "1/2"}, "rating_wrong_type", "1/2"),
        ({"a": "nan"}, "rating_wrong_type", "nan"),
        ({"a": "1" * 301}, "rating_wrong_type", "111"),
        ({"a": "11"}, "rating_out_of_range", "a: 11 is outside 0-10"),
        ({"b": "Fair"}, "rating_unknown_label", "expected a label of 'poor', 'fair', 'good', True; found str 'Fair'"),
        ({"b": 1}, "rating_unknown_label", "found int 1"),
        ({"c": True}, "rating_wrong_type", "bool True"),
        ({"a": "N/A", "b": None, "c": -1}, "no_rating", "none of the rubric's attributes is rated"),
        ({"b": {"x": None}}, "rating_unknown_label", "dict"),
    ):  # fmt: skip
        refusal = refuse(path, {**base, "a": 1, "b": "fair", "c": 1, **change})
        assert (refusal.reason, match in refusal.message) == (reason, True), refusal
    bad = refuse(write(RATED), {**GOOD, "clarity": "2"})
    assert bad.reason == "rating_wrong_type" and "set text_numbers: true" in bad.message


@pytest.mark.parametrize(
    ("change", "reason", "match"),
    [
        ({"answer": "  "}, "empty_response", "path 'answer' holds no text"),
        ({"answer": 5}, "wrong_type", "path 'answer': expected text, found int 5"),
        ({"answer": "half \ud83d"}, "broken_text", "path 'answer': character 5"),
        ({"question": None}, "empty_prompt", "path 'question'"),
        ({"question": []}, "empty_prompt", "has no turn of a user"),
        ({"question": [{"role": "user", "content": "\udcff"}]}, "broken_text", "path 'question[0]'"),
        ({"question": [{"role": "owl", "content": "Hoo?"}]}, "broken_turns", "path 'question[0]'"),
        ({"question": ["Why?"]}, "broken_turns", "path 'question[0]'"),
        ({"question": [{"role": "user", "content": " "}]}, "empty_prompt", "the last one holds no text"),
        ({"question": [{"role": "system", "content": "Hi"}]}, "empty_prompt", "no turn of a user"),
        ({"question": [{"role": "user", "content": {"a": 1}}]}, "broken_turns", "content must be text"),
        (
            {"question": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]},
            "broken_turns", "if that is the response, map no conversation",
        ),
        ({"scores": 0.5}, "missing_column", "path 'scores.helpful': 'scores' has no key 'helpful'; it is float 0.5"),
        ({"scores": {"helpfull": 1}}, "missing_column", "it is dict {'helpfull': 1}"),
        ({"clarity": None}, "rating_missing", "clarity: the rating is null"),
        ({"clarity": math.nan}, "rating_out_of_range", "clarity: nan is outside 1-3"),
        ({"rude": 0}, "rating_out_of_range", "rudeness: 0 is outside 1-5"),
        ({"rude": 10**400}, "rating_out_of_range", "rudeness: 1000"),
    ],
)  # fmt: skip
def test_a_bad_record_is_refused_with_its_path(write: Write, change: dict, reason: str, match: str) -> None:
    first, refusal, third = convert(write(RATED), GOOD, {**GOOD, **change}, GOOD)
    assert isinstance(refusal, Refusal) and isinstance(first, tuple) and isinstance(third, tuple)
    assert (refusal.reason, refusal.line, refusal.id) == (reason, 2, "my/000001")
    assert match in refusal.message


@pytest.mark.parametrize("column", ["question", "answer", "scores", "clarity", "rude"])
def test_a_column_that_a_record_lacks_is_named(write: Write, column: str) -> None:
    refusal = refuse(write(RATED), {key: value for key, value in GOOD.items() if key != column})
    assert refusal.reason == "missing_column" and repr(column) in refusal.message


def test_deep_and_large_values_are_refused(write: Write) -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    for value in (deep, [deep], [{"role": "user", "content": deep}], [{"role": deep}], [1] * 100_000, {"a": deep}):
        refusal = refuse(write(RATED), {**GOOD, "question": value})
        assert refusal.reason in ("wrong_type", "broken_turns"), refusal.reason


# Conversations.


def test_several_columns_become_turns(write: Write) -> None:
    path = write("""
conversation:
- {role: system, path: setup}
- {path: history}
- {role: user, path: instruction}
- {role: user, path: input}
response: r
attributes: {overall: {path: s, range: [1, 5]}}
rubric: overall
optional: [setup, history, input]
""")
    history = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    base = {"instruction": "Sum up.", "r": "R.", "s": 1}
    user = Message("user", "Sum up.\n\nA text.")
    full = read(path, {**base, "setup": "Be brief.", "history": history, "input": "A text."})
    assert full.conversation == (
        Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello!"), user
    )  # fmt: skip
    for gone in ({}, {"setup": None, "history": None, "input": ""}, {"setup": " ", "history": []}):
        assert read(path, {**base, **gone}).conversation == (Message("user", "Sum up."),)
    last_is_user = [*history, {"role": "user", "content": "Go on."}]
    turns = read(path, {**base, "history": last_is_user}).conversation
    assert [turn.content for turn in turns] == ["Hi", "Hello!", "Go on.", "Sum up."]  # only texts are joined


def test_messages_may_call_their_parts_otherwise_and_hold_the_response(write: Write) -> None:
    path = write("""
response: conversations
attributes: {overall: {path: s, range: [1, 5]}}
rubric: overall
messages: {role: from, content: value, roles: {human: user, gpt: assistant}}
""")
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}, {"from": "human", "value": "Bye"}]
    found = read(path, {"conversations": [*turns, {"from": "gpt", "value": "See you."}], "s": 2})
    assert isinstance(found, RawResponse)
    assert found.response == "See you."
    assert [(turn.role, turn.content) for turn in found.conversation] == [
        ("user", "Hi"), ("assistant", "Hello!"), ("user", "Bye")
    ]  # fmt: skip
    for value, reason in (
        (turns, "empty_response"),
        ([], "broken_turns"),
        ("See you.", "wrong_type"),
        ([{"from": "gpt", "value": "Hi"}], "empty_prompt"),
        ([{"from": "bot", "value": "Hi"}], "broken_turns"),
        ([{"from": ["gpt"], "value": "Hi"}], "broken_turns"),
        ([*turns[:2], {"from": "gpt", "value": "Hi"}], "broken_turns"),
        (turns[:1] + [{"from": "gpt", "value": ""}], "empty_response"),
    ):
        assert refuse(path, {"conversations": value, "s": 2}).reason == reason, value


def test_both_sides_of_a_pair_may_repeat_the_conversation(write: Write) -> None:
    user, other = ({"role": "user", "content": text} for text in ("Why?", "How?"))
    good, bad = ({"role": "assistant", "content": text} for text in ("Because.", "No."))
    for text in (COMPARED, COMPARED.replace("conversation: q\n", "")):
        path = write(text)
        found = read(path, {"q": "Why?", "good": [user, good], "bad": [user, bad]})
        assert found.conversation == (Message("user", "Why?"),)
        assert isinstance(found, RawComparison) and found.responses == ("Because.", "No.")
        refusal = refuse(path, {"q": "Why?", "good": [user, good], "bad": [other, bad]})
        assert refusal.reason == "different_conversations" and "'bad'" in refusal.message
    assert read(write(COMPARED), {"q": "Why?", "good": [good], "bad": "No."}).conversation[0].content == "Why?"


def test_each_element_of_a_list_gives_a_row(write: Write) -> None:
    path = write("""
conversation: q
each: answers
response: answers.text
attributes: {overall: {path: answers.stars, range: [1, 5]}, style: {path: answers.style, range: [0, 1]}}
rubric: {attributes: [{key: overall}, {key: style}]}
metadata: {model: answers.model}
optional: [answers.style]
""")
    answers = [{"text": "So.", "stars": 5, "style": 1, "model": "a"}, {"text": "No.", "stars": 2.5, "model": "b"}]
    (rows,) = convert(path, {"q": "Why?", "answers": answers})
    assert isinstance(rows, tuple)
    found = [(row.id, row.response, row.scores, row.metadata) for row in rows if isinstance(row, RatedResponse)]
    assert found == [
        ("my/000000a", "So.", {"overall": 5, "style": 5}, {"model": "a"}),
        ("my/000000b", "No.", {"overall": 3}, {"model": "b"}),
    ]
    for value, reason, match in (
        ([*answers, {"text": "", "stars": 1, "model": "c"}], "empty_response", "answers[2]: path 'answers.text'"),
        ([*answers, {"text": "Well.", "model": "c"}], "missing_column", "answers[2]: path 'answers.stars'"),
        ([*answers, 5], "missing_column", "answers[2]: path 'answers.text'"),
        ([], "empty_response", "column 'answers' holds an empty list"),
        ({"text": "So."}, "wrong_type", "column 'answers'"),
    ):
        refusal = refuse(path, {"q": "Why?", "answers": value})
        assert (refusal.reason, match in refusal.message) == (reason, True), refusal
    assert refuse(path, {"q": "Why?"}).reason == "missing_column"


# Comparisons.


def test_a_preference_becomes_scores_or_a_pair(write: Write) -> None:
    path = write(COMPARED + "id: n\nsubset: s\nmetadata: [model]\n")
    record = {**PAIR, "n": 7, "s": "easy", "model": "m"}
    assert load_mapping(path).rule == "rank"
    (rows,) = convert(path, record)
    assert isinstance(rows, tuple)
    assert [row.scores for row in rows if isinstance(row, RatedResponse)] == [{"overall": 5}, {"overall": 1}]
    assert all(isinstance(row, RatedResponse) and row.derived == ("overall",) for row in rows)
    (outcome,) = convert(path, record, rule="pairs")
    turn = (Message("user", "Why?"),)
    assert outcome == (PreferencePair("7", "easy", turn, ("Because.",), ("No.",), {"model": "m"}),)
    (outcome,) = convert(write(COMPARED + "rule: pairs\nrubric: overall\n"), PAIR)
    assert isinstance(outcome, tuple) and outcome[0].id == "my/000000a"


@pytest.mark.parametrize(
    ("strength", "expected"), [(0, [3, 3]), (1, [4, 2]), (1.5, [4, 2]), (3, [5, 1]), (None, [5, 1])]
)
def test_strength_parts_the_scores(write: Write, strength: float | None, expected: list[int]) -> None:
    path = write(COMPARED + "strength: {path: by, range: [0, 3]}\nmissing: [null]\n")
    assert load_mapping(path).rule == "margin"
    (rows,) = convert(path, {**PAIR, "by": strength})
    assert isinstance(rows, tuple)
    assert [row.scores["overall"] for row in rows if isinstance(row, RatedResponse)] == expected


def test_a_strength_of_nothing_is_a_tie_under_every_rule(write: Write) -> None:
    path = write(COMPARED + "strength: {path: by, range: [0, 3]}\n")
    found = read(path, {**PAIR, "by": 0})
    assert isinstance(found, RawComparison) and found.ranks == (1, 1)
    assert refuse(path, {**PAIR, "by": 0}, rule="pairs").reason == "tie"
    third = read(path, {**PAIR, "by": 1})
    assert isinstance(third, RawComparison) and third.strength == Fraction(1, 3)


@pytest.mark.parametrize(
    ("strength", "reason"),
    [
        (4, "rating_out_of_range"), (-1, "rating_out_of_range"), (10**400, "rating_out_of_range"),
        (math.nan, "rating_wrong_type"), (math.inf, "rating_wrong_type"), ([], "rating_wrong_type"),
        (True, "rating_wrong_type"), (None, "rating_wrong_type"), ("1", "rating_wrong_type"),
    ],
)  # fmt: skip
def test_a_strange_strength_is_refused(write: Write, strength: Any, reason: str) -> None:
    path = write(COMPARED + "strength: {path: by, range: [0, 3]}\n")
    refusal = refuse(path, {**PAIR, "by": strength})
    assert refusal.reason == reason and "'by'" in refusal.message


# What stands beside.


def test_reference_and_metadata(write: Write) -> None:
    path = write(RATED + "reference: gold\nmetadata: {who: by.name, when: day, n: count}\noptional: [gold, count]\n")
    record = {**GOOD, "gold": "Rayleigh.", "by": {"name": "Ann"}, "day": date(2024, 2, 29), "count": math.nan}
    found = read(path, record)
    assert (found.reference, found.metadata) == ("Rayleigh.", {"who": "Ann", "when": "2024-02-29", "n": None})
    for gold in ({}, {"gold": None}, {"gold": ""}):
        assert read(path, {**GOOD, "by": {"name": 1}, "day": None, **gold}).reference is None
    assert refuse(path, {**record, "gold": 5}).reason == "wrong_type"
    for value in (math.inf, b"x", {"a": math.nan}, {1: {2}}):
        refusal = refuse(path, {**record, "day": value})
        assert refusal.reason == "metadata_wrong_type" and "path 'day'" in refusal.message
    assert refuse(path, {key: record[key] for key in record if key != "by"}).reason == "missing_column"


def test_rubrics_come_by_name_from_a_file_beside_or_from_the_caller(write: Write, tmp_path: Path) -> None:
    text = "conversation: q\nresponse: r\nattributes: {overall: {range: [1, 5]}}\n"
    (tmp_path / "r.yaml").write_text("attributes: [{key: overall, scale: [0, 9]}]\n", "utf-8")
    for line, name, top in (("rubric: overall\n", "overall", 5), ("rubric: r.yaml\n", "r", 9)):
        rubric = load_mapping(write(text + line)).rubric
        assert isinstance(rubric, Rubric) and (rubric.name, rubric["overall"].maximum) == (name, top)
    assert load_mapping(write(text)).rubric == ""
    with pytest.raises(RubricError, match="no rubric 'none'"):
        load_mapping(write(text + "rubric: none\n"))
    with pytest.raises(DataError, match="rubric 'helpsteer' has no attribute 'overall'; it has helpfulness"):
        load_mapping(write(text + "rubric: helpsteer\n"))


def test_a_home_on_the_hub(write: Write) -> None:
    dataset = load_mapping(write(RATED + "name: sky\nhub_id: a/b\nrevision: abc123\nsplit: test\nconfig: raw\n"))
    assert (dataset.name, dataset.hub_id, dataset.revision, dataset.split) == ("sky", "a/b", "abc123", "test")
    assert dataset.hub_options == {"name": "raw"}
    assert load_mapping(write(RATED)).split == "train"
    with pytest.raises(DataError, match="my .*--input"):
        open_source(load_mapping(write(RATED)))


def test_csv_and_parquet_give_the_same_rows(write: Write, tmp_path: Path) -> None:
    path = write(RATED.replace("scores.helpful", '["score, 0-1"]'))
    rows = [("Q?", "R.", 0.25, 3, 1), ("Q2?", "R2.", 1.0, 1, 5)]
    names = ["question", "answer", "score, 0-1", "clarity", "rude"]
    lines = [",".join(f'"{cell}"' for cell in row) for row in (names, *rows)]
    (tmp_path / "raw.csv").write_text("\n".join(lines) + "\n", "utf-8")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    table = pyarrow.table({**columns, "score, 0-1": pyarrow.array(columns["score, 0-1"], pyarrow.float32())})
    pyarrow.parquet.write_table(table, tmp_path / "raw.parquet")
    dataset = load_mapping(path)
    assert dataset.numeric == ("score, 0-1", "clarity", "rude")
    found = []
    for name in ("raw.csv", "raw.parquet"):
        source = open_source(dataset, str(tmp_path / name))
        assert isinstance(dataset.rubric, Rubric)
        found.append(list(convert_records(dataset, dataset.rubric, source.records, "raw")))
    assert found[0] == found[1] and len(found[0]) == 2
    assert [row.scores for outcome in found[0] for row in outcome] == [  # type: ignore[union-attr]
        {"helpfulness": 2, "clarity": 5, "rudeness": 5}, {"helpfulness": 5, "clarity": 1, "rudeness": 1}
    ]  # fmt: skip


# What a mapping may not say.


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (RATED.replace("response", "respone"), "my.yaml: unknown key 'respone'; did you mean 'response'?"),
        (RATED.replace("range: [0, 1]", "rang: [0, 1]"), "helpfulness: unknown key 'rang'; did you mean 'range'?"),
        (RATED.replace(", range: [0, 1]", ""), "helpfulness: key 'range' is missing"),
        (RATED.replace("[0, 1]", "[1, 0]"), "found [1, 0]; where less is better, add lower_is_better: true"),
        (RATED.replace("[0, 1]", "[1, 1]"), "range must be [lowest, highest]"),
        (RATED.replace("[0, 1]", "[0, .inf]"), "range must be [lowest, highest]"),
        (RATED.replace("[0, 1]", "[0, '1']"), "range must be [lowest, highest]"),
        (RATED.replace("[0, 1]", "0-1"), "range must be [lowest, highest], found '0-1'"),
        (RATED.replace("lower_is_better: true", "lower_is_better: 1"), "rudeness: lower_is_better must be true or"),
        (RATED.replace("scores.helpful", "scores..helpful"), "helpfulness: expected a path such as"),
        (RATED.replace("response: answer", "response: [0]"), "my.yaml: response: expected a path"),
        (RATED.replace("response: answer", "response:"), "key 'response' is empty"),
        (RATED.replace("response: answer\n", ""), "key 'response' is missing; map response and attributes, or"),
        (RATED + "chosen: good\n", "key 'response' does not go with 'chosen'"),
        (RATED + "rule: rank\n", "key 'rule' does not go with 'response'"),
        (COMPARED.replace("rejected: bad\n", ""), "key 'rejected' is missing"),
        (COMPARED + "rule: elo\n", "rule 'elo' is unknown; choose rank, margin, label, pairs"),
        (COMPARED + "strength: {range: [0, 1]}\n", "strength: key 'path' is missing"),
        (COMPARED + "attribute: fun\nrubric: overall\n", "rubric 'overall' has no attribute 'fun'; it has overall"),
        (RATED.replace("conversation: question", "conversation: [{role: owl, path: q}]"), "[0]: role 'owl'"),
        (RATED.replace("conversation: question", "conversation: [{role: user}]"), "[0]: key 'path' is missing"),
        (RATED.replace("conversation: question", "conversation: [{role: user, path: q}, r]"), "[1]: expected keys of"),
        (RATED + "messages: {roles: {human: person}}\n", "roles must map the file's names to system, user"),
        (RATED + "messages: {roles: {human: [user]}}\n", "roles must map the file's names to system, user"),
        (RATED + "messages: {rôle: a}\n", "did you mean 'role'?"),
        (RATED + "missing: N/A\n", "missing must be a list of values, found 'N/A'"),
        (RATED + "text_numbers: 1\n", "text_numbers must be true or false"),
        (RATED + "optional: question\n", "optional: expected a list of paths"),
        (RATED + "optional: [qestion]\n", "optional: nothing reads the path 'qestion'"),
        (RATED + "metadata: {a: 5}\n", "metadata: a: expected a path"),
        (RATED + "name: a/b\n", "the name 'a/b' stands in row ids"),
        (RATED + "name: 5\n", "name must be a text, found '5'; put quotes around it"),
        (RATED + "format_version: 2\n", "format_version 2 is unknown; this rmkit reads 1"),
        (RATED.replace("[1, 3]", "[1, 3], labels: {a: 4}"), "clarity: the label 'a' stands for 4, outside [1, 3]"),
        (RATED.replace("[1, 3]", "[1, 3], labels: [a]"), "labels must map each label to its number"),
        (RATED.replace("[1, 3]", "[1, 3], labels: {a: b}"), "labels must map each label to its number"),
        ("conversation: q\nresponse: r\nattributes: {}\n", "attributes must map each attribute key to its range"),
        (RATED.replace("key: clarity}", "key: clarity, scale: 5}"), "scale must be [minimum, maximum]"),
        (RATED.replace("{key: clarity}, ", ""), "rubric 'my' has no attribute 'clarity'"),
    ],
)  # fmt: skip
def test_what_a_mapping_may_not_say(write: Write, text: str, match: str) -> None:
    with pytest.raises((DataError, RubricError)) as caught:
        load_mapping(write(text))
    assert match in str(caught.value) and "my.yaml" in str(caught.value)


STRANGE = [10**400, "", "\ud800", "4", "N/A", "user", "assistant", date(2024, 1, 1), Decimal("NaN"), Decimal(2), b"x"]
ODD = st.recursive(
    st.sampled_from([None, True, *STRANGE]) | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "helpful", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(list(GOOD)), ODD, max_size=5), st.sampled_from(list(GOOD)), ODD)
def test_any_record_is_accepted_or_refused_with_a_reason(
    tmp_path_factory: pytest.TempPathFactory, wild: dict[str, Any], column: str, value: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_text(
        RATED + "metadata: [scores, answer]\noptional: [rude]\nmissing: [N/A]\ntext_numbers: true\n", "utf-8"
    )
    for outcome in convert(path, wild, {**GOOD, column: value}):
        if isinstance(outcome, Refusal):
            assert outcome.reason.isidentifier() and outcome.message
            dump_line(outcome.to_dict())
        else:
            (row,) = outcome
            assert isinstance(row, RatedResponse) and row.scores
            assert all(type(score) is int and 1 <= score <= 5 for score in row.scores.values())
            dump_line({"row": row.response, "metadata": dict(row.metadata)})


def test_real_ratings_with_numbers_as_text(write: Write, shared: Path) -> None:
    keys = ("helpfulness", "clarity", "factuality", "depth", "engagement")
    lines = [f"  {key}: {{path: parsed_result.{key}.score, range: [1, 5]}}" for key in keys]
    path = write(
        "conversation: input\nresponse: output_cand\nattributes:\n" + "\n".join(lines) + "\nmissing: [N/A]\n"
        "text_numbers: true\nrubric: {attributes: [" + ", ".join(f"{{key: {key}}}" for key in keys) + "]}\n"
    )
    raw = shared / "data" / "just_eval" / "general_multi_mtbench.jsonl"
    records = [json.loads(line) for line in raw.read_text("utf-8").splitlines()]
    expected = [
        {key: int(item["score"]) for key, item in record["parsed_result"].items() if item["score"] != "N/A"}
        for record in records
    ]
    found = scores(path, *records)
    assert found == [{key: row[key] for key in keys if key in row} for row in expected]
    assert len(found) == 50


def test_the_script_reads_a_file_by_its_mapping(write: Write, repo: Path, tmp_path: Path) -> None:
    # The ends, the middle and the halves of three ranges, as means of raters.
    ratings = [(0, 1, 5), (0.125, 1.25, 4.5), (0.5, 2, 3), (0.874, 2.74, 1.51), (1, 3, 1), (1 / 3, None, 2)]
    lines = [json.dumps({**GOOD, "scores": {"helpful": a}, "clarity": b, "rude": c}) for a, b, c in ratings]
    (tmp_path / "raw.jsonl").write_text("\n".join([*lines, json.dumps({**GOOD, "rude": 6})]), "utf-8")
    write(RATED + "missing: [null]\n")
    command = [sys.executable, str(repo / "data_prep" / "prepare.py"), "--mapping", "my.yaml", "--input", "raw.jsonl"]
    command += ["--output", "out", "--validation-fraction", "0"]
    environment = {**os.environ, "PYTHONPATH": str(repo), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        "my from raw.jsonl: 7 records, 6 accepted, 1 refused\nrefused: rating_out_of_range 1\n"
    )
    rows = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text("utf-8").splitlines()]
    assert [list(row["scores"].values()) for row in rows] == [
        [1, 1, 1], [2, 2, 2], [3, 3, 3], [4, 4, 4], [5, 5, 5], [2, 4]
    ]  # fmt: skip
    assert rows[1]["completion"][0]["content"] == "Helpfulness: 2, Clarity: 2, Politeness: 2"
    (refusal,) = [json.loads(line) for line in (tmp_path / "out" / "refused.jsonl").read_text("utf-8").splitlines()]
    assert (refusal["line"], refusal["message"]) == (7, "rudeness: 6 is outside 1-5, the scale of my")
