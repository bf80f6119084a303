"""The judge's loss in transformers' Trainer, with no other change that it could avoid."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from transformers import EvalPrediction, PreTrainedModel, Trainer
from transformers.trainer_utils import EvalLoopOutput

from rmkit.errors import TrainingError
from rmkit.losses import LossSettings
from rmkit.training.batches import ConversationOrder
from rmkit.training.checkpoints import clear_checkpoint, complete_checkpoint, find_checkpoint, remove_old_checkpoints
from rmkit.training.guard import StepGuard
from rmkit.training.head import CompletionHead, row_counts, row_sums
from rmkit.training.settings import JudgeTrainingArguments
from rmkit.training.shutdown import StopRequest, TrainingStopped, stop_on_sigterm

logger = logging.getLogger(__name__)


class ScoreLossMixin(Trainer):
    """The judge's loss, for transformers' Trainer and what others made of it; it stands first among the bases.

    Trains on batches of `JudgeCollator`. The loss of a step is `sum(CE) / tokens + alpha * sum(w * score loss) / D`,
    with sums and counts over all micro-batches and all ranks of the step, so that it does not depend on how a batch
    is split. The validation loss is the same formula over all validation rows at once.

    Args:
        loss_settings: The loss.
        **kwargs: As for the trainer.

    Raises:
        ValueError: Where transformers would fall back to DataParallel (several GPUs, one process).
    """

    def __init__(self, *, loss_settings: LossSettings, **kwargs: Any) -> None:
        super().__init__(compute_metrics=self._validation_loss, **kwargs)
        if self.args.n_gpu > 1:
            raise ValueError(
                f"one process sees {self.args.n_gpu} GPUs; launch with torchrun --nproc_per_node {self.args.n_gpu} "
                "train/train.py ..., or set CUDA_VISIBLE_DEVICES to one of them"
            )
        self.loss_settings = loss_settings
        self.model_accepts_loss_kwargs = True  # the loss is divided by global counts, so Trainer must not rescale it
        self._head = CompletionHead(cast(PreTrainedModel, self.model))
        self._parts: dict[str, torch.Tensor] = {}
        self._parts_since = 0
        self._read = torch.zeros(3, dtype=torch.float64)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        """Tokens and place weights of one step, over all micro-batches and ranks: float32, shape (2,)."""
        mine = [
            (
                float(batch["label_weights"].sum()),
                float(batch["score_weights"].sum()),
                batch["input_ids"].numel(),
                int(batch["row_tokens"].sum()),
                len(batch["row_tokens"]),
            )
            for batch in batch_samples
        ]
        counts = self.accelerator.gather(torch.tensor(mine, dtype=torch.float32, device=device).sum(0, keepdim=True))
        tokens, weights, *read = counts.sum(0)
        self._read += torch.stack(read).cpu().double()
        return torch.stack([tokens, weights])

    @property
    def token_counts(self) -> dict[str, int]:
        """What was read in training since the process started, on all ranks.

        Returns:
            `computed` tokens, padding included and shared beginnings once; `logical` tokens, as many as the rows have;
            `rows`.
        """
        return dict(zip(("computed", "logical", "rows"), map(int, self._read.tolist()), strict=True))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """This micro-batch's share of the step's loss, times the ranks, since gradients are averaged over them."""
        counts = num_items_in_batch
        if not isinstance(counts, torch.Tensor):
            counts = self._get_num_items_in_batch([inputs], inputs["labels"].device)
        tokens, weights = counts.where(counts > 0, 1)
        settings, ranks = self.loss_settings, self.accelerator.num_processes
        token_weight = ranks / tokens
        score_weight = ranks / (tokens if settings.reduction == "tokens" else weights)
        terms = self._head.loss(model, inputs, settings, token_weight, settings.alpha * score_weight)
        if model.training:
            self._note("loss_tokens", terms.nll.sum() * token_weight)
            scores = terms.scores
            if settings.preference_loss is not None:
                ordered = scores.where(inputs["score_ordered"], 0)
                scores = scores - ordered
                unit = settings.alpha / (settings.preference_alpha or 1.0)
                self._note("loss_preferences", ordered.sum() * score_weight * unit)
            self._note("loss_scores", scores.sum() * score_weight)
        return (terms.loss, {}) if return_outputs else terms.loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, torch.Tensor, torch.Tensor]:
        """Sums and counts of each row, of which `_validation_loss` makes one loss.

        The mean of batch losses, which Trainer takes, depends on how rows are split into batches and ranks, and
        on the rows that fill up the last batch; Trainer drops those from what is gathered row by row.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            sums = row_sums(self._head.loss(model, inputs, self.loss_settings), inputs)
        return None, sums, row_counts(inputs)

    def _validation_loss(self, prediction: EvalPrediction) -> dict[str, float]:
        token_sum, score_sum = np.asarray(prediction.predictions).sum(0, dtype=np.float64)
        tokens, weights = np.asarray(prediction.label_ids).sum(0, dtype=np.float64)
        divisor = tokens if self.loss_settings.reduction == "tokens" else weights or 1.0
        return {"loss": float(token_sum / tokens + self.loss_settings.alpha * score_sum / divisor)}

    def _note(self, name: str, value: torch.Tensor) -> None:
        if not self._parts:
            self._parts_since = self.state.global_step
        self._parts[name] = self._parts.get(name, torch.zeros_like(value, requires_grad=False)) + value.detach()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the terms of the training loss beside it, averaged over the steps since the last line."""
        if "loss" in logs and self._parts:
            steps = max(self.state.global_step - self._parts_since, 1)
            for name, value in self._parts.items():
                logs[name] = float(self.accelerator.gather(value.reshape(1)).mean()) / steps
            self._parts.clear()
            counts = self.token_counts
            for name in ("computed", "logical") if counts["rows"] else ():
                logs[f"tokens_per_row_{name}"] = counts[name] / counts["rows"]
        super().log(logs, start_time)


class JudgeTrainer(ScoreLossMixin):
    """transformers' Trainer with the judge's loss, figures of scores at each evaluation, and safe ends.

    Checkpoints count when they are whole, SIGTERM saves one and stops, and so does, without saving, a loss that
    `StepGuard` finds wrong.

    Args:
        validate: Called at every evaluation, on every rank; its figures join the metrics with the prefix
            `eval_`.
        order: Training rows in the order of each epoch; by default at random.
        **kwargs: As for `ScoreLossMixin` and `Trainer`.
    """

    args: JudgeTrainingArguments

    def __init__(
        self,
        *,
        validate: Callable[[], Mapping[str, float]] | None = None,
        order: ConversationOrder | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.validate = validate
        self._order = order
        self._folder = Path(str(self.args.output_dir))
        self._guard = StepGuard(self.accelerator, self._folder, self.args.divergence_factor, not self.args.fp16)
        self._stop = StopRequest()
        self._stopping = False
        self._saved_step = -1

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train.

        Raises:
            TrainingError: If the loss is no number or has diverged.
            TrainingStopped: After SIGTERM, when a checkpoint is saved.
        """
        try:
            with stop_on_sigterm(self._stop):
                return super().train(*args, **kwargs)
        except (TrainingError, TrainingStopped):
            self.callback_handler.on_train_end(self.args, self.state, self.control)  # they close their logs
            raise

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """One micro-batch, taken down for the guard."""
        loss = super().training_step(model, inputs, *args, **kwargs)
        self._guard.note(inputs["ids"], loss)
        return loss

    def _maybe_log_save_evaluate(
        self,
        tr_loss: torch.Tensor,
        grad_norm: torch.Tensor | float | None,
        model: nn.Module,
        trial: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """What Trainer does after a step, and after an epoch, once the step is known to be sound.

        A run that is asked to stop does so after the step, but after the last of an epoch only when the epoch's own
        validation and checkpoint are done, for the run that resumes would not make up for them.
        """
        step, step_ended = self.state.global_step, self._guard.has_step
        if step_ended:
            self._stopping |= self._guard.check(step, grad_norm, self._stop.made)
        stops_here = self._stopping and not (step_ended and float(self.state.epoch or 0.0).is_integer())
        self.control.should_log |= stops_here
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
        if not stops_here:
            return
        if self._saved_step != step:
            self._save_checkpoint(model, trial)
        saved = find_checkpoint(self._folder)
        start = f"resumes from {saved}" if saved else "starts anew, as nothing is saved yet"
        raise TrainingStopped(f"stopped by SIGTERM after step {step}; the same command {start}")

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self._order or super()._get_train_sampler(train_dataset)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Train for an epoch; not where the last step is done already, for Trainer would make one more.

        That is so when a run that was killed after its last checkpoint, or after it stopped early, is resumed.
        """
        if self._order is not None:
            self._order.set_epoch(kwargs["epoch"])  # what skips batches of a resumed epoch does not hand it on
        if self.state.global_step < self.state.max_steps and not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save a checkpoint, say last that it is whole, and only then delete old ones; none while the loss is high."""
        step = self.state.global_step
        if self._guard.steps_above:
            logger.warning("step %d: no checkpoint is saved, for the loss is far above its usual", step)
            return
        self._guard.check_weights(step, cast(nn.Module, self.model))
        checkpoint = self._folder / f"checkpoint-{step}"
        limit, self.args.save_total_limit = self.args.save_total_limit, None  # Trainer would delete too early
        try:
            if self.is_world_process_zero():
                clear_checkpoint(checkpoint)
            self.accelerator.wait_for_everyone()
            super()._save_checkpoint(model, trial)
            if self.is_world_process_zero():
                complete_checkpoint(checkpoint, self.args.save_only_model)
                remove_old_checkpoints(self._folder, limit, self.state.best_model_checkpoint)
            self.accelerator.wait_for_everyone()  # no rank may end, and the others with it, before that
        finally:
            self.args.save_total_limit = limit
        self._saved_step = step

    def _save_rng_state(self, output_dir: str) -> None:
        """Save random states, and wait for all ranks: what is written next says that the checkpoint is whole."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Add the figures of `validate`, before they are logged and early stopping sees them."""
        output = super().evaluation_loop(*args, **kwargs)
        if self.validate is not None:
            assert output.metrics is not None  # there is a validation loss
            output.metrics.update({f"eval_{name}": value for name, value in self.validate().items()})
        return output

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Whether this is the best evaluation so far, of which a checkpoint is saved; not where it is no number."""
        name = f"eval_{(self.args.metric_for_best_model or '').removeprefix('eval_')}"
        undefined = self.validate is not None and self.args.metric_for_best_model and name not in metrics
        if undefined or math.isnan(metrics.get(name, 0.0)):
            value = metrics.get(name, "undefined")
            logger.warning("step %d: %s is %s, so this is not the best", self.state.global_step, name, value)
            return False
        is_best = super()._determine_best_metric(metrics, trial)
        # Where evaluations come more often than checkpoints, Trainer would export another one than the best.
        self.control.should_save |= is_best and self.args.load_best_model_at_end
        return is_best
