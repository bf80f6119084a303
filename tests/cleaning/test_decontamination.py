from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

import pytest

from rmkit.cleaning.benchmarks import Benchmark, read_benchmark
from rmkit.cleaning.decontamination import PromptIndex
from rmkit.cleaning.drop import Drop
from rmkit.errors import DataError
from rmkit.schema import Message, RatedResponse

QUESTION = "How many kilometres of coast does the island have, and who measured them first?"


def row(*turns: str) -> RatedResponse:
    """A row with these user turns, answered in between."""
    messages = [m for turn in turns for m in (Message("user", turn), Message("assistant", "Well."))]
    return RatedResponse("r", "s", tuple(messages[:-1]), "An answer.", {"overall": 3})


def benchmark(*prompts: str | tuple[str, ...], name: str = "bench") -> Benchmark:
    conversations = [row(*([prompt] if isinstance(prompt, str) else prompt)).conversation for prompt in prompts]
    return Benchmark(name, tuple((f"p{number}", found) for number, found in enumerate(conversations)))


def method(index: PromptIndex, *turns: str) -> str | None:
    found = index.find(row(*turns))
    return None if found is None else found.method


def spell_differently(rng: Random, text: str) -> str:
    text = rng.choice((str.upper, str.lower, str.title, str.swapcase))(text)
    for mark in ".,;:?!'\"`-":
        text = text.replace(mark, rng.choice(("", " " + mark, mark + mark, mark)))
    return rng.choice(("  ", "\n")).join(text.split(" ")) + rng.choice(("", "!!", " ...", "?"))


def planted(
    prompts: Iterable[str], add_sentence: Callable[[Random, str], str], seed: int
) -> list[tuple[str, str, str]]:
    """Kind, prompt and text of each planted row."""
    rng = Random(seed)
    kinds: dict[str, Callable[[str], str]] = {
        "verbatim": str,
        "spelling": lambda prompt: spell_differently(rng, prompt),
        "sentence": lambda prompt: add_sentence(rng, prompt),
    }
    return [(kind, prompt, change(prompt)) for prompt in prompts for kind, change in kinds.items()]


def count_hits(
    index: PromptIndex, rows: list[tuple[str, str, str]], unrelated: Iterable[str]
) -> tuple[Counter[str], list[str]]:
    """Planted rows that are found with their own prompt, by kind; and what is found in unrelated rows."""
    right: Counter[str] = Counter()
    for kind, prompt, text in rows:
        found = index.find(row(text))
        right[kind] += found is not None and found.benchmark_text == prompt
    wrong = [found.row_text for text in unrelated if (found := index.find(row(text)))]
    return right, wrong


def test_planted_prompts_are_found_and_others_are_not(
    make_prompts: Callable[[int, int], list[str]], add_sentence: Callable[[Random, str], str]
) -> None:
    prompts = make_prompts(400, 1)
    unrelated = make_prompts(400, 2)
    index = PromptIndex([benchmark(*prompts)])
    right, wrong = count_hits(index, planted(prompts, add_sentence, 3), unrelated)
    print(right, len(wrong))
    assert all(right[kind] / 400 >= 0.98 for kind in ("verbatim", "spelling", "sentence"))
    assert right.total() / (right.total() + len(wrong)) >= 0.98


def test_unrelated_prompts_give_no_hit() -> None:
    index = PromptIndex(
        [benchmark(*(f"Tell me what the {n}th letter sent from the harbour said." for n in range(40)))]
    )
    texts = [
        "Which rivers cross three borders?",
        "Write a haiku about rust.",
        "Hello",
        "Sum 3, 4 and 5 for me, please.",
    ]
    assert [index.find(row(text)) for text in texts] == [None] * 4


