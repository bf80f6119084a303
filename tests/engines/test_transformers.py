from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rmkit.engines import Query, follow_in_rounds
from rmkit.engines.growing_tree import GrowingTree, takes_trees
from rmkit.engines.transformers import TransformersEngine, load_model
from rmkit.judge import Judge
from rmkit.judge_encoder import JudgeEncoder
from rmkit.readout import read_scores
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Message
from rmkit.tree_attention import use_tree_attention

RUBRIC = Rubric(
    "three",
    (
        Attribute("helpfulness", "Helpfulness"),
        Attribute("overall", "Overall", "", 0, 20),
        Attribute("verbosity", "Verbosity"),
    ),
)


@pytest.fixture
def model(tiny: ModuleType, tiny_tokenizer: Callable[..., Any]) -> Any:
    return tiny.build_model(len(tiny_tokenizer("split_digits")), "qwen3", initializer_range=0.3)


@pytest.fixture
def prompts(tiny_tokenizer: Callable[..., Any]) -> list[Any]:
    """Ten responses to five conversations, with their score tokens."""
    encoder = JudgeEncoder(tiny_tokenizer("split_digits"), RUBRIC)
    found = []
    for n in range(10):
        conversation = (Message("user", f"write {n // 2} words please"),)
        found.append((encoder.encode_prompt(conversation, "words " * (n % 4 + 1)).ids, encoder.score_tokens()))
    return found


def ask_alone(model: Any, queries: Sequence[Query]) -> list[np.ndarray]:
    """Each query by a forward pass of its own."""
    answers = []
    for query in queries:
        logits = model(input_ids=torch.tensor([query.prefix]), use_cache=False).logits[0, -1].float()
        answers.append(logits.log_softmax(-1)[list(query.token_ids)].detach().double().numpy())
    return answers


def draw_queries() -> list[Query]:
    generator = np.random.default_rng(0)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(int(token) for token in generator.integers(0, 300, count))

    root = draw(40)
    prefixes = [root, root + draw(30), draw(25), root + draw(7)]
    prefixes += [prefixes[1] + draw(3), prefixes[1] + draw(9), prefixes[1][:60]]
    return [Query(prefix, draw(1 + n)) for n, prefix in enumerate(prefixes)]


@pytest.mark.parametrize("batch_tokens", [16_384, 60])
@pytest.mark.parametrize("trees", [True, False])
def test_queries_are_answered_as_by_themselves(model: Any, trees: bool, batch_tokens: int) -> None:
    queries = draw_queries()
    expected = ask_alone(model, queries)
    if trees:
        use_tree_attention(model)
    engine = TransformersEngine(model, batch_tokens)
    assert takes_trees(model) is trees
    for order in ([*range(7)], [3, 6, 0, 5, 2, 1, 4]):
        for index, answer in zip(order, engine.logprobs([queries[n] for n in order]), strict=True):
            np.testing.assert_allclose(answer, expected[index], atol=1e-5)


def test_rounds_of_questions_go_on_from_what_is_computed(model: Any) -> None:
    queries = draw_queries()
    expected = ask_alone(model, queries)
    use_tree_attention(model)
    with torch.no_grad():
        tree, found = GrowingTree(model), []
        for part in (queries[:2], queries[2:5], queries[5:], queries[:1]):
            found += tree.answer(part)
    for answer, right in zip(found, [*expected, expected[0]], strict=True):
        np.testing.assert_allclose(answer, right, atol=1e-5)


@pytest.mark.parametrize("most_keys", [1, 100, 131_072])
def test_a_forward_pass_sees_no_more_keys_than_it_may(model: Any, most_keys: int) -> None:
    queries = draw_queries()
    expected = ask_alone(model, queries)
    use_tree_attention(model)
    seen: list[tuple[int, int]] = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((len(kwargs["tree_keys"]), len(kwargs["tree_query_ends"]) - 1)),
        with_kwargs=True,
    )
    with torch.no_grad():
        found = GrowingTree(model, most_keys).answer(queries)
    for answer, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(answer, right, atol=1e-5)
    assert all(keys <= most_keys or segments == 1 for keys, segments in seen)
    assert (len(seen) == 1) is (most_keys == 131_072)


