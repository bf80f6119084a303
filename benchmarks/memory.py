"""Estimated against measured memory of training steps: random weights, rmkit's loss at the head, one GPU."""

from __future__ import annotations

import argparse
import gc
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM

from rmkit.losses import PRESETS
from rmkit.score_tokens import Choice, ScorePosition
from rmkit.training.activations import BatchSize, activation_terms
from rmkit.training.collation import JudgeCollator
from rmkit.training.examples import Example
from rmkit.training.head import CompletionHead, judge_loss
from rmkit.training.memory import ZeroLayout, state_terms
from rmkit.training.model_shape import measure_shape, read_shape
from rmkit.tree_attention import use_tree_attention

SHAPES = Path(__file__).resolve().parents[1] / "train/configs/shapes"
COMPLETION = 25  # tokens of a score sequence of five attributes
MODES = ("full", "full+checkpointing", "lora", "lora+checkpointing")
EPILOG = """\
Two micro-batches make a step, as with gradient accumulation, and the second step is measured: parameters; optimizer
states, after the step; gradients, after the backward pass; and the peak of the second micro-batch above parameters and
optimizer, which is gradients, activations, working memory, head and loss at once. Parameters, gradients and states are
those of a run without DeepSpeed. With lora, peft must be there.

examples:
  python benchmarks/memory.py                                     # one GPU: under 90 seconds
  python benchmarks/memory.py --shape Qwen3-8B --layers 4 --tokens 16384 --packing none
  python benchmarks/memory.py --device cpu --shape Qwen3-0.6B --layers 2 --tokens 512 --rows 4 --vocabulary 2000
"""


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that operators made and that are still there, and the most there were: a CPU's counter."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self._seen:
                storage = tensor.untyped_storage()
                self._seen.add(storage)
                self._change(storage.nbytes())
                weakref.finalize(storage, self._change, -storage.nbytes())
        return found

    def _change(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)


class Meter:
    """Bytes in use on a device, now and at most since it was reset."""

    def __init__(self, device: str) -> None:
        self.live = None if device == "cuda" else LiveBytes()

    def watch(self) -> AbstractContextManager[Any]:
        """While this lasts the CPU counts; a GPU always does."""
        return self.live or nullcontext()

    def now(self) -> int:
        """Bytes in use."""
        gc.collect()
        return torch.cuda.memory_allocated() if self.live is None else self.live.now

    def reset(self) -> None:
        """Start a new peak."""
        if self.live is None:
            torch.cuda.reset_peak_memory_stats()
        else:
            self.live.peak = self.live.now

    def peak(self) -> int:
        """The most since the reset."""
        return torch.cuda.max_memory_allocated() if self.live is None else self.live.peak


