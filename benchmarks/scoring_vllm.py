"""Reading scores in vLLM, beside generating them: cost per response, and tokens computed over tokens needed."""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, Qwen3Config

from rmkit.engines import Query
from rmkit.engines.vllm import VllmEngine
from rmkit.judge_encoder import JudgeEncoder
from rmkit.readout import read_scores
from rmkit.rubric import load_rubric
from rmkit.score_tokens import ScoreTokens
from rmkit.scoring.items import ScoreInput, find_input
from rmkit.training.tiny_model import build_tiny_model, train_tokenizer

EPILOG = """\
variants, all on one random model, prompts of real pairs, neighbours in a batch sharing their conversation:
  session        what the engine does: one streaming session a response, which goes on from score to score
  requests       one request an attribute, on the prefix cache
  drafts         the whole line is guessed and one prefill of vLLM's pooling runner gives its hidden states, as often
                 as a guess was wrong; the head is applied here. In an engine of its own, by --variants drafts alone
  prompts        one token behind each prompt: what computing the prompts takes, and so a bound for whatever does
  steps          a request that generates as many tokens as the line has, with the probabilities of the score tokens
                 at each: what a forced skeleton costs without the processor that forces it. Reads nothing
  line           generates the line as text, with the 20 most probable tokens at each step. Reads nothing
  judgement      generates 256 tokens of text. Reads nothing
  judgement_logprobs  the same with the 20 most probable tokens at each step, without which such a text gives no
                 distribution of its score
Each round runs every variant once, in turn, on an empty prefix cache. The clock is the CPU time of this process, in
which everything happens, on one thread: other work on the machine moves it little.
"""
VARIANTS = ("session", "requests", "prompts", "steps", "line", "judgement", "judgement_logprobs")
Prompts = list[tuple[tuple[int, ...], ScoreTokens]]


class TokenCount:
    """Counts the tokens that a vLLM in this process computes."""

    def __init__(self, llm: Any) -> None:
        self.tokens = self.steps = 0
        scheduler = llm.llm_engine.engine_core.engine_core.scheduler
        schedule = scheduler.schedule

        def count(*arguments: Any, **keywords: Any) -> Any:
            output = schedule(*arguments, **keywords)
            self.tokens += output.total_num_scheduled_tokens
            self.steps += 1
            return output

        scheduler.schedule = count


class DraftEngine:
    """Answers queries from the hidden states of vLLM's pooling runner, and the head's weights.

    Prefixes that are beginnings of another are answered with it.
    """

    name, merges_prefixes = "drafts", True

    def __init__(self, folder: str, head: torch.Tensor, **options: Any) -> None:
        from vllm import LLM, PoolingParams  # noqa: PLC0415 (after rmkit.engines.vllm has set its environment)
        from vllm.config import PoolerConfig  # noqa: PLC0415

        pooler = PoolerConfig(task="token_embed", use_activation=False)
        self.llm = LLM(folder, runner="pooling", convert="embed", pooler_config=pooler, **options)
        # By default the cache is not read, for only what is computed has hidden states: here that is the end.
        self.params = PoolingParams(task="token_embed", use_activation=False, skip_reading_prefix_cache=False)
        self.head = head

    def logprobs(self, queries: Sequence[Query]) -> list[np.ndarray]:
        """See `rmkit.engines.Engine`."""
        order = sorted(range(len(queries)), key=lambda index: queries[index].prefix)
        chains: list[list[int]] = []
        for index in order:
            last = queries[chains[-1][-1]].prefix if chains else None
            if last is not None and queries[index].prefix[: len(last)] == last:
                chains[-1].append(index)
            else:
                chains.append([index])
        chains.sort(key=min)  # neighbours in a pair stay neighbours
        prompts: list[Any] = [{"prompt_token_ids": list(queries[chain[-1]].prefix)} for chain in chains]
        outputs = self.llm.encode(prompts, self.params, pooling_task="token_embed", use_tqdm=False)
        rows = []
        for chain, output in zip(chains, outputs, strict=True):
            length = len(queries[chain[-1]].prefix)
            rows += [output.outputs.data[len(queries[index].prefix) - 1 - length] for index in chain]
        logprobs = torch.log_softmax(torch.stack(rows).float() @ self.head.T, dim=-1)
        answers: list[np.ndarray] = [np.empty(0)] * len(queries)
        for index, row in zip(itertools.chain.from_iterable(chains), logprobs, strict=True):
            answers[index] = row[list(queries[index].token_ids)].double().numpy()
        return answers


def count_needed(prompts: Prompts) -> int:
    """Tokens of all prompts and lines, what several prompts begin with counted once."""
    seen, total = set(), 0
    for prompt, tokens in prompts:
        state = 0
        for token in prompt:
            state = hash((state, token))
            total += state not in seen
            seen.add(state)
        line, positions = tokens.encode({item.attribute.key: item.attribute.minimum for item in tokens.attributes})
        total += positions[-1].index
    return total


