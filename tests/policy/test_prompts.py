from __future__ import annotations

from pathlib import Path

import pytest

from rmkit.errors import DataError
from rmkit.jsonl import write_jsonl
from rmkit.manifest import write_json
from rmkit.policy.prompts import read_policy_prompts

RUBRIC = {"attributes": [{"key": "tone"}]}


def test_texts_stay_texts_and_each_prompt_comes_once(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    write_jsonl(file, [{"prompt": "Sort 3 1 2."}, {"prompt": "Count."}, {"prompt": "Sort 3 1 2.", "other": 1}])
    assert read_policy_prompts(file) == ([{"prompt": "Sort 3 1 2."}, {"prompt": "Count."}], [])
    assert read_policy_prompts(file, limit=1) == ([{"prompt": "Sort 3 1 2."}], [])


def test_one_conversation_makes_all_prompts_conversations(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, {"role": "user", "content": "Sort."}]
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": "Count."}, {"prompt": messages}])
    rows, _ = read_policy_prompts(tmp_path / "prompts.jsonl")
    assert rows[0]["prompt"] == [{"role": "user", "content": "Count."}]
    assert rows[1]["prompt"] == [{"role": "user", "content": "Hi"}, {"role": "user", "content": "Sort."}]


def test_a_reference_and_a_rubric_come_along(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "p.jsonl", [{"prompt": "Add.", "reference": "5", "rubric": RUBRIC}, {"prompt": "Add."}])
    rows, _ = read_policy_prompts(tmp_path / "p.jsonl")
    assert rows == [
        {"prompt": "Add.", "reference": "5", "rubric": RUBRIC},
        {"prompt": "Add.", "reference": None, "rubric": None},
    ]


def test_a_prepared_folder_gives_its_conversations(tmp_path: Path) -> None:
    conversation = [{"role": "user", "content": "Sort."}]
    judged = {"prompt": [{"role": "user", "content": "Rate the response"}], "conversation": conversation}
    write_jsonl(tmp_path / "train.jsonl", [judged, judged])
    with pytest.raises(DataError, match="not complete"):
        read_policy_prompts(tmp_path)
    write_json(tmp_path / "manifest.json", {})
    assert read_policy_prompts(tmp_path) == ([{"prompt": conversation}], [])


def test_bad_rows_are_refused_with_their_place_and_good_ones_kept(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    bad = [
        {"text": "Sort."},
        {"prompt": " "},
        {"prompt": [{"role": "robot", "content": "x"}]},
        {"prompt": "Sort.", "reference": ["5"]},
        {"prompt": "Sort.", "rubric": {"attributes": [{"name": "no key"}]}},
        {"prompt": "half \ud83d"},
    ]
    write_jsonl(file, [*bad, {"prompt": "Count."}])
    rows, refused = read_policy_prompts(file)
    assert rows == [{"prompt": "Count."}]
    assert [reason.split(":")[1] for reason in refused] == ["1", "2", "3", "4", "5", "6"]
    write_jsonl(file, bad)
    with pytest.raises(DataError, match="no prompt in it; the first refusal: .*prompts.jsonl:1"):
        read_policy_prompts(file)
