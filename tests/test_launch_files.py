"""The files that start several machines: bash and the launchers themselves read them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from deepspeed.launcher.runner import fetch_hostfile
print(dict(fetch_hostfile(sys.argv[1])))
"""
PRINTS_ITS_ARGUMENTS = '#!/usr/bin/env bash\nprintf "%s\\n" "$@" > "$SHOWN"\n'


def commands(text: str) -> list[str]:
    """What the comments of a file tell to type."""
    return re.findall(r"^#   (.+)$", text, re.MULTILINE)


def test_bash_reads_them(repo: Path) -> None:
    files = [file for file in sorted((repo / "train/launch").iterdir()) if file.name != "hostfile"]
    assert [file.name for file in files] == ["slurm.sbatch", "torchrun.sh"]
    for file in files:
        done = subprocess.run(["bash", "-n", str(file)], capture_output=True, text=True, timeout=600)
        assert (done.returncode, done.stderr) == (0, "")
        assert os.access(file, os.X_OK)


def test_their_commands_name_files_and_options_that_exist(repo: Path) -> None:
    shown = {file.name: commands(file.read_text("utf-8")) for file in (repo / "train/launch").iterdir()}
    assert all(len(found) == 1 for found in shown.values())
    for [command] in shown.values():
        named = re.findall(r"train/[\w./]+", command)
        assert len(named) >= 2
        assert [name for name in named if not (repo / name).is_file()] == []


def test_deepspeed_reads_the_hostfile(repo: Path) -> None:
    pytest.importorskip("deepspeed")
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(repo / "train/launch/hostfile")]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "{'node-0': 8, 'node-1': 8}"


def test_a_job_starts_train_py_on_each_machine(repo: Path, tmp_path: Path) -> None:
    """SLURM's and torch's commands replaced by ones that run or show what they are given."""
    programs, shown, clone = tmp_path / "bin", tmp_path / "arguments", tmp_path / "clone"
    shutil.copytree(repo / "train/launch", clone / "train/launch")
    (clone / ".venv/bin").mkdir(parents=True)
    (clone / ".venv/bin/activate").touch()
    programs.mkdir()
    scripts = {
        "torchrun": PRINTS_ITS_ARGUMENTS,
        "scontrol": "#!/usr/bin/env bash\nprintf 'node-3\\nnode-4\\n'\n",
        "srun": '#!/usr/bin/env bash\nshift\n"$@"\n',
    }
    for name, text in scripts.items():
        (programs / name).write_text(text, encoding="utf-8")
        (programs / name).chmod(0o755)
    given = {"SLURM_JOB_NODELIST": "node-[3-4]", "SLURM_NNODES": "2", "SLURM_GPUS_PER_NODE": "8", "SLURM_JOB_ID": "77"}
    environment = {**os.environ, **given, "SHOWN": str(shown), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    job = ["train/launch/slurm.sbatch", "--config", "a.yaml", "--seed", "3"]
    done = subprocess.run(job, cwd=clone, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    words = shown.read_text("utf-8").split()
    script = words.index("train/train.py")
    assert words[script:] == ["train/train.py", "--config", "a.yaml", "--seed", "3"]
    options = dict(zip(words[:script:2], words[1:script:2], strict=True))
    assert options["--rdzv_endpoint"] == "node-3:29500"
    assert (options["--nnodes"], options["--nproc_per_node"]) == ("2", "8")

    from torch.distributed.run import get_args_parser  # noqa: PLC0415 (its own parser takes them)

    parsed = get_args_parser().parse_args(words)
    assert json.dumps([parsed.training_script, parsed.nnodes]) == '["train/train.py", "2"]'