def build_variants(engine: VllmEngine, prompts: Prompts, length: int) -> dict[str, Callable[[], Any]]:
    """What is measured in a generating engine, by name."""
    from vllm import SamplingParams  # noqa: PLC0415 (as above)

    texts: list[Any] = [{"prompt_token_ids": list(prompt)} for prompt, _ in prompts]
    scores = list(prompts[0][1].attributes[0].choices[()].token_ids)

    def generate(tokens: int, **options: Any) -> Callable[[], Any]:
        params = SamplingParams(max_tokens=tokens, min_tokens=tokens, temperature=0.0, **options)
        return lambda: engine._llm.generate(texts, params, use_tqdm=False)

    class Requests:
        merges_prefixes, logprobs = False, staticmethod(engine.logprobs)

    return {
        "session": lambda: read_scores(engine, prompts),
        "requests": lambda: read_scores(Requests(), prompts),  # type: ignore[arg-type]
        "prompts": generate(1, detokenize=False),
        "steps": generate(length, detokenize=False, logprob_token_ids=scores),
        "line": generate(length, logprobs=20),
        "judgement": generate(256),
        "judgement_logprobs": generate(256, logprobs=20),
    }


def measure(variants: dict[str, Callable[[], Any]], llm: Any, rounds: int, responses: int, needed: int) -> None:
    """Run the variants in turn and print a row for each."""
    count = TokenCount(llm)
    times: dict[str, list[float]] = {name: [] for name in variants}
    computed: dict[str, tuple[int, int]] = {}
    for number in range(rounds + 1):
        for name, run in variants.items():
            if not llm.reset_prefix_cache():
                raise RuntimeError("the prefix cache is in use")
            count.tokens = count.steps = 0
            start = time.process_time()
            run()
            if number:  # the first round warms up
                times[name].append((time.process_time() - start) / responses * 1000)
            computed[name] = count.tokens, count.steps
    first = min(times[next(iter(variants))])
    print("| variant | CPU ms a response: min | median | max | min / first's | tokens / needed | steps |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, values in times.items():
        tokens, steps = computed[name]
        shown = [min(values), statistics.median(values), max(values), min(values) / first]
        figures = " | ".join(f"{value:.2f}" for value in shown)
        print(f"| {name} | {figures} | {tokens / needed:.3f} | {steps} |", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=layout)
    parser.add_argument("--input", required=True, type=Path, help="pairs, as data_prep/prepare.py writes them")
    parser.add_argument("--pairs", type=int, default=64, help="pairs to use (default: 64)")
    parser.add_argument("--rubric", default="helpsteer", help="(default: helpsteer)")
    parser.add_argument("--layers", type=int, default=2, help="(default: 2)")
    parser.add_argument("--width", type=int, default=64, help="(default: 64)")
    parser.add_argument("--vocabulary", type=int, default=4096, help="of a tokenizer trained here (default: 4096)")
    parser.add_argument("--tokenizer", metavar="DIR", help="a real one, in its place")
    rows = Qwen3Config().vocab_size
    parser.add_argument(
        "--rows",
        type=int,
        help="tokens that the model knows, those beyond the tokenizer's without text: what a step costs depends on "
        f"them (default: {rows:,}, as many as Qwen3 of any size; with --tokenizer as many as it has)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=(*VARIANTS, "drafts"))
    options = parser.parse_args(argv)
    if "drafts" in options.variants and len(options.variants) > 1:
        parser.error("drafts takes an engine of its own: --variants drafts")

    items = list(ScoreInput(find_input(options.input, "pairs"), "pairs", options.pairs).items())
    if options.tokenizer:
        tokenizer: Any = AutoTokenizer.from_pretrained(options.tokenizer)
    else:
        texts = [item.response for item in items] + [m.content for item in items for m in item.conversation]
        tokenizer = train_tokenizer(texts, options.vocabulary)
    model = build_tiny_model(tokenizer, options.layers, options.width, 16_384)
    rows = options.rows or (len(tokenizer) if options.tokenizer else rows)
    if rows < len(tokenizer):
        parser.error(f"--rows {rows} is less than the tokenizer's {len(tokenizer):,} tokens")
    model.resize_token_embeddings(rows, mean_resizing=False)
    encoder = JudgeEncoder(tokenizer, load_rubric(options.rubric))
    tokens = encoder.score_tokens()
    prompts: Prompts = [(encoder.encode_prompt(item.conversation, item.response).ids, tokens) for item in items]
    lengths = [len(prompt) for prompt, _ in prompts]
    line, _ = tokens.encode({item.attribute.key: item.attribute.minimum for item in tokens.attributes})
    print(
        f"{len(prompts)} responses; prompts of {statistics.mean(lengths):.0f} tokens on average, "
        f"{statistics.median(lengths):.0f} in the middle; a line of {len(line)}; a vocabulary of {rows:,}; "
        f"{model.num_parameters():,} parameters"
    )
    needed = count_needed(prompts)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if options.variants == ["drafts"]:
            memory = {"enforce_eager": True, "kv_cache_memory_bytes": 2**30, "block_size": 32}
            drafts = DraftEngine(folder, model.lm_head.weight.detach().float(), dtype="float32", **memory)
            run = {"drafts": lambda: read_scores(drafts, prompts)}  # type: ignore[arg-type]
            measure(run, drafts.llm, options.rounds, len(prompts), needed)
            return 0
        engine = VllmEngine(folder, max_length=16_384)
        variants = {
            name: run for name, run in build_variants(engine, prompts, len(line)).items() if name in options.variants
        }
        measure(variants, engine._llm, options.rounds, len(prompts), needed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
