"""What makes a benchmark: which responses it compares, and how its official figures are means of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rmkit.errors import DataError
from rmkit.evaluation.metrics import weighted_mean
from rmkit.evaluation.outcomes import Contest, Outcome, contest_of_two
from rmkit.schema import PreferencePair

PRIOR_SETS = "Prior Sets"
"""The section of prior sets."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark's official rules.

    Args:
        title: Its name, for people.
        contests: The comparisons that a record stands for.
        sections: Subsets of each section. Without any, every subset is welcome and there is no average.
        published: Published number of records, per subset or per section.
        weights: Weight of a subset within its section; by default its number of comparisons at hand.
        averaged: Whether there is an official average over the sections, each counting the same.
        prior: Published number of records of subsets that make a further section, the prior sets, which is no part of
            the average: there is a second one with it.
        rules: Subsets whose figure is no share of won comparisons: their outcomes and a read-out give the rows
            that `rmkit.evaluation.metrics.credit_rows` gives for the others.
        slices: Averages over some of the comparisons, such as the hard ones.
        formula: The official figure in words.
    """

    title: str
    contests: Callable[[PreferencePair], Sequence[Contest]] = contest_of_two
    sections: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    published: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    averaged: bool = True
    prior: Mapping[str, int] = field(default_factory=dict)
    rules: Mapping[str, Callable[[Sequence[Outcome], str], np.ndarray]] = field(default_factory=dict)
    slices: Mapping[str, Callable[[Outcome], bool]] = field(default_factory=dict)
    formula: str = ""

    @property
    def subsets(self) -> tuple[str, ...]:
        """All subsets, in the order of the sections, without prior sets."""
        return tuple(name for names in self.sections.values() for name in names)

    def members(self, section: str) -> tuple[str, ...]:
        """The subsets of a section."""
        return tuple(self.prior) if section == PRIOR_SETS else self.sections[section]

    def check_subsets(self, records: Mapping[str, int]) -> list[str]:
        """Notes on how the subsets at hand differ from the published ones; none for the whole benchmark.

        Args:
            records: Number of records per subset.

        Raises:
            DataError: For a subset that the benchmark does not have.
        """
        if not self.sections:
            return []
        known = self.subsets
        unknown = [name for name in records if name not in known and name not in self.prior]
        if unknown:
            raise DataError(
                f"subset {unknown[0]!r} is not one of {self.title} ({', '.join(known)}); "
                "for pairs of your own use --benchmark pairs"
            )
        notes = []
        absent = [name for name in known if name not in records]
        if absent:
            notes.append(
                f"Partial: {len(known) - len(absent)} of {len(known)} subsets; absent: {', '.join(absent)}. "
                "A section is the weighted mean of those that are there."
            )
        lacking = [name for name in self.prior if name not in records]
        if lacking and len(lacking) < len(self.prior):
            notes.append(f"No figure with prior sets: absent are {', '.join(lacking)}.")
        found = {
            section: sum(records.get(name, 0) for name in names)
            for section, names in self.sections.items()
            if section not in known
        } | dict(records)
        different = [
            f"{name} {found[name]} of {count}"
            for name, count in {**self.published, **self.prior}.items()
            if found.get(name) and found[name] != count
        ]
        if different:
            notes.append(
                f"Not comparable with published figures: the number of records differs in {len(different)} "
                f"{'subset' if len(different) == 1 else 'subsets'} ({', '.join(different)})."
            )
        return notes

    def section_means(self, figures: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
        """Mean of each section's subsets: sum(w * x) / sum(w).

        Args:
            figures: Per subset, whatever `weighted_mean` takes. Subsets may be absent.
            counts: Number of comparisons per subset: the weight of a subset that has no published one.

        Returns:
            One mean per section, in the benchmark's order; a section without subsets is absent. Prior sets count the
            same each, and come last if all of them are there.
        """
        means = {}
        for section, names in self.sections.items():
            present = [name for name in names if name in figures]
            if present:
                weights = [self.weights.get(name, counts[name]) for name in present]
                means[section] = weighted_mean([figures[name] for name in present], weights)
        if self.prior and all(name in figures for name in self.prior):
            means[PRIOR_SETS] = weighted_mean([figures[name] for name in self.prior], [1] * len(self.prior))
        return means

    def average(self, sections: Mapping[str, Any]) -> Any:
        """Plain mean over all sections; None if one is absent, or the benchmark has no average."""
        if not self.averaged or any(section not in sections for section in self.sections):
            return None
        return weighted_mean([sections[section] for section in self.sections], [1] * len(self.sections))

    def average_with_prior(self, sections: Mapping[str, Any]) -> Any:
        """Mean over all sections and, with half their weight, the prior sets; None if one is absent."""
        if PRIOR_SETS not in sections or any(section not in sections for section in self.sections):
            return None
        names = [*self.sections, PRIOR_SETS]
        return weighted_mean([sections[name] for name in names], [2] * len(self.sections) + [1])
