from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from rmkit.data import DATASETS
from rmkit.data.dataset import RawComparison, RecordError
from rmkit.data.oasst import read_record
from rmkit.preparation.conversion import Refusal, convert_records
from rmkit.raw.files import read_records
from rmkit.rubric import load_rubric
from rmkit.schema import PreferencePair, RatedResponse


def message(text: str, depth: int, *replies: dict[str, Any], **fields: Any) -> dict[str, Any]:
    role = ("prompter", "assistant")[depth % 2]
    return {"message_id": text, "text": text, "role": role, "lang": "en", "replies": list(replies), **fields}


def tree(*replies: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"tree_state": "ready_for_export", "prompt": message("Hello", 0, *replies, **fields)}


def test_the_real_trees_give_every_ranked_group_and_no_other(shared: Path) -> None:
    path = shared / "data" / "oasst" / "en_100_tree_part.jsonl.gz"
    # Counted another way: every object that is a message, in whatever depth, by its parent's id.
    messages: dict[str, dict[str, Any]] = {}

    def collect(found: dict[str, Any]) -> dict[str, Any]:
        if "message_id" in found:
            messages[found["message_id"]] = found
        return found

    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            json.loads(line, object_hook=collect)
    siblings: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for item in messages.values():
        if "rank" in item:
            siblings[item["parent_id"]].append(item)
    groups = {parent: found for parent, found in siblings.items() if len(found) > 1}
    assert (len(messages), sum(map(len, siblings.values())), len(groups)) == (803, 441, 145)
    assert all(item["role"] == "assistant" for found in groups.values() for item in found)

    comparisons = [found for raw in read_records(path) for found in read_record(raw.content)]  # type: ignore[arg-type]
    assert {found.id for found in comparisons} == set(groups) and len(comparisons) == len(groups)
    for found in comparisons:
        by_rank = sorted(zip(found.ranks, found.responses, strict=True))
        assert by_rank == sorted((item["rank"], item["text"]) for item in groups[found.id])
        above, at = [], found.id
        while at:
            above.append(messages[at]["text"])
            at = messages[at].get("parent_id") or ""
        assert [turn.content for turn in found.conversation] == above[::-1]
        assert [turn.role for turn in found.conversation] == ["user", "assistant"] * (len(above) // 2) + ["user"]


def test_the_real_trees_become_rows_or_pairs(shared: Path) -> None:
    path = shared / "data" / "oasst" / "en_100_tree_part.jsonl.gz"
    dataset = DATASETS["oasst"]
    outcomes = list(convert_records(dataset, load_rubric(dataset.rubric), read_records(path), path.name))
    assert len(outcomes) == 70 and not any(isinstance(outcome, Refusal) for outcome in outcomes)
    rows = [row for outcome in outcomes if not isinstance(outcome, Refusal) for row in outcome]
    assert len(rows) == 441 and all(isinstance(row, RatedResponse) and row.derived == ("overall",) for row in rows)
    scores = Counter(row.scores["overall"] for row in rows if isinstance(row, RatedResponse))
    # Of two 5 and 1; of three 5, 3, 1; of four 5, 4, 2, 1; one group of nine gives 5 twice.
    assert scores == {5: 146, 4: 29, 3: 92, 2: 29, 1: 145}
    pairs = [
        row
        for outcome in convert_records(dataset, None, read_records(path), path.name, rule="pairs")
        if not isinstance(outcome, Refusal)
        for row in outcome
    ]
    assert len(pairs) == 145
    assert all(isinstance(pair, PreferencePair) and len(pair.chosen) == 1 for pair in pairs)
    assert sum(len(pair.rejected) for pair in pairs if isinstance(pair, PreferencePair)) == 441 - 145


def test_what_is_deleted_or_spam_takes_all_below_it_along() -> None:
    below = message("So?", 2, message("a", 3, rank=0), message("b", 3, rank=1))
    kept = message("one", 1, below, rank=0)
    gone = message("two", 1, message("Hm?", 2, message("c", 3, rank=0), message("d", 3, rank=1)), rank=1, deleted=True)
    (found,) = read_record(tree(kept, gone))
    assert (found.id, found.responses) == ("So?", ("a", "b"))
    for fields in ({"deleted": True}, {"review_result": False}):
        with pytest.raises(RecordError) as caught:
            list(read_record(tree(kept, gone, **fields)))
        assert caught.value.reason == "no_ranked_replies"


def test_equal_ranks_are_a_tie_and_null_is_no_rank() -> None:
    replies = [message(text, 1, rank=rank) for text, rank in (("a", 2), ("b", None), ("c", 2), ("d", 1))]
    (found,) = read_record(tree(*replies))
    assert (found.responses, found.ranks) == (("a", "c", "d"), (2, 2, 1))


def test_ranked_replies_of_prompters_are_not_compared() -> None:
    prompters = [message("x", 2, rank=0), message("y", 2, rank=1)]
    with pytest.raises(RecordError, match="two or more ranked replies"):
        list(read_record(tree(message("a", 1, *prompters, rank=0))))


def test_a_deep_tree_is_read() -> None:
    at = message("end", 5000, message("a", 5001, rank=0), message("b", 5001, rank=1))
    for depth in range(4999, -1, -1):
        at = message(str(depth), depth, at)
    (found,) = read_record({"tree_state": "ready_for_export", "prompt": at})
    assert isinstance(found, RawComparison) and len(found.conversation) == 5001


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"rank": "first"}, "rating_wrong_type"),
        ({"rank": 0.5}, "rating_wrong_type"),
        ({"rank": float("nan")}, "rating_wrong_type"),
        ({"rank": True}, "rating_wrong_type"),
        ({"rank": -1}, "rating_out_of_range"),
        ({"text": None}, "empty_turn"),
        ({"text": "\ud800"}, "broken_text"),
        ({"role": "prompter"}, "broken_turns"),
        ({"role": ["assistant"]}, "wrong_type"),
        ({"replies": "none"}, "wrong_type"),
        ({"replies": [None]}, "wrong_type"),
    ],
)
def test_a_broken_reply_refuses_its_tree(fields: dict[str, Any], reason: str) -> None:
    replies = [message("a", 1, rank=0), {**message("b", 1, rank=1), **fields}]
    with pytest.raises(RecordError) as caught:
        list(read_record(tree(*replies)))
    assert caught.value.reason == reason
