"""One training run, from settings to a judge folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import distributed, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, set_seed
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from rmkit.engines import Engine
from rmkit.engines.transformers import TransformersEngine
from rmkit.errors import DataError, JudgeError
from rmkit.judge import Judge
from rmkit.judge_encoder import JudgeEncoder
from rmkit.losses import LossSettings
from rmkit.manifest import sha256_file
from rmkit.preparation.folder import MANIFEST_FILE, read_manifest
from rmkit.preparation.row_rendering import ROW_NAMES
from rmkit.row_files import find_rows, read_rows
from rmkit.rubric import Rubric
from rmkit.schema import RatedResponse
from rmkit.training.adapters import add_adapters
from rmkit.training.batches import ConversationOrder, TokenBatches
from rmkit.training.collation import JudgeCollator
from rmkit.training.context import check_attention, keep_within_context, read_config
from rmkit.training.deepspeed_config import read_deepspeed_config
from rmkit.training.disk import full_disk_explained
from rmkit.training.early_stop import build_early_stop
from rmkit.training.examples import (
    Example,
    ExampleDataset,
    GroupedExamples,
    check_weights,
    count_comparisons,
    part_rows,
)
from rmkit.training.export import save_judge, save_weights
from rmkit.training.export_check import choose_bound, publish_export, score_rows, stage_export
from rmkit.training.hub import open_repo, push_judge
from rmkit.training.layout import find_packing
from rmkit.training.model_card import write_card
from rmkit.training.modes import check_mode, quantization
from rmkit.training.reporting import end_reports, place_events
from rmkit.training.run_record import take_up, write_run, write_settings
from rmkit.training.settings import DataArguments, JudgeTrainingArguments, ModelArguments, TrainingSettings
from rmkit.training.trainer import JudgeTrainer
from rmkit.training.validation import SynchronisedEngine, Validation, unwrap
from rmkit.training.validation_sample import ValidationSample, draw_validation
from rmkit.tree_attention import use_tree_attention

logger = logging.getLogger(__name__)

Items = ExampleDataset | GroupedExamples | TokenBatches
_CHECKED_ROWS = 4


def train_judge(settings: TrainingSettings) -> dict[str, Any]:
    """Train a judge and write its folder; a run that was killed resumes from its last checkpoint.

    Args:
        settings: From `rmkit.training.settings.read_settings`.

    Returns:
        Figures of the run: steps, rows, the last validation metrics. For a folder that is complete already,
        just its path under `complete`. Under `pushed`, where on the hub it went.

    Raises:
        DataError: If settings don't go together, the data folder is not complete, no row is left, the folder was
            started with other settings, the metric that chooses the best checkpoint is none that the validation rows
            give, or an attribute is weighed that no rubric has.
        JudgeError: If the model can't be loaded, or the exported judge scores otherwise than the model in memory.
        TokenizerError: If the tokenizer can't tell the rubric's scores apart.
        TrainingError: If the loss is no number or has diverged, or the disk is full.
        TrainingStopped: After SIGTERM, when a checkpoint is saved.
    """
    with full_disk_explained(Path(str(settings.training.output_dir))):
        return _train(settings)


def _train(settings: TrainingSettings) -> dict[str, Any]:
    started = time.time()
    args, folder = settings.training, Path(str(settings.training.output_dir))
    data_folder = Path(settings.data.data)
    rubric = read_rubric(data_folder)
    record = {
        "options": settings.given,
        "loss": {**vars(settings.loss), **asdict(settings.loss.settings())},
        "data_manifest_sha256": sha256_file(data_folder / MANIFEST_FILE),
        "deepspeed_config": read_deepspeed_config(args.deepspeed) if args.deepspeed else None,
        "world_size": args.world_size,
    }
    check_mode(settings.model, args, record["deepspeed_config"])
    is_complete, checkpoint = take_up(folder, record)
    if is_complete:
        return {"complete": str(folder), "pushed": _push(folder, open_repo(args), args)}
    tokenizer = _load_tokenizer(settings.model)
    config = read_config(settings.model)
    check_attention(settings.model, config)
    keep_within_context(settings.data, config)
    encoder = JudgeEncoder(tokenizer, rubric)
    rows = {name: read_rated(data_folder, name) for name in ("train", "validation")}
    max_length = settings.data.max_length
    loss = settings.loss.settings()
    datasets = _encode_rows(encoder, rows, settings.data, loss)
    sample = draw_sample(settings, rubric, rows)
    repo = open_repo(args)
    model = load_trainable(settings.model, args)
    packing = choose_packing(settings.data.packing, model, settings.model.attn_implementation, max_length)
    judge = _validation_judge(model, encoder, max_length, settings.data)
    validation = Validation(judge, sample, shard=not is_deepspeed_zero3_enabled())
    early_stop = build_early_stop(args.early_stopping_patience, args.early_stopping_threshold)
    train_items = batch_items(datasets["train"], loss, settings, packing)
    comparisons = _count_comparisons(train_items, loss)
    trainer = JudgeTrainer(
        model=model,
        args=args,
        train_dataset=train_items,
        order=order_items(train_items, settings),
        eval_dataset=_group(datasets.get("validation"), loss, required=loss.preference_loss is None),
        processing_class=tokenizer,
        data_collator=JudgeCollator(_pad_id(tokenizer, encoder), loss, packing),
        loss_settings=loss,
        validate=validation if sample.rows else None,
        callbacks=early_stop,
    )
    place_events(trainer, folder)
    if trainer.is_world_process_zero():
        write_settings(folder, record)
    trainer.train(resume_from_checkpoint=checkpoint)
    figures: dict[str, Any] = {
        "steps": trainer.state.global_step,
        "rows": {name: len(part) for name, part in datasets.items()},
        "skipped": {name: dict(part.skipped) for name, part in datasets.items()},
        "truncated": {name: part.truncated for name, part in datasets.items()},
        "packing": packing,
        "tokens": trainer.token_counts,
        **({"comparisons": comparisons} if comparisons else {}),
        "resumed_from": checkpoint and Path(checkpoint).name,
        "stopped_early": any(callback.has_stopped for callback in early_stop),
        "validation": sample.to_dict(),
        "best_checkpoint": Path(trainer.state.best_model_checkpoint or "").name or None,
        "log": trainer.state.log_history,
    }
    end_reports(trainer)
    metrics = trainer.evaluate() if "validation" in datasets else {}
    timings = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    figures["metrics"] = {
        name: value for name, value in metrics.items() if name.startswith("eval_") and name not in timings
    }
    figures["reliability"] = {name: found.to_dict() for name, found in validation.reliability.items()}
    checked = _choose_rows(rows, datasets)
    expected = score_rows(judge, checked)
    staging = stage_export(folder)
    save_weights(trainer, settings.model, staging)
    if trainer.is_world_process_zero():
        resolved = {**vars(settings.data), **vars(settings.model), **args.to_dict()}
        write_run(staging, {**record, "resolved": resolved}, figures, started)
        write_card(staging, settings, rubric, figures)
        save_judge(
            staging,
            encoder,
            tokenizer,
            max_length,
            loss,
            settings.model.model,
            record["data_manifest_sha256"],
            settings.data.mode,
        )
    publish_export(staging, folder, checked, expected, choose_bound(model, args.bf16 or args.fp16))
    return {**figures, "pushed": _push(folder, repo, args)}


def _encode_rows(
    encoder: JudgeEncoder, rows: Mapping[str, list[RatedResponse]], data: DataArguments, loss: LossSettings
) -> dict[str, ExampleDataset]:
    """The examples of each part that has rows.

    Raises:
        DataError: If there are no training rows, or none that the loss can learn from.
    """
    apart = data.mode == "independent"
    datasets = {
        name: ExampleDataset(
            encoder,
            part_rows(part, encoder.rubric) if apart else part,
            data.max_length,
            data.truncate_turns,
            f"encode {name}",
            loss.contrasted,
            data.fill_unrated and not apart,
        )
        for name, part in rows.items()
        if part
    }
    if "train" not in datasets:
        raise DataError(f"{Path(data.data)} has no training rows")
    if loss.contrasted and not any(example.contrasts for example in datasets["train"].examples):
        raise DataError(f"loss {loss.loss!r} compares numbers of several tokens, and all scores here are one token")
    return datasets


def load_trainable(settings: ModelArguments, args: JudgeTrainingArguments) -> nn.Module:
    """Load the model to train, with LoRA adapters where asked.

    `args` must exist already: under ZeRO-3 that is what splits the weights while they are loaded.

    Raises:
        JudgeError: If the model can't be loaded, for example because it has no safetensors, or can't have the adapters
            that were asked for.
    """
    if is_deepspeed_zero3_enabled():
        import deepspeed  # noqa: PLC0415 (only where it is used)

        deepspeed.init_distributed()  # or zero.Init would take this rank for the only one
    dtype = "float32" if settings.dtype == "auto" and args.use_cpu else settings.dtype
    packed = settings.load_in_4bit
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            settings.model,
            revision=settings.revision,
            dtype=dtype,
            attn_implementation=settings.attn_implementation,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **({"quantization_config": quantization(args), "device_map": {"": str(args.device)}} if packed else {}),
        )
    except (OSError, RuntimeError, SafetensorError, ValueError) as error:  # RuntimeError: weights of another shape
        raise JudgeError(f"the model {settings.model} can't be loaded: {error}") from error
    model, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:  # transformers fills them with random numbers, and says so in a line that is easily missed
        raise JudgeError(
            f"the model {settings.model} can't be trained: {len(missing)} weights of its config are not in its "
            f"safetensors, such as {missing[0]}; the files are incomplete or do not belong together"
        )
    if not settings.lora:
        return model
    if args.gradient_checkpointing:
        model.enable_input_require_grads()
    set_seed(args.seed)  # Trainer does so as well, but after the adapters are drawn
    return add_adapters(model, settings)


def _push(folder: Path, repo: str | None, args: JudgeTrainingArguments) -> str | None:
    return push_judge(folder, repo) if repo and args.process_index == 0 else None


def read_rubric(folder: Path) -> Rubric:
    """The rubric of a data folder whose rows are those that its manifest describes."""
    manifest = read_manifest(folder)
    if manifest.get("rubric") is None:
        raise DataError(f"{folder} holds no rated responses, so there is nothing to train on")
    for name, entry in manifest["files"].items():
        if name.partition(".")[0] not in ROW_NAMES:
            continue
        if not (folder / name).is_file() or sha256_file(folder / name) != entry["sha256"]:
            raise DataError(f"{folder / name} is not the file that {MANIFEST_FILE} describes; prepare the folder anew")
    return Rubric.from_dict(manifest["rubric"], f"{folder / MANIFEST_FILE}: rubric")


def _load_tokenizer(settings: ModelArguments) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(settings.model, revision=settings.revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise JudgeError(f"the model {settings.model}: its tokenizer can't be loaded: {error}") from error


def read_rated(folder: Path, name: str) -> list[RatedResponse]:
    """The `train` or `validation` rows of a data folder; none where it has no such file."""
    if find_rows(folder, name) is None:
        return []
    return [RatedResponse.from_dict(record, where) for where, record in read_rows(folder, name)]


def draw_sample(settings: TrainingSettings, rubric: Rubric, rows: dict[str, list[RatedResponse]]) -> ValidationSample:
    """What is scored at each evaluation; without validation rows, evaluations are turned off in the settings.

    Raises:
        DataError: If settings don't go with the rows: weights of attributes, or how the best checkpoint is chosen.
    """
    rubrics = [rubric, *(row.rubric for part in rows.values() for row in part if row.rubric is not None)]
    check_weights(settings.loss.settings().attribute_weights, {key for each in rubrics for key in each.keys})
    if not rows["validation"]:
        _train_without_validation(settings.training)
    folder, most = Path(settings.data.data), settings.data.validation_rows
    sample = draw_validation(folder, rubric, rows["train"], rows["validation"], most)
    _check_metric(settings.training, {"loss", *sample.choosing_figures})
    return sample


def _pad_id(tokenizer: PreTrainedTokenizerBase, encoder: JudgeEncoder) -> int:
    return encoder.prompts.end_of_turn_id if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)


def _validation_judge(model: nn.Module, encoder: JudgeEncoder, max_length: int, data: DataArguments) -> Judge:
    engine: Engine = TransformersEngine(unwrap(model), max_length=max_length)
    if is_deepspeed_zero3_enabled() and distributed.is_initialized():
        engine = SynchronisedEngine(engine)
    return Judge(encoder, engine, truncate=data.truncate_turns, max_length=max_length, mode=data.mode)


def _group(
    examples: ExampleDataset | None, loss: LossSettings, required: bool = True
) -> ExampleDataset | GroupedExamples | None:
    """Responses to one conversation together, where a loss compares them."""
    if examples is None or not loss.compares:
        return examples
    derived_only = loss.preference_loss is not None
    return GroupedExamples(examples.examples, derived_only=derived_only, required=required)


def choose_packing(packing: str, model: nn.Module, attention: str, max_length: int) -> str:
    """How rows make a batch, with the model made ready for it.

    Args:
        packing: `auto`, or one of `rmkit.training.layout.PACKINGS`.
        model: Of transformers or peft.
        attention: The attention that it was loaded with.
        max_length: Most tokens of a row.

    Raises:
        JudgeError: If the model can't pack rows and was told to.
    """
    config: Any = model.config
    found, obstacle = find_packing(packing, config, attention, max_length)
    if found != "none":
        use_tree_attention(model)
    if obstacle is not None:
        logger.warning("rows are padded, and prompts that begin alike are computed anew for each row: %s", obstacle)
    return found


def batch_items(examples: ExampleDataset, loss: LossSettings, settings: TrainingSettings, packing: str) -> Items:
    """Training examples as the data loader's items: each for itself, those of a comparison, or whole batches."""
    found = _group(examples, loss) or examples
    if settings.data.batch_tokens is None:
        return found
    settings.training.per_device_train_batch_size = 1  # each item is a batch
    batches = TokenBatches(examples.examples, settings.data.batch_tokens, packing, settings.training.order_seed)
    lost = _count_comparisons(found, loss) - _count_comparisons(batches, loss)
    if lost > 0:
        logger.warning("%d comparisons are lost: their responses do not fit into a batch; raise batch_tokens", lost)
    return batches


