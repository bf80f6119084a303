"""Responses of the policy's start, rated by the true rule, as rows for a judge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from instructions import SETTINGS, draft_instructions
from policy import write_responses
from transformers import AutoModelForCausalLM, AutoTokenizer
from true_scores import read_true_scores

from rmkit.data.graded import generate_rows
from rmkit.preparation.folder import RATED_FILES, write_prepared
from rmkit.rubric import load_rubric
from rmkit.schema import RatedResponse

SOURCE = "sampled"


def write_data(start: Path, output: Path, rows: int, samples: int) -> None:
    """Write a prepared folder: the generated rows that `prepare.py` gives, and responses of the start beside them.

    Args:
        start: The policy that responds.
        output: The folder.
        rows: Number of generated rows.
        samples: Number of the start's responses, each to an instruction of its own.
    """
    origin = {"dataset": "graded", "source": {"name": "generator and policy", "rows": rows, "samples": samples}}
    generated = generate_rows(replace(SETTINGS, rows=rows))
    outcomes = ((row,) for row in chain(generated, sample_rows(start, samples)))
    rubric = load_rubric("graded")
    write_prepared(output, outcomes, RATED_FILES, rubric, seed=0, validation_fraction=0.05, origin=origin)


def sample_rows(start: Path, count: int) -> Iterator[RatedResponse]:
    """Responses of a policy with their true scores, which people would have to give where no rule does.

    An empty response is left out, for a judge is never asked about one.
    """
    torch.set_num_threads(1)
    instructions = draft_instructions("samples", count)
    model: Any = AutoModelForCausalLM.from_pretrained(start)
    tokenizer: Any = AutoTokenizer.from_pretrained(start, padding_side="left")
    responses = write_responses(model, tokenizer, instructions, seed=1)
    for number, (instruction, response) in enumerate(zip(instructions, responses, strict=True)):
        if not response.strip():
            continue
        yield RatedResponse(
            id=f"{SOURCE}/{number:06d}",
            source=SOURCE,
            conversation=instruction.conversation,
            response=response,
            scores=read_true_scores(instruction, response).scores,
        )
