from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from statistics import multimode
from typing import Any

import pytest

from rmkit.data.dataset import RecordError
from rmkit.data.feedback_collection import CRITERION
from rmkit.data.prometheus_bench import PROMETHEUS_BENCH, read_record, split_prompt
from rmkit.preparation.conversion import convert_records
from rmkit.raw.files import read_records
from rmkit.rubric import Rubric
from rmkit.schema import RatedResponse

HEADINGS = (
    "###The instruction to evaluate:",
    "###Response to evaluate:",
    "###Reference Answer (Score 5):",
    "###Score Rubrics:",
)
LEVELS = "[Short?]\n" + "\n".join(f"Score {score}: level {score}." for score in range(1, 6))


def prompt(*parts: str) -> str:
    pieces = [f"{heading}\n{part}" for heading, part in zip(HEADINGS, (*parts, LEVELS), strict=True)]
    return "\n\n".join(["###Task Description:\nJudge.", *pieces, "###Feedback: "])


RECORD = {"instruction": prompt("2 + 2?", "4", "Four."), "gpt4_score": [4, 5, 4], "response_source": "m"}


@pytest.mark.parametrize(
    ("scores", "mean"), [([4, 5, 4], Fraction(13, 3)), ([1, 2, 5], Fraction(8, 3)), ([3], 3), ([4.0, 4, "4"], 4)]
)
def test_the_score_is_the_mean(scores: list[Any], mean: Fraction) -> None:
    (found,) = read_record({**RECORD, "gpt4_score": scores})
    assert found.ratings == {"criterion": mean}
    assert found.metadata["gpt4_score"] == [int(score) for score in scores]


@pytest.mark.parametrize("scores", [[], None, 4, [4, None], [4, 6], [4, "x"], [[4]]])
def test_scores_that_are_none_are_refused(scores: Any) -> None:
    with pytest.raises(RecordError):
        list(read_record({**RECORD, "gpt4_score": scores}))


def test_parts_keep_their_line_breaks() -> None:
    text = prompt("Add:\n\n1, 2", "It is\n\n3\n", "3")
    assert split_prompt(text)[:3] == ("Add:\n\n1, 2", "It is\n\n3\n", "3")


@pytest.mark.parametrize(
    "text",
    [
        "Judge this.",
        prompt("a", "b", "c").replace(HEADINGS[2], "###Reference:"),
        prompt("a", "b\n\n###Response to evaluate:\nc", "d"),
        prompt("a", "b\n\n###Score Rubrics:\n[d]", "e"),
        prompt("a", "b", "c").replace("###Feedback", "###Feed"),
        "\n\n###Feedback: " + prompt("a", "b", "c").replace("\n\n###Feedback: ", ""),
        prompt("a", "b", "c").replace("Score 2:", "Grade 2:"),
        prompt("a", "b", "c").replace("[Short?]", "Short?"),
    ],
)
def test_a_prompt_that_can_be_read_in_two_ways_or_none_is_refused(text: str) -> None:
    with pytest.raises(RecordError) as caught:
        list(read_record({**RECORD, "instruction": text}))
    assert caught.value.reason == "broken_prompt"


@pytest.mark.parametrize(("part", "reason"), [(0, "empty_prompt"), (1, "empty_response"), (2, "empty_reference")])
def test_an_empty_part_is_refused(part: int, reason: str) -> None:
    parts = ["a", "b", "c"]
    parts[part] = " "
    with pytest.raises(RecordError) as caught:
        list(read_record({**RECORD, "instruction": prompt(*parts)}))
    assert caught.value.reason == reason


def test_all_real_records_are_taken_apart(shared: Path) -> None:
    path = shared / "data" / "prometheus_absolute" / "vicuna_eval.jsonl.gz"
    records = list(read_records(path))
    outcomes = list(convert_records(PROMETHEUS_BENCH, CRITERION, records, path.name))
    assert len(outcomes) == len(records) == 320
    for record, outcome in zip(records, outcomes, strict=True):
        assert isinstance(outcome, tuple) and isinstance(record.content, dict)
        (row,) = outcome
        assert isinstance(row, RatedResponse) and row.rubric is not None and row.reference is not None
        (attribute,) = row.rubric.attributes
        assert sorted(attribute.levels) == [1, 2, 3, 4, 5]
        assert Rubric.from_dict(row.rubric.to_dict()) == row.rubric
        # The parts, put together again, are the prompt.
        head = record.content["instruction"].partition("###The instruction")[0]
        levels = "".join(f"\nScore {score}: {text}" for score, text in attribute.levels.items())
        texts = (row.conversation[0].content, row.response, row.reference, f"[{attribute.description}]{levels}")
        again = "\n\n".join(f"{heading}\n{text}" for heading, text in zip(HEADINGS, texts, strict=True))
        raw = head + again + "\n\n###Feedback: "
        assert [line.removesuffix(".") for line in raw.split("\n")] == [
            line.removesuffix(".") for line in record.content["instruction"].split("\n")
        ]
        votes = record.content["gpt4_score"]
        if max(votes) - min(votes) < 2:  # then the mean, rounded, is what most of the three said
            assert [row.scores["criterion"]] == multimode(votes)
