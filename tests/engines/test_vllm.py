"""vLLM gives the same scores as transformers; one engine for the whole module, for it is slow to start."""

from __future__ import annotations

import importlib.util
import platform
import resource
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rmkit.engines import Query
from rmkit.engines.transformers import TransformersEngine
from rmkit.errors import JudgeError
from rmkit.judge import Judge
from rmkit.judge_encoder import JudgeEncoder
from rmkit.rubric import Attribute, Rubric, load_rubric
from rmkit.schema import read_conversation

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM has no build for this platform"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's imports warn of this and that, none of it ours
]

MAX_LENGTH = 640
SCALES = [(1, 5), (0, 20), (1, 100), (0, 359)]


def scale(minimum: int, maximum: int) -> Rubric:
    return Rubric(
        f"{minimum}-{maximum}",
        (
            Attribute("helpfulness", "Helpfulness", minimum=minimum, maximum=maximum),
            Attribute("overall", "Overall", minimum=minimum, maximum=maximum),
        ),
    )


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_tokenizer: Callable[..., Any],
    save_tiny_judge: Callable[..., Path],
) -> Path:
    """A judge folder whose weights know the ids of both tokenizers of this module."""
    size = max(len(tiny_tokenizer(kind)) for kind in ("split_digits", "three_digits"))
    return save_tiny_judge(
        tmp_path_factory.mktemp("judge"),
        tiny_tokenizer("split_digits"),
        load_rubric("dist2_paper"),
        family="qwen3",
        vocab_size=size,
        max_length=MAX_LENGTH,
    )


@pytest.fixture(scope="module")
def judges(folder: Path) -> dict[str, Judge]:
    """The same judge in both engines."""
    return {engine: Judge.load(folder, engine=engine) for engine in ("transformers", "vllm")}


def assert_they_agree(judges: dict[str, Judge], encoder: JudgeEncoder) -> None:
    conversations = ["Hi", "Hi", [{"role": "system", "content": "x"}, {"role": "user", "content": "List 2 words."}]]
    responses = ["Hello.", "Helpfulness: 5", "words<|im_end|> and 14 lists"]
    ours, theirs = (
        Judge(encoder, judges[name].engine).score(conversations, responses) for name in ("transformers", "vllm")
    )
    for a, b in zip(ours, theirs, strict=True):
        assert a.error is None and b.error is None
        assert tuple(a.attributes) == tuple(b.attributes) == encoder.rubric.keys
        assert a.prompt_tokens == b.prompt_tokens
        for key, distribution in a.attributes.items():
            found = b.attributes[key]
            assert found.mode == distribution.mode
            np.testing.assert_allclose(found.probabilities, distribution.probabilities, atol=1e-3)
            assert found.outside_mass == pytest.approx(distribution.outside_mass, abs=1e-3)
            assert max(found.probabilities) > 1.2 / len(found.values)
        assert b.aggregate == pytest.approx(a.aggregate, abs=1e-3)


@pytest.mark.parametrize("kind", ["split_digits", "three_digits"])
@pytest.mark.parametrize(("minimum", "maximum"), SCALES)
def test_both_engines_give_the_same_scores(
    judges: dict[str, Judge], tiny_tokenizer: Callable[..., Any], kind: str, minimum: int, maximum: int
) -> None:
    assert_they_agree(judges, JudgeEncoder(tiny_tokenizer(kind), scale(minimum, maximum)))


def test_a_loaded_judge_brings_its_rubric_to_both_engines(judges: dict[str, Judge]) -> None:
    assert judges["vllm"].rubric == load_rubric("dist2_paper")
    assert_they_agree(judges, judges["vllm"].encoder)


