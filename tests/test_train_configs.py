"""Every config of a judge's training is read by the parser that will read it, and DeepSpeed's files by DeepSpeed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rmkit.training.deepspeed_config import TOP_LEVEL

CONFIGS = 6
DEEPSPEED_CONFIGS = 4

# In a process of its own, for DeepSpeed sets up a process group that would stay.
PROGRAM = """
import json, sys
from pathlib import Path
import yaml
from deepspeed.runtime.config import DeepSpeedConfig
from rmkit.training.settings import read_settings

class Reading(dict):  # remembers which keys were looked for
    looked_for = set()

    def get(self, key, default=None):
        self.looked_for.add(key)
        return super().get(key, default)

    def __contains__(self, key):
        self.looked_for.add(key)
        return super().__contains__(key)


def filled(args):
    # What the file leaves open ("auto"), Trainer fills in; the sizes are those of a model that is not there.
    args.hf_deepspeed_config.trainer_config_process(args, auto_find_batch_size=False)
    return args.hf_deepspeed_config.config


found = {}
for config in sorted(path for path in Path("train/configs").rglob("*.yaml") if path.parent.name != "policy"):
    options = ["--use_cpu", "true"]  # without a GPU, bf16 is taken only so
    given = yaml.safe_load(config.read_text("utf-8"))
    for option, value in {"data": "data", "model": "model", "output_dir": sys.argv[1]}.items():
        if option not in given:  # some leave them to the user
            options += [f"--{option}", value]
    settings = read_settings(["--config", str(config), *options])
    args = settings.training
    deepspeed = DeepSpeedConfig(filled(args))
    found[str(config)] = {
        "stage": deepspeed.zero_optimization_stage,
        "bfloat16": deepspeed.bfloat16_config.enabled,
        "batch": [deepspeed.train_micro_batch_size_per_gpu, deepspeed.gradient_accumulation_steps],
        "args": {name: getattr(args, name) for name in settings.given if hasattr(args, name)},
        "loss": settings.loss.preset,
        "lora": settings.model.lora,
        "greater_is_better": args.greater_is_better,
    }
files = {}
for file in sorted(Path("train/deepspeed").rglob("*.json")):
    options = ["--data", "data", "--model", "model", "--output_dir", sys.argv[1], "--deepspeed", str(file)]
    zero = DeepSpeedConfig(filled(read_settings([*options, "--use_cpu", "true"]).training)).zero_config
    offload = [zero.offload_optimizer, zero.offload_param]
    files[file.name] = {"stage": zero.stage, "offload": [part and part.device for part in offload]}
DeepSpeedConfig(Reading(train_micro_batch_size_per_gpu=1))
print("FOUND", json.dumps({"configs": found, "files": files, "read": sorted(Reading.looked_for)}, default=str))
"""


@pytest.fixture(scope="module")
def all_parsed(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    launched = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    kept = {name: value for name, value in os.environ.items() if name not in launched}
    environment = kept | {
        "PYTHONPATH": str(repo),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}",
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "cpu",
        "HF_HUB_OFFLINE": "1",
    }
    output = tmp_path_factory.mktemp("configs") / "out"
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(output)]
    done = subprocess.run(command, cwd=repo, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    [line] = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    return json.loads(line.removeprefix("FOUND "))


@pytest.fixture(scope="module")
def parsed(all_parsed: dict[str, Any]) -> dict[str, Any]:
    """What came of each YAML file."""
    return all_parsed["configs"]


def find_configs(repo: Path) -> list[Path]:
    """Those of train.py; the others are a policy's (tests/policy/test_scripts.py)."""
    return sorted(path for path in (repo / "train/configs").rglob("*.y*ml") if path.parent.name != "policy")


def test_every_config_parses(parsed: dict[str, Any], repo: Path) -> None:
    files = find_configs(repo)
    assert len(files) == CONFIGS
    assert sorted(parsed) == [str(file.relative_to(repo)) for file in files]


def test_each_value_arrives(parsed: dict[str, Any], repo: Path) -> None:
    for name, found in parsed.items():
        given = yaml.safe_load((repo / name).read_text("utf-8"))
        for option, value in found["args"].items():
            if option in given and option != "deepspeed":
                assert str(value) == str(given[option]) or value == given[option], (name, option)
        assert found["args"]["learning_rate"] == given["learning_rate"]
        assert found["batch"] == [given["per_device_train_batch_size"], given.get("gradient_accumulation_steps", 1)]
        assert found["bfloat16"] is given.get("bf16", False)
        assert found["lora"] is given.get("lora", False)
        assert found["greater_is_better"] is False  # all of them choose by a loss or an error
        assert found["loss"] == "paper"


def test_zero_stages(parsed: dict[str, Any], repo: Path) -> None:
    stages = {Path(name).stem: found["stage"] for name, found in parsed.items()}
    assert stages == {
        "demo": 2,
        "helpsteer2_llama31_8b": 3,
        "helpsteer2_llama31_8b_lora": 2,
        "helpsteer2_qwen3_8b": 3,
        "helpsteer2_qwen3_8b_lora": 2,
        "smoke": 2,
    }


def test_deepspeed_takes_each_of_its_files(all_parsed: dict[str, Any], repo: Path) -> None:
    files = sorted(path.name for path in (repo / "train/deepspeed").rglob("*") if path.is_file())
    assert len(files) == DEEPSPEED_CONFIGS
    assert all_parsed["files"] == {
        "zero1.json": {"stage": 1, "offload": [None, None]},
        "zero2.json": {"stage": 2, "offload": [None, None]},
        "zero3.json": {"stage": 3, "offload": [None, None]},
        "zero3_offload.json": {"stage": 3, "offload": ["cpu", "cpu"]},
    }
    assert sorted(all_parsed["files"]) == files


def test_all_that_deepspeed_reads_is_known(all_parsed: dict[str, Any]) -> None:
    assert len(all_parsed["read"]) > 40
    assert set(all_parsed["read"]) <= set(TOP_LEVEL)


def test_headers_show_how_to_run_them(repo: Path) -> None:
    for file in find_configs(repo):
        header = [line for line in file.read_text("utf-8").splitlines() if line.startswith("#")]
        assert any(f"train/train.py --config {file.relative_to(repo)}" in line for line in header), file
