"""Cost of reading five scores with the transformers engine, beside one plain forward pass per response.

For vLLM, beside free generation, there is scoring_vllm.py.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForCausalLM

from rmkit.engines import Query
from rmkit.engines.transformers import TransformersEngine
from rmkit.readout import read_scores
from rmkit.rubric import Attribute
from rmkit.score_tokens import AttributeTokens, Choice, ScoreTokens
from rmkit.tree_attention import use_tree_attention

# Tokens of prompts and responses of RewardBench at 0, 5, 10, 20, ... 90, 95 and 100 %: 248 of its pairs, GPT-NeoX's
# tokenizer. A row adds the rubric, what the chat template and the request take, and the score sequence.
QUANTILES = (0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100)
PROMPTS = (4, 7, 9, 12, 15, 23, 32, 42, 69, 100, 196, 217, 415)
RESPONSES = (1, 10, 15, 40, 60, 88, 114, 148, 203, 272, 354, 511, 1018)
TEMPLATE, ATTRIBUTES = 20, 5
SCORES = (10, 11, 12, 13, 14)  # token ids

VARIANTS = {
    "plain": "one plain forward pass per response, a value at its end",
    "alone": "five scores, each behind the others, nothing shared between responses",
    "shared": "five scores, each behind the others",
    "independent": "five scores, each by itself",
    "prefills": "a forward pass per score",
    "plain_again": "the plain pass once more: the A/A control",
}
EPILOG = """\
Pairs as long as RewardBench's behind one rubric, random tokens and a random model. The plain pass is what a
discriminative reward model does: the body once over each response with its prompt, in padded batches of similar
length, and one value from the last hidden state. `alone` reads each response in a call of its own, so that nothing is
shared but between the scores of a response; the others share rubric and conversation. All read exact conditional
distributions; on a random model guesses are wrong as often as they can be. Variants take turns; ratios are of minima.

examples:
  python benchmarks/scoring.py
  python benchmarks/scoring.py --rounds 1 --pairs 4 --hidden 64 --layers 2
  python benchmarks/scoring.py --device cuda --shape train/configs/shapes/Llama-3.1-8B.json --pairs 256
"""
Prompts = list[tuple[int, ...]]


def make_prompts(args: argparse.Namespace) -> Prompts:
    """Prompts of pairs, those of a pair next to each other."""
    draw = np.random.default_rng(args.seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(int(token) for token in draw.integers(20, args.vocabulary, count))

    def length(table: tuple[int, ...]) -> int:
        return round(float(np.interp(draw.random() * 100, QUANTILES, table)))

    rubric, request = tokens(args.rubric), tokens(TEMPLATE)
    found = []
    for _ in range(args.pairs):
        start = rubric + tokens(length(PROMPTS))
        found += [start + tokens(length(RESPONSES)) + request for _ in range(2)]
    return found


def make_score_tokens() -> list[ScoreTokens]:
    """Five attributes, four tokens before each score and one for it; first together, then each by itself."""
    items = []
    for n in range(ATTRIBUTES):
        written = {value: (token,) for value, token in zip(range(1, 6), SCORES, strict=True)}
        items.append(
            AttributeTokens(
                attribute=Attribute(f"a{n}", f"A{n}"),
                before=tuple(range(100 + 4 * n, 104 + 4 * n)),
                written=written,
                closed=written,
                choices={(): Choice((), SCORES, tuple((value,) for value in written))},
            )
        )
    return [ScoreTokens(tuple(items), 15), *(ScoreTokens((item,), 15) for item in items)]


def build_model(args: argparse.Namespace) -> Any:
    """A model with random weights."""
    torch.manual_seed(args.seed)
    if args.shape:
        config = AutoConfig.for_model(**json.loads(Path(args.shape).read_text("utf-8")))
        config.num_hidden_layers = args.layers or config.num_hidden_layers
    else:
        sizes = {"hidden_size": args.hidden, "intermediate_size": args.hidden * 8 // 3 // 32 * 32}
        heads = {"num_attention_heads": args.hidden // 64, "num_key_value_heads": args.hidden // 64, "head_dim": 64}
        layers = {"num_hidden_layers": args.layers or 8, "max_position_embeddings": 8192}
        config = AutoConfig.for_model("llama", vocab_size=args.vocabulary, **sizes, **heads, **layers)
    with torch.device(args.device):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, args.dtype), attn_implementation="sdpa")
    return model.eval()


@torch.no_grad()
def pass_plainly(model: Any, prompts: Prompts, batch_tokens: int) -> None:
    """A discriminative reward model's pass: padded batches of similar length, one value a response."""
    device = next(model.parameters()).device
    value = torch.ones(model.config.hidden_size, 1, device=device, dtype=model.dtype)
    batch: list[tuple[int, ...]] = []
    for prompt in [*sorted(prompts, key=len), None]:
        if batch and (prompt is None or (len(batch) + 1) * len(prompt) > batch_tokens):
            width = len(batch[-1])
            ids = torch.tensor([[0] * (width - len(each)) + list(each) for each in batch], device=device)
            mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in batch], device=device)
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            hidden = model.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)[0]
            (hidden[:, -1] @ value).float().cpu()
            batch = []
        if prompt is not None:
            batch.append(prompt)


