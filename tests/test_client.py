"""The client of the judge server, against servers that answer as they are told, and some that lie."""

from __future__ import annotations

import asyncio
import copy
import multiprocessing
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from rmkit.client import JudgeClient
from rmkit.errors import JudgeError
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Comparison, JudgeItem, Judgment, Message
from rmkit.scores import ScoreDistribution, aggregate
from rmkit.transport import API_KEY_VARIABLE

Serve = Callable[..., Any]
Reply = tuple[int, Any, dict[str, str]]

RUBRIC = Rubric("one", (Attribute("quality", "Quality"),))


def judge(text: str) -> Judgment:
    """A judgement that tells which text it is of: the longer, the better."""
    if text == "unjudgeable":
        return Judgment({}, None, error="PromptTooLongError: too long")
    share = min(len(text), 100) / 100
    found = {"quality": ScoreDistribution((1, 2, 3, 4, 5), (1 - share, 0.0, 0.0, 0.0, share), 0.25)}
    return Judgment(found, aggregate(RUBRIC, found), prompt_tokens=len(text))


def answer(path: str, body: dict[str, Any]) -> Reply:
    """What a judge server answers."""
    if path == "/score":
        return 200, {"judgments": [judge(item["response"]).to_dict() for item in body["items"]]}, {}
    pairs = [(judge(pair["first"]), judge(pair["second"])) for pair in body["pairs"]]
    return 200, {"comparisons": [compare(*pair).to_dict() for pair in pairs]}, {}


def compare(first: Judgment, second: Judgment) -> Comparison:
    if first.aggregate is None or second.aggregate is None:
        return Comparison(first, second, None, None)
    return Comparison(first, second, 1 if first.aggregate > second.aggregate else -1, 0.5)


def items(count: int) -> list[dict[str, Any]]:
    return [{"conversation": "Hi", "response": "x" * (index + 1)} for index in range(count)]


def change(edit: Callable[[dict[str, Any]], Any]) -> Callable[[str, dict[str, Any]], Reply]:
    """The right answer with its first judgement edited."""

    def answer_wrong(path: str, body: dict[str, Any]) -> Reply:
        status, data, headers = answer(path, body)
        edit(data["judgments"][0])
        return status, data, headers

    return answer_wrong


@pytest.mark.parametrize("concurrency", [1, 3, 32])
def test_judgements_come_in_order(serve: Serve, concurrency: int) -> None:
    def answer_late(path: str, body: dict[str, Any]) -> Reply:
        time.sleep(0.02 * (body["items"][0]["response"] == "x"))  # the first comes last
        return answer(path, body)

    rows = items(40)
    with serve(answer_late) as (url, asked):
        client = JudgeClient(f"{url}/", concurrency=concurrency)
        expected = [judge(row["response"]) for row in rows]
        assert client.score(rows) == expected
        assert asyncio.run(client.ascore(rows)) == expected
        assert client.score([]) == []
        assert client.url == url
    assert sorted(len(body["items"]) for body in asked) == [8, 8, 16, 16, 16, 16]


def test_all_that_the_judge_is_shown_is_sent(serve: Serve) -> None:
    conversation = (Message("system", "Be kind."), Message("user", "Hi ☃"))
    item = JudgeItem(conversation, "Hello", "Good day", RUBRIC)
    with serve(answer) as (url, asked):
        client = JudgeClient(url)
        client.score([item])
        client.score([{"conversation": [m.to_dict() for m in conversation], "response": "Hello", "rubric": RUBRIC}])
        client.score([{"conversation": "Hi", "response": [{"role": "assistant", "content": "Yes"}]}])
    assert [JudgeItem.from_dict(body["items"][0]) for body in asked] == [
        item,
        JudgeItem(conversation, "Hello", rubric=RUBRIC),
        JudgeItem((Message("user", "Hi"),), "Yes"),
    ]