def test_real_planted_prompts(
    shared: Path, add_sentence: Callable[[Random, str], str], caplog: pytest.LogCaptureFixture
) -> None:
    sample = read_benchmark(f"reward_bench={shared}/data/reward_bench_sample/filtered_sample.jsonl")
    judge_bench = read_benchmark(f"{shared}/data/judgebench/claude_minus_gpt_questions.jsonl.gz")
    assert (len(sample.prompts), len(judge_bench.prompts), caplog.records) == (248, 179, [])
    index = PromptIndex([sample, judge_bench])
    prompts = list(dict.fromkeys(m.content for b in (sample, judge_bench) for _, c in b.prompts for m in c))
    others = read_benchmark(f"{shared}/data/ultrafeedback_binarized/train_clean.jsonl.gz", "prompt")
    unrelated = [conversation[0].content for _, conversation in others.prompts]
    assert len(prompts) > 380 and len(unrelated) == 1000
    right, wrong = count_hits(index, planted(prompts, add_sentence, 4), unrelated)
    print(right, len(prompts))
    assert wrong == []
    assert all(right[kind] / len(prompts) >= 0.98 for kind in ("verbatim", "spelling", "sentence"))


def test_seven_questions_of_mt_bench_stand_in_reward_bench(shared: Path) -> None:
    index = PromptIndex([read_benchmark(f"reward_bench={shared}/data/reward_bench_sample/filtered_sample.parquet")])
    questions = read_benchmark(f"{shared}/data/just_eval/general_multi_mtbench.jsonl", "input")
    texts = dict.fromkeys(conversation[0].content for _, conversation in questions.prompts)
    assert len(texts) == 50
    found = [hit for text in texts if (hit := index.find(row(text)))]
    assert Counter(hit.method for hit in found) == {"exact": 7, "ngram": 1}
    (edited,) = (hit for hit in found if hit.method == "ngram")
    assert edited.prompt_id == "llmbar-natural/2551" and edited.similarity > 0.8


def test_each_method_finds_what_it_is_for() -> None:
    index = PromptIndex([benchmark(QUESTION)])
    assert method(index, "HOW many kilometres of coast does the island have -- and who measured them first") == "exact"
    assert method(index, f"Some background. {QUESTION} Be brief.") == "ngram"
    changed = QUESTION.replace("How many kilometres", "What length")
    assert method(index, changed) is None  # 11 words in a row are too few of so few
    asked = f"{QUESTION} Give both figures, name your source, and say how sure you are of each of them."
    assert method(PromptIndex([benchmark(asked)]), asked.replace("How many kilometres", "What length")) == "ngram"
    long = " ".join(f"Clause {word} of the contract binds the {word} party." for word in "a b c d e f g h".split())
    index = PromptIndex([benchmark(long)], least_share=1)
    assert method(index, long.replace("Clause e", "Paragraph e")) == "minhash"
    assert method(index, long.replace("Clause", "Paragraph").replace("binds", "frees")) is None


def test_a_hit_names_prompt_and_both_texts() -> None:
    index = PromptIndex([benchmark("Name a bird.", QUESTION, name="birds")])
    drop = index.check(row("Hi.", QUESTION.upper()))
    assert isinstance(drop, Drop)
    assert drop.reason == "contamination_exact"
    assert drop.found == {
        "method": "exact",
        "similarity": 1.0,
        "benchmark": "birds",
        "prompt_id": "p1",
        "benchmark_text": QUESTION,
        "row_text": QUESTION.upper(),
    }
    json.dumps(drop.found)
    kept = row("Name a tree.")
    assert index.check(kept) is kept


def test_short_prompts_are_found_as_sentences_only() -> None:
    index = PromptIndex([benchmark("Write a poem", "What is the capital of Malta?", "你好吗?")])
    assert method(index, "write a poem!") == "exact"
    assert method(index, "Write a poem about the sea. It must rhyme.") is None
    assert method(index, "Answer in one word: what is the capital of Malta? Thanks.") == "ngram"
    assert method(index, "What is the capital of Malta famous for?") is None
    assert method(index, "你好吗？") == "exact"


