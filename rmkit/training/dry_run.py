"""What a run would read, hold and take, said before a GPU is touched and without its weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from rmkit.errors import DataError, TokenizerError
from rmkit.training.activations import activation_terms
from rmkit.training.adapters import choose_targets
from rmkit.training.context import check_attention, keep_within_context
from rmkit.training.deepspeed_config import read_deepspeed_config
from rmkit.training.dry_run_options import DryRun
from rmkit.training.example_view import show_text, show_tokens
from rmkit.training.gpus import GPUS
from rmkit.training.layout import find_packing
from rmkit.training.memory import Term, ZeroLayout, read_layout, state_terms
from rmkit.training.model_shape import ModelShape, find_config, measure_shape
from rmkit.training.modes import check_anywhere
from rmkit.training.row_counts import CountedRows, EpochCounts, count_epoch, encode_rows
from rmkit.training.run import draw_sample, read_rated, read_rubric
from rmkit.training.settings import TrainingSettings
from rmkit.training.step_time import count_operations, step_seconds
from rmkit.training.token_estimate import CHARACTERS

SHAPES = "configs/shapes"
"""Where shape files lie beside `train/train.py`."""

_ROOM = 0.9  # of a GPU's memory; the rest is for its context, libraries and what is lost between blocks
_DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class _Precision:
    """Bytes of the training dtype, and its name."""

    name: str
    itemsize: int


def describe_run(settings: TrainingSettings, dry_run: DryRun, shapes: Path, colour: bool = False) -> str:
    """The report of a dry run, as text.

    Args:
        settings: Of the run.
        dry_run: What it was asked beside them.
        shapes: Folder of shape files.
        colour: Whether the reader is a terminal.

    Raises:
        DataError: If the data folder is not complete, its rows can't be trained on, or settings don't go together.
        JudgeError: If the model's shape is nowhere.
        TokenizerError: If the tokenizer can't be read or can't serve.
    """
    folder, args = Path(settings.data.data), settings.training
    rubric = read_rubric(folder)
    rated = {name: read_rated(folder, name) for name in ("train", "validation")}
    if not rated["train"]:
        raise DataError(f"{folder} has no training rows")
    deepspeed = read_deepspeed_config(args.deepspeed) if args.deepspeed else None
    check_anywhere(settings.model, deepspeed)
    draw_sample(settings, rubric, rated)  # refuses what does not go with the rows
    shape = _find_shape(settings, shapes)
    check_attention(settings.model, shape.config)
    keep_within_context(settings.data, shape.config)
    tokenizer, tokens_from = _find_tokenizer(settings, dry_run)
    rows = encode_rows(rated["train"], rubric, tokenizer, settings)
    data, attention = settings.data, settings.model.attn_implementation
    packing, obstacle = find_packing(data.packing, shape.config, attention, data.max_length)
    counts = count_epoch(rows, settings, packing, dry_run.ranks)
    precision = _find_precision(settings, deepspeed, shape)
    layout = read_layout(
        deepspeed, shape, dry_run.ranks, precision.itemsize, args.gradient_accumulation_steps, str(args.optim)
    )
    terms = (
        *state_terms(shape, layout),
        *activation_terms(shape, layout, counts.largest, args.gradient_checkpointing),
    )
    if rows.encoder is not None:
        view = show_tokens(rows.examples[0], rows.encoder, colour)
    else:
        shown = {example.id for example in rows.examples[:1]}
        view = show_text(next(row for row in rated["train"] if row.id in shown), rubric, colour)
    lines = [
        "Dry run: no weights were loaded and no GPU was used. Memory and time are estimates.",
        "",
        *_describe_setup(settings, dry_run, shape, layout, precision),
        "",
        *_describe_rows(settings, rows, len(rated["validation"]), counts, packing, obstacle, tokens_from),
        "",
        *_describe_memory(settings, dry_run, terms, counts),
        "",
        *_describe_time(settings, dry_run, shape, rows, counts),
        "",
        "One row:",
        view,
    ]
    return "\n".join(lines)


def _find_shape(settings: TrainingSettings, shapes: Path) -> ModelShape:
    model = settings.model
    config, source = find_config(model.model, shapes, model.revision)
    targets = choose_targets(model.lora_target_modules)
    return measure_shape(config, source, model.lora_r if model.lora else 0, targets, model.load_in_4bit)


def _find_tokenizer(settings: TrainingSettings, dry_run: DryRun) -> tuple[Any, str]:
    """The tokenizer, or None, and how tokens are counted, in words."""
    given = dry_run.tokenizer
    model = Path(settings.model.model)
    if given is None and model.is_dir():
        given = str(model)
    if given is not None:
        try:
            tokenizer = AutoTokenizer.from_pretrained(given, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise TokenizerError(f"the tokenizer in {given} can't be read: {error}") from error
        return tokenizer, f"counted with the tokenizer in {given}"
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            settings.model.model, revision=settings.model.revision, local_files_only=True, trust_remote_code=False
        )
        return tokenizer, "counted with the model's tokenizer from the hub's local cache"
    except (OSError, ValueError):  # not there
        return None, f"ESTIMATED from characters, {CHARACTERS} to a token; --tokenizer DIR counts them"


def _find_precision(settings: TrainingSettings, deepspeed: dict[str, Any] | None, shape: ModelShape) -> _Precision:
    """What weights, gradients and activations are held in: DeepSpeed casts them, else they stay as they are loaded."""
    args = settings.training
    if deepspeed is not None:
        for name, held, asked in (("bf16", "bfloat16", args.bf16), ("fp16", "float16", args.fp16)):
            enabled = (deepspeed.get(name) or {}).get("enabled", False)
            if asked if enabled == "auto" else enabled:
                return _Precision(held, 2)
        return _Precision("float32", 4)
    automatic = torch.float32 if args.use_cpu else shape.dtype
    dtype = _DTYPES.get(settings.model.dtype, automatic)
    return _Precision(str(dtype).removeprefix("torch."), dtype.itemsize)


def _describe_setup(
    settings: TrainingSettings, dry_run: DryRun, shape: ModelShape, layout: ZeroLayout, precision: _Precision
) -> Iterator[str]:
    model, args = settings.model, settings.training
    trained = "all trained" if shape.trained == shape.total else f"{_millions(shape.trained)} of them trained"
    yield f"model     {model.model}: {_millions(shape.total)} parameters, {trained}; sizes from {shape.source}"
    stage = f"ZeRO-{layout.stage}" if layout.stage else "no ZeRO"
    offloaded = [("optimizer", layout.offloads_optimizer), ("parameters", layout.offloads_parameters)]
    words = [stage, precision.name, *(f"{name} on the CPU" for name, is_so in offloaded if is_so)]
    words += [f"LoRA of rank {shape.lora_rank}"] if shape.lora_rank else []
    words += ["base in 4 bits"] if model.load_in_4bit else []
    words += ["gradient checkpointing"] if args.gradient_checkpointing else []
    gpu = GPUS[dry_run.gpu]
    yield f"training  {', '.join(words)}"
    yield f"hardware  {dry_run.ranks} x {gpu.name} (number: {dry_run.ranks_from})"


def _describe_rows(
    settings: TrainingSettings,
    rows: CountedRows,
    validation: int,
    counts: EpochCounts,
    packing: str,
    obstacle: str | None,
    tokens_from: str,
) -> Iterator[str]:
    args, examples = settings.training, rows.examples
    prompt = sum(len(example.prompt_ids) for example in examples)
    completion = sum(len(example.completion_ids) for example in examples)
    longest = max(examples, key=lambda example: len(example.token_ids))
    yield f"rows      {len(examples):,} training rows, {validation:,} validation rows from {settings.data.data}"
    yield (
        f"          {rows.truncated:,} lose their oldest turns, {rows.too_long:,} left out as longer than "
        f"max_length={settings.data.max_length}"
    )
    yield f"          longest: {len(longest.token_ids):,} tokens ({longest.id})"
    yield f"tokens    {tokens_from}"
    scores = f"{completion:,} of score sequences ({rows.supervised:,} supervised)"
    yield f"          {prompt + completion:,} in an epoch: {prompt:,} of prompts, {scores}"
    ratio = counts.computed / (prompt + completion)
    change = f"{1 - ratio:.1%} fewer" if ratio < 1 else f"{ratio - 1:.1%} more"
    yield f"          {counts.computed:,} computed, {change}, with packing={packing}" + _why(obstacle)
    steps = counts.steps * args.num_train_epochs
    total = args.max_steps if args.max_steps > 0 else -int(-steps // 1)
    yield (
        f"steps     {total:,} in all; {counts.steps:,} in an epoch of {counts.batches:,} micro-batches, "
        f"{len(examples) / counts.steps:,.1f} rows a step"
    )


def _why(obstacle: str | None) -> str:
    return "" if obstacle is None else f": {obstacle}"


def _describe_memory(
    settings: TrainingSettings, dry_run: DryRun, terms: tuple[Term, ...], counts: EpochCounts
) -> Iterator[str]:
    largest = counts.largest
    yield (
        f"memory    of each GPU in GB (1e9 bytes), for the first epoch's largest micro-batch: {largest.tokens:,} "
        f"tokens computed, {largest.labels:,} of score sequences"
    )
    on_cpu = any(term.cpu for term in terms)
    yield f"          {'':32} {'backward':>9} {'step':>9}" + (f" {'CPU':>9}" if on_cpu else "")
    total = Term("total", *(sum(getattr(t, name) for t in terms) for name in ("backward", "step", "cpu")))
    for term in (*terms, total):
        sizes = [term.backward, term.step, *([term.cpu] if on_cpu else [])]
        yield f"          {term.name:32} " + " ".join(f"{size / 1e9:9.2f}" for size in sizes)
    if settings.model.attn_implementation == "eager":
        yield "          not counted: attn_implementation=eager keeps the scores of all pairs of tokens"
    if settings.training.use_cpu:
        return
    gpu, peak = GPUS[dry_run.gpu], max(total.backward, total.step)
    verdict = "fits" if peak <= _ROOM * gpu.memory else "is tight" if peak <= gpu.memory else "does NOT fit"
    yield f"          {verdict}: {peak / 1e9:.1f} of {gpu.memory / 1e9:.0f} GB, of which a tenth should stay free"
    if on_cpu:
        yield f"          all ranks of a machine with 8 GPUs: {8 * total.cpu / 1e9:.0f} GB of CPU memory"


def _describe_time(
    settings: TrainingSettings, dry_run: DryRun, shape: ModelShape, rows: CountedRows, counts: EpochCounts
) -> Iterator[str]:
    if settings.training.use_cpu:
        yield "time      no estimate for a CPU"
        return
    labels = sum(len(example.completion_ids) for example in rows.examples)
    operations = count_operations(
        shape, counts.computed, counts.pairs, labels, settings.training.gradient_checkpointing
    )
    gpu = GPUS[dry_run.gpu]
    seconds = step_seconds(operations, dry_run.ranks, gpu, dry_run.peak_share)
    epoch = f"{seconds:,.0f} s" if seconds < 600 else f"{seconds / 3600:,.1f} h"
    yield (
        f"time      {seconds / counts.steps:.2f} s a step, {epoch} an epoch, IF training reaches "
        f"{dry_run.peak_share:.0%} of {gpu.rate / 1e12:,.0f} TFLOP/s"
    )
    yield (
        f"          an assumption, not a measurement (--peak_share); rate: dense bfloat16, {gpu.source}; "
        "without communication, offload and validation"
    )


def _millions(count: int) -> str:
    return f"{count / 1e9:,.2f} billion" if count >= 1e9 else f"{count / 1e6:,.1f} million"
