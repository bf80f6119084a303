"""Rewards from a judge behind HTTP: the right ones, and what becomes of them when the server fails."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rmkit.errors import JudgeError
from rmkit.judge import Judge
from rmkit.rewards import AsyncJudgeReward, JudgeReward
from rmkit.rubric import Attribute, Rubric

FAULTS = ("garbage", "nan", "half", "gone", "busy", "late")  # of tests/faulty_server.py
CALL: dict[str, Any] = {
    "prompts": ["Sort.", "Sort.", "Count.", "Count."],
    "completions": ["Fine.", "1, 2", "No.", "One, two."],
}


@pytest.fixture
def server(judge: Judge, serve_faultily: Callable[[Judge], Any]) -> Any:
    return serve_faultily(judge)


def make(server: Any, **options: Any) -> JudgeReward:
    return JudgeReward(server.url, **{"retries": 0, **options})


@pytest.fixture
def expected(judge: Judge) -> list[float | None]:
    return JudgeReward(judge)(**CALL)


def test_the_same_rewards_as_in_process(server: Any, judge: Judge) -> None:
    own = Rubric("own", (Attribute("tone", "Tone", maximum=3),)).to_dict()
    call = {**CALL, "reference": ["1", None, None, None], "rubric": [None, None, own, None]}
    for options in ({}, {"attribute": "verbosity", "risk": 0.5, "length_budget": 4}):
        rewards = JudgeReward(judge, **options)(**call)
        assert JudgeReward(server.url, **options)(**call) == pytest.approx(rewards, abs=1e-6)
        assert [reward is None for reward in rewards] == [False, False, bool(options), False]


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_of_a_server_becomes_a_number(fault: str, server: Any, expected: list[float | None]) -> None:
    seconds = 2.0 if fault == "late" else 60.0
    none, mean, stop = (make(server, on_failure=policy, timeout=seconds) for policy in ("none", "group_mean", "raise"))
    metrics: dict[str, list[float]] = defaultdict(list)
    errors: list[Any] = []
    for reward in (none, mean, stop):
        reward.load()
    server.fault = fault
    call = {**CALL, "log_metric": lambda name, value: metrics[name].append(value)}
    assert none(**call, log_extra=lambda name, values: errors.append(values)) == [None] * 4
    assert metrics["judge/failure_rate"] == [1.0] * 4 and len(metrics) == 5  # the keys of a call that went well
    assert all(server.url in error for error in errors[1])
    assert mean(**CALL) == [None] * 4
    with pytest.raises(
        JudgeError, match=f"4 of 4 completions can't be judged; completion 0: JudgeError: {server.url}"
    ):
        stop(**CALL)
    if fault != "late":  # a machine that is busy is late too
        server.fault = None
        for reward in (none, mean, stop):
            assert reward(**CALL) == pytest.approx(expected, abs=1e-6)


def test_other_attributes_than_the_rubric_s_are_no_judgement(server: Any) -> None:
    reward = make(server)
    reward.load()
    server.fault = "strange"
    errors: list[Any] = []
    assert reward(**CALL, log_extra=lambda name, values: errors.append(values)) == [None] * 4
    assert "judged ['charm'] by a rubric of ['helpfulness', 'verbosity']" in errors[1][0]


def test_an_outage_of_the_engine_http_is_one_too(server: Any, judge_folder: Path) -> None:
    options: dict[str, Any] = {"engine": "http", "url": server.url, "retries": 0}
    assert JudgeReward(judge_folder, **options)(**CALL) == [None] * 4  # its completions are answered with 503
    with pytest.raises(JudgeError, match=f"4 of 4 completions can't be judged.*{server.url}"):
        JudgeReward(judge_folder, on_failure="raise", **options)(**CALL)


def test_a_judge_that_stays_away_stops_the_run(server: Any) -> None:
    reward = make(server, max_outages=3)
    reward(**CALL)
    server.fault = "gone"
    other = {"prompts": ["Sort."], "completions": ["Other."]}
    assert [reward(**other) for _ in range(2)] == [[None]] * 2
    assert reward(prompts=["Sort."], completions=[""]) == [None]  # nothing was asked, so it says nothing of the judge
    server.fault = None
    assert reward(**other) != [None]
    server.fault = "gone"
    new = {"prompts": ["Sort."], "completions": ["New."]}
    assert [reward(**new) for _ in range(2)] == [[None]] * 2
    with pytest.raises(JudgeError, match=f"no judgement in 3 calls in a row.*{server.url}"):
        reward(**new)


def test_a_server_that_is_not_there_at_first_stops_the_run_at_once(server: Any) -> None:
    server.fault = "gone"
    for on_failure in ("none", "group_mean", "raise"):
        with pytest.raises(JudgeError, match=server.url):
            make(server, on_failure=on_failure)(**CALL)


def test_another_judge_in_its_place_stops_the_run(server: Any) -> None:
    reward = make(server)
    reward.load()
    server.fault = "gone"
    reward(**CALL)
    server.fault = None
    server.health["judge_sha256"] = "def"
    with pytest.raises(JudgeError, match="came back as another judge, with another judge_sha256"):
        reward(**CALL)


def test_another_judge_that_nobody_saw_come_stops_the_run_and_is_not_kept(server: Any, tmp_path: Path) -> None:
    reward = make(server, cache=tmp_path / "cache")
    reward.load()
    server.health["judge_sha256"] = "def"  # between two calls: no request ever failed
    with pytest.raises(JudgeError, match="came back as another judge, with another judge_sha256"):
        reward(**CALL)
    server.health["judge_sha256"] = "abc"
    asked = server.asked
    again = make(server, cache=tmp_path / "cache")
    again(**CALL)
    assert server.asked == asked + 4


def test_a_server_of_another_kind_is_refused(server: Any) -> None:
    del server.health["readout"]
    with pytest.raises(JudgeError, match="/health does not say readout"):
        make(server)(**CALL)


def test_what_is_known_is_not_asked_again(server: Any, tmp_path: Path, expected: list[float | None]) -> None:
    reward = make(server, cache=tmp_path / "cache")
    assert reward(**CALL) == pytest.approx(expected, abs=1e-6) and server.asked == 4
    again = make(server, cache=tmp_path / "cache")  # as in another run
    again.load()
    more = {"prompts": [*CALL["prompts"], "Sort."], "completions": [*CALL["completions"], "New."]}
    rewards = again(**more)
    assert rewards[:4] == pytest.approx(expected, abs=1e-6) and server.asked == 5
    with_reference = again(**CALL, reference=["1", None, None, None])
    assert server.asked == 6 and with_reference[0] != rewards[0] and with_reference[1:] == rewards[1:4]
    server.fault = "gone"  # what is in the cache outlives the server
    newest = {"prompts": [*CALL["prompts"], "Sort."], "completions": [*CALL["completions"], "Newest."]}
    assert again(**newest) == [*rewards[:4], None]
    server.fault = None
    assert again(**newest)[4] is not None  # a failure was not kept
    lonely = make(server, cache=tmp_path / "cache", max_outages=2)
    lonely.load()
    server.fault = "gone"
    assert lonely(**more) == rewards
    later = {"prompts": [*CALL["prompts"], "Sort."], "completions": [*CALL["completions"], "Later."]}
    assert lonely(**later) == [*rewards[:4], None]
    with pytest.raises(JudgeError, match="in 2 calls in a row"):  # what the cache knows is no sign of the judge
        lonely(**later)
    server.fault = None
    asked = server.asked
    server.health["judge_sha256"] = "def"
    make(server, cache=tmp_path / "cache")(**CALL)
    assert server.asked == asked + 4


def test_rewards_for_attributes_judge_once(server: Any) -> None:
    rewards = JudgeReward.for_attributes(server.url, ["helpfulness", "verbosity"], retries=0)
    assert [reward.__name__ for reward in rewards] == ["judge_reward_helpfulness", "judge_reward_verbosity"]
    for copies in (rewards, pickle.loads(pickle.dumps(rewards)), copy.deepcopy(rewards)):
        first, second = (reward(**CALL) for reward in copies)
        assert first != second and None not in first + second
    assert server.asked == 2 * 4  # the deep copies know what their originals know


def test_async_rewards_overlap(server: Any, judge: Judge, expected: list[float | None]) -> None:
    from trl.trainer.utils import get_callable_name, is_async_callable  # noqa: PLC0415 (slow)

    meeting = threading.Barrier(2)

    class Meeting(JudgeReward):
        def __call__(self, *args: Any, **kwargs: Any) -> list[float | None]:
            meeting.wait(60)  # breaks unless both rewards are being computed at the same time
            return super().__call__(*args, **kwargs)

    rewards = [AsyncJudgeReward(Meeting(server.url)), AsyncJudgeReward(Meeting(judge, name="local"))]
    assert all(is_async_callable(reward) for reward in rewards)
    assert [get_callable_name(reward) for reward in rewards] == ["judge_reward", "local_reward"]

    async def both() -> list[list[float | None]]:
        return await asyncio.gather(*(reward(**CALL) for reward in rewards))

    for found in asyncio.run(both()):
        assert found == pytest.approx(expected, abs=1e-6)
    assert pickle.loads(pickle.dumps(AsyncJudgeReward(JudgeReward(server.url)))).__name__ == "judge_reward"


def test_pickles_and_copies_hold_no_connection(server: Any, expected: list[float | None]) -> None:
    reward = make(server)
    assert reward(**CALL) == pytest.approx(expected, abs=1e-6)
    data = pickle.dumps(reward)
    assert len(data) < 2000
    for other in (pickle.loads(data), copy.deepcopy(reward)):
        assert other(**CALL) == pytest.approx(expected, abs=1e-6)
    assert not pickle.loads(data)._source.is_loaded and copy.deepcopy(reward)._source.is_loaded


PROBE = """
import sys
from rmkit.rewards import JudgeReward

print(JudgeReward(sys.argv[1])(prompts=["Sort."], completions=["Fine."]))
print(sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "transformers", "vllm", "trl"}))
print(sorted(name for name in sys.modules if name.startswith("rmkit.engines")))
"""


def test_a_served_judge_needs_no_model_and_no_engine_here(server: Any, expected: list[float | None]) -> None:
    done = subprocess.run([sys.executable, "-c", PROBE, server.url], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    reward, heavy, engines = done.stdout.splitlines()
    assert json.loads(reward) == [pytest.approx(expected[0], abs=1e-6)]
    assert heavy == "[]" and engines == "[]"


def test_options_that_are_the_servers(server: Any) -> None:
    with pytest.raises(ValueError, match="truncate and rubric are the server's"):
        JudgeReward(server.url, truncate=True)
    with pytest.raises(TypeError, match="gpu_memory_utilization"):
        JudgeReward(server.url, gpu_memory_utilization=0.3)
