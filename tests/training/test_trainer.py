from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rmkit.judge_encoder import JudgeEncoder
from rmkit.losses import PRESETS, LossSettings
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Message, RatedResponse
from rmkit.training.collation import JudgeCollator
from rmkit.training.examples import ExampleDataset
from rmkit.training.settings import JudgeTrainingArguments
from rmkit.training.trainer import JudgeTrainer

RUBRIC = Rubric(
    "mixed",
    (
        Attribute("helpfulness", "Helpfulness"),
        Attribute("overall", "Overall", minimum=0, maximum=20),
        Attribute("verbosity", "Verbosity", minimum=1, maximum=10),
    ),
)
# Uneven on purpose: a split into batches that weighed each batch alike would show.
SCORES: list[dict[str, int]] = [
    {"helpfulness": 4, "overall": 15, "verbosity": 10},
    {"helpfulness": 1},
    {"overall": 1},
    {"helpfulness": 5, "overall": 7, "verbosity": 1},
    {"overall": 20, "verbosity": 3},
    {"helpfulness": 2},
    {"helpfulness": 3, "overall": 2},
    {"verbosity": 9},
    {"helpfulness": 5, "overall": 0, "verbosity": 5},
    {"helpfulness": 2, "overall": 11},
    {"verbosity": 10},
    {"helpfulness": 1, "overall": 19, "verbosity": 2},
]


@pytest.fixture(scope="module")
def encoder(tiny_tokenizer: Callable[..., Any]) -> JudgeEncoder:
    return JudgeEncoder(tiny_tokenizer("split_digits"), RUBRIC)


@pytest.fixture(scope="module")
def model(tiny: Any, encoder: JudgeEncoder) -> nn.Module:
    return tiny.build_model(len(encoder.prompts.tokenizer), family="qwen3", layers=1)


@pytest.fixture(scope="module")
def dataset(encoder: JudgeEncoder) -> ExampleDataset:
    rows = [
        RatedResponse(str(n), "", (Message("user", "write a list " * (1 + n % 4)),), "words " * (1 + n % 3), scores)
        for n, scores in enumerate(SCORES)
    ]
    return ExampleDataset(encoder, rows, fill=False)


@pytest.fixture
def build(model: nn.Module, dataset: ExampleDataset, tmp_path: Path) -> Callable[..., JudgeTrainer]:
    """`build(settings, **arguments)`: a trainer of a copy of the model, in row order, without clipping."""

    def make(settings: LossSettings, **arguments: Any) -> JudgeTrainer:
        args = JudgeTrainingArguments(
            output_dir=str(tmp_path),
            use_cpu=True,
            train_sampling_strategy="sequential",
            max_grad_norm=0.0,
            learning_rate=0.01,
            save_strategy="no",
            eval_strategy="no",
            load_best_model_at_end=False,
            report_to=[],
            **{"max_steps": 3, "logging_steps": 1, **arguments},
        )
        return JudgeTrainer(
            model=copy.deepcopy(model),
            args=args,
            train_dataset=dataset,
            eval_dataset=dataset,
            data_collator=JudgeCollator(0, settings),
            loss_settings=settings,
        )

    return make


def losses(trainer: JudgeTrainer, name: str = "loss") -> list[float]:
    return [line[name] for line in trainer.state.log_history if "loss" in line]


@pytest.mark.parametrize("preset", ["paper", "released"])
@pytest.mark.parametrize(("batch", "accumulation"), [(1, 8), (2, 4)])
def test_accumulation_changes_nothing(build: Callable[..., Any], preset: str, batch: int, accumulation: int) -> None:
    # SGD, since Adam turns a gradient's rounding error near 0 into a whole step.
    whole = build(PRESETS[preset], per_device_train_batch_size=8, optim="sgd")
    split = build(
        PRESETS[preset], per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, optim="sgd"
    )
    whole.train()
    split.train()
    assert len(losses(whole)) == 3
    for name in ("loss", "loss_tokens", "loss_scores"):
        assert losses(split, name) == pytest.approx(losses(whole, name), abs=1e-5)
    expected = dict(whole.model.named_parameters())
    for name, parameter in split.model.named_parameters():
        assert torch.allclose(parameter, expected[name], atol=1e-5), name


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_the_loss_is_the_formula(build: Callable[..., Any], model: nn.Module, encoder: Any, preset: str) -> None:
    trainer = build(PRESETS[preset], per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=1)
    trainer.train()
    expected = formula(model, encoder, trainer.train_dataset.examples[:4], SCORES[:4], PRESETS[preset])
    assert losses(trainer) == pytest.approx([expected], rel=1e-5)
    parts = losses(trainer, "loss_tokens")[0] + PRESETS[preset].alpha * losses(trainer, "loss_scores")[0]
    assert losses(trainer)[0] == pytest.approx(parts, rel=1e-6)


