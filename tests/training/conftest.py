"""Runs of `train/train.py` as a user starts them, made once, and small data for runs inside the test process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from rmkit.preparation.folder import RATED_FILES, write_prepared
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Message, RatedResponse
from rmkit.training.checkpoints import find_checkpoint
from rmkit.training.settings import TrainingSettings, read_settings
from rmkit.training.tiny_model import save_tiny_model

REPO = Path(__file__).resolve().parents[2]
TIMEOUT = 900  # seconds; a run takes half a minute on two idle cores
SMALL_RUBRIC = Rubric(
    "small",
    (
        Attribute("helpfulness", "Helpfulness", "Does it help?"),
        Attribute("overall", "Overall", "All in all.", minimum=0, maximum=20, weight=2.0),
        Attribute("verbosity", "Verbosity", "How long it is.", weight=0.0),
    ),
)


@dataclass(frozen=True)
class Run:
    """A finished run of `train/train.py`."""

    folder: Path
    command: list[str]
    output: str

    @property
    def record(self) -> dict[str, Any]:
        """Its `run.json`."""
        return json.loads((self.folder / "run.json").read_text("utf-8"))

    @property
    def losses(self) -> dict[int, float]:
        """Training loss by step, from `run.json`."""
        return {line["step"]: line["loss"] for line in self.record["log"] if "loss" in line}

    @property
    def printed_steps(self) -> int:
        """How many training steps this process logged, of which `run.json` may hold more."""
        return len(re.findall(r"'loss': ", self.output))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launcher(name: str, ranks: int) -> list[str]:
    """The beginning of a command that starts this many ranks of the script that follows."""
    programs = Path(sys.executable).parent
    return {
        "python": [sys.executable],
        "torchrun": [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks)),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"),
        ],
        "deepspeed": [
            *(sys.executable, str(programs / "deepspeed"), "--num_gpus", str(ranks)),
            *("--master_addr", "127.0.0.1", "--master_port", str(free_port())),
        ],
        "accelerate": [
            *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"),
            *("--num_processes", str(ranks), "--mixed_precision", "no", "--dynamo_backend", "no"),
            *("--main_process_port", str(free_port())),
        ],
    }[name]


def environment() -> dict[str, str]:
    """Of a command on CPU ranks, also where a GPU is, with no word of another launcher in it."""
    launched = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    kept = {name: value for name, value in os.environ.items() if name not in launched}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}",  # ninja, for DeepSpeed
        "PYTHONPATH": str(REPO),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore::FutureWarning",  # DeepSpeed calls deprecated collectives of torch
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "cpu",
    }


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command whose output goes to a file, so that no orphan holds a pipe open."""
    with log.open("wb") as file:
        return subprocess.Popen(
            command, cwd=REPO, env=environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a command and all its processes, ranks of it included, which have sessions of their own."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for member in family:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            pass
    process.wait()
    psutil.wait_procs(family, timeout=30)


def run(command: list[str], log: Path, timeout: float = TIMEOUT) -> tuple[int, str]:
    """Exit status and output of a command; one that hangs is killed, and fails."""
    process = start(command, log)
    try:
        status = process.wait(timeout)
    except subprocess.TimeoutExpired:
        kill(process)
        pytest.fail(f"no end after {timeout} s: {' '.join(command)}\n{log.read_text('utf-8', 'replace')[-4000:]}")
    return status, log.read_text("utf-8", "replace")


@pytest.fixture(scope="session")
def run_command() -> Callable[..., tuple[int, str]]:
    """`run_command(command, log, timeout)`: see `run`."""
    return run


@pytest.fixture
def popen() -> Iterator[Callable[[list[str], Path], subprocess.Popen[bytes]]]:
    """`popen(command, log)`: see `start`; what still runs when the test ends is killed."""
    processes: list[subprocess.Popen[bytes]] = []

    def begin(command: list[str], log: Path) -> subprocess.Popen[bytes]:
        processes.append(start(command, log))
        return processes[-1]

    yield begin
    for process in processes:
        if process.poll() is None:
            kill(process)


@pytest.fixture(scope="session")
def launch() -> Callable[[str, int], list[str]]:
    """`launch(name, ranks)`: see `launcher`."""
    return launcher


@pytest.fixture(scope="session")
def training_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder: the real HelpSteer rows where they are, else generated ones."""
    output = tmp_path_factory.mktemp("training") / "data"
    raw = REPO.parent / "shared/data/helpsteer/train_sample.jsonl.gz"
    source = ["helpsteer", "--input", str(raw)] if raw.is_file() else ["graded", "--rows", "400", "--pairs", "20"]
    command = [
        *(sys.executable, "data_prep/prepare.py", "--output", str(output), "--validation-fraction", "0.1"),
        *("--dataset", *source),
    ]
    status, text = run(command, output.with_name("prepare.log"))
    assert status == 0, text
    return output


@pytest.fixture(scope="session")
def training_model(training_data: Path) -> Path:
    """A small random model whose tokenizer was made for the data."""
    output = training_data.with_name("model")
    command = [
        *(sys.executable, "train/make_tiny_model.py", "--data", str(training_data), "--output", str(output)),
        *("--layers", "2", "--width", "64"),
    ]
    status, text = run(command, output.with_name("model.log"))
    assert status == 0, text
    return output


@pytest.fixture(scope="session")
def train_command(training_data: Path, training_model: Path) -> Callable[..., list[str]]:
    """`train_command(output, *options, name="torchrun", ranks=2)`: a run of the smoke config, clipping off."""

    def build(output: Path, *options: str, name: str = "torchrun", ranks: int = 2) -> list[str]:
        return [
            *(*launcher(name, ranks), "train/train.py", "--config", "train/configs/smoke.yaml"),
            *("--data", str(training_data), "--model", str(training_model), "--output_dir", str(output)),
            *("--max_grad_norm", "0", "--validation_rows", "16", "--per_device_eval_batch_size", "7", *options),
        ]

    return build


@pytest.fixture(scope="session")
def train(train_command: Callable[..., list[str]]) -> Callable[..., Run]:
    """`train(output, *options, name="torchrun", ranks=2)`: runs to the end, as a user would."""

    def finish(output: Path, *options: str, **how: Any) -> Run:
        command = train_command(output, *options, **how)
        status, text = run(command, output.with_name(f"{output.name}.log"))
        assert status == 0, text[-6000:]
        return Run(output, command, text)

    return finish


ZERO3 = ("--deepspeed", "train/deepspeed/zero3.json")
ALONE = ("--deepspeed", "", "--per_device_train_batch_size", "4")


@pytest.fixture(scope="session")
def zero2_run(train: Callable[..., Run], training_data: Path) -> Run:
    """20 steps under ZeRO-2, two ranks of batch 2, by torchrun."""
    return train(training_data.with_name("zero2"))


@pytest.fixture(scope="session")
def zero3_run(train: Callable[..., Run], training_data: Path) -> Run:
    """The same under ZeRO-3, by DeepSpeed's own launcher."""
    return train(training_data.with_name("zero3"), *ZERO3, name="deepspeed")


@pytest.fixture(scope="session")
def single_run(train: Callable[..., Run], training_data: Path) -> Run:
    """The same in one process of batch 4, without DeepSpeed and without a launcher."""
    return train(training_data.with_name("single"), *ALONE, name="python")


@pytest.fixture(scope="session")
def kill_training(train_command: Callable[..., list[str]]) -> Callable[..., str]:
    """`kill_training(output, ready, *options, **how)`: starts a run, SIGKILLs it once `ready(log)`; gives its log."""

    def interrupt(output: Path, ready: Callable[[str], bool], *options: str, **how: Any) -> str:
        log = output.with_name(f"{output.name}.killed.log")
        process = start(train_command(output, *options, **how), log)
        give_up = time.monotonic() + TIMEOUT
        try:
            while not ready(log.read_text("utf-8", "replace")):
                assert process.poll() is None, f"ended before the kill:\n{log.read_text('utf-8', 'replace')[-4000:]}"
                assert time.monotonic() < give_up, f"never ready:\n{log.read_text('utf-8', 'replace')[-4000:]}"
                time.sleep(0.02)
        finally:
            kill(process)
        return log.read_text("utf-8", "replace")

    return interrupt


@pytest.fixture(scope="session")
def killed_run(
    kill_training: Callable[..., str], train: Callable[..., Run], training_data: Path
) -> Callable[..., Run]:
    """`killed_run(name, *options, **how)`: a run that is SIGKILLed after its checkpoint at step 10, then resumed."""

    def resume(name: str, /, *options: str, **how: Any) -> Run:
        folder = training_data.with_name(name)
        log = kill_training(folder, lambda _: find_checkpoint(folder) is not None, *options, **how)
        assert 10 <= log.count("'loss': ") < 20
        assert not (folder / "judge_config.json").exists()
        finished = train(folder, *options, **how)
        assert finished.record["resumed_from"] == "checkpoint-10"
        assert finished.printed_steps == 10  # steps 11 to 20, and none of those before
        return finished

    return resume


@pytest.fixture(scope="session")
def killed_single_run(killed_run: Callable[..., Run]) -> Run:
    """`single_run`, killed and resumed."""
    return killed_run("killed_single", *ALONE, name="python")


@pytest.fixture(scope="session")
def killed_zero1_run(killed_run: Callable[..., Run]) -> Run:
    """ZeRO-1 on two ranks, killed and resumed."""
    return killed_run("killed_zero1", "--deepspeed", "train/deepspeed/zero1.json")


@pytest.fixture(scope="session")
def killed_offload_run(killed_run: Callable[..., Run]) -> Run:
    """ZeRO-3 on two ranks with optimizer and parameters on the CPU, killed and resumed."""
    return killed_run("killed_offload", "--deepspeed", "train/deepspeed/zero3_offload.json")


LORA = ("--lora", "true", "--lora_r", "4", "--learning_rate", "0.01")


@pytest.fixture(scope="session")
def lora_single_run(train: Callable[..., Run], training_data: Path) -> Run:
    """Adapters, in one process."""
    return train(training_data.with_name("lora_single"), *LORA, *ALONE, name="python")


@pytest.fixture(scope="session")
def killed_lora_run(killed_run: Callable[..., Run]) -> Run:
    """Adapters under ZeRO-2 on two ranks, killed and resumed."""
    return killed_run("killed_lora", *LORA)


@pytest.fixture(scope="session")
def small_rows() -> list[RatedResponse]:
    """40 short rows of 20 conversations with scores of one and two digits; every fifth lacks a rating."""
    rows = []
    for n in range(40):
        words = 1 + n * 7 % 11
        scores = {"helpfulness": 1 + n % 5, "overall": n * 3 % 21, "verbosity": 1 + n * 2 % 5}
        if n % 5 == 4:
            del scores["overall"]
        conversation = (Message("user", f"Say hello {n // 2 + 1} times, please."),)
        rows.append(RatedResponse(f"small/{n}", "small", conversation, "hello " * words, scores))
    return rows


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory, small_rows: list[RatedResponse]) -> Path:
    """A prepared folder of the small rows; about a quarter of them for validation."""
    folder = tmp_path_factory.mktemp("small") / "data"
    outcomes = ((row,) for row in small_rows)
    write_prepared(folder, outcomes, RATED_FILES, SMALL_RUBRIC, 0, 0.25, {"dataset": "small", "source": {}})
    return folder


@pytest.fixture(scope="session")
def small_model(small_data: Path, small_rows: list[RatedResponse]) -> Path:
    """A model of one layer for the small rows."""
    folder = small_data.with_name("model")
    texts = [f"{row.response} Helpfulness: Overall: Verbosity: 0123456789" for row in small_rows]
    save_tiny_model(texts, folder, 320, layers=1, width=32, max_length=1024)
    return folder


@pytest.fixture
def small_settings(small_data: Path, small_model: Path, tmp_path: Path) -> Callable[..., TrainingSettings]:
    """`small_settings(*options)`: settings of a run of six steps in this process, which validates at each second."""

    def build(*options: str) -> TrainingSettings:
        return read_settings(
            [
                *("--data", str(small_data), "--model", str(small_model), "--output_dir", str(tmp_path / "judge")),
                *("--use_cpu", "true", "--max_steps", "6", "--logging_steps", "1", "--learning_rate", "0.003"),
                *("--eval_strategy", "steps", "--save_strategy", "steps", "--eval_steps", "2", "--save_steps", "2"),
                *("--per_device_train_batch_size", "4", *options),
            ]
        )

    return build
