"""One run: a small judge from random weights, trained with one loss on generated rows, and tested on held-out ones."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import torch
from design import LOSSES, Preset, Recipe, Run
from transformers import PreTrainedTokenizerFast, get_cosine_schedule_with_warmup

from rmkit.data.graded import SOURCE, GradedSettings, generate_pairs, generate_rows
from rmkit.engines.transformers import TransformersEngine
from rmkit.evaluation.agreement import measure_agreement, quadratic_kappa
from rmkit.judge import Judge
from rmkit.judge_encoder import JudgeEncoder
from rmkit.losses import LossSettings
from rmkit.rubric import load_rubric
from rmkit.schema import Judgment, PreferencePair, RatedResponse
from rmkit.training.batches import ConversationOrder
from rmkit.training.collation import JudgeCollator
from rmkit.training.examples import Example, ExampleDataset
from rmkit.training.figures import pair_accuracies, preferred_comparisons
from rmkit.training.head import CompletionHead, judge_loss
from rmkit.training.tiny_model import build_tiny_model, train_tokenizer
from rmkit.tree_attention import use_tree_attention

WARM_UP = 0.05
MAX_LENGTH = 1024
TEST_SEEDS = 1000
"""Seed of the test rows of seed s: s + TEST_SEEDS. Their instructions are drawn like those of the training rows."""
TOKENIZER_TEXTS = 2000


def do_run(run: Run, preset: Preset, device: str) -> dict[str, Any]:
    """Train and test; returns a row of `runs.jsonl`.

    A training that diverges gives an `error` and no figures. Everything random comes from the seed, so the runs of two
    losses with one seed differ by the loss alone; rows, and whose scores are off, are shared by the losses too.
    """
    torch.set_num_threads(1)
    started = time.process_time()
    recipe = preset.recipe
    examples = encode_rows(recipe, run.noise, run.seed, max(preset.epochs))[: run.rows]
    try:
        judge, loss = train(examples, LOSSES[run.loss], preset.epochs[run.rows], run.seed, recipe, device)
    except FloatingPointError as error:
        return {
            **asdict(run),
            "error": str(error),
            "cpu_seconds": round(time.process_time() - started, 1),
            "figures": {},
        }
    figures = test(judge, recipe, run.noise, run.seed)
    seconds = round(time.process_time() - started, 1)
    return {**asdict(run), "error": None, "cpu_seconds": seconds, "figures": {**figures, "last_loss": loss}}


def train(
    examples: Sequence[Example], settings: LossSettings, epochs: int, seed: int, recipe: Recipe, device: str
) -> tuple[Judge, float]:
    """A judge, and the mean loss of its last twentieth of steps.

    Raises:
        FloatingPointError: If a loss is not finite.
    """
    encoder = make_encoder(recipe)
    tokenizer = make_tokenizer(recipe)
    model = build_tiny_model(tokenizer, recipe.layers, recipe.width, MAX_LENGTH, seed)
    torch.nn.Module.to(model, device)
    use_tree_attention(model)  # the rubric once a batch, a conversation once for both responses
    collate = JudgeCollator(encoder.prompts.end_of_turn_id, settings, "shared")
    head = CompletionHead(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)
    order = ConversationOrder([example.group for example in examples], seed)
    steps = epochs * -(-len(examples) // recipe.batch)
    schedule = get_cosine_schedule_with_warmup(optimizer, int(WARM_UP * steps), steps)
    losses: list[float] = []
    for epoch in range(epochs):
        order.set_epoch(epoch)
        indices = iter(order)
        while chosen := list(islice(indices, recipe.batch)):
            batch = collate([examples[index] for index in chosen])
            placed = {name: part.to(device) if torch.is_tensor(part) else part for name, part in batch.items()}
            loss = judge_loss(model, placed, settings, head)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"step {len(losses)}: the loss is {float(loss)}")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
    engine = TransformersEngine(model.eval(), max_length=MAX_LENGTH)
    return Judge(encoder, engine), float(np.mean(losses[-max(1, steps // 20) :]))


def test(judge: Judge, recipe: Recipe, noise: float, seed: int) -> dict[str, float]:
    """How well a judge does on held-out pairs and rows.

    Returns:
        `pair_accuracy` and `pair_accuracy_mode`, by true aggregates. Against true scores, a mean over attributes each:
        `mae`, `mae_mode`, `qwk`, `qwk_mode` (`qwk` of the mean rounded to a score) and `spearman` of the mean;
        `calibration_true`, and `calibration` against scores that are off as often as those of the training.
        `mae_KEY` for each attribute. `outside_mass`.
    """
    pairs, rows = test_set(recipe, noise, seed)
    texts = [
        *((row.conversation, row.response) for row in rows),
        *((pair.conversation, text) for pair in pairs for text in pair.chosen + pair.rejected),
    ]
    judgments = judge.score([conversation for conversation, _ in texts], [text for _, text in texts])
    rubric = judge.encoder.rubric
    comparisons = list(preferred_comparisons(rubric, pairs, len(rows)))
    figures = measure_scores(judgments[: len(rows)], rows, rubric.keys)
    return {**figures, **pair_accuracies(comparisons, judgments)}


def measure_scores(
    judgments: Sequence[Judgment], rows: Sequence[RatedResponse], keys: Sequence[str]
) -> dict[str, float]:
    """The figures of `test` that need no pairs."""
    figures: dict[str, float] = {}
    by_name: dict[str, list[float]] = defaultdict(list)
    for key in keys:
        judged = [judgment.attributes[key] for judgment in judgments]
        true = [row.metadata["true_scores"][key] for row in rows]
        against = measure_agreement(judged, true)
        rounded = [int(np.floor(distribution.mean + 0.5)) for distribution in judged]
        found = {
            "mae": against.mae,
            "mae_mode": float(np.abs(np.subtract([distribution.mode for distribution in judged], true)).mean()),
            "qwk": quadratic_kappa(rounded, true),
            "qwk_mode": against.qwk,
            "spearman": against.spearman,
            "calibration_true": against.calibration_error,
            "calibration": measure_agreement(judged, [row.scores[key] for row in rows]).calibration_error,
            "outside_mass": float(np.mean([distribution.outside_mass for distribution in judged])),
        }
        for name, value in found.items():
            by_name[name].append(value if value is not None else float("nan"))
        figures[f"mae_{key}"] = against.mae
    return {**{name: float(np.mean(values)) for name, values in by_name.items()}, **figures}


@lru_cache(maxsize=1)
def make_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """One tokenizer for all runs, from texts of seed 0."""
    settings = GradedSettings(TOKENIZER_TEXTS, 0, 0, recipe.difficulty)
    return train_tokenizer(
        (row.conversation[0].content + row.response for row in generate_rows(settings)), recipe.vocab_size
    )


@lru_cache(maxsize=1)
def make_encoder(recipe: Recipe) -> JudgeEncoder:
    """The encoder of its tokenizer and of the rubric `graded`."""
    return JudgeEncoder(make_tokenizer(recipe), load_rubric(SOURCE))


@lru_cache(maxsize=2)
def encode_rows(recipe: Recipe, noise: float, seed: int, rows: int) -> list[Example]:
    """Training examples; those of fewer rows are the first of them."""
    generated = list(generate_rows(GradedSettings(rows, 0, seed, recipe.difficulty, noise)))
    return ExampleDataset(make_encoder(recipe), generated, MAX_LENGTH, False, "encode").examples


@lru_cache(maxsize=2)
def test_set(recipe: Recipe, noise: float, seed: int) -> tuple[list[PreferencePair], list[RatedResponse]]:
    """Pairs and rows to test on, of no seed that is trained on."""
    settings = GradedSettings(recipe.test_rows, recipe.test_pairs, seed + TEST_SEEDS, recipe.difficulty, noise)
    return list(generate_pairs(settings)), list(generate_rows(settings))
