"""The server in a process of its own: right answers, what it refuses, and how it ends."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from rmkit.client import JudgeClient
from rmkit.errors import JudgeError
from rmkit.judge import Judge
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Judgment
from rmkit.scores import centre
from rmkit.transport import API_KEY_VARIABLE

KEY = {"Authorization": "Bearer secret"}
JSON = {"Content-Type": "application/json"}
ITEM = {"conversation": "Hi", "response": "Hello."}
LONG = {"conversation": "Hi", "response": "word " * 400}

CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "List 2 words."}]
OWN = Rubric("own", (Attribute("tone", "Tone", minimum=0, maximum=20),))
ITEMS: list[dict[str, Any]] = [
    {"conversation": "Hi", "response": "Hello."},
    {"conversation": "Hi", "response": "Helpfulness: 5, Verbosity: 1"},
    {"conversation": CHAT, "response": "words<|im_end|> and ☃"},
    {"conversation": CHAT, "response": [{"role": "assistant", "content": None, "tool_calls": [{"name": "list"}]}]},
    {"conversation": "Hi", "response": "Hello.", "reference": "Good day."},
    {"conversation": "Hi", "response": "Hello.", "rubric": OWN.to_dict()},
    {"conversation": "Hi", "response": ""},
    {"conversation": "Hi", "response": "x" * 10_000},
    {"conversation": [{"role": "assistant", "content": "Hi"}], "response": "no user turn"},
]


def score_here(judge: Judge, items: list[dict[str, Any]]) -> list[Judgment]:
    """What the judge says in this process."""
    rubrics = [Rubric.from_dict(item["rubric"]) if "rubric" in item else None for item in items]
    return judge.score(
        [item["conversation"] for item in items],
        [item["response"] for item in items],
        [item.get("reference") for item in items],
        rubrics,
    )


def assert_same(found: Judgment, expected: Judgment, tolerance: float) -> None:
    assert (found.error, found.prompt_tokens, found.truncated) == (
        expected.error,
        expected.prompt_tokens,
        expected.truncated,
    )
    assert found.aggregate == pytest.approx(expected.aggregate, abs=tolerance)
    assert list(found.attributes) == list(expected.attributes)
    for key, distribution in found.attributes.items():
        assert distribution.values == expected.attributes[key].values
        assert distribution.probabilities == pytest.approx(expected.attributes[key].probabilities, abs=tolerance)
        assert distribution.outside_mass == pytest.approx(expected.attributes[key].outside_mass, abs=tolerance)


def test_scores_are_the_judges_own(server: Any, judge: Judge) -> None:
    expected = score_here(judge, ITEMS)
    assert [judgment.error is None for judgment in expected] == [True] * 6 + [False] * 3
    client = JudgeClient(server.url)
    for found in (client.score(ITEMS), asyncio.run(client.ascore(ITEMS)), client.score(ITEMS[::-1])[::-1]):
        for one, other in zip(found, expected, strict=True):
            if one.error is None:
                assert_same(one, other, 1e-5)
            else:
                assert one.error == other.error and one.aggregate is None
    raw = httpx.post(f"{server.url}/score", json={"items": ITEMS}).json()["judgments"]
    for data, other in zip(raw, expected, strict=True):
        assert_same(Judgment.from_dict(data), other, 1e-5)
        assert all("mean" in distribution for distribution in data["attributes"].values())


def test_comparisons_are_the_judges_own(server: Any, judge: Judge) -> None:
    first, second = ["Hello.", "words", "Hi", ""], ["Good day to you.", "words", "x" * 10_000, "Hi"]
    pairs = [{"conversation": CHAT, "first": a, "second": b} for a, b in zip(first, second, strict=True)]
    expected = judge.compare([CHAT] * len(pairs), first, second)
    assert [comparison.verdict for comparison in expected][1:] == [0, None, None]
    found = JudgeClient(server.url).compare(pairs)
    for one, other in zip(found[:3], expected, strict=False):
        assert_same(one.first, other.first, 1e-5)
        assert_same(one.second, other.second, 1e-5)
        assert one.verdict == other.verdict
        assert one.probability_first == pytest.approx(other.probability_first, abs=1e-5)
    assert found[3].verdict is None
    raw = httpx.post(f"{server.url}/compare", json={"pairs": pairs, "tolerance": 2.0}).json()["comparisons"]
    assert [comparison["verdict"] for comparison in raw] == [0, 0, None, None]
    assert_same(Judgment.from_dict(raw[3]["second"]), expected[3].second, 1e-5)


def test_rewards_in_openrlhfs_protocol(server: Any, judge: Judge) -> None:
    prompts, responses = ["Hi ", "User: List.\nAssistant: "], ["Hello.", "1, 2"]
    query = ["<|endoftext|>Hi Hello.<|im_end|>", "User: List.\nAssistant: 1, 2\n<|endoftext|><|endoftext|>"]
    expected = judge.score(prompts, responses)
    body = {"query": query, "prompts": prompts, "labels": ["", None]}
    found = httpx.post(f"{server.url}/get_reward", json=body)
    assert found.status_code == 200
    scores = [judgment.aggregate for judgment in expected if judgment.aggregate is not None]
    assert found.json()["scores"] == pytest.approx(scores, abs=1e-5)
    assert found.json()["rewards"] == pytest.approx([centre(judge.rubric, score) for score in scores], abs=1e-5)
    assert found.json()["extra_logs"] == {
        key: pytest.approx([judgment.attributes[key].mean for judgment in expected], abs=1e-5)
        for key in judge.rubric.keys
    }


def test_a_failed_judgement_gives_no_reward_at_all(server: Any) -> None:
    body = {"query": ["Hi there", "Hi <|im_end|>", "Hi " + "x" * 10_000], "prompts": ["Hi "] * 3}
    found = httpx.post(f"{server.url}/get_reward", json=body)
    assert found.status_code == 503
    assert set(found.json()) == {"detail", "failed"}
    assert found.json()["detail"] == "2 rows can't be judged: [1, 2]"
    assert [(row["index"], row["error"].partition(":")[0]) for row in found.json()["failed"]] == [
        (1, "DataError"),
        (2, "PromptTooLongError"),
    ]
    for wrong in ({"query": ["Hi"], "prompts": []}, {"query": ["Hi"], "prompts": ["Ho"]}, {"query": ["Hi"]}):
        assert httpx.post(f"{server.url}/get_reward", json=wrong).status_code == 422


def test_health_says_which_judge_this_is(server: Any, judge: Judge) -> None:
    health = JudgeClient(server.url).health()
    assert (health["status"], health["judge"], health["engine"]) == ("ok", "tiny_judge", "transformers")
    assert Rubric.from_dict(health["rubric"]) == judge.rubric
    assert (health["readout"], health["mode"], health["max_length"]) == ("mean", "sequential", judge.max_length)
    assert len(health["judge_sha256"]) == 64
    assert health["versions"]["torch"] == importlib.metadata.version("torch")
    assert health["limits"] == {"queue_items": 2048, "request_items": 256, "request_bytes": 8 * 2**20}


def test_metrics_count_what_was_done(server: Any) -> None:
    def read() -> dict[str, float]:
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    before = read()
    JudgeClient(server.url).score([ITEM, {**ITEM, "response": "x" * 10_000}])
    httpx.post(f"{server.url}/score", json={})
    after = read()
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    assert grown['rmkit_judgments_total{outcome="judged"}'] == grown['rmkit_judgments_total{outcome="failed"}'] == 1
    assert grown['rmkit_requests_total{path="/score",status="422"}'] == 1
    assert grown['rmkit_request_seconds_count{path="/score"}'] >= 2
    assert grown["rmkit_prompt_tokens_total"] > 50
    assert after["rmkit_open_items"] == 0
    assert after["process_resident_memory_bytes"] > 2**26


HOSTILE: list[tuple[bytes, dict[str, str], int, str]] = [
    (b"", JSON, 422, "body"),
    (b"null", JSON, 422, "body"),
    (b"[]", JSON, 422, "body"),
    (b"{", JSON, 422, "the body is no JSON"),
    (b"\xff\xfe", JSON, 422, "the body is no JSON"),
    (b'{"items": [{"conversation": "Hi", "response": "\\ud800"}]}', JSON, 422, "no low surrogate in string"),
    (b'{"items": [{"conversation": "Hi", "response": NaN}]}', JSON, 422, "the body is no JSON"),
    (b'{"items": [{"conversation": "Hi", "response": 5}]}', JSON, 422, "body.items.0.response"),
    (b'{"items": [{"conversation": {"role": "user"}, "response": "x"}]}', JSON, 422, "body.items.0.conversation"),
    (b'{"items": [{"conversation": "Hi"}]}', JSON, 422, "body.items.0.response: Field required"),
    (b'{"items": [{"conversation": "Hi", "response": "x", "weight": 1}]}', JSON, 422, "weight: Extra inputs"),
    (b'{"items": [], "other": 1}', JSON, 422, "other: Extra inputs are not permitted"),
    (b'{"items": ' + b"[" * 100_000, JSON, 422, "depth limit exceeded"),
    (b'{"items": {"a": ' * 500 + b"1" + b"}}" * 500, JSON, 422, "body.items"),
    (b'{"items": []}', {}, 415, "send the header Content-Type: application/json"),
    (b'{"items": []}', {"Content-Type": "text/plain"}, 415, "send the header Content-Type"),
]


@pytest.mark.parametrize(("body", "headers", "status", "detail"), HOSTILE)
def test_what_is_no_request_is_refused_with_a_reason(
    server: Any, body: bytes, headers: dict[str, str], status: int, detail: str
) -> None:
    found = httpx.post(f"{server.url}/score", content=body, headers=headers)
    assert found.status_code == status
    assert detail in found.json()["detail"]
    assert len(found.json()["detail"]) < 2000


@pytest.mark.parametrize("depth", [100, 500, 1000])
def test_deep_nesting_is_judged_or_refused(server: Any, depth: int) -> None:
    calls = "[" * depth + "]" * depth
    response = f'[{{"role": "assistant", "content": "x", "tool_calls": {calls}}}]'
    body = f'{{"items": [{{"conversation": "Hi", "response": {response}}}]}}'
    found = httpx.post(f"{server.url}/score", content=body, headers=JSON)
    assert found.status_code in (200, 422)
    assert depth > 100 or found.status_code == 200


def test_a_rubric_with_endless_scales_is_not_judged(server: Any) -> None:
    wide = {"attributes": [{"key": "a", "scale": [0, 100_000]}]}
    broken = {"attributes": [{"key": "Not Snake"}]}
    rows = [{**ITEM, "rubric": wide}, {**ITEM, "rubric": broken}, ITEM]
    judgments = httpx.post(f"{server.url}/score", json={"items": rows}).json()["judgments"]
    assert "and a request's own may have 1,024" in judgments[0]["error"]
    assert "snake case" in judgments[1]["error"]
    assert judgments[2]["error"] is None


@pytest.mark.parametrize("tolerance", ["NaN", "Infinity", "-1", '"0"', "1e400"])
def test_a_tolerance_that_is_none_is_refused(server: Any, tolerance: str) -> None:
    body = f'{{"pairs": [{{"conversation": "Hi", "first": "a", "second": "b"}}], "tolerance": {tolerance}}}'
    assert httpx.post(f"{server.url}/compare", content=body, headers=JSON).status_code == 422


def test_the_api_describes_itself(server: Any) -> None:
    assert "swagger" in httpx.get(f"{server.url}/docs").text
    api = httpx.get(f"{server.url}/openapi.json").json()
    assert set(api["paths"]) == {"/score", "/compare", "/get_reward", "/health", "/metrics"}
    for path, name in (("/score", "ScoreBody"), ("/compare", "CompareBody"), ("/get_reward", "RewardBody")):
        example = api["components"]["schemas"][name]["example"]
        assert httpx.post(f"{server.url}{path}", json=example).status_code == 200
        assert {"200", "401", "413", "415", "422", "429", "503"} <= set(api["paths"][path]["post"]["responses"])


def test_requests_made_from_the_api_find_no_error_of_the_server(server: Any, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(
        '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "4xx", "503"]\n'  # /get_reward may say 503
    )
    command = [str(Path(sys.executable).with_name("st")), "run", f"{server.url}/openapi.json", "--seed", "1"]
    command += ["--checks", "not_a_server_error,content_type_conformance,response_schema_conformance"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "15", "--suppress-health-check", "all"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stdout[-4000:]
    assert "Test cases:" in found.stdout, found.stdout[-2000:]
    assert JudgeClient(server.url).health()["status"] == "ok"


def test_who_lacks_the_key_is_refused(strict_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url = strict_server.url
    wrong = ({}, {"Authorization": "Bearer secre"}, {"Authorization": "secret"}, {"Authorization": "Bearer s\xe9cret"})
    for headers in wrong:
        for method, path in (("POST", "/score"), ("POST", "/get_reward"), ("GET", "/health"), ("GET", "/metrics")):
            encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
            found = httpx.request(method, f"{url}{path}", headers=encoded)
            assert found.status_code == 401 and "key" in found.json()["detail"]
    assert httpx.post(f"{url}/score", json={"items": [ITEM]}, headers=KEY).status_code == 200
    with pytest.raises(JudgeError, match="status 401, .*set RMKIT_API_KEY to the server's key"):
        JudgeClient(url).score([ITEM])
    monkeypatch.setenv(API_KEY_VARIABLE, "secret")
    assert JudgeClient(url).score([ITEM])[0].error is None
    assert "secret" not in strict_server.log.read_text()


def test_too_much_at_a_time_is_refused(strict_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{strict_server.url}/score"
    found = httpx.post(url, json={"items": [ITEM] * 5}, headers=KEY)
    assert found.status_code == 413 and "5 items in one request, and it may have 4" in found.json()["detail"]
    pairs = [{"conversation": "Hi", "first": "a", "second": "b"}] * 3
    assert httpx.post(f"{strict_server.url}/compare", json={"pairs": pairs}, headers=KEY).status_code == 413
    long = json.dumps({"items": [{**ITEM, "response": "x" * 2**20}]}).encode()
    for content in (long, (long[start : start + 65536] for start in range(0, len(long), 65536))):
        found = httpx.post(url, content=content, headers={**KEY, **JSON})  # with its length, and in chunks without
        assert found.status_code == 413 and "longer than 1,048,576 bytes" in found.json()["detail"]
    monkeypatch.setenv(API_KEY_VARIABLE, "secret")
    longest, judged = JudgeClient(strict_server.url, concurrency=2).score([{**ITEM, "response": "x" * 2**20}, ITEM])
    assert longest.error is not None and "status 413" in longest.error and longest.aggregate is None
    assert judged.error is None


def test_a_full_queue_sends_clients_away_until_there_is_room(
    strict_server: Any, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def post_all() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=120) as client:
            body = {"items": [LONG] * 4}
            posts = [client.post(f"{strict_server.url}/score", json=body, headers=KEY) for _ in range(24)]
            return await asyncio.gather(*posts)

    answers = asyncio.run(post_all())
    counts = Counter(answer.status_code for answer in answers)
    assert set(counts) == {200, 429}, counts
    for answer in answers:
        if answer.status_code == 429:
            assert 1 <= int(answer.headers["Retry-After"]) <= 30
            assert "the queue is full" in answer.json()["detail"]
    monkeypatch.setenv(API_KEY_VARIABLE, "secret")
    [expected] = score_here(judge, [LONG])
    for found in JudgeClient(strict_server.url, concurrency=16, retries=20).score([LONG] * 32):
        assert_same(found, expected, 1e-5)


def test_who_leaves_is_not_judged(strict_server: Any) -> None:
    def read(name: str) -> float:
        lines = httpx.get(f"{strict_server.url}/metrics", headers=KEY).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    before = read('rmkit_requests_total{path="/score",status="499"}')
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{strict_server.url}/score", json={"items": [LONG] * 4}, headers=KEY, timeout=0.01)
    deadline = time.monotonic() + 60
    while read('rmkit_requests_total{path="/score",status="499"}') == before or read("rmkit_open_items") > 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert httpx.post(f"{strict_server.url}/score", json={"items": [ITEM]}, headers=KEY).status_code == 200


def test_sigterm_under_load_loses_nothing_that_was_accepted(
    judge_folder: Path, judge: Judge, tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    rows = [{"conversation": "Hi", "response": f"{number} " + "word " * 150} for number in range(128)]
    chunks = [rows[start : start + 4] for start in range(0, len(rows), 4)]
    expected = score_here(judge, rows)

    async def stop_under_load(server: Any) -> tuple[list[httpx.Response], list[httpx.Response]]:
        async with httpx.AsyncClient(timeout=300) as client, httpx.AsyncClient(timeout=300) as late:
            posts = [
                asyncio.create_task(client.post(f"{server.url}/score", json={"items": chunk})) for chunk in chunks
            ]
            while (
                f"rmkit_accepted_items_total {float(len(rows))}" not in (await late.get(f"{server.url}/metrics")).text
            ):
                await asyncio.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            while (health := await late.get(f"{server.url}/health")).status_code == 200:
                await asyncio.sleep(0.01)
            refused = await late.post(f"{server.url}/score", json={"items": [ITEM]})
            return await asyncio.gather(*posts), [health, refused]

    with start_server(judge_folder, tmp_path / "log") as server:
        answers, (health, refused) = asyncio.run(stop_under_load(server))
        assert server.process.wait(60) == 0
    found = [Judgment.from_dict(data) for answer in answers for data in answer.json()["judgments"]]
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other, 1e-5)
    assert (health.status_code, health.json()["status"]) == (503, "stopping")
    assert refused.status_code == 503 and refused.headers["Retry-After"]
    assert "the server is stopping" in refused.json()["detail"]
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert int(log.partition("stopping: ")[2].partition(" ")[0]) > 0, "the load was over before the signal"


def test_a_second_signal_ends_the_server_at_once(
    judge_folder: Path, tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    async def stop_twice(server: Any) -> None:
        async with httpx.AsyncClient(timeout=300) as client:
            post = asyncio.create_task(client.post(f"{server.url}/score", json={"items": [LONG] * 256}))
            while "rmkit_accepted_items_total 256.0" not in (await client.get(f"{server.url}/metrics")).text:
                await asyncio.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            while (await client.get(f"{server.url}/health")).status_code == 200:
                await asyncio.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(httpx.TransportError):
                await post

    with start_server(judge_folder, tmp_path / "log") as server:
        asyncio.run(stop_twice(server))
        assert server.process.wait(60) == 1
    assert "stopped at once" in (tmp_path / "log").read_text()


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM has no build for this platform")
def test_vllm_gives_the_same_scores_and_takes_requests_up_at_any_step(
    judge_folder: Path, judge: Judge, tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    rows = [*ITEMS, *({"conversation": CHAT, "response": f"{number} words"} for number in range(40))]
    expected = score_here(judge, rows)
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1"}
    with start_server(judge_folder, tmp_path / "log", "--engine", "vllm", env=environment) as server:
        client = JudgeClient(server.url, concurrency=8)
        assert client.health()["engine"] == "vllm"
        for found, other in zip(client.score(rows), expected, strict=True):
            assert found.error == other.error
            if found.error is None:
                assert_same(found, other, 1e-3)
        metrics = httpx.get(f"{server.url}/metrics").text
        assert server.stop() == 0
    batches = float(metrics.partition("\nrmkit_batch_items_count ")[2].partition("\n")[0])
    assert 1 < batches  # requests came while others were being judged, and did not wait for them
