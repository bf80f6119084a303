"""Training throughput and peak memory on paired data, beside TRL's SFTTrainer and a padded default."""

from __future__ import annotations

import argparse
import copy
import gc
import json
import logging
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trl.trainer.utils
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from torch import nn
from tqdm import tqdm
from transformers import (
    AttentionInterface,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
)
from trl import SFTConfig, SFTTrainer

from rmkit.losses import PRESETS
from rmkit.score_tokens import Choice, ScorePosition
from rmkit.training.batches import ConversationOrder
from rmkit.training.collation import JudgeCollator
from rmkit.training.examples import Example
from rmkit.training.layout import count_tokens
from rmkit.training.settings import JudgeTrainingArguments
from rmkit.training.trainer import JudgeTrainer
from rmkit.tree_attention import attend_tree, use_tree_attention

# Tokens of prompts and responses of RewardBench at 0, 5, 10, 20, ... 90, 95 and 100 %: 248 of its pairs, GPT-NeoX's
# tokenizer. A row adds the rubric, what the chat template and the request take, and the score sequence.
QUANTILES = (0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100)
PROMPTS = (4, 7, 9, 12, 15, 23, 32, 42, 69, 100, 196, 217, 415)
RESPONSES = (1, 10, 15, 40, 60, 88, 114, 148, 203, 272, 354, 511, 1018)
TEMPLATE, COMPLETION, ATTRIBUTES = 20, 25, 5
SCORES = tuple(range(10, 15))  # token ids of the five scores

VARIANTS = {
    "padded": "padded default: SFTTrainer, random batches",
    "trl_cpu": "SFTTrainer, packed, as it comes on a CPU",
    "trl": "SFTTrainer, packed, rows isolated, head on gathered rows",
    "trl_free": "SFTTrainer, padding-free, likewise",
    "separate": "rmkit, packed, nothing shared",
    "shared": "rmkit, shared prompts",
    "shared_again": "the same once more: the A/A control",
}
EPILOG = """\
Conversations of --responses responses each, as long as RewardBench's, all rows behind one rubric. All variants train
on the same rows in micro-batches of the same number of rows (packs of TRL: of about as many tokens), with AdamW and no
evaluation; an epoch is timed from its first step to its last. They take turns; ratios are of minima. rmkit's loss has
its distance term beside the cross entropy, TRL's has not.

On a CPU, SFTTrainer applies its head to all positions, and without FlashAttention its packed rows attend across each
other under one large mask. To be fair, `trl`, `trl_free` and `padded` apply the head to supervised positions, as TRL
does where Triton runs, and in the first two each row attends to itself alone, one attention call per row, as
FlashAttention would. `trl_cpu` is what a user gets here.

The ceiling is the number of tokens that TRL computes over those that rmkit computes.

examples:
  python benchmarks/training.py                                    # pairs
  python benchmarks/training.py --responses 4 --conversations 8
  python benchmarks/training.py --rounds 1 --conversations 4 --hidden 64 --layers 2
  python benchmarks/training.py --device cuda --shape train/configs/shapes/Llama-3.1-8B.json --lora --conversations 64
"""


def make_examples(args: argparse.Namespace) -> list[Example]:
    """Rows of random tokens, as long as real ones."""
    draw = random.Random(args.seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(20, args.vocabulary) for _ in range(count))

    def length(table: tuple[int, ...]) -> int:
        return round(float(np.interp(draw.random() * 100, QUANTILES, table)))

    rubric, request, template = tokens(args.rubric), tokens(TEMPLATE), tokens(COMPLETION)
    examples: list[Example] = []
    for n in range(args.conversations):
        prompt = rubric + tokens(length(PROMPTS))
        for _ in range(args.responses):
            completion, positions = list(template), []
            for a in range(ATTRIBUTES):
                score = draw.randrange(5)
                completion[5 * a + 3] = SCORES[score]
                choice = Choice((), SCORES, tuple((v,) for v in range(1, 6)))
                positions.append(ScorePosition(5 * a + 3, f"a{a}", score + 1, choice, score, 1))
            read = prompt + tokens(length(RESPONSES)) + request
            examples.append(Example(str(len(examples)), read, tuple(completion), tuple(positions), group=str(n)))
    return examples


