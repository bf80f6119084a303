"""`graded`: generated instructions, and responses degraded by known amounts, so that every true score is known.

Each response is planned first (how many parts are missing, how many results wrong, how warm, how dangerous,
how wordy) and written after that plan. The true scores follow from the plan alone, see `Plan.scores`; they
never depend on the words chosen. What makes a set harder is how little of the plan shows on the surface.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from random import Random

from rmkit.data import graded_phrases as phrases
from rmkit.data.graded_tasks import Task, draft_task
from rmkit.data.graded_words import SITUATIONS, Situation
from rmkit.errors import DataError
from rmkit.rubric import Rubric, load_rubric
from rmkit.schema import Conversation, Message, PreferencePair, RatedResponse
from rmkit.scores import ScoreDistribution, aggregate

SOURCE = "graded"
_HELD_OUT_SHARE = 8  # one prompt in eight may stand in a pair, the others in a row


@dataclass(frozen=True, slots=True)
class GradedSettings:
    """What to generate.

    Args:
        rows: Number of rated responses, two to each instruction.
        pairs: Number of held-out pairs; no instruction of theirs stands in a row, of any seed.
        seed: Instruction i depends on the seed and i alone, not on the number of rows.
        difficulty: In [0, 1]. A fault, a tone or an empty phrase shows by a plain sign with probability
            1 - difficulty squared. Otherwise it has to be found out: a result is wrong or missing without
            a word, a danger is worded like a tip. Lists get longer, right results are doubted more
            often, and the two sides of a pair come closer.
        rater_noise: In [0, 1]. The probability that a rater's score is off: by one in two cases of
            three, else by two. The true scores in `metadata` stay as they are.

    Raises:
        DataError: For a negative number, or a share outside [0, 1].
    """

    rows: int
    pairs: int
    seed: int = 0
    difficulty: float = 0.3
    rater_noise: float = 0.0

    def __post_init__(self) -> None:
        for option in ("rows", "pairs"):
            if getattr(self, option) < 0:
                raise DataError(f"graded: {option} is {getattr(self, option)}; it must be 0 or more")
        for option in ("difficulty", "rater_noise"):
            if not 0 <= getattr(self, option) <= 1:
                raise DataError(f"graded: {option} is {getattr(self, option)}; it must lie between 0 and 1")

    @property
    def visible(self) -> float:
        """Probability that a fault, a tone or an empty phrase shows by a plain sign."""
        return 1 - self.difficulty**2

    @property
    def doubt(self) -> float:
        """Probability that a right result is doubted all the same."""
        return 0.2 * self.difficulty**2

    @property
    def step(self) -> float:
        """Least difference, in [0, 1], between the true aggregates of a pair."""
        return 0.25 - 0.15 * self.difficulty


@dataclass(frozen=True, slots=True)
class Plan:
    """How a response is degraded.

    Args:
        missing: Asked parts that are left out, 0 to 4.
        wrong: Results that are wrong, 0 to 4.
        tones: Of the two remarks to the user: 1 warm, 0 plain, -1 rude.
        hazards: Of the two tips: 0 safe, 1 careless, 2 dangerous.
        fillers: Empty phrases, 0 to 4.
    """

    missing: int
    wrong: int
    tones: tuple[int, int]
    hazards: tuple[int, int]
    fillers: int

    @property
    def scores(self) -> dict[str, int]:
        """The true scores, 1 to 5: the rule that the rubric `graded` states."""
        return {
            "completeness": 5 - self.missing,
            "correctness": 5 - self.wrong,
            "politeness": 3 + sum(self.tones),
            "safety": 5 - sum(self.hazards),
            "verbosity": 1 + self.fillers,
        }


# Splits of a total into two, the likely ones more than once.
_TONES = {2: [(1, 1)], 1: [(1, 0), (0, 1)], 0: [(0, 0), (0, 0), (1, -1)], -1: [(-1, 0), (0, -1)], -2: [(-1, -1)]}
_HAZARDS = {0: [(0, 0)], 1: [(1, 0)], 2: [(1, 1), (2, 0)], 3: [(2, 1)], 4: [(2, 2)]}


def draw_plan(rng: Random, parts: int) -> Plan:
    """A random plan for an instruction with `parts` asked parts; at least one result is given."""
    missing = rng.choices(range(5), (26, 22, 20, 17, 15))[0]
    wrong = rng.randint(0, min(4, parts - missing))
    hazards = rng.choice(_HAZARDS[rng.randint(0, 4)])
    return Plan(
        missing=missing,
        wrong=wrong,
        tones=rng.choice(_TONES[rng.randint(-2, 2)]),
        hazards=hazards if rng.random() < 0.5 else (hazards[1], hazards[0]),
        fillers=rng.choices(range(5), (24, 22, 20, 18, 16))[0],
    )


def true_aggregate(rubric: Rubric, scores: dict[str, int]) -> float:
    """The aggregate in [0, 1] of true scores under the rubric's weights."""
    return aggregate(rubric, {key: ScoreDistribution((score,), (1.0,)) for key, score in scores.items()})


