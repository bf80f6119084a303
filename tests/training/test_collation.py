from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from rmkit.distances import permutation
from rmkit.errors import TokenizerError
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
    found = RatedResponse("row", "", (Message("user", question),), "words", scores, **row)
    return encode_example(encoder, found, fill=False)


@pytest.fixture(scope="module")
def examples(encoder: JudgeEncoder) -> list[Example]:
    """Two ratings; one missing, and a longer prompt; a rubric of its own with another scale."""
    return [
        example(encoder, {"helpfulness": 4, "coherence": 2}),
        example(encoder, {"coherence": 5}, "write a list of words " * 6),
        example(encoder, {"overall": 14}, rubric=OWN),
    ]


def batch(examples: Sequence[Any], settings: LossSettings | None = None) -> dict[str, Any]:
    return JudgeCollator(PAD, settings or LossSettings())(examples)


def test_a_batch_names_its_rows(examples: list[Example]) -> None:
    named = [replace(one, id=f"row/{n}") for n, one in enumerate(examples)]
    assert batch(named)["ids"] == ["row/0", "row/1", "row/2"]
    assert batch([(named[1], named[2]), (named[0],)])["ids"] == ["row/1", "row/2", "row/0"]


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


def rotations(kind: str, score: int, tiny_tokenizer: Callable[..., Any], settings: LossSettings) -> dict[str, Any]:
    """The batch of one angle, as the text of its tokens: for each position the distance of every choice."""
    rubric = Rubric("robot", (Attribute("rotate", "Rotate", minimum=0, maximum=359),))
    encoder = JudgeEncoder(tiny_tokenizer(kind), rubric)
    found = batch([example(encoder, {"rotate": score})], settings)
    names = [encoder.prompts.tokenizer.convert_ids_to_tokens(row.tolist()) for row in found["score_ids"]]
    return {
        "written": encoder.prompts.tokenizer.convert_ids_to_tokens(found["score_labels"].tolist()),
        "distances": [
            {name: float(d) for name, d in zip(row, distances, strict=True) if math.isfinite(d)}
            for row, distances in zip(names, found["score_distances"], strict=True)
        ],
        **found,
    }


def test_an_angle_of_one_token(tiny_tokenizer: Callable[..., Any]) -> None:
    found = rotations("three_digits", 108, tiny_tokenizer, LossSettings(distance="circular"))
    assert found["written"] == ["108"]
    assert found["score_ids"].shape == (1, 360)  # and no 007, which the tokenizer has too
    distances = found["distances"][0]
    assert [distances[name] for name in ("108", "107", "118", "288", "289")] == [0, 1, 10, 180, 179]
    near = rotations("three_digits", 359, tiny_tokenizer, LossSettings(distance="circular_squared"))["distances"][0]
    assert [near[name] for name in ("359", "0", "1", "358", "179")] == [0, 1, 4, 1, 180**2]
    # On a straight scale 1 is as far from 359 as can be.
    assert rotations("three_digits", 359, tiny_tokenizer, LossSettings())["distances"][0]["1"] == 358**2


@pytest.mark.parametrize("score", [108, 359])
def test_an_angle_digit_by_digit(score: int, tiny_tokenizer: Callable[..., Any]) -> None:
    settings = LossSettings(distance="circular", tau=2.0, place_weights=True, place_scale="decimal")
    found = rotations("split_digits", score, tiny_tokenizer, settings)
    assert found["written"] == [*str(score)]
    assert found["score_weights"].tolist() == [100, 10, 1]
    weight = {v: math.exp(-min(abs(v - score), 360 - abs(v - score)) / 2) for v in range(360)}
    for place, row in enumerate(found["score_distances"]):
        here = {v: w for v, w in weight.items() if str(v)[:place] == str(score)[:place]}
        target = dict(zip(found["distances"][place], distance_target(row, 2.0).tolist(), strict=False))
        for digit, share in target.items():
            if digit.isdigit():
                mass = sum(w for v, w in here.items() if str(v)[place : place + 1] == digit)
                assert share == pytest.approx(mass / sum(here.values()), abs=1e-6)
    if score == 359:  # 0 to 9 are near, of which 0 can only be itself and 1 is also 1xx
        assert found["distances"][0]["1"] < found["distances"][0]["2"] and found["distances"][0]["1"] < 3


def test_a_loss_without_temperature_takes_the_nearest_score_behind_a_token(
    tiny_tokenizer: Callable[..., Any],
) -> None:
    found = rotations("split_digits", 39, tiny_tokenizer, LossSettings("ntl_was"))["distances"]
    nearest = {str(d): min(abs(v - 39) for v in range(360) if str(v)[0] == str(d)) for d in range(10)}
    assert found[0] == nearest
    assert (nearest["3"], nearest["4"], nearest["2"]) == (0, 1, 10)
    end = next(name for name in found[1] if not name.isdigit())
    assert (found[1]["9"], found[1]["8"], found[1][end]) == (0, 1, 36)  # the end makes it a 3


def test_values_are_those_of_whole_scores(examples: list[Example]) -> None:
    found = batch(examples)
    for n, score in enumerate((4, 2, 5)):
        assert found["score_values"][n][:5].tolist() == [1, 2, 3, 4, 5]
        assert found["score_values"][n][found["score_indices"][n]] == score
        assert found["score_values"][n][5:].isnan().all()
    first = dict(zip(found["score_ids"][3][:10].tolist(), found["score_values"][3][:10].tolist(), strict=True))
    assert sum(math.isnan(value) for value in first.values()) == 2  # 1 leads to 1 and 10 to 19, 2 to 2 and 20
    assert found["score_indices"].tolist() == [
        row.tolist().index(label) for row, label in zip(found["score_ids"], found["score_labels"], strict=True)
    ]


@pytest.mark.parametrize("loss", ["emd2", "ntl_mse", "raft"])
def test_a_loss_without_meaning_for_a_first_digit_is_refused(examples: list[Example], loss: str) -> None:
    message = f"loss '{loss}' needs one token for each score, but those of 'overall' take several in this tokenizer"
    with pytest.raises(TokenizerError, match=message):
        batch(examples, LossSettings(loss))
    assert batch(examples[:2], LossSettings(loss))["score_indices"].tolist() == [3, 1, 4]


def test_the_random_metric_is_a_permutation_of_the_whole_scale(tiny_tokenizer: Callable[..., Any]) -> None:
    def shuffled(score: int, seed: int = 0) -> dict[str, float]:
        settings = LossSettings("dist2_random", distance="absolute", metric_seed=seed)
        return rotations("three_digits", score, tiny_tokenizer, settings)["distances"][0]

    order = permutation(360, 0)
    for score in (0, 108):
        assert shuffled(score) == {str(v): abs(order[v] - order[score]) for v in range(360)}
    assert shuffled(108, 1) != shuffled(108)
    settings = LossSettings("dist2_random", distance="absolute", tau=2.0)
    first = rotations("split_digits", 108, tiny_tokenizer, settings)
    weight = [math.exp(-abs(order[v] - order[108]) / 2) for v in range(360)]
    share = sum(w for v, w in enumerate(weight) if str(v)[0] == "1") / sum(weight)
    target = dict(zip(first["distances"][0], distance_target(first["score_distances"][0], 2.0).tolist(), strict=False))
    assert target["1"] == pytest.approx(share, abs=1e-6)


def test_a_batch_without_positions(examples: list[Example]) -> None:
    bare = Example("bare", examples[0].prompt_ids, examples[0].completion_ids, ())
    found = batch([bare, bare])
    for name in ("score_rows", "score_labels", "score_indices", "score_weights"):
        assert found[name].shape == (0,)
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
