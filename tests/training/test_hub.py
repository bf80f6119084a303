"""The finished judge goes to a hub once and whole: a small server stands in for it and writes down what it gets."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, close_session, constants

from rmkit.errors import DataError, JudgeError
from rmkit.training.hub import list_judge_files, push_judge
from rmkit.training.run import train_judge
from rmkit.training.settings import TrainingSettings, read_settings

Settings = Callable[..., TrainingSettings]


@dataclass
class Hub:
    """What was asked of the hub, and what it holds.

    Args:
        refuses: Paths that it answers with 403 are those that match.
        asked: Method and path of each request.
        created: Bodies of requests for a new repository.
        files: Content of each pushed file.
    """

    refuses: str = "^$"
    asked: list[str] = field(default_factory=list)
    created: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)

    def answer(self, path: str, body: bytes) -> Any:
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            return {"url": "https://huggingface.co/me/judge"}
        if path == "/api/models/me/judge/preupload/main":
            return {
                "files": [
                    {**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]
                ]
            }
        if path.startswith("/api/models/me/judge/commit/main"):
            lines = [json.loads(line) for line in body.splitlines()]
            for value in (line["value"] for line in lines if line["key"] == "file"):
                self.files[value["path"]] = base64.b64decode(value["content"])
            return {"commitOid": "0" * 40, "commitUrl": "https://huggingface.co/me/judge/commit/0", "success": True}
        return {"id": "me/judge", "sha": "0" * 40, "siblings": []}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.asked.append(f"{self.command} {self.path}")
            refused = re.search(state.refuses, self.path)
            text = json.dumps({"error": "no write access"} if refused else state.answer(self.path, body)).encode()
            self.send_response(403 if refused else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_HEAD = _respond

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_not_a_real_one")
    monkeypatch.setattr("rmkit.training.hub.HfApi", lambda: HfApi(endpoint=address))
    close_session()
    yield state
    server.shutdown()
    server.server_close()
    close_session()


PUSH = ("--push_to_hub", "true", "--hub_model_id", "me/judge", "--max_steps", "2")


def test_a_finished_judge_is_pushed_once(hub: Hub, small_settings: Settings) -> None:
    settings = small_settings(*PUSH, "--lora", "true", "--hub_private_repo", "true")
    figures = train_judge(settings)
    folder = Path(str(settings.training.output_dir))
    assert len([request for request in hub.asked if "/commit/" in request]) == 1
    assert [(new["name"], new["visibility"]) for new in hub.created] == [("judge", "private")]
    assert figures["pushed"]
    expected = {"README.md", "calibration.png", "config.json", "judge_config.json", "model.safetensors", "run.json",
                "tokenizer.json", "adapter/adapter_model.safetensors"}  # fmt: skip
    assert expected <= set(hub.files)
    assert hub.files == {name: (folder / name).read_bytes() for name in hub.files}
    assert not [name for name in hub.files if re.search(r"checkpoint|settings\.json|logs|\.(bin|pt|pth)$", name)]
    assert 'Judge.load("me/judge")' in hub.files["README.md"].decode()


def test_what_is_pushed(tmp_path: Path) -> None:
    names = ("a.safetensors", "README.md", "settings.json", "training_args.bin", "x.pt", "x.pkl", ".lock", "x.tmp",
             "adapter/adapter_model.safetensors", "adapter/training_args.bin", "checkpoint-2/model.safetensors",
             "logs/events.1", "run.log")  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_judge_files(tmp_path) == ["README.md", "a.safetensors", "adapter/adapter_model.safetensors"]


@pytest.mark.parametrize(
    ("options", "token", "refuses", "message"),
    [
        (("--push_to_hub", "true"), "t", "^$", "push_to_hub needs hub_model_id: OWNER/NAME"),
        (PUSH, None, "^$", "push_to_hub needs a token .*run `hf auth login`, or set HF_TOKEN"),
        (PUSH, "t", "^/api/", "me/judge can't be pushed to: .*403.*train without push_to_hub"),
        ((*PUSH, "--hub_model_id", "a b"), "t", "^$", "a b can't be pushed to: "),
    ],
)
def test_what_would_fail_at_the_end_fails_before_training(
    hub: Hub,
    small_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    token: str | None,
    refuses: str,
    message: str,
) -> None:
    hub.refuses = refuses
    if token is None:
        monkeypatch.setattr("rmkit.training.hub.get_token", lambda: None)
    settings = small_settings(*options)
    with pytest.raises(DataError, match=re.compile(message, re.DOTALL)):
        train_judge(settings)
    assert not Path(str(settings.training.output_dir)).exists()
    assert hub.files == {}


def test_a_hub_that_fails_costs_no_judge(hub: Hub, small_settings: Settings) -> None:
    hub.refuses = "commit"
    settings = small_settings(*PUSH)
    folder = Path(str(settings.training.output_dir))
    with pytest.raises(
        JudgeError, match=r"is complete, but it could not be pushed to me/judge: [\s\S]*run the same command"
    ):
        train_judge(settings)
    assert (folder / "judge_config.json").is_file()
    assert hub.files == {}
    hub.refuses = "^$"
    again = train_judge(small_settings(*PUSH))
    assert (again["complete"], bool(again["pushed"])) == (str(folder), True)
    assert hub.files["judge_config.json"] == (folder / "judge_config.json").read_bytes()


def test_a_hub_that_is_gone(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "README.md").touch()
    monkeypatch.setattr("rmkit.training.hub.HfApi", lambda: HfApi(endpoint="http://127.0.0.1:9"))
    with pytest.raises(JudgeError, match="could not be pushed to me/judge"):
        push_judge(tmp_path, "me/judge")


def test_a_token_is_never_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needed = ("--data", "d", "--model", "m", "--output_dir", str(tmp_path / "o"), "--use_cpu", "true")
    with pytest.raises(SystemExit):
        read_settings([*needed, "--hub_token", "hf_x"])
    assert "hub_token would be written down with the settings" in capsys.readouterr().err