def generate_rows(settings: GradedSettings) -> Iterator[RatedResponse]:
    """Rated responses, two to each instruction, with ids `graded/000012a` and `graded/000012b`.

    `scores` are the rater's; `metadata` holds the task, the true scores, and the plan they follow from.
    """
    for index in range((settings.rows + 1) // 2):
        rng = Random(f"{settings.seed}/rows/{index}")
        rater = Random(f"{settings.seed}/rater/{index}")  # its own stream: noise leaves the texts alone
        instruction = draft_instruction(rng, settings, held_out=False)
        for side in "ab"[: settings.rows - 2 * index]:
            plan = draw_plan(rng, len(instruction.task.parts))
            yield RatedResponse(
                id=f"{SOURCE}/{index:06d}{side}",
                source=SOURCE,
                conversation=instruction.conversation,
                response=write_response(rng, settings, instruction, plan),
                scores={key: _rate(rater, score, settings.rater_noise) for key, score in plan.scores.items()},
                metadata={"task": instruction.task.name, "true_scores": plan.scores, "plan": asdict(plan)},
            )


def generate_pairs(settings: GradedSettings) -> Iterator[PreferencePair]:
    """Held-out pairs whose chosen side is truly better by at least `settings.step`; the subset is the task."""
    rubric = load_rubric(SOURCE)
    for index in range(settings.pairs):
        rng = Random(f"{settings.seed}/pairs/{index}")
        instruction = draft_instruction(rng, settings, held_out=True)
        gap = 0.0
        while abs(gap) < settings.step - 1e-9:
            plans = [draw_plan(rng, len(instruction.task.parts)) for _ in range(2)]
            gap = true_aggregate(rubric, plans[0].scores) - true_aggregate(rubric, plans[1].scores)
        chosen, rejected = plans if gap > 0 else reversed(plans)
        yield PreferencePair(
            id=f"{SOURCE}-pairs/{index:06d}",
            subset=instruction.task.name,
            conversation=instruction.conversation,
            chosen=(write_response(rng, settings, instruction, chosen),),
            rejected=(write_response(rng, settings, instruction, rejected),),
            metadata={"chosen_true_scores": chosen.scores, "rejected_true_scores": rejected.scores},
        )


def _rate(rater: Random, score: int, noise: float) -> int:
    """A rater's score, 1 to 5. A move that would leave the scale goes the other way, so that it is one."""
    moves, by_two, up = (rater.random() for _ in range(3))
    if moves >= noise:
        return score
    step = 2 if by_two < 1 / 3 else 1
    target = score + (step if up < 0.5 else -step)
    return target if 1 <= target <= 5 else 2 * score - target


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction, and what a right answer to it needs.

    Args:
        conversation: One user turn: the scene, the task's request, and the request for two tips.
        situation: Gives the topic, and the tips that are safe and those that are not.
        task: Gives the asked parts and their right results.
    """

    conversation: Conversation
    situation: Situation
    task: Task


def draft_instruction(
    rng: Random,
    settings: GradedSettings,
    held_out: bool,
    situations: Sequence[Situation] = SITUATIONS,
    tasks: Sequence[str] | None = None,
) -> Instruction:
    """A random instruction.

    Args:
        rng: Draws it.
        settings: Its difficulty counts.
        held_out: Whether it is one of those for pairs, which stand in no row of any seed.
        situations: Those it may be about.
        tasks: Those it may ask for, of `TASK_NAMES`; all by default.
    """
    # The prompt's own hash says on which side it may stand, so no seed can put it on both.
    while True:
        situation = rng.choice(situations)
        count = 5 if rng.random() >= settings.difficulty / 2 else rng.choice((6, 7))
        task = draft_task(rng, situation, count, tasks)
        scene = f"{rng.choice(phrases.PEOPLE)} {rng.choice(situation.doing)} {rng.choice(phrases.TIMES)}."
        aside = [] if task.on_topic else [rng.choice(phrases.ASIDES)]
        tips = rng.choice(phrases.TIP_REQUESTS).format(situation.topic)
        sentences = [scene, *aside, task.request, tips]
        if rng.random() < 0.25:
            sentences.append(rng.choice(phrases.CONSTRAINTS))
        prompt = " ".join(sentences)
        if (zlib.crc32(prompt.encode()) % _HELD_OUT_SHARE == 0) == held_out:
            return Instruction((Message("user", prompt),), situation, task)


def write_response(rng: Random, settings: GradedSettings, instruction: Instruction, plan: Plan) -> str:
    """A response to the instruction, degraded as planned; `plan.scores` are its true scores."""
    situation = instruction.situation
    results, is_list = _write_results(rng, settings, instruction.task, plan)
    tips = _write_tips(rng, settings, situation, plan.hazards)
    before, after = (tips, []) if rng.random() < 0.15 else ([], tips)
    for filler in _write_fillers(rng, settings, situation.topic, plan.fillers):
        side = rng.choice((before, after))
        side.insert(rng.randint(0, len(side)), filler)
    opening, closing = _write_tones(rng, settings, plan.tones)
    blocks = (" ".join(opening + before), results, " ".join(after + closing))
    return ("\n" if is_list else " ").join(filter(None, blocks))


def _write_results(rng: Random, settings: GradedSettings, task: Task, plan: Plan) -> tuple[str, bool]:
    """The results as text, and whether they stand on lines of their own."""
    missing = set(rng.sample(range(len(task.parts)), plan.missing))
    given = [index for index in range(len(task.parts)) if index not in missing]
    wrong = rng.sample(given, plan.wrong)
    values = {index: task.parts[index].right for index in given}
    if task.ordered and len(wrong) > 1:
        places = dict(zip(wrong, wrong[1:] + wrong[:1], strict=True))
        values |= {index: task.parts[place].right for index, place in places.items()}
    else:
        values |= {index: rng.choice(task.parts[index].mistakes) for index in wrong}
    lines = []
    gap = rng.choice(phrases.GAPS)
    for index, part in enumerate(task.parts):
        value = values.get(index)
        shows = rng.random() < settings.visible
        if value is None:
            value = gap if shows else None
        elif (index in wrong and shows) or (index not in wrong and rng.random() < settings.doubt):
            if index in wrong and rng.random() < 0.25:
                value = rng.choice(phrases.VAGUE_NUMBERS if task.numeric else phrases.VAGUE_WORDS)
            value = rng.choice(phrases.DOUBTS).format(value)
        if value is not None:
            lines.append(part.key + task.link + value)
    layout = rng.choice(("inline", "inline", "inline", "numbers", "dashes"))
    if layout == "inline":
        text = rng.choice(phrases.LEAD_INS) + rng.choice((", ", ", ", "; ")).join(lines)
        return _capital(text) + ("" if text.endswith(".") else "."), False
    marks = [f"{number}. " if layout == "numbers" else "- " for number in range(1, len(lines) + 1)]
    return "\n".join(mark + line for mark, line in zip(marks, lines, strict=True)), True


def _write_tips(rng: Random, settings: GradedSettings, situation: Situation, hazards: tuple[int, int]) -> list[str]:
    precautions, dangers = rng.sample(situation.precautions, 2), rng.sample(situation.hazards, 2)
    tips = []
    for hazard in hazards:
        shows = rng.random() < settings.visible
        if hazard == 2:
            frames, phrase = (phrases.DANGEROUS_TIPS if shows else phrases.DANGEROUS_HINTS), dangers.pop()
        elif hazard == 1:
            frames, phrase = (phrases.CARELESS_TIPS if shows else phrases.CARELESS_HINTS), precautions.pop()
        elif rng.random() < settings.difficulty / 2:
            frames, phrase = phrases.WARNINGS, dangers.pop()
        else:
            frames, phrase = phrases.SAFE_TIPS, precautions.pop()
        tips.append(_capital(rng.choice(frames).format(phrase)))
    return tips


def _write_fillers(rng: Random, settings: GradedSettings, topic: str, count: int) -> list[str]:
    leads, fillers = rng.sample(phrases.FILLER_LEADS, count), rng.sample(phrases.FILLERS, count)
    return [
        _capital((f"{lead} " if rng.random() < settings.visible else "") + filler.replace("{}", topic) + ".")
        for lead, filler in zip(leads, fillers, strict=True)
    ]


# Phrases by tone: the plain signs, and the ones that share their words with the opposite tone.
_ByTone = dict[int, tuple[tuple[str, ...], tuple[str, ...]]]
_OPENINGS: _ByTone = {
    1: (phrases.WARM_OPENINGS, phrases.FAINT_WARM_OPENINGS),
    0: (phrases.PLAIN_OPENINGS, phrases.PLAIN_OPENINGS),
    -1: (phrases.RUDE_OPENINGS, phrases.FAINT_RUDE_OPENINGS),
}
_CLOSINGS: _ByTone = {
    1: (phrases.WARM_CLOSINGS, phrases.FAINT_WARM_CLOSINGS),
    0: (phrases.PLAIN_CLOSINGS, phrases.PLAIN_CLOSINGS),
    -1: (phrases.RUDE_CLOSINGS, phrases.FAINT_RUDE_CLOSINGS),
}


def _write_tones(rng: Random, settings: GradedSettings, tones: tuple[int, int]) -> tuple[list[str], list[str]]:
    """The remarks before and after everything else: one at each end, or both at one."""
    ends: tuple[list[str], list[str]] = ([], [])
    for tone, end in zip(tones, rng.choice(((0, 1), (0, 1), (0, 0), (1, 1))), strict=True):
        if tone == 0 and (ends[end] or rng.random() < 0.6):
            continue
        plain, faint = (_OPENINGS, _CLOSINGS)[end][tone]
        choices = plain if rng.random() < settings.visible else faint
        ends[end].append(rng.choice([phrase for phrase in choices if phrase not in ends[end]]))
    return ends


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
