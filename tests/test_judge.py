"""The judge: loading, scoring, comparing, and what it says when it can't."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from rmkit.engines.transformers import TransformersEngine
from rmkit.errors import DataError, JudgeError, TokenizerError
from rmkit.judge import Judge
from rmkit.judge_config import FILE_NAME
from rmkit.judge_encoder import JudgeEncoder
from rmkit.readout import read_scores
from rmkit.rubric import Attribute, Rubric, load_rubric
from rmkit.schema import Judgment, read_conversation
from rmkit.scores import aggregate, probability_higher, verdict

HELPSTEER = load_rubric("helpsteer")
PROMPTS = ["List 2 words.", [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]]


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, save_tiny_judge: Callable[..., Path], tiny_tokenizer: Callable[..., Any]
) -> Path:
    """A judge folder; each test that changes it works on a copy."""
    return save_tiny_judge(
        tmp_path_factory.mktemp("judge"), tiny_tokenizer("split_digits"), HELPSTEER, max_length=1024
    )


@pytest.fixture(scope="module")
def judge(folder: Path) -> Judge:
    return Judge.load(folder)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copies the judge folder and changes fields of one of its JSON files; `None` takes the file away."""

    def make(file: str, change: dict[str, Any] | None) -> Path:
        for path in folder.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        if change is None:
            (tmp_path / file).unlink()
        else:
            data = json.loads((tmp_path / file).read_text())
            (tmp_path / file).write_text(json.dumps({**data, **change}))
        return tmp_path

    return make


def numbers(judgment: Judgment) -> np.ndarray:
    return np.concatenate([d.probabilities for d in judgment.attributes.values()])


def test_a_judge_scores_every_attribute_and_aggregates_the_means(judge: Judge) -> None:
    judgments = judge.score(PROMPTS, ["a list", [{"role": "assistant", "content": "Hello."}]])
    assert len(judgments) == 2
    for judgment in judgments:
        assert judgment.error is None and not judgment.truncated
        assert tuple(judgment.attributes) == HELPSTEER.keys
        for distribution in judgment.attributes.values():
            assert distribution.values == (1, 2, 3, 4, 5)
            assert sum(distribution.probabilities) == pytest.approx(1, abs=1e-12)
            assert 0 < distribution.outside_mass < 1
        expected = np.mean([(judgment.attributes[key].mean - 1) / 4 for key in HELPSTEER.keys[:3]])
        assert judgment.aggregate == pytest.approx(expected)
    assert judgments[0].aggregate != judgments[1].aggregate


def test_the_readout_decides_which_figure_counts(judge: Judge) -> None:
    for readout in ("mean", "mode", "median"):
        other = Judge(judge.encoder, judge.engine, readout)
        [judgment] = other.score(["Hi"], ["Hello."])
        assert judgment.aggregate == aggregate(HELPSTEER, judgment.attributes, readout)


def test_neither_company_nor_order_nor_batch_size_changes_a_score(judge: Judge) -> None:
    responses = [f"Response {n}: " + "words and lists " * n for n in range(9)]
    alone = [judge.score(["Hi"], [response])[0] for response in responses]
    order = random.Random(0).sample(range(9), 9)
    small = Judge(judge.encoder, TransformersEngine(judge.engine.model, batch_tokens=700))  # type: ignore[attr-defined]
    for other in (judge, small):
        together = other.score(9 * ["Hi"], [responses[i] for i in order])
        for index, judgment in zip(order, together, strict=True):
            np.testing.assert_allclose(numbers(judgment), numbers(alone[index]), atol=1e-5)
            assert judgment.prompt_tokens == alone[index].prompt_tokens


def test_the_reference_and_a_row_s_own_rubric_are_read(judge: Judge) -> None:
    plain, referenced = judge.score(2 * ["Hi"], 2 * ["Hello."], references=[None, "Good day."])
    assert referenced.prompt_tokens > plain.prompt_tokens
    assert not np.allclose(numbers(plain), numbers(referenced), atol=1e-6)
    own = Rubric("own", (Attribute("tone", "Tone", minimum=0, maximum=20, weight=-1.0),))
    usual, special = judge.score(2 * ["Hi"], 2 * ["Hello."], rubrics=[None, own])
    assert tuple(usual.attributes) == HELPSTEER.keys
    assert tuple(special.attributes) == ("tone",) and len(special.attributes["tone"].values) == 21
    assert special.aggregate == pytest.approx(-special.attributes["tone"].mean / 20)


