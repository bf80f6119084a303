"""Time and peak memory of the loss at the head, forward and backward, beside what others do."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from rmkit.distances import squared
from rmkit.losses import LossSettings
from rmkit.training.fused_head import LogitMap, fused_loss

SUPERVISED, SCORED, ALPHA = 25, 5, 0.1  # of 1,024 tokens; weight of the distance term
VARIANTS = {
    "full": "full logits, cross entropy",
    "naive": "full logits, soft target over the vocabulary at every row",
    "ntloss": "full logits, ntloss 0.3 + cross entropy (CPU: its tokenizer is a small one)",
    "trl": "TRL's chunked head on the gathered rows, cross entropy alone",
    "liger": "Liger's fused head, cross entropy alone (GPU only)",
    "ce": "rmkit at the head, cross entropy alone",
    "ce_again": "the same once more: the A/A control",
    "dist2": "rmkit at the head, dist2, K = 5",
    "dist2_1000": "rmkit at the head, dist2, K = 1000",
}
EPILOG = """\
Variants of one loss must agree on it and on the weight's gradient before they are timed. They run interleaved in one
process for time, each in a process of its own for memory. Ratios are of minima. Memory is the peak of resident memory
above hidden states (T, H) and weight (V, H); the gradients of both count.

examples:
  python benchmarks/loss.py                                       # two cores: about ten minutes
  python benchmarks/loss.py --rounds 2 --vocabulary 8000 --tokens 1024 --memory-tokens 1024
  python benchmarks/loss.py --device cuda --width 4096 --dtype bfloat16
