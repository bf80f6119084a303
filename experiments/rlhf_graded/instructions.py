"""What the policy is asked, and the responses of all qualities that it first learns from."""

from __future__ import annotations

from random import Random
from typing import Any

from rmkit.data import graded_words
from rmkit.data.graded import GradedSettings, Instruction, draft_instruction, draw_plan, write_response

TASKS = ("listing",)
"""Lists of words of one of twelve categories: so small a policy can do that, and can't copy what prompts name."""

SITUATIONS = tuple(situation for situation in graded_words.SITUATIONS if situation.topic == "cooking")
"""One, so that there are twelve tips to know."""

SETTINGS = GradedSettings(
    rows=0, pairs=0
)  # the difficulty that `--dataset graded` has by default, which the judge learnt


def draft_instructions(stream: str, count: int, held_out: bool = False) -> list[Instruction]:
    """Distinct instructions of `TASKS` and `SITUATIONS`.

    Args:
        stream: Names the random numbers; another name gives other instructions.
        count: How many; the first ones do not depend on it.
        held_out: Whether they are of the kind that stands in no training row of the generated data.
    """
    rng = Random(f"rlhf_graded/{stream}")
    found: dict[str, Instruction] = {}
    while len(found) < count:
        instruction = draft_instruction(rng, SETTINGS, held_out, SITUATIONS, TASKS)
        found.setdefault(prompt_text(instruction), instruction)
    return list(found.values())


def prompt_text(instruction: Instruction) -> str:
    """The one user turn, which tells instructions apart."""
    return instruction.conversation[0].content


def prompt_row(instruction: Instruction) -> dict[str, Any]:
    """The instruction as a row of TRL's prompt-only data sets."""
    return {"prompt": [message.to_dict() for message in instruction.conversation]}


def first_lessons(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows of TRL's prompt-completion form: responses of all qualities, as the generated data has them."""
    rows = []
    for number, instruction in enumerate(draft_instructions(f"lessons/{seed}", count)):
        rng = Random(f"rlhf_graded/lessons/{seed}/{number}")
        response = write_response(rng, SETTINGS, instruction, draw_plan(rng, len(instruction.task.parts)))
        rows.append({**prompt_row(instruction), "completion": [{"role": "assistant", "content": response}]})
    return rows
