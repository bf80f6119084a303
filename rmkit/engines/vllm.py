"""The throughput engine: vLLM in this process, on GPU, or its CPU build where there is none."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch

from rmkit.engines import Query
from rmkit.errors import JudgeError

if not torch.cuda.is_available():
    # In process and without compilation: on a CPU both would cost more time than they give.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

from vllm import LLM, SamplingParams  # noqa: E402  (vLLM reads the environment above when it is imported)
from vllm.sampling_params import MAX_LOGPROB_TOKEN_IDS  # noqa: E402

_CPU_CACHE_BYTES = 2**30  # vLLM's own CPU default is most of the machine's memory


class VllmEngine:
    """Runs a judge's model in vLLM.

    Each query is a request for one token, with the exact log-probabilities of the tokens that are asked about,
    normalised over the vocabulary before any masking. The prefix cache makes the second attribute of a
    response, and the second response to a conversation, cheap.

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
                params.append(
                    SamplingParams(
                        max_tokens=1,
                        temperature=0.0,
                        detokenize=False,
                        logprob_token_ids=list(query.token_ids[first : first + MAX_LOGPROB_TOKEN_IDS]),
                    )
                )
        outputs = iter(self._llm.generate(prompts, params, use_tqdm=False))  # type: ignore[arg-type]
        answers = []
        for query, count in zip(queries, parts, strict=True):
            found: dict[int, float] = {}
            for _ in range(count):
                for token, item in (next(outputs).outputs[0].logprobs or [{}])[0].items():
                    found[token] = item.logprob
            missing = [token for token in query.token_ids if token not in found]
            if missing:
                raise JudgeError(f"vLLM gave no log-probability for the score tokens {missing[:8]}")
            answers.append(np.array([found[token] for token in query.token_ids], dtype=np.float64))
        return answers
