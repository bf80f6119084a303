"""The judge as a reward function for TRL's trainers."""

from __future__ import annotations

import asyncio
import difflib
import functools
import inspect
import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmkit.errors import DataError, JudgeError, RubricError
from rmkit.rewards.failures import ON_FAILURE, CircuitBreaker, fill_with_group_mean
from rmkit.rewards.judgment_source import JudgmentSource
from rmkit.rewards.settings import read_reward_settings
from rmkit.rewards.shape import RewardShape
from rmkit.rubric import Rubric
from rmkit.schema import JudgeItem, Judgment, read_conversation, read_response

if TYPE_CHECKING:
    from rmkit.judge import Judge

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one completion.

    Args:
        reward: The number, before its group plays a part, or None.
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
    """A reward function for TRL: hand it to `GRPOTrainer(reward_funcs=[...])` as it is; RLOO and OnlineDPO too.

    By default, the reward of a completion is the judge's `aggregate`, put on [-1, 1] with 0 in the middle of its range
    by `rmkit.scores.centre`: with positive weights, `2 * aggregate - 1`. For one attribute it is
    `2 * attribute.to_unit(score) - 1`, where the score is the distribution's mean (or what the judge's
    read-out says); an attribute's weight, and the weight's sign, play no part in it.

    A completion that can't be judged is never a number of its own. An engine that breaks down in this process stops
    the run; a server that gives nothing, or nonsense, has failed on each completion it was asked about.

    The object is made in no time and can be pickled: the judge is loaded by the first call, in the process
    that makes it, and is never part of the pickled state; a deep copy shares it. Loading leaves the process's random
    numbers alone.

    Args:
        judge: The address of a judge server (`python -m rmkit.server`), such as `http://127.0.0.1:8000`: then nothing
            is loaded here. Or a judge folder or hub id; with `rubric`, any instruct model. Or a `Judge` that is loaded
            already (several rewards may share it, but such a reward can't be pickled).
        engine: `transformers`, `vllm` or `http`, for a judge folder.
        attribute: Key of the one attribute that makes the reward; by default the aggregate does.
        length_budget: See `RewardShape`, as the next five.
        risk: k in `score - k * its standard deviation`.
        centred: Whether 0 is put in the middle of the range.
        group_normalised: Whether rewards are normalised within the group of a prompt.
        scale: What the reward is multiplied by.
        clip: The reward is kept in [-clip, clip].
        on_failure: For a completion that can't be judged: `none` gives it no reward; `group_mean` the mean of the
            other completions of its prompt in the same call, and none where none of them was judged; `raise` stops the
            run with the reasons.
        max_outages: Calls in a row in which the judge was asked and judged nothing, after which the run stops,
            whatever `on_failure` says.
        cache: A file that keeps judgements, keyed by the judge and all that it is shown; by default there is none.
        truncate: Whether the oldest turns of a prompt that is too long may be left out. By default such a
            completion can't be judged. A server has its own setting.
        rubric: For a model without `judge_config.json` (zero-shot).
        name: What columns and metrics begin with, and `__name__` too. Two judges in one trainer need two names.
        **engine_options: As in `Judge.load`. For a server: `timeout` (seconds for an answer, 60), `retries` (5) and
            `concurrency` (requests at a time, 32), as in `JudgeClient`.

    Attributes:
        __name__: What TRL's logs call it: `judge_reward`, or `judge_reward_<attribute>`.

    Raises:
        ValueError: For an unknown `on_failure`, a misspelt option, a number outside its range, or options that are
            not this judge's.
    """

    def __init__(
        self,
        judge: str | Path | Judge,
        *,
        engine: str = "transformers",
        attribute: str | None = None,
        length_budget: int | None = None,
        risk: float = 0.0,
        centred: bool = True,
        group_normalised: bool = False,
        scale: float = 1.0,
        clip: float | None = None,
        on_failure: str = "none",
        max_outages: int = 10,
        cache: str | Path | None = None,
        truncate: bool = False,
        rubric: Rubric | None = None,
        name: str = "judge",
        **engine_options: Any,
    ) -> None:
        if on_failure not in ON_FAILURE:
            raise ValueError(f"on_failure {on_failure!r} is unknown; choose {', '.join(ON_FAILURE)}")
        for option in engine_options:  # a misspelt option of ours would be one of the engine's, until its first call
            if nearest := difflib.get_close_matches(
                option, inspect.signature(JudgeReward).parameters, n=1, cutoff=0.7
            ):
                raise ValueError(f"JudgeReward has no option {option!r}; did you mean {nearest[0]!r}?")
        self.shape = RewardShape(attribute, length_budget, risk, centred, group_normalised, scale, clip)
        self.on_failure = on_failure
        self.name = name
        self.__name__ = f"{name}_reward" if attribute is None else f"{name}_reward_{attribute}"
        self._breaker = CircuitBreaker(max_outages)
        self._source = JudgmentSource(judge, engine, cache, truncate, rubric, engine_options)

    @classmethod
    def for_attributes(cls, judge: str | Path | Judge, attributes: Sequence[str], **options: Any) -> list[JudgeReward]:
        """One reward for each attribute, which together judge each completion once.

        Args:
            judge: As for one reward.
            attributes: Keys of attributes.
            **options: Of each reward.
        """
        rewards = [cls(judge, attribute=attribute, **options) for attribute in attributes]
        for reward in rewards:
            reward._source = rewards[0]._source
        return rewards

    def load(self) -> None:
        """Load the judge, or reach its server, now instead of at the first call.

        Raises:
            JudgeError: If that can't be done.
        """
        self._source.load()

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
            A number or None for each completion, in order.

        Raises:
            JudgeError: If the judge can't be loaded, or its server not be reached the first time; if it judged nothing
                in `max_outages` calls in a row; with `on_failure="raise"`, if a completion can't be judged.
            RubricError: If no attribute of the judge has the asked-for key.
        """
        count = len(completions)
        references = reference if reference is not None else [None] * count
        rubrics = rubric if rubric is not None else [None] * count
        outcomes = self._judge_all(prompts, completions, references, rubrics)
        failed = [index for index, outcome in enumerate(outcomes) if outcome.error is not None]
        if failed:
            first = f"completion {failed[0]}: {outcomes[failed[0]].error}"
            message = f"{self.__name__}: {len(failed)} of {count} completions can't be judged; {first}"
            if self.on_failure == "raise":
                raise JudgeError(message)
            logger.warning(message)
        if log_extra is not None:
            attribute = self.shape.attribute
            label = self.name if attribute is None else f"{self.name}_{attribute}"
            log_extra(f"{self.name}_aggregate" if attribute is None else label, [o.raw for o in outcomes])
            log_extra(f"{label}_error", [o.error for o in outcomes])
        if log_metric is not None:
            for key, values in self._metrics(outcomes).items():
                # TRL averages over all values of all ranks. A rank with nothing to average logs NaN, never a
                # number: TRL drops a NaN mean from its logs, and every rank keeps the same keys.
                for value in values or [math.nan]:
                    log_metric(f"{self.name}/{key}", value)
        groups = [_write_group(*row) for row in zip(prompts, references, rubrics, strict=True)]
        rewards = self.shape.finish([outcome.reward for outcome in outcomes], groups)
        return fill_with_group_mean(rewards, groups) if self.on_failure == "group_mean" else rewards

    def _judge_all(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        references: Sequence[str | None],
        rubrics: Sequence[dict[str, Any] | None],
    ) -> list[_Outcome]:
        read = [_read_row(*row) for row in zip(prompts, completions, references, rubrics, strict=True)]
        keys = [None if isinstance(row, str) else json.dumps(row.to_dict(), sort_keys=True) for row in read]
        items = {
            key: row for key, row in zip(keys, read, strict=True) if key is not None and isinstance(row, JudgeItem)
        }
        if self.shape.attribute is not None and any(item.rubric is None for item in items.values()):
            self._source.rubric[self.shape.attribute]  # a key that no row can have is a mistake, no failed judgement
        answer = self._source.judge(items)
        errors = [judged.error for judged in answer.asked.values() if judged.error is not None]
        if len(errors) < len(answer.asked):
            self._breaker.record_success()
        elif errors and self.on_failure != "raise":
            self._breaker.record_outage(errors[0])
        outcomes = {key: self._reward(item, answer.judgments[key]) for key, item in items.items()}
        return [
            outcomes[key] if key is not None else _Outcome(error=str(row)) for key, row in zip(keys, read, strict=True)
        ]

    def _reward(self, item: JudgeItem, judgment: Judgment) -> _Outcome:
        is_own = item.rubric is not None
        if judgment.error is not None:
            return _Outcome(judgment=judgment, own_rubric=is_own, error=judgment.error)
        rubric = item.rubric or self._source.rubric
        if set(judgment.attributes) != set(rubric.keys):
            reason = f"JudgeError: it judged {sorted(judgment.attributes)} by a rubric of {sorted(rubric.keys)}"
            return _Outcome(judgment=judgment, own_rubric=is_own, error=reason)
        try:
            raw = self.shape.read_raw(rubric, self._source.readout, judgment)
        except RubricError as error:
            return _Outcome(judgment=judgment, own_rubric=is_own, error=f"RubricError: {error}")
        reward = self.shape.make(rubric, raw, judgment, len(item.response))
        return _Outcome(reward, raw, judgment, is_own)

    def _metrics(self, outcomes: Sequence[_Outcome]) -> dict[str, list[float]]:
        """Values per metric; the keys depend on the judge alone, never on what was judged."""
        judgments = [outcome.judgment for outcome in outcomes if outcome.judgment is not None]
        common = [o.judgment.attributes for o in outcomes if o.judgment is not None and not o.own_rubric]
        attribute = self.shape.attribute
        keys = self._source.rubric.keys if attribute is None else (attribute,)
        metrics = {key: [found[key].mean for found in common if key in found] for key in keys}
        if attribute is None:
            metrics["aggregate"] = [j.aggregate for j in judgments if j.aggregate is not None]
        metrics["failure_rate"] = [float(outcome.error is not None) for outcome in outcomes]
        metrics["truncation_rate"] = [float(o.judgment is not None and o.judgment.truncated) for o in outcomes]
        return metrics


class AsyncJudgeReward:
    """A `JudgeReward` that GRPO and RLOO run at the same time as their other async rewards, such as a second judge.

    It can be pickled and copied as the reward can. OnlineDPO takes no async rewards.

    Args:
        reward: The reward.
    """

    def __init__(self, reward: JudgeReward) -> None:
        self.reward = reward
        self.__name__ = reward.__name__

    async def __call__(self, **kwargs: Any) -> list[float | None]:
        """As `JudgeReward.__call__`, in a thread of its own: TRL's event loop goes on with other rewards."""
        return await asyncio.to_thread(self.reward, **kwargs)


