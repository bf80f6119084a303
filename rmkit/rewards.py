"""The judge as a reward function for TRL's trainers."""

from __future__ import annotations

import json
import logging
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rmkit.errors import DataError, JudgeError, RubricError
from rmkit.judge import Judge
from rmkit.rubric import Rubric
from rmkit.schema import Conversation, Judgment, read_conversation, read_response
from rmkit.scores import centre

logger = logging.getLogger(__name__)

ON_FAILURE = ("none", "raise")
"""What may happen to a completion that can't be judged: no reward, or the end of the run."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One completion as the judge takes it."""

    conversation: Conversation
    response: str
    reference: str | None
    rubric: Rubric | None

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for rows that get the same judgement."""
        return self.conversation, self.response, self.reference, self.rubric and json.dumps(self.rubric.to_dict())


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one completion.

    Args:
        reward: The number in [-1, 1], or None.
        raw: The aggregate, or the attribute's score, that the reward was made from, or None.
        judgment: The judgement, or None where the row could not even be read.
        own_rubric: Whether the row brought a rubric of its own.
        error: Why there is no reward, or None.
    """

    reward: float | None = None
    raw: float | None = None
    judgment: Judgment | None = None
    own_rubric: bool = False
    error: str | None = None


class JudgeReward:
    """A reward function for TRL: hand it to `GRPOTrainer(reward_funcs=[...])` as it is.

    The reward of a completion is the judge's `aggregate`, put on [-1, 1] with 0 in the middle of its range by
    `rmkit.scores.centre`: with positive weights, `2 * aggregate - 1`. For one attribute it is
    `2 * attribute.to_unit(score) - 1`, where the score is the distribution's mean (or what the judge's
    read-out says); an attribute's weight, and the weight's sign, play no part in it.

    A completion that can't be judged gets `None`, which TRL leaves out of the sum of rewards; it is never a
    number. An engine that breaks down stops the run.

    The object is made in no time and can be pickled: the judge is loaded by the first call, in the process
    that makes it, and is never part of the pickled state. Loading leaves the process's random numbers alone.

    Args:
        judge: A judge folder or hub id; with `rubric`, any instruct model; or a `Judge` that is loaded already
            (several rewards may share it, but such a reward can't be pickled).
        engine: `transformers` or `vllm`. Of no account for a loaded `Judge`.
        attribute: Key of the one attribute that makes the reward; by default the aggregate does.
        on_failure: `none` gives such a completion no reward; `raise` stops the run with the reasons.
        truncate: Whether the oldest turns of a prompt that is too long may be left out. By default such a
            completion can't be judged.
        rubric: For a model without `judge_config.json` (zero-shot).
        name: What columns and metrics begin with, and `__name__` too. Two judges in one trainer need two names.
        **engine_options: As in `Judge.load`.

    Attributes:
        __name__: What TRL's logs call it: `judge_reward`, or `judge_reward_<attribute>`.

    Raises:
        ValueError: For an unknown `on_failure`, or options of loading beside a loaded `Judge`.
    """

    def __init__(
        self,
        judge: str | Path | Judge,
        *,
        engine: str = "transformers",
        attribute: str | None = None,
        on_failure: str = "none",
        truncate: bool = False,
        rubric: Rubric | None = None,
        name: str = "judge",
        **engine_options: Any,
    ) -> None:
        if on_failure not in ON_FAILURE:
            raise ValueError(f"on_failure {on_failure!r} is unknown; choose {', '.join(ON_FAILURE)}")
        if isinstance(judge, Judge) and (truncate or rubric is not None or engine_options):
            raise ValueError(
                "truncate, rubric and engine options are for loading a judge, and this one is loaded already; "
                "give them to Judge.load, or give a folder here"
            )
        self._path = None if isinstance(judge, Judge) else str(judge)
        self._judge = judge if isinstance(judge, Judge) else None
        self._engine = engine
        self._load_options = {"truncate": truncate, "rubric": rubric, **engine_options}
        self.attribute = attribute
        self.on_failure = on_failure
        self.name = name
        self.__name__ = f"{name}_reward" if attribute is None else f"{name}_reward_{attribute}"

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: all but the loaded judge."""
        if self._path is None:
            raise TypeError(
                "a JudgeReward that was made from a loaded Judge can't be pickled, for an engine can't move to "
                "another process; make it from the judge's folder"
            )
        return {**self.__dict__, "_judge": None}

    @property
    def judge(self) -> Judge:
        """The judge, loaded when it is first asked for."""
        if self._judge is None:
            assert self._path is not None
            with _random_state_kept():
                self._judge = Judge.load(self._path, self._engine, **self._load_options)
        return self._judge

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        reference: Sequence[str | None] | None = None,
        rubric: Sequence[dict[str, Any] | None] | None = None,
        log_extra: Any = None,
        log_metric: Any = None,
        **columns: Any,
    ) -> list[float | None]:
        """Reward completions; TRL calls this, by keyword.

        Equal completions of equal prompts are judged once.

        Args:
            prompts: Each a text (one user turn) or a list of messages.
            completions: Each a text or a list of messages, whose content may be None.
            reference: Column of the data set: a reference answer for each, or None.
            rubric: Column of the data set: a rubric for each as `Rubric.to_dict` gives it, or None.
            log_extra: TRL's; gets the columns `judge_aggregate` and `judge_error`, for one attribute
                `judge_<attribute>` and `judge_<attribute>_error`.
            log_metric: TRL's; gets `judge/aggregate` (in its raw range) and `judge/<key>`, the mean score of each
                attribute over the rows that follow the judge's own rubric (for one attribute only that one);
                then `judge/failure_rate` and `judge/truncation_rate`, shares in [0, 1] of all completions.
            **columns: Other columns, of no account.

        Returns:
            A number in [-1, 1] or None for each completion, in order.

        Raises:
            JudgeError: If the judge can't be loaded; with `on_failure="raise"`, if a completion can't be judged.
            RubricError: If no attribute of the judge has the asked-for key.
        """
        outcomes = self._judge_all(prompts, completions, reference, rubric)
        failed = [index for index, outcome in enumerate(outcomes) if outcome.error is not None]
        if failed:
            first = f"completion {failed[0]}: {outcomes[failed[0]].error}"
            message = f"{self.__name__}: {len(failed)} of {len(outcomes)} completions can't be judged; {first}"
            if self.on_failure == "raise":
                raise JudgeError(message)
            logger.warning(message)
        if log_extra is not None:
            label = self.name if self.attribute is None else f"{self.name}_{self.attribute}"
            log_extra(f"{self.name}_aggregate" if self.attribute is None else label, [o.raw for o in outcomes])
            log_extra(f"{label}_error", [o.error for o in outcomes])
        if log_metric is not None:
            for key, values in self._metrics(outcomes).items():
                # TRL averages over all values of all ranks. A rank with nothing to average logs NaN, never a
                # number: TRL drops a NaN mean from its logs, and every rank keeps the same keys.
                for value in values or [math.nan]:
                    log_metric(f"{self.name}/{key}", value)
        return [outcome.reward for outcome in outcomes]

    def _judge_all(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        references: Sequence[str | None] | None,
        rubrics: Sequence[dict[str, Any] | None] | None,
    ) -> list[_Outcome]:
        count = len(completions)
        references = references if references is not None else [None] * count
        rubrics = rubrics if rubrics is not None else [None] * count
        read: list[_Row | str] = []
        for columns in zip(prompts, completions, references, rubrics, strict=True):
            try:
                read.append(_read_row(*columns))
            except (DataError, RubricError) as error:
                read.append(f"{type(error).__name__}: {error}")
        rows = {row.key: row for row in read if isinstance(row, _Row)}
        if self.attribute is not None and any(row.rubric is None for row in rows.values()):
            self.judge.rubric[self.attribute]  # a key that no row can have is a mistake, not a failed judgement
        judgments = self.judge.score(
            [row.conversation for row in rows.values()],
            [row.response for row in rows.values()],
            [row.reference for row in rows.values()],
            [row.rubric for row in rows.values()],
        )
        outcomes = {
            key: self._reward(row.rubric, judgment)
            for (key, row), judgment in zip(rows.items(), judgments, strict=True)
        }
        return [outcomes[row.key] if isinstance(row, _Row) else _Outcome(error=row) for row in read]

    def _reward(self, own_rubric: Rubric | None, judgment: Judgment) -> _Outcome:
        rubric, is_own = own_rubric or self.judge.rubric, own_rubric is not None
        if judgment.aggregate is None:
            return _Outcome(judgment=judgment, own_rubric=is_own, error=judgment.error)
        if self.attribute is None:
            return _Outcome(centre(rubric, judgment.aggregate), judgment.aggregate, judgment, is_own)
        if self.attribute not in judgment.attributes:
            reason = f"RubricError: rubric {rubric.name!r} of this row has no attribute {self.attribute!r}"
            return _Outcome(judgment=judgment, own_rubric=is_own, error=reason)
        raw = float(getattr(judgment.attributes[self.attribute], self.judge.readout))
        return _Outcome(2 * rubric[self.attribute].to_unit(raw) - 1, raw, judgment, is_own)

    def _metrics(self, outcomes: Sequence[_Outcome]) -> dict[str, list[float]]:
        """Values per metric; the keys depend on the judge alone, never on what was judged."""
        judgments = [outcome.judgment for outcome in outcomes if outcome.judgment is not None]
        common = [o.judgment.attributes for o in outcomes if o.judgment is not None and not o.own_rubric]
        keys = self.judge.rubric.keys if self.attribute is None else (self.attribute,)
        metrics = {key: [found[key].mean for found in common if key in found] for key in keys}
        if self.attribute is None:
            metrics["aggregate"] = [j.aggregate for j in judgments if j.aggregate is not None]
        metrics["failure_rate"] = [float(outcome.error is not None) for outcome in outcomes]
        metrics["truncation_rate"] = [float(o.judgment is not None and o.judgment.truncated) for o in outcomes]
        return metrics


def _read_row(prompt: Any, completion: Any, reference: Any, rubric: Any) -> _Row:
    if reference is not None and not isinstance(reference, str):
        raise DataError(f"column reference: expected a text or null, found {str(reference)[:80]!r}")
    return _Row(
        read_conversation(prompt, "prompt"),
        read_response(completion, "completion"),
        reference,
        None if rubric is None else Rubric.from_dict(_without_nulls(rubric), "column rubric"),
    )


def _without_nulls(value: Any) -> Any:
    """The value without null fields, which Arrow tables add where rows have different ones."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Give the process its random numbers back; vLLM seeds them all, which would make all ranks sample alike."""
    states = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
