"""vLLM gives the same scores as transformers; one engine for the whole module, for it is slow to start."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from rmkit.engines import Query
from rmkit.engines.transformers import TransformersEngine
from rmkit.errors import JudgeError
from rmkit.judge import Judge
from rmkit.judge_encoder import JudgeEncoder
from rmkit.rubric import Attribute, Rubric, load_rubric

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM has no build for this platform"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's imports warn of this and that, none of it ours
]

MAX_LENGTH = 640
SCALES = [(1, 5), (0, 20), (1, 100), (0, 359)]


def scale(minimum: int, maximum: int) -> Rubric:
    return Rubric(
        f"{minimum}-{maximum}",
        (
            Attribute("helpfulness", "Helpfulness", minimum=minimum, maximum=maximum),
            Attribute("overall", "Overall", minimum=minimum, maximum=maximum),
        ),
    )


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_tokenizer: Callable[..., Any],
    save_tiny_judge: Callable[..., Path],
) -> Path:
    """A judge folder whose weights know the ids of both tokenizers of this module."""
    size = max(len(tiny_tokenizer(kind)) for kind in ("split_digits", "three_digits"))
    return save_tiny_judge(
        tmp_path_factory.mktemp("judge"),
        tiny_tokenizer("split_digits"),
        load_rubric("dist2_paper"),
        family="qwen3",
        vocab_size=size,
        max_length=MAX_LENGTH,
    )


@pytest.fixture(scope="module")
def judges(folder: Path) -> dict[str, Judge]:
    """The same judge in both engines."""
    return {engine: Judge.load(folder, engine=engine) for engine in ("transformers", "vllm")}


def assert_they_agree(judges: dict[str, Judge], encoder: JudgeEncoder) -> None:
    conversations = ["Hi", "Hi", [{"role": "system", "content": "x"}, {"role": "user", "content": "List 2 words."}]]
    responses = ["Hello.", "Helpfulness: 5", "words<|im_end|> and 14 lists"]
    ours, theirs = (
        Judge(encoder, judges[name].engine).score(conversations, responses) for name in ("transformers", "vllm")
    )
    for a, b in zip(ours, theirs, strict=True):
        assert a.error is None and b.error is None
        assert tuple(a.attributes) == tuple(b.attributes) == encoder.rubric.keys
        assert a.prompt_tokens == b.prompt_tokens
        for key, distribution in a.attributes.items():
            found = b.attributes[key]
            assert found.mode == distribution.mode
            np.testing.assert_allclose(found.probabilities, distribution.probabilities, atol=1e-3)
            assert found.outside_mass == pytest.approx(distribution.outside_mass, abs=1e-3)
            assert max(found.probabilities) > 1.2 / len(found.values)
        assert b.aggregate == pytest.approx(a.aggregate, abs=1e-3)


@pytest.mark.parametrize("kind", ["split_digits", "three_digits"])
@pytest.mark.parametrize(("minimum", "maximum"), SCALES)
def test_both_engines_give_the_same_scores(
    judges: dict[str, Judge], tiny_tokenizer: Callable[..., Any], kind: str, minimum: int, maximum: int
) -> None:
    assert_they_agree(judges, JudgeEncoder(tiny_tokenizer(kind), scale(minimum, maximum)))


def test_a_loaded_judge_brings_its_rubric_to_both_engines(judges: dict[str, Judge]) -> None:
    assert judges["vllm"].rubric == load_rubric("dist2_paper")
    assert_they_agree(judges, judges["vllm"].encoder)


def test_both_engines_know_the_same_limits(judges: dict[str, Judge]) -> None:
    assert judges["vllm"].max_length == judges["transformers"].max_length == MAX_LENGTH
    assert judges["vllm"].engine.vocab_size == judges["transformers"].engine.vocab_size
    for judge in judges.values():
        long, short = judge.score(["Hi", "Hi"], ["words " * MAX_LENGTH, "Hello."])
        assert long.error is not None and long.error.startswith("PromptTooLongError")
        assert short.error is None


def test_a_prompt_as_long_as_fits_is_scored_alike(judges: dict[str, Judge]) -> None:
    [usual] = judges["transformers"].score(["Hi"], ["!"])
    room = MAX_LENGTH - judges["vllm"].encoder.score_tokens().max_length - usual.prompt_tokens
    longest = "!" * (1 + room)
    [over] = judges["vllm"].score(["Hi"], [longest + "!"])
    assert over.error is not None and over.error.startswith("PromptTooLongError")
    ours, theirs = (judges[name].score(["Hi"], [longest])[0] for name in ("transformers", "vllm"))
    assert ours.error is None and theirs.error is None
    for key, distribution in ours.attributes.items():
        np.testing.assert_allclose(theirs.attributes[key].probabilities, distribution.probabilities, atol=1e-3)


def test_log_probabilities_are_of_the_whole_vocabulary_in_the_order_asked_for(judges: dict[str, Judge]) -> None:
    size = judges["vllm"].engine.vocab_size
    everything = tuple(range(size))
    queries = [
        Query((5, 6, 7), everything),
        Query((5, 6, 7), everything[::-1]),
        Query((9,), (3, 0, 200)),
        Query((5, 6, 7), everything),
    ]
    first, backwards, few, again = judges["vllm"].engine.logprobs(queries)
    assert np.exp(first).sum() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(first, backwards[::-1], atol=1e-5)
    np.testing.assert_allclose(first, again, atol=1e-5)
    assert few.shape == (3,) and few.dtype == np.float64
    for ours, theirs in zip(
        judges["transformers"].engine.logprobs(queries), (first, backwards, few, again), strict=True
    ):
        np.testing.assert_allclose(theirs, ours, atol=1e-3)
    assert judges["vllm"].engine.logprobs([]) == []


def test_starting_vllm_changes_no_score_of_transformers(judges: dict[str, Judge], tiny: ModuleType) -> None:
    model = judges["transformers"].engine.model  # type: ignore[attr-defined]
    encoder = judges["transformers"].encoder
    size = judges["vllm"].engine.vocab_size
    fresh = Judge(encoder, TransformersEngine(tiny.build_model(size, "qwen3", max_length=MAX_LENGTH)))
    [ours], [loaded] = fresh.score(["Hi"], ["Hello."]), judges["transformers"].score(["Hi"], ["Hello."])
    assert ours.aggregate == pytest.approx(loaded.aggregate, abs=1e-6)
    assert next(model.parameters()).dtype == torch.float32


def test_a_folder_that_vllm_can_not_load_is_named(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(JudgeError, match="vLLM can't load the model"):
        Judge.load(tmp_path, engine="vllm")
