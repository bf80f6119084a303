from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rmkit.judge_config import FILE_NAME
from rmkit.training import reporting
from rmkit.training.reporting import choose_reports
from rmkit.training.run import train_judge
from rmkit.training.settings import TrainingSettings


def read_events(folder: Path) -> dict[str, dict[int, float]]:
    """Figures by tag and step."""
    events = EventAccumulator(str(folder)).Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_tensorboard_has_every_figure(small_settings: Callable[..., TrainingSettings], tmp_path: Path) -> None:
    figures = train_judge(small_settings())
    found = read_events(tmp_path / "judge/logs")
    assert list(found["train/loss"]) == [1, 2, 3, 4, 5, 6]
    evaluations = [line for line in figures["log"] if "eval_loss" in line][:3]
    for name in figures["metrics"]:
        assert found[f"eval/{name.removeprefix('eval_')}"] == pytest.approx(
            {line["step"]: line[name] for line in evaluations}
        )
    assert {"eval/qwk", "eval/spearman_overall", "eval/calibration_error", "eval/pair_accuracy_mode"} <= set(found)


def test_a_resumed_run_goes_on_with_the_same_curves(
    small_settings: Callable[..., TrainingSettings], tmp_path: Path
) -> None:
    whole = train_judge(small_settings())
    for name in (FILE_NAME, "run.json"):
        (tmp_path / "judge" / name).unlink()
    (tmp_path / "judge/checkpoint-6/trainer_state.json").unlink()
    train_judge(small_settings())
    assert len(list((tmp_path / "judge/logs").iterdir())) == 2
    found = read_events(tmp_path / "judge/logs")["train/loss"]
    assert found == pytest.approx({line["step"]: line["loss"] for line in whole["log"] if "loss" in line}, abs=1e-4)


def test_none_means_none(small_settings: Callable[..., TrainingSettings], tmp_path: Path) -> None:
    train_judge(small_settings("--report_to", "none", "--max_steps", "2"))
    assert not list(tmp_path.rglob("*tfevents*"))


def test_where_tensorboard_is_absent(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    assert choose_reports(None) == ["tensorboard"]
    monkeypatch.setattr(reporting, "is_tensorboard_available", lambda: False)
    assert choose_reports(None) == []
    assert "tensorboard is not installed" in caplog.text


def test_trackers_that_are_not_there() -> None:
    with pytest.raises(ValueError, match="report_to='tensorbord' is unknown; choose all, none, "):
        choose_reports("tensorbord")
    with pytest.raises(ValueError, match="report_to='swanlab' is not installed; there are none, tensorboard"):
        choose_reports(["tensorboard", "swanlab"])
    assert choose_reports(["none"]) == choose_reports("none") == ["none"]
