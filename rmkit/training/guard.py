"""Watches the loss of each step, and stops a training that has gone wrong before its weights are saved."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from accelerate import Accelerator
from torch import distributed, nn

from rmkit.errors import TrainingError
from rmkit.training.checkpoints import find_checkpoint

_WINDOW = 50  # steps of which the median is taken
_FEWEST = 20  # steps before there is a median to compare with
_PATIENCE = 5  # steps in a row above the limit
_FLOOR = 0.1  # nats per token; below that no loss diverges
_NAMED = 100  # rows that a message names


class StepGuard:
    """The loss and gradient norm of each step, the same on all ranks, at the price of one collective.

    A loss or gradient norm that is no finite number stops the run at once. So does a loss that lies above `factor`
    times the median of the 50 steps before (taken as 0.1 at least), 5 steps in a row; the first 20 steps are free.

    Args:
        accelerator: Gathers from all ranks.
        folder: Holds the checkpoints; a message names the last one.
        factor: See above; 0 lets a loss rise as it will.
        watch_norm: Whether a gradient norm that is no number counts. With float16 it does not: the loss scaler
            skips such steps.
    """

    def __init__(self, accelerator: Accelerator, folder: Path, factor: float, watch_norm: bool = True) -> None:
        self._accelerator = accelerator
        self._folder = folder
        self._factor = factor
        self._watch_norm = watch_norm
        self._batches: list[tuple[Sequence[str], torch.Tensor]] = []
        self._losses: deque[float] = deque(maxlen=_WINDOW)
        self.steps_above = 0

    @property
    def has_step(self) -> bool:
        """Whether there are batches since the last check."""
        return bool(self._batches)

    def note(self, row_ids: Sequence[str], loss: torch.Tensor) -> None:
        """Take down a micro-batch of this rank: its rows, and its share of the loss, which stays on its device."""
        self._batches.append((row_ids, loss.detach().float()))

    def check(self, step: int, norm: torch.Tensor | float | None, stop: bool) -> bool:
        """Look at the step that ended; every rank calls it.

        Args:
            step: Its number, from 1.
            norm: Norm of its gradients, if known.
            stop: Whether this rank was asked to stop.

        Returns:
            Whether any rank was.

        Raises:
            TrainingError: On every rank, if the loss is no number or has diverged; it names the rows.
        """
        batches, self._batches = self._batches, []
        loss = torch.stack([loss for _, loss in batches]).sum()
        found = torch.as_tensor(0.0 if norm is None else norm, device=loss.device, dtype=torch.float32)
        mine = torch.stack([loss, found, torch.full_like(loss, stop)])
        rows = self._accelerator.gather(mine.unsqueeze(0)).tolist()
        losses, norms, stops = zip(*rows, strict=True)
        step_loss = sum(losses) / len(losses)
        # DeepSpeed writes -1 for a norm that is no number.
        wrong_norm = self._watch_norm and not all(math.isfinite(value) and value >= 0 for value in norms)
        if not math.isfinite(step_loss) or wrong_norm:
            shown = f"{norms[0]:.4g}" if norm is not None else "unknown"
            raise TrainingError(
                f"step {step}: the loss is {step_loss:.4g}, the norm of its gradients {shown}; "
                f"{self._name_rows(batches)}; {self._advice()}"
            )
        self._follow(step, step_loss, batches)
        return any(stops)

    def check_weights(self, step: int, model: nn.Module) -> None:
        """Make sure, before they are saved, that trained weights are finite numbers; every rank calls it.

        Raises:
            TrainingError: On every rank, naming some that are not.
        """
        # ZeRO-3 keeps this rank's share of a weight beside it.
        weights = {n: getattr(p, "ds_tensor", p).detach() for n, p in model.named_parameters() if p.requires_grad}
        wrong = [name for name, weight in weights.items() if not weight.isfinite().all()]
        wrong = sorted({name for names in _from_all_ranks(wrong) for name in names})
        if wrong:
            raise TrainingError(
                f"step {step}: {len(wrong)} weights hold values that are no numbers, such as {wrong[0]}, and are not "
                f"saved; {self._advice()}"
            )

    def _follow(self, step: int, loss: float, batches: list[tuple[Sequence[str], torch.Tensor]]) -> None:
        if not self._factor:
            return
        usual = max(median(self._losses), _FLOOR) if len(self._losses) >= _FEWEST else math.inf
        if loss <= self._factor * usual:
            self.steps_above = 0
            self._losses.append(loss)
            return
        self.steps_above += 1
        if self.steps_above >= _PATIENCE:
            raise TrainingError(
                f"step {step}: the loss has diverged: it is {loss:.4g}, and for {_PATIENCE} steps it was above "
                f"{self._factor:g} times its usual {usual:.4g}; {self._name_rows(batches)}; {self._advice()}; "
                "divergence_factor moves or (at 0) lifts the limit"
            )

    def _name_rows(self, batches: list[tuple[Sequence[str], torch.Tensor]]) -> str:
        """Rows of the micro-batches, on all ranks, whose own loss is no number; of all, where there is none such."""
        mine = [(list(ids), math.isfinite(float(loss))) for ids, loss in batches]
        everywhere = [batch for rank in _from_all_ranks(mine) for batch in rank]
        chosen = [batch for batch in everywhere if not batch[1]] or everywhere
        ids = list(dict.fromkeys(row for rows, _ in chosen for row in rows))
        more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
        return f"its rows are {', '.join(ids[:_NAMED])}{more}"

    def _advice(self) -> str:
        last = find_checkpoint(self._folder)
        start = f"goes on from {last}, the last whole checkpoint," if last else "starts anew, as nothing is saved yet,"
        return (
            f"the same command {start} over the same rows: look at them, or train anew with a lower learning_rate in "
            "another output_dir"
        )


def _from_all_ranks(value: Any) -> list[Any]:
    if not distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values
