"""Settings of a training run: what we add to transformers' TrainingArguments, from YAML and the command line."""

from __future__ import annotations

import difflib
import json
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from transformers import HfArgumentParser, TrainingArguments

from rmkit.distances import DISTANCES
from rmkit.judge_config import MODES
from rmkit.losses import PAIRWISE_LOSSES, PRESETS, SCORE_LOSSES, LossSettings
from rmkit.training.deepspeed_config import read_deepspeed_config
from rmkit.training.dry_run_options import ALONE, DryRun, DryRunArguments, leave_launcher, start_dry_run
from rmkit.training.early_stop import check_early_stop
from rmkit.training.figures import AGREEMENT, CHOOSING, is_better_higher
from rmkit.training.layout import PACKINGS
from rmkit.training.refused_options import check_options
from rmkit.training.reporting import choose_reports
from rmkit.yaml_files import read_yaml


@dataclass
class DataArguments:
    """Which rows are trained on."""

    _argument_group_name: ClassVar[str] = "data: rows, and how they make a batch"

    data: str = field(metadata={"help": "Folder that data_prep/prepare.py wrote; its rubric becomes the judge's."})
    max_length: int = field(
        default=2048,
        metadata={"help": "Most tokens of prompt and score sequence; longer rows are left out and counted."},
    )
    truncate_turns: bool = field(
        default=False,
        metadata={"help": "Leave out the oldest turns of a conversation that is too long, and count it."},
    )
    mode: str = field(
        default="sequential",
        metadata={
            "help": "sequential: a row teaches its scores one behind the other. independent: each by itself, right "
            "behind the prompt, as a row of its own; all are then read at once."
        },
    )
    fill_unrated: bool = field(
        default=True,
        metadata={"help": "Write any score, untrained, for an attribute without a rating; false leaves it out."},
    )
    packing: str = field(
        default="auto",
        metadata={
            "help": "How rows make a batch: shared (end to end, what prompts begin with in common computed once), "
            "separate (end to end), none (padded), auto (shared where the model's attention allows it)."
        },
    )
    batch_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Most tokens that the model computes for a micro-batch; rows then come as their lengths allow, in "
            "place of per_device_train_batch_size."
        },
    )
    validation_rows: int = field(
        default=512,
        metadata={
            "help": "Most validation rows that are scored at each evaluation, spread over sources (all count in the "
            "loss)."
        },
    )

    def check(self) -> None:
        """Do nothing for options that exist.

        Raises:
            ValueError: For an unknown packing or mode, a budget of no tokens, or a negative number of rows.
        """
        if self.packing not in (*PACKINGS, "auto"):
            raise ValueError(f"packing={self.packing!r} is unknown; choose auto, {', '.join(PACKINGS)}")
        if self.mode not in MODES:
            raise ValueError(f"mode={self.mode!r} is unknown; choose {', '.join(MODES)}")
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise ValueError(f"batch_tokens={self.batch_tokens} is no number of tokens; leave it out for no budget")
        if self.validation_rows < 0:
            raise ValueError(f"validation_rows={self.validation_rows} is no number of rows; 0 scores none")