class PlainRounds:
    """The engine without memory between questions, one score at a time: what a forward pass per score costs."""

    merges_prefixes = False

    def __init__(self, engine: TransformersEngine) -> None:
        self.name, self.max_length, self.vocab_size = engine.name, engine.max_length, engine.vocab_size
        self._engine = engine

    def logprobs(self, queries: Sequence[Query]) -> list[np.ndarray]:
        """See `Engine.logprobs`."""
        return [answer for query in queries for answer in self._engine.logprobs([query])]


def build_runs(args: argparse.Namespace, model: Any, prompts: Prompts) -> dict[str, Callable[[], Any]]:
    """Each variant as a call."""
    engine = TransformersEngine(model, args.batch_tokens)
    together, *apart = make_score_tokens()
    lines = [(prompt, together) for prompt in prompts]
    singles = [(prompt, tokens) for prompt in prompts for tokens in apart]
    return {
        "plain": lambda: pass_plainly(model, prompts, args.batch_tokens),
        "alone": lambda: [read_scores(engine, [line]) for line in lines],
        "shared": lambda: read_scores(engine, lines),
        "independent": lambda: read_scores(engine, singles),
        "prefills": lambda: read_scores(PlainRounds(engine), lines),
        "plain_again": lambda: pass_plainly(model, prompts, args.batch_tokens),
    }


def check_agreement(runs: dict[str, Callable[[], Any]], tolerance: float) -> tuple[float, float]:
    """Refuse to time variants that read other distributions than a forward pass per score does.

    A score is read behind the likeliest ones before it. Where two of these are as likely but for rounding, the later
    scores of that response stand behind different ones, and are not compared.

    Returns:
        The largest difference of two probabilities, and the mean over distributions of their largest.
    """
    right = runs["prefills"]()
    differences = []
    for name, found in (("alone", [one for (one,) in runs["alone"]()]), ("shared", runs["shared"]())):
        for mine, theirs in zip(found, right, strict=True):
            for key in mine:
                apart = float(np.abs(np.subtract(mine[key].probabilities, theirs[key].probabilities)).max())
                if apart > tolerance:
                    raise SystemExit(f"{name} reads probabilities that are {apart:.2g} from those of single passes")
                differences.append(apart)
                if np.argmax(mine[key].probabilities) != np.argmax(theirs[key].probabilities):
                    break
    return max(differences), statistics.mean(differences)


class TokenCount:
    """Counts the tokens that a model computes."""

    def __init__(self, model: Any) -> None:
        self.tokens = 0
        model.model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: Any, args: Any, kwargs: Any) -> None:
        self.tokens += kwargs["input_ids"].numel()


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=layout)
    add: Callable[..., Any] = parser.add_argument
    add("--pairs", type=int, default=24, help="pairs of responses (default: 24)")
    add("--rubric", type=int, default=200, help="tokens of the rubric (default: 200)")
    add("--batch-tokens", type=int, default=8192, help="tokens of a batch (default: 8192)")
    add("--rounds", type=int, default=5, help="runs of each variant, after one to warm up (default: 5)")
    add("--hidden", type=int, default=448, help="width of the model (default: 448)")
    add("--layers", type=int, help="of the model (default: 8, or what the shape says)")
    add("--vocabulary", type=int, default=8192, help="token ids of the model (default: 8192)")
    add("--shape", help="config.json of a model, in place of width and vocabulary")
    add("--device", default="cpu", choices=["cpu", "cuda"])
    add("--dtype", choices=["float32", "bfloat16"], help="of weights (default: float32, on a GPU bfloat16)")
    add("--variants", nargs="+", choices=list(VARIANTS), metavar="NAME", help=f"some of {', '.join(VARIANTS)}")
    add("--seed", type=int, default=0)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure, and print a Markdown table."""
    args = build_parser().parse_args(argv)
    args.dtype = args.dtype or ("bfloat16" if args.device == "cuda" else "float32")
    prompts, model = make_prompts(args), build_model(args)
    counter = TokenCount(model)
    use_tree_attention(model)
    runs = build_runs(args, model, prompts)
    # 16 bits: 32 layers of random weights on an H200 gave 0.047, by rounding alone, since float32 there gave 2e-5.
    largest, mean = check_agreement(runs, 1e-4 if args.dtype == "float32" else 0.05)
    names = [name for name in VARIANTS if name in (args.variants or VARIANTS)]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    computed: dict[str, int] = {}
    for round_number in tqdm(range(args.rounds + 1), unit=" rounds", disable=None):
        for name in names:
            counter.tokens = 0
            start = time.perf_counter()
            runs[name]()
            taken = time.perf_counter() - start
            computed[name] = counter.tokens
            if round_number:  # the first one warms up
                seconds[name].append(taken)
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    parameters = sum(weight.numel() for weight in model.parameters())
    print(f"\n{device}, torch {torch.__version__}, Python {platform.python_version()}, {date.today()}")
    print(
        f"{args.pairs} pairs, rubric of {args.rubric} tokens, {sum(map(len, prompts)):,} tokens of prompts; "
        f"{parameters / 1e6:.1f} M parameters, {args.dtype}\n"
        f"probabilities differ from those of single passes by {largest:.2g} at most, {mean:.2g} on average\n"
    )
    print("| variant | tokens computed | seconds min | median | max | cost: min / plain's |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in names:
        times = seconds[name]
        cost = f"{min(times) / min(seconds['plain']):.2f}" if "plain" in seconds else ""
        figures = f"{min(times):.2f} | {statistics.median(times):.2f} | {max(times):.2f}"
        print(f"| {VARIANTS[name]} | {computed[name]:,} | {figures} | {cost} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
