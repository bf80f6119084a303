"""Rows end to end, with shared beginnings computed once, give the loss and gradients of rows by themselves."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from rmkit.errors import DataError, JudgeError
from rmkit.judge_encoder import JudgeEncoder
from rmkit.losses import PRESETS, LossSettings
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Message, RatedResponse
from rmkit.training.batches import ConversationOrder, TokenBatches
from rmkit.training.collation import JudgeCollator
from rmkit.training.examples import Example, ExampleDataset, GroupedExamples
from rmkit.training.head import CompletionHead, row_counts, row_sums
from rmkit.training.layout import PACKINGS, count_tokens
from rmkit.training.run import train_judge
from rmkit.tree_attention import use_tree_attention

RUBRIC = Rubric("two", (Attribute("helpfulness", "Helpfulness"), Attribute("overall", "Overall", "", 0, 20)))
LOSSES = {
    "paper": PRESETS["paper"],
    "released": PRESETS["released"],
    "ce": LossSettings("ce"),
    "contrastive": LossSettings("contrastive", neighbours=3),
    "oprm": LossSettings("oprm"),
    "sord": LossSettings("sord", distance="absolute"),
}


def make_rows() -> list[RatedResponse]:
    """Four responses to one conversation, two to another, and one with a rubric of its own."""
    rows = []
    for n in range(6):
        conversation = (Message("user", "Please write a list of words. " * (1 + n // 4)),)
        scores = {"helpfulness": 1 + n % 5, "overall": 3 * n}
        rows.append(RatedResponse(f"r{n}", "s", conversation, "words and words " * (1 + n), scores))
    own = Rubric("own", (Attribute("helpfulness", "Helpfulness", "Does it?", 1, 3),))
    rows.append(RatedResponse("r6", "s", rows[0].conversation, "Words.", {"helpfulness": 3}, rubric=own))
    return rows


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer: Callable[..., Any]) -> Any:
    return tiny_tokenizer("split_digits")


def encode(tokenizer: Any, settings: LossSettings) -> list[Any]:
    rows = (
        make_rows()
        if settings.loss != "oprm"
        else [
            RatedResponse(r.id, r.source, r.conversation, r.response, {"helpfulness": r.scores["helpfulness"]})
            for r in make_rows()
        ]
    )
    neighbours = settings.neighbours if settings.loss == "contrastive" else 0
    rubric = RUBRIC if settings.loss != "oprm" else Rubric("one", RUBRIC.attributes[:1])
    examples = ExampleDataset(JudgeEncoder(tokenizer, rubric), rows, neighbours=neighbours).examples
    return list(GroupedExamples(examples).groups) if settings.loss == "oprm" else examples


def losses_and_gradients(
    model: Any, batches: list[dict[str, Any]], settings: LossSettings, fused: bool
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Sums of both terms by item, their counts, and the gradients of the weighted sum, over some batches."""
    head = CompletionHead(getattr(model, "base_model", model).model if hasattr(model, "peft_config") else model)
    if not fused:
        head._fall_back("the test asks for it")
    model.zero_grad(set_to_none=True)
    sums, counts = [], []
    for batch in batches:
        terms = head.loss(model, batch, settings, 0.1, 0.3)
        terms.loss.backward()
        sums.append(row_sums(terms, batch))
        counts.append(row_counts(batch))
    assert head.is_fused is fused
    return torch.cat(sums), torch.cat(counts), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "logits"])