def test_what_can_not_be_judged_gets_an_error_and_the_others_a_score(judge: Judge) -> None:
    cases: list[tuple[Any, Any, str | None]] = [
        ("Hi", "Hello.", None),
        ("Hi", "", "DataError: response: it is empty"),
        ("Hi", " \n", "DataError: response: it is empty"),
        ("Hi", None, "DataError: response: expected a text"),
        ([{"role": "system", "content": "x"}], "Hello.", "DataError: conversation: no user turn"),
        ([{"role": "human", "content": "x"}], "Hello.", "DataError: conversation[0]: expected a message"),
        ("Hi", "half \ud83d of it", "DataError: the text can't be encoded as UTF-8"),
        ("half \udc00", "Hello.", "DataError: the text can't be encoded as UTF-8"),
        ("Hi", "words " * 2000, "PromptTooLongError: the prompt has "),
        ("Hi", "Bye.", None),
    ]
    conversations, responses, errors = zip(*cases, strict=True)
    broken_name = Rubric("own", (Attribute("a", "A\udce9"),))
    judgments = judge.score(
        [*conversations, "Hi"], [*responses, "Hello."], rubrics=[*(None for _ in cases), broken_name]
    )
    for judgment, error in zip(judgments, [*errors, "DataError: the text can't be encoded"], strict=True):
        if error is None:
            assert judgment.error is None and judgment.aggregate is not None
        else:
            assert judgment.error is not None and judgment.error.startswith(error)
            assert judgment.aggregate is None and not judgment.attributes
    expected = judge.score(["Hi", "Hi"], ["Hello.", "Bye."])
    np.testing.assert_allclose(numbers(judgments[0]), numbers(expected[0]), atol=1e-5)
    np.testing.assert_allclose(numbers(judgments[9]), numbers(expected[1]), atol=1e-5)


def test_nothing_to_judge_is_nothing_and_different_lengths_are_an_error(judge: Judge) -> None:
    assert judge.score([], []) == []
    with pytest.raises(ValueError, match="zip"):
        judge.score(["Hi"], ["a", "b"])
    with pytest.raises(ValueError, match="zip"):
        judge.score(["Hi"], ["a"], references=[])


def test_old_turns_leave_only_when_asked_for(folder: Path, judge: Judge) -> None:
    turns = [{"role": "user", "content": "words of a user " * 30}, {"role": "assistant", "content": "Yes."}]
    conversation = [*turns, *turns, *turns, *turns, {"role": "user", "content": "And?"}]
    [refused] = judge.score([conversation], ["No."])
    assert refused.error is not None and refused.aggregate is None and not refused.truncated
    cutting = Judge.load(folder, truncate=True)
    [cut, whole] = cutting.score([conversation, conversation[6:]], ["No.", "No."])
    assert cut.truncated and cut.error is None and cut.prompt_tokens < 1024
    assert not whole.truncated
    # The prompt and the longest score sequence fit together.
    assert cut.prompt_tokens + cutting.encoder.score_tokens().max_length <= cutting.max_length == 1024


def test_a_prompt_that_just_fits_is_judged(judge: Judge) -> None:
    [usual] = judge.score(["Hi"], ["Hello."])
    exact = usual.prompt_tokens + judge.encoder.score_tokens().max_length
    fits, short = (
        Judge(judge.encoder, judge.engine, max_length=n).score(["Hi"], ["Hello."])[0] for n in (exact, exact - 1)
    )
    assert fits.error is None and fits.attributes == usual.attributes
    assert short.error is not None and f"{usual.prompt_tokens} tokens and {usual.prompt_tokens - 1} fit" in short.error