def test_long_texts_take_time_in_proportion() -> None:
    index = PromptIndex([benchmark("What is the capital of Malta?", QUESTION)])

    def measure(text: str) -> float:
        begin = time.process_time()
        assert method(index, text) is None
        return time.process_time() - begin

    for piece in ("x\n", "word ", "你", "a. "):
        assert measure(piece * 100_000) < 20 * max(measure(piece * 10_000), 0.02), piece


def test_a_template_is_no_contamination() -> None:
    template = "You will read a question from an exam. Choose one of the options and write its letter five times. {}"
    prompts = [template.format(f"Question {n}: what is {n} times {n * 7 + 3}?") for n in range(30)]
    index = PromptIndex([benchmark(*prompts)])
    assert method(index, template.format("Which bird is this?")) is None
    assert method(index, template.format("Question 4: what is 4 times 31?")) == "exact"
    task = "Read a list of numbers from a file and print the three largest ones that divide the sum of all others."
    shared = [benchmark(*(f"{task} Use language {lang}." for lang in names)) for names in ("abcdef", "ghijkl")]
    assert method(PromptIndex(shared), task) == "ngram"  # twelve prompts, but six of each benchmark
    few = PromptIndex([benchmark(*prompts[:10])])  # too few to tell the template from what is asked
    assert method(few, template.format("Which bird is this?")) is not None


def test_turns_are_looked_at_alone_and_together() -> None:
    index = PromptIndex([benchmark((QUESTION, "Can you explain that?"))])
    assert method(index, QUESTION, "Can you explain that?") == "exact"
    assert method(index, "Hello!", QUESTION, "And the lakes?") == "exact"  # the long turn by itself
    assert method(index, "Name a bird.", "Can you explain that?") is None  # the short one is no prompt
    answered = RatedResponse("r", "s", (Message("user", "Go on."), Message("assistant", QUESTION)), QUESTION, {})
    assert index.find(answered) is None  # only the user's turns count


def test_rows_of_one_conversation_follow_each_other() -> None:
    index = PromptIndex([benchmark(QUESTION)])
    assert [method(index, text) for text in (QUESTION, QUESTION, "Why?", "Why?", QUESTION)] == [
        "exact", "exact", None, None, "exact",
    ]  # fmt: skip


def test_texts_without_words() -> None:
    index = PromptIndex([benchmark("🙂🙂", "?!")])
    assert method(index, "🙂 🙂") == "exact"
    assert method(index, "🙃") is None and method(index, "!") is None


def test_the_most_alike_prompt_is_named() -> None:
    index = PromptIndex([benchmark(QUESTION + " Ask the mayor about the rest of it.", QUESTION)])
    found = index.find(row(f"Listen. {QUESTION}"))
    assert found is not None and (found.prompt_id, found.similarity) == ("p1", 1.0)


def test_settings_are_checked() -> None:
    with pytest.raises(DataError, match="least share 0 "):
        PromptIndex([], least_share=0)
    with pytest.raises(DataError, match="least similarity 0.5"):
        PromptIndex([], least_similarity=0.5)
    assert PromptIndex([]).find(row(QUESTION)) is None


PROBE = """
import json, pickle, sys
index, rows = pickle.load(open(sys.argv[1], "rb"))
print(json.dumps([(found := index.find(row)) and found.to_dict() for row in rows]))
"""


def test_every_process_finds_the_same(tmp_path: Path, make_prompts: Callable[[int, int], list[str]]) -> None:
    prompts = make_prompts(60, 5)
    index = PromptIndex([benchmark(*prompts)])
    rows = [row(text.replace("the", "a")) for text in prompts] + [row(text) for text in make_prompts(20, 6)]
    (tmp_path / "index").write_bytes(pickle.dumps((index, rows)))
    expected = [(found := index.find(one)) and found.to_dict() for one in rows]
    assert any(expected) and not all(expected)
    for seed in ("1", "2"):
        command = [sys.executable, "-c", PROBE, str(tmp_path / "index")]
        result = subprocess.run(command, capture_output=True, text=True, env={"PYTHONHASHSEED": seed}, timeout=600)
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout) == expected
