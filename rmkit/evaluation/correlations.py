"""How far the attributes of a rubric say the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rmkit.evaluation.agreement import rank_correlation


def correlate_attributes(keys: Sequence[str], columns: np.ndarray) -> dict[str, Any]:
    """Spearman's rank correlation of each two attributes, over the responses that have both.

    Args:
        keys: The attributes' keys.
        columns: Their scores, of shape (N, attributes); NaN where there is none.

    Returns:
        `keys`, and per row and column of the matrix `spearman` and the number of responses `n`. A correlation of
        fewer than three responses, or with a constant, is None.
    """
    size = len(keys)
    spearman: list[list[float | None]] = [[None] * size for _ in range(size)]
    counts = [[0] * size for _ in range(size)]
    for i in range(size):
        for j in range(i + 1):
            both = ~np.isnan(columns[:, [i, j]]).any(axis=1)
            n = int(both.sum())
            found = rank_correlation(columns[both, i].tolist(), columns[both, j].tolist()) if n > 2 else None
            spearman[i][j] = spearman[j][i] = found
            counts[i][j] = counts[j][i] = n
    return {"keys": list(keys), "spearman": spearman, "n": counts}
