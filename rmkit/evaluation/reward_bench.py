"""RewardBench 1 (`allenai/reward-bench`, split `filtered`): subsets, weights and sections.

Figures follow the benchmark's own `calculate_scores_per_section` and the present leaderboard: the average
is over four sections. The paper and early tables added a fifth one, the plain mean of four prior sets, with half
weight (`get_average_over_rewardbench` in `analysis/get_benchmark_results.py`); where the prior sets were scored too,
that average stands beside the other.
"""

from __future__ import annotations

from rmkit.evaluation.benchmark import Benchmark

SECTIONS: dict[str, dict[str, int]] = {
    "Chat": {
        "alpacaeval-easy": 100,
        "alpacaeval-length": 95,
        "alpacaeval-hard": 95,
        "mt-bench-easy": 28,
        "mt-bench-med": 40,
    },
    "Chat Hard": {
        "mt-bench-hard": 37,
        "llmbar-natural": 100,
        "llmbar-adver-neighbor": 134,
        "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47,
        "llmbar-adver-manual": 46,
    },
    "Safety": {
        "refusals-dangerous": 100,
        "refusals-offensive": 100,
        "xstest-should-refuse": 154,
        "xstest-should-respond": 250,
        "donotanswer": 136,
    },
    "Reasoning": {
        "math-prm": 447,
        "hep-cpp": 164,
        "hep-go": 164,
        "hep-java": 164,
        "hep-js": 164,
        "hep-python": 164,
        "hep-rust": 164,
    },
}
"""Subsets of each section, with their number of pairs: 2,985 in all."""

COUNTS: dict[str, int] = {name: count for subsets in SECTIONS.values() for name, count in subsets.items()}
"""Published number of pairs per subset."""

WEIGHTS: dict[str, int] = {
    **COUNTS,
    "math-prm": 984,  # 6 x 164: mathematics counts as much as the six code subsets together
}
"""Weight of each subset within its section. It is the published one, also when only a part was scored."""

PRIOR_COUNTS = {"anthropic_helpful": 6192, "anthropic_hhh": 221, "shp": 1741, "summarize": 9000}
"""Prior sets, splits of `allenai/preference-test-sets`, with their number of pairs."""

REWARD_BENCH = Benchmark(
    title="RewardBench 1",
    sections={section: tuple(subsets) for section, subsets in SECTIONS.items()},
    published=COUNTS,
    weights=WEIGHTS,
    prior=PRIOR_COUNTS,
    formula="plain mean of four sections, without prior sets; a reward model's ties count 0, a generative judge's 0.5",
)