def test_comparing_is_scoring_both_sides(judge: Judge) -> None:
    conversations, first, second = 3 * ["Hi"], ["Hello.", "Same.", ""], ["Go away.", "Same.", "Good."]
    compared = judge.compare(conversations, first, second)
    ones, others = judge.score(conversations, first), judge.score(conversations, second)
    assert compared[0].verdict == verdict(ones[0].aggregate, others[0].aggregate)  # type: ignore[arg-type]
    assert compared[0].verdict in (1, -1)
    assert compared[0].probability_first == pytest.approx(
        probability_higher(HELPSTEER, ones[0].attributes, others[0].attributes), abs=1e-5
    )
    assert (compared[1].verdict, compared[1].probability_first) == (0, pytest.approx(0.5))
    assert (compared[2].verdict, compared[2].probability_first) == (None, None)
    assert compared[2].first.error is not None and compared[2].second.aggregate is not None
    swapped = judge.compare(conversations[:1], second[:1], first[:1])[0]
    assert swapped.verdict == -compared[0].verdict
    assert swapped.probability_first == pytest.approx(1 - compared[0].probability_first, abs=1e-5)
    assert judge.compare(["Hi"], ["Hello."], ["Go away."], tolerance=1.0)[0].verdict == 0


def test_scoring_leaves_tokenizer_mode_and_weights_alone(judge: Judge) -> None:
    model = judge.engine.model  # type: ignore[attr-defined]
    tokenizer = judge.encoder.prompts.tokenizer
    before = (tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, tokenizer.padding_side)
    model.train()
    try:
        expected = judge.score(["Hi"], ["Hello."])
        assert model.training
    finally:
        model.eval()
    assert judge.score(["Hi"], ["Hello."]) == expected
    assert (tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, tokenizer.padding_side) == before
    assert all(p.grad is None for p in model.parameters())


def test_a_loaded_judge_is_the_one_that_was_saved(folder: Path, judge: Judge, tiny: ModuleType) -> None:
    tokenizer = tiny.build_tokenizer("split_digits")
    built = Judge(
        JudgeEncoder(tokenizer, HELPSTEER), TransformersEngine(tiny.build_model(len(tokenizer), max_length=1024))
    )
    loaded, ours = judge.score(["Hi"], ["Hello."])[0], built.score(["Hi"], ["Hello."])[0]
    np.testing.assert_allclose(numbers(loaded), numbers(ours), atol=1e-6)
    assert next(judge.engine.model.parameters()).dtype == torch.float32  # type: ignore[attr-defined]


def test_an_independent_judge_reads_each_attribute_by_itself(copy: Callable[..., Path], judge: Judge) -> None:
    folder = copy(FILE_NAME, {"mode": "independent"})
    responses = ["a list", "one word, two words"]
    judgments = Judge.load(folder).score(PROMPTS, responses)
    zero_shot = Judge(judge.encoder, judge.engine, mode="independent").score(PROMPTS, responses)
    for mine, other in zip(judgments, zero_shot, strict=True):
        assert numbers(mine) == pytest.approx(numbers(other), abs=1e-6)
    for judgment, prompt, response in zip(judgments, PROMPTS, responses, strict=True):
        assert tuple(judgment.attributes) == HELPSTEER.keys
        assert judgment.aggregate == pytest.approx(aggregate(HELPSTEER, judgment.attributes))
        for attribute in HELPSTEER.attributes:
            # A judge that is asked for this attribute alone; what the prompt says of the others stays.
            ids = judge.encoder.encode_prompt(read_conversation(prompt), response).ids
            tokens = judge.encoder.score_tokens(HELPSTEER, (attribute.key,))
            [alone] = read_scores(judge.engine, [(ids, tokens)])
            assert isinstance(alone, dict)
            found = judgment.attributes[attribute.key]
            assert found.probabilities == pytest.approx(alone[attribute.key].probabilities, abs=1e-6)
    behind_others = numbers(judge.score(PROMPTS, responses)[0])
    assert numbers(judgments[0])[:5] == pytest.approx(behind_others[:5], abs=1e-6)
    assert abs(numbers(judgments[0])[5:] - behind_others[5:]).max() > 1e-3
    with pytest.raises(JudgeError, match="was trained in mode 'independent' and can't be read as 'sequential'"):
        Judge.load(folder, mode="sequential")
    with pytest.raises(JudgeError, match="mode 'both' is unknown; choose sequential, independent"):
        Judge.load(copy(FILE_NAME, {"mode": "both"}))


