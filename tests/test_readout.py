"""Reading scores: exact distributions, equal to listing every legal score by brute force."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from rmkit.engines import Query
from rmkit.engines.transformers import TransformersEngine
from rmkit.judge import Judge
from rmkit.judge_encoder import JudgeEncoder
from rmkit.readout import read_scores
from rmkit.rubric import Attribute, Rubric, load_rubric
from rmkit.schema import Message

Build = Callable[..., PreTrainedTokenizerFast]


def scale(minimum: int, maximum: int) -> Rubric:
    return Rubric(
        f"{minimum}-{maximum}",
        (
            Attribute("helpfulness", "Helpfulness", minimum=minimum, maximum=maximum),
            Attribute("overall", "Overall", minimum=minimum, maximum=maximum),
        ),
    )


RUBRICS = [scale(1, 5), scale(0, 20), scale(1, 100), load_rubric("dist2_paper")]
_MODELS: dict[int, PreTrainedModel] = {}


def model_for(tiny: ModuleType, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    size = len(tokenizer)
    if size not in _MODELS:
        _MODELS[size] = tiny.build_model(size, hidden=32, max_length=1024, initializer_range=0.3)
    return _MODELS[size]


@torch.no_grad()
def enumerate_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    rubric: Rubric,
    prompt: Sequence[int],
    end_of_turn: int,
    written: dict[str, int],
    key: str,
) -> tuple[dict[int, float], float]:
    """P(score) of one attribute after the scores before it, one teacher-forced sequence per legal score.

    The tokens of a score are those that overlap its digits in the text. Where they are the beginning of
    another legal score's, the token after them counts too.

    Returns:
        The normalised probabilities, and the probability of anything else.
    """
    sequences, spans = {}, {}
    attribute = rubric[key]
    for value in attribute.values:
        text, first, last = "", 0, 0
        for other in rubric.attributes:
            text += f"{', ' if text else ''}{other.name}: "
            first = len(text) if other.key == key else first
            text += str(value if other.key == key else written.get(other.key, other.minimum))
            last = len(text) if other.key == key else last
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        sequences[value] = [*encoded["input_ids"], end_of_turn]
        inside = [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if b > first and a < last]
        spans[value] = (inside[0], inside[-1] + 1)
    tokens = {value: tuple(sequences[value][slice(*spans[value])]) for value in attribute.values}
    for value, (first, last) in spans.items():
        if any(other != tokens[value] and other[: last - first] == tokens[value] for other in tokens.values()):
            spans[value] = (first, last + 1)
    first = spans[attribute.minimum][0]
    assert {span[0] for span in spans.values()} == {first}

    longest = max(last for _, last in spans.values())
    rows = torch.tensor([(sequences[value] + longest * [0])[:longest] for value in attribute.values])
    ids = torch.cat([torch.tensor(prompt).expand(len(rows), -1), rows], dim=1)
    hidden = model.model(input_ids=ids).last_hidden_state[:, len(prompt) + first - 1 : -1]
    logprobs = torch.log_softmax(model.lm_head(hidden), dim=-1)  # padding on the right is never looked at
    raw = {}
    for row, value in enumerate(attribute.values):
        path = sequences[value][first : spans[value][1]]
        raw[value] = float(sum(logprobs[row, i, token] for i, token in enumerate(path)).exp())
    total = sum(raw.values())
    return {value: p / total for value, p in raw.items()}, 1 - total


def test_distributions_equal_an_enumeration_of_every_legal_score(
    each_tokenizer: PreTrainedTokenizerFast, tiny: ModuleType
) -> None:
    model = model_for(tiny, each_tokenizer)
    encoder = JudgeEncoder(each_tokenizer, RUBRICS[0])
    judge = Judge(encoder, TransformersEngine(model))
    conversation, response = (Message("user", "List 2 words."),), "Helpfulness: 5, it is a list of 14."
    count = len(RUBRICS)
    judgments = judge.score(count * [conversation], count * [response], rubrics=RUBRICS)
    for rubric, judgment in zip(RUBRICS, judgments, strict=True):
        assert judgment.error is None
        prompt = encoder.encode_prompt(conversation, response, rubric=rubric)
        assert judgment.prompt_tokens == len(prompt.ids)
        written: dict[str, int] = {}
        for attribute in rubric.attributes:
            expected, outside = enumerate_scores(
                model, each_tokenizer, rubric, prompt.ids, encoder.prompts.end_of_turn_id, written, attribute.key
            )
            found = judgment.attributes[attribute.key]
            assert found.values == tuple(attribute.values)
            assert sum(found.probabilities) == pytest.approx(1, abs=1e-9)
            np.testing.assert_allclose(found.probabilities, list(expected.values()), atol=1e-5)
            assert found.outside_mass == pytest.approx(outside, abs=1e-5)
            assert max(found.probabilities) > 1.2 / len(found.values)  # a flat one would prove little
            written[attribute.key] = max(expected, key=lambda value: expected[value])


class CountingEngine(TransformersEngine):
    """The reference engine, which notes how many queries came in each call."""

    def __init__(self, model: PreTrainedModel, merges_prefixes: bool) -> None:
        super().__init__(model)
        self.merges_prefixes = merges_prefixes
        self.calls: list[int] = []

    def logprobs(self, queries: Sequence[Query]) -> list[np.ndarray]:
        self.calls.append(len(queries))
        return super().logprobs(queries)


def read_both_ways(
    tiny: ModuleType, tokenizer: PreTrainedTokenizerFast, rubric: Rubric, responses: int = 8
) -> tuple[list[Any], list[Any], CountingEngine, CountingEngine]:
    encoder = JudgeEncoder(tokenizer, rubric)
    model = model_for(tiny, tokenizer)
    prompts = [
        (encoder.encode_prompt((Message("user", "Hi"),), f"Response {n}.").ids, encoder.score_tokens())
        for n in range(responses)
    ]
    ahead, stepwise = CountingEngine(model, True), CountingEngine(model, False)
    return read_scores(ahead, prompts), read_scores(stepwise, prompts), ahead, stepwise


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece", "split_digits", "three_digits"])
@pytest.mark.parametrize("rubric", RUBRICS, ids=lambda rubric: rubric.name)
def test_reading_ahead_on_guesses_changes_no_number(
    tiny_tokenizer: Build, tiny: ModuleType, kind: str, rubric: Rubric
) -> None:
    found, expected, ahead, stepwise = read_both_ways(tiny, tiny_tokenizer(kind), rubric)
    for a, b in zip(found, expected, strict=True):
        assert list(a) == list(b) == list(rubric.keys)
        for key in a:
            np.testing.assert_allclose(a[key].probabilities, b[key].probabilities, atol=1e-5)
    # Stepwise takes one call an attribute; ahead never takes more, for each call settles at least one.
    assert len(stepwise.calls) == len(rubric.attributes)
    assert len(ahead.calls) <= len(rubric.attributes)


def test_a_right_guess_costs_no_second_pass(tiny_tokenizer: Build, tiny: ModuleType) -> None:
    tokenizer = tiny_tokenizer("split_digits")
    encoder = JudgeEncoder(tokenizer, load_rubric("helpsteer"))
    engine = CountingEngine(model_for(tiny, tokenizer), True)
    prompt = encoder.encode_prompt((Message("user", "Hi"),), "x").ids
    [found] = read_scores(engine, [(prompt, encoder.score_tokens())])
    assert engine.calls[0] == 5  # all five attributes are asked about at once
    ids, positions = encoder.score_tokens().encode({key: d.mode for key, d in found.items()})
    queries = [Query((*prompt, *ids[: p.index]), p.choice.token_ids) for p in positions]
    passes = []
    hook = engine.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: passes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    try:
        answers = engine.logprobs(queries)
    finally:
        hook.remove()
    assert passes == [(1, len(queries[-1].prefix))]  # each is the beginning of the next: one row, one pass
    for logprobs, distribution in zip(answers, found.values(), strict=True):
        np.testing.assert_allclose(np.exp(logprobs) / np.exp(logprobs).sum(), distribution.probabilities, atol=1e-5)


def test_no_prompts_need_no_engine_call(tiny: ModuleType, tiny_tokenizer: Build) -> None:
    engine = CountingEngine(model_for(tiny, tiny_tokenizer("split_digits")), True)
    assert read_scores(engine, []) == []
    assert engine.calls == []


def test_a_model_that_gives_no_numbers_fails_that_response_only(tiny: ModuleType, tiny_tokenizer: Build) -> None:
    tokenizer = tiny_tokenizer("split_digits")
    model = tiny.build_model(len(tokenizer), hidden=32)
    broken = tokenizer.convert_tokens_to_ids("list")
    with torch.no_grad():
        model.model.embed_tokens.weight[broken] = torch.nan
    tokens = JudgeEncoder(tokenizer, load_rubric("helpsteer")).score_tokens()
    found = read_scores(TransformersEngine(model), [((5, 6, 7), tokens), ((5, broken, 7), tokens), ((5, 7), tokens)])
    assert [type(item) for item in found] == [dict, str, dict]
    assert "no probabilities to read: attribute 'helpfulness'" in found[1]
