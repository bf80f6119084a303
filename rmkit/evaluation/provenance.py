"""Where figures come from: the scoring, the rubric, and the versions that computed them."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import rmkit
from rmkit.rubric import Rubric

_FIELDS = (
    "judge", "judge_sha256", "engine", "dtype", "device", "prompt_version", "rmkit_version", "input", "input_sha256",
    "limit", "records", "errors", "truncated",
)  # fmt: skip


def describe_provenance(manifest: Mapping[str, Any], scores_sha256: str, rubric: Rubric) -> dict[str, Any]:
    """The part of `results.json` that says where its figures come from.

    Args:
        manifest: The scoring folder's manifest.
        scores_sha256: SHA-256 of `scores.jsonl`.
        rubric: The judge's rubric.
    """
    return {
        "scoring": {key: manifest.get(key) for key in _FIELDS},
        "scores_sha256": scores_sha256,
        "rubric": rubric.to_dict(),
        "versions": {
            "rmkit": rmkit.__version__,
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in ("numpy", "scipy", "statsmodels")},
        },
    }
