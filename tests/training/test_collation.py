from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from rmkit.judge_encoder import JudgeEncoder
from rmkit.losses import LossSettings, distance_target
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Message, RatedResponse
from rmkit.training.collation import IGNORED, JudgeCollator
from rmkit.training.examples import Example, encode_example

RUBRIC = Rubric("five", (Attribute("helpfulness", "Helpfulness"), Attribute("coherence", "Coherence")))
OWN = Rubric("own", (Attribute("overall", "Overall", minimum=0, maximum=20),))
PAD = 7


@pytest.fixture(scope="module")
def encoder(tiny_tokenizer: Callable[..., Any]) -> JudgeEncoder:
    return JudgeEncoder(tiny_tokenizer("split_digits"), RUBRIC)


def example(encoder: JudgeEncoder, scores: dict[str, int], question: str = "write a list", **row: Any) -> Example:
    return encode_example(encoder, RatedResponse("row", "", (Message("user", question),), "words", scores, **row))


@pytest.fixture(scope="module")
def examples(encoder: JudgeEncoder) -> list[Example]:
    """Two ratings; one missing, and a longer prompt; a rubric of its own with another scale."""
    return [
        example(encoder, {"helpfulness": 4, "coherence": 2}),
        example(encoder, {"coherence": 5}, "write a list of words " * 6),
        example(encoder, {"overall": 14}, rubric=OWN),
    ]


def batch(examples: Sequence[Example], settings: LossSettings | None = None) -> dict[str, torch.Tensor]:
    return JudgeCollator(PAD, settings or LossSettings())(examples)


def test_rows_are_padded_on_the_left(examples: list[Example]) -> None:
    found = batch(examples)
    lengths = [len(e.prompt_ids) + len(e.completion_ids) for e in examples]
    width = max(lengths)
    assert len(set(lengths)) == 3
    for name in ("input_ids", "attention_mask", "position_ids"):
        assert found[name].shape == (3, width)
        assert found[name].dtype == torch.int64
    for b, (one, length) in enumerate(zip(examples, lengths, strict=True)):
        padding = width - length
        assert found["input_ids"][b].tolist() == [PAD] * padding + [*one.prompt_ids, *one.completion_ids]
        assert found["attention_mask"][b].tolist() == [0] * padding + [1] * length
        assert found["position_ids"][b].tolist() == [0] * padding + list(range(length))


def test_labels_are_the_completions_at_the_last_columns(examples: list[Example]) -> None:
    labels = batch(examples)["labels"]
    width = max(len(e.completion_ids) for e in examples)
    assert labels.shape == (3, width)
    for row, one in zip(labels.tolist(), examples, strict=True):
        assert row == [IGNORED] * (width - len(one.completion_ids)) + list(one.completion_ids)


def test_score_positions_point_at_score_tokens(encoder: JudgeEncoder, examples: list[Example]) -> None:
    found = batch(examples)
    labels = found["labels"].flatten()
    tokenizer = encoder.prompts.tokenizer
    at = labels[found["score_rows"]]
    assert tokenizer.convert_ids_to_tokens(at.tolist()) == ["4", "2", "5", "1", "4"]
    assert found["score_labels"].tolist() == at.tolist()
    assert (found["score_rows"] // found["labels"].shape[1]).tolist() == [0, 0, 1, 2, 2]


def test_two_scales_share_a_batch(encoder: JudgeEncoder, examples: list[Example]) -> None:
    found = batch(examples)
    tokenizer = encoder.prompts.tokenizer
    one_to_five = tokenizer.convert_tokens_to_ids([*"12345"])
    for n, score in enumerate((4, 2, 5)):
        ids, distances = found["score_ids"][n], found["score_distances"][n]
        real = torch.isfinite(distances)
        assert ids[real].tolist() == one_to_five
        assert distances[real].tolist() == [(value - score) ** 2 for value in range(1, 6)]
        assert set(ids[~real].tolist()) == {one_to_five[0]}  # any id will do where the distance is infinite
    first, second = found["score_ids"][3], found["score_ids"][4]
    assert set(first.tolist()) == set(tokenizer.convert_tokens_to_ids([*"0123456789"]))
    assert found["score_ids"].shape == (5, 11)  # after the 1 any digit can stand, or the end of the turn
    assert set(second.tolist()) == {*first.tolist(), encoder.prompts.end_of_turn_id}
    # What a first digit should get is what all scores that start with it should: 10 to 19, and 1 itself.
    target = distance_target(found["score_distances"][3], tau=1.0)
    scores = torch.softmax(-(torch.arange(21.0) - 14).square(), dim=0)
    one = first.tolist().index(tokenizer.convert_tokens_to_ids("1"))
    assert float(target[one]) == pytest.approx(float(scores[10:20].sum() + scores[1]), abs=1e-6)


def test_settings_reach_distances_and_weights(examples: list[Example]) -> None:
    assert batch(examples)["score_weights"].tolist() == [1.0] * 5
    found = batch(examples, LossSettings(place_weights=True, distance="absolute"))
    assert found["score_weights"].tolist() == [1.0, 1.0, 1.0, 2.0, 1.0]
    assert found["score_distances"][0][:5].tolist() == [3.0, 2.0, 1.0, 0.0, 1.0]


def test_a_batch_without_positions(examples: list[Example]) -> None:
    bare = Example("bare", examples[0].prompt_ids, examples[0].completion_ids, ())
    found = batch([bare, bare])
    assert found["score_rows"].shape == found["score_labels"].shape == found["score_weights"].shape == (0,)
    assert found["score_rows"].dtype == found["score_ids"].dtype == found["score_labels"].dtype == torch.int64
    assert found["score_ids"].shape == found["score_distances"].shape == (0, 1)
    mixed = batch([bare, examples[2]])
    assert (mixed["score_rows"] // mixed["labels"].shape[1]).tolist() == [1, 1]


def test_a_place_where_one_token_can_stand_is_no_position(tiny_tokenizer: Callable[..., Any]) -> None:
    # 10 to 19: every score starts with the same digit, which the cross entropy teaches and no distance can.
    teens = Rubric("teens", (Attribute("overall", "Overall", minimum=10, maximum=19),))
    encoder = JudgeEncoder(tiny_tokenizer("split_digits"), teens)
    found = batch([example(encoder, {"overall": 13})])
    assert encoder.prompts.tokenizer.convert_ids_to_tokens(found["score_labels"].tolist()) == ["3"]
    assert found["score_ids"].shape == (1, 10)
