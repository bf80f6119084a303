from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = """
import atexit, sys
import torch
from torch import distributed
from rmkit.training.shutdown import end_process

distributed.init_process_group("gloo")
kept = distributed.new_group([0, 1])
atexit.register(print, "exit handler")
for _ in range(20):
    distributed.all_gather_into_tensor(torch.empty(2000), torch.ones(1000), group=kept)
distributed.all_gather_object([None] * 2, "last")
end_process(int(sys.argv[1]))
"""


def test_ranks_end_with_their_status(
    tmp_path: Path, launch: Callable[..., list[str]], run_command: Callable[..., tuple[int, str]]
) -> None:
    """Without `end_process` every third such run is aborted while it ends."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    for _ in range(2):
        status, text = run_command([*launch("torchrun", 2), str(program), "0"], tmp_path / "log", 300)
        assert status == 0, text[-4000:]
        assert text.count("exit handler") == 2
    status, text = run_command([*launch("torchrun", 2), str(program), "3"], tmp_path / "log", 300)
    assert status != 0
    assert "exitcode  : 3" in text and "SIGABRT" not in text


@pytest.mark.parametrize("status", [0, 4])
def test_a_process_alone_ends_as_usual(
    tmp_path: Path, run_command: Callable[..., tuple[int, str]], status: int
) -> None:
    program = f"import sys; from rmkit.training.shutdown import end_process; end_process({status})"
    found, text = run_command([sys.executable, "-c", program], tmp_path / "log", 300)
    assert (found, text) == (status, "")