def test_a_base_model_s_judge_keeps_the_plain_template(
    tmp_path: Path, save_tiny_judge: Callable[..., Path], tiny_tokenizer: Callable[..., Any]
) -> None:
    loaded = Judge.load(save_tiny_judge(tmp_path, tiny_tokenizer("three_digits", chat=False), HELPSTEER))
    assert json.loads((tmp_path / FILE_NAME).read_text())["chat_template"] == loaded.encoder.prompts.chat_template
    [judgment] = loaded.score(["Hi"], ["Hello."])
    assert judgment.error is None


def test_any_model_judges_zero_shot_with_a_rubric(copy: Callable[..., Path], judge: Judge) -> None:
    zero_shot = Judge.load(copy(FILE_NAME, None), rubric=load_rubric("dist2_paper"))
    [judgment] = zero_shot.score(["Hi"], ["Hello."])
    assert tuple(judgment.attributes) == load_rubric("dist2_paper").keys
    same = Judge.load(judge.encoder.prompts.name, rubric=HELPSTEER)  # a judge's own rubric may be named again
    assert same.score(["Hi"], ["Hello."]) == judge.score(["Hi"], ["Hello."])


def test_a_real_trained_model_judges(shared: Path) -> None:
    path = shared / "models" / "stories260K"
    if not path.is_dir():
        pytest.skip("the real model stories260K is not here")
    rubric = Rubric(
        "r", (Attribute("quality", "Quality", "Is it a good story?"), Attribute("overall", "Overall", maximum=100))
    )
    [judgment] = Judge.load(path, rubric=rubric).score(["Tell a story."], ["Once upon a time, there was a girl."])
    assert judgment.error is None
    assert all(sum(d.probabilities) == pytest.approx(1) for d in judgment.attributes.values())
    assert judgment.attributes["overall"].entropy < np.log(100) - 0.1


def test_a_folder_that_is_no_judge_needs_a_rubric(copy: Callable[..., Path]) -> None:
    with pytest.raises(JudgeError, match=rf"has no {FILE_NAME}, .* say which rubric"):
        Judge.load(copy(FILE_NAME, None))


def test_a_judge_follows_no_other_rubric(folder: Path) -> None:
    with pytest.raises(JudgeError, match="was trained with rubric 'helpsteer' and can't follow 'dist2_paper'"):
        Judge.load(folder, rubric=load_rubric("dist2_paper"))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", "./absent"):
        with pytest.raises(JudgeError, match=r"there is no judge folder .*absent"):
            Judge.load(path)
    with pytest.raises(JudgeError, match="runs/mine/judge is neither a folder here nor a model on the hub"):
        Judge.load("runs/mine/judge")


def test_a_judge_with_other_score_tokens_is_refused(folder: Path, copy: Callable[..., Path]) -> None:
    ids = json.loads((folder / FILE_NAME).read_text())["score_token_ids"]
    ids["helpfulness"]["4"], ids["helpfulness"]["5"] = ids["helpfulness"]["5"], ids["helpfulness"]["4"]
    with pytest.raises(JudgeError, match=f"gives other score tokens than {FILE_NAME} names"):
        Judge.load(copy(FILE_NAME, {"score_token_ids": ids}))
    with pytest.raises(JudgeError, match=f"gives other score tokens than {FILE_NAME} names"):
        Judge.load(copy(FILE_NAME, {"end_of_turn_id": 5}))


def test_the_tokenizer_of_another_model_is_refused(
    copy: Callable[..., Path], tiny_tokenizer: Callable[..., Any]
) -> None:
    path = copy(FILE_NAME, {})
    tiny_tokenizer("sentencepiece").save_pretrained(path)
    with pytest.raises(JudgeError, match="gives other score tokens"):
        Judge.load(path)


def test_a_tokenizer_with_the_same_score_tokens_and_other_words_is_refused(copy: Callable[..., Path]) -> None:
    path = copy(FILE_NAME, {})
    data = json.loads((path / "tokenizer.json").read_text("utf-8"))
    data["model"]["merges"].pop()
    (path / "tokenizer.json").write_text(json.dumps(data), "utf-8")
    with pytest.raises(JudgeError, match="splits an example prompt otherwise than at training"):
        Judge.load(path)
    Judge.load(copy(FILE_NAME, {"example_sha256": None}))