def make_examples(rows: int, tokens: int, vocabulary: int) -> list[Example]:
    """Pairs of responses to one conversation: half of a row is shared, and the last 25 tokens are supervised."""
    length = tokens // rows
    random = torch.Generator().manual_seed(0)
    choice = Choice((), tuple(range(5)), tuple((score,) for score in range(1, 6)))
    examples = []
    for row in range(rows):
        if row % 2 == 0:
            shared = torch.randint(vocabulary, (length // 2,), generator=random).tolist()
        own = torch.randint(5, vocabulary, (length - len(shared) - COMPLETION,), generator=random).tolist()
        completion = torch.randint(5, vocabulary, (COMPLETION,), generator=random)
        completion[4::5] = row % 5
        places = tuple(
            ScorePosition(at, f"attribute{at}", row % 5 + 1, choice, row % 5, 1) for at in range(4, COMPLETION, 5)
        )
        examples.append(Example(str(row), (*shared, *own), tuple(completion.tolist()), places))
    return examples


def measure(args: argparse.Namespace, mode: str) -> list[tuple[str, float, float]]:
    """Name, estimated bytes and measured bytes of each part, in one mode of training."""
    config, dtype = read_shape(SHAPES / f"{args.shape}.json"), getattr(torch, args.dtype)
    config.num_hidden_layers = args.layers or config.num_hidden_layers
    config.vocab_size = args.vocabulary or config.vocab_size
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: config.num_hidden_layers]
    config.dtype = dtype
    checkpointing, rank = mode.endswith("checkpointing"), 16 if mode.startswith("lora") else 0
    meter = Meter(args.device)
    with meter.watch():
        start = meter.now()
        with torch.device(args.device):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa").train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if rank:
            from peft import LoraConfig, get_peft_model  # noqa: PLC0415 - where it is there

            model.enable_input_require_grads()
            model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"))
        if args.packing != "none":
            use_tree_attention(model)
        examples = make_examples(args.rows, args.tokens, config.vocab_size)
        collated = JudgeCollator(0, PRESETS["paper"], args.packing)(examples)
        batch = {k: v.to(args.device) if isinstance(v, torch.Tensor) else v for k, v in collated.items()}
        head = CompletionHead(model)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=args.device == "cuda")
        parameters = meter.now() - start
        run_step(model, batch, head, optimizer, lambda: None)
        base = meter.now() - start
        found: dict[str, int] = {}

        def note() -> None:
            found["peak"] = meter.peak() - start - base
            found["gradients"] = meter.now() - start - base

        judge_loss(model, batch, PRESETS["paper"], head).backward()
        meter.reset()
        seconds = time.perf_counter()
        run_step(model, batch, head, optimizer, note)
        seconds = time.perf_counter() - seconds
    shape = measure_shape(config, "", rank)
    size = BatchSize(
        tokens=batch["input_ids"].numel(),
        keys=len(batch["tree_keys"]) if "tree_keys" in batch else batch["input_ids"].numel(),
        labels=int((batch["labels"] >= 0).sum()),
        mask=batch["input_ids"].numel() * batch["input_ids"].shape[1] if needs_mask(batch) else 0,
    )
    layout = ZeroLayout(0, 1, dtype.itemsize, 4, accumulation=2)
    states = {term.name: term.backward for term in state_terms(shape, layout)}
    terms = activation_terms(shape, layout, size, checkpointing)
    took = f"; a micro-batch and the step took {seconds:.2f} s" if args.device == "cuda" else ""
    print(f"{mode}: {size.tokens} tokens computed, {size.labels} with a label{took}")
    return [
        ("parameters", states["parameters"], parameters),
        ("optimizer states", states["optimizer states"], base - parameters),
        ("gradients", states["gradients"], found["gradients"]),
        ("peak above parameters and optimizer", states["gradients"] + sum(t.backward for t in terms), found["peak"]),
        *((f"  of it {term.name}", term.backward, float("nan")) for term in terms),
    ]


def run_step(model: Any, batch: Any, head: Any, optimizer: Any, before: Callable[[], None]) -> None:
    """A micro-batch, with what accumulates before it, and the optimizer's step."""
    judge_loss(model, batch, PRESETS["paper"], head).backward()
    before()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def needs_mask(batch: dict[str, Any]) -> bool:
    """Whether rows are padded, so that attention gets a mask."""
    return "tree_keys" not in batch and not bool(batch["attention_mask"].all())


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=layout)
    names = sorted(path.stem for path in SHAPES.glob("*.json"))
    parser.add_argument("--shape", default="Llama-3.1-8B", choices=names, help="(default: Llama-3.1-8B)")
    parser.add_argument("--layers", type=int, default=8, help="fewer layers than it has; 0 for all (default: 8)")
    parser.add_argument("--vocabulary", type=int, help="another size of the vocabulary")
    parser.add_argument("--tokens", type=int, default=8192, help="of a micro-batch's rows together (default: 8192)")
    parser.add_argument("--rows", type=int, default=8, help="of a micro-batch (default: 8)")
    parser.add_argument("--packing", default="shared", choices=["shared", "separate", "none"])
    parser.add_argument("--modes", nargs="+", default=list(MODES[:2]), choices=MODES, help="(default: without lora)")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure, and print a Markdown table."""
    args = build_parser().parse_args(argv)
    lines = []
    for mode in args.modes:
        for name, estimated, measured in measure(args, mode):
            ratio = "" if measured != measured else f"{measured / 1e6:,.1f} | {estimated / measured:.3f}"
            lines.append(f"| {mode} | {name} | {estimated / 1e6:,.1f} | {ratio or ' | '} |")
        gc.collect()
        if args.device == "cuda":
            torch.cuda.empty_cache()
    device = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    print(f"\n{device}, torch {torch.__version__}; {args.shape}, {args.layers or 'all'} layers, {args.dtype}")
    print(f"{args.rows} rows of {args.tokens // args.rows} tokens, packing {args.packing}; megabytes (1e6)\n")
    print("| mode | part | estimated | measured | estimated / measured |\n|---|---|---:|---:|---:|")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