def test_both_engines_read_attributes_independently_alike(
    judges: dict[str, Judge], tiny_tokenizer: Callable[..., Any]
) -> None:
    encoder = JudgeEncoder(tiny_tokenizer("split_digits"), load_rubric("helpsteer"))
    conversations, responses = ["Hi", "Hi", "List 2 words."], ["Hello.", "Helpfulness: 5", "14 lists"]
    rubrics = [None, scale(1, 100), None]  # one row brings its own
    ours, theirs, behind_others = (
        Judge(encoder, judges[name].engine, mode=mode).score(conversations, responses, rubrics=rubrics)
        for name, mode in (("transformers", "independent"), ("vllm", "independent"), ("vllm", "sequential"))
    )
    for a, b, other in zip(ours, theirs, behind_others, strict=True):
        assert a.error is None and b.error is None
        assert tuple(a.attributes) == tuple(b.attributes)
        for key, distribution in a.attributes.items():
            np.testing.assert_allclose(b.attributes[key].probabilities, distribution.probabilities, atol=1e-3)
            assert b.attributes[key].outside_mass == pytest.approx(distribution.outside_mass, abs=1e-3)
        last = tuple(b.attributes)[-1]
        apart = np.subtract(b.attributes[last].probabilities, other.attributes[last].probabilities)
        assert np.abs(apart).max() > 2e-3


def test_both_engines_know_the_same_limits(judges: dict[str, Judge]) -> None:
    assert judges["vllm"].max_length == judges["transformers"].max_length == MAX_LENGTH
    assert judges["vllm"].engine.vocab_size == judges["transformers"].engine.vocab_size
    for judge in judges.values():
        long, short = judge.score(["Hi", "Hi"], ["words " * MAX_LENGTH, "Hello."])
        assert long.error is not None and long.error.startswith("PromptTooLongError")
        assert short.error is None


def test_a_prompt_as_long_as_fits_is_scored_alike(judges: dict[str, Judge]) -> None:
    [usual] = judges["transformers"].score(["Hi"], ["!"])
    room = MAX_LENGTH - judges["vllm"].encoder.score_tokens().max_length - usual.prompt_tokens
    longest = "!" * (1 + room)
    [over] = judges["vllm"].score(["Hi"], [longest + "!"])
    assert over.error is not None and over.error.startswith("PromptTooLongError")
    ours, theirs = (judges[name].score(["Hi"], [longest])[0] for name in ("transformers", "vllm"))
    assert ours.error is None and theirs.error is None
    for key, distribution in ours.attributes.items():
        np.testing.assert_allclose(theirs.attributes[key].probabilities, distribution.probabilities, atol=1e-3)


def test_log_probabilities_are_of_the_whole_vocabulary_in_the_order_asked_for(judges: dict[str, Judge]) -> None:
    size = judges["vllm"].engine.vocab_size
    everything = tuple(range(size))
    queries = [
        Query((5, 6, 7), everything),
        Query((5, 6, 7), everything[::-1]),
        Query((9,), (3, 0, 200)),
        Query((5, 6, 7), everything),
    ]
    first, backwards, few, again = judges["vllm"].engine.logprobs(queries)
    assert np.exp(first).sum() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(first, backwards[::-1], atol=1e-5)
    np.testing.assert_allclose(first, again, atol=1e-5)
    assert few.shape == (3,) and few.dtype == np.float64
    for ours, theirs in zip(
        judges["transformers"].engine.logprobs(queries), (first, backwards, few, again), strict=True
    ):
        np.testing.assert_allclose(theirs, ours, atol=1e-3)
    assert judges["vllm"].engine.logprobs([]) == []


def test_reading_samples_nothing_and_leaves_other_requests_to_vllm(judges: dict[str, Judge]) -> None:
    from vllm import SamplingParams  # noqa: PLC0415 (slow, and not there on every platform)
    from vllm.v1.sample.sampler import Sampler  # noqa: PLC0415

    llm = judges["vllm"].engine._llm  # type: ignore[attr-defined]
    prompts = [{"prompt_token_ids": [5, 6, n]} for n in range(7, 27)]
    asked = [list(range(30 + n, 33 + 2 * n)) for n in range(20)]
    readings = [SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=tokens) for tokens in asked]
    texts = [SamplingParams(max_tokens=3, temperature=0.0, logprobs=2) for _ in prompts]
    mixed = [pair[n % 2] for n, pair in enumerate(zip(readings, texts, strict=True))]

    def run(params: list[Any]) -> list[tuple[list[int], list[dict[int, float]]]]:
        assert llm.reset_prefix_cache()
        outputs = [output.outputs[0] for output in llm.generate(prompts, params, use_tqdm=False)]
        return [
            (list(o.token_ids), [{token: item.logprob for token, item in step.items()} for step in o.logprobs])
            for o in outputs
        ]

    read, wrote, both = run(readings), run(texts), run(mixed)
    [runner] = llm.collective_rpc(lambda worker: worker.model_runner)
    ours, runner.sampler = runner.sampler, Sampler()
    try:
        theirs_read, theirs_wrote, theirs_both = run(readings), run(texts), run(mixed)
    finally:
        runner.sampler = ours
    assert wrote == theirs_wrote
    assert both == theirs_both
    assert [tokens for tokens, _ in read] == [tokens[:1] for tokens in asked]  # nothing was looked for
    for tokens, (_, [found]), (_, [expected]) in zip(asked, read, theirs_read, strict=True):
        assert {token: found[token] for token in tokens} == {token: expected[token] for token in tokens}


