"""The tasks of the `graded` data set: what is asked, and which results are right, nearly right or no result at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from rmkit.data import graded_words as words
from rmkit.data.graded_words import Situation


@dataclass(frozen=True, slots=True)
class Part:
    """One asked part of a task.

    Args:
        key: What the result belongs to, such as `12 + 7`; empty where the parts are a plain list.
        right: The right result.
        mistakes: Wrong results that look like right ones.
    """

    key: str
    right: str
    mistakes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """What an instruction asks for, apart from the tips.

    Args:
        name: Kind of task.
        request: The sentences that ask for it.
        parts: The asked parts in the right order.
        link: What stands between key and result: ` = `, `: `, ...
        numeric: Whether results are numbers.
        ordered: Whether a result also has to stand at its place.
        on_topic: Whether it is about the situation at hand, so that no one wonders why it is asked.
    """

    name: str
    request: str
    parts: tuple[Part, ...]
    link: str = ""
    numeric: bool = False
    ordered: bool = False
    on_topic: bool = False


def draft_task(rng: Random, situation: Situation, count: int, names: Sequence[str] | None = None) -> Task:
    """A task of a random kind with `count` parts, 5 to 7, drawn from `rng`; of one of `names` where they are given."""
    return TASKS[rng.choice(names or TASK_NAMES)](rng, situation, count)


def _ask(rng: Random, templates: str, count: int, items: Sequence[str], **fields: str) -> str:
    """One of the templates (separated by `|`), with the number in words and the items filled in."""
    template = rng.choice(templates.split("|"))
    return template.format(n=words.NUMBER_WORDS[count], items=", ".join(items), **fields)


def _link(rng: Random) -> str:
    return rng.choice((": ", " - ", " -> "))


def _near(rng: Random, value: int) -> tuple[str, ...]:
    """Numbers that are close to a value, and above 0."""
    steps = rng.sample((1, 2, 3, 10), 2)
    return tuple(str(value + step if rng.random() < 0.5 or step >= value else value - step) for step in steps)


def _arithmetic(rng: Random, situation: Situation, count: int) -> Task:
    results: dict[str, int] = {}
    while len(results) < count:
        first, second = rng.randint(2, 30), rng.randint(2, 20)
        sign = rng.choice("++--x")
        if sign == "x":
            first, second = rng.randint(2, 12), rng.randint(2, 9)
        if sign == "-" and first <= second:
            first, second = second + 1, first
        results[f"{first} {sign} {second}"] = {"+": first + second, "-": first - second, "x": first * second}[sign]
    request = _ask(
        rng,
        "Work out {items}.|Please solve these {n} sums: {items}.|What do these come to: {items}?|"
        "I need the results of {items}.|Calculate {items} for our budget.|Our bill comes down to {items}; solve it.",
        count,
        list(results),
    )
    parts = tuple(Part(key, str(value), _near(rng, value)) for key, value in results.items())
    return Task("arithmetic", request, parts, " = ", numeric=True)


def _scaling(rng: Random, situation: Situation, count: int) -> Task:
    factor, word = rng.choice(((2, "Double"), (3, "Triple"), (4, "Quadruple")))
    asked, parts = [], []
    for unit, name in rng.sample(words.INGREDIENTS, count):
        amount = rng.choice((50, 80, 100, 120, 150, 200, 250)) if unit else rng.randint(2, 6)
        asked.append(f"{amount} {unit} {name}" if unit else f"{amount} {name}")
        wrong = [str(amount * factor + step) for step in ((10, 20, -10) if unit else (1, 2, -1))] + [str(amount)]
        tail = f" {unit}" if unit else ""
        parts.append(Part(name, f"{amount * factor}{tail}", tuple(value + tail for value in rng.sample(wrong, 2))))
    request = _ask(
        rng,
        "{word} the recipe for our supper: {items}.|{factor} times as many guests come, so {lower} this: {items}.|"
        "The snack for everyone needs {items}. {word} every amount.|To feed us all, {lower} each of {items}.",
        count,
        asked,
        word=word,
        lower=word.lower(),
        factor=words.MULTIPLES[factor].capitalize(),
    )
    return Task("scaling", request, tuple(parts), _link(rng), numeric=True, on_topic=True)


def _letters(rng: Random, situation: Situation, count: int) -> Task:
    chosen = rng.sample(situation.things, count)
    request = _ask(
        rng,
        "How many letters has each of these words: {items}?|Count the letters in {items}.|"
        "For the labels, count the letters of {items}.|Tell me how long these {n} words are, in letters: {items}.",
        count,
        chosen,
    )
    parts = tuple(Part(word, str(len(word)), (str(len(word) + 1), str(len(word) - 1))) for word in chosen)
    return Task("letters", request, parts, _link(rng), numeric=True, on_topic=True)


def _tally(rng: Random, situation: Situation, count: int) -> Task:
    chosen = rng.sample(situation.things, count)
    counts = [rng.choice((1, 1, 2, 2, 3, 4)) for _ in chosen]
    listed = [word for word, number in zip(chosen, counts, strict=True) for _ in range(number)]
    rng.shuffle(listed)
    request = _ask(
        rng,
        "The box holds {items}. How many of each?|Count how often each word stands here: {items}.|"
        "I noted {items}. Make a tally of it.|How many of each are there: {items}?",
        count,
        listed,
    )
    parts = tuple(
        Part(word, str(number), (str(number + 1), str(number - 1 or 3)))
        for word, number in zip(chosen, counts, strict=True)
    )
    return Task("counting", request, parts, _link(rng), numeric=True, on_topic=True)


def _alphabet(rng: Random, situation: Situation, count: int) -> Task:
    chosen = rng.sample(situation.things, count + 2)
    chosen, others = chosen[:count], tuple(chosen[count:])
    last_first = rng.random() < 0.25
    order = "from Z to A" if last_first else rng.choice(("from A to Z", "alphabetically", "in alphabetical order"))
    request = _ask(
        rng,
        "Sort {items} {order}.|Put these {n} things {order}: {items}.|I would like our list {order}: {items}.|"
        "Please arrange {items} {order}.|Our packing list is {items}. Write it {order}.",
        count,
        chosen,
        order=order,
    )
    parts = tuple(Part("", word, others) for word in sorted(chosen, reverse=last_first))
    return Task("sorting", request, parts, ordered=True, on_topic=True)


def _prices(rng: Random, situation: Situation, count: int) -> Task:
    chosen = rng.sample(situation.things, count + 2)
    chosen, others = chosen[:count], tuple(chosen[count:])
    prices = dict(zip(chosen, rng.sample(range(2, 60), count), strict=True))
    dearest_first = rng.random() < 0.5
    order = "from the dearest to the cheapest" if dearest_first else "from the cheapest to the dearest"
    request = _ask(
        rng,
        "The shop has {items}, prices in euros. Sort them {order}.|Order these {n} things {order}: {items}.|"
        "We were offered {items}. List them {order}.",
        count,
        [f"{word} {price}" for word, price in prices.items()],
        order=order,
    )
    ranked = sorted(chosen, key=prices.__getitem__, reverse=dearest_first)
    parts = tuple(Part("", word, others) for word in ranked)
    return Task("sorting", request, parts, ordered=True, on_topic=True)


def _listing(rng: Random, situation: Situation, count: int) -> Task:
    category, other = rng.sample(sorted(words.CATEGORIES), 2)
    request = _ask(
        rng,
        "For a quiz, name {n} {category}.|List {n} {category} for a word game.|I need {n} {category} as team names.|"
        "The children want to know {n} {category}.|Give me {n} examples of {category} for our puzzle.|"
        "Please write down {n} {category}; we play a guessing game.",
        count,
        (),
        category=category,
    )
    members = rng.sample(words.CATEGORIES[category], count)
    parts = tuple(Part("", word, tuple(rng.sample(words.CATEGORIES[other], 2))) for word in members)
    return Task("listing", request, parts)


def _grouping(rng: Random, situation: Situation, count: int) -> Task:
    first, second = rng.sample(sorted(words.CATEGORIES), 2)
    chosen = [(word, group) for group in (first, second) for word in words.CATEGORIES[group]]
    chosen = rng.sample(chosen, count)
    request = _ask(
        rng,
        "Sort these into {first} and {second}: {items}.|Which are {first}, which are {second}: {items}?|"
        "Our cards say {items}. Mark each as one of {first} or {second}.|Group {items} into {first} and {second}.",
        count,
        [word for word, _ in chosen],
        first=first,
        second=second,
    )
    single = {first: first.removesuffix("s"), second: second.removesuffix("s")}
    other = {first: single[second], second: single[first]}
    parts = tuple(Part(word, single[group], (other[group],)) for word, group in chosen)
    return Task("grouping", request, parts, _link(rng))


def _lookup(name: str, table: Sequence[tuple[str, ...]], templates: str) -> Callable[[Random, Situation, int], Task]:
    """A task that asks for the second column of a table; the third, or another row's second, is the mistake."""

    def draft(rng: Random, situation: Situation, count: int) -> Task:
        chosen = rng.sample(table, count)
        parts = []
        for key, right, *mistakes in chosen:
            others = [row[1] for row in rng.sample(table, 3) if row[1] != right]
            parts.append(Part(key, right, (*mistakes, *others)[:2]))
        return Task(name, _ask(rng, templates, count, [row[0] for row in chosen]), tuple(parts), _link(rng))

    return draft