def test_what_can_not_be_judged_is_an_error_and_no_number(serve: Serve) -> None:
    rows = [
        {"conversation": "Hi", "response": ""},
        {"conversation": "Hi", "response": "x"},
        {"conversation": "Hi", "response": "\ud800"},
        {"conversation": "Hi", "response": "unjudgeable"},
        {"conversation": "Hi", "response": "x", "reference": 3},
        {"conversation": "Hi", "response": "x", "rubric": {"attributes": []}},
        {"response": "x"},
    ]
    with serve(answer) as (url, asked):
        judgments = JudgeClient(url).score(rows)
    assert [judgment.aggregate for judgment in judgments] == [None, judge("x").aggregate, *[None] * 5]
    assert [judgment.error and judgment.error.partition(":")[0] for judgment in judgments] == [
        "DataError", None, "DataError", "PromptTooLongError", "DataError", "RubricError", "DataError",
    ]  # fmt: skip
    assert sum(len(body["items"]) for body in asked) == 2


def test_pairs_are_compared(serve: Serve) -> None:
    pairs = [
        {"conversation": "Hi", "first": "xx", "second": "x"},
        {"conversation": "Hi", "first": "x", "second": "xx"},
        {"conversation": "Hi", "first": "x", "second": "unjudgeable"},
        {"conversation": "Hi", "first": "", "second": "x"},
    ]
    with serve(answer) as (url, asked):
        found = JudgeClient(url).compare(pairs, tolerance=0.25)
    assert found[:3] == [compare(judge(pair["first"]), judge(pair["second"])) for pair in pairs[:3]]
    assert [comparison.verdict for comparison in found] == [1, -1, None, None]
    assert found[3].first.error is not None and "empty" in found[3].first.error
    assert found[3].second.error == "JudgeError: the other response can't be judged"
    assert {body["tolerance"] for body in asked} == {0.25}


LIES: list[tuple[Callable[[str, dict[str, Any]], Reply], str]] = [
    (lambda path, body: (200, b"<html>", {}), "the answer is no JSON but '<html>'"),
    (lambda path, body: (200, b"[" * 100_000, {}), "the answer is no JSON"),
    (lambda path, body: (200, [], {}), "the answer holds no judgments"),
    (lambda path, body: (200, {"judgments": None}, {}), "the answer holds no judgments"),
    (lambda path, body: (200, {"judgments": []}, {}), "0 judgments came back for 1 rows"),
    (lambda path, body: (200, {"judgments": [judge("x").to_dict()] * 2}, {}), "2 judgments came back for 1 rows"),
    (lambda path, body: (200, {"judgments": [None]}, {}), "is none of judgments: TypeError"),
    (lambda path, body: (200, {"judgments": [{}]}, {}), "is none of judgments: KeyError"),
    (change(lambda judgment: judgment.update(aggregate=float("nan"))), "aggregate nan is no number from -1 to 1"),
    (change(lambda judgment: judgment.update(aggregate=7.5)), "aggregate 7.5 is no number from -1 to 1"),
    (change(lambda judgment: judgment.update(aggregate="0.5")), "aggregate '0.5' is no number"),
    (change(lambda judgment: judgment.update(aggregate=None)), "aggregate None is no number"),
    (change(lambda judgment: judgment.update(attributes={})), "no attributes and no error"),
    (change(lambda judgment: judgment.update(error="failed")), "an error and a number"),
    (change(lambda j: j["attributes"]["quality"].update(probabilities=[float("nan")] * 5)), "probability nan is no"),
    (change(lambda j: j["attributes"]["quality"].update(probabilities=[0.1] * 5)), "the probabilities add up to 0.5"),
    (change(lambda j: j["attributes"]["quality"].update(probabilities=[1.0])), "not one probability for each"),
    (change(lambda j: j["attributes"]["quality"].update(outside_mass=None)), "probability None is no number"),
    (lambda path, body: (404, {"detail": "gone"}, {}), "status 404, .*gone"),
    (lambda path, body: (401, {}, {}), "status 401, .*; set RMKIT_API_KEY to the server's key"),
    (lambda path, body: (307, {}, {"Location": "/elsewhere"}), "status 307"),
]


