from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CODE = "from rmkit.console import write_out; write_out('gr\\u00f6\\u00dfe \\udcff'); write_out('x' * 100_000)"


def test_characters_that_a_terminal_lacks_are_escaped(repo: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(repo), "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.splitlines() == [b"gr\xf6\xdfe \\udcff", b"x" * 100_000]


def test_a_reader_that_has_gone_is_no_error(repo: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    env = {**os.environ, "PYTHONPATH": str(repo)}
    done = subprocess.run([sys.executable, "-c", CODE], env=env, stdout=writer, stderr=subprocess.PIPE, timeout=600)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
