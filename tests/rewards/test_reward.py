from __future__ import annotations

import copy
import math
import multiprocessing
import pickle
import random
import re
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers.integrations import HfDeepSpeedConfig, is_deepspeed_zero3_enabled

from rmkit.engines.transformers import TransformersEngine, load_model
from rmkit.errors import JudgeError, RubricError
from rmkit.judge import Judge
from rmkit.rewards import JudgeReward
from rmkit.rubric import Attribute, Rubric
from rmkit.scores import centre

RUBRIC = Rubric(
    "mixed",
    (
        Attribute("helpfulness", "Helpfulness", "Does it help?", weight=2.0),
        Attribute("overall", "Overall", maximum=20, minimum=0),
        Attribute("verbosity", "Verbosity", weight=-0.5),
    ),
)
OWN_RUBRIC = Rubric("own", (Attribute("tone", "Tone", "Is it kind?", maximum=3, levels={1: "rude", 3: "kind"}),))
LONG = "word " * 400  # does not fit into the judge's 512 tokens


@pytest.fixture(scope="module")
def judge_folder(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_tokenizer: Callable[..., Any],
    save_tiny_judge: Callable[..., Path],
) -> Path:
    return save_tiny_judge(
        tmp_path_factory.mktemp("judge"), tiny_tokenizer("split_digits"), RUBRIC, initializer_range=0.5, max_length=512
    )


