from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rmkit.data import DATASETS
from rmkit.data.dataset import Dataset, RawResponse, read_column
from rmkit.data.helpsteer import HELPSTEER
from rmkit.data.reward_bench import REWARD_BENCH
from rmkit.errors import RubricError
from rmkit.jsonl import dump_line
from rmkit.preparation.conversion import (
    Outcome,
    Refusal,
    convert_records,
    is_validation,
    move_row,
    needs_rubric,
    rescale,
    row_to_dict,
)
from rmkit.raw.files import RawRecord
from rmkit.rubric import Attribute, Rubric, load_rubric
from rmkit.schema import Message, RatedResponse
from rmkit.scores import parse_scores

RUBRIC = load_rubric("helpsteer")
RATINGS = {"helpfulness": 3, "correctness": 3, "coherence": 3, "complexity": 2, "verbosity": 2}
GOOD = {"prompt": "Name a bird.", "response": "The wren.", **RATINGS}


def convert(*records: Mapping[str, Any] | RawRecord, rubric: Rubric = RUBRIC) -> list[Outcome]:
    """The outcomes of HelpSteer records that stand on lines 1, 2, ..."""
    raw = [r if isinstance(r, RawRecord) else RawRecord(line, dict(r)) for line, r in enumerate(records, start=1)]
    return list(convert_records(HELPSTEER, rubric, raw, "train.jsonl"))


def row_of(outcome: Outcome) -> RatedResponse:
    """The one rated response of an outcome."""
    assert isinstance(outcome, tuple), outcome
    (row,) = outcome
    assert isinstance(row, RatedResponse)
    return row


def test_ratings_are_shifted_onto_the_rubric() -> None:
    row = row_of(convert(GOOD)[0])
    assert row.scores == {"helpfulness": 4, "correctness": 4, "coherence": 4, "complexity": 3, "verbosity": 3}
    data = row_to_dict(row, RUBRIC)
    text = "Helpfulness: 4, Correctness: 4, Coherence: 4, Complexity: 3, Verbosity: 3"
    assert data["completion"] == [{"role": "assistant", "content": text}]
    assert RatedResponse.from_dict(json.loads(dump_line(data))) == row


def test_the_papers_rubric_adds_up_the_overall_score() -> None:
    row = row_of(convert(GOOD, rubric=load_rubric("dist2_paper"))[0])
    assert row.scores == {"overall": 13, **RATINGS}
    assert list(row.scores)[0] == "overall"


def test_a_rubric_with_fewer_attributes_takes_what_it_has() -> None:
    rubric = Rubric(
        "mine", (Attribute("verbosity", "Verbosity", minimum=1, maximum=10), Attribute("humour", "Humour"))
    )
    row = row_of(convert(GOOD, rubric=rubric)[0])
    assert row.scores == {"verbosity": 6}  # 1 + 2 * 9/4 = 5.5, rounded up
    assert row_to_dict(row, rubric)["completion"][0]["content"] == "Verbosity: 6"


