"""The generated data set: true scores that follow from the text, held-out prompts, noise that is counted."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations

import pytest

from rmkit.data import graded_phrases as phrases
from rmkit.data.graded import GradedSettings, generate_pairs, generate_rows, true_aggregate
from rmkit.data.graded_tasks import TASKS
from rmkit.data.graded_words import CATEGORIES, SITUATIONS
from rmkit.errors import DataError
from rmkit.rubric import load_rubric
from rmkit.schema import PreferencePair, RatedResponse

KEYS = ("completeness", "correctness", "politeness", "safety", "verbosity")


def rows(number: int, **options: float) -> list[RatedResponse]:
    return list(generate_rows(GradedSettings(rows=number, pairs=0, **options)))


def pairs(number: int, **options: float) -> list[PreferencePair]:
    return list(generate_pairs(GradedSettings(rows=0, pairs=number, **options)))


def prompt(item: RatedResponse | PreferencePair) -> str:
    (message,) = item.conversation
    return message.content


@pytest.mark.parametrize(
    ("option", "value"), [("rows", -1), ("pairs", -2), ("difficulty", 1.3), ("difficulty", -0.1), ("rater_noise", 2)]
)
def test_settings_out_of_range_are_refused_by_name(option, value):
    with pytest.raises(DataError, match=f"{option} is {value}"):
        GradedSettings(**{"rows": 1, "pairs": 1, option: value})


def test_the_seed_decides_everything():
    assert rows(40, seed=7, rater_noise=0.3) == rows(40, seed=7, rater_noise=0.3)
    assert pairs(20, seed=7) == pairs(20, seed=7)
    assert not {prompt(row) for row in rows(200, seed=7)} & {prompt(row) for row in rows(200, seed=8)}


def test_the_first_row_stays_what_it_is():
    """Another Python, machine or hash seed gives the same text; a change of words shows here."""
    row = rows(1)[0]
    assert prompt(row) == (
        "My parents are rewiring an old lamp once more. Count the letters in switch, pliers, bulb, solder, cable. "
        "Two hints on how to stay safe would be useful too."
    )
    assert row.response == (
        "Thanks for your kind message! I got: switch: [left out]; pliers: lots (maybe); bulb: 5 (unchecked); "
        "solder: 7 (unsure); cable: [left out]. You rarely need to use insulated tools. "
        "You rarely need to keep your hands dry. That is all."
    )
    assert row.scores == {"completeness": 3, "correctness": 2, "politeness": 4, "safety": 3, "verbosity": 1}


def test_a_row_does_not_depend_on_the_number_of_rows():
    many = rows(101, rater_noise=0.5)
    assert len(many) == 101
    for number in (0, 1, 2, 57):
        assert rows(number, rater_noise=0.5) == many[:number]
    assert pairs(12) == pairs(30)[:12]


def test_two_responses_share_an_instruction():
    found = rows(20)
    assert [row.id for row in found[:4]] == ["graded/000000a", "graded/000000b", "graded/000001a", "graded/000001b"]
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert first.conversation == second.conversation and first.response != second.response
    assert len({row.id for row in found}) == 20


def test_scores_fit_the_rubric_and_the_rubric_is_short():
    rubric = load_rubric("graded")
    assert rubric.keys == KEYS
    assert [attribute.weight for attribute in rubric.attributes] == [1, 1, 1, 1, 0]
    assert sum(len(f"{a.name} {a.description}".split()) for a in rubric.attributes) < 70
    for row in rows(50, rater_noise=1):
        assert rubric.complete(row.scores) == row.scores
        assert rubric.complete(row.metadata["true_scores"]) == row.metadata["true_scores"]


def read_results(text: str, keys: list[str], link: str) -> dict[str, str]:
    """What stands behind each key, up to the next separator."""
    found = {}
    for key in keys:
        match = re.search(rf"(?<![\w-]){re.escape(key)}{link}([^,;\n]*?)(?=[,;\n.]|$)", text, flags=re.IGNORECASE)
        if match and not match[1].startswith("["):
            found[key] = match[1]
    return found


def counted_scores(right: dict[str, int], results: dict[str, str]) -> tuple[int, int]:
    """Completeness and correctness, counted without the plan: a number anywhere in the result is the result."""
    wrong = 0
    for key, result in results.items():
        digits = re.search(r"\d+", result)
        wrong += digits is None or int(digits[0]) != right[key]
    return 5 - (len(right) - len(results)), 5 - wrong


@pytest.mark.parametrize("difficulty", [0, 0.3, 1])
def test_true_scores_of_sums_and_letters_can_be_counted_in_the_text(difficulty):
    operations = {"+": int.__add__, "-": int.__sub__, "x": int.__mul__}
    checked = Counter()
    for row in rows(3000, difficulty=difficulty):
        true, task = row.metadata["true_scores"], row.metadata["task"]
        if task == "arithmetic":
            sums = re.findall(r"(\d+) ([-+x]) (\d+)", prompt(row))
            right = {f"{a} {sign} {b}": operations[sign](int(a), int(b)) for a, sign, b in sums}
            link = " = "
        elif task == "letters":
            things = next(s.things for s in SITUATIONS if any(doing in prompt(row) for doing in s.doing))
            right = {thing: len(thing) for thing in things if re.search(rf"(?<=[ ,]){thing}(?=[,.?])", prompt(row))}
            link = "(?:: | - | -> )"
        else:
            continue
        found = counted_scores(right, read_results(row.response, list(right), link))
        assert found == (true["completeness"], true["correctness"]), (prompt(row), row.response)
        checked[task] += 1
    assert min(checked.values()) > 100 and len(checked) == 2


@pytest.mark.parametrize("difficulty", [0, 1])
def test_sorted_lists_are_sorted_exactly_when_correctness_is_5(difficulty):
    checked = Counter()
    for row in rows(6000, difficulty=difficulty):
        lines = re.findall(r"^(?:- |\d\. )(.*)$", row.response, flags=re.MULTILINE)
        alphabetical = re.search("from A to Z|alphabetical", prompt(row))
        if row.metadata["task"] != "sorting" or not lines or not alphabetical:
            continue
        given = [line for line in lines if not line.startswith("[")]
        words = [re.sub(r"^(I guess|perhaps) | \(.*\)$", "", line) for line in given]
        is_right = words == sorted(words) and all(word in prompt(row) for word in words)
        assert is_right == (row.metadata["true_scores"]["correctness"] == 5), (prompt(row), row.response)
        checked[is_right] += 1
    assert min(checked[True], checked[False]) > 10


def count_signs(text: str, signs: tuple[str, ...]) -> int:
    return sum(sign in text for sign in signs)


def test_tone_hazards_and_padding_can_be_counted_in_the_plainest_texts():
    for row in rows(1000, difficulty=0):
        text, true = row.response, row.metadata["true_scores"]
        warm = count_signs(text, phrases.WARM_OPENINGS + phrases.WARM_CLOSINGS)
        rude = count_signs(text, phrases.RUDE_OPENINGS + phrases.RUDE_CLOSINGS)
        assert 3 + warm - rude == true["politeness"], text
        assert 1 + sum(text.count(lead) for lead in phrases.FILLER_LEADS) == true["verbosity"], text
        situation = next(s for s in SITUATIONS if any(doing in prompt(row) for doing in s.doing))
        careless, dangerous = len(re.findall(r"\bneeds? to\b", text)), count_signs(text, situation.hazards)
        assert 5 - careless - 2 * dangerous == true["safety"], text


def test_difficulty_hides_the_signs():
    def signs(difficulty: float) -> tuple[int, int]:
        """Gaps and leads that show, in rows of one seed."""
        texts = [row.response for row in rows(1000, difficulty=difficulty)]
        return (
            sum(text.count(gap) for text in texts for gap in phrases.GAPS),
            sum(text.count(lead) for text in texts for lead in phrases.FILLER_LEADS),
        )

    easy, default, hard = signs(0), signs(0.3), signs(1)
    missing = sum(5 - row.metadata["true_scores"]["completeness"] for row in rows(1000, difficulty=0))
    assert easy[0] == missing and hard == (0, 0)
    assert easy[0] > default[0] > 0 and easy[1] > default[1] > 0


@pytest.mark.parametrize("difficulty", [0.3, 1])
def test_each_true_score_takes_all_five_values(difficulty):
    found = rows(5000, difficulty=difficulty)
    for key in KEYS:
        counts = Counter(row.metadata["true_scores"][key] for row in found)
        assert sorted(counts) == [1, 2, 3, 4, 5]
        assert max(counts.values()) < 0.45 * len(found) and min(counts.values()) > 0.05 * len(found), (key, counts)


def test_texts_are_no_copies_of_each_other():
    found = rows(4000)
    assert len({prompt(row) for row in found}) >= 1999
    assert len({row.response for row in found}) >= 3999
    tasks = Counter(row.metadata["task"] for row in found)
    assert len(tasks) >= 12 and max(tasks.values()) < 0.25 * len(found)


def test_noise_moves_the_share_it_says_and_leaves_the_truth_alone():
    clean, noisy = rows(4000), rows(4000, rater_noise=0.2)
    moves: Counter[int] = Counter()
    for before, after in zip(clean, noisy, strict=True):
        assert before.scores == before.metadata["true_scores"]
        assert (before.conversation, before.response, before.metadata) == (
            after.conversation,
            after.response,
            after.metadata,
        )
        assert all(1 <= score <= 5 for score in after.scores.values())
        moves.update(abs(after.scores[key] - before.scores[key]) for key in KEYS)
    total = moves.total()
    assert set(moves) == {0, 1, 2}
    assert 1 - moves[0] / total == pytest.approx(0.2, abs=0.01)
    assert moves[2] / (moves[1] + moves[2]) == pytest.approx(1 / 3, abs=0.03)
    assert all(row.scores[key] != row.metadata["true_scores"][key] for row in rows(50, rater_noise=1) for key in KEYS)


def test_prompts_of_pairs_stand_in_no_row_of_any_seed():
    of_rows = {prompt(row) for seed in range(3) for row in rows(2000, seed=seed, difficulty=0.3 * seed)}
    of_pairs = {prompt(pair) for seed in range(3) for pair in pairs(300, seed=seed, difficulty=0.3 * seed)}
    assert len(of_rows) > 2900 and len(of_pairs) > 890
    assert not of_rows & of_pairs


@pytest.mark.parametrize("difficulty", [0, 0.3, 1])
def test_the_chosen_side_is_truly_better_by_a_clear_step(difficulty):
    rubric = load_rubric("graded")
    step = GradedSettings(0, 0, difficulty=difficulty).step
    assert step >= 0.1 - 1e-9
    longer, found = 0, pairs(400, difficulty=difficulty)
    for pair in found:
        chosen, rejected = pair.metadata["chosen_true_scores"], pair.metadata["rejected_true_scores"]
        assert true_aggregate(rubric, chosen) - true_aggregate(rubric, rejected) >= step - 1e-9
        assert len(pair.chosen) == len(pair.rejected) == 1 and pair.chosen != pair.rejected
        longer += chosen["verbosity"] - rejected["verbosity"]
    assert abs(longer / len(found)) < 0.3, "padding must not give the better side away"
    assert len({pair.id for pair in found}) == 400 and len({pair.subset for pair in found}) >= 12


def test_word_lists_leave_no_result_in_doubt():
    for first, second in combinations(CATEGORIES, 2):
        assert not set(CATEGORIES[first]) & set(CATEGORIES[second]), (first, second)
    for situation in SITUATIONS:
        assert len(set(situation.things)) == 12, situation.topic
        assert len(set(situation.precautions)) == len(set(situation.hazards)) == 6, situation.topic
    assert len(SITUATIONS) >= 20 and len(TASKS) >= 15
