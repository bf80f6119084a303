"""The end of a training process, asked for or not."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from torch import distributed

STATUS_STOPPED = 128 + signal.SIGTERM
"""Exit status of a training that was asked to stop, and has: 143, as a shell reports it."""


class TrainingStopped(Exception):
    """A training that was asked to stop has saved what it had, and says so."""


class StopRequest:
    """Whether this process was asked to stop.

    Attributes:
        made: True once SIGTERM came.
    """

    def __init__(self) -> None:
        self.made = False

    def _make(self, number: int, frame: FrameType | None) -> None:
        self.made = True


@contextmanager
def stop_on_sigterm(request: StopRequest) -> Iterator[None]:
    """Let SIGTERM make a request, in place of ending the process; only the main thread can arrange it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, request._make)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def end_process(status: int) -> NoReturn:
    """Never returns: ends this process, without the interpreter's teardown where a process group was used.

    Gloo's threads need the interpreter's lock to free the tensors of their last collective. One that comes to it
    during the teardown aborts the process, and a finished run looks failed. Destroying the group does not prevent
    it, since DeepSpeed keeps groups of its own. What was registered with `atexit` runs.

    Args:
        status: Exit status. Other than 0 it leaves the group alone, for other ranks may still be waiting in it.
    """
    if not distributed.is_initialized():
        sys.exit(status)
    if status == 0:
        distributed.destroy_process_group()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
