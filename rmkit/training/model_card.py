"""The model card of a judge folder: `README.md` with the hub's metadata, and a plot of its calibration."""

from __future__ import annotations

import html
import json
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, StrictUndefined

from rmkit import __version__
from rmkit.data import DATASETS
from rmkit.evaluation.plots import plot_score_reliability
from rmkit.evaluation.reliability import Reliability
from rmkit.losses import LossSettings
from rmkit.manifest import sha256_file
from rmkit.preparation.folder import MANIFEST_FILE, read_manifest
from rmkit.prompts import render_prompt
from rmkit.rubric import Rubric
from rmkit.schema import Message
from rmkit.scores import render_scores
from rmkit.training.card_commands import prepare_command, score_command, train_command
from rmkit.training.settings import TrainingSettings

CARD_FILE = "README.md"
PLOT_FILE = "calibration.png"
TEMPLATE_FILE = "model_card.md.jinja"

_BY_ATTRIBUTE = ("mae", "qwk", "spearman", "calibration_error")
_SHOWN = {
    "loss": "loss",
    "pair_accuracy": "pair accuracy, by the mean",
    "pair_accuracy_mode": "pair accuracy, by the mode",
    "pairs": "pairs",
    "outside_mass": "probability outside the scale",
    "errors": "responses without a judgement",
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def write_card(folder: Path, settings: TrainingSettings, rubric: Rubric, figures: Mapping[str, Any]) -> None:
    """Write the card and its plot.

    Args:
        folder: Where they go.
        settings: Of the run; its data folder is there still.
        rubric: The judge's.
        figures: What the run found: `rows`, `skipped`, `metrics`, and `reliability` by attribute.
    """
    found = {name: Reliability.from_dict(data) for name, data in figures.get("reliability", {}).items()}
    drawn = {name: reliability for name, reliability in found.items() if reliability.bins}
    if drawn:
        plot_score_reliability(drawn).savefig(folder / PLOT_FILE, dpi=150, metadata={"Software": None})
    text = render_card(settings, rubric, figures, PLOT_FILE if drawn else None)
    (folder / CARD_FILE).write_text(text, encoding="utf-8")


def render_card(settings: TrainingSettings, rubric: Rubric, figures: Mapping[str, Any], plot: str | None) -> str:
    """The card's text; `plot` is the file with its plot, if it has one."""
    data_folder, args = Path(settings.data.data), settings.training
    manifest = read_manifest(data_folder)
    metrics = {name.removeprefix("eval_"): value for name, value in figures["metrics"].items()}
    place = args.hub_model_id or str(args.output_dir)
    prompt = render_prompt(rubric, (Message("user", "What is 2 + 2?"),), "4")
    highest = render_scores(rubric, {attribute.key: attribute.maximum for attribute in rubric.attributes})
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"md": escape_markdown, "python": _python_literal, "shell": shlex.quote}
    template = environment.from_string(resources.files(__package__).joinpath(TEMPLATE_FILE).read_text("utf-8"))
    return template.render(
        metadata=_metadata(settings, manifest, metrics).to_yaml().strip(),
        rubric=rubric,
        sequence=highest.replace("`", ""),
        version=__version__,
        base_model=settings.model.model,
        attributes=_rows_by_attribute(metrics),
        figures=[(label, f"{metrics[name]:.4g}") for name, label in _SHOWN.items() if name in metrics],
        plot=plot,
        manifest={"raw_records": "n/a", "accepted": "n/a", "refused": {}, **manifest},
        manifest_sha256=sha256_file(data_folder / MANIFEST_FILE),
        rows=figures["rows"],
        too_long=sum(count for counts in figures["skipped"].values() for count in counts.values()),
        sources=_sources(manifest),
        settings=_settings(settings, figures),
        commands=[
            prepare_command(manifest, data_folder),
            train_command(sys.argv, args.world_size),
            score_command(place),
        ],
        place=place,
        prompt=prompt,
        longest=4 * len(highest),
    )


