"""The command line: what a script takes and prints, whatever reads it, and how it ends."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from io import TextIOWrapper

from rmkit.errors import DataError, JudgeError, RubricError, TokenizerError


def run_script(name: str, work: Callable[[], int]) -> int:
    """Do the work of a script that goes on where it was stopped; what went wrong is one line on standard error.

    Args:
        name: The script's name.
        work: Returns the exit status.

    Returns:
        What `work` returns; 1 if it met an error that says what to do, or one of the system, such as a full disk; 130
        if it was stopped from the keyboard.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        return work()
    except (DataError, JudgeError, RubricError, TokenizerError, OSError) as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: stopped; the same command goes on from here\n")
        return 130


def write_out(text: str) -> None:
    r"""Write a line or several to standard output.

    Characters that its encoding lacks are written as escapes such as `\xe4`, so that what a run says never fails for
    the name of a file or a text from data. A reader that has gone, such as `head`, has seen enough: no error.

    Raises:
        OSError: If the output can't be written for another reason, such as a full disk.
    """
    stream = sys.stdout
    if stream is None:  # closed by the caller
        return
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # or Python would complain when it ends


def positive(text: str) -> int:
    """A number of at least 1, for `type` of an argument of argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value
