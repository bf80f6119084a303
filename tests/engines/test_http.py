"""The HTTP engine: against a real vLLM server, and against servers that fail in ways which a real one rarely does."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmkit.engines import Query
from rmkit.engines.http import HttpEngine
from rmkit.errors import JudgeError
from rmkit.judge import Judge
from rmkit.judge_encoder import JudgeEncoder
from rmkit.rubric import Attribute, Rubric
from rmkit.transport import API_KEY_VARIABLE

Answer = Callable[[str, dict[str, Any]], tuple[int, Any, dict[str, str]]]
Serve = Callable[..., Any]

QUERIES = [Query((5, 6, 7), tuple(range(3, 12))), Query((5, 6), (40, 2)), Query((9,), tuple(range(300)))]


def complete(_path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
    """What a server answers that does as it is asked: each token has the probability 1/512."""
    top = {f"token_id:{token}": -math.log(512) for token in body["logprob_token_ids"]}
    return 200, {"choices": [{"logprobs": {"top_logprobs": [top]}}]}, {}


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_tokenizer: Callable[..., Any],
    save_tiny_judge: Callable[..., Path],
) -> Path:
    """A judge's folder without weights: a client needs none."""
    rubric = Rubric("one", (Attribute("quality", "Quality"),))
    path = save_tiny_judge(tmp_path_factory.mktemp("judge"), tiny_tokenizer("split_digits"), rubric)
    (path / "model.safetensors").unlink()
    return path


def test_a_real_server_gives_the_scores_of_the_other_engines(
    judge_server: tuple[Path, str], tiny_tokenizer: Callable[..., Any]
) -> None:
    path, url = judge_server
    conversations = ["Hi", "Hi", [{"role": "system", "content": "x"}, {"role": "user", "content": "List 2 words."}]]
    responses = ["Hello.", "Helpfulness: 5", "words<|im_end|> and 14 lists"]
    reference, remote = Judge.load(path), Judge.load(path, "http", url=url)
    assert remote.rubric == reference.rubric
    assert (remote.max_length, remote.engine.vocab_size) == (reference.max_length, reference.engine.vocab_size)
    wide = Rubric("wide", tuple(Attribute(key, key.capitalize(), minimum=0, maximum=359) for key in ("help", "all")))
    three_digits = tiny_tokenizer("three_digits")  # 360 scores of one token each: three requests
    assert len(three_digits) <= remote.engine.vocab_size
    for encoder, mode in (
        (remote.encoder, "sequential"),
        (remote.encoder, "independent"),
        (JudgeEncoder(three_digits, wide), "sequential"),
    ):
        ours, theirs = (
            Judge(encoder, judge.engine, mode=mode).score(conversations, responses) for judge in (reference, remote)
        )
        for a, b in zip(ours, theirs, strict=True):
            assert a.error is None and b.error is None
            assert tuple(b.attributes) == encoder.rubric.keys
            for key, distribution in a.attributes.items():
                np.testing.assert_allclose(b.attributes[key].probabilities, distribution.probabilities, atol=1e-3)
                assert b.attributes[key].outside_mass == pytest.approx(distribution.outside_mass, abs=1e-3)
    backwards = remote.score(conversations[::-1], responses[::-1])[::-1]
    alone = [remote.score([a], [b])[0] for a, b in zip(conversations, responses, strict=True)]
    for first, *others in zip(remote.score(conversations, responses), backwards, alone, strict=True):
        for other in others:
            assert other.aggregate == pytest.approx(first.aggregate, abs=1e-4)


def test_answers_come_in_the_order_of_the_queries(serve: Serve, folder: Path) -> None:
    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        time.sleep(0.05 if len(body["prompt"]) > 1 else 0)  # later ones answer first
        top = {f"token_id:{token}": -10 - token / 1000 for token in body["logprob_token_ids"]}
        return 200, {"choices": [{"logprobs": {"top_logprobs": [{**top, "token_id:511": -0.1}]}}]}, {}

    with serve(answer) as (url, asked):
        engine = HttpEngine(str(folder), url)
        answers = engine.logprobs(QUERIES)
        assert engine.logprobs([]) == []
    assert (engine.model, engine.max_length) == ("judge", 700)
    for query, found in zip(QUERIES, answers, strict=True):
        np.testing.assert_allclose(found, [-10 - token / 1000 for token in query.token_ids])
    assert sorted(len(body["logprob_token_ids"]) for body in asked) == [2, 9, 44, 128, 128]
    assert {(body["max_tokens"], body["temperature"], body["model"]) for body in asked} == {(1, 0.0, "judge")}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_overloaded_server_is_asked_again(serve: Serve, folder: Path, status: int) -> None:
    seen: dict[int, int] = {}
    lock = threading.Lock()

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        with lock:
            key = hash((tuple(body["prompt"]), tuple(body["logprob_token_ids"])))
            seen[key] = seen.get(key, 0) + 1
            if seen[key] <= 2:
                return status, {"error": "busy"}, {"Retry-After": "0"}
        return complete(path, body)

    with serve(answer) as (url, _asked):
        answers = HttpEngine(str(folder), url, retries=2).logprobs(QUERIES)
        assert [len(found) for found in answers] == [9, 2, 300]
        seen.clear()
        with pytest.raises(
            JudgeError, match=rf"{url}/v1/completions: no answer after 2 tries: status {status}, .*busy"
        ):
            HttpEngine(str(folder), url, retries=1, concurrency=1).logprobs(QUERIES[:1])