def _past(rng: Random, situation: Situation, count: int) -> Task:
    asked, parts = [], []
    for name, (present, past, mistake) in zip(
        rng.sample(words.NAMES, count), rng.sample(words.PAST, count), strict=True
    ):
        asked.append(f"{name} {present}")
        parts.append(Part("", f"{name} {past}", (f"{name} {mistake}", f"{name} {present}")))
    request = _ask(
        rng,
        "Rewrite these lines in the past tense: {items}.|My diary should be in the past tense: {items}. Rewrite it.|"
        "Put {items} into the past.|Turn each of these {n} lines into the past tense: {items}.",
        count,
        asked,
    )
    return Task("rewriting", request, tuple(parts))


def _conversion(rng: Random, situation: Situation, count: int) -> Task:
    unit, target, factor = rng.choice(words.UNITS)
    amounts = rng.sample(range(2, 30), count)
    request = _ask(
        rng,
        "Convert {items} {unit} into {target}.|How many {target} are {items} {unit}, each on its own?|"
        "Our plan says {items} {unit}. Give each in {target}.|Give these {n} amounts of {unit} in {target}: {items}.",
        count,
        [str(amount) for amount in amounts],
        unit=unit,
        target=target,
    )
    parts = tuple(
        Part(str(amount), str(amount * factor), (str(amount * factor * 10), str(amount * factor + amount)))
        for amount in amounts
    )
    return Task("conversion", request, parts, _link(rng), numeric=True)