def judge_reward(**kwargs: Any) -> list[float | None]:
    """`JudgeReward`, set by the environment, for `trl grpo --reward_funcs rmkit.rewards.judge_reward`.

    The options of `JudgeReward` stand in the YAML file that RMKIT_REWARD_CONFIG names, or in variables such as
    RMKIT_REWARD_JUDGE and RMKIT_REWARD_ON_FAILURE, which override the file; options of the engine, or `timeout` and
    `retries` of a server, stand in the mapping `engine_options`.
    """
    return _configured_reward()(**kwargs)


async def async_judge_reward(**kwargs: Any) -> list[float | None]:
    """`judge_reward` that runs at the same time as other async rewards."""
    return await asyncio.to_thread(judge_reward, **kwargs)


@functools.cache
def _configured_reward() -> JudgeReward:
    options = list(inspect.signature(JudgeReward).parameters)
    return JudgeReward(**read_reward_settings(os.environ, options))


def _read_row(prompt: Any, completion: Any, reference: Any, rubric: Any) -> JudgeItem | str:
    """What the judge is shown, or why there is no such thing."""
    try:
        if reference is not None and not isinstance(reference, str):
            raise DataError(f"column reference: expected a text or null, found {str(reference)[:80]!r}")
        return JudgeItem(
            read_conversation(prompt, "prompt"),
            read_response(completion, "completion"),
            reference,
            None if rubric is None else Rubric.from_dict(_without_nulls(rubric), "column rubric"),
        )
    except (DataError, RubricError) as error:
        return f"{type(error).__name__}: {error}"


def _write_group(prompt: Any, reference: Any, rubric: Any) -> str:
    """Equal for the completions that TRL compares: those of one row of the data set."""
    return json.dumps([prompt, reference, rubric], sort_keys=True, default=str)


def _without_nulls(value: Any) -> Any:
    """The value without null fields, which Arrow tables add where rows have different ones."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