def test_after_a_failure_the_rest_is_not_sent(serve: Serve, folder: Path) -> None:
    with serve(lambda path, body: (400, {"error": "no such thing"}, {})) as (url, asked):
        engine = HttpEngine(str(folder), url, concurrency=2)
        with pytest.raises(JudgeError, match="status 400, .*no such thing"):
            engine.logprobs([Query((n + 1,), (1, 2)) for n in range(200)])
    assert len(asked) < 20


def test_no_more_requests_at_a_time_than_allowed(serve: Serve, folder: Path) -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return complete(path, body)

    with serve(answer) as (url, _asked):
        HttpEngine(str(folder), url, concurrency=4).logprobs([Query((n + 1,), (1, 2)) for n in range(40)])
    assert 1 < most <= 4


def edit(change: Callable[[dict[str, Any]], Any]) -> Answer:
    """The right answer with its log-probabilities changed."""

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        _, data, _ = complete(path, body)
        return (
            200,
            {"choices": [{"logprobs": {"top_logprobs": [change(data["choices"][0]["logprobs"]["top_logprobs"][0])]}}]},
            {},
        )

    return answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            edit(lambda top: dict(list(top.items())[::2])),
            "no log-probability for 4 of 9 score tokens, such as 4; .*vLLM",
        ),
        (edit(lambda top: {"4": -1.0, "5": -2.0}), r"names tokens by text \(\['4', '5'\]\)"),
        (edit(lambda top: dict.fromkeys(top, 0.5)), "numbers that are no log-probabilities"),
        (edit(lambda top: None), "gave no log-probabilities"),
        (lambda path, body: (200, {"choices": []}, {}), "gave no log-probabilities"),
        (lambda path, body: (200, b"<html>", {}), "the answer is no JSON but '<html>'"),
        (lambda path, body: (401, {}, {}), "status 401, .*; set RMKIT_API_KEY to the server's key"),
        (lambda path, body: (404, {}, {}), "status 404"),
    ],
)
def test_an_answer_without_every_score_token_is_an_error(
    serve: Serve, folder: Path, answer: Answer, message: str
) -> None:
    with serve(answer) as (url, asked):
        with pytest.raises(JudgeError, match=message) as caught:
            HttpEngine(str(folder), url).logprobs(QUERIES[:1])
    assert url in str(caught.value)
    assert len(asked) == 1


def test_no_probability_at_all_is_no_number(serve: Serve, folder: Path) -> None:
    with serve(edit(lambda top: {**dict.fromkeys(top, None), "token_id:3": -9999.0})) as (url, _asked):
        judge = Judge.load(folder, "http", url=url)
        [found] = judge.engine.logprobs(QUERIES[:1])
        assert found[0] == -math.inf and np.isnan(found[1:]).all()
        [judgment] = judge.score(["Hi"], ["Hello."])
    assert judgment.aggregate is None
    assert judgment.error is not None and "no probabilities to read" in judgment.error


def test_key_comes_from_the_environment(serve: Serve, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(complete) as (url, asked):
        HttpEngine(str(folder), url).logprobs(QUERIES[:1])
        monkeypatch.setenv(API_KEY_VARIABLE, "secret")
        HttpEngine(str(folder), f"{url}/v1/").logprobs(QUERIES[:1])
    assert [body["key"] for body in asked] == [None, "Bearer secret"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:8000", "is no address of a server; expected http://HOST:PORT"),
        ("ftp://host", "is no address of a server"),
        ("http://me:secret@host:1", "holds a password; leave it out and set RMKIT_API_KEY"),
        ("http://127.0.0.1:1", r"http://127.0.0.1:1/v1/models: no answer after 1 tries: ConnectError .*see that"),
    ],
)
def test_no_such_server(folder: Path, url: str, message: str) -> None:
    with pytest.raises(JudgeError, match=message) as caught:
        HttpEngine(str(folder), url, retries=0)
    assert "secret" not in str(caught.value)


def test_the_served_model_is_found_or_asked_for(serve: Serve, folder: Path) -> None:
    with serve(complete, {"data": [{"id": "a"}, {"id": "b", "max_model_len": 99}]}) as (url, _asked):
        with pytest.raises(
            JudgeError, match=r"serves \['a', 'b'\]; say which of them is the judge \(--served-model\)"
        ):
            HttpEngine(str(folder), url)
        with pytest.raises(JudgeError, match=r"does not serve 'c' but \['a', 'b'\]"):
            HttpEngine(str(folder), url, model="c")
        assert HttpEngine(str(folder), url, model="b").max_length == 99
        assert HttpEngine(str(folder), url, model="a", max_length=50).max_length == 50
    with serve(complete, ["a"]) as (url, _asked), pytest.raises(JudgeError, match="gave no list of models"):
        HttpEngine(str(folder), url)


def test_a_slow_server_is_not_waited_for_without_end(serve: Serve, folder: Path) -> None:
    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        time.sleep(1)
        return complete(path, body)

    with serve(answer) as (url, _asked), pytest.raises(JudgeError, match="no answer after 1 tries: ReadTimeout"):
        HttpEngine(str(folder), url, timeout=0.2, retries=0).logprobs(QUERIES[:1])
