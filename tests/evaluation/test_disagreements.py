"""The worst disagreements: the largest lost margins first, with texts that are safe to print."""

from __future__ import annotations

from rmkit.evaluation.disagreements import MOST_CHARACTERS, worst_pairs, write_conversation
from rmkit.evaluation.outcomes import compare_pairs
from rmkit.evaluation.records import read_scoring
from rmkit.evaluation.reward_bench_2 import list_contests
from rmkit.jsonl import read_jsonl, write_jsonl
from rmkit.schema import Message


def test_largest_lost_margins_first(write_scoring, tmp_path):
    rows = [
        ("won", "x", 4, 2),
        ("tie", "x", 3, 3),
        ("close", "x", 3, 3.5),
        ("far", "y", 1, 5),
        ("failed", "y", 1, None),
    ]
    folder = write_scoring(tmp_path, rows)
    pairs = [record for _, record in read_jsonl(folder / "pairs.jsonl")]
    pairs[3] |= {"chosen": ["short \x1b[31m"], "rejected": ["x" * 5000]}
    write_jsonl(folder / "pairs.jsonl", pairs)
    scoring = read_scoring(folder)
    found = worst_pairs(scoring, compare_pairs(scoring))
    assert [item["id"] for item in found] == ["far", "close"]
    worst = found[0]
    assert (worst["subset"], worst["margin"], worst["conversation"]) == ("y", -1.0, "Question far")
    assert worst["chosen"] == {"text": "short \\x1b[31m", "aggregate": 0.0, "scores": {"quality": 1.0}}
    assert len(worst["rejected"]["text"]) < MOST_CHARACTERS + 100
    assert [item["id"] for item in worst_pairs(scoring, compare_pairs(scoring), most=1)] == ["far"]


def test_of_several_responses_those_that_decided(write_lists, tmp_path):
    scoring = read_scoring(write_lists(tmp_path, [("Math/0", "Math", [4.0], [3.0, 5.0, 1.0])]))
    (item,) = worst_pairs(scoring, compare_pairs(scoring, list_contests))
    assert (item["chosen"]["text"], item["rejected"]["text"]) == ("chosen 0", "rejected 1")


def test_roles_stand_above_several_turns():
    turns = (Message("user", "Hi"), Message("assistant", "Hello"))
    assert write_conversation(turns) == "[user]\nHi\n\n[assistant]\nHello"
    assert write_conversation(turns[:1]) == "Hi"
