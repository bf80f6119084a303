"""The judge as a reward in TRL's GRPO, beside a scalar reward model and the same judge called naively."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import torch
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer
from trl.trainer import grpo_trainer

from rmkit.data.graded import GradedSettings, generate_rows
from rmkit.judge import Judge
from rmkit.rewards import AsyncJudgeReward, JudgeReward
from rmkit.rubric import load_rubric
from rmkit.schema import read_conversation
from rmkit.training.tiny_model import train_tokenizer

# Tokens of prompts of RewardBench at 0, 5, 10, 20, ... 90, 95 and 100 %: 248 of its pairs, GPT-NeoX's tokenizer.
QUANTILES = (0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100)
PROMPTS = (4, 7, 9, 12, 15, 23, 32, 42, 69, 100, 196, 217, 415)

VARIANTS = {
    "scalar": "TRL's scalar reward model of the same size",
    "naive": "the judge called naively: one padded batch in transformers, free generation of the line, a regex",
    "naive_vllm": "the same in one call of vLLM",
    "judge": "JudgeReward, in process",
    "judge_again": "the same once more: the A/A control",
    "http": "JudgeReward over HTTP, server on this machine",
    "async": "AsyncJudgeReward, in process",
    "async_http": "AsyncJudgeReward over HTTP",
}
EPILOG = """\
One run of TRL's GRPOTrainer has all rewards at once, so that in each step each of them is given the same completions;
a second run has those over HTTP. TRL's own clock of each reward is replaced by one that keeps what it measured. The
share of a step is what it would be had that reward been the only one. Policy, judge and scalar model are random models
of one shape, prompts are random words as long as RewardBench's prompts, and the policy's end of turn is made so likely
that completions are as long as asked for, on average. The naive judge is shown the tokens that the judge is, and
generates as many as a score line has. On a CPU the clock is the CPU time of this process, of one thread, and of the
server's: other work on the machine moves it little. On a GPU it is the time on the wall.

examples:
  python benchmarks/reward.py
  python benchmarks/reward.py --engine vllm
  python benchmarks/reward.py --device cuda --shape train/configs/shapes/Llama-3.2-1B.json --completion 256
  python benchmarks/reward.py --device cuda --shape train/configs/shapes/Llama-3.2-1B.json --engine vllm
