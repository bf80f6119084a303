from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from rmkit.data import DATASETS
from rmkit.data.dataset import RecordError
from rmkit.data.hh_rlhf import read_harmless, split_dialogue
from rmkit.preparation.conversion import Refusal, convert_records
from rmkit.raw.files import read_records
from rmkit.rubric import load_rubric
from rmkit.schema import RatedResponse


def test_the_real_dialogues_are_split_at_the_last_turn_of_the_assistants(shared: Path) -> None:
    path = shared / "data" / "hh_rlhf_harmless" / "test_part.jsonl.gz"
    dataset = DATASETS["hh_rlhf_harmless"]
    with gzip.open(path, "rt", encoding="utf-8") as file:
        raw = [json.loads(line) for line in file]
    outcomes = list(convert_records(dataset, load_rubric(dataset.rubric), read_records(path), path.name))
    assert len(outcomes) == len(raw) == 1389
    refused = Counter(outcome.reason for outcome in outcomes if isinstance(outcome, Refusal))
    assert refused == {"broken_turns": 5, "empty_response": 2}
    for record, outcome in zip(raw, outcomes, strict=True):
        if isinstance(outcome, Refusal):
            continue
        for row, side, score in zip(outcome, ("chosen", "rejected"), (5, 1), strict=True):
            assert isinstance(row, RatedResponse)
            before, _, last = record[side].rpartition("\n\nAssistant: ")
            assert (row.response, row.scores, row.derived) == (last, {"safety": score}, ("safety",))
            names = {"user": "Human", "assistant": "Assistant"}
            assert "".join(f"\n\n{names[turn.role]}: {turn.content}" for turn in row.conversation) == before


@pytest.mark.parametrize(
    ("dialogue", "reason"),
    [
        ("Hi", "broken_turns"),
        ("\n\nHuman: Hi", "broken_turns"),
        ("\n\nAssistant: Hi\n\nHuman: Hi", "broken_turns"),
        ("Note\n\nHuman: Hi\n\nAssistant: Hello", "broken_turns"),
        ("\n\nHuman: Hi\n\nHuman: Hi\n\nAssistant: Hello", "broken_turns"),
        ("\n\nHuman: Hi\n\nAssistant: Hello\n\nAssistant: Hello", "broken_turns"),
        ("\n\nHuman: Hi\nAssistant: Hello", "broken_turns"),
        ("\n\nHuman: \n\nAssistant: Hello", "empty_prompt"),
        ("\n\nHuman: Hi\n\nAssistant: \n", "empty_response"),
    ],
)
def test_odd_dialogues_are_refused(dialogue: str, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        split_dialogue(dialogue, "chosen")
    assert caught.value.reason == reason


def test_a_difference_before_the_last_turn_is_refused() -> None:
    def dialogue(first: str) -> str:
        return f"\n\nHuman: Hi\n\nAssistant: {first}\n\nHuman: Bye\n\nAssistant: {first}"

    with pytest.raises(RecordError) as caught:
        list(read_harmless({"chosen": dialogue("Hello"), "rejected": dialogue("Hey")}))
    assert caught.value.reason == "prefix_differs"


def test_each_half_rates_what_its_people_compared() -> None:
    dialogue = {"chosen": "\n\nHuman: Hi\n\nAssistant: a", "rejected": "\n\nHuman: Hi\n\nAssistant: b"}
    for name, folder, attribute in (
        ("hh_rlhf_harmless", "harmless-base", "safety"),
        ("hh_rlhf_helpful", "helpful-base", "helpfulness"),
    ):
        dataset = DATASETS[name]
        (found,) = dataset.read(dialogue)
        assert (dataset.hub_options, found.attribute) == ({"data_dir": folder}, attribute)  # type: ignore[union-attr]
        assert load_rubric(dataset.rubric).keys == (attribute,)
        assert attribute in load_rubric("pku_saferlhf").keys