@pytest.mark.parametrize(("lie", "message"), LIES)
def test_an_answer_that_is_no_judgement_is_an_error_that_names_the_server(
    serve: Serve, lie: Callable[[str, dict[str, Any]], Reply], message: str
) -> None:
    with serve(lie) as (url, asked):
        client = JudgeClient(url)
        for score in (client.score, lambda rows: asyncio.run(client.ascore(rows))):
            with pytest.raises(JudgeError, match=message) as caught:
                score(items(1))
            assert f"{url}/score" in str(caught.value)
    assert len(asked) == 2


def test_a_verdict_on_a_failed_judgement_is_an_error(serve: Serve) -> None:
    def answer_wrong(path: str, body: dict[str, Any]) -> Reply:
        status, data, headers = answer(path, body)
        data["comparisons"][0]["verdict"] = 2
        return status, data, headers

    with serve(answer_wrong) as (url, _asked):
        for second, message in (("unjudgeable", "was not judged"), ("x", "verdict 2 is none of")):
            with pytest.raises(JudgeError, match=message):
                JudgeClient(url).compare([{"conversation": "Hi", "first": "xx", "second": second}])


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(serve: Serve, status: int) -> None:
    seen: dict[str, int] = {}
    lock = threading.Lock()

    def answer_third(path: str, body: dict[str, Any]) -> Reply:
        with lock:
            first = body["items"][0]["response"]
            seen[first] = seen.get(first, 0) + 1
            if seen[first] <= 2:
                return status, {"detail": "busy"}, {"Retry-After": "0"}
        return answer(path, body)

    rows = items(5)
    with serve(answer_third) as (url, _asked):
        assert JudgeClient(url, retries=2).score(rows) == [judge(row["response"]) for row in rows]
        seen.clear()
        assert asyncio.run(JudgeClient(url, retries=2).ascore(rows)) == [judge(row["response"]) for row in rows]
        seen.clear()
        client = JudgeClient(url, retries=1)
        for score in (client.score, lambda rows: asyncio.run(client.ascore(rows))):
            seen.clear()
            advice = "less concurrency" if status == 429 else "see that the server runs"
            message = rf"{url}/score: no answer after 2 tries: status {status}, .*busy.*{advice}, then give the same"
            with pytest.raises(JudgeError, match=message):
                score(items(1))


def test_a_server_that_is_not_there_or_too_slow_is_named(serve: Serve) -> None:
    def answer_late(path: str, body: dict[str, Any]) -> Reply:
        time.sleep(0.5)
        return answer(path, body)

    with serve(answer_late) as (url, _asked):
        client = JudgeClient(url, timeout=0.1, retries=0)
        for score in (client.score, lambda rows: asyncio.run(client.ascore(rows))):
            with pytest.raises(
                JudgeError, match=f"{url}/score: no answer after 1 tries: ReadTimeout.*longer than 0.1 s"
            ):
                score(items(1))
    with pytest.raises(JudgeError, match=f"{url}/score: no answer after 2 tries: ConnectError"):
        JudgeClient(url, retries=1).score(items(1))
    with pytest.raises(JudgeError, match=f"{url}/health: no answer after 1 tries: ConnectError"):
        JudgeClient(url, retries=0).health()


def test_after_a_failure_the_rest_is_not_sent(serve: Serve) -> None:
    with serve(lambda path, body: (400, {"detail": "no such thing"}, {})) as (url, asked):
        client = JudgeClient(url, concurrency=2)
        for score in (client.score, lambda rows: asyncio.run(client.ascore(rows))):
            with pytest.raises(JudgeError, match="status 400, .*no such thing"):
                score(items(2000))
    assert len(asked) < 40


