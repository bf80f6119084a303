"""Fixtures shared by the whole suite."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rmkit.jsonl import write_jsonl
from rmkit.manifest import sha256_file, write_json
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Judgment, Message, PreferencePair
from rmkit.scores import ScoreDistribution, aggregate

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repo() -> Path:
    """The repository's root."""
    return REPO


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real data, golden values and tokenizers that stands beside some checkouts."""
    path = REPO.parent / "shared"
    if not path.is_dir():
        pytest.skip("the reference folder ../shared is not here")
    return path


@pytest.fixture(scope="session")
def finish_scoring() -> Callable[..., None]:
    """`finish_scoring(folder, rubric, input, records, **more)`: writes the scores, and the manifest with `more`."""

    def finish(folder: Path, rubric: Rubric, input: Path, records: list[dict[str, Any]], **more: Any) -> None:
        write_jsonl(folder / "scores.jsonl", records)
        manifest = {
            "judge": "tiny",
            "engine": "none",
            "rubric": rubric.to_dict(),
            "input": input.name,
            "input_sha256": sha256_file(input),
            "records": len(records),
            **more,
        }
        write_json(folder / "manifest.json", manifest)

    return finish


def _spread(score: float, outside: float = 0.0) -> ScoreDistribution:
    """A score from 1 to 5, put on the two scores around it."""
    low = min(int(score), 4)
    mass = {low: low + 1 - score, low + 1: score - low}
    return ScoreDistribution((1, 2, 3, 4, 5), tuple(mass.get(v, 0.0) for v in range(1, 6)), outside)


@pytest.fixture
def write_scoring(finish_scoring: Callable[..., None]) -> Callable[..., Path]:
    """Writes a finished scoring folder for rows of (id, subset, chosen, rejected).

    A side is an expected score from 1 to 5, put on the two scores around it, or None: a failed judgement.
    """
    rubric = Rubric("one", (Attribute("quality", "Quality"),))

    def judge(score: float | None) -> Judgment:
        if score is None:
            return Judgment({}, None, error="the prompt is too long")
        distribution = _spread(score)
        return Judgment({"quality": distribution}, aggregate(rubric, {"quality": distribution}), prompt_tokens=9)

    def write(
        folder: Path, rows: Iterable[tuple[Any, ...]], metadata: dict[str, dict[str, Any]] | None = None
    ) -> Path:
        pairs, records = [], []
        for row_id, subset, *scores in rows:
            conversation = (Message("user", f"Question {row_id}"),)
            extra = (metadata or {}).get(row_id, {})
            pairs.append(PreferencePair(row_id, subset, conversation, ("Good.",), ("Bad.",), extra))
            for side, score in zip(("chosen", "rejected"), scores, strict=True):
                records.append({"id": row_id, "side": side, "index": 0, **judge(score).to_dict()})
        folder.mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / "pairs.jsonl", (pair.to_dict() for pair in pairs))
        errors = sum(record["error"] is not None for record in records)
        finish_scoring(folder, rubric, folder / "pairs.jsonl", records, errors=errors, truncated=0)
        return folder

    return write


@pytest.fixture
def write_rated(finish_scoring: Callable[..., None]) -> Callable[..., tuple[Path, Path]]:
    """Writes rated rows and the scoring folder of them: returns the folder and the file of rows.

    A row is (id, rating of truth, expected score of truth[, fields of the row]); a rating or score of None is not
    there. Scores from 1 to 5 are put on the two scores around them.
    """
    rubric = Rubric("two", (Attribute("truth", "Truth"), Attribute("tone", "Tone", weight=0)))

    def judge(score: float | None) -> Judgment:
        if score is None:
            return Judgment({}, None, error="the prompt is too long")
        tone = ScoreDistribution((1, 2, 3, 4, 5), (0.2,) * 5)
        return Judgment({"truth": _spread(score, outside=0.01), "tone": tone}, (score - 1) / 4, prompt_tokens=9)

    def write(folder: Path, rows: Iterable[tuple[Any, ...]]) -> tuple[Path, Path]:
        data, records = [], []
        for row_id, rating, score, *fields in rows:
            row = {"id": row_id, "conversation": f"Question {row_id}", "response": "Yes.", "scores": {"truth": rating}}
            data.append({**row, **dict(*fields)})
            records.append({"id": row_id, "side": "response", "index": 0, **judge(score).to_dict()})
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "rows.jsonl"
        write_jsonl(file, data)
        finish_scoring(folder, rubric, file, records, judge_sha256="abc")
        return folder, file

    return write


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The module `tests/tiny.py`, which builds small tokenizers and models; loaded late, for it needs torch."""
    return _load_module("tiny")


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny: ModuleType) -> Callable[..., Any]:
    """`tiny_tokenizer(kind, chat=True)`: a small tokenizer, made once; see `build_tokenizer` in tests/tiny.py.

    Kinds: `byte_level`, `sentencepiece`, `split_digits`, `three_digits`.
    """
    return functools.cache(tiny.build_tokenizer)


@pytest.fixture(scope="session")
def save_tiny_model(tiny: ModuleType) -> Callable[..., Path]:
    """`save_tiny_model(folder, tokenizer, **options)`: writes a random model and the tokenizer; see tests/tiny.py."""
    return tiny.save_model


@pytest.fixture(scope="session")
def save_tiny_judge(tiny: ModuleType) -> Callable[..., Path]:
    """`save_tiny_judge(folder, tokenizer, rubric, **options)`: the same with a `judge_config.json`."""
    return tiny.save_judge