@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_packed_rows_give_the_losses_and_gradients_of_rows_by_themselves(
    tiny: ModuleType, tokenizer: Any, family: str, name: str, fused: bool
) -> None:
    settings = LOSSES[name]
    examples = encode(tokenizer, settings)
    model = tiny.build_model(len(tokenizer), family)
    alone = [JudgeCollator(0, settings)([item]) for item in examples]
    expected = losses_and_gradients(model, alone, settings, fused)
    use_tree_attention(model)
    for packing in PACKINGS:
        batch = JudgeCollator(0, settings, packing)(examples)
        found = losses_and_gradients(model, [batch], settings, fused)
        for mine, theirs in zip(found[:2], expected[:2], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
        assert found[2].keys() == expected[2].keys()
        for parameter, gradient in found[2].items():
            torch.testing.assert_close(gradient, expected[2][parameter], rtol=1e-5, atol=1e-5, msg=parameter)


@pytest.mark.parametrize("way", ["lora", "gradient checkpointing", "lora and gradient checkpointing"])
def test_the_same_with(tiny: ModuleType, tokenizer: Any, way: str) -> None:
    settings = PRESETS["paper"]
    examples = encode(tokenizer, settings)
    model = tiny.build_model(len(tokenizer)).train()
    if "lora" in way:
        torch.manual_seed(1)
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    expected = losses_and_gradients(model, [JudgeCollator(0, settings)([e]) for e in examples], settings, True)
    use_tree_attention(model)
    if "checkpointing" in way:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    found = losses_and_gradients(model, [JudgeCollator(0, settings, "shared")(examples)], settings, True)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    for parameter, gradient in found[2].items():
        torch.testing.assert_close(gradient, expected[2][parameter], rtol=1e-5, atol=1e-5, msg=parameter)


def test_the_shared_layout_holds_each_beginning_once(tokenizer: Any) -> None:
    examples = encode(tokenizer, PRESETS["paper"])
    sequences = [example.token_ids for example in examples]
    beginnings = {tokens[: end + 1] for tokens in sequences for end in range(len(tokens))}
    computed = {packing: count_tokens(sequences, packing) for packing in PACKINGS}
    for packing, count in computed.items():
        batch = JudgeCollator(0, PRESETS["paper"], packing)(examples)
        assert batch["input_ids"].numel() == count
        assert batch["row_tokens"].tolist() == list(map(len, sequences))
    assert computed["separate"] == sum(map(len, sequences)) < computed["none"]
    assert computed["shared"] == len(beginnings)
    assert computed["shared"] < 0.7 * computed["separate"]


def test_an_unknown_packing_is_refused() -> None:
    with pytest.raises(ValueError, match="packing='tight' is unknown; choose shared, separate, none"):
        JudgeCollator(0, PRESETS["paper"], "tight")


def example(name: str, group: str, length: int, shared: int = 0) -> Example:
    beginning = tuple(range(1000, 1000 + shared))
    return Example(name, beginning + tuple([hash(name) % 999] * (length - shared - 1)), (1,), (), group=group)


def test_responses_to_one_conversation_are_neighbours_in_another_order_each_epoch() -> None:
    groups = [str(n // 3) for n in range(30)]
    order = ConversationOrder(groups, seed=4)
    epochs = []
    for epoch in range(3):
        order.set_epoch(epoch)
        epochs.append(list(order))
        assert list(order) == epochs[-1]
        assert sorted(epochs[-1]) == list(range(len(order)))
        assert sum(groups[a] != groups[b] for a, b in pairwise(epochs[-1])) == 9
    assert epochs[0] != epochs[1] != epochs[2]
    again = ConversationOrder(groups, seed=4)
    assert list(again) == epochs[0]
    assert list(ConversationOrder(groups, seed=5)) != epochs[0]


@pytest.mark.parametrize("packing", PACKINGS)
def test_batches_keep_within_their_budget_and_hold_every_example_once(packing: str) -> None:
    examples = [example(f"e{n}", str(n // 2), 40 + 13 * n % 50, shared=20) for n in range(24)]
    batches = TokenBatches(examples, 300, packing, seed=0)
    found = [e for n in range(len(batches)) for e in batches[n]]
    assert sorted(e.id for e in found) == sorted(e.id for e in examples)
    counts = [count_tokens([e.token_ids for e in batches[n]], packing) for n in range(len(batches))]
    assert max(counts) <= 300
    assert sum(counts) <= batches.tokens <= 1.1 * sum(counts)
    parted = [{e.group for e in batches[n]} for n in range(len(batches))]
    assert sum(map(len, parted)) == len(set.union(*parted))
    if packing == "none":
        assert all(len(batches[n]) * max(len(e.token_ids) for e in batches[n]) <= 300 for n in range(len(batches)))


def test_a_conversation_that_is_too_large_for_the_budget_is_parted_and_a_row_refused() -> None:
    examples = [example(f"e{n}", "one", 60) for n in range(8)]
    batches = TokenBatches(examples, 130, "shared", seed=0)
    assert [len(batches[n]) for n in range(len(batches))] == [2, 2, 2, 2]
    with pytest.raises(DataError, match=r"row e0 has 60 tokens, more than batch_tokens=50; raise it to max_length"):
        TokenBatches(examples, 50, "shared", seed=0)


def log_losses(figures: dict[str, Any]) -> list[float]:
    return [line["loss"] for line in figures["log"] if "loss" in line]


def test_packing_changes_no_step_of_a_run(small_settings: Callable[..., Any], tmp_path: Path) -> None:
    found = {
        packing: train_judge(small_settings("--packing", packing, "--output_dir", str(tmp_path / packing)))
        for packing in ("auto", "separate", "none")
    }
    assert {name: figures["packing"] for name, figures in found.items()} == {
        "auto": "shared",
        "separate": "separate",
        "none": "none",
    }
    for figures in found.values():
        assert log_losses(figures) == pytest.approx(log_losses(found["none"]), abs=1e-5)
        assert figures["metrics"] == pytest.approx(found["none"]["metrics"], abs=1e-4)
    tokens = {name: figures["tokens"] for name, figures in found.items()}
    assert {t["rows"] for t in tokens.values()} == {24}
    assert tokens["auto"]["computed"] < 0.6 * tokens["separate"]["computed"]
    assert tokens["separate"]["computed"] == tokens["separate"]["logical"] < tokens["none"]["computed"]
    line = next(line for line in found["auto"]["log"] if "tokens_per_row_computed" in line)
    assert line["tokens_per_row_computed"] < line["tokens_per_row_logical"]


def test_a_run_with_a_budget_of_tokens(small_settings: Callable[..., Any], tmp_path: Path) -> None:
    settings = small_settings("--batch_tokens", "700", "--output_dir", str(tmp_path / "budget"))
    figures = train_judge(settings)
    assert log_losses(figures)[-1] < log_losses(figures)[0]
    assert figures["tokens"]["computed"] <= 6 * 700
    assert figures["tokens"]["rows"] > 12


def test_a_model_that_can_not_pack_says_so_once_and_is_padded(
    small_settings: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    eager = ("--attn_implementation", "eager", "--max_steps", "2")
    figures = train_judge(small_settings(*eager, "--output_dir", str(tmp_path / "padded")))
    assert figures["packing"] == "none"
    assert [r.message for r in caplog.records if "rows are padded" in r.message] == [
        "rows are padded, and prompts that begin alike are computed anew for each row: attn_implementation is eager, "
        "and only sdpa has a form for shared prompts"
    ]
    with pytest.raises(
        JudgeError, match=r"packing='shared' can't be had with this model: attn_implementation is eager"
    ):
        train_judge(small_settings(*eager, "--packing", "shared", "--output_dir", str(tmp_path / "refused")))
