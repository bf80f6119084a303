"""vLLM's sampler for readings on a CPU, which want log-probabilities of some tokens and no token."""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.outputs import LogprobsTensors, SamplerOutput
from vllm.v1.sample.sampler import Sampler

_ROWS = 8  # at a time: what is as wide as the vocabulary stays small enough to be freed and taken anew for nothing


class ReadingSampler(Sampler):
    """Gives the log-probabilities that were asked for, and nothing else that costs a pass over the vocabulary.

    vLLM's own also looks for the most probable token and its rank, which on a CPU takes a copy of all logits in 64
    bits. A batch in which some request asks for anything but log-probabilities of given tokens is left to vLLM's own.
    """

    def forward(self, logits: torch.Tensor, sampling_metadata: Any, *options: Any, **keywords: Any) -> SamplerOutput:
        """Log-probabilities, over the whole vocabulary, of the tokens that each request asks about.

        Args:
            logits: Shape (requests, vocabulary).
            sampling_metadata: vLLM's record of what the requests ask for.
            *options: As vLLM hands them to its own.
            **keywords: As vLLM hands them to its own.

        Returns:
            For each request, as its sampled token, the first that it asks about: whoever reads drops it. Float32
            log-probabilities of shape (requests, 1 + most tokens asked about): that token's, those of all tokens
            asked about, and padding.
        """
        asked = sampling_metadata.logprob_token_ids or {}
        if len(asked) < len(logits) or sampling_metadata.max_num_logprobs is not None:
            return super().forward(logits, sampling_metadata, *options, **keywords)
        token_ids = torch.zeros(len(logits), 1 + max(map(len, asked.values())), dtype=torch.int64)
        for row, tokens in asked.items():
            token_ids[row, : 1 + len(tokens)] = torch.tensor([tokens[0], *tokens])
        parts = zip(logits.split(_ROWS), token_ids.split(_ROWS), strict=True)
        logprobs = torch.cat([part.log_softmax(-1, dtype=torch.float32).gather(-1, ids) for part, ids in parts])
        token_ids, no_ranks = token_ids.to(torch.int32), torch.zeros(len(logits), dtype=torch.int64)
        return SamplerOutput(token_ids[:, :1], LogprobsTensors(token_ids, logprobs, no_ranks))


def use_reading_sampler(worker: Any) -> None:
    """Put a `ReadingSampler` with the same options in the place of a vLLM worker's own sampler.

    A sampler of another kind, such as that of vLLM's second model runner, stays.
    """
    own = worker.model_runner.sampler
    if type(own) is not Sampler:
        return
    worker.model_runner.sampler = ReadingSampler(own.logprobs_mode, own.use_fp64_gumbel)