@pytest.fixture(scope="session")
def judge_folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Callable[..., Any], save_tiny_judge: Callable[..., Path]
) -> Path:
    """A judge of two attributes, for sequences of 512 tokens: what rewards come from."""
    rubric = Rubric("two", (Attribute("helpfulness", "Helpfulness", weight=2.0), Attribute("verbosity", "Verbosity")))
    folder = tmp_path_factory.mktemp("judge")
    return save_tiny_judge(folder, tiny_tokenizer("split_digits"), rubric, initializer_range=0.5, max_length=512)


@pytest.fixture(scope="module")
def judge(judge_folder: Path) -> Any:
    """The judge of `judge_folder`, or of the fixture that stands in for it there, loaded."""
    from rmkit.judge import Judge  # noqa: PLC0415 (heavy)

    return Judge.load(judge_folder)


@pytest.fixture(scope="session")
def policy_folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Callable[..., Any], save_tiny_model: Callable[..., Path]
) -> Path:
    """A model that a policy is trained from."""
    folder = tmp_path_factory.mktemp("policy")
    return save_tiny_model(folder, tiny_tokenizer("byte_level"), seed=1, initializer_range=0.02)


@pytest.fixture(
    scope="session",
    params=[
        "byte_level",
        "sentencepiece",
        "split_digits",
        "three_digits",
        "../shared/tokenizers/gpt2",
        "../shared/tokenizers/gpt_neox_20b",
        "../shared/tokenizers/mistral_v3",
        "../shared/models/stories260K",
    ],
)
def each_tokenizer(request: pytest.FixtureRequest, tiny_tokenizer: Callable[..., Any]) -> Any:
    """One tokenizer after the other: each kind of `tiny_tokenizer`, and the real ones where they are."""
    if not request.param.startswith(".."):
        return tiny_tokenizer(request.param)
    folder = REPO / request.param
    if not folder.is_dir():
        pytest.skip(f"the real tokenizer {request.param} is not here")
    from transformers import AutoTokenizer  # noqa: PLC0415 (heavy)

    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def count_added_tokens() -> Callable[..., int]:
    """`count_added_tokens(tokenizer, ids)`: how many of these ids are added tokens of the tokenizer."""

    def count(tokenizer: Any, ids: Iterable[int]) -> int:
        added = set(tokenizer.get_added_vocab().values())
        return sum(token in added for token in ids)

    return count


@pytest.fixture(scope="session")
def serve() -> Callable[..., AbstractContextManager[tuple[str, list[dict[str, Any]]]]]:
    """`with serve(answer, page) as (url, asked)`: a server on this machine that answers as it is told.

    `answer(path, body)` gives status, data (bytes as they are, all else as JSON) and headers for a POST; each GET
    gets `page`. `asked` collects the bodies, with the header `Authorization` as `key`.
    """
    return _serve


@contextmanager
def _serve(
    answer: Callable[[str, dict[str, Any]], tuple[int, Any, dict[str, str]]], page: Any = None
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.reply(200, page or {"data": [{"id": "judge", "max_model_len": 700}]}, {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({**body, "key": self.headers.get("Authorization")})
            self.reply(*answer(self.path, body))

        def reply(self, status: int, data: Any, headers: dict[str, str]) -> None:
            text = data if isinstance(data, bytes) else json.dumps(data).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def serve_faultily() -> Iterator[Callable[..., Any]]:
    """`serve_faultily(judge)`: a running server of it that can be told to fail; see tests/faulty_server.py."""
    started = []

    def serve(judge: Any) -> Any:
        server = _load_module("faulty_server").FaultyServer(judge)
        server.start()
        started.append(server)
        return server

    yield serve
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def start_server() -> Callable[..., Any]:
    """`with start_server(judge_folder, log_file, *options, env=None) as server`: see tests/server_process.py."""
    return _load_module("server_process").start_server


@pytest.fixture(scope="session")
def judge_server(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_tokenizer: Callable[..., Any],
    save_tiny_judge: Callable[..., Path],
) -> Iterator[tuple[Path, str]]:
    """A judge of two attributes, whose model knows the ids of two tokenizers, and the address of a vLLM with it."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM has no build for this platform")
    rubric = Rubric("two", (Attribute("helpfulness", "Helpfulness"), Attribute("verbosity", "Verbosity", weight=0.5)))
    size = max(len(tiny_tokenizer(kind)) for kind in ("split_digits", "three_digits"))
    folder = save_tiny_judge(
        tmp_path_factory.mktemp("served") / "judge",
        tiny_tokenizer("split_digits"),
        rubric,
        vocab_size=size,
        max_length=16_384,
    )
    with _serve_with_vllm(folder, "judge", tmp_path_factory.mktemp("server") / "log") as url:
        yield folder, url


@pytest.fixture(scope="session")
def serve_with_vllm() -> Callable[..., Any]:
    """`with serve_with_vllm(model_folder, name, log_file) as url`: a vLLM server in a process of its own."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM has no build for this platform")
    return _serve_with_vllm


@contextmanager
def _serve_with_vllm(folder: Path, name: str, log: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"model": folder, "served-model-name": name, "host": "127.0.0.1", "port": port, "dtype": "float32"}
    command = [sys.executable, "-W", "ignore", "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
    command += [str(part) for option, value in options.items() for part in (f"--{option}", value)]
    environment = {
        **os.environ,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with log.open("w") as output:
        server = subprocess.Popen([*command, "--block-size", "32"], stdout=output, stderr=output, env=environment)
    try:
        deadline = time.monotonic() + 300
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _load_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"rmkit_tests_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False