class Log:
    """What a reward function logs, kept as TRL keeps it."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = defaultdict(list)
        self.metrics: dict[str, list[float]] = defaultdict(list)

    def extra(self, column: str, values: list[Any]) -> None:
        self.columns[column].extend(values)

    def metric(self, name: str, value: float) -> None:
        self.metrics[name].append(value)

    @property
    def options(self) -> dict[str, Any]:
        return {"log_extra": self.extra, "log_metric": self.metric}


def test_the_reward_is_the_centred_aggregate(judge_folder: Path, judge: Judge) -> None:
    reward = JudgeReward(judge_folder)
    completions = ["Sorted.", "1, 2, 3", "No."]
    rewards = reward(prompts=["Sort.", "Sort.", "Count."], completions=completions, completion_ids=[[1], [2], [3]])
    judged = judge.score(["Sort.", "Sort.", "Count."], completions)
    assert rewards == pytest.approx([centre(RUBRIC, j.aggregate) for j in judged], abs=1e-6)
    assert len(set(rewards)) == 3 and all(-1 <= r <= 1 for r in rewards)
    assert reward.__name__ == "judge_reward"


def test_chats_tool_calls_and_missing_content(judge: Judge) -> None:
    calls = [{"type": "function", "function": {"name": "sort", "arguments": {"items": [3, 1]}}}]
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Sort."}]
    completions = [
        [{"role": "assistant", "content": "1, 3"}],
        [{"role": "assistant", "content": None, "tool_calls": calls}],
        [
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "content": "1, 3"},
            {"role": "assistant", "content": "It is 1, 3."},
        ],
        [{"role": "assistant", "content": None}],
        [{"role": "assistant", "content": ""}],
        [],
    ]
    rewards = JudgeReward(judge)(prompts=[chat] * 6, completions=completions)
    expected = judge.score([chat] * 6, completions)
    assert rewards[:3] == pytest.approx([centre(RUBRIC, j.aggregate) for j in expected[:3]], abs=1e-6)
    assert len(set(rewards[:3])) == 3
    assert rewards[3:] == [None] * 3


def test_what_cannot_be_judged_gets_none_and_is_logged(judge: Judge, caplog: pytest.LogCaptureFixture) -> None:
    log = Log()
    rewards = JudgeReward(judge)(
        prompts=["Sort."] * 5, completions=["Fine.", "", LONG, "half \ud83d", 7], **log.options
    )
    (judged,) = judge.score(["Sort."], ["Fine."])
    assert rewards[0] is not None and rewards[1:] == [None] * 4
    assert log.columns["judge_aggregate"] == [pytest.approx(judged.aggregate), None, None, None, None]
    errors = log.columns["judge_error"]
    assert errors[0] is None
    for error, reason in zip(
        errors[1:], ["DataError.*empty", "PromptTooLongError", "DataError.*UTF-8", "DataError.*7"], strict=True
    ):
        assert re.search(reason, error)
    assert log.metrics["judge/failure_rate"] == [0, 1, 1, 1, 1]
    for key, distribution in judged.attributes.items():
        assert log.metrics[f"judge/{key}"] == [pytest.approx(distribution.mean)]
    assert "4 of 5 completions can't be judged; completion 1: DataError" in caplog.text


def test_metrics_have_the_same_keys_whatever_failed(judge: Judge) -> None:
    good, bad = Log(), Log()
    reward = JudgeReward(judge)
    reward(prompts=["Sort."], completions=["Fine."], **good.options)
    reward(prompts=["Sort."], completions=[""], **bad.options)
    assert set(good.metrics) == set(bad.metrics)
    assert set(good.metrics) == {
        f"judge/{key}" for key in (*RUBRIC.keys, "aggregate", "failure_rate", "truncation_rate")
    }
    assert all(math.isnan(bad.metrics[f"judge/{key}"][0]) for key in (*RUBRIC.keys, "aggregate"))
    assert bad.metrics["judge/failure_rate"] == [1.0]


def test_raise_stops_with_the_reason(judge: Judge) -> None:
    reward = JudgeReward(judge, on_failure="raise")
    assert reward(prompts=["Sort."], completions=["Fine."])[0] is not None
    with pytest.raises(JudgeError, match=r"judge_reward: 1 of 2 .*completion 1: DataError: completion: it is empty"):
        reward(prompts=["Sort."] * 2, completions=["Fine.", ""])


def test_truncation_must_be_asked_for_and_is_counted(judge_folder: Path) -> None:
    log = Log()
    chat = [{"role": "user", "content": LONG}, {"role": "user", "content": "Sort."}]
    call = {"prompts": [chat, "Sort."], "completions": ["Fine.", "Fine."]}
    assert JudgeReward(judge_folder)(**call)[0] is None
    rewards = JudgeReward(judge_folder, truncate=True)(**call, **log.options)
    assert rewards[0] == pytest.approx(rewards[1], abs=1e-6)  # without the old turn both are the same
    assert log.metrics["judge/truncation_rate"] == [1, 0]


def test_one_attribute(judge: Judge) -> None:
    log = Log()
    reward = JudgeReward(judge, attribute="overall")
    rewards = reward(prompts=["Sort."] * 2, completions=["Fine.", ""], **log.options)
    mean = judge.score(["Sort."], ["Fine."])[0].attributes["overall"].mean
    assert rewards == [pytest.approx(2 * mean / 20 - 1), None]
    assert reward.__name__ == "judge_reward_overall"
    assert log.columns["judge_overall"] == [pytest.approx(mean), None]
    assert set(log.columns) == {"judge_overall", "judge_overall_error"}
    assert set(log.metrics) == {"judge/overall", "judge/failure_rate", "judge/truncation_rate"}
    with pytest.raises(RubricError, match="no attribute 'charm'; it has helpfulness"):
        JudgeReward(judge, attribute="charm")(prompts=["Sort."], completions=["Fine."])


def test_reference_and_rubric_columns_as_a_data_set_gives_them(judge: Judge) -> None:
    rows = [
        {"prompt": "Sort.", "reference": "1, 3", "rubric": None},
        {"prompt": "Sort.", "reference": None, "rubric": OWN_RUBRIC.to_dict()},
        {"prompt": "Sort.", "reference": None, "rubric": RUBRIC.to_dict()},
        {"prompt": "Sort.", "reference": None, "rubric": None},
    ]
    batch = Dataset.from_list(rows)[:]  # Arrow fills every rubric with the other's fields, as nulls
    assert None in batch["rubric"][2]["attributes"][0].values()
    log = Log()
    rewards = JudgeReward(judge)(
        prompts=batch["prompt"],
        completions=["Fine."] * 4,
        reference=batch["reference"],
        rubric=batch["rubric"],
        trainer_state=None,
        **log.options,
    )
    judged = judge.score(["Sort."] * 3, ["Fine."] * 3, ["1, 3", None, None], [None, OWN_RUBRIC, None])
    expected = [centre(r, j.aggregate) for r, j in zip([RUBRIC, OWN_RUBRIC, RUBRIC], judged, strict=True)]
    assert rewards == pytest.approx([*expected, expected[2]], abs=1e-6)
    assert len({round(r, 6) for r in rewards}) == 3
    helpful = [judged[index].attributes["helpfulness"].mean for index in (0, 2)]
    assert log.metrics["judge/helpfulness"] == pytest.approx(helpful, abs=1e-6)  # not of rows with another rubric
    assert "judge/tone" not in log.metrics


def test_columns_of_another_kind_fail_their_row_only(judge: Judge) -> None:
    log = Log()
    rewards = JudgeReward(judge)(
        prompts=["Sort."] * 3,
        completions=["Fine."] * 3,
        reference=[["a list"], None, None],
        rubric=[None, {"attributes": [{"name": "x"}]}, None],
        **log.options,
    )
    assert rewards[:2] == [None, None] and rewards[2] is not None
    assert "column reference: expected a text" in log.columns["judge_error"][0]
    assert "column rubric: each attribute needs a 'key'" in log.columns["judge_error"][1]
    row_error = JudgeReward(judge, attribute="overall")
    log = Log()
    rubrics = [OWN_RUBRIC.to_dict(), None]
    assert row_error(prompts=["Sort."] * 2, completions=["Fine."] * 2, rubric=rubrics, **log.options)[0] is None
    assert "no attribute 'overall'" in log.columns["judge_overall_error"][0]


class CountingEngine(TransformersEngine):
    """Knows how many responses it was asked about."""

    def follow(self, readings: Any) -> None:
        self.asked = getattr(self, "asked", 0) + len(readings)
        super().follow(readings)


def test_equal_completions_are_judged_once(judge: Judge, judge_folder: Path) -> None:
    def asked(completions: list[Any], prompts: list[Any]) -> tuple[int, list[float | None]]:
        engine = CountingEngine(load_model(str(judge_folder)), max_length=512)
        rewards = JudgeReward(Judge(judge.encoder, engine))(prompts=prompts, completions=completions)
        return engine.asked, rewards

    once, (reward,) = asked(["Fine."], ["Sort."])
    chat = [{"role": "user", "content": "Sort."}]
    again, rewards = asked(["Fine.", [{"role": "assistant", "content": "Fine."}], "Fine."], ["Sort.", chat, "Sort."])
    assert again == once == 1 and rewards == [reward] * 3
    assert asked(["Fine.", "Fine."], ["Sort.", "Count."])[0] == 2


def test_it_is_the_same_after_pickling_in_a_process_of_its_own(judge_folder: Path) -> None:
    reward = JudgeReward(judge_folder, attribute="helpfulness")
    assert not reward._source.is_loaded  # nothing is loaded before the first call
    call: dict[str, Any] = {"prompts": ["Sort.", "Count."], "completions": ["Fine.", ""]}
    rewards = reward(**call)
    assert reward._source.is_loaded
    assert len(pickle.dumps(reward)) < 2000  # the loaded judge stays here
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(reward, **call).result(timeout=600)
    assert there == [pytest.approx(rewards[0], abs=1e-6), None]
    again = pickle.loads(pickle.dumps(reward))
    assert again.__name__ == "judge_reward_helpfulness" and not again._source.is_loaded


def test_a_deep_copy_shares_the_judge(judge_folder: Path, judge: Judge) -> None:
    call: dict[str, Any] = {"prompts": ["Sort."], "completions": ["Fine."]}
    for reward in (JudgeReward(judge_folder), JudgeReward(judge)):
        rewards = reward(**call)
        other = copy.deepcopy(reward)
        assert other._source is reward._source and other(**call) == rewards


def test_a_loaded_judge_cannot_be_pickled_or_loaded_otherwise(judge: Judge) -> None:
    with pytest.raises(TypeError, match="make it from the judge's folder"):
        pickle.dumps(JudgeReward(judge))
    with pytest.raises(ValueError, match="this one is loaded already"):
        JudgeReward(judge, truncate=True)
    with pytest.raises(ValueError, match="on_failure 'zero' is unknown; choose none, group_mean, raise"):
        JudgeReward(judge, on_failure="zero")


@pytest.mark.parametrize(("given", "meant"), [("on_fail", "on_failure"), ("center", "centred")])
@pytest.mark.parametrize("place", ["runs/judge", "http://127.0.0.1:1"])
def test_a_misspelt_option_is_an_error_at_once(place: str, given: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"JudgeReward has no option '{given}'; did you mean '{meant}'"):
        JudgeReward(place, **{given: 1})


def test_a_judge_that_is_not_there_is_an_error_of_the_first_call(tmp_path: Path) -> None:
    reward = JudgeReward(tmp_path / "nothing")
    with pytest.raises(JudgeError, match="there is no judge folder"):
        reward(prompts=["Sort."], completions=["Fine."])


def test_loading_leaves_random_numbers_alone(judge_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Judge.load

    def load_as_vllm_does(*args: Any, **kwargs: Any) -> Judge:
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        return load(*args, **kwargs)

    monkeypatch.setattr(Judge, "load", load_as_vllm_does)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    JudgeReward(judge_folder)(prompts=["Sort."], completions=["Fine."])
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


def test_the_judge_is_loaded_whole_while_zero_3_trains(judge_folder: Path, judge: Judge) -> None:
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
    zero3 = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1})
    assert is_deepspeed_zero3_enabled()  # for as long as the config lives, as during training
    reward = JudgeReward(judge_folder)
    call: dict[str, Any] = {"prompts": ["Sort."], "completions": ["Fine."]}
    assert reward(**call) == pytest.approx(JudgeReward(judge)(**call), abs=1e-6)
    assert is_deepspeed_zero3_enabled() and zero3.is_zero3()
