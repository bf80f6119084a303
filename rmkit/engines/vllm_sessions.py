"""Readings as sessions of vLLM: what is read and the text after it are appended to what is computed already.

A session is vLLM's streaming input: a request that samples one token, drops it, and goes on with the tokens that
come next. No token of a response is computed twice, in any number of attributes. Its parts are those of the very
version of vLLM that rmkit pins, and untyped here.
"""

from __future__ import annotations

import copy
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rmkit.engines import Query, Reading
from rmkit.errors import JudgeError

_SHARE = 0.8  # of the blocks of keys and values; the rest is for the requests beside the sessions
_LINE_BLOCKS = 2  # with which a session is counted beyond its prompt's, for its score sequence
_MOST_IDLE_STEPS = 1000  # in a row without an answer, after which vLLM is taken to be stuck


@dataclass(slots=True)
class _Session:
    """A reading, how many of its tokens vLLM holds, and the answers that it waits for."""

    id: str
    reading: Reading
    blocks: int
    held: int = 0
    queries: list[Query] = field(default_factory=list)
    answers: list[dict[int, float]] = field(default_factory=list)
    waiting: int = 0


class Sessions:
    """Follows readings in an engine of vLLM that runs in this process.

    The first query of a reading goes on in its session. Further ones, and tokens beyond those that one request can
    ask about, are requests beside it, which the prefix cache makes cheap.

    Args:
        vllm: vLLM's `LLMEngine`.
        make_request: Makes a request, to be copied, for the log-probabilities of some tokens; the second argument
            says whether it is a session's.
        chunk: Most tokens that one request can ask about.
    """

    def __init__(self, vllm: Any, make_request: Callable[[tuple[int, ...], bool], Any], chunk: int) -> None:
        self._core = vllm.engine_core
        self._make_request = make_request
        self._chunk = chunk
        self._numbers = itertools.count()
        self._templates: dict[tuple[tuple[int, ...], bool], Any] = {}
        pool = self._core.engine_core.scheduler.kv_cache_manager.block_pool
        self._block_size = int(vllm.vllm_config.cache_config.block_size)
        self._room = int(_SHARE * pool.num_gpu_blocks)
        self._open: set[str] = set()
        self._in_flight: dict[str, tuple[_Session, int, tuple[int, ...]]] = {}

    def follow(self, readings: Sequence[Reading], arrivals: Callable[[], Sequence[Reading]] = tuple) -> list[Reading]:
        """Answer readings until none of them asks any more, as many at a time as there is memory for.

        Args:
            readings: What to begin with.
            arrivals: Gives further readings, before each step of vLLM; not asked once one is too long.

        Returns:
            Those that are too long to leave any memory for requests beside them; they are not begun.
        """
        new, too_long = deque(readings), list[Reading]()
        free, idle = self._room, 0
        try:
            while True:
                if not too_long:
                    new.extend(arrivals())
                while new:
                    queries = new[0].ask(ahead=False)
                    blocks = -(-len(queries[0].prefix) // self._block_size) + _LINE_BLOCKS if queries else 0
                    if free < blocks <= self._room:
                        break
                    reading = new.popleft()
                    if blocks > self._room:
                        too_long.append(reading)
                    elif queries:
                        free -= blocks
                        self._send(_Session(f"session-{next(self._numbers)}", reading, blocks), queries)
                if not self._in_flight:
                    break
                outputs = self._core.get_output().outputs
                idle = 0 if outputs else idle + 1
                if idle > _MOST_IDLE_STEPS:
                    raise JudgeError(
                        f"vLLM gave no answer in {idle} steps, so it is stuck; give the same command again"
                    )
                ended = [session for output in outputs if (session := self._take(output)) is not None]
                ids = [session.id for session in ended]
                self._core.abort_requests(ids)
                self._open.difference_update(ids)
                free += sum(session.blocks for session in ended)
        except BaseException:
            self._core.abort_requests([*self._open | self._in_flight.keys()])
            self._open.clear()
            self._in_flight.clear()
            raise
        return too_long

    def _send(self, session: _Session, queries: list[Query]) -> None:
        self._open.add(session.id)
        session.queries = queries
        session.answers = [{} for _ in queries]
        for index, query in enumerate(queries):
            for first in range(0, len(query.token_ids), self._chunk):
                token_ids = query.token_ids[first : first + self._chunk]
                in_session = index == first == 0
                request_id = session.id if in_session else f"beside-{next(self._numbers)}"
                prompt = query.prefix[session.held :] if in_session else query.prefix
                self._add_request(request_id, prompt, token_ids, in_session)
                self._in_flight[request_id] = session, index, token_ids
                session.waiting += 1
        session.held = len(queries[0].prefix)

    def _take(self, output: Any) -> _Session | None:
        """Give an answer to its session; returns the session if that has ended."""
        session, index, asked = self._in_flight.pop(output.request_id)
        # A row is the sampled token, those that were asked about, and padding up to the longest list of the batch.
        row, end = output.new_logprobs, 1 + len(asked)
        found = zip(row.logprob_token_ids[0, 1:end].tolist(), row.logprobs[0, 1:end].tolist(), strict=True)
        session.answers[index].update(found)
        session.waiting -= 1
        if session.waiting:
            return None
        session.reading.take([collect(*pair) for pair in zip(session.answers, session.queries, strict=True)])
        if queries := session.reading.ask(ahead=False):
            self._send(session, queries)
            return None
        return session

    def _add_request(
        self, request_id: str, prompt: Sequence[int], token_ids: tuple[int, ...], in_session: bool
    ) -> None:
        template = self._templates.get((token_ids, in_session))
        if template is None:
            template = self._templates[token_ids, in_session] = self._make_request(token_ids, in_session)
        request = copy.copy(template)
        request.request_id = request.external_req_id = request_id
        request.prompt_token_ids = list(prompt)
        self._core.add_request(request)


def collect(found: dict[int, float], query: Query) -> np.ndarray:
    """The answer to a query from the log-probabilities that vLLM gave.

    Raises:
        JudgeError: If one is missing.
    """
    missing = [token for token in query.token_ids if token not in found]
    if missing:
        raise JudgeError(f"vLLM gave no log-probability for the score tokens {missing[:8]}")
    return np.array([found[token] for token in query.token_ids], dtype=np.float64)