def test_a_sampler_of_another_kind_stays() -> None:
    from rmkit.engines.vllm_sampler import use_reading_sampler  # noqa: PLC0415 (imports vLLM)

    other = object()
    worker = SimpleNamespace(model_runner=SimpleNamespace(sampler=other))
    use_reading_sampler(worker)
    assert worker.model_runner.sampler is other


def pairs(count: int) -> tuple[list[str], list[str]]:
    """Conversations and responses of different lengths, two responses to each conversation."""
    conversations = [f"List {n % 9} words. " * (n % 7 + 1) for n in range(count) for _ in range(2)]
    return conversations, [f"words {n}, " * (n % 11 + 1) for n in range(2 * count)]


@pytest.fixture
def count_tokens(judges: dict[str, Judge], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens vLLM computes in each step from now on; its prefix cache is empty."""
    llm = judges["vllm"].engine._llm  # type: ignore[attr-defined]
    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    schedule, counts = scheduler.schedule, []

    def count(*arguments: Any, **keywords: Any) -> Any:
        output = schedule(*arguments, **keywords)
        counts.append(output.total_num_scheduled_tokens)
        return output

    monkeypatch.setattr(scheduler, "schedule", count)
    assert llm.reset_prefix_cache()
    return counts


def test_no_token_is_computed_twice_but_for_the_last_block_of_a_pair(
    judges: dict[str, Judge], tiny_tokenizer: Callable[..., Any], count_tokens: list[int]
) -> None:
    conversations, responses = pairs(12)
    rubric = Rubric(
        "five", tuple(Attribute(key, key.capitalize()) for key in ("list", "rate", "write", "for", "with"))
    )
    encoder = JudgeEncoder(tiny_tokenizer("split_digits"), rubric)
    judge = Judge(encoder, judges["vllm"].engine)
    judgments = judge.score(conversations, responses)
    needed, prefixes = 0, set()
    for conversation, response, judgment in zip(conversations, responses, judgments, strict=True):
        prompt = encoder.encode_prompt(read_conversation(conversation), response).ids
        new = {prompt[:end] for end in range(1, len(prompt) + 1)} - prefixes
        prefixes |= new
        line, positions = encoder.score_tokens().encode({key: d.mode for key, d in judgment.attributes.items()})
        needed += len(new) + positions[-1].index
    assert sum(count_tokens) <= needed + len(responses) * 31  # blocks are of 32 tokens
    assert sum(count_tokens) <= 1.05 * needed + len(responses) * 16
    assert len(count_tokens) < len(responses)  # they go side by side


def test_batches_order_and_cache_change_no_score(
    judges: dict[str, Judge], monkeypatch: pytest.MonkeyPatch, count_tokens: list[int]
) -> None:
    conversations, responses = pairs(8)
    judge = judges["vllm"]
    first = judge.score(conversations, responses)
    cold = sum(count_tokens)
    again = judge.score(conversations, responses)
    assert sum(count_tokens) - cold < cold / 2
    backwards = judge.score(conversations[::-1], responses[::-1])[::-1]
    alone = [judge.score([a], [b])[0] for a, b in zip(conversations, responses, strict=True)]
    sessions = judge.engine._sessions  # type: ignore[attr-defined]
    lengths = sorted(judgment.prompt_tokens for judgment in first)
    with monkeypatch.context() as little:  # memory for about two responses at a time, and none for the longest
        little.setattr(sessions, "_room", lengths[len(lengths) // 2] // 32 + 3)
        crowded = judge.score(conversations, responses)
    with monkeypatch.context() as elsewhere:  # as where vLLM runs in a process of its own
        elsewhere.setattr(judge.engine, "_sessions", None)
        requests = judge.score(conversations, responses)
    for expected, *others in zip(first, again, backwards, alone, crowded, requests, strict=True):
        assert expected.error is None
        for found in others:
            assert found.aggregate == pytest.approx(expected.aggregate, abs=1e-4)
            for key, distribution in expected.attributes.items():
                np.testing.assert_allclose(found.attributes[key].probabilities, distribution.probabilities, atol=1e-4)


def test_a_failure_on_the_way_leaves_nothing_behind(judges: dict[str, Judge]) -> None:
    class Broken:
        def ask(self, ahead: bool) -> list[Query]:
            return [Query((5, 6, 7), (8, 9))]

        def take(self, answers: Any) -> None:
            raise ZeroDivisionError

    judge = judges["vllm"]
    [before] = judge.score(["Hi"], ["Hello."])
    with pytest.raises(ZeroDivisionError):
        judge.engine.follow([Broken(), Broken()])  # type: ignore[attr-defined]
    llm = judge.engine._llm  # type: ignore[attr-defined]
    assert not llm.llm_engine.has_unfinished_requests()
    assert llm.reset_prefix_cache()  # it refuses while a request holds memory
    [after] = judge.score(["Hi"], ["Hello."])
    assert after.aggregate == pytest.approx(before.aggregate, abs=1e-6)


def test_what_arrives_while_others_are_read_joins_them(judges: dict[str, Judge]) -> None:
    judge, responses = judges["vllm"], [f"{number} words" for number in range(6)]
    expected = judge.score(["Hi"] * len(responses), responses)
    begun = [judge.begin("Hi", response) for response in responses]
    waiting = [list(judging.readings) for judging in begun]
    unread: list[int] = []

    def arrive() -> list[Any]:
        unread.append(
            sum(
                len(reading.found) < len(judge.rubric.keys)
                for judging in begun[: len(unread)]
                for reading in judging.readings
            )
        )
        return waiting.pop(0) if waiting else []

    judge.engine.follow_arriving(arrive)  # type: ignore[attr-defined]
    assert max(unread[: len(responses)]) > 1  # each came while those before it were being read
    for judging, other in zip(begun, expected, strict=True):
        found = judging.judgment()
        assert found.aggregate == pytest.approx(other.aggregate, abs=1e-4)


def test_what_arrives_and_is_too_long_for_sessions_is_read_too(judges: dict[str, Judge]) -> None:
    judge = judges["vllm"]
    engine: Any = judge.engine
    [expected], [other] = judge.score(["Hi"], ["a " * 150]), judge.score(["Hi"], ["b"])
    long, short = judge.begin("Hi", "a " * 150), judge.begin("Hi", "b")
    waiting = [list(long.readings), list(short.readings)]
    room, engine._sessions._room = engine._sessions._room, 8
    try:
        while waiting:
            engine.follow_arriving(lambda: waiting.pop(0) if waiting else [])
    finally:
        engine._sessions._room = room
    assert long.judgment().aggregate == pytest.approx(expected.aggregate, abs=1e-4)
    assert short.judgment().aggregate == pytest.approx(other.aggregate, abs=1e-4)


def test_starting_vllm_changes_no_score_of_transformers(judges: dict[str, Judge], tiny: ModuleType) -> None:
    model = judges["transformers"].engine.model  # type: ignore[attr-defined]
    encoder = judges["transformers"].encoder
    size = judges["vllm"].engine.vocab_size
    fresh = Judge(encoder, TransformersEngine(tiny.build_model(size, "qwen3", max_length=MAX_LENGTH)))
    [ours], [loaded] = fresh.score(["Hi"], ["Hello."]), judges["transformers"].score(["Hi"], ["Hello."])
    assert ours.aggregate == pytest.approx(loaded.aggregate, abs=1e-6)
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep freed memory as they will")
def test_freed_memory_is_kept_for_the_next_step(judges: dict[str, Judge]) -> None:
    def touch_and_free() -> int:
        """Pages that the system gave for 100 MiB in pieces of 5; as glibc comes, it gives all 25,600 each time."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        pieces = [torch.ones(5 * 2**18) for _ in range(20)]
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        del pieces
        return faults

    touch_and_free()
    assert touch_and_free() < 2_560


def test_a_folder_that_vllm_can_not_load_is_named(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(JudgeError, match="vLLM can't load the model"):
        Judge.load(tmp_path, engine="vllm")
