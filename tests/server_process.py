"""A judge server in a process of its own, as a user starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_ADDRESS = re.compile(r"serves on (http://\S+);")
_SECONDS_TO_START = 300  # on a busy machine; alone it takes ten


class ServerProcess(NamedTuple):
    """A server that runs.

    Args:
        url: Its address.
        process: The process.
        log: What it writes.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> int:
        """Ask it to stop, wait, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def start_server(
    judge: Path, log: Path, *options: str, env: Mapping[str, str] | None = None
) -> Iterator[ServerProcess]:
    """Start `python -m rmkit.server` on a free port, and end it after use.

    Args:
        judge: The judge's folder.
        log: File for what the server writes.
        options: Further options; the engine is transformers unless they say so.
        env: Variables beside those of this process.
    """
    command = [sys.executable, "-m", "rmkit.server", "--judge", str(judge), "--port", "0"]
    command += ["--engine", "transformers", *options]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1", **(env or {})}
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        deadline = time.monotonic() + _SECONDS_TO_START
        while (found := _ADDRESS.search(log.read_text())) is None:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)
        yield ServerProcess(found[1], process, log)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
