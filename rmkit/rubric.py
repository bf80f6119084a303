"""Rubrics: which attributes a judge rates, on which integer scale, and what each counts for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from rmkit.errors import DataError, RubricError
from rmkit.yaml_files import read_yaml

FORMAT_VERSION = 1
"""Version of the rubric's YAML and JSON form."""

_KEY = re.compile(r"[a-z][a-z0-9_]*")
_WIDEST = 100_000  # each score is counted, and stands in manifests


@dataclass(frozen=True, slots=True)
class Attribute:
    """One thing that a judge rates.

    Args:
        key: Snake-case name, used in every JSON file.
        name: What stands in the score sequence: the `Helpfulness` of `Helpfulness: 4`.
        description: What it means, shown to the judge.
        minimum: Lowest legal score.
        maximum: Highest legal score, above `minimum`.
        weight: Its share in the aggregate. 0 describes without praising; below 0, more is worse.
        levels: Meaning of single scores, shown to the judge.
        sum_of: Keys whose scores add up to this one. Then it is computed, never read from data.

    Raises:
        RubricError: For a key, name or scale that a score sequence can't carry.
    """

    key: str
    name: str
    description: str = ""
    minimum: int = 1
    maximum: int = 5
    weight: float = 1.0
    levels: Mapping[int, str] = field(default_factory=dict)
    sum_of: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise RubricError(f"attribute key {self.key!r}: write it in snake case, such as 'helpfulness'")
        if not self.name or self.name != self.name.strip() or re.search(r"[:,\n\r]", self.name):
            raise RubricError(
                f"attribute {self.key!r}: the name {self.name!r} can't stand in a score sequence; "
                "use a non-empty name without ':', ',' or line breaks"
            )
        for bound in (self.minimum, self.maximum):
            if isinstance(bound, bool) or not isinstance(bound, int):
                raise RubricError(f"attribute {self.key!r}: the scale bound {bound!r} is not an integer")
        if not 0 <= self.minimum < self.maximum:
            raise RubricError(
                f"attribute {self.key!r}: the scale {self.minimum}-{self.maximum} is not one; "
                "use integers with 0 <= minimum < maximum"
            )
        strange = sorted(level for level in self.levels if level not in self.values)
        if strange:
            raise RubricError(f"attribute {self.key!r}: levels {strange} lie outside {self.minimum}-{self.maximum}")
        if self.maximum - self.minimum > _WIDEST:
            raise RubricError(
                f"attribute {self.key!r}: the scale {self.minimum}-{self.maximum} is wider than {_WIDEST:,}; a judge "
                "must tell each of its scores from the others, so use a coarser one"
            )

    @property
    def values(self) -> range:
        """The legal scores, ascending."""
        return range(self.minimum, self.maximum + 1)

    def to_unit(self, score: float) -> float:
        """Map a score (or a mean of scores) to [0, 1] on this attribute's scale."""
        return (score - self.minimum) / (self.maximum - self.minimum)

    def width_to_unit(self, width: float) -> float:
        """Map a difference of scores, such as a standard deviation, to a share of this attribute's scale."""
        return width / (self.maximum - self.minimum)

    def to_dict(self) -> dict[str, Any]:
        """The attribute as plain JSON data, defaults left out where they say nothing."""
        data: dict[str, Any] = {
            "key": self.key,
            "name": self.name,
            "description": self.description,
            "scale": [self.minimum, self.maximum],
            "weight": self.weight,
        }
        if self.levels:
            data["levels"] = {str(value): text for value, text in sorted(self.levels.items())}
        if self.sum_of:
            data["sum_of"] = list(self.sum_of)
        return data