def _note(rng: Random, situation: Situation, count: int) -> Task:
    hours = rng.sample(range(1, 12), 3)
    fields = {
        "day": rng.sample(words.DAYS, 3),
        "time": [f"{hour} pm" for hour in hours],
        "place": rng.sample(words.PLACES, 3),
        "cost": [f"{price} euros" for price in rng.sample(range(2, 30), 3)],
        "bring": [f"one {thing}" for thing in rng.sample(situation.things, 3)],
        "ask": rng.sample(words.NAMES, 3),
        "places left": [str(number) for number in rng.sample(range(3, 40), 3)],
    }
    keys = rng.sample(sorted(fields), count)
    request = _ask(
        rng,
        "Write a short notice about it with these {n} facts: {items}.|Draft an invitation that says {items}.|"
        "Our poster must mention {items}. Write it.|Text the others about it and include {items}.",
        count,
        [f"{key} {fields[key][0]}" for key in keys],
    )
    parts = tuple(Part(key, fields[key][0], tuple(fields[key][1:])) for key in keys)
    return Task("notice", request, parts, ": ", on_topic=True)


TASKS: dict[str, Callable[[Random, Situation, int], Task]] = {
    "alphabet": _alphabet,
    "arithmetic": _arithmetic,
    "capitals": _lookup(
        "capitals",
        words.CAPITALS,
        "Name the capitals of {items}.|For a quiz we need the capitals of {items}.|"
        "What are the capital cities of {items}?|Fill in the capital of each: {items}.",
    ),
    "conversion": _conversion,
    "formal": _lookup(
        "rewriting",
        words.FORMAL_WORDS,
        "Replace each of these with a more formal word: {items}.|My letter is too casual. Make these formal: {items}.|"
        "Give a formal word for each of {items}.|Rewrite these {n} words in a formal style: {items}.",
    ),
    "grouping": _grouping,
    "letters": _letters,
    "listing": _listing,
    "note": _note,
    "opposites": _lookup(
        "opposites",
        words.OPPOSITES,
        "What is the opposite of each: {items}?|Give the opposites of {items} for a word game.|"
        "Find the opposite of {items}, one by one.|We need {n} opposites, namely of {items}.",
    ),
    "past": _past,
    "plurals": _lookup(
        "rewriting",
        words.PLURALS,
        "Write the plural of {items}.|How do you spell the plurals of {items}?|"
        "Our sign lists {items}. Rewrite each in the plural.|Turn these {n} words into plurals: {items}.",
    ),
    "prices": _prices,
    "scaling": _scaling,
    "tally": _tally,
}
TASK_NAMES = tuple(sorted(TASKS))
