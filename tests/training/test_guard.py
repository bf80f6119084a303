from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from rmkit.errors import TrainingError
from rmkit.training.guard import StepGuard

Make = Callable[..., StepGuard]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return lambda factor=5.0, **options: StepGuard(Accelerator(cpu=True), tmp_path, factor, **options)


def step(guard: StepGuard, number: int, *losses: float, norm: float | None = 1.0, stop: bool = False) -> bool:
    """A step of one micro-batch for each loss, with rows named after the step."""
    for n, loss in enumerate(losses):
        guard.note([f"{number}{'abc'[n]}", f"{number}{'xyz'[n]}"], torch.tensor(loss))
    return guard.check(number, norm, stop)


def test_the_micro_batch_that_went_wrong_is_named(make: Make) -> None:
    guard = make()
    step(guard, 1, 0.5, 0.5, 0.5)
    with pytest.raises(TrainingError) as caught:
        step(guard, 2, 0.5, float("inf"), 0.5, norm=float("nan"))
    assert str(caught.value).startswith(
        "step 2: the loss is inf, the norm of its gradients nan; its rows are 2b, 2y; "
    )
    assert "the same command starts anew, as nothing is saved yet, over" in str(caught.value)


@pytest.mark.parametrize("norm", [float("nan"), float("inf"), -1.0])
def test_gradients_that_went_wrong_name_all_rows(make: Make, norm: float) -> None:
    with pytest.raises(TrainingError, match=r"^step 1: the loss is 1, the norm .*; its rows are 1a, 1x, 1b, 1y; "):
        step(make(), 1, 0.5, 0.5, norm=norm)
    assert step(make(watch_norm=False), 1, 0.5, 0.5, norm=norm) is False
    assert step(make(), 1, 0.5, norm=None) is False


def test_a_long_list_of_rows_is_cut(make: Make) -> None:
    guard = make()
    guard.note([f"row{n}" for n in range(150)], torch.tensor(float("nan")))
    with pytest.raises(TrainingError, match=r"row98, row99 and 50 more; "):
        guard.check(1, None, False)


def test_a_request_to_stop_is_passed_on(make: Make) -> None:
    guard = make()
    assert not guard.has_step
    guard.note(["a"], torch.tensor(1.0))
    assert guard.has_step
    assert guard.check(1, 1.0, True) is True
    assert not guard.has_step
    assert step(guard, 2, 1.0) is False


def test_five_high_losses_in_a_row_are_a_divergence(make: Make) -> None:
    guard = make()
    for number in range(1, 21):
        step(guard, number, 2.0 if number % 2 else 1.0)
    for number in range(21, 25):
        step(guard, number, 7.6)  # the median is 1.5
    assert guard.steps_above == 4
    step(guard, 25, 7.4)
    assert guard.steps_above == 0
    for number in range(26, 30):
        step(guard, number, 20.0)
    with pytest.raises(
        TrainingError, match=r"^step 30: the loss has diverged: it is 20, .* above 5 times its usual 2;"
    ):
        step(guard, 30, 20.0)


def test_what_is_no_divergence(make: Make) -> None:
    early, small, free = make(), make(), make(factor=0)
    for number in range(1, 20):
        step(early, number, 1.0)
    for number in range(1, 40):
        step(small, number, 0.001)
        step(free, number, 1.0)
    for number in range(40, 60):
        step(small, number, 0.4)  # usual losses below 0.1 count as 0.1
        step(free, number, 1e9)
    step(early, 20, 1e9)  # too few steps to know what is usual
    assert early.steps_above == small.steps_above == free.steps_above == 0