def test_a_format_of_the_future_is_refused(copy: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="format_version 99 is unknown"):
        Judge.load(copy(FILE_NAME, {"format_version": 99}))


def test_a_folder_without_weights_or_tokenizer_is_refused(copy: Callable[..., Path]) -> None:
    with pytest.raises(JudgeError, match="can't be loaded"):
        Judge.load(copy("model.safetensors", None))
    path = copy("tokenizer.json", None)
    with pytest.raises(JudgeError, match="its tokenizer can't be loaded"):
        Judge.load(path)


def test_pickled_weights_are_refused(copy: Callable[..., Path], tiny: ModuleType) -> None:
    path = copy("model.safetensors", None)
    torch.save(tiny.build_model(433).state_dict(), path / "pytorch_model.bin")
    with pytest.raises(JudgeError, match="can't be loaded"):
        Judge.load(path)


def test_an_unknown_engine_is_named(folder: Path) -> None:
    with pytest.raises(JudgeError, match="engine 'tgi' is unknown; choose transformers, vllm"):
        Judge.load(folder, engine="tgi")


def test_weights_that_know_fewer_tokens_than_the_tokenizer_are_refused(
    tiny: ModuleType, tiny_tokenizer: Callable[..., PreTrainedTokenizerFast]
) -> None:
    encoder = JudgeEncoder(tiny_tokenizer("split_digits"), HELPSTEER)
    # Too few for the digits; enough for them but not for the chat template's tokens, which come last.
    digits = max(t for item in encoder.score_tokens().attributes for path in item.written.values() for t in path)
    for size in (digits, len(encoder.prompts.tokenizer) - 3):
        with pytest.raises(TokenizerError, match=f"outside the model's vocabulary of {size}"):
            Judge(encoder, TransformersEngine(tiny.build_model(size)))


def test_a_text_with_a_token_that_the_weights_lack_fails_alone(
    tiny: ModuleType, tiny_tokenizer: Callable[..., PreTrainedTokenizerFast]
) -> None:
    base = tiny_tokenizer("split_digits", chat=False)
    plain = PreTrainedTokenizerFast(tokenizer_object=base.backend_tokenizer, eos_token="!", name_or_path="short")
    encoder = JudgeEncoder(plain, HELPSTEER, "{{ messages[-1]['content'] }}")
    last = max(plain.get_vocab().items(), key=lambda item: item[1] if item[0].strip("Ġ").isalpha() else -1)
    judge = Judge(encoder, TransformersEngine(tiny.build_model(last[1])))
    known, unknown = judge.score(["Hi", "Hi"], ["Hello.", f"x {last[0].replace('Ġ', ' ')} x"])
    assert known.error is None
    assert unknown.error is not None and unknown.error.startswith("TokenizerError: tokenizer short: its token")


@pytest.mark.parametrize("damage", ["lacks", "renamed", "cut off", "other shape"])
def test_weights_that_do_not_belong_to_the_config_are_refused(copy: Callable[..., Path], damage: str) -> None:
    path = copy("config.json", {"vocab_size": 7} if damage == "other shape" else {})
    file = path / "model.safetensors"
    weights = load_file(file)
    if damage == "lacks":
        del weights[next(name for name in weights if "layers.0." in name)]
    elif damage == "renamed":
        weights = {f"other.{name}": weight for name, weight in weights.items()}
    save_file(weights, file, {"format": "pt"})
    if damage == "cut off":
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(JudgeError, match=r"can't be loaded"):
        Judge.load(path)


def test_a_device_that_is_not_there_is_a_judge_error(folder: Path) -> None:
    with pytest.raises(JudgeError, match="can't be put on device 'nowhere'"):
        Judge.load(folder, device="nowhere")


@pytest.mark.parametrize("change", [{"max_length": "x"}, {"max_length": 0}, {"max_length": 1.5}, {"chat_template": 5}])
def test_a_config_with_a_wrong_type_is_refused(copy: Callable[..., Path], change: dict[str, Any]) -> None:
    with pytest.raises(JudgeError, match=next(iter(change))):
        Judge.load(copy(FILE_NAME, change))
