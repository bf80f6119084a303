"""The benchmarks that `evaluate/run_benchmark.py` knows, by name."""

from __future__ import annotations

from rmkit.evaluation.benchmark import Benchmark
from rmkit.evaluation.judge_bench import JUDGE_BENCH
from rmkit.evaluation.outcomes import Contest
from rmkit.evaluation.ppe_correctness import PPE_CORRECTNESS
from rmkit.evaluation.reward_bench import REWARD_BENCH
from rmkit.evaluation.reward_bench_2 import REWARD_BENCH_2
from rmkit.evaluation.rm_bench import RM_BENCH
from rmkit.schema import PreferencePair


def contests_of_any(pair: PreferencePair) -> tuple[Contest, ...]:
    """Each chosen response against all rejected ones: for one of each, the pair; for one and n - 1, the best of n."""
    rejected = tuple(range(len(pair.rejected)))
    return tuple(Contest(pair.id, pair.subset, (index,), rejected) for index in range(len(pair.chosen)))


BENCHMARKS: dict[str, Benchmark] = {
    "reward_bench": REWARD_BENCH,
    "reward_bench_2": REWARD_BENCH_2,
    "rm_bench": RM_BENCH,
    "judge_bench": JUDGE_BENCH,
    "ppe_correctness": PPE_CORRECTNESS,
    "pairs": Benchmark(title="Preference pairs", contests=contests_of_any),
}
"""Published benchmarks, named as their data sets are, and `pairs`: any other file of pairs, or of the best of n, by
its own subsets."""
