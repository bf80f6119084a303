"""The end of a run whose figure no longer gets better."""

from __future__ import annotations

from typing import Any

from transformers import EarlyStoppingCallback, TrainerControl, TrainerState, TrainingArguments


class EarlyStop(EarlyStoppingCallback):
    """transformers' early stopping, which a resumed run goes on with where the checkpoint was written.

    Trainer restores callbacks only together with its own switches, such as the one that asks for an evaluation at
    once, so the count is read from the checkpoint's state here.
    """

    @property
    def has_stopped(self) -> bool:
        """Whether the figure has failed to improve often enough."""
        return self.early_stopping_patience_counter >= self.early_stopping_patience

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Go on counting; a run that had stopped when it was killed has nothing left to train."""
        super().on_train_begin(args, state, control, **kwargs)
        callbacks: Any = state.stateful_callbacks  # of a checkpoint or of a new state: what each callback keeps
        saved = callbacks.get(type(self).__name__)
        self.early_stopping_patience_counter = saved["attributes"]["early_stopping_patience_counter"] if saved else 0
        control.should_training_stop = self.has_stopped

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Count an evaluation without improvement; one where the figure is undefined is such a one."""
        name = f"eval_{(args.metric_for_best_model or '').removeprefix('eval_')}"
        worst = float("-inf") if args.greater_is_better else float("inf")
        super().on_evaluate(args, state, control, {name: worst, **metrics}, **kwargs)


def build_early_stop(patience: int | None, threshold: float) -> list[EarlyStop]:
    """The callback, where there is a patience."""
    return [] if patience is None else [EarlyStop(patience, threshold)]


def check_early_stop(args: TrainingArguments, patience: int | None, threshold: float) -> None:
    """Make sure that early stopping can work.

    Raises:
        ValueError: For a patience below 1, a threshold below 0 or without patience, or a run without evaluations or
            without a figure that chooses the best checkpoint.
    """
    if patience is None:
        if threshold:
            raise ValueError(f"early_stopping_threshold={threshold} does nothing without early_stopping_patience")
        return
    if patience < 1 or not threshold >= 0:
        raise ValueError(
            f"early_stopping_patience={patience} and early_stopping_threshold={threshold}: give a number of "
            "evaluations, 1 or more, and how much is an improvement, 0 or more"
        )
    needed = ""
    if args.metric_for_best_model is None:
        needed = "a figure to watch: set metric_for_best_model"
    if args.eval_strategy == "no":
        needed = "evaluations: set eval_strategy to steps or epoch"
    if needed:
        raise ValueError(f"early_stopping_patience={patience} needs {needed}")