@dataclass(frozen=True, slots=True)
class Rubric:
    """An ordered set of attributes; the order is that of the score sequence.

    Raises:
        RubricError: For no attribute, a key or name that stands twice, weights that are all 0, or a
            sum over attributes that don't exist or don't fit its scale.
    """

    name: str
    attributes: tuple[Attribute, ...]

    def __post_init__(self) -> None:
        if not self.attributes:
            raise RubricError(f"rubric {self.name!r} has no attributes")
        for what, found in (("key", self.keys), ("name", tuple(a.name for a in self.attributes))):
            twice = sorted({x for x in found if found.count(x) > 1})
            if twice:
                raise RubricError(f"rubric {self.name!r}: attribute {what} {twice[0]!r} stands more than once")
        if not any(a.weight for a in self.attributes):
            raise RubricError(f"rubric {self.name!r}: all weights are 0, so no aggregate exists; give one a weight")
        for attribute in self.attributes:
            self._check_sum(attribute)

    def _check_sum(self, attribute: Attribute) -> None:
        if not attribute.sum_of:
            return
        missing = [key for key in attribute.sum_of if key not in self.keys or key == attribute.key]
        if missing:
            raise RubricError(
                f"rubric {self.name!r}: {attribute.key!r} is a sum of {missing[0]!r}, which is not an attribute"
            )
        lowest = sum(self[key].minimum for key in attribute.sum_of)
        highest = sum(self[key].maximum for key in attribute.sum_of)
        if lowest < attribute.minimum or highest > attribute.maximum:
            raise RubricError(
                f"rubric {self.name!r}: the sum {attribute.key!r} reaches {lowest}-{highest}, "
                f"outside its scale {attribute.minimum}-{attribute.maximum}"
            )

    @property
    def keys(self) -> tuple[str, ...]:
        """Attribute keys in order."""
        return tuple(a.key for a in self.attributes)

    def __getitem__(self, key: str) -> Attribute:
        for attribute in self.attributes:
            if attribute.key == key:
                return attribute
        raise RubricError(f"rubric {self.name!r} has no attribute {key!r}; it has {', '.join(self.keys)}")

    def select(self, keys: Iterable[str]) -> tuple[Attribute, ...]:
        """The attributes with these keys, in rubric order."""
        wanted = set(keys)
        unknown = sorted(wanted - set(self.keys))
        if unknown:
            raise RubricError(f"rubric {self.name!r} has no attribute {unknown[0]!r}; it has {', '.join(self.keys)}")
        return tuple(a for a in self.attributes if a.key in wanted)

    def complete(self, scores: Mapping[str, int]) -> dict[str, int]:
        """Check scores against the scales, add the sums, and put them in rubric order.

        Args:
            scores: Score per attribute key; a missing key means "not rated". A sum whose parts are not
                all rated stays unrated.

        Raises:
            RubricError: For an unknown attribute, a score that is no integer, or one off its scale.
        """
        complete = dict(scores)
        for attribute in self.attributes:
            if attribute.sum_of and all(key in scores for key in attribute.sum_of):
                complete[attribute.key] = sum(scores[key] for key in attribute.sum_of)
        for attribute in self.select(complete):
            score = complete[attribute.key]
            if isinstance(score, bool) or not isinstance(score, int) or score not in attribute.values:
                raise RubricError(
                    f"attribute {attribute.key!r}: {score!r} is not an integer in "
                    f"{attribute.minimum}-{attribute.maximum}"
                )
        return {key: complete[key] for key in self.keys if key in complete}

    def to_dict(self) -> dict[str, Any]:
        """The rubric as plain JSON data; `Rubric.from_dict` reads it back."""
        return {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "attributes": [a.to_dict() for a in self.attributes],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "rubric") -> Rubric:
        """Read a rubric from plain data.

        Args:
            data: `{"format_version": 1, "name": ..., "attributes": [{"key", "name", "description",
                "scale": [1, 5], "weight": 1.0, "levels": {5: ...}, "sum_of": [...]}, ...]}`. Only
                `attributes` and each one's `key` are required.
            where: Where it comes from, for messages.

        Raises:
            RubricError: Naming what is wrong, and where.
        """
        if not isinstance(data, Mapping) or not isinstance(data.get("attributes"), list):
            raise RubricError(f"{where}: expected a mapping with a list under 'attributes'")
        version = data.get("format_version", FORMAT_VERSION)
        if version != FORMAT_VERSION:
            raise RubricError(f"{where}: format_version {version!r} is unknown; this rmkit reads {FORMAT_VERSION}")
        _refuse_unknown(data, {"format_version", "name", "attributes"}, where)
        attributes = tuple(_attribute(item, where) for item in data["attributes"])
        return cls(str(data.get("name", where)), attributes)