"""


class Case:
    """Inputs of one size: hidden states (T, H), the head's weight (V, H), labels, and score positions."""

    def __init__(self, args: argparse.Namespace, tokens: int, choices: int) -> None:
        torch.manual_seed(0)
        dtype, device = getattr(torch, args.dtype), args.device
        self.head = nn.Linear(args.width, args.vocabulary, bias=False, device=device, dtype=dtype)
        self.hidden = torch.randn(1, tokens, args.width, device=device, dtype=dtype).requires_grad_()
        blocks = max(tokens // 1024, 1)
        labels = torch.full((blocks, tokens // blocks), -100)
        labels[:, -SUPERVISED:] = torch.randint(args.vocabulary, (blocks, SUPERVISED))
        rows = (
            torch.arange(blocks)[:, None] * labels.shape[1] + labels.shape[1] - 1 - 4 * torch.arange(SCORED)
        ).flatten()
        self.score_ids = torch.randperm(args.vocabulary)[:choices]
        index = torch.randint(choices, rows.shape)
        labels = labels.flatten()
        labels[rows] = self.score_ids[index]
        values = torch.arange(choices).float().expand(len(rows), choices)
        self.labels = labels[1:].to(device)  # what each hidden state but the last predicts
        self.batch = {
            "labels": self.labels[None],
            "label_states": torch.arange(tokens - 1)[None],
            "score_rows": rows - 1,
            "score_ids": self.score_ids.expand(len(rows), choices),
            "score_labels": self.score_ids[index],
            "score_indices": index,
            "score_distances": squared(values, index.float()),
            "score_values": values,
            "score_weights": torch.ones(len(rows)),
            "label_weights": self.labels[None].ne(-100).float(),
        }
        self.batch = {name: tensor.to(device) for name, tensor in self.batch.items()}
        self.count = int(self.labels.ne(-100).sum())

    def forget(self) -> None:
        """Drop the gradients of the run before."""
        self.hidden.grad = self.head.weight.grad = None


def full_logits(case: Case) -> torch.Tensor:
    """Logits at every position but the last, in float32, as transformers' loss has them: (T - 1, V)."""
    return case.head(case.hidden)[0, :-1].float()


def run_full(case: Case) -> torch.Tensor:
    """Cross entropy over full logits, rows without a label ignored."""
    return functional.cross_entropy(full_logits(case), case.labels, ignore_index=-100)


def run_naive(case: Case) -> torch.Tensor:
    """The same, and KL against a target of shape (T, V) that is 0 outside the scale and at rows without a score."""
    logits = full_logits(case)
    target = torch.zeros_like(logits)
    rows = case.batch["score_rows"]
    p = torch.softmax(-case.batch["score_distances"], -1)
    target[rows[:, None], case.batch["score_ids"]] = p
    log_p = functional.log_softmax(logits, -1)
    divergence = functional.kl_div(log_p, target, reduction="sum")
    return functional.nll_loss(log_p, case.labels, ignore_index=-100) + ALPHA * divergence / case.count


def run_ntloss(case: Case) -> torch.Tensor:
    """Cross entropy and ntloss's Wasserstein loss, which finds digits by its tokenizer, over full logits."""
    logits = full_logits(case)
    cross_entropy = functional.cross_entropy(logits, case.labels, ignore_index=-100)
    return cross_entropy + ALPHA * number_token_loss(case)(logits[None], case.digits[None])  # type: ignore[attr-defined]


def run_trl(case: Case) -> torch.Tensor:
    """TRL's kernel, called as it is called where Triton runs: on the rows with a label only."""
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction  # noqa: PLC0415 - one variant of many

    keep = case.labels.ne(-100)
    found = ChunkedLogProbFunction.apply(
        case.hidden[0, :-1][keep], case.head.weight, None, case.labels[keep], 1.0, 32768, None, 1.0, ()
    )
    return -found[0].sum() / case.count


def run_liger(case: Case) -> torch.Tensor:
    """Liger's fused linear cross entropy, which takes all rows."""
    from liger_kernel.ops import (  # type: ignore[import-not-found]  # noqa: PLC0415 - GPU only
        LigerFusedLinearCrossEntropyFunction as Fused,
    )

    return Fused.apply(case.hidden[0, :-1], case.head.weight, case.labels)[0]


def run_fused(loss: str) -> Callable[[Case], torch.Tensor]:
    """The loss at the head, with what the trainer does around it."""
    settings = LossSettings(loss, alpha=ALPHA)

    def run(case: Case) -> torch.Tensor:
        count = case.count
        return fused_loss(case.hidden, case.head, LogitMap(), case.batch, settings, 1 / count, ALPHA / count)[0]

    return run


RUNS: dict[str, Callable[[Case], torch.Tensor]] = {
    "full": run_full,
    "naive": run_naive,
    "ntloss": run_ntloss,
    "trl": run_trl,
    "liger": run_liger,
    "ce": run_fused("ce"),
    "ce_again": run_fused("ce"),
    "dist2": run_fused("dist2"),
    "dist2_1000": run_fused("dist2"),
}


def number_token_loss(case: Case) -> nn.Module:
    """The loss of ntloss for a small tokenizer with digits; made once."""
    if not hasattr(case, "ntloss"):
        from ntloss import NTLoss  # noqa: PLC0415 - one variant of many

        from rmkit.training.tiny_model import train_tokenizer  # noqa: PLC0415

        tokenizer = train_tokenizer(["Helpfulness: 0 1 2 3 4 5 6 7 8 9"], 300)
        loss = NTLoss(tokenizer, vocab_size=case.head.out_features, reweigh=False)  # type: ignore[arg-type]
        case.ntloss = loss  # type: ignore[attr-defined]
        # Its digits at the score positions: without a digit among the labels it would do nothing.
        case.digits = case.labels.clone()  # type: ignore[attr-defined]
        ids = loss.number_token_ids.to(case.labels.device)
        case.digits[case.batch["score_rows"]] = ids[case.batch["score_indices"] % len(ids)]  # type: ignore[attr-defined]
    return case.ntloss  # type: ignore[attr-defined]


def run_once(name: str, case: Case) -> float:
    """Seconds of one forward and backward pass."""
    case.forget()
    gc.collect()
    synchronize(case)
    start = time.perf_counter()
    RUNS[name](case).backward()
    synchronize(case)
    return time.perf_counter() - start


def check_agreement(case: Case, names: list[str]) -> None:
    """Refuse to time variants of one loss that give different losses or gradients of the weight."""
    for group in (("dist2", "naive"), ("ce", "ce_again", "full", "trl", "liger")):
        first: tuple[str, float, torch.Tensor] | None = None
        for name in [name for name in group if name in names]:
            case.forget()
            loss = RUNS[name](case)
            loss.backward()
            assert case.head.weight.grad is not None and case.hidden.grad is not None
            gradient = torch.cat([case.head.weight.grad.flatten(), case.hidden.grad.flatten()])
            if first is None:
                first = (name, loss.item(), gradient)
                continue
            close = 1e-5 if loss.dtype == gradient.dtype == torch.float32 else 5e-2
            apart = float((gradient - first[2]).norm() / first[2].norm())
            if abs(loss.item() / first[1] - 1) > close or apart > close:
                raise SystemExit(
                    f"{name} gives {loss.item()}, {first[0]} {first[1]}; their gradients are {apart:.2g} apart"
                )
    case.forget()


def synchronize(case: Case) -> None:
    """Wait until the GPU is done."""
    if case.hidden.is_cuda:
        torch.cuda.synchronize()


def measure_memory(args: argparse.Namespace, name: str, tokens: int) -> float:
    """Peak bytes above the inputs of two passes, in this process; run it in a fresh one."""
    case = Case(args, tokens, 1000 if name.endswith("1000") else 5)
    if name == "ntloss":
        number_token_loss(case)
    if args.device == "cuda":
        run_once(name, case)
        case.forget()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run_once(name, case)
        return float(torch.cuda.max_memory_allocated() - before)
    # Libraries take their buffers first, in a small pass; then the kernel's high-water mark is put down.
    small = Case(argparse.Namespace(**{**vars(args), "vocabulary": 2000}), 256, 5)
    run_once(name, small)
    del small
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", "ascii")
    resident = read_status("VmRSS")
    run_once(name, case)
    return read_status("VmHWM") - resident


def read_status(field: str) -> float:
    """A figure of this process from Linux, in bytes."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    (line,) = [line for line in lines if line.startswith(f"{field}:")]
    return float(line.split()[1]) * 1024


def measure_in_child(args: argparse.Namespace, name: str, tokens: int) -> float:
    """`measure_memory` in a process of its own."""
    options = ["--device", args.device, "--width", str(args.width), "--vocabulary", str(args.vocabulary)]
    command = [sys.executable, __file__, *options, "--dtype", args.dtype, "--child", name, "--tokens", str(tokens)]
    # glibc keeps what was freed for later; here every larger piece goes back at once, so that the peak is what lives.
    own = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=own)
    if done.returncode:
        raise SystemExit(f"{name} at {tokens} tokens failed:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=layout)
    parser.add_argument(
        "--tokens", type=int, default=2048, help="T, of which 25 in 1,024 are supervised (default: 2048)"
    )
    parser.add_argument("--vocabulary", type=int, default=128_256, help="V (default: 128256)")
    parser.add_argument("--width", type=int, default=512, help="H, the hidden size (default: 512)")
    parser.add_argument(
        "--dtype", default="float32", choices=["float32", "bfloat16"], help="of weights (default: float32)"
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=list(VARIANTS),
        metavar="NAME",
        help=f"some of {', '.join(VARIANTS)}; dist2 is always in",
    )
    parser.add_argument("--rounds", type=int, default=15, help="interleaved runs of each variant (default: 15)")
    parser.add_argument("--fast", type=int, default=1, help="runs of the quick variants in each round (default: 1)")
    parser.add_argument(
        "--memory-tokens", type=int, nargs="*", default=[1024, 2048, 4096, 8192, 16384], help="T of the memory table"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure, and print two Markdown tables."""
    args = build_parser().parse_args(argv)
    if args.child:
        print(measure_memory(args, args.child, args.tokens))
        return 0
    chosen = {*(args.variants or VARIANTS), "dist2"}
    names = [name for name in VARIANTS if name in chosen and (name != "liger" or args.device == "cuda")]
    cases = {5: Case(args, args.tokens, 5), 1000: Case(args, args.tokens, min(1000, args.vocabulary))}
    check_agreement(cases[5], names)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    slow = ("full", "naive", "ntloss", "liger")
    for round_number in tqdm(range(args.rounds + 1), unit=" rounds", disable=None):
        order = [name for name in names if name in slow]
        order += [name for _ in range(args.fast) for name in names if name not in slow]
        for name in order:
            taken = run_once(name, cases[1000 if name.endswith("1000") else 5])
            if round_number:  # the first one warms up
                seconds[name].append(taken)
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"\n{device}, torch {torch.__version__}, Python {platform.python_version()}, {date.today()}")
    print(f"T={args.tokens}, V={args.vocabulary}, H={args.width}, {args.dtype}, head untied; times in ms\n")
    gradient = args.vocabulary * args.width * torch.finfo(getattr(torch, args.dtype)).bits / 8
    print("| variant | runs | min | median | max | min / dist2's min | peak memory / head's gradient |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    best = min(seconds["dist2"])
    for name in names:
        times = [1000 * taken for taken in seconds[name]]
        peak = measure_in_child(args, name, args.tokens) / gradient
        figures = f"{min(times):.1f} | {statistics.median(times):.1f} | {max(times):.1f}"
        print(f"| {VARIANTS[name]} | {len(times)} | {figures} | {min(times) / best / 1000:.3f} | {peak:.2f} |")
    if "ce" in seconds:
        base = min(seconds["ce"])
        print("\nThe distance term on the same path, minima against cross entropy alone:")
        for name in ("dist2", "dist2_1000", "ce_again"):
            if name in seconds:
                print(f"- {VARIANTS[name]}: {min(seconds[name]) / base - 1:+.1%}")
    if args.memory_tokens:
        print("\n| T | peak memory of dist2, K = 1000, above the inputs / head's gradient |\n|---:|---:|")
    for tokens in args.memory_tokens:
        print(f"| {tokens} | {measure_in_child(args, 'dist2_1000', tokens) / gradient:.3f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
