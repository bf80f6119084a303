"""How far the attributes of a rubric say the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata


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
            found = _spearman(columns[both, i], columns[both, j])
            spearman[i][j] = spearman[j][i] = found
            counts[i][j] = counts[j][i] = int(both.sum())
    return {"keys": list(keys), "spearman": spearman, "n": counts}


def _spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