def _attribute(item: Any, where: str) -> Attribute:
    if not isinstance(item, Mapping) or not isinstance(item.get("key"), str):
        raise RubricError(f"{where}: each attribute needs a 'key'; found {item!r}")
    key = item["key"]
    here = f"{where}: attribute {key!r}"
    empty = sorted(str(name) for name, value in item.items() if value is None and name != "levels")
    if empty:
        raise RubricError(f"{here}: field {empty[0]!r} is empty; give it a value or leave it out")
    _refuse_unknown(item, {"key", "name", "description", "scale", "weight", "levels", "sum_of"}, here)
    scale = item.get("scale", [1, 5])
    if not isinstance(scale, list | tuple) or len(scale) != 2:
        raise RubricError(f"{here}: scale must be [minimum, maximum], found {scale!r}")
    weight = item.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not abs(weight) < 1e300:  # NaN too
        raise RubricError(f"{here}: weight must be a number, found {weight!r}")
    parts = item.get("sum_of", ())
    if not isinstance(parts, list | tuple):
        raise RubricError(f"{here}: sum_of must be a list of attribute keys, found {parts!r}")
    try:
        levels = {_level(value): str(text) for value, text in (item.get("levels") or {}).items()}
        if len(levels) < len(item.get("levels") or {}) or None in (item.get("levels") or {}).values():
            raise ValueError("a score twice, or without a text")
    except (AttributeError, TypeError, ValueError) as error:
        raise RubricError(f"{here}: levels must map scores to texts, found {item['levels']!r}") from error
    return Attribute(
        key=key,
        name=str(item.get("name", key.replace("_", " ").capitalize())),
        description=" ".join(str(item.get("description", "")).split()),
        minimum=scale[0],
        maximum=scale[1],
        weight=float(weight),
        levels=levels,
        sum_of=tuple(parts),
    )


def _level(value: Any) -> int:
    """The score of a level; JSON writes it as text."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"{value!r} is not a score")
    return int(value)


def _refuse_unknown(data: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(str(key) for key in set(data) - known)
    if unknown:
        raise RubricError(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")


def ready_rubrics() -> list[str]:
    """Names of the rubrics that come with rmkit."""
    folder = resources.files("rmkit") / "rubrics"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_rubric(name_or_file: str | Path | Rubric) -> Rubric:
    """Load a ready rubric by name, or one of your own from a YAML file; a rubric is handed back as it is.

    Raises:
        RubricError: If there is no such rubric, or it can't be read.
    """
    if isinstance(name_or_file, Rubric):
        return name_or_file
    path = Path(name_or_file)
    if path.suffix not in {".yaml", ".yml"}:
        if str(name_or_file) not in ready_rubrics():
            raise RubricError(
                f"no rubric {str(name_or_file)!r}: ready ones are {', '.join(ready_rubrics())}; "
                "a file of your own ends in .yaml"
            )
        text = (resources.files("rmkit") / "rubrics" / f"{name_or_file}.yaml").read_text("utf-8")
        return Rubric.from_dict(yaml.safe_load(text), str(name_or_file))
    try:
        data = read_yaml(path)
    except DataError as error:
        raise RubricError(f"rubric file {error}") from error
    return Rubric.from_dict({"name": path.stem, **data}, str(path))