def _count_comparisons(items: Items, loss: LossSettings) -> int:
    if isinstance(items, ExampleDataset) or not loss.compares:
        return 0
    return sum(count_comparisons(items[n], loss.preference_loss is not None) for n in range(len(items)))


def order_items(items: Items, settings: TrainingSettings) -> ConversationOrder | None:
    """The order of items, whatever their packing; None where each is a batch, or they come as they stand."""
    if isinstance(items, TokenBatches) or settings.training.train_sampling_strategy == "sequential":
        return None
    first = (items[n] for n in range(len(items)))
    groups = [item.group if isinstance(item, Example) else item[0].group for item in first]
    return ConversationOrder(groups, settings.training.order_seed)


def _choose_rows(rows: dict[str, list[RatedResponse]], datasets: dict[str, ExampleDataset]) -> list[RatedResponse]:
    """A few rows that fit into the context, with which the exported judge is checked."""
    part = "validation" if "validation" in datasets else "train"
    known = {example.id for example in datasets[part].examples}
    return [row for row in rows[part] if row.id in known][:_CHECKED_ROWS]


def _train_without_validation(args: JudgeTrainingArguments) -> None:
    logger.warning("no validation rows: training without validation, and the last weights are exported")
    if args.early_stopping_patience is not None:
        raise DataError("early_stopping_patience needs validation rows; prepare with --validation-fraction above 0")
    args.eval_strategy = "no"
    args.load_best_model_at_end = False


def _check_metric(args: JudgeTrainingArguments, names: set[str]) -> None:
    """Refuse a metric that validation would not give, now and not after the first epoch."""
    metric = (args.metric_for_best_model or "").removeprefix("eval_")
    if args.eval_strategy != "no" and metric not in names:
        given = ", ".join(f"eval_{name}" for name in sorted(names))
        raise DataError(f"metric_for_best_model={metric!r} is none that the validation rows give: {given}")