@pytest.mark.parametrize(
    ("raw_scale", "scale", "expected"),
    [
        ((0, 4), (1, 5), [1, 2, 3, 4, 5]),
        ((0, 4), (0, 4), [0, 1, 2, 3, 4]),
        ((0, 4), (1, 10), [1, 3, 6, 8, 10]),
        ((1, 10), (1, 5), [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
        ((0, 1), (1, 5), [1, 5]),
    ],
)
def test_rescaling_goes_from_end_to_end(
    raw_scale: tuple[int, int], scale: tuple[int, int], expected: list[int]
) -> None:
    attribute = Attribute("a", "A", minimum=scale[0], maximum=scale[1])
    assert [rescale(rating, raw_scale, attribute) for rating in range(raw_scale[0], raw_scale[1] + 1)] == expected


def test_halves_are_rounded_up_without_rounding_errors() -> None:
    attribute = Attribute("a", "A", minimum=1, maximum=5)
    assert [rescale(rating, (0, 4), attribute) for rating in (0.5, 1.5, 2.5, 3.5)] == [2, 3, 4, 5]
    assert rescale(1.4999, (0, 4), attribute) == 2
    assert rescale(1, (0, 6), Attribute("a", "A", minimum=0, maximum=3)) == 1  # exactly 1/2


@pytest.mark.parametrize(
    ("change", "reason", "match"),
    [
        ({"helpfulness": 7}, "rating_out_of_range", "helpfulness: 7 is outside 0-4"),
        ({"verbosity": -1}, "rating_out_of_range", "verbosity: -1"),
        ({"verbosity": math.nan}, "rating_out_of_range", "nan"),
        ({"verbosity": math.inf}, "rating_out_of_range", "inf"),
        ({"verbosity": 10**400}, "rating_out_of_range", "outside 0-4"),
        ({"verbosity": None}, "rating_missing", "verbosity: the rating is null"),
        ({"verbosity": True}, "rating_wrong_type", "bool True"),
        ({"verbosity": "3"}, "rating_wrong_type", "str '3'"),
        ({"verbosity": {"a": None}}, "rating_wrong_type", "dict"),
        ({"response": ""}, "empty_response", "'response' holds no text"),
        ({"response": " \n\t"}, "empty_response", "'response' holds no text"),
        ({"response": None}, "empty_response", "'response' holds no text"),
        ({"response": ["a"]}, "wrong_type", "list"),
        ({"response": "half \ud83d"}, "broken_text", "character 5"),
        ({"prompt": "\udcff"}, "broken_text", "'prompt'"),
        ({"prompt": ""}, "empty_prompt", "'prompt' holds no text"),
        ({"prompt": 5}, "wrong_type", "int 5"),
    ],
)
def test_a_bad_record_is_refused_and_good_ones_are_kept(change: dict[str, Any], reason: str, match: str) -> None:
    first, refusal, third = convert(GOOD, {**GOOD, **change}, GOOD)
    assert isinstance(refusal, Refusal)
    assert (refusal.file, refusal.line, refusal.id, refusal.reason) == ("train.jsonl", 2, "helpsteer/000001", reason)
    assert match in refusal.message
    assert row_of(first).id == "helpsteer/000000a"
    assert row_of(third).id == "helpsteer/000002a"
    stored = json.loads(dump_line(refusal.to_dict()))
    assert list(stored) == ["file", "line", "id", "reason", "message", "record"]
    assert list(stored["record"]) == list(GOOD)
    if not isinstance(change.get("verbosity"), float):
        assert stored["record"] == {**GOOD, **change}


def test_what_could_not_be_read_is_refused_with_its_text_cut() -> None:
    refusal, good = convert(RawRecord(4, "x" * 5000, "broken_json", "why"), GOOD)
    assert isinstance(refusal, Refusal)
    assert (refusal.line, refusal.reason, refusal.message) == (4, "broken_json", "why")
    assert refusal.record == "x" * 2000
    assert row_of(good).id == "helpsteer/000001a"


def test_a_refused_record_of_any_size_and_depth_can_be_stored() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = {"a": [deep]}
    refusal, wide = convert({**GOOD, "verbosity": deep}, {**GOOD, "response": "x" * 10_000_000, "verbosity": 9})
    assert isinstance(refusal, Refusal) and isinstance(wide, Refusal)
    assert refusal.reason == "rating_wrong_type"
    assert len(dump_line(refusal.to_dict())) < 10_000
    assert wide.record["response"] == "x" * 10_000_000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
COLUMNS = {"prompt", "chosen", "chosen_model", "rejected", "rejected_model", "subset", "id", *GOOD}


@given(
    name=st.sampled_from(sorted(DATASETS)),
    record=st.dictionaries(st.sampled_from(sorted(COLUMNS)) | st.text(max_size=5), JSON, max_size=12),
)
@example(name="helpsteer2", record={**GOOD, "prompt": "<extra_id_1>User\n"})
def test_any_record_becomes_rows_or_a_refusal(name: str, record: dict[str, Any]) -> None:
    dataset = DATASETS[name]
    rubric = load_rubric(dataset.rubric) if needs_rubric(dataset) else None
    (outcome,) = convert_records(dataset, rubric, [RawRecord(1, record)], "a.jsonl")
    if isinstance(outcome, Refusal):
        assert json.loads(dump_line(outcome.to_dict()))["reason"] == outcome.reason != ""
    for row in () if isinstance(outcome, Refusal) else outcome:
        if isinstance(row, RatedResponse):
            assert rubric is not None
            data = row_to_dict(row, rubric)
            assert parse_scores(rubric, data["completion"][0]["content"]) == row.scores
            assert RatedResponse.from_dict(json.loads(dump_line(data))) == row
        else:
            dump_line(row.to_dict()).encode("utf-8")


@given(scores=st.fixed_dictionaries({key: st.integers(0, 4) for key in RATINGS}))
def test_every_legal_rating_survives_to_the_completion(scores: dict[str, int]) -> None:
    row = row_of(convert({**GOOD, **scores})[0])
    text = row_to_dict(row, RUBRIC)["completion"][0]["content"]
    assert parse_scores(RUBRIC, text) == {key: score + 1 for key, score in scores.items()}


def read_several(record: Mapping[str, Any]) -> Iterator[RawResponse]:
    """A data set with several responses in one record, not all of them rated."""
    for response in read_column(record, "responses"):
        ratings = {"helpfulness": record["rating"]} if response != "unrated" else {}
        yield RawResponse((Message("user", record["prompt"]),), response, ratings, derived=("helpfulness", "humour"))


def test_responses_of_one_record_are_lettered_and_stay_together() -> None:
    dataset = Dataset("several", "me/several", "0" * 40, "train", read_several, "helpsteer", {"helpfulness": (1, 5)})
    records = [
        RawRecord(1, {"prompt": "p", "rating": 2, "responses": [f"r{n}" for n in range(28)]}),
        RawRecord(2, {"prompt": "p", "rating": 2, "responses": ["good", "unrated"]}),
        RawRecord(3, {"prompt": "p", "rating": 2, "responses": ["good"]}),
    ]
    many, refusal, one = convert_records(dataset, RUBRIC, records, "a.jsonl")
    assert isinstance(many, tuple)
    assert [row.id for row in many][::9] == [
        "several/000000a",
        "several/000000j",
        "several/000000s",
        "several/000000ab",
    ]
    assert isinstance(refusal, Refusal) and refusal.reason == "no_rating"
    assert row_of(one).derived == ("helpfulness",)


def test_a_pair_that_comes_twice_is_refused_once() -> None:
    record = {"prompt": "p", "chosen": "a", "chosen_model": "m", "rejected": "b", "rejected_model": "m", "id": 1}
    records = [RawRecord(line, {**record, "subset": subset}) for line, subset in enumerate("xyx", start=1)]
    first, second, third = convert_records(REWARD_BENCH, None, records, "a.jsonl")
    assert isinstance(first, tuple) and isinstance(second, tuple)
    assert isinstance(third, Refusal) and third.reason == "duplicate_id" and "'x/1'" in third.message


def test_a_rubric_must_fit_the_data_set() -> None:
    with pytest.raises(RubricError, match="none of which 'helpsteer' rates"):
        convert_records(HELPSTEER, Rubric("mine", (Attribute("humour", "Humour"),)), [], "a.jsonl")
    with pytest.raises(RubricError, match="needs a rubric"):
        convert_records(HELPSTEER, None, [], "a.jsonl")
    with pytest.raises(RubricError, match="gives pairs"):
        convert_records(REWARD_BENCH, RUBRIC, [], "a.jsonl")


def test_rows_move_between_rubrics() -> None:
    row = row_of(convert(GOOD)[0])
    moved = move_row(row, RUBRIC, load_rubric("dist2_paper"))
    assert moved.scores == {"overall": 13, **RATINGS}
    with pytest.raises(RubricError, match=r"row helpsteer/000000a is rated on helpfulness"):
        move_row(row, RUBRIC, Rubric("mine", (Attribute("humour", "Humour"),)))


def conversations(count: int) -> list[tuple[Message, ...]]:
    """Distinct conversations."""
    return [(Message("user", f"Question {number}"),) for number in range(count)]


def test_the_split_depends_on_the_conversation_and_the_seed_alone() -> None:
    few, many = conversations(500), conversations(4000)
    split = [is_validation(conversation, 0, 0.1) for conversation in many]
    assert [is_validation(conversation, 0, 0.1) for conversation in few] == split[:500]
    assert 0.08 < sum(split) / len(split) < 0.12
    assert [is_validation(conversation, 1, 0.1) for conversation in many] != split
    wider = [is_validation(conversation, 0, 0.2) for conversation in many]
    assert all(after for before, after in zip(split, wider, strict=True) if before)  # a larger share only adds
    assert not any(is_validation(conversation, 0, 0.0) for conversation in many)


def test_the_split_is_the_same_everywhere() -> None:
    found = [number for number, talk in enumerate(conversations(16)) if is_validation(talk, 0, 0.5)]
    assert found == [4, 5, 8, 10, 14]
