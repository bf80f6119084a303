"""The throughput engine: vLLM in this process, on GPU, or its CPU build where there is none."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from rmkit.engines import Query, Reading, follow_in_rounds
from rmkit.engines.vllm_sessions import Sessions, collect
from rmkit.errors import JudgeError

if not torch.cuda.is_available():
    # In process and without compilation: on a CPU both would cost more time than they give.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

from vllm import LLM, SamplingParams  # noqa: E402  (vLLM reads the environment above when it is imported)
from vllm.sampling_params import MAX_LOGPROB_TOKEN_IDS  # noqa: E402
from vllm.v1.engine.core_client import InprocClient  # noqa: E402

from rmkit.engines.vllm_sampler import use_reading_sampler  # noqa: E402

_CPU_CACHE_BYTES = 2**30  # vLLM's own CPU default is most of the machine's memory
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


class VllmEngine:
    """Runs a judge's model in vLLM.

    Each query is a request for one token, with the exact log-probabilities of the tokens that are asked about,
    normalised over the vocabulary before any masking. The prefix cache makes the second response to a conversation
    cheap. Where vLLM runs in this process, as on a CPU, a response is read in one session, which computes no token
    twice; elsewhere each attribute is a request, and the prefix cache holds what came before, up to its last block.

    Args:
        path: Folder or hub id of the model.
        dtype: As in vLLM; `auto` means the checkpoint's own on a GPU and float32 on a CPU.
        max_length: Most tokens of a sequence; by default what the model's config says.
        tensor_parallel_size: GPUs that share one copy of the model.
        gpu_memory_utilization: Share of each GPU's memory, in (0, 1].
        seed: vLLM's seed; scores don't depend on it.

    Raises:
        JudgeError: If vLLM can't load or run the model.
    """

    name = "vllm"
    merges_prefixes = False

    def __init__(
        self,
        path: str,
        dtype: str = "auto",
        max_length: int | None = None,
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        seed: int = 0,
    ) -> None:
        on_cpu = not torch.cuda.is_available()
        if on_cpu:
            _keep_freed_memory()
        # Blocks of 128 tokens, the CPU default, would leave little of a short prompt to the prefix cache.
        cpu_options = {"enforce_eager": True, "kv_cache_memory_bytes": _CPU_CACHE_BYTES, "block_size": 32}
        try:
            self._llm = LLM(
                model=path,
                dtype="float32" if on_cpu and dtype == "auto" else dtype,  # type: ignore[arg-type]
                max_model_len=max_length,
                tensor_parallel_size=tensor_parallel_size,
                gpu_memory_utilization=gpu_memory_utilization,
                enable_prefix_caching=True,
                max_logprobs=-1,
                seed=seed,
                **(cpu_options if on_cpu else {}),  # type: ignore[arg-type]
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise JudgeError(f"vLLM can't load the model {path}: {error}") from error
        engine: Any = self._llm.llm_engine
        in_process = isinstance(engine.engine_core, InprocClient)
        if on_cpu and in_process:
            self._llm.collective_rpc(use_reading_sampler)
        self._sessions = Sessions(engine, self._make_request, MAX_LOGPROB_TOKEN_IDS) if in_process else None
        config = self._llm.llm_engine.model_config
        self.max_length = int(config.max_model_len)
        self.vocab_size = int(config.get_vocab_size())

    def logprobs(self, queries: Sequence[Query]) -> list[np.ndarray]:
        """See `Engine.logprobs`."""
        prompts, params = [], []
        parts: list[int] = []
        for query in queries:
            chunks = range(0, len(query.token_ids), MAX_LOGPROB_TOKEN_IDS)
            parts.append(len(chunks))
            for first in chunks:
                prompts.append({"prompt_token_ids": list(query.prefix)})
                params.append(_ask_for(query.token_ids[first : first + MAX_LOGPROB_TOKEN_IDS]))
        outputs = iter(self._llm.generate(prompts, params, use_tqdm=False))  # type: ignore[arg-type]
        answers = []
        for query, count in zip(queries, parts, strict=True):
            found: dict[int, float] = {}
            for _ in range(count):
                for token, item in (next(outputs).outputs[0].logprobs or [{}])[0].items():
                    found[token] = item.logprob
            answers.append(collect(found, query))
        return answers

    def follow(self, readings: Sequence[Reading]) -> None:
        """See `FollowingEngine.follow`."""
        left = self._sessions.follow(readings) if self._sessions else readings
        follow_in_rounds(self, left)

    def follow_arriving(self, arrivals: Callable[[], Sequence[Reading]]) -> None:
        """See `ContinuousEngine.follow_arriving`; sessions take up what arrives at any step."""
        left = self._sessions.follow((), arrivals) if self._sessions else arrivals()
        follow_in_rounds(self, left)

    def _make_request(self, token_ids: tuple[int, ...], in_session: bool) -> Any:
        engine: Any = self._llm.llm_engine
        params = _ask_for(token_ids)
        prompt, tasks = {"prompt_token_ids": [0]}, engine.get_supported_tasks()
        return engine.input_processor.process_inputs("", prompt, params, supported_tasks=tasks, resumable=in_session)


def _ask_for(token_ids: Sequence[int]) -> SamplingParams:
    return SamplingParams(max_tokens=1, temperature=0.0, detokenize=False, logprob_token_ids=list(token_ids))


def _keep_freed_memory() -> None:
    """Let this process's C library keep memory that it freed, up to 1 GiB, for what comes next.

    By default glibc gives large pieces back to the system, and takes them anew, page by page, in each layer of each
    step of vLLM: a fifth of the time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**25)  # the most there can be
        mallopt(_M_TRIM_THRESHOLD, 2**30)