def build_model(args: argparse.Namespace) -> nn.Module:
    """A model with random weights."""
    torch.manual_seed(args.seed)
    if args.shape:
        config = AutoConfig.for_model(**json.loads(Path(args.shape).read_text("utf-8")))
        config.num_hidden_layers = args.layers or config.num_hidden_layers
    else:
        heads = args.hidden // 64
        config = AutoConfig.for_model(
            "llama",
            vocab_size=args.vocabulary,
            hidden_size=args.hidden,
            intermediate_size=args.hidden * 8 // 3 // 32 * 32,
            num_hidden_layers=args.layers or 8,
            num_attention_heads=heads,
            num_key_value_heads=max(heads // 2, 1),
            head_dim=64,
        )
    with torch.device(args.device):
        model: Any = AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, args.dtype), attn_implementation="sdpa"
        )
    if args.lora:
        from peft import LoraConfig, get_peft_model  # noqa: PLC0415 (only where it is asked for)

        model = get_peft_model(model, LoraConfig(r=32, lora_alpha=64, target_modules="all-linear"))
    return model


def isolate_rows(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each packed row alone, which FlashAttention gives TRL on a GPU."""
    tree: dict[str, Any] = {
        "tree_keys": torch.arange(key.shape[2], device=key.device),
        "tree_query_ends": cu_seq_lens_q,
        "tree_key_ends": cu_seq_lens_q,
        "tree_longest": (int(max_length_q), int(max_length_q)),
    }
    return attend_tree(module, query, key, value, attention_mask, **tree, **kwargs)


AttentionInterface.register("isolated_rows", isolate_rows)


class Clock(TrainerCallback):
    """Seconds from the first step to the last."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start at the first step."""
        if state.global_step == 0:
            synchronize(args.device)
            self.start = time.perf_counter()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop."""
        synchronize(args.device)
        self.seconds = time.perf_counter() - self.start


def synchronize(device: torch.device) -> None:
    """Wait until the GPU is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def common_options(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """What both trainers are told."""
    return {
        **{"output_dir": folder, "num_train_epochs": 1, "save_strategy": "no", "report_to": [], "disable_tqdm": True},
        **{"use_cpu": args.device == "cpu", "bf16": False, "logging_strategy": "no", "learning_rate": 1e-4},
        **{"gradient_checkpointing": args.checkpointing, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
        **{"per_device_train_batch_size": args.rows, "seed": args.seed},
    }


def build_rmkit(args: argparse.Namespace, model: Any, examples: list[Example], packing: str, folder: str) -> Trainer:
    """Rmkit's trainer."""
    use_tree_attention(model)
    settings = PRESETS["paper"]
    return JudgeTrainer(
        model=model,
        args=JudgeTrainingArguments(**common_options(args, folder), eval_strategy="no", load_best_model_at_end=False),
        train_dataset=examples,
        data_collator=JudgeCollator(0, settings, packing),
        loss_settings=settings,
        order=ConversationOrder([example.group for example in examples], args.seed),
    )


def build_trl(args: argparse.Namespace, model: Any, examples: list[Example], name: str, folder: str) -> Trainer:
    """TRL's trainer, on the same rows."""
    # Its own choice by hardware: the head on supervised positions only. Nothing else asks in this module.
    trl.trainer.utils._use_triton = lambda device: name != "trl_cpu"
    if name in ("trl", "trl_free"):
        model.set_attn_implementation("isolated_rows")
    rows = {
        "input_ids": [list(example.token_ids) for example in examples],
        "labels": [[-100] * len(example.prompt_ids) + list(example.completion_ids) for example in examples],
    }
    options: dict[str, Any] = {}
    if name in ("trl", "trl_cpu"):
        length = max(args.pack, max(map(len, rows["input_ids"])))
        tokens = args.rows * statistics.fmean(map(len, rows["input_ids"]))
        packs = max(round(tokens / length), 1)
        options = {"packing": True, "max_length": length, "per_device_train_batch_size": packs}
    elif name == "trl_free":
        options = {"padding_free": True, "max_length": None}
    settings = SFTConfig(**{**common_options(args, folder), "max_length": None, **options})
    return SFTTrainer(
        model=model, args=settings, train_dataset=Dataset.from_dict(rows), processing_class=make_tokenizer(args)
    )


def make_tokenizer(args: argparse.Namespace) -> PreTrainedTokenizerFast:
    """A tokenizer with a token for each id, which SFTTrainer asks for and never uses on these rows."""
    from tokenizers import Tokenizer, models  # noqa: PLC0415 (small, and only here)

    vocabulary = {f"t{n}": n for n in range(args.vocabulary)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="t0", eos_token="t1", unk_token="t0")


def build(args: argparse.Namespace, name: str, model: Any, examples: list[Example], folder: str) -> Trainer:
    """The trainer of a variant, with a clock."""
    if name.startswith(("shared", "separate")):
        trainer = build_rmkit(args, model, examples, name.removesuffix("_again"), folder)
    else:
        trainer = build_trl(args, model, examples, name, folder)
    trainer.add_callback(Clock())
    return trainer


def count_computed(trainer: Trainer) -> int:
    """How many tokens the model computes in an epoch, padding included."""
    return sum(int(batch["input_ids"].numel()) for batch in trainer.get_train_dataloader())


def train_epoch(trainer: Trainer) -> float:
    """Seconds of one epoch."""
    trainer.train()
    (clock,) = [each for each in trainer.callback_handler.callbacks if isinstance(each, Clock)]
    return clock.seconds


def run_variant(args: argparse.Namespace, name: str, model: Any, examples: list[Example]) -> tuple[float, int]:
    """Seconds of one epoch of a variant, and the tokens that it computes."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(args, name, model, examples, folder)
        computed = count_computed(trainer)
        return train_epoch(trainer), computed


def measure_memory(args: argparse.Namespace, name: str) -> float:
    """Peak bytes of an epoch above the model's weights, optimizer and gradients included; in a fresh process."""
    examples = make_examples(args)
    if args.device == "cuda":
        model = build_model(args)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run_variant(args, name, model, examples)
        return float(torch.cuda.max_memory_allocated() - before)
    small = argparse.Namespace(**{**vars(args), "hidden": 64, "layers": 1, "conversations": 2})
    run_variant(small, name, build_model(small), make_examples(small))  # libraries take their buffers first
    model = build_model(args)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", "ascii")
    resident = read_status("VmRSS")
    run_variant(args, name, model, examples)
    return read_status("VmHWM") - resident


def read_status(field: str) -> float:
    """A figure of this process from Linux, in bytes."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    (line,) = [line for line in lines if line.startswith(f"{field}:")]
    return float(line.split()[1]) * 1024


def measure_in_child(name: str) -> float:
    """`measure_memory` in a process of its own, with this one's options."""
    # glibc keeps what was freed for later; here every larger piece goes back at once, so that the peak is what lives.
    own = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, *sys.argv, "--child", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=own)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def measure_matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product on random data: the best of ten."""
    size = 8192 if device == "cuda" else 1536
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(10):
        synchronize(torch.device(device))
        start = time.perf_counter()
        left @ right
        synchronize(torch.device(device))
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=layout)
    add: Callable[..., Any] = parser.add_argument
    add("--responses", type=int, default=2, help="to each conversation (default: 2)")
    add("--conversations", type=int, default=16, help="in an epoch (default: 16)")
    add("--rubric", type=int, default=200, help="tokens of the rubric (default: 200)")
    add("--rows", type=int, default=16, help="of a micro-batch (default: 16)")
    add("--pack", type=int, default=4096, help="tokens of a pack of TRL (default: 4096)")
    add("--rounds", type=int, default=5, help="interleaved epochs of each variant, after one to warm up (default: 5)")
    add("--hidden", type=int, default=384, help="width of the model (default: 384)")
    add("--layers", type=int, help="of the model (default: 8, or what the shape says)")
    add("--vocabulary", type=int, default=8192, help="token ids of the model (default: 8192)")
    add("--shape", help="config.json of a model, in place of width and vocabulary")
    add("--lora", action="store_true", help="train adapters of rank 32 on all linear layers")
    add("--checkpointing", action="store_true", help="compute activations again in the backward pass")
    add("--device", default="cpu", choices=["cpu", "cuda"])
    add("--dtype", choices=["float32", "bfloat16"], help="of weights (default: float32, on a GPU bfloat16)")
    add("--variants", nargs="+", choices=list(VARIANTS), metavar="NAME", help=f"some of {', '.join(VARIANTS)}")
    add("--no-memory", action="store_true", help="leave memory out, which takes a process for each variant")
    add("--seed", type=int, default=0)
    add("--child", help=argparse.SUPPRESS)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure, and print a Markdown table."""
    args = build_parser().parse_args(argv)
    args.dtype = args.dtype or ("bfloat16" if args.device == "cuda" else "float32")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    disable_progress_bar()
    if args.child:
        print(measure_memory(args, args.child))
        return 0
    examples = make_examples(args)
    names = [name for name in VARIANTS if name in (args.variants or VARIANTS)]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    computed: dict[str, int] = {}
    model: Any = build_model(args)
    head = model.get_output_embeddings()  # works on supervised positions alone
    parameters = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear) and m is not head)
    for round_number in tqdm(range(args.rounds + 1), unit=" rounds", disable=None):
        for name in names:
            fresh = model if args.device == "cuda" else copy.deepcopy(model)
            taken, computed[name] = run_variant(args, name, fresh, examples)
            if round_number:  # the first one warms up
                seconds[name].append(taken)
            del fresh
            gc.collect()
    logical = sum(len(example.token_ids) for example in examples)
    print_report(args, names, seconds, computed, logical, parameters)
    return 0