"""


def write_judge(folder: Path, args: argparse.Namespace) -> int:
    """A random model and a tokenizer trained on generated texts, a judge with any rubric; returns its parameters."""
    rows = generate_rows(GradedSettings(rows=1000, pairs=0))
    tokenizer = train_tokenizer((f"{row.conversation[0].content} {row.response}" for row in rows), args.vocabulary)
    tokenizer.save_pretrained(folder)
    model = build_model(AutoModelForCausalLM, args, tokenizer, 0)
    model.save_pretrained(folder)
    return model.num_parameters()


def engine_options(args: argparse.Namespace) -> dict[str, Any]:
    """Of the judge's engine, in this process and in the server's."""
    if args.engine == "transformers":
        return {"device": args.device}
    return {"gpu_memory_utilization": 0.3} if args.device == "cuda" else {}


def build_model(kind: Any, args: argparse.Namespace, tokenizer: Any, seed: int, **options: Any) -> Any:
    """A model with random weights, of the asked-for shape."""
    if args.shape:
        shape = json.loads(Path(args.shape).read_text("utf-8"))
        shape["num_hidden_layers"] = args.layers or shape["num_hidden_layers"]
    else:
        heads = {"num_attention_heads": args.hidden // 64, "num_key_value_heads": args.hidden // 64, "head_dim": 64}
        sizes = {"hidden_size": args.hidden, "intermediate_size": args.hidden * 8 // 3 // 32 * 32}
        shape = {"model_type": "llama", "num_hidden_layers": args.layers or 4, "max_position_embeddings": 8192}
        shape |= {"vocab_size": len(tokenizer), **sizes, **heads}
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(**{**shape, **ids}, **options)
    torch.manual_seed(seed)
    with torch.device(args.device):
        return kind.from_config(config, dtype=getattr(torch, args.dtype), attn_implementation="sdpa").eval()


def write_prompts(args: argparse.Namespace, tokenizer: Any) -> list[dict[str, Any]]:
    """Prompts of random words, one for each group of each step."""
    draw = np.random.default_rng(0)
    rows = []
    for _ in range(args.prompts * (args.rounds + 1)):
        length = round(float(np.interp(draw.random() * 100, QUANTILES, PROMPTS)))
        text = tokenizer.decode(draw.integers(300, len(tokenizer), length).tolist())
        rows.append({"prompt": [{"role": "user", "content": text}]})
    return rows


class NaiveJudge:
    """What one writes first: `generate` continues prompts by as many tokens as a line has, a regex reads the texts."""

    def __init__(self, name: str, judge: Judge, generate: Callable[[list[list[int]], int], list[str]]) -> None:
        self.__name__, self._judge, self._generate = name, judge, generate
        tokens = judge.encoder.score_tokens()
        lowest = {item.attribute.key: item.attribute.minimum for item in tokens.attributes}
        self._length = len(tokens.encode(lowest)[0])
        self._patterns = [re.compile(rf"{re.escape(a.name)}: (\d+)") for a in judge.rubric.attributes]

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """The mean of the scores found, or None where one was not."""
        encode = self._judge.encoder.encode_prompt
        ids = [
            list(encode(read_conversation(p), c[0]["content"]).ids) for p, c in zip(prompts, completions, strict=True)
        ]
        rewards: list[float | None] = []
        for text in self._generate(ids, self._length):
            found = [pattern.search(text) for pattern in self._patterns]
            rewards.append(statistics.mean(float(m[1]) for m in found if m) if all(found) else None)
        return rewards


def generate_with_transformers(model: Any, tokenizer: Any) -> Callable[[list[list[int]], int], list[str]]:
    """One padded batch."""

    @torch.inference_mode()
    def generate(prompts: list[list[int]], length: int) -> list[str]:
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(each)) + each for each in prompts], device=model.device)
        mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in prompts], device=model.device)
        limits = {"max_new_tokens": length, "min_new_tokens": length, "do_sample": False}
        written = model.generate(input_ids=ids, attention_mask=mask, **limits)
        return tokenizer.batch_decode(written[:, width:], skip_special_tokens=True)

    return generate


def generate_with_vllm(llm: Any) -> Callable[[list[list[int]], int], list[str]]:
    """One call of vLLM."""
    from vllm import SamplingParams  # noqa: PLC0415 (after rmkit.engines.vllm has set its environment)

    def generate(prompts: list[list[int]], length: int) -> list[str]:
        params = SamplingParams(max_tokens=length, min_tokens=length, temperature=0.0)
        outputs = llm.generate([{"prompt_token_ids": each} for each in prompts], params, use_tqdm=False)
        return [output.outputs[0].text for output in outputs]

    return generate


class Clocks:
    """Keeps the time that each reward and each step takes.

    Args:
        on_gpu: Whether to wait for the device, and to go by the time on the wall.
        server: A `psutil.Process` whose CPU time counts too, or None.
        prepare: Called before each measurement, to forget what the one before left in caches.
    """

    def __init__(self, on_gpu: bool, server: Any = None, prepare: Callable[[], Any] = lambda: None) -> None:
        self._on_gpu, self._server, self._prepare = on_gpu, server, prepare
        self.spans: dict[str, list[tuple[float, float, float]]] = {}

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add a span to those of the name: beginning and end on the wall, and CPU seconds."""
        self._prepare()
        start, used = time.perf_counter(), self._cpu()
        yield
        if self._on_gpu:
            torch.cuda.synchronize()
        self.spans.setdefault(name, []).append((start, time.perf_counter(), self._cpu() - used))

    def seconds(self, name: str) -> list[float]:
        """Of each but the first, which warms up: on the wall on a GPU, else of CPUs."""
        return [end - start if self._on_gpu else cpu for start, end, cpu in self.spans[name][1:]]

    def wall(self, name: str) -> float:
        """The median on the wall."""
        return statistics.median(end - start for start, end, _ in self.spans[name][1:])

    def _cpu(self) -> float:
        times = self._server.cpu_times() if self._server else None
        return time.process_time() + (times.user + times.system if times else 0.0)


