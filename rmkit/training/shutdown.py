"""The end of a training process."""

from __future__ import annotations

import atexit
import os
import sys
from typing import NoReturn

from torch import distributed


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