@dataclass
class ModelArguments:
    """What is trained."""

    _argument_group_name: ClassVar[str] = "model"

    model: str = field(metadata={"help": "Folder or hub id of a causal language model with safetensors weights."})
    revision: str | None = field(default=None, metadata={"help": "Revision of the hub id, best a commit hash."})
    dtype: str = field(
        default="auto", metadata={"help": "Weights while training: auto (the checkpoint's), float32 or bfloat16."}
    )
    attn_implementation: str = field(default="sdpa", metadata={"help": "sdpa, eager or flash_attention_2."})
    load_in_4bit: bool = field(
        default=False, metadata={"help": "QLoRA: adapters on a base in 4 bits; they are merged into the full base."}
    )
    lora: bool = field(default=False, metadata={"help": "Train LoRA adapters; they are merged into the judge folder."})
    lora_r: int = field(default=16, metadata={"help": "Rank of the adapters."})
    lora_alpha: int = field(default=32, metadata={"help": "Scale of the adapters: alpha / r."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout before the adapters, in [0, 1)."})
    lora_target_modules: str = field(
        default="all-linear", metadata={"help": "Modules that get an adapter: all-linear, or names with commas."}
    )


@dataclass
class LossArguments:
    """How a near miss is told from a far one; each option overrides the preset's."""

    _argument_group_name: ClassVar[str] = "loss: what is not given is the preset's"

    preset: str = field(default="paper", metadata={"help": f"Loss preset: {', '.join(PRESETS)}."})
    loss: str | None = field(default=None, metadata={"help": f"ce (cross entropy alone), {', '.join(SCORE_LOSSES)}."})
    alpha: float | None = field(default=None, metadata={"help": "Weight of the score term."})
    tau: float | None = field(default=None, metadata={"help": "Temperature of the target over scores, above 0."})
    distance: str | None = field(
        default=None, metadata={"help": f"{', '.join(DISTANCES)}, or published: what `loss` was published with."}
    )
    normalize: str | None = field(default=None, metadata={"help": "full (whole vocabulary) or scale (legal scores)."})
    reduction: str | None = field(default=None, metadata={"help": "Divide the score term by tokens or by scores."})
    place_weights: bool | None = field(default=None, metadata={"help": "Weigh a digit by its place in the score."})
    place_scale: str | None = field(default=None, metadata={"help": "linear (3, 2, 1) or decimal (100, 10, 1)."})
    period: float | None = field(default=None, metadata={"help": "Length of a full circle, for circular distances."})
    smoothing: float | None = field(default=None, metadata={"help": "Mass that label_smoothing spreads, in [0, 1]."})
    power: float | None = field(default=None, metadata={"help": "Exponent of the distance in oll and cdw_ce."})
    margin: float | None = field(default=None, metadata={"help": "Margin of cdw_ce, in [0, 1)."})
    metric_seed: int | None = field(default=None, metadata={"help": "Seed of dist2_random's permutation."})
    neighbours: int | None = field(
        default=None, metadata={"help": "Near numbers that contrastive holds against the right one."}
    )
    attribute_weights: str | None = field(
        default=None,
        metadata={"help": 'What each attribute counts for, 1 if not named: {"helpfulness": 2, "verbosity": 0.5}.'},
    )
    preference_loss: str | None = field(
        default=None,
        metadata={"help": f"For scores derived from a preference, in place of `loss`: {', '.join(PAIRWISE_LOSSES)}."},
    )
    preference_alpha: float | None = field(default=None, metadata={"help": "Weight of the preference term."})

    def settings(self) -> LossSettings:
        """The preset with what was overridden.

        Raises:
            ValueError: For an unknown preset or an option that does not exist.
        """
        if self.preset not in PRESETS:
            raise ValueError(f"preset={self.preset!r} is unknown; choose {', '.join(PRESETS)}")
        given = {name: value for name, value in vars(self).items() if name != "preset" and value is not None}
        if "attribute_weights" in given:
            given["attribute_weights"] = _read_weights(given["attribute_weights"])
        if "loss" in given:
            given.setdefault("distance", "published")  # another loss comes with its own, not with the preset's
        return replace(PRESETS[self.preset], **given)


def _read_weights(text: str) -> dict[str, Any]:
    example = 'expected {"helpfulness": 2, "verbosity": 0.5}'
    try:
        weights = json.loads(text)
    except ValueError as error:
        raise ValueError(f"attribute_weights={text!r} is no JSON ({error}); {example}") from error
    if not isinstance(weights, dict):
        raise ValueError(f"attribute_weights={text!r} is no mapping; {example}")
    return dict(sorted(weights.items()))


@dataclass
class JudgeTrainingArguments(TrainingArguments):
    """TrainingArguments with the defaults that suit a judge."""

    _argument_group_name: ClassVar[str] = "training: all of transformers' TrainingArguments"

    remove_unused_columns: bool = field(default=False, metadata={"help": "Left off: a batch has columns of its own."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to validate: no, steps or epoch."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save a checkpoint: no, steps or epoch."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep, the best one included."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Export the best checkpoint, not the last."})
    metric_for_best_model: str | None = field(
        default="eval_loss",
        metadata={
            "help": f"Figure that chooses the best checkpoint: eval_ and {', '.join(CHOOSING)}; for one attribute, "
            f"eval_ and {', '.join(f'{name}_ATTRIBUTE' for name in AGREEMENT)}. Whether more is better is known."
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after so many evaluations in which metric_for_best_model did not improve."},
    )
    early_stopping_threshold: float = field(
        default=0.0, metadata={"help": "By how much it must beat the best so far to count as an improvement."}
    )
    report_to: list[str] | None = field(
        default=None,
        metadata={"help": "tensorboard (where it is installed, the default), wandb and others, all, or none."},
    )
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Left off: a NaN loss is shown as it is."})
    divergence_factor: float = field(
        default=5.0,
        metadata={"help": "Stop when the loss is this many times its usual, 5 steps in a row; 0 never stops."},
    )
    logging_steps: float = field(default=10, metadata={"help": "Steps between two lines of the log."})

    def __post_init__(self) -> None:
        """Say which figures are better when higher (transformers takes all but a loss for such); other defaults.

        Raises:
            ValueError: For early stopping that can't work, a tracker that is not there, or an option of transformers
                that has no meaning for a judge.
        """
        check_options(self)
        self.dataloader_pin_memory = self.dataloader_pin_memory and not self.use_cpu  # torch warns where it can't
        if self.disable_tqdm is None:  # no bars where nobody looks
            self.disable_tqdm = not sys.stderr.isatty()
        if self.greater_is_better is None:
            self.greater_is_better = is_better_higher(self.metric_for_best_model or "")
        self.report_to = choose_reports(self.report_to)
        if self.divergence_factor < 0 or 0 < self.divergence_factor <= 1:
            raise ValueError(f"divergence_factor={self.divergence_factor} would stop every run; give above 1, or 0")
        if self.max_steps <= 0 and self.num_train_epochs <= 0:
            raise ValueError(f"num_train_epochs={self.num_train_epochs:g} would train nothing; give more than 0")
        super().__post_init__()
        check_early_stop(self, self.early_stopping_patience, self.early_stopping_threshold)

    @property
    def order_seed(self) -> int:
        """Seed of the order of rows: `data_seed` where it is given, as in transformers."""
        return self.seed if self.data_seed is None else self.data_seed


@dataclass(frozen=True)
class TrainingSettings:
    """Everything a run is told, parsed.

    Args:
        data: Rows.
        model: Model.
        loss: Loss.
        training: transformers' own arguments.
        given: What the YAML file and the command line said, by option; resuming compares it.
        dry_run: The dry run that was asked for, if one was; no part of `given`.
    """

    data: DataArguments
    model: ModelArguments
    loss: LossArguments
    training: JudgeTrainingArguments
    given: dict[str, Any]
    dry_run: DryRun | None = None


def build_parser() -> HfArgumentParser:
    """The parser of `train/train.py`, which also knows all of transformers' TrainingArguments."""
    groups: list[Any] = [DataArguments, ModelArguments, LossArguments, JudgeTrainingArguments, DryRunArguments]
    parser = HfArgumentParser(
        groups,
        allow_abbrev=False,
        usage="%(prog)s [--config FILE.yaml] [--OPTION VALUE ...]",  # there are too many to list at each error
        description="Train a judge: a language model that writes score sequences.",
        epilog="Example: torchrun --nproc_per_node 8 train/train.py --config train/configs/helpsteer2_llama31_8b.yaml "
        "--learning_rate 5e-6. Launch with torchrun, deepspeed or accelerate launch; one process needs none of them.",
    )
    parser.add_argument("--config", help="YAML file with any of the other options, without the dashes.")
    return parser


def read_settings(argv: Sequence[str]) -> TrainingSettings:
    """Parse `--config FILE.yaml` and what follows it on the command line, which wins.

    Raises:
        DataError: If the file can't be read or is no flat mapping, or DeepSpeed's file is not as it should be.
        SystemExit: For an unknown option (with the nearest known one) or a value that does not fit, as
            argparse does.
    """
    parser = build_parser()
    known = {option.lstrip("-") for action in parser._actions for option in action.option_strings}
    config_file, rest = _split_config(list(argv))
    if config_file == "":
        parser.error("--config needs a file")
    from_file = _read_yaml(Path(config_file)) if config_file else {}
    from_line = _given_options(rest)
    for source, options in ((config_file or "", from_file), ("the command line", from_line)):
        for option in options:
            if option not in known:
                nearest = difflib.get_close_matches(option, known, n=1)
                hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
                parser.error(f"unknown option {option!r} in {source}{hint}")
    given = {**from_file, **from_line}
    if "resume_from_checkpoint" in given:
        parser.error("resume_from_checkpoint is not needed: the same command resumes its output_dir")
    if "hub_token" in given:
        parser.error("hub_token would be written down with the settings; run `hf auth login`, or set HF_TOKEN")
    words = [word for option, value in from_file.items() for word in _as_words(option, value)]
    use_cpu, is_dry = (_says_yes(given.get(name)) for name in ("use_cpu", "dry_run"))
    of_dry_run = {item.name: given.pop(item.name) for item in fields(DryRunArguments) if item.name in given}
    if of_dry_run and not is_dry and set(of_dry_run) != {"dry_run"}:
        parser.error(f"{', '.join(of_dry_run)}: options of a dry run, which was not asked for; add --dry_run")
    launched = leave_launcher() if is_dry else {}
    if given.get("deepspeed"):
        if not is_dry:
            _stand_alone()
        if use_cpu or is_dry:
            os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or DeepSpeed would go to a GPU that is there
        read_deepspeed_config(given["deepspeed"])
    try:
        words += [*rest, *(ALONE if is_dry else ())]
        data, model, loss, training, look = parser.parse_args_into_dataclasses(words, look_for_args_file=False)[:5]
        loss.settings()
        data.check()
        look.check()
    except ValueError as error:
        parser.error(str(error))
    if is_dry:
        training.deepspeed, training.use_cpu = given.get("deepspeed") or None, use_cpu
    dry_run = start_dry_run(look, launched, config_file) if is_dry else None
    return TrainingSettings(data, model, loss, training, dict(sorted(given.items())), dry_run)


def _says_yes(value: Any) -> bool:
    return str(value).lower() in ("true", "1", "yes")


def _stand_alone() -> None:
    """Make DeepSpeed work without a launcher, as one process; a launcher has set these variables."""
    if "WORLD_SIZE" in os.environ:
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))


def _split_config(argv: list[str]) -> tuple[str | None, list[str]]:
    config, rest = None, []
    words = iter(argv)
    for word in words:
        if word == "--config":
            config = next(words, "")
        elif word.startswith("--config="):
            config = word.removeprefix("--config=")
        else:
            rest.append(word)
    return config, rest


def _given_options(words: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    name = None
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            options[name] = value if equals else "true"
        elif name is not None:
            options[name] = word if options[name] == "true" else f"{options[name]} {word}"
    options.pop("local_rank", None)  # the deepspeed launcher hands it over; it is no setting
    return options


def _read_yaml(path: Path) -> dict[str, Any]:
    options = {str(option).replace("-", "_"): value for option, value in read_yaml(path).items() if value is not None}
    # In YAML a bare `no` is false, and `no` is what transformers calls a strategy that does nothing.
    return {o: "no" if value is False and o.endswith("_strategy") else value for o, value in options.items()}


def _as_words(option: str, value: Any) -> list[str]:
    if isinstance(value, list):
        return [f"--{option}", *map(str, value)]
    if isinstance(value, dict):
        return [f"--{option}", json.dumps(value)]
    return [f"--{option}", str(value)]
