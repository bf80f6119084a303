"""Where a reward's judgements come from: a judge of this process, or a server, reached when it is first needed."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rmkit.client import JudgeClient
from rmkit.errors import JudgeError
from rmkit.prompts import PROMPT_VERSION
from rmkit.rewards.judgment_cache import JudgmentCache
from rmkit.rubric import Rubric
from rmkit.schema import JudgeItem, Judgment

if TYPE_CHECKING:
    from rmkit.judge import Judge


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one question to the source.

    Args:
        judgments: A judgement for each item, by its key; failed ones have an `error`.
        asked: Those of them that the judge was asked for now, because they were not known already.
    """

    judgments: Mapping[str, Judgment]
    asked: Mapping[str, Judgment]


class JudgmentSource:
    """Judges items with one judge, each item once.

    It is made in no time. The judge is loaded, or the server asked who it is, by the first call, in the process that
    makes it. Pickling leaves out the loaded judge, connections and the lock; a deep copy shares them.

    Args:
        judge: A judge folder or hub id, the address of a server of `rmkit.server`, or a loaded `Judge`.
        engine: As in `Judge.load`. Of no account for a server and a loaded `Judge`.
        cache: A file of judgements that are not asked for again, or None.
        truncate: As in `Judge.load`.
        rubric: As in `Judge.load`.
        engine_options: As in `Judge.load`; for a server, the options of `JudgeClient`.

    Raises:
        ValueError: For options that are not this judge's, or a cache for a loaded `Judge`.
    """

    def __init__(
        self,
        judge: str | Path | Judge,
        engine: str,
        cache: str | Path | None,
        truncate: bool,
        rubric: Rubric | None,
        engine_options: Mapping[str, Any],
    ) -> None:
        self._cache = None if cache is None else Path(cache)
        self._remembered: dict[str, Judgment] = {}
        self._lock = threading.Lock()
        self._runner: _Runner
        if not isinstance(judge, str | Path):
            if truncate or rubric is not None or engine_options:
                raise ValueError(
                    "truncate, rubric and engine options are for loading a judge, and this one is loaded already; "
                    "give them to Judge.load, or give a folder here"
                )
            if cache is not None:
                raise ValueError("a cache needs to know which judge it holds judgements of; give the judge's folder")
            self._runner = _LocalJudge(None, engine, {}, judge)
        elif str(judge).startswith(("http://", "https://")):
            if truncate or rubric is not None:
                raise ValueError(f"truncate and rubric are the server's to know; start {judge} with them")
            self._runner = _ServedJudge(JudgeClient(str(judge), **engine_options))
        else:
            options = {"truncate": truncate, "rubric": rubric, **engine_options}
            self._runner = _LocalJudge(str(judge), engine, options)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_remembered": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> JudgmentSource:
        return self  # a copy in the same process needs no second engine

    @property
    def is_loaded(self) -> bool:
        """Whether this process has loaded the judge, or reached the server, already."""
        return self._runner.is_loaded

    @property
    def rubric(self) -> Rubric:
        """The rubric of items that bring none of their own."""
        self.load()
        return self._runner.rubric

    @property
    def readout(self) -> str:
        """Which figure of an attribute's distribution counts."""
        self.load()
        return self._runner.readout

    def load(self) -> None:
        """Load the judge, or reach the server, unless that is done.

        Raises:
            JudgeError: If that can't be done.
        """
        with self._lock:
            self._runner.load()

    def judge(self, items: Mapping[str, JudgeItem]) -> Answer:
        """Judge items, but not those of the cache, nor those of the last call if it had all of these.

        Args:
            items: What to judge, by a key that is equal only for equal items.

        Raises:
            JudgeError: If the judge can't be loaded, or after an outage the server is another judge.
            DataError: If the cache can't be used.
        """
        with self._lock:
            self._runner.load()
            known = self._remembered if items.keys() <= self._remembered.keys() else {}
            cache = None if self._cache is None else JudgmentCache(self._cache, self._runner.identity)
            if cache is not None:
                known = {**known, **cache.read(key for key in items if key not in known)}
            missing = {key: item for key, item in items.items() if key not in known}
            try:
                asked = dict(zip(missing, self._runner.score(list(missing.values())), strict=True)) if missing else {}
            except _Outage as error:
                asked = dict.fromkeys(missing, Judgment({}, None, error=f"JudgeError: {error}"))
            judged = {key: judgment for key, judgment in asked.items() if judgment.error is None}
            if cache is not None and judged:
                cache.write(judged)
            self._remembered = {**known, **judged}
            return Answer({**known, **asked}, asked)