class _StepClock(TrainerCallback):
    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._span = self._clocks.measure("step")
        self._span.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._span.__exit__(None, None, None)


def run_grpo(folder: Path, rewards: Sequence[Any], args: argparse.Namespace, clocks: Clocks) -> None:
    """Steps of GRPO with all rewards, each of which is given all completions and measured by the clocks."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    policy = build_model(AutoModelForCausalLM, args, tokenizer, 1)
    marks: Any = grpo_trainer  # where TRL marks what it times
    marks.profiling_context = lambda trainer, name: clocks.measure(name)
    readers: list[Any] = [tokenizer if isinstance(reward, torch.nn.Module) else None for reward in rewards]
    ending = math.log((len(tokenizer) - 1) / max(args.completion - 1, 1))
    unknown = list(range(len(tokenizer), policy.config.vocab_size))  # ids of the shape that stand for no text
    config = GRPOConfig(
        output_dir=str(folder / "trl"),
        max_steps=args.rounds + 1,
        per_device_train_batch_size=args.prompts * args.generations,
        num_generations=args.generations,
        max_completion_length=3 * args.completion,
        generation_kwargs={"sequence_bias": [[[tokenizer.eos_token_id], ending]], "suppress_tokens": unknown or None},
        use_cpu=args.device == "cpu",
        bf16=args.dtype == "bfloat16",
        gradient_checkpointing=False,
        reward_weights=[1.0] + [0.0] * (len(rewards) - 1),
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        policy,
        reward_funcs=list(rewards),
        args=config,
        train_dataset=Dataset.from_list(write_prompts(args, tokenizer)),
        processing_class=tokenizer,
        reward_processing_classes=readers,
        callbacks=[_StepClock(clocks)],
    )
    trainer.train()


@contextmanager
def serve(folder: Path, args: argparse.Namespace) -> Iterator[tuple[str, psutil.Process]]:
    """A server of the judge in its own process: its address, and the process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"judge": folder, "rubric": args.rubric, "engine": args.engine, "port": port, **engine_options(args)}
    command = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-m", "rmkit.server", *command], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 300
        while not _answers(url):
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the judge server did not start: {(folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.5)
        yield url, psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait()


def _answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    return False


class _Other:
    """Another async reward, which waits for something of its own as long as the judge last took over HTTP."""

    __name__ = "other"

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks

    async def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float]:
        start, end, _ = self._clocks.spans["http_reward"][-1]
        await asyncio.sleep(end - start)
        return [0.0] * len(completions)


def build_rewards(folder: Path, args: argparse.Namespace) -> tuple[list[Any], Callable[[], Any]]:
    """The rewards that run in this process, and what makes them forget: each has its turn, the async one the last."""
    forget: Callable[[], Any] = lambda: None  # noqa: E731
    judge = Judge.load(folder, args.engine, load_rubric(args.rubric), **engine_options(args))
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    scalar = build_model(AutoModelForSequenceClassification, args, tokenizer, 2, num_labels=1)
    scalar.config._name_or_path = "scalar"  # TRL's name of a model's reward
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, args.dtype)).to(args.device)
    rewards = [scalar, NaiveJudge("naive", judge, generate_with_transformers(model, tokenizer))]
    if args.engine == "vllm":
        llm: Any = judge.engine._llm  # type: ignore[attr-defined]
        rewards.append(NaiveJudge("naive_vllm", judge, generate_with_vllm(llm)))
        forget = llm.reset_prefix_cache
    rewards += [JudgeReward(judge, name=name) for name in ("judge", "judge_again")]
    return [*rewards, AsyncJudgeReward(JudgeReward(judge, name="async"))], forget


