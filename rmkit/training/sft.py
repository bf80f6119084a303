"""The judge's loss in TRL's `SFTTrainer`, for those who live in TRL."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from datasets import Dataset
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from rmkit.engines.transformers import context_length
from rmkit.judge_encoder import JudgeEncoder
from rmkit.losses import PRESETS, LossSettings
from rmkit.rubric import Rubric
from rmkit.schema import RatedResponse
from rmkit.training.collation import JudgeCollator
from rmkit.training.examples import Example, ExampleDataset, GroupedExamples, check_weights
from rmkit.training.trainer import ScoreLossMixin

logger = logging.getLogger(__name__)

_OWN_LOSS = "the loss is rmkit's, with score terms that TRL's fused path, which hides the logits, can't have"
_OWN_ROWS = "rows are encoded piece by piece by rmkit, with their score positions; TRL does not prepare them"
_PADDED = "rows are padded here; train/train.py packs, with shared prompts"
_REFUSED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "packing": ((False,), _PADDED),
    "eval_packing": ((None, False), _PADDED),
    "padding_free": ((False,), _PADDED),
    "pad_to_multiple_of": ((None,), _PADDED),
    "completion_only_loss": ((None, True), "a judge learns the score sequence alone"),
    "assistant_only_loss": ((False,), "a judge learns the score sequence alone"),
    "loss_type": (("nll",), _OWN_LOSS),
    "label_smoothing_factor": ((0, 0.0), f"{_OWN_LOSS}; LossSettings('label_smoothing') smooths over scores"),
    "use_liger_kernel": ((False,), _OWN_LOSS),
    "shuffle_dataset": ((False,), f"{_OWN_ROWS}; the order of training is drawn from the seed anyway"),
    "dataset_kwargs": ((None, {}, {"skip_prepare_dataset": True}), _OWN_ROWS),
    "chat_template_path": ((None,), f"{_OWN_ROWS}; give a tokenizer that has its template"),
    "eos_token": ((None,), f"{_OWN_ROWS}; give a tokenizer that has its end token"),
}
"""Options of SFTConfig: what may stay, and why nothing else."""
_REFUSED_ARGUMENTS = {
    "compute_loss_func": _OWN_LOSS,
    "compute_metrics": "the validation loss is made of the sums of all rows; add a callback for figures of your own",
    "preprocess_logits_for_metrics": "no logits are kept",
    "formatting_func": _OWN_ROWS,
    "data_collator": _OWN_ROWS,
}


class JudgeSFTTrainer(ScoreLossMixin, SFTTrainer):
    """TRL's SFTTrainer with the judge's loss and batches: the same steps as `JudgeTrainer` makes.

    Args:
        model: A model, or the folder or hub id of one, as for SFTTrainer.
        args: Its config; `max_length`, or the model's context where that is less, is the most tokens of a row; longer
            rows are left out and counted.
        train_dataset: Rows as `data_prep/prepare.py` writes them, or examples that are encoded already.
        eval_dataset: The same, to validate on.
        processing_class: The tokenizer.
        rubric: The judge's, for rows; examples bring theirs.
        loss_settings: The loss.
        **kwargs: As for SFTTrainer, `peft_config` and `callbacks` among them.

    Attributes:
        encoder: What encoded the rows; None for examples.

    Raises:
        ValueError: For an option that has no meaning here, a row without `rubric`, or a mixture-of-experts model
            that is told to balance its router.
        DataError: If no row is left, or an attribute is weighed that no row has.
        TokenizerError: If the tokenizer can't tell the rubric's scores apart.
    """

    def __init__(
        self,
        *,
        model: str | PreTrainedModel,
        args: SFTConfig,
        train_dataset: Dataset | ExampleDataset,
        processing_class: PreTrainedTokenizerBase,
        eval_dataset: Dataset | ExampleDataset | None = None,
        rubric: Rubric | None = None,
        loss_settings: LossSettings = PRESETS["paper"],
        **kwargs: Any,
    ) -> None:
        _check_options(args, kwargs)
        if getattr(getattr(model, "config", None), "output_router_logits", False):
            raise ValueError("output_router_logits adds a term to the loss that rmkit's has not; set it to False")
        self.encoder = None if rubric is None else JudgeEncoder(processing_class, rubric)
        self._items: list[Example | tuple[Example, ...]] = []
        self._loss_for_items = loss_settings
        longest = context_length(AutoConfig.from_pretrained(model) if isinstance(model, str) else model.config)
        self._max_length = min(args.max_length or longest, longest)
        args.remove_unused_columns = False
        args.dataset_kwargs = {"skip_prepare_dataset": True}
        pad_id = processing_class.pad_token_id
        collate = JudgeCollator(0 if pad_id is None else int(pad_id), loss_settings)
        super().__init__(
            loss_settings=loss_settings,
            model=model,
            args=args,
            train_dataset=self._index(train_dataset, "train"),
            eval_dataset=None if eval_dataset is None else self._index(eval_dataset, "validation"),
            processing_class=processing_class,
            data_collator=lambda batch: collate([self._items[row["item"]] for row in batch]),
            **kwargs,
        )

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As SFTTrainer's, on the rows of `__init__` or on others of the same form."""
        if eval_dataset is not None and "item" not in getattr(eval_dataset, "column_names", ()):
            eval_dataset = self._index(eval_dataset, "validation")
        return super().evaluate(eval_dataset, *args, **kwargs)

    def _index(self, rows: Dataset | ExampleDataset, name: str) -> Dataset:
        """A data set of columns, which TRL asks for, that names items of this trainer."""
        examples = rows if isinstance(rows, ExampleDataset) else self._encode(rows, name)
        loss = self._loss_for_items
        rated = {position.key for example in examples.examples for position in example.positions}
        check_weights(loss.attribute_weights, rated.union(() if self.encoder is None else self.encoder.rubric.keys))
        items: Iterable[Example | tuple[Example, ...]] = examples.examples
        if loss.compares:
            derived_only = loss.preference_loss is not None
            required = name == "train" or not derived_only  # ratings alone can be validated on
            items = GroupedExamples(examples.examples, derived_only=derived_only, required=required).groups
        first = len(self._items)
        self._items += items
        return Dataset.from_dict({"item": range(first, len(self._items))})

    def _encode(self, rows: Iterable[Mapping[str, Any]], name: str) -> ExampleDataset:
        if self.encoder is None:
            raise ValueError("rows need the rubric that they were rated by: JudgeSFTTrainer(rubric=...)")
        neighbours = self._loss_for_items.contrasted
        rated = (RatedResponse.from_dict(row, f"{name} row {n}") for n, row in enumerate(rows))
        examples = ExampleDataset(self.encoder, rated, self._max_length, False, f"encode {name}", neighbours)
        if examples.skipped:
            count = examples.skipped["too_long"]
            logger.warning("%s: %d rows are longer than max_length=%s and left out", name, count, self._max_length)
        return examples


def _check_options(args: SFTConfig, kwargs: Mapping[str, Any]) -> None:
    for name, (harmless, reason) in _REFUSED.items():
        value = getattr(args, name)
        if value not in harmless:
            raise ValueError(f"{name}={value!r} has no meaning for a judge: {reason}")
    for name, reason in _REFUSED_ARGUMENTS.items():
        if kwargs.get(name) is not None:
            raise ValueError(f"{name} has no meaning for a judge: {reason}")