def escape_markdown(value: object) -> str:
    """A text as a cell of a Markdown table shows it: on one line, with nothing that Markdown or HTML would read."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)


def _python_literal(text: str) -> str:
    """A text as Python reads it, line by line."""
    lines = [json.dumps(line, ensure_ascii=False) for line in text.split("\n")]
    lines = [f'{line[:-1]}\\n"' for line in lines[:-1]] + lines[-1:]
    return lines[0] if len(lines) == 1 else "(\n    " + "\n    ".join(lines) + "\n)"


def _metadata(settings: TrainingSettings, manifest: Mapping[str, Any], metrics: Mapping[str, float]) -> ModelCardData:
    """What the hub reads: ids of its own alone, since it refuses a folder's name."""
    base = settings.model.model
    known = (DATASETS.get(str(source.get("name"))) for source in manifest.get("sources", ()))
    hub_ids = sorted({dataset.hub_id for dataset in known if dataset is not None and dataset.hub_id})
    name = str(manifest["dataset"])
    results = [
        EvalResult("text-generation", name, f"{name} (validation)", figure, round(metrics[figure], 4))
        for figure in (*_BY_ATTRIBUTE, "pair_accuracy", "pair_accuracy_mode")
        if figure in metrics
    ]
    return ModelCardData(
        base_model=base if _HUB_ID.fullmatch(base) and not Path(base).exists() else None,
        datasets=hub_ids or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["reward-model", "generative-reward-model", "rmkit"],
        model_name=(settings.training.hub_model_id or Path(str(settings.training.output_dir)).name)
        if results
        else None,
        eval_results=results or None,
    )


def _rows_by_attribute(metrics: Mapping[str, float]) -> list[tuple[str, list[str]]]:
    """Each attribute that has an error, and the mean over them, with its figures as they are shown."""
    names = [name.removeprefix("mae_") for name in metrics if name.startswith("mae_")]
    rows = [(name, [metrics.get(f"{figure}_{name}") for figure in _BY_ATTRIBUTE]) for name in names]
    if len(rows) > 1:
        rows.append(("mean", [metrics.get(figure) for figure in _BY_ATTRIBUTE]))
    return [
        (name, ["n/a" if value is None else f"{round(value, 3) + 0.0:.3f}" for value in values])
        for name, values in rows
    ]


def _sources(manifest: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Each source: name, raw records, refused, rows, what it was read from."""
    told = {"name": manifest["dataset"], "inputs": [manifest["source"]]}
    counts = ("raw_records", "refused", "rows")
    found = []
    for source in manifest.get("sources") or [{**told, **{name: manifest.get(name) for name in counts}}]:
        raw, refused, rows = (source.get(name) for name in counts)
        refused = sum(refused.values()) if isinstance(refused, Mapping) else refused
        inputs = ", ".join(
            f"{item.get('name', '')}@{item['revision']}" if item.get("revision") else str(item.get("name", ""))
            for item in source.get("inputs", ())
        )
        cells = (source.get("name", ""), raw, refused, rows, inputs or source.get("folder", ""))
        found.append(tuple("n/a" if cell is None else str(cell) for cell in cells))
    return found


def _settings(settings: TrainingSettings, figures: Mapping[str, Any]) -> dict[str, object]:
    model, args = settings.model, settings.training
    adapters = f"LoRA of rank {model.lora_r}, alpha {model.lora_alpha}, on {model.lora_target_modules}"
    tuned = adapters + (", on a base in 4 bits" if model.load_in_4bit else "") if model.lora else "all weights"
    items = f"{args.per_device_train_batch_size} items"
    batch = items if settings.data.batch_tokens is None else f"at most {settings.data.batch_tokens} tokens"
    defaults = asdict(LossSettings())
    loss = asdict(settings.loss.settings())
    shown = [name for name in loss if name in ("loss", "alpha", "tau", "distance") or loss[name] != defaults[name]]
    chosen = (args.metric_for_best_model or "eval_loss") if figures.get("best_checkpoint") else None
    return {
        "trained": tuned,
        "loss": ", ".join(f"{name}={loss[name]}" for name in shown),
        "steps": figures["steps"],
        "a step": f"{args.world_size} processes x {args.gradient_accumulation_steps} batches of {batch}",
        "learning rate": f"{args.learning_rate:g}, {getattr(args.lr_scheduler_type, 'value', args.lr_scheduler_type)}",
        "precision": "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32",
        "most tokens of a row": settings.data.max_length,
        "seed": args.seed,
        "exported": f"the checkpoint with the best {chosen}" if chosen else "the last step",
    }
