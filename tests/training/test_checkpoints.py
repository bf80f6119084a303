"""Which checkpoints count, and which are kept."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rmkit.training import trainer
from rmkit.training.checkpoints import (
    COMPLETE_FILE,
    agree_on_checkpoint,
    clear_checkpoint,
    complete_checkpoint,
    find_checkpoint,
    remove_old_checkpoints,
)
from rmkit.training.run import train_judge
from rmkit.training.settings import TrainingSettings

Settings = Callable[..., TrainingSettings]


def make(folder: Path, step: int, whole: bool = True) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text(f'{{"global_step": {step}}}', encoding="utf-8")
    if whole:
        complete_checkpoint(checkpoint, model_only=False)
    return checkpoint


def assert_each_file_counts(folder: Path, names: set[str]) -> None:
    """Each file of the newest checkpoint is missed, and missed when it is cut off."""
    newest = Path(find_checkpoint(folder) or "")
    files = [path for path in newest.rglob("*") if path.is_file()]
    assert names <= {path.name for path in files}
    for path in files:
        content = path.read_bytes()
        path.unlink()
        assert find_checkpoint(folder) != str(newest), path
        path.write_bytes(content[: len(content) // 2])
        assert find_checkpoint(folder) != str(newest), path
        path.write_bytes(content)
        assert find_checkpoint(folder) == str(newest)


@pytest.mark.parametrize(
    ("options", "weights"), [((), "model.safetensors"), (("--lora", "true"), "adapter_model.safetensors")]
)
def test_a_file_is_missing_or_cut_off(small_settings: Settings, options: tuple[str, ...], weights: str) -> None:
    settings = small_settings("--max_steps", "2", *options)
    train_judge(settings)
    names = {weights, "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", COMPLETE_FILE}
    assert_each_file_counts(Path(str(settings.training.output_dir)), names)


@pytest.mark.parametrize("whole_run", ["zero2_run", "zero3_run"])
def test_a_file_of_one_rank_is_missing_or_cut_off(
    request: pytest.FixtureRequest, tmp_path: Path, whole_run: str
) -> None:
    newest = Path(find_checkpoint(request.getfixturevalue(whole_run).folder) or "")
    shutil.copytree(newest, tmp_path / newest.name)
    shards = {path.name for path in newest.rglob("*optim_states.pt")}
    assert len(shards) == 2
    assert_each_file_counts(tmp_path, {*shards, "rng_state_0.pth", "rng_state_1.pth", "model.safetensors"})


def test_it_says_what_is_torn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, 2)
    (make(tmp_path, 4) / "trainer_state.json").write_text("{}", encoding="utf-8")
    make(tmp_path, 10, whole=False)
    (tmp_path / "checkpoint-12.old").mkdir()
    with caplog.at_level(logging.WARNING):
        assert agree_on_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    torn, cut = caplog.messages
    assert torn.endswith(
        f"checkpoint-10 is not resumed: it has no {COMPLETE_FILE}, so it was cut off while it was written"
    )
    assert cut.endswith("checkpoint-4 is not resumed: trainer_state.json has 2 bytes of 18")


def test_a_checkpoint_of_the_model_only_is_not_resumed(small_settings: Settings) -> None:
    settings = small_settings("--max_steps", "2", "--save_only_model", "true")
    train_judge(settings)
    folder = Path(str(settings.training.output_dir))
    assert (folder / "checkpoint-2" / COMPLETE_FILE).is_file()
    assert find_checkpoint(folder) is None


def test_no_checkpoint_is_found_where_there_is_none(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path / "absent") is None
    (tmp_path / "checkpoint-9").mkdir()
    assert find_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    ("limit", "best", "kept"),
    [
        (None, None, {2, 4, 6, 8}),
        (0, None, {2, 4, 6, 8}),
        (2, None, {6, 8}),
        (2, 2, {2, 8}),
        (3, 2, {2, 6, 8}),
        (1, None, {8}),
        (1, 4, {4, 8}),
    ],
)
def test_the_newest_and_the_best_are_kept(tmp_path: Path, limit: int | None, best: int | None, kept: set[int]) -> None:
    for step in (8, 2, 6, 4):
        make(tmp_path, step)
    make(tmp_path, 9, whole=False)  # newer and torn: never kept in place of a whole one
    remove_old_checkpoints(tmp_path, limit, best and f"anywhere/checkpoint-{best}")
    assert {path.name for path in tmp_path.iterdir()} == {f"checkpoint-{step}" for step in kept}


def test_nothing_is_removed_before_a_checkpoint_is_whole(tmp_path: Path) -> None:
    make(tmp_path, 3, whole=False)
    remove_old_checkpoints(tmp_path, 1, None)
    assert (tmp_path / "checkpoint-3").is_dir()


def test_a_torn_checkpoint_leaves_no_file_in_the_one_that_follows(tmp_path: Path) -> None:
    (make(tmp_path, 4) / "rng_state_7.pth").write_bytes(b"of another run")
    clear_checkpoint(tmp_path / "checkpoint-4")
    assert not (tmp_path / "checkpoint-4").exists()
    clear_checkpoint(tmp_path / "checkpoint-4")


def test_cut_off_before_the_last_file_the_checkpoint_before_is_there(
    small_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one is kept only: it goes when the next one is whole, and not a moment earlier."""
    settings = small_settings("--save_total_limit", "1")
    folder = Path(str(settings.training.output_dir))
    whole = train_judge(small_settings("--save_total_limit", "1", "--output_dir", str(folder.with_name("whole"))))

    def cut_off(checkpoint: Path, model_only: bool) -> None:
        if checkpoint.name == "checkpoint-4":
            raise KeyboardInterrupt
        complete_checkpoint(checkpoint, model_only)

    monkeypatch.setattr(trainer, "complete_checkpoint", cut_off)
    with pytest.raises(KeyboardInterrupt):
        train_judge(settings)
    assert (folder / "checkpoint-4/trainer_state.json").is_file()
    assert find_checkpoint(folder) == str(folder / "checkpoint-2")
    monkeypatch.undo()
    again = train_judge(small_settings("--save_total_limit", "1"))
    assert again["resumed_from"] == "checkpoint-2"
    assert again["metrics"] == pytest.approx(whole["metrics"], abs=1e-6)