@pytest.mark.parametrize("batch_tokens", [16_384, 900])
def test_readings_are_those_of_step_by_step(model: Any, prompts: list[Any], batch_tokens: int) -> None:
    plain = read_scores(TransformersEngine(model), prompts)
    use_tree_attention(model)
    engine = TransformersEngine(model, batch_tokens)
    followed = read_scores(engine, prompts)
    backwards = read_scores(engine, prompts[::-1])[::-1]

    class InRounds:
        """The same engine, asked through `logprobs` alone."""

        name, max_length, vocab_size, merges_prefixes = "t", engine.max_length, engine.vocab_size, False

        def logprobs(self, queries: Sequence[Query]) -> list[np.ndarray]:
            return engine.logprobs(queries)

    rounds = read_scores(InRounds(), prompts)
    for others in (followed, backwards, rounds):
        for mine, right in zip(others, plain, strict=True):
            assert isinstance(mine, dict) and isinstance(right, dict)
            for key, distribution in mine.items():
                np.testing.assert_allclose(distribution.probabilities, right[key].probabilities, atol=1e-5)
                assert distribution.outside_mass == pytest.approx(right[key].outside_mass, abs=1e-5)


def test_no_token_of_a_prompt_is_computed_twice(model: Any, prompts: list[Any]) -> None:
    use_tree_attention(model)
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True)
    read_scores(TransformersEngine(model), prompts)
    needed = {ids[: end + 1] for ids, _ in prompts for end in range(len(ids))}
    line = max(tokens.max_length for _, tokens in prompts)
    assert len(needed) < 0.7 * sum(len(ids) for ids, _ in prompts)
    # Beyond the prompts: the score line of each response, and where a guess was wrong what follows it once more.
    assert len(needed) < sum(seen) <= len(needed) + 3 * line * len(prompts)
    assert len(seen) <= 1 + 3 * len(RUBRIC.attributes)


def test_a_loaded_model_takes_trees_where_it_can(
    save_tiny_judge: Callable[..., Path],
    tiny_tokenizer: Callable[..., Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    judge = save_tiny_judge(tmp_path / "judge", tiny_tokenizer("split_digits"), RUBRIC)
    assert takes_trees(load_model(str(judge)))
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "max_position_embeddings": 2048}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "sliding_window": 16}
    vocabulary = len(tiny_tokenizer("split_digits"))
    config = AutoConfig.for_model("mistral", vocab_size=vocabulary, **sizes, **heads)
    AutoModelForCausalLM.from_config(config).save_pretrained(judge)
    assert not takes_trees(load_model(str(judge)))
    assert "batches are padded" in caplog.text and "window of 16 tokens" in caplog.text
    judgments = Judge.load(judge).score(["Hi?", "Ho?"], ["Yes.", "No, not at all."])
    assert [judgment.error for judgment in judgments] == [None, None]


def test_a_cap_on_attention_scores_is_not_left_out(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 16, "vocab_size": 50}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "query_pre_attn_scalar": 1, "initializer_range": 0.5}
    config = AutoConfig.for_model("gemma2", **sizes, **heads, pad_token_id=0, attn_logit_softcapping=2.0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    query = Query(tuple(range(1, 30)), tuple(range(50)))
    [found] = TransformersEngine(load_model(str(tmp_path))).logprobs([query])
    for attention, same in (("eager", True), ("sdpa", False)):
        model = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=attention).eval()
        assert np.allclose(found, ask_alone(model, [query])[0], atol=1e-4) is same


def test_a_model_in_training_is_read_without_dropout_and_left_in_training(model: Any) -> None:
    model.train()
    engine = TransformersEngine(model)
    follow_in_rounds(engine, [])
    engine.logprobs(draw_queries())
    assert model.training