def test_long_texts_get_requests_of_their_own(serve: Serve) -> None:
    def refuse_long(path: str, body: dict[str, Any]) -> Reply:
        if sum(len(item["response"]) for item in body["items"]) > 2**20:
            return 413, {"detail": "too large"}, {}
        return answer(path, body)

    lengths = [10, 500_000, 500_000, 100_000, 1_200_000, 30]
    with serve(refuse_long) as (url, asked):
        judgments = JudgeClient(url, concurrency=1).score(
            [{"conversation": "Hi", "response": "x" * length} for length in lengths]
        )
    assert sorted(len(body["items"]) for body in asked) == [1, 1, 1, 1, 2]
    assert [judgment.prompt_tokens for judgment in judgments] == [10, 500_000, 500_000, 100_000, 0, 30]
    assert judgments[4].aggregate is None
    assert judgments[4].error is not None and "status 413" in judgments[4].error


@pytest.mark.parametrize("most", [1, 3, 8])
def test_a_server_that_takes_fewer_items_is_sent_fewer(serve: Serve, most: int) -> None:
    def refuse_many(path: str, body: dict[str, Any]) -> Reply:
        if len(body.get("items", body.get("pairs"))) > most:
            return 413, {"detail": "too many"}, {}
        return answer(path, body)

    rows = items(21)
    pairs = [{"conversation": "Hi", "first": row["response"], "second": "x" * 9} for row in rows]
    with serve(refuse_many) as (url, _asked):
        client = JudgeClient(url)
        expected = [judge(row["response"]) for row in rows]
        assert client.score(rows) == expected
        assert asyncio.run(client.ascore(rows)) == expected
        assert [found.first for found in client.compare(pairs)] == expected


def test_health_is_that_of_a_judge_server(serve: Serve) -> None:
    with serve(answer, {"judge": "tiny", "rubric": RUBRIC.to_dict()}) as (url, _asked):
        assert JudgeClient(url).health()["judge"] == "tiny"
    with serve(answer) as (url, _asked), pytest.raises(JudgeError, match=f"{url}/health: .*; is it a judge server"):
        JudgeClient(url).health()


def test_key_comes_from_the_environment(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(answer) as (url, asked):
        JudgeClient(url).score(items(1))
        client = JudgeClient(url)
        monkeypatch.setenv(API_KEY_VARIABLE, "secret")
        client.score(items(1))
        asyncio.run(client.ascore(items(1)))
        assert b"secret" not in pickle.dumps(client)
    assert [body["key"] for body in asked] == [None, "Bearer secret", "Bearer secret"]


@pytest.mark.parametrize("key", ["sekret\n", "s\u00e9kret"])
def test_a_key_that_no_header_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("RMKIT_API_KEY", key)
    with pytest.raises(JudgeError, match="RMKIT_API_KEY holds a line break"):
        JudgeClient("http://127.0.0.1:9").health()


def test_a_client_works_in_copies_and_in_other_processes(serve: Serve) -> None:
    rows = items(3)
    expected = [judge(row["response"]) for row in rows]
    with serve(answer) as (url, _asked):
        client = JudgeClient(url)
        assert client.score(rows) == expected
        assert copy.deepcopy(client).score(rows) == expected
        assert pickle.loads(pickle.dumps(client)).score(rows) == expected
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(client.score, (rows,)) == expected


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:8000", "is no address of a server; expected http://HOST:PORT"),
        ("ftp://host", "is no address of a server"),
        ("http://me:secret@host:1", "holds a password; leave it out and set RMKIT_API_KEY"),
    ],
)
def test_no_address_of_a_server(url: str, message: str) -> None:
    with pytest.raises(JudgeError, match=message) as caught:
        JudgeClient(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"retries": -1}, {"concurrency": 0}])
def test_limits_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the timeout must be above 0, retries at least 0 and concurrency at least 1"):
        JudgeClient("http://host", **options)
