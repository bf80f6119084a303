"""Options of cleaning, what stands of them in a manifest, and the checks that they ask for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rmkit.cleaning.benchmarks import Benchmark, read_benchmark
from rmkit.cleaning.decontamination import PromptIndex
from rmkit.cleaning.drop import Check
from rmkit.cleaning.filters import LanguageFilter, LengthLimit, VisibleText
from rmkit.errors import DataError
from rmkit.manifest import sha256_file

DUPLICATES = ("none", "exact", "near")
CONTAMINATION = ("drop", "report")


@dataclass(frozen=True)
class CleaningOptions:
    """Which rows are left out. Nothing is, unless it is asked for.

    Args:
        duplicates: One of `DUPLICATES`: which of them go, the first of several stays.
        threshold: Similarity from which rows are near-duplicates.
        drop_blank: Whether rows go whose last user turn or response shows nothing on a screen.
        languages: Rows in other languages go; empty for any language.
        max_tokens: Rows that are longer go; None for any length.
        tokenizer: Counts those tokens: a folder, a file or a hub id.
        truncate: Whether longer rows lose their oldest turns instead, as far as that helps.
        decontaminate: Benchmarks whose prompts are looked for; see `read_benchmark`.
        contamination: One of `CONTAMINATION`: whether rows with such a prompt go, or are only written down.
        balance: Attributes of which common scores are kept with a probability, in training rows.

    Raises:
        DataError: If two of them don't go together, or one is unknown.
    """

    duplicates: str = "none"
    threshold: float = 0.8
    drop_blank: bool = False
    languages: tuple[str, ...] = ()
    max_tokens: int | None = None
    tokenizer: str | None = None
    truncate: bool = False
    decontaminate: tuple[str, ...] = ()
    contamination: str = "drop"
    balance: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, known in (("duplicates", DUPLICATES), ("contamination", CONTAMINATION)):
            if getattr(self, name) not in known:
                raise DataError(f"{name} {getattr(self, name)!r} is unknown; choose {', '.join(known)}")
        if (self.max_tokens is None) != (self.tokenizer is None):
            raise DataError(
                "a limit in tokens needs both the limit and a tokenizer that counts them: --max-tokens and --tokenizer"
            )
        if self.truncate and self.max_tokens is None:
            raise DataError("rows are truncated to a limit in tokens; give one: --max-tokens and --tokenizer")

    @cached_property
    def benchmarks(self) -> tuple[Benchmark, ...]:
        """The benchmarks, read once.

        Raises:
            DataError: If one can't be read.
        """
        return tuple(map(read_benchmark, self.decontaminate))

    def checks(self) -> tuple[Check, ...]:
        """What each row is put through, in this order.

        Raises:
            DataError: If a language, a tokenizer or a benchmark can't be used.
        """
        checks: list[Check] = []
        if self.drop_blank:
            checks.append(VisibleText())
        if self.languages:
            checks.append(LanguageFilter(self.languages))
        if self.decontaminate and self.contamination == "drop":
            checks.append(PromptIndex(self.benchmarks))
        if self.max_tokens is not None and self.tokenizer is not None:
            checks.append(LengthLimit(self.tokenizer, self.max_tokens, self.truncate))
        return tuple(checks)

    def reports(self) -> tuple[Check, ...]:
        """Checks whose drops are only written down.

        Raises:
            DataError: If a benchmark can't be read.
        """
        reported = self.decontaminate and self.contamination == "report"
        return (PromptIndex(self.benchmarks),) if reported else ()

    def to_dict(self) -> dict[str, Any]:
        """The options as they stand in a manifest: what is used, and not where it lies."""
        return {
            "duplicates": self.duplicates,
            "threshold": self.threshold if self.duplicates == "near" else None,
            "drop_blank": self.drop_blank,
            "languages": list(self.languages),
            "max_tokens": self.max_tokens,
            "tokenizer": _describe_tokenizer(self.tokenizer),
            "truncate": self.truncate,
            "decontaminate": [_describe_benchmark(benchmark) for benchmark in self.benchmarks],
            "contamination": self.contamination if self.decontaminate else None,
            "balance": list(self.balance),
        }


def _describe_tokenizer(given: str | None) -> dict[str, str] | None:
    if given is None:
        return None
    path = Path(given)
    file = path / "tokenizer.json" if path.is_dir() else path
    return {"name": path.name, "sha256": sha256_file(file)} if file.is_file() else {"name": given}


def _describe_benchmark(benchmark: Benchmark) -> dict[str, Any]:
    prompts: Sequence[Any] = [
        [prompt_id, [message.to_dict() for message in conversation]] for prompt_id, conversation in benchmark.prompts
    ]
    digest = hashlib.sha256(json.dumps(prompts).encode("ascii")).hexdigest()
    return {"name": benchmark.name, "prompts": len(prompts), "unread": benchmark.unread, "sha256": digest}
