"""What goes wrong in a training, caused for real: it says so, ends with the right status, and loses nothing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, TrainerCallback, trainer

from rmkit.errors import DataError, JudgeError, TrainingError
from rmkit.judge import Judge
from rmkit.judge_config import FILE_NAME
from rmkit.preparation.folder import RATED_FILES, write_prepared
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Message, RatedResponse
from rmkit.training import run
from rmkit.training.checkpoints import find_checkpoint
from rmkit.training.export_check import STAGING_FOLDER
from rmkit.training.run import train_judge
from rmkit.training.settings import TrainingSettings
from rmkit.training.shutdown import TrainingStopped

Settings = Callable[..., TrainingSettings]
Inject = Callable[[int, Callable[[Any], None]], None]

POISONED = """
import runpy, sys, torch
from transformers import TrainerCallback, trainer

class Poison(TrainerCallback):
    def on_step_begin(self, args, state, control, model, **rest):
        if state.global_step == 12 and args.process_index == 1:
            with torch.no_grad():
                next(p for name, p in model.named_parameters() if "norm" in name).fill_(torch.nan)

trainer.DEFAULT_CALLBACKS.append(Poison)
sys.argv[0] = "train/train.py"
runpy.run_path("train/train.py", run_name="__main__")
"""


def losses(figures: dict[str, Any]) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in figures["log"] if "loss" in line}


def load_weights(checkpoint: str) -> dict[str, torch.Tensor]:
    return load_file(Path(checkpoint) / "model.safetensors")


@pytest.fixture
def inject(monkeypatch: pytest.MonkeyPatch) -> Inject:
    """`inject(step, act)`: calls `act(model)` in the next training, before that step, counted from 1."""

    def arrange(step: int, act: Callable[[Any], None]) -> None:
        class Fault(TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
                if state.global_step == step - 1:
                    act(model)

        monkeypatch.setattr(trainer, "DEFAULT_CALLBACKS", [*trainer.DEFAULT_CALLBACKS, Fault])

    return arrange


@pytest.fixture
def heal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Takes back what `inject` arranged."""
    return monkeypatch.undo


def poison(model: Any) -> None:
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "norm" in name).fill_(torch.nan)