def print_report(
    args: argparse.Namespace,
    names: list[str],
    seconds: dict[str, list[float]],
    computed: dict[str, int],
    logical: int,
    parameters: int,
) -> None:
    """The table, and the ratios with their ceilings."""
    rate = measure_matrix_rate(args.device, getattr(torch, args.dtype))
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"\n{device}, torch {torch.__version__}, trl {trl.__version__}, Python {platform.python_version()}, "
        f"{date.today()}"
    )
    print(
        f"{args.conversations} conversations x {args.responses} responses, rubric of {args.rubric} tokens, "
        f"{logical:,} tokens, {args.rows} rows a micro-batch; {parameters / 1e6:.1f} M parameters in products, "
        f"{args.dtype}{', LoRA' if args.lora else ''}; matrix products at {rate / 1e12:.3g} TFLOP/s\n"
    )
    print(
        "| variant | tokens computed | seconds min | median | max | logical tokens/s | peak memory, MB | matrix rate |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in names:
        times = seconds[name]
        memory = "" if args.no_memory else f"{measure_in_child(name) / 1e6:,.0f}"
        # Operations a parameter and token: 2 forward, 4 backward (2 where frozen), 2 to compute activations again.
        operations = (4 if args.lora else 6) + (2 if args.checkpointing else 0)
        share = operations * parameters * computed[name] / min(times) / rate
        print(
            f"| {VARIANTS[name]} | {computed[name]:,} | {min(times):.2f} | {statistics.median(times):.2f} | "
            f"{max(times):.2f} | {logical / min(times):,.0f} | {memory} | {share:.0%} |"
        )
    print()
    for name in ("padded", "trl_cpu", "trl", "trl_free", "separate", "shared_again"):
        if name in seconds and "shared" in seconds:
            ratios = sorted(a / b for a, b in zip(seconds[name], seconds["shared"], strict=True))
            ceiling = computed[name] / computed["shared"]
            print(
                f"shared prompts over {VARIANTS[name]}: {min(seconds[name]) / min(seconds['shared']):.2f} by minima, "
                f"rounds {ratios[0]:.2f} to {ratios[-1]:.2f}, median {statistics.median(ratios):.2f}; "
                f"tokens allow {ceiling:.2f}"
            )
    apart = [(-int(example.group) - 1, *example.token_ids) for example in make_examples(args)]
    allowed = count_tokens(apart, "separate") / count_tokens(apart, "shared")
    print(
        f"sharing within a conversation alone, and not the rubric between them, would allow {allowed:.2f} over packing"
    )


if __name__ == "__main__":
    sys.exit(main())
