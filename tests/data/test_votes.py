"""MT-Bench's votes and the arena's: their golden files hold the usual cases, here are the ways to be refused."""

from __future__ import annotations

from typing import Any

import pytest

from rmkit.data.chatbot_arena import CHATBOT_ARENA
from rmkit.data.chatbot_arena import read_record as read_arena
from rmkit.data.dataset import RecordError
from rmkit.data.mt_bench_human import MT_BENCH_HUMAN
from rmkit.data.mt_bench_human import read_record as read_mt_bench
from rmkit.preparation.conversion import Refusal, convert_records
from rmkit.raw.files import RawRecord
from rmkit.rubric import load_rubric


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


VOTE = {
    "question_id": 81,
    "model_a": "a",
    "model_b": "b",
    "winner": "model_a",
    "judge": "expert_0",
    "conversation_a": turns("q", "a1", "more", "a2"),
    "conversation_b": turns("q", "b1", "more", "b2"),
    "turn": 1,
}
TAGS = {"roberta-large": {"flagged": False, "probability": 0.0}, "t5-large": {"flagged": False, "score": 0.0}}
BATTLE = {
    **VOTE,
    "question_id": "f1",
    "language": "English",
    "toxic_chat_tag": TAGS,
    "openai_moderation": {"flagged": False},
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"turn": 3}, "rating_out_of_range"),
        ({"turn": None}, "rating_missing"),
        ({"turn": 2, "conversation_a": turns("q", "a1")}, "broken_turns"),
        ({"winner": "tie (inconsistent)"}, "unknown_winner"),
        ({"winner": None}, "unknown_winner"),
        ({"winner": ["model_a"]}, "wrong_type"),
        ({"conversation_b": turns("other", "b1")}, "different_prompts"),
    ],
)
def test_what_is_no_vote_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        list(read_mt_bench({**VOTE, **change}))
    assert caught.value.reason == reason


def test_a_first_turn_is_compared_without_the_second() -> None:
    (found,) = read_mt_bench(VOTE)
    assert (found.responses, found.ranks) == (("a1", "b1"), (1, 2))
    (later,) = read_mt_bench({**VOTE, "turn": 2, "winner": "tie", "conversation_b": turns("q", "a1", "more", "b2")})
    assert (later.responses, later.ranks) == (("a2", "b2"), (1, 1))
    assert [turn.content for turn in later.conversation] == ["q", "a1", "more"]


def test_a_vote_that_stands_twice_is_one_pair() -> None:
    records = [RawRecord(1, VOTE), RawRecord(2, {**VOTE, "judge": "expert_1"}), RawRecord(3, VOTE)]
    outcomes = list(convert_records(MT_BENCH_HUMAN, None, records, "f"))
    assert [isinstance(outcome, Refusal) and outcome.reason for outcome in outcomes] == [False, False, "duplicate_id"]


@pytest.mark.parametrize("name", ["roberta-large", "t5-large"])
def test_one_flag_is_enough(name: str) -> None:
    assert [found.metadata["is_toxic"] for found in read_arena(BATTLE)] == [False]
    assert [
        found.metadata["is_toxic"] for found in read_arena({**BATTLE, "openai_moderation": {"flagged": True}})
    ] == [True]
    tags = {**TAGS, name: {"flagged": True}}
    assert [found.metadata["is_toxic"] for found in read_arena({**BATTLE, "toxic_chat_tag": tags})] == [True]


@pytest.mark.parametrize(
    ("change", "reason", "place"),
    [
        ({"toxic_chat_tag": None}, "wrong_type", "'toxic_chat_tag'"),
        ({"toxic_chat_tag": {}}, "missing_column", "'toxic_chat_tag': column 'roberta-large'"),
        ({"toxic_chat_tag": {**TAGS, "t5-large": {"flagged": None}}}, "wrong_type", "'t5-large': column 'flagged'"),
        ({"openai_moderation": {}}, "missing_column", "'openai_moderation': column 'flagged'"),
        ({"language": ""}, "empty_language", "'language'"),
    ],
)
def test_tags_that_say_nothing_are_refused_by_place(change: dict[str, Any], reason: str, place: str) -> None:
    with pytest.raises(RecordError) as caught:
        list(read_arena({**BATTLE, **change}))
    assert caught.value.reason == reason
    assert place in str(caught.value)


def test_the_same_answer_may_tie_but_not_win() -> None:
    same = {**BATTLE, "conversation_a": turns("q", "x"), "conversation_b": turns("q", "x")}
    rubric = load_rubric("overall")
    won, tied = convert_records(
        CHATBOT_ARENA, rubric, [RawRecord(1, same), RawRecord(2, {**same, "winner": "tie"})], "f"
    )
    assert isinstance(won, Refusal) and won.reason == "same_response"
    assert isinstance(tied, tuple) and len(tied) == 2