def terminate(model: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


BEST = ("--save_strategy", "best", "--metric_for_best_model", "eval_pair_accuracy")
EPOCHS = ("--eval_strategy", "epoch", "--save_strategy", "epoch", "--per_device_train_batch_size", "8")


@pytest.mark.parametrize(("options", "step"), [((), 3), (("--save_total_limit", "1"), 4), (BEST, 4), (EPOCHS, 4)])
def test_sigterm_saves_a_checkpoint_that_the_same_command_resumes(
    small_settings: Settings, inject: Inject, heal: Callable[[], None], options: tuple[str, ...], step: int
) -> None:
    """In the midst of an epoch, at a step that is saved anyway, or not for being no better, at the end of an epoch."""
    settings = small_settings(*options)
    folder = Path(str(settings.training.output_dir))
    whole = train_judge(small_settings(*options, "--output_dir", str(folder.with_name("whole"))))
    inject(step, terminate)
    with pytest.raises(
        TrainingStopped, match=rf"after step {step}; the same command resumes from .*checkpoint-{step}$"
    ):
        train_judge(settings)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert not (folder / FILE_NAME).exists()
    heal()
    again = train_judge(small_settings(*options))
    assert again["resumed_from"] == f"checkpoint-{step}"
    assert losses(again) == pytest.approx(losses(whole), abs=1e-6)
    assert again["metrics"] == pytest.approx(whole["metrics"], abs=1e-6)
    assert again["best_checkpoint"] == whole["best_checkpoint"]


def wait_for_steps(process: subprocess.Popen[bytes], log: Path, steps: int) -> None:
    give_up = time.monotonic() + 600
    while log.read_text("utf-8", "replace").count("'loss': ") < steps:
        assert process.poll() is None and time.monotonic() < give_up, log.read_text("utf-8", "replace")[-4000:]
        time.sleep(0.02)


def test_sigterm_ends_a_process_with_143(
    train_command: Callable[..., list[str]], popen: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process = popen(train_command(tmp_path / "judge", "--deepspeed", "", name="python"), log)
    wait_for_steps(process, log, 1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == 143
    text = log.read_text("utf-8", "replace")
    assert re.fullmatch(r"train\.py: stopped by SIGTERM after step \d+; the same command .*", text.splitlines()[-1])
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("whole_run", "options"),
    [
        ("zero2_run", ()),
        pytest.param("zero3_run", ("--deepspeed", "train/deepspeed/zero3.json"), marks=pytest.mark.long),
    ],
)
def test_sigterm_stops_both_ranks(
    request: pytest.FixtureRequest,
    train_command: Callable[..., list[str]],
    train: Callable[..., Any],
    popen: Callable[..., subprocess.Popen[bytes]],
    tmp_path: Path,
    whole_run: str,
    options: tuple[str, ...],
) -> None:
    whole = request.getfixturevalue(whole_run)
    folder, log = tmp_path / "judge", tmp_path / "log"
    process = popen(train_command(folder, *options), log)
    wait_for_steps(process, log, 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == 1  # torchrun's own
    text = log.read_text("utf-8", "replace")
    found = re.search(r"train.py: stopped by SIGTERM after step (\d+); the same command resumes from (\S+)", text)
    assert found is not None, text[-4000:]
    assert "SIGKILL" not in text
    step = int(found[1])
    assert 2 <= step < 20 and found[2] == find_checkpoint(folder) == str(folder / f"checkpoint-{step}")

    resumed = train(folder, *options)
    assert resumed.record["resumed_from"] == f"checkpoint-{step}"
    assert resumed.losses == pytest.approx(whole.losses, abs=1e-4)
    assert resumed.record["metrics"] == pytest.approx(whole.record["metrics"], abs=1e-4)


def test_a_weight_that_is_no_number_stops_the_run(
    small_settings: Settings, inject: Inject, heal: Callable[[], None], small_rows: list[RatedResponse]
) -> None:
    padded = ("--packing", "none")
    settings = small_settings(*padded)
    folder = Path(str(settings.training.output_dir))
    seen: list[list[int]] = []

    def spoil(model: Any) -> None:
        poison(model)
        model.register_forward_pre_hook(
            lambda _, __, kwargs: seen.extend(kwargs["input_ids"].tolist()), with_kwargs=True
        )

    inject(5, spoil)
    with pytest.raises(TrainingError, match=r"^step 5: the loss is nan, the norm of its gradients nan; ") as caught:
        train_judge(settings)
    message = str(caught.value)
    assert (
        f"the same command goes on from {folder / 'checkpoint-4'}, the last whole checkpoint, over the same" in message
    )
    named = re.findall(r"small/\d+", message)
    judge = Judge.load(
        settings.model.model, rubric=Rubric.from_dict(run.read_manifest(Path(settings.data.data))["rubric"])
    )
    prompts = {row.id: judge.encoder.encode_prompt(row.conversation, row.response).ids for row in small_rows}
    pad = AutoTokenizer.from_pretrained(settings.model.model).pad_token_id
    assert len(named) == len(seen) == 4
    for row_id, ids in zip(named, seen, strict=True):
        first = next(at for at, token in enumerate(ids) if token != pad)
        assert tuple(ids[first : first + len(prompts[row_id])]) == prompts[row_id]

    assert find_checkpoint(folder) == str(folder / "checkpoint-4")
    assert all(tensor.isfinite().all() for tensor in load_weights(str(folder / "checkpoint-4")).values())
    heal()
    assert train_judge(small_settings(*padded))["resumed_from"] == "checkpoint-4"


def test_a_weight_that_is_no_number_is_not_saved(small_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the loss could not show it: the weight went wrong after the last forward pass."""

    class Late(TrainerCallback):
        def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
            if state.global_step == 3:
                poison(model)

    monkeypatch.setattr(trainer, "DEFAULT_CALLBACKS", [*trainer.DEFAULT_CALLBACKS, Late])
    settings = small_settings()
    with pytest.raises(
        TrainingError, match=r"^step 4: 1 weights hold values .* such as model\.\S*norm\S*, and are not"
    ):
        train_judge(settings)
    folder = Path(str(settings.training.output_dir))
    assert find_checkpoint(folder) == str(folder / "checkpoint-2")


def test_a_rank_whose_weight_is_no_number_stops_all(
    train_command: Callable[..., list[str]], run_command: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    program, folder = tmp_path / "poisoned.py", tmp_path / "judge"
    program.write_text(POISONED, encoding="utf-8")
    command = [str(program) if word == "train/train.py" else word for word in train_command(folder)]
    status, text = run_command(command, tmp_path / "log")
    assert status != 0
    found = re.findall(r"train\.py: step 13: the loss is nan, .*; its rows are (\S+), (\S+); the same command", text)
    assert found and len(set(found)) == 1, text[-4000:]  # the two rows of rank 1, whoever says it
    assert "SIGKILL" not in text and "SIGABRT" not in text
    assert find_checkpoint(folder) == str(folder / "checkpoint-10")
    assert all(tensor.isfinite().all() for tensor in load_weights(str(folder / "checkpoint-10")).values())


def test_a_loss_that_diverges_stops_the_run(small_settings: Settings, inject: Inject) -> None:
    def blow_up(model: Any) -> None:
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "norm" in name:
                    weight.mul_(-100)

    inject(24, blow_up)
    settings = small_settings("--max_steps", "40", "--divergence_factor", "2")
    with pytest.raises(
        TrainingError, match=r"^step 28: the loss has diverged: .* above 2 times its usual .*small/\d+"
    ):
        train_judge(settings)
    folder = Path(str(settings.training.output_dir))
    assert find_checkpoint(folder) == str(folder / "checkpoint-22")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no tmpfs can be mounted here: {error}")
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here, which takes root: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # also while a failed write still holds its file


def leave(disk: Path, size: float) -> Path:
    """Fill a disk until so many bytes are free."""
    filler = disk / "filler"
    filler.write_bytes(bytes(max(shutil.disk_usage(disk).free - int(size), 0)))
    return filler


@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_a_disk_that_is_full_keeps_the_last_checkpoint(
    small_settings: Settings, inject: Inject, heal: Callable[[], None], small_disk: Path, share: float
) -> None:
    """While weights are written, the optimizer's state, and the last small files."""
    folder = small_disk / "judge"
    options = ("--output_dir", str(folder))
    whole = train_judge(small_settings())

    def fill(_: Any) -> None:
        size = sum(path.stat().st_size for path in (folder / "checkpoint-2").iterdir())
        leave(small_disk, share * size)

    inject(3, fill)
    with pytest.raises(TrainingError, match=rf"no space left on the disk of {folder} \(\d+ bytes free\): ") as caught:
        train_judge(small_settings(*options))
    last = str(folder / "checkpoint-2")
    assert f"the last whole checkpoint is {last}; make space, and the same command goes on" in str(caught.value)
    assert find_checkpoint(folder) == last and load_weights(last)
    heal()
    (small_disk / "filler").unlink()
    again = train_judge(small_settings(*options))
    assert again["resumed_from"] == "checkpoint-2"
    assert losses(again) == pytest.approx(losses(whole), abs=1e-6)
    assert again["metrics"] == pytest.approx(whole["metrics"], abs=1e-6)


@pytest.mark.long
def test_a_disk_that_is_full_ends_both_ranks(
    zero2_run: Any,
    train_command: Callable[..., list[str]],
    train: Callable[..., Any],
    popen: Callable[..., subprocess.Popen[bytes]],
    small_disk: Path,
    tmp_path: Path,
) -> None:
    folder, log = small_disk / "judge", tmp_path / "log"
    process = popen(train_command(folder), log)
    while find_checkpoint(folder) is None:
        assert process.poll() is None, log.read_text("utf-8", "replace")[-4000:]
        time.sleep(0.02)
    filler = leave(small_disk, 0.5 * sum(path.stat().st_size for path in (folder / "checkpoint-10").rglob("*")))
    assert process.wait(300) == 1
    text = log.read_text("utf-8", "replace")
    assert f"train.py: no space left on the disk of {folder} (" in text, text[-4000:]
    assert find_checkpoint(folder) == str(folder / "checkpoint-10")
    filler.unlink()
    resumed = train(folder)
    assert resumed.record["resumed_from"] == "checkpoint-10"
    assert resumed.losses == pytest.approx(zero2_run.losses, abs=1e-4)


def test_a_disk_that_is_full_keeps_half_a_judge_from_being_one(
    small_settings: Settings, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_disk / "judge"
    save = run.save_weights

    def save_little(*args: Any) -> None:
        leave(small_disk, 100_000)
        save(*args)

    monkeypatch.setattr(run, "save_weights", save_little)
    with pytest.raises(TrainingError, match="no space left"):
        train_judge(small_settings("--output_dir", str(folder)))
    assert not (folder / FILE_NAME).exists() and not list(folder.glob("*.safetensors"))
    monkeypatch.undo()
    (small_disk / "filler").unlink()
    assert train_judge(small_settings("--output_dir", str(folder)))["resumed_from"] == "checkpoint-6"
    assert Judge.load(folder).score(["Hello?"], ["Hello!"])[0].error is None
    assert not (folder / STAGING_FOLDER).exists()


@pytest.mark.parametrize("fault", ["other weights", "no weights"])
def test_an_export_that_scores_otherwise_is_no_judge(
    small_settings: Settings, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    settings = small_settings()
    folder = Path(str(settings.training.output_dir))
    save = run.save_weights

    def save_wrongly(trainer_: Any, model: Any, staging: Path) -> None:
        save(trainer_, model, staging)
        file = staging / "model.safetensors"
        if fault == "no weights":
            file.unlink()
            return
        weights = {name: tensor.clone() for name, tensor in load_file(file).items()}
        weights["model.norm.weight"] *= 1.05
        save_file(weights, file, metadata={"format": "pt"})

    monkeypatch.setattr(run, "save_weights", save_wrongly)
    message = {"other weights": "a probability of .* is .* from that in memory", "no weights": "can't be loaded"}[
        fault
    ]
    with pytest.raises(JudgeError, match=f"the exported judge is not the one that was trained: .*{message}"):
        train_judge(settings)
    assert not (folder / FILE_NAME).exists() and not (folder / "run.json").exists()
    monkeypatch.undo()
    assert train_judge(small_settings())["resumed_from"] == "checkpoint-6"
    assert Judge.load(folder).score(["Hello?"], ["Hello!"])[0].error is None


@pytest.fixture
def long_rows(tmp_path: Path) -> Path:
    """A prepared folder of 16 rows, of which four have a first turn that is longer than any context of the tests."""
    rows = [
        RatedResponse(
            f"long/{n}",
            "long",
            (
                Message("user", f"Say hello {n} times. " + "hello " * (400 if n % 4 == 0 else 1)),
                Message("assistant", "hello"),
                Message("user", "Again."),
            ),
            "hello " * (1 + n % 5),
            {"overall": 1 + n % 5},
        )
        for n in range(16)
    ]
    rubric = Rubric("overall", (Attribute("overall", "Overall"),))
    origin = {"dataset": "long", "source": {}}
    write_prepared(tmp_path / "long", ((row,) for row in rows), RATED_FILES, rubric, 0, 0.0, origin)
    return tmp_path / "long"


def test_rows_longer_than_the_context(small_settings: Settings, long_rows: Path, tmp_path: Path) -> None:
    once = ("--data", str(long_rows), "--max_steps", "2", "--max_length", "400")
    left_out = train_judge(small_settings(*once, "--output_dir", str(tmp_path / "left_out")))
    assert left_out["skipped"]["train"] == {"too_long": 4} and left_out["rows"]["train"] == 12
    cut = train_judge(small_settings(*once, "--truncate_turns", "true", "--output_dir", str(tmp_path / "cut")))
    assert cut["skipped"]["train"] == {} and cut["truncated"]["train"] == 4 and cut["rows"]["train"] == 16
    with pytest.raises(DataError, match=r"no row is left to encode train: 16 are longer than max_length=20; raise it"):
        train_judge(
            small_settings("--data", str(long_rows), "--max_length", "20", "--output_dir", str(tmp_path / "no"))
        )
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_a_tokenizer_without_pad_token_and_chat_template(
    small_settings: Settings,
    tiny_tokenizer: Callable[..., Any],
    save_tiny_model: Callable[..., Path],
    tmp_path: Path,
    kind: str,
) -> None:
    base = save_tiny_model(tmp_path / "base", tiny_tokenizer(kind, chat=False), layers=1)
    bare = AutoTokenizer.from_pretrained(base)
    assert bare.pad_token is None and bare.chat_template is None
    figures = train_judge(small_settings("--model", str(base), "--max_steps", "2"))
    assert all(0 < loss < 20 for loss in losses(figures).values())
    folder = tmp_path / "judge"
    judge = Judge.load(folder)
    [judgment] = judge.score(["Hello?"], ["Hello!"])
    assert judgment.error is None and judgment.aggregate is not None
    exported = AutoTokenizer.from_pretrained(folder)
    assert exported.pad_token is None  # the caller's tokenizer is not changed
    assert exported.chat_template == judge.encoder.prompts.chat_template is not None
