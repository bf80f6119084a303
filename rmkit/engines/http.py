"""The engine for a model that runs elsewhere: `/v1/completions` of a vLLM server, or of one that answers alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
from transformers import AutoConfig

from rmkit.engines import Query
from rmkit.errors import JudgeError
from rmkit.transport import Transport, read_json, read_url

TOKEN_IDS_PER_REQUEST = 128
"""Most tokens that vLLM gives log-probabilities of by id in one request; larger scales take several."""

_NO_PROBABILITY = -9999.0  # what servers write for minus infinity, which JSON lacks
_MOST_PROBABILITY = 1.01  # of distinct tokens together; with room for rounding
_ID_PREFIX = "token_id:"


class HttpEngine:
    """Asks a server for the log-probabilities of the tokens that are asked about.

    A query is a completion of one token after token ids, with `logprob_token_ids`. The server must answer with the
    natural log-probability of every one of them, by id, of the model's own distribution over its whole vocabulary;
    else there is a `JudgeError`: nothing is ever normalised over what came back.

    Args:
        path: Folder or hub id of the judge that the server runs. Only its config is read, not its weights.
        url: Address of the server, with or without `/v1`.
        model: Name by which the server knows the judge; by default the only model that it serves.
        max_length: Most tokens of a sequence; never more than the server takes.
        concurrency: Requests that wait for the server at a time.
        timeout: Seconds to wait for an answer.
        retries: How often a request is repeated that met no server or one that is overloaded, with growing waits.

    Raises:
        JudgeError: If there is no such server, it does not serve the model, or the model has no config.
    """

    name = "http"
    merges_prefixes = False

    def __init__(
        self,
        path: str,
        url: str,
        model: str | None = None,
        max_length: int | None = None,
        concurrency: int = 32,
        timeout: float = 300.0,
        retries: int = 5,
    ) -> None:
        address = read_url(url)
        self.url = address if address.endswith("/v1") else f"{address}/v1"
        self._transport = Transport(self.url, timeout, retries, concurrency)
        try:
            config = AutoConfig.from_pretrained(path, trust_remote_code=False).get_text_config()
        except (OSError, ValueError) as error:
            raise JudgeError(f"{path}: its config can't be loaded: {error}") from error
        self.vocab_size = int(config.vocab_size)
        self.model, served_length = self._find_model(model)
        limits = [max_length, served_length, getattr(config, "max_position_embeddings", None)]
        self.max_length = min((int(limit) for limit in limits if limit), default=2**31)

    def _find_model(self, name: str | None) -> tuple[str, int | None]:
        answer = read_json(f"{self.url}/models", self._transport.send("GET", "/models"))
        try:
            served = {str(card["id"]): card.get("max_model_len") for card in answer["data"]}
        except (KeyError, TypeError, AttributeError) as error:
            raise JudgeError(f"{self.url}: /models gave no list of models; is it an OpenAI-like server?") from error
        if name is None and len(served) != 1:
            raise JudgeError(f"{self.url} serves {sorted(served)}; say which of them is the judge (--served-model)")
        name = name or next(iter(served))
        if name not in served:
            raise JudgeError(f"{self.url} does not serve {name!r} but {sorted(served)}")
        return name, served[name]

    def logprobs(self, queries: Sequence[Query]) -> list[np.ndarray]:
        """See `Engine.logprobs`."""
        asked = [
            (query.prefix, query.token_ids[first : first + TOKEN_IDS_PER_REQUEST])
            for query in queries
            for first in range(0, len(query.token_ids), TOKEN_IDS_PER_REQUEST)
        ]
        bodies = [self._ask(*item) for item in asked]
        parts = iter(
            self._transport.post_all(
                "/completions", bodies, lambda index, response: self._read(asked[index][1], response)
            )
        )
        return [
            np.concatenate([next(parts) for _ in range(0, len(query.token_ids), TOKEN_IDS_PER_REQUEST)])
            for query in queries
        ]

    def _ask(self, prefix: tuple[int, ...], token_ids: tuple[int, ...]) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompt": list(prefix),
            "max_tokens": 1,
            "temperature": 0.0,
            "logprobs": len(token_ids),
            "logprob_token_ids": list(token_ids),
            "return_tokens_as_token_ids": True,
        }

    def _read(self, token_ids: tuple[int, ...], response: httpx.Response) -> np.ndarray:
        answer = read_json(f"{self.url}/completions", response)
        try:
            found = dict(answer["choices"][0]["logprobs"]["top_logprobs"][0])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise JudgeError(f"{self.url} gave no log-probabilities; rmkit needs a server that does") from error
        if not all(str(token).startswith(_ID_PREFIX) for token in found):
            raise JudgeError(
                f"{self.url} names tokens by text ({list(found)[:4]}), which can stand for several tokens; rmkit "
                "needs a server that knows return_tokens_as_token_ids, such as vLLM"
            )
        missing = [token for token in token_ids if f"{_ID_PREFIX}{token}" not in found]
        if missing:
            raise JudgeError(
                f"{self.url} gave no log-probability for {len(missing)} of {len(token_ids)} score tokens, such as "
                f"{missing[0]}; rmkit needs a server that knows logprob_token_ids, such as vLLM 0.22 or newer"
            )
        logprobs = np.array([_read_logprob(found[f"{_ID_PREFIX}{token}"]) for token in token_ids])
        if np.exp(logprobs).sum() > _MOST_PROBABILITY:
            raise JudgeError(f"{self.url} gave numbers that are no log-probabilities: {logprobs[:8]}")
        return logprobs


def _read_logprob(value: Any) -> float:
    """A log-probability; NaN for null, which is what NaN becomes in JSON."""
    number = float("nan") if value is None else float(value)
    return -math.inf if number <= _NO_PROBABILITY else number