class _Outage(Exception):
    """The judge gave nothing this time."""


class _Runner(Protocol):
    """What runs a judge."""

    @property
    def is_loaded(self) -> bool: ...
    @property
    def rubric(self) -> Rubric: ...
    @property
    def readout(self) -> str: ...
    @property
    def identity(self) -> str: ...
    def load(self) -> None: ...
    def score(self, items: Sequence[JudgeItem]) -> list[Judgment]: ...


_IDENTITY = ("judge_sha256", "mode", "readout", "max_length", "rubric")
"""What of a server's health tells its judge from others."""


class _LocalJudge:
    """A judge of this process, or one whose model a plain vLLM server runs for it."""

    def __init__(self, path: str | None, engine: str, options: dict[str, Any], judge: Judge | None = None) -> None:
        self._path = path
        self._engine = engine
        self._options = options
        self._judge = judge

    def __getstate__(self) -> dict[str, Any]:
        if self._path is None:
            raise TypeError(
                "a JudgeReward that was made from a loaded Judge can't be pickled, for an engine can't move to "
                "another process; make it from the judge's folder"
            )
        return {**self.__dict__, "_judge": None}

    @property
    def is_loaded(self) -> bool:
        return self._judge is not None

    @property
    def rubric(self) -> Rubric:
        return self._loaded.rubric

    @property
    def readout(self) -> str:
        return self._loaded.readout

    @property
    def identity(self) -> str:
        from rmkit.scoring.options import identify_judge  # noqa: PLC0415 (only where there is a cache)

        assert self._path is not None
        options = {key: self._options.get(key) for key in ("truncate", "mode", "dtype")}
        rubric = self._loaded.rubric.to_dict()
        return json.dumps([identify_judge(self._path)[1], PROMPT_VERSION, self._engine, options, rubric])

    @property
    def _loaded(self) -> Judge:
        assert self._judge is not None
        return self._judge

    def load(self) -> None:
        if self._judge is None:
            from rmkit.judge import Judge  # noqa: PLC0415 (heavy, and a server does without)

            assert self._path is not None
            with _random_state_kept():
                self._judge = Judge.load(self._path, self._engine, **self._options)

    def score(self, items: Sequence[JudgeItem]) -> list[Judgment]:
        try:
            return self._loaded.score(
                [item.conversation for item in items],
                [item.response for item in items],
                [item.reference for item in items],
                [item.rubric for item in items],
            )
        except JudgeError as error:  # of the engine `http`; one that breaks down in this process stops the run
            raise _Outage(str(error)) from error


class _ServedJudge:
    """A judge that a server of `rmkit.server` runs."""

    def __init__(self, client: JudgeClient) -> None:
        self._client = client
        self._identity: dict[str, Any] | None = None
        self._rubric: Rubric | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_identity": None, "_rubric": None}

    @property
    def is_loaded(self) -> bool:
        return self._identity is not None

    @property
    def rubric(self) -> Rubric:
        assert self._rubric is not None
        return self._rubric

    @property
    def readout(self) -> str:
        return str(self._known["readout"])

    @property
    def identity(self) -> str:
        return json.dumps(self._known, sort_keys=True)

    @property
    def _known(self) -> dict[str, Any]:
        assert self._identity is not None
        return self._identity

    def load(self) -> None:
        if self._identity is None:
            found = self._ask_identity()
            self._rubric = Rubric.from_dict(found["rubric"], f"{self._client.url}/health")
            self._identity = found

    def score(self, items: Sequence[JudgeItem]) -> list[Judgment]:
        try:
            judgments = self._client.score(items)
            found = self._ask_identity()  # afterwards: whoever answered meanwhile is there, or was there last
        except JudgeError as error:
            raise _Outage(str(error)) from error
        different = [key for key in _IDENTITY if found[key] != self._known[key]]
        if different:
            raise JudgeError(
                f"{self._client.url} came back as another judge, with another {', '.join(different)}; its rewards "
                "can't be compared with those before, so start the first one again"
            )
        return judgments

    def _ask_identity(self) -> dict[str, Any]:
        health = self._client.health()
        missing = [key for key in _IDENTITY if key not in health]
        if missing:
            raise JudgeError(f"{self._client.url}/health does not say {missing[0]}; run the server with this rmkit")
        return {key: health[key] for key in _IDENTITY}


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Give the process its random numbers back; vLLM seeds them all, which would make all ranks sample alike."""
    import torch  # noqa: PLC0415 (heavy, and a server does without)

    states = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
