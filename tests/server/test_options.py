"""The server's command line."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rmkit.server.options import parse_arguments
from rmkit.server.run import main


def test_help_says_how_to_start_and_what_there_is() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "rmkit.server", "--help"], capture_output=True, text=True, timeout=300
    )
    assert found.returncode == 0
    for text in ("/score", "/get_reward", "RMKIT_API_KEY", "examples:", "429", "SIGTERM", "default: 127.0.0.1"):
        assert text in " ".join(found.stdout.split())


def test_this_machine_only_unless_asked_for() -> None:
    options = parse_arguments(["--judge", "x"])
    assert (options.host, options.port, options.engine) == ("127.0.0.1", 8000, "vllm")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--judge"),
        (["--judge", "x", "--max-queue", "10", "--max-items", "11"], "raise --max-queue or lower --max-items"),
        (["--judge", "x", "--device", "cpu"], "--device belongs to --engine transformers"),
        (["--judge", "x", "--engine", "transformers", "--tensor-parallel-size", "2"], "belongs to --engine vllm"),
        (["--judge", "x", "--max-queue", "0"], "0 is not a positive number"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(arguments)
    assert message in capsys.readouterr().err


def test_no_judge_and_no_port_are_errors_that_say_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--judge", str(tmp_path / "none"), "--port", "0"]) == 1
    assert f"there is no judge folder {tmp_path / 'none'}" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["--judge", "x", "--port", str(taken.getsockname()[1])]) == 1
    assert "choose another --host or --port" in capsys.readouterr().err
    assert main(["--judge", "x", "--port", "70000"]) == 1
    assert "choose another --host or --port" in capsys.readouterr().err