@pytest.mark.parametrize("preset", ["paper", "released"])
@pytest.mark.parametrize("batch", [1, 5, 12])
def test_the_validation_loss_is_the_formula(
    build: Callable[..., Any], model: nn.Module, encoder: Any, dataset: ExampleDataset, preset: str, batch: int
) -> None:
    trainer = build(PRESETS[preset], per_device_eval_batch_size=batch)
    expected = formula(model, encoder, dataset.examples, SCORES, PRESETS[preset])
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_alone(build: Callable[..., Any], model: nn.Module, encoder: Any) -> None:
    settings = LossSettings(loss="ce")
    trainer = build(settings, per_device_train_batch_size=4, max_steps=1)
    trainer.train()
    examples = trainer.train_dataset.examples[:4]
    assert losses(trainer) == pytest.approx([formula(model, encoder, examples, SCORES[:4], settings)], rel=1e-5)
    assert losses(trainer, "loss_scores") == [0.0]


def test_log_lines_average_over_their_steps(build: Callable[..., Any]) -> None:
    each = build(PRESETS["paper"], per_device_train_batch_size=2, max_steps=4)
    pairs = build(PRESETS["paper"], per_device_train_batch_size=2, max_steps=4, logging_steps=2)
    each.train()
    pairs.train()
    for name in ("loss", "loss_tokens", "loss_scores"):
        first, second, third, fourth = losses(each, name)
        assert losses(pairs, name) == pytest.approx([(first + second) / 2, (third + fourth) / 2], rel=1e-5)


def test_several_gpus_in_one_process_are_refused(build: Callable[..., Any]) -> None:
    trainer = build(PRESETS["paper"])
    trainer.args._n_gpu = 2
    with pytest.raises(ValueError, match=r"one process sees 2 GPUs; launch with torchrun --nproc_per_node 2"):
        JudgeTrainer(model=trainer.model, args=trainer.args, loss_settings=PRESETS["paper"])


def formula(
    model: nn.Module, encoder: JudgeEncoder, examples: list[Any], scores: list[dict[str, int]], settings: LossSettings
) -> float:
    """The loss of some examples as one batch, from the definition, in float64, one example at a time.

    CE / tokens + alpha * sum(w * KL(p_d || p)) / D, where p_d(v) ~ exp(-d(v, y) / tau) over whole scores, and a
    digit's share is the sum over the scores that start with what stands there.
    """
    reference = copy.deepcopy(model).double()
    tokenizer = encoder.prompts.tokenizer
    token_sum = score_sum = weight_sum = tokens = 0.0
    for example, ratings in zip(examples, scores, strict=True):
        ids = [*example.prompt_ids, *example.completion_ids]
        with torch.no_grad():
            logprobs = reference(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        start = len(example.prompt_ids)
        token_sum -= sum(float(logprobs[n - 1, ids[n]]) for n in range(start, len(ids)))
        tokens += len(ids) - start
        pieces = tokenizer.convert_ids_to_tokens(ids)
        at = start
        for key in (key for key in RUBRIC.keys if key in ratings):
            at = next(n for n in range(at, len(ids)) if pieces[n].isdigit())
            attribute, label = RUBRIC[key], ratings[key]
            target = {v: math.exp(-((v - label) ** 2) / settings.tau) for v in attribute.values}
            text = str(label)
            for depth in range(len(text) + 1):
                alike = {v: mass for v, mass in target.items() if str(v).startswith(text[:depth])}
                follow: dict[int, float] = {}
                for value, mass in alike.items():
                    piece = str(value)[depth : depth + 1]
                    token = tokenizer.convert_tokens_to_ids(piece) if piece else ids[at + len(text)]
                    follow[token] = follow.get(token, 0.0) + mass
                if len(follow) < 2:
                    break
                seen = logprobs[at + depth - 1, list(follow)]
                if settings.normalize == "scale":
                    seen = seen.log_softmax(-1)
                wanted = torch.tensor(list(follow.values()), dtype=torch.float64)
                wanted = wanted / wanted.sum()
                weight = max(len(text) - depth, 1) if settings.place_weights else 1  # 1 for the last digit
                score_sum += weight * float((wanted * (wanted.log() - seen)).sum())
                weight_sum += weight
            at += len(text)
    if settings.loss == "ce":
        return token_sum / tokens
    return token_sum / tokens + settings.alpha * score_sum / (tokens if settings.reduction == "tokens" else weight_sum)


def test_an_evaluation_without_the_figure_is_not_the_best(build: Callable[..., Any]) -> None:
    trainer = build(PRESETS["paper"], metric_for_best_model="spearman")
    trainer.validate = lambda: {"spearman": 0.5}
    metrics = trainer.evaluate()
    assert metrics["eval_spearman"] == 0.5
    assert trainer._determine_best_metric(metrics, None)
    trainer.validate = lambda: {"mae": 0.5}  # as where all expected scores are the same
    assert not trainer._determine_best_metric(trainer.evaluate(), None)
    assert trainer.state.best_metric == 0.5


def test_an_evaluation_whose_loss_is_no_number_is_not_the_best(build: Callable[..., Any]) -> None:
    trainer = build(PRESETS["paper"], metric_for_best_model="eval_loss")
    assert not trainer._determine_best_metric({"eval_loss": math.nan}, None)
    assert trainer._determine_best_metric({"eval_loss": 2.0}, None)  # with NaN for the best, none would ever be
    assert trainer.state.best_metric == 2.0