def report(clocks: Clocks, scalar: float | None, completions: int) -> float | None:
    """Print a row for each reward; returns the least time of the scalar model."""
    taken = {name: clocks.seconds(name) for name in clocks.spans if name.removesuffix("_reward") in VARIANTS}
    steps = clocks.seconds("step")
    rest = [step - sum(times[number] for times in taken.values()) for number, step in enumerate(steps)]
    scalar = min(taken["scalar"]) if "scalar" in taken else scalar
    for name, times in taken.items():
        share = statistics.median(mine / (mine + other) for mine, other in zip(times, rest, strict=True))
        shown = [1000 * value / completions for value in (min(times), statistics.median(times), max(times))]
        cells = [f"{value:.2f}" for value in (*shown, 1000 * clocks.wall(name) / completions)]
        ratio = "" if scalar is None else f"{min(times) / scalar:.2f}"
        what = VARIANTS[name.removesuffix("_reward")]
        print(f"| {what} | {' | '.join(cells)} | {ratio} | {share:.1%} |", flush=True)
    return scalar


def report_overlap(clocks: Clocks) -> None:
    """Print how much of the judge's time passes while another async reward waits for its own."""
    judge, other = clocks.spans["async_http_reward"][1:], clocks.spans["other"][1:]
    both = [max(a[1], b[1]) - min(a[0], b[0]) for a, b in zip(judge, other, strict=True)]
    alone = " s and ".join(f"{clocks.wall(name):.2f}" for name in ("async_http_reward", "other"))
    print(
        f"\nAsync over HTTP beside another async reward: {alone} s, {statistics.median(both):.2f} s together (medians)"
    )


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=layout)
    add: Callable[..., Any] = parser.add_argument
    add("--engine", choices=["transformers", "vllm"], default="transformers", help="what runs the judge")
    add("--prompts", type=int, default=4, help="prompts of a step (default: 4)")
    add("--generations", type=int, default=8, help="completions of each (default: 8)")
    add("--completion", type=int, default=128, help="tokens of a completion, on average (default: 128)")
    add("--rubric", default="helpsteer", help="of the judge (default: helpsteer, five attributes)")
    add("--rounds", type=int, default=5, help="steps, after one to warm up (default: 5)")
    add("--hidden", type=int, default=256, help="width of the models (default: 256)")
    add("--layers", type=int, help="of the models (default: 4, or what the shape says)")
    add("--vocabulary", type=int, default=4096, help="tokens of the tokenizer, which is trained here (default: 4096)")
    add("--shape", help="config.json of a model, in place of the width")
    add("--device", default="cpu", choices=["cpu", "cuda"])
    add("--dtype", choices=["float32", "bfloat16"], help="of weights (default: float32, on a GPU bfloat16)")
    add("--no-http", action="store_true", help="leave out the judge in a process of its own")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure, and print a Markdown table."""
    args = build_parser().parse_args(argv)
    args.dtype = args.dtype or ("bfloat16" if args.device == "cuda" else "float32")
    completions = args.prompts * args.generations
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print_head(write_judge(folder, args), args)
        rewards, forget = build_rewards(folder, args)
        clocks = Clocks(args.device == "cuda", prepare=forget)
        run_grpo(folder, rewards, args, clocks)
        scalar = report(clocks, None, completions)
        if args.no_http:
            return 0
        with serve(folder, args) as (url, server):
            over_http = AsyncJudgeReward(JudgeReward(url, name="async_http"))
            clocks = Clocks(args.device == "cuda", server)
            run_grpo(folder, [JudgeReward(url, name="http"), over_http, _Other(clocks)], args, clocks)
            report(clocks, scalar, completions)
            report_overlap(clocks)
    return 0


def print_head(parameters: int, args: argparse.Namespace) -> None:
    """Print what is measured, and the head of the table."""
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{device}, torch {torch.__version__}, Python {platform.python_version()}, {date.today()}")
    print(
        f"{args.prompts} prompts x {args.generations} completions of about {args.completion} tokens; judge in "
        f"{args.engine}, rubric {args.rubric}; {parameters / 1e6:.1f} M parameters, {args.dtype}\n"
    )
    clock = "CPU ms" if args.device == "cpu" else "ms"
    print(f"| reward | {clock} a completion: min | median | max | on the wall: median | min / scalar's | of a step |")
    print("|---|---:|---:|---:|---:|---:|---:|")


if __name__ == "__main__":
    sys.exit(main())
