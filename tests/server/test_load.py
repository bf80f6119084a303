"""Many clients at a time: all answers right, no error but 429, and no memory that grows."""

from __future__ import annotations

import asyncio
import importlib.util
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from rmkit.judge import Judge
from rmkit.schema import Judgment

CLIENTS = 64
CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Write a list of words."}]


@dataclass
class Load:
    """What clients saw: statuses, seconds of each answer, and answers that are not the judge's."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: list[Any] = field(default_factory=list)


def make_items(count: int) -> list[dict[str, Any]]:
    conversations: list[Any] = ["Hi", "List 3 words.", CHAT]
    return [
        {"conversation": conversations[number % 3], "response": f"{number}: " + "words and lists " * (number % 20)}
        for number in range(count)
    ]


def score_here(judge: Judge, items: list[dict[str, Any]]) -> list[Judgment]:
    return judge.score([item["conversation"] for item in items], [item["response"] for item in items])


def is_right(data: dict[str, Any], expected: Judgment, tolerance: float) -> bool:
    """Whether each number of a judgement is the judge's."""
    found = Judgment.from_dict(data)
    return found.aggregate is not None and all(
        np.allclose(found.attributes[key].probabilities, distribution.probabilities, atol=tolerance)
        for key, distribution in expected.attributes.items()
    )


async def put_load_on(
    url: str, items: list[dict[str, Any]], expected: list[Judgment], tolerance: float, until: float = 0.0
) -> Load:
    """Let each of 64 clients send its share of the items, one a request, again and again until a time has come."""
    load = Load()

    async def send(number: int) -> None:
        async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=1)) as client:
            while True:
                for index in range(number, len(items), CLIENTS):
                    while True:
                        started = time.monotonic()
                        answer = await client.post(f"{url}/score", json={"items": [items[index]]})
                        load.statuses[answer.status_code] += 1
                        if answer.status_code != 429:
                            break
                        await asyncio.sleep(float(answer.headers["Retry-After"]))
                    load.seconds.append(time.monotonic() - started)
                    [data] = answer.json()["judgments"]
                    if not is_right(data, expected[index], tolerance):
                        load.wrong.append((items[index], data))
                if time.monotonic() >= until:
                    return

    await asyncio.gather(*(send(number) for number in range(CLIENTS)))
    return load


def test_64_clients_at_a_time_get_right_answers(server: Any, judge: Judge) -> None:
    items = make_items(CLIENTS * 4)
    load = asyncio.run(put_load_on(server.url, items, score_here(judge, items), 1e-5))
    assert load.wrong == []
    assert set(load.statuses) <= {200, 429} and load.statuses[200] == len(items)
    counters = httpx.get(f"{server.url}/metrics").text
    batches = float(counters.partition("\nrmkit_batch_items_count ")[2].partition("\n")[0])
    judged = float(counters.partition("\nrmkit_batch_items_sum ")[2].partition("\n")[0])
    assert judged / batches > 2, "requests of different clients did not share batches"


@pytest.mark.long
@pytest.mark.parametrize(("engine", "tolerance"), [("transformers", 1e-5), ("vllm", 1e-3)])
def test_ten_minutes_of_64_clients_leave_no_trace_in_memory(
    engine: str,
    tolerance: float,
    judge_folder: Path,
    judge: Judge,
    tmp_path: Path,
    start_server: Callable[..., Any],
) -> None:
    if engine == "vllm" and importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM has no build for this platform")
    items = make_items(CLIENTS * 50)
    expected = score_here(judge, items)

    async def watch(process: psutil.Process, memory: list[tuple[float, int]], started: float) -> None:
        while True:
            memory.append((time.monotonic() - started, process.memory_info().rss))
            await asyncio.sleep(1)

    async def run(server: Any) -> tuple[Load, list[tuple[float, int]]]:
        memory: list[tuple[float, int]] = []
        started = time.monotonic()
        watching = asyncio.create_task(watch(psutil.Process(server.process.pid), memory, started))
        load = await put_load_on(server.url, items, expected, tolerance, started + 600)
        watching.cancel()
        return load, memory

    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1"}
    with start_server(judge_folder, tmp_path / "log", "--engine", engine, env=environment) as server:
        process = psutil.Process(server.process.pid)
        before = sum(process.cpu_times()[:2])
        load, memory = asyncio.run(run(server))
        cpu = sum(process.cpu_times()[:2]) - before
        assert server.stop() == 0
    early = statistics.median(size for seconds, size in memory if 120 <= seconds < 150)
    late = statistics.median(size for seconds, size in memory if 570 <= seconds < 600)
    p50, p90, p99 = np.percentile(load.seconds, [50, 90, 99]) * 1000
    rate, each = len(load.seconds) / memory[-1][0], 1000 * cpu / len(load.seconds)
    print(
        f"{engine}: {len(load.seconds):,} requests, {rate:.0f} a second, {each:.1f} ms of the server's CPU each; "
        f"p50 {p50:.0f} ms, p90 {p90:.0f} ms, p99 {p99:.0f} ms; resident {early / 2**20:.0f} MiB after 2 minutes, "
        f"{late / 2**20:.0f} after 10; statuses {dict(load.statuses)}"
    )
    assert load.wrong == []
    assert set(load.statuses) <= {200, 429}
    assert len(load.seconds) >= len(items)
    assert late < 1.05 * early
