"""What rows teach that rate some attributes only, where a judge is asked for all of them.

    python experiments/unrated_attributes/run.py --rows 3200

A response holds five marker words, each zero to four times, and other words; an attribute's score is its word's count
plus one. Half of the conversations are rated on the first, third and fifth attribute, the others on the second and
fourth. A small random model learns from them with `fill_unrated` off (an attribute without a rating is left out of the
sequence) and on (written, not trained), and from rows that rate all five. Printed is the mean absolute error of the
expected score of new responses, asked for all five in order.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from transformers import PreTrainedModel

from rmkit.engines.transformers import TransformersEngine
from rmkit.judge import Judge
from rmkit.judge_encoder import JudgeEncoder
from rmkit.losses import LossSettings
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Message, RatedResponse
from rmkit.training.collation import JudgeCollator
from rmkit.training.examples import Example, encode_example
from rmkit.training.head import CompletionHead, judge_loss
from rmkit.training.tiny_model import build_tiny_model, train_tokenizer

WORDS = {"completeness": "so", "correctness": "yes", "politeness": "thanks", "safety": "care", "verbosity": "very"}
RUBRIC = Rubric("marks", tuple(Attribute(key, key.capitalize()) for key in WORDS))
HALVES = (("completeness", "politeness", "verbosity"), ("correctness", "safety"))
ARMS = {"left out": False, "written, not trained": True, "all rated": True}
SETTINGS = LossSettings("dist2", alpha=1.0)
BATCH, EPOCHS, TEST_ROWS = 8, 2, 300


def main(argv: Sequence[str] | None = None) -> int:
    """Train one judge for each arm, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3200, help="training rows (default: 3200)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and order (default: 0)")
    args = parser.parse_args(argv)
    rows, test = generate(args.rows, 1), generate(TEST_ROWS, 2)
    texts = [f"{row.conversation[0].content} {row.response}" for row in rows[:2000]]
    texts += ["Judge the response to the conversation below. " + ": 1-5 ".join(map(str.capitalize, WORDS))] * 50
    tokenizer = train_tokenizer(texts, 512)
    encoder = JudgeEncoder(tokenizer, RUBRIC)
    print(f"{'rows':22}" + "".join(f"{key:>14}" for key in RUBRIC.keys))
    for name, fill in ARMS.items():
        kept = [row if name == "all rated" else halve(row, n // 2 % 2) for n, row in enumerate(rows)]
        model = build_tiny_model(tokenizer, layers=2, width=64, max_length=1024, seed=args.seed)
        train(model, [encode_example(encoder, row, fill=fill) for row in kept], args.seed)
        judge = Judge(encoder, TransformersEngine(model.eval()))
        judged = judge.score([row.conversation for row in test], [row.response for row in test])
        errors = {
            key: np.mean([abs(j.attributes[key].mean - row.scores[key]) for j, row in zip(judged, test, strict=True)])
            for key in RUBRIC.keys
        }
        print(f"{name:22}" + "".join(f"{error:14.3f}" for error in errors.values()), flush=True)
    return 0


def generate(count: int, seed: int) -> list[RatedResponse]:
    """Rated rows; correctness is completeness in one of two."""
    rng, rows = random.Random(seed), []
    for n in range(count):
        scores = {key: rng.randint(1, 5) for key in WORDS}
        if rng.random() < 0.5:
            scores["correctness"] = scores["completeness"]
        words = [word for key, word in WORDS.items() for _ in range(scores[key] - 1)]
        words += rng.choices("the a it and we go".split(), k=rng.randint(1, 8))
        rng.shuffle(words)
        rows.append(RatedResponse(f"marks/{n}", "marks", (Message("user", "Hi"),), " ".join(words), scores))
    return rows


def halve(row: RatedResponse, half: int) -> RatedResponse:
    """The row with the ratings of one half of the attributes."""
    return replace(row, scores={key: score for key, score in row.scores.items() if key in HALVES[half]})


def train(model: PreTrainedModel, examples: Sequence[Example], seed: int) -> None:
    """Two epochs of AdamW."""
    head, collate = CompletionHead(model), JudgeCollator(0, SETTINGS)
    order = list(examples)
    random.Random(seed).shuffle(order)
    batches = [order[start : start + BATCH] for start in range(0, len(order) - BATCH + 1, BATCH)] * EPOCHS
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=len(batches), pct_start=0.05)
    for batch in batches:
        judge_loss(model, collate(batch), SETTINGS, head).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    raise SystemExit(main())
