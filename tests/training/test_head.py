"""The loss at the head equals an independent computation, row by row, on full logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    PhiConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from rmkit import losses
from rmkit.distances import MetricSpace, absolute, squared
from rmkit.errors import DataError
from rmkit.judge_encoder import JudgeEncoder
from rmkit.losses import PRESETS, SCORE_LOSSES, LossSettings
from rmkit.rubric import Attribute, Rubric, load_rubric
from rmkit.schema import Message, RatedResponse
from rmkit.score_tokens import Choice, ScorePosition
from rmkit.training import fused_head
from rmkit.training.collation import JudgeCollator
from rmkit.training.examples import Example, GroupedExamples, encode_example
from rmkit.training.fused_head import LogitMap, make_ruler, measure_logit_map
from rmkit.training.head import (
    CompletionHead,
    LossTerms,
    completion_logits,
    judge_loss,
    row_counts,
    row_sums,
    unreduced_losses,
)
from rmkit.training.layout import PACKINGS

RUBRIC = Rubric(
    "mixed",
    (
        Attribute("overall", "Overall", minimum=0, maximum=100),
        Attribute("helpfulness", "Helpfulness"),
        Attribute("level", "Level", minimum=9, maximum=10),  # after `1` only `0` can stand: one token, no choice
    ),
)
ROWS: list[tuple[str, dict[str, int], Rubric | None]] = [
    ("A short one.", {"overall": 39, "helpfulness": 4, "level": 10}, None),
    ("Helpfulness: 5. " * 5, {"overall": 100, "helpfulness": 1}, None),
    ("Fine.", {"helpfulness": 5, "level": 9}, None),
    ("A list with words of a user, not only 1 or 2 " * 2, {"overall": 4}, None),
    ("Own.", {"helpfulness": 0, "verbosity": 2}, load_rubric("dist2_paper")),
]
FAMILIES = {"llama": "split_digits", "qwen3": "byte_level"}


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def setting(
    request: pytest.FixtureRequest, tiny: ModuleType, tiny_tokenizer: Callable[..., PreTrainedTokenizerFast]
) -> tuple[PreTrainedModel, list[Example]]:
    """A model in float64 and examples of several lengths."""
    tokenizer = tiny_tokenizer(FAMILIES[request.param])
    encoder = JudgeEncoder(tokenizer, RUBRIC)
    examples = [
        encode_example(
            encoder, RatedResponse(f"r{i}", "s", (Message("user", "Hi"),), text, scores, rubric=rubric), fill=False
        )
        for i, (text, scores, rubric) in enumerate(ROWS)
    ]
    return tiny.build_model(len(tokenizer), request.param).double(), examples


def scores_of(example: Example) -> tuple[Rubric, dict[str, int]]:
    _, scores, rubric = ROWS[int(example.id[1:])]
    return rubric or RUBRIC, scores


def reference(model: PreTrainedModel, examples: Sequence[Example], settings: LossSettings) -> torch.Tensor:
    """Both terms from their definitions: one unpadded row at a time, full logits, targets of whole numbers.

    At each token of a score the target is p_d over whole numbers, restricted to those that are still possible,
    summed over those that each next token leads to.

    Returns:
        The sums of the cross entropy and of the weighted distance term, shape (2,).
    """
    token_sum, score_sum = torch.zeros(2, dtype=torch.float64)
    for example in examples:
        ids = torch.tensor([[*example.prompt_ids, *example.completion_ids]])
        logprobs = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0, :-1], dim=-1)
        logprobs = logprobs[len(example.prompt_ids) - 1 :]
        token_sum = token_sum - sum(logprobs[i, token] for i, token in enumerate(example.completion_ids))
        _, scores = scores_of(example)
        for position in example.positions:
            assert example.completion_ids[position.index] == position.choice.token_ids[position.label]
            if len(position.choice.token_ids) == 1:
                continue
            label = scores[position.key]
            weight = {
                v: math.exp(-((v - label) ** 2) / settings.tau) for group in position.choice.scores for v in group
            }
            mass = [sum(weight[v] for v in group) for group in position.choice.scores]
            target = torch.tensor(mass, dtype=torch.float64) / sum(mass)
            p = logprobs[position.index, list(position.choice.token_ids)]
            if settings.normalize == "scale":
                p = torch.log_softmax(p, dim=-1)
            divergence = torch.special.xlogy(target, target).sum() - (target * p).sum()
            score_sum = score_sum + divergence * (position.place if settings.place_weights else 1)
    return torch.stack([token_sum, score_sum])


@pytest.fixture(params=["fused", "plain"])
def way(request: pytest.FixtureRequest) -> str:
    """Both ways to the loss: tiles at a plain head, and logits of the last positions."""
    return str(request.param)


def head_of(model: PreTrainedModel, way: str) -> CompletionHead:
    head = CompletionHead(model)
    if way == "plain":
        head._fall_back("the test asks for it")
    return head


def total(sums: torch.Tensor, counts: tuple[float, float], settings: LossSettings) -> torch.Tensor:
    divisor = counts[0] if settings.reduction == "tokens" else counts[1]
    return sums[0] / counts[0] + settings.alpha * sums[1] / divisor


def gradients(model: PreTrainedModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {
        name: torch.zeros_like(parameters[name]) if g is None else g for name, g in zip(parameters, found, strict=True)
    }


def sums(terms: LossTerms) -> torch.Tensor:
    return torch.stack([terms.nll.sum(), terms.scores.sum()])


SETTINGS = {**PRESETS, "ce": LossSettings("ce"), "wide": LossSettings(tau=30.0, alpha=2.0)}


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_loss_and_gradients_equal_an_independent_computation(
    setting: tuple[PreTrainedModel, list[Example]], name: str, way: str
) -> None:
    model, examples = setting
    settings = SETTINGS[name]
    batch = JudgeCollator(3, settings)(examples)
    head = head_of(model, way)
    terms = head.loss(model, batch, settings)
    assert head.is_fused is (way == "fused")
    expected = reference(model, examples, settings)
    if settings.loss == "ce":
        expected = expected * torch.tensor([1.0, 0.0])
    places = [p.place for e in examples for p in e.positions if len(p.choice.token_ids) > 1]
    counts = (
        float(sum(len(e.completion_ids) for e in examples)),
        float(sum(places) if settings.place_weights else len(places)),
    )
    torch.testing.assert_close(sums(terms), expected, rtol=1e-5, atol=1e-5)
    assert row_counts(batch).sum(0).tolist() == list(counts)

    loss = judge_loss(model, batch, settings, head)
    wanted = total(expected, counts, settings)
    torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=1e-6)
    found = gradients(model, loss)
    assert any(g.abs().max() > 1e-2 for g in found.values())
    for parameter, gradient in gradients(model, wanted).items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-5, atol=1e-6, msg=parameter)


def at_one_position(z: torch.Tensor, position: ScorePosition) -> dict[str, torch.Tensor]:
    """Every loss at a whole score, from the logits over the vocabulary, by the functions themselves."""
    scores, lse = z[list(position.choice.token_ids)][None], z.logsumexp(-1)[None]
    values = torch.tensor([float(score) for (score,) in position.choice.scores], dtype=torch.float64)
    label, target = torch.tensor([position.label]), torch.tensor([float(position.score)], dtype=torch.float64)
    space = MetricSpace(torch.tensor(position.choice.token_ids), values, squared)
    return {
        "cdw_ce": losses.cdw_ce(scores, absolute(values, target), 1.5),
        "ce_vocab": losses.ce_vocab(scores, label, lse),
        "dist2": losses.dist2(scores, squared(values, target), 2.0, lse),
        "dist2_random": losses.dist2_random(scores, label, space, 2.0, lse),
        "emd2": losses.emd2(scores, label),
        "label_smoothing": losses.label_smoothing(scores, label, 0.2, lse),
        "ntl_mse": losses.ntl_mse(scores, values, target),
        "ntl_was": losses.ntl_was(scores, absolute(values, target)),
        "oll": losses.oll(scores, absolute(values, target), 1.5),
        "raft": losses.raft(scores, values, target, lse),
        "sord": losses.sord(scores, absolute(values, target), 2.0, lse),
        "weighted_ce": losses.ce_vocab(scores, label, lse) * position.place,
    }


@pytest.mark.parametrize("name", sorted(set(SCORE_LOSSES) - {"oprm", "contrastive"}))
def test_every_loss_at_the_head_is_its_function_on_full_logits(
    setting: tuple[PreTrainedModel, list[Example]], name: str, way: str
) -> None:
    model, examples = setting
    settings = LossSettings(name, tau=2.0, power=1.5, smoothing=0.2)
    # Whole scores and nothing else: the losses that know no first digit take part, too.
    kept = [replace(e, positions=tuple(p for p in e.positions if p.key == "helpfulness")) for e in examples]
    batch = JudgeCollator(3, settings)(kept)
    terms = head_of(model, way).loss(model, batch, settings, 0.0, 1.0)
    expected = torch.zeros((), dtype=torch.float64)
    for example in kept:
        ids = torch.tensor([[*example.prompt_ids, *example.completion_ids]])
        z = model(input_ids=ids, use_cache=False).logits[0, len(example.prompt_ids) - 1 : -1]
        for position in example.positions:
            expected = expected + at_one_position(z[position.index], position)[name].sum()
    torch.testing.assert_close(terms.loss, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(terms.scores.sum(), expected.detach(), rtol=1e-6, atol=1e-6)
    found = gradients(model, terms.loss)
    assert any(gradient.abs().max() > 1e-3 for gradient in found.values())
    for parameter, gradient in gradients(model, expected).items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-5, atol=1e-6, msg=parameter)


def test_the_sums_of_single_rows_are_their_own(setting: tuple[PreTrainedModel, list[Example]], way: str) -> None:
    model, examples = setting
    settings = PRESETS["released"]
    batch = JudgeCollator(3, settings)(examples)
    with torch.no_grad():
        found = row_sums(head_of(model, way).loss(model, batch, settings), batch)
        for row, example in zip(found, examples, strict=True):
            torch.testing.assert_close(row, reference(model, [example], settings), rtol=1e-5, atol=1e-5)


def test_neither_padding_nor_its_token_nor_the_order_of_rows_counts(
    setting: tuple[PreTrainedModel, list[Example]], way: str
) -> None:
    model, examples = setting
    settings = PRESETS["paper"]

    def sums_of(rows: Sequence[Example], pad: int = 0) -> list[float]:
        batch = JudgeCollator(pad, settings)(rows)
        with torch.no_grad():
            return sums(head_of(model, way).loss(model, batch, settings)).tolist()

    together = sums_of(examples)
    assert sums_of(examples, pad=7) == pytest.approx(together, rel=1e-12)
    assert sums_of(examples[::-1]) == pytest.approx(together, rel=1e-9)
    alone = [sums_of([example]) for example in examples]
    assert [sum(parts) for parts in zip(*alone, strict=True)] == pytest.approx(together, rel=1e-9)
    longest = max(examples, key=lambda e: len(e.prompt_ids))
    both, one, other = sums_of([examples[0], longest]), sums_of([longest]), sums_of([examples[0]])
    assert both[0] - one[0] == pytest.approx(other[0], rel=1e-9)


def test_a_batch_without_score_positions_gives_a_connected_zero(
    setting: tuple[PreTrainedModel, list[Example]], way: str
) -> None:
    model, examples = setting
    settings = PRESETS["released"]
    batch = JudgeCollator(0, settings)([replace(example, positions=()) for example in examples])
    terms = head_of(model, way).loss(model, batch, settings, 0.0, 1.0)
    assert terms.loss.item() == 0.0 and terms.scores.shape == (0,)
    assert terms.loss.requires_grad
    assert all(not gradient.any() for gradient in gradients(model, terms.loss).values())
    assert row_counts(batch)[:, 1].tolist() == [0] * len(examples)


def test_a_score_token_with_id_zero_counts_like_any_other(setting: tuple[PreTrainedModel, list[Example]]) -> None:
    model, examples = setting
    settings = PRESETS["paper"]
    batch = JudgeCollator(0, settings)(examples)
    # Swap two rows of the head and the ids that the loss looks at: the same loss, with a score at id 0.
    score = int(batch["score_labels"][0])
    logits = completion_logits(model, batch).detach()
    swapped = logits.clone()
    swapped[..., [0, score]] = logits[..., [score, 0]]

    def swap(ids: torch.Tensor) -> torch.Tensor:
        return torch.where(ids == score, 0, torch.where(ids == 0, score, ids))

    moved = {**batch, **{key: swap(batch[key]) for key in ("labels", "score_ids", "score_labels")}}
    assert (moved["score_labels"] == 0).any()
    before, after = unreduced_losses(logits, batch, settings), unreduced_losses(swapped, moved, settings)
    torch.testing.assert_close(after, before)


def test_logits_are_made_for_completion_positions_only(setting: tuple[PreTrainedModel, list[Example]]) -> None:
    model, examples = setting
    batch = JudgeCollator(0, PRESETS["paper"])(examples)
    seen: list[Any] = []
    hook = model.lm_head.register_forward_hook(lambda _module, args, _output: seen.append(args[0].shape[:2]))
    try:
        logits = completion_logits(model, batch)
    finally:
        hook.remove()
    width = max(len(e.completion_ids) for e in examples)
    assert seen == [(len(examples), width + 1)]
    assert logits.shape == (len(examples), width, model.config.vocab_size)


def test_a_model_that_ignores_which_positions_are_asked_for_is_refused(
    setting: tuple[PreTrainedModel, list[Example]],
) -> None:
    model, examples = setting

    class Deaf(torch.nn.Module):
        def forward(self, logits_to_keep: int, **inputs: Any) -> Any:
            return model(**inputs)

    batch = JudgeCollator(0, PRESETS["paper"])(examples)
    with pytest.raises(TypeError, match=r"Deaf gave logits \(5, .* rmkit trains causal language models that take"):
        completion_logits(Deaf(), batch)


HEADS = {
    "untied": (LlamaConfig, {}),
    "tied": (LlamaConfig, {"tie_word_embeddings": True}),
    "soft-capped": (Gemma2Config, {"final_logit_softcapping": 5.0}),
    "scaled": (GraniteConfig, {"logits_scaling": 3.0, "tie_word_embeddings": False}),
    "with a bias": (PhiConfig, {}),
    "lora": (LlamaConfig, {}),
    "gradient checkpointing": (LlamaConfig, {}),
}
MAPS = {"soft-capped": LogitMap(1.0, 5.0), "scaled": LogitMap(1 / 3)}


def build_headed(name: str) -> PreTrainedModel:
    """A model in float32 whose head is of that kind, its weights large enough for confident predictions."""
    config, own = HEADS[name]
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        config(vocab_size=320, num_key_value_heads=2, initializer_range=0.1, **shape, **ids, **own)
    )
    if name == "lora":
        lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
        model = get_peft_model(model, lora)
    if name == "gradient checkpointing":
        model.gradient_checkpointing_enable()
        assert model.is_gradient_checkpointing
    return model


def long_batch(settings: LossSettings = PRESETS["released"]) -> dict[str, torch.Tensor]:
    """Rows of random ids with twelve labels each, of which one, at a place of its own, is a score of five."""
    generator = torch.Generator().manual_seed(1)
    choice = Choice((), tuple(range(10, 15)), tuple((value,) for value in range(1, 6)))
    examples = []
    for n in range(9):
        prompt = torch.randint(20, 320, (5 + n,), generator=generator).tolist()
        completion = torch.randint(20, 320, (12,), generator=generator).tolist()
        position = ScorePosition(n % 12, "helpfulness", 1 + n % 5, choice, n % 5, 1)
        completion[position.index] = choice.token_ids[position.label]
        examples.append(Example(f"r{n}", tuple(prompt), tuple(completion), (position,)))
    return JudgeCollator(0, settings)(examples)


def trainable(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("loss", ["ce", "dist2", "raft", "ntl_was"])
@pytest.mark.parametrize("name", sorted(HEADS))
def test_every_kind_of_head_equals_full_logits(name: str, loss: str) -> None:
    settings = LossSettings(loss, alpha=0.5)
    model, batch = build_headed(name), long_batch(settings=settings)
    head = CompletionHead(model)
    # A tile takes 16 rows at this width, so 108 labels make seven.
    fused = judge_loss(model, batch, settings, head)
    assert head.is_fused
    found_map = head._map
    wanted_map = MAPS.get(name, LogitMap())
    assert found_map is not None and (found_map.cap is None) is (wanted_map.cap is None)
    assert found_map.scale == pytest.approx(wanted_map.scale, rel=1e-6)
    fused.backward()
    found = {key: p.grad.clone() for key, p in trainable(model).items() if p.grad is not None}
    model.zero_grad()
    # Logits of the whole sequence, as transformers makes them, and autograd through them.
    logits = model(**{key: batch[key] for key in ("input_ids", "attention_mask", "position_ids")}).logits.float()
    width = batch["labels"].shape[1]
    nll, scores = unreduced_losses(logits[:, -width - 1 : -1], batch, settings)
    full = nll.sum() / 108 + settings.alpha * scores.sum() / 108
    full.backward()
    torch.testing.assert_close(fused, full, rtol=1e-5, atol=1e-5)
    expected = {key: p.grad for key, p in trainable(model).items() if p.grad is not None}
    assert found.keys() == expected.keys()
    assert max(gradient.abs().max() for gradient in expected.values()) > 1e-2
    for key, gradient in expected.items():
        torch.testing.assert_close(
            found[key], gradient, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}"
        )


def test_weights_in_bfloat16_have_a_loss_in_float32() -> None:
    settings = PRESETS["released"]
    model, batch = build_headed("untied").bfloat16(), long_batch()
    terms = CompletionHead(model).loss(model, batch, settings)
    assert terms.loss.dtype == terms.nll.dtype == terms.scores.dtype == torch.float32
    terms.loss.backward()
    found = model.lm_head.weight.grad
    assert found is not None and found.dtype == torch.bfloat16
    # The same hidden states and weights in float32: what is left is the rounding of logits to bfloat16 once.
    with torch.no_grad():
        width = batch["labels"].shape[1]
        hidden = model.model(**{key: batch[key] for key in ("input_ids", "attention_mask", "position_ids")})[0]
    weight = model.lm_head.weight.detach().float().requires_grad_()
    logits = hidden[:, -width - 1 : -1].float() @ weight.t()
    nll, scores = unreduced_losses(logits, batch, settings)
    (nll.sum() + scores.sum()).backward()
    assert terms.loss.item() == pytest.approx((nll.sum() + scores.sum()).item(), rel=5e-3)
    error = (found.float() - weight.grad).norm() / weight.grad.norm()
    assert error < 2e-2  # bfloat16 keeps eight bits


@pytest.mark.parametrize("why", ["adapter", "shifted"])
def test_a_head_that_cannot_be_fused_says_so_and_trains_all_the_same(
    why: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings, batch = PRESETS["paper"], long_batch(settings=PRESETS["paper"])
    model = build_headed("untied")
    if why == "adapter":
        lora = LoraConfig(r=4, target_modules=["lm_head"], task_type="CAUSAL_LM", init_lora_weights=False)
        model = get_peft_model(model, lora)
    else:
        plain = model.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            outputs = plain(*args, **kwargs)
            outputs.logits = outputs.logits.clone()
            outputs.logits[..., 7] -= 1e4  # as models do that forbid some tokens
            return outputs

        model.forward = forward  # type: ignore[method-assign]
    head = CompletionHead(model)
    loss = judge_loss(model, batch, settings, head)
    assert not head.is_fused
    assert "not fused" in caplog.text
    nll, scores = unreduced_losses(completion_logits(model, batch), batch, settings)
    torch.testing.assert_close(loss, nll.sum() / 108 + settings.alpha * scores.sum() / 108)
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in trainable(model).values())


def test_gradients_are_handed_out_once(setting: tuple[PreTrainedModel, list[Example]]) -> None:
    model, examples = setting
    loss = judge_loss(model, JudgeCollator(0, PRESETS["paper"])(examples), PRESETS["paper"])
    (loss * 3).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        loss.backward()
    model.zero_grad()


def test_the_gradient_follows_what_the_loss_is_multiplied_with(
    setting: tuple[PreTrainedModel, list[Example]],
) -> None:
    model, examples = setting
    batch = JudgeCollator(0, PRESETS["paper"])(examples)
    once = gradients(model, judge_loss(model, batch, PRESETS["paper"]))
    thrice = gradients(model, judge_loss(model, batch, PRESETS["paper"]) * 3)
    for name, gradient in once.items():
        torch.testing.assert_close(thrice[name], gradient * 3)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x: x, LogitMap()),
        (lambda x: x * 0.0625, LogitMap(0.0625)),
        (lambda x: 30 * torch.tanh(x / 30), LogitMap(1.0, 30.0)),
        (lambda x: 15 * torch.tanh(x * 0.5 / 15), LogitMap(0.5, 15.0)),
        (lambda x: x + 1, None),
        (lambda x: x.clamp(-20, 20), None),
        (lambda x: x.square(), None),
        (lambda x: -x, LogitMap(-1.0)),
        (lambda x: x[..., :-1], None),
        (lambda x: torch.cat([x[..., :-1], x[..., -1:] - 1e4], -1), None),
    ],
)
@pytest.mark.parametrize("size", [301, 4096])
def test_what_a_model_does_to_its_logits_is_measured(change: Any, expected: LogitMap | None, size: int) -> None:
    ruler = make_ruler(size)
    found = measure_logit_map(ruler, change(ruler))
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found.scale == pytest.approx(expected.scale, rel=1e-5)
        assert found.cap == (None if expected.cap is None else pytest.approx(expected.cap, rel=1e-5))


def test_a_forward_pass_leaves_the_head_as_it_was(setting: tuple[PreTrainedModel, list[Example]]) -> None:
    model, examples = setting
    batch = JudgeCollator(0, PRESETS["paper"])(examples)
    before = completion_logits(model, batch)
    judge_loss(model, batch, PRESETS["paper"])
    assert "forward" not in vars(model.lm_head) and not model.lm_head._forward_pre_hooks
    torch.testing.assert_close(completion_logits(model, batch), before)


def full_logprobs(model: PreTrainedModel, prompt: Sequence[int], completion: Sequence[int]) -> torch.Tensor:
    """Log-probabilities over the vocabulary that predict each token of a completion, (C, V); one row, no padding."""
    ids = torch.tensor([[*prompt, *completion]])
    return torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1], dim=-1)


def test_the_pairwise_loss_compares_responses_to_one_conversation(
    setting: tuple[PreTrainedModel, list[Example]], tiny_tokenizer: Callable[..., PreTrainedTokenizerFast], way: str
) -> None:
    model, _ = setting
    rubric = Rubric("two", (Attribute("helpfulness", "Helpfulness"), Attribute("verbosity", "Verbosity")))
    encoder = JudgeEncoder(tiny_tokenizer(FAMILIES[model.config.model_type]), rubric)
    rated = [  # two of one conversation, one that differs in nothing from them but its conversation, three with a tie
        ("a", {"helpfulness": 5, "verbosity": 2}, ("helpfulness",)),
        ("a", {"helpfulness": 1, "verbosity": 2}, ("helpfulness",)),
        ("b", {"helpfulness": 1}, ()),
        ("c", {"verbosity": 4}, ()),
        ("c", {"verbosity": 1}, ()),
        ("c", {"verbosity": 4}, ()),
    ]
    examples = [
        encode_example(
            encoder,
            RatedResponse(str(n), "", (Message("user", turn),), f"words {n}", scores, derived=derived),
            fill=False,
        )
        for n, (turn, scores, derived) in enumerate(rated)
    ]
    items = GroupedExamples(examples)
    assert [[e.id for e in items[n]] for n in range(len(items))] == [["0", "1"], ["2"], ["3", "4", "5"]]
    settings = LossSettings("oprm", alpha=0.5, reduction="scores")
    batch = JudgeCollator(0, settings)([items[n] for n in range(3)])
    terms = head_of(model, way).loss(model, batch, settings, 1.0, 0.5)

    def at(n: int, key: str) -> torch.Tensor:
        example = examples[n]
        (position,) = [p for p in example.positions if p.key == key]
        found = full_logprobs(model, example.prompt_ids, example.completion_ids)
        return found[position.index, list(position.choice.token_ids)][None]

    pairs = [(0, 1, "helpfulness"), (3, 4, "verbosity"), (5, 4, "verbosity")]
    compared = sum((losses.oprm(at(a, key), at(b, key)).sum() for a, b, key in pairs), torch.zeros(()))
    tokens = torch.zeros((), dtype=torch.float64)
    for example in examples:
        logprobs = full_logprobs(model, example.prompt_ids, example.completion_ids)
        derived = {p.index for p in example.positions if p.key in example.derived}
        tokens = tokens - sum(logprobs[i, token] for i, token in enumerate(example.completion_ids) if i not in derived)
    expected = tokens + 0.5 * compared
    torch.testing.assert_close(terms.loss, expected, rtol=1e-6, atol=1e-6)
    again = gradients(model, head_of(model, way).loss(model, batch, settings, 1.0, 0.5).loss)
    for name, gradient in gradients(model, expected).items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-5, atol=1e-6)
    # Sums and counts belong to conversations, of which only pairs count as scores.
    assert row_counts(batch)[:, 1].tolist() == [1, 0, 2]
    assert row_sums(terms, batch)[:, 1].tolist()[1] == 0
    assert row_sums(terms, batch)[:, 0].sum().item() == pytest.approx(tokens.item(), rel=1e-6)


def test_single_examples_are_no_batch_of_a_pairwise_loss(setting: tuple[PreTrainedModel, list[Example]]) -> None:
    _, examples = setting
    with pytest.raises(ValueError, match="GroupedExamples"):
        JudgeCollator(0, LossSettings("oprm"))(examples)


def test_groups_without_a_difference_are_refused(setting: tuple[PreTrainedModel, list[Example]]) -> None:
    _, examples = setting
    with pytest.raises(DataError, match="nothing to compare"):
        GroupedExamples([replace(examples[0], group="x"), replace(examples[0], group="x")])


def test_whole_numbers_are_held_against_their_neighbours(
    setting: tuple[PreTrainedModel, list[Example]], tiny_tokenizer: Callable[..., PreTrainedTokenizerFast], way: str
) -> None:
    model, _ = setting
    encoder = JudgeEncoder(tiny_tokenizer(FAMILIES[model.config.model_type]), RUBRIC)
    examples = [
        encode_example(
            encoder, RatedResponse(str(n), "", (Message("user", "Hi"),), text, scores), neighbours=3, fill=False
        )
        for n, (text, scores, rubric) in enumerate(ROWS)
        if rubric is None
    ]
    settings = LossSettings("contrastive", tau=2.0, alpha=0.5, distance="absolute")
    batch = JudgeCollator(0, settings)(examples)
    terms = head_of(model, way).loss(model, batch, settings, 1.0, 0.5)
    expected, numbers = torch.zeros((), dtype=torch.float64), 0
    for example in examples:
        logprobs = full_logprobs(model, example.prompt_ids, example.completion_ids)
        expected = expected - sum(logprobs[i, token] for i, token in enumerate(example.completion_ids))
        scores = ROWS[int(example.id)][1]
        tokens = encoder.score_tokens(RUBRIC, tuple(k for k in RUBRIC.keys if k in scores))
        for item in tokens.attributes:
            key = item.attribute.key
            if max(map(len, item.closed.values())) == 1:
                continue  # nothing that dist2 would not see
            near = sorted(item.closed, key=lambda v, y=scores[key]: (abs(v - y), v))[:4]
            start = next(p.index for p in example.positions if p.key == key)
            found = []
            for score in near:
                path = item.closed[score]
                whole = (*example.completion_ids[:start], *path)
                found.append(
                    full_logprobs(model, example.prompt_ids, whole)[-len(path) :]
                    .gather(1, torch.tensor(path)[:, None])
                    .sum()
                )
            distances = torch.tensor([[float(abs(score - scores[key])) for score in near]])
            expected = expected + 0.5 * losses.contrastive(torch.stack(found)[None], distances, 2.0).sum()
            numbers += 1
    torch.testing.assert_close(terms.loss, expected, rtol=1e-6, atol=1e-6)
    again = gradients(model, head_of(model, way).loss(model, batch, settings, 1.0, 0.5).loss)
    for name, gradient in gradients(model, expected).items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-5, atol=1e-6)
    assert row_counts(batch)[:, 1].sum().item() == numbers >= 3
    assert row_counts(batch)[:, 0].sum().item() == sum(len(e.completion_ids) for e in examples)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("loss", ["ce", "dist2", "raft"])
def test_validation_makes_no_gradients(loss: str, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = LossSettings(loss)
    model, batch = build_headed("untied"), long_batch(settings)
    expected = CompletionHead(model).loss(model, batch, settings)
    monkeypatch.setattr(fused_head._Tiles, "accumulate", lambda *_: pytest.fail("a gradient was made"))
    with context():
        found = CompletionHead(model).loss(model, batch, settings)
    torch.testing.assert_close(found.loss, expected.loss.detach())
    torch.testing.assert_close(found.scores, expected.scores)


def test_tokens_that_cannot_be_said_have_no_mass_and_give_no_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = PRESETS["released"]
    model, batch = build_headed("with a bias"), long_batch()
    with torch.no_grad():
        model.lm_head.bias[:5] = -torch.inf
    hidden = model.model(**{key: batch[key] for key in ("input_ids", "attention_mask", "position_ids")})[0]
    monkeypatch.setattr(fused_head, "_LEAST_COLUMNS", 5)  # the first tile holds nothing else
    loss, *_ = fused_head.fused_loss(hidden, model.lm_head, LogitMap(), batch, settings, 1.0, 1.0)
    found = gradients(model, loss)
    nll, scores = unreduced_losses(completion_logits(model, batch), batch, settings)
    torch.testing.assert_close(loss, nll.sum() + scores.sum(), rtol=1e-5, atol=1e-5)
    expected = gradients(model, nll.sum() + scores.sum())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4)


def test_a_forward_of_its_own_that_the_head_had_comes_back(setting: tuple[PreTrainedModel, list[Example]]) -> None:
    model, examples = setting
    plain, calls = model.lm_head.forward, []
    model.lm_head.forward = lambda hidden: (calls.append(1), plain(hidden))[1]  # as accelerate's hooks put there
    try:
        judge_loss(model, JudgeCollator(0, PRESETS["paper"])(examples), PRESETS["paper"])
        assert not calls
        model(input_ids=torch.tensor([[1, 2, 3]]))
        assert calls == [1]
    finally:
        del model.lm_head.forward


def test_where_fusing_would_be_wrong_it_is_not_done(caplog: pytest.LogCaptureFixture) -> None:
    settings, batch = PRESETS["paper"], long_batch(PRESETS["paper"])

    class Wrapped(torch.nn.Module):  # as DistributedDataParallel(static_graph=True), which follows the outputs only
        static_graph = True

        def forward(self, **inputs: Any) -> Any:
            return model(**inputs)

    model = build_headed("untied")
    head = CompletionHead(model)
    head.loss(Wrapped(), batch, settings)
    assert not head.is_fused and "static_graph" in caplog.text
    half = build_headed("untied").half()
    head = CompletionHead(half)
    assert head.loss(half, batch, settings).loss.isfinite() and not head.is_fused
    assert "float16" in caplog.text


def test_labels_need_a_position_that_predicts_them(setting: tuple[PreTrainedModel, list[Example]]) -> None:
    _, examples = setting
    for packing in PACKINGS:
        with pytest.raises(ValueError, match="no position that predicts it"):
            JudgeCollator(0, PRESETS["paper"], packing)([examples[1], replace(examples[2], prompt_ids=())])
