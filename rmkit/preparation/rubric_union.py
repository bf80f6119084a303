"""One rubric for several data sets: attributes renamed and brought together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from rmkit.errors import RubricError
from rmkit.rubric import Attribute, Rubric


def rename_attributes(rubric: Rubric, rename: Mapping[str, str], where: str = "rename") -> Rubric:
    """The rubric with other keys, and with names made of those; meaning, scale and weight stay.

    Args:
        rubric: The rubric.
        rename: New keys by their old ones.
        where: Where that stands, for messages.

    Raises:
        RubricError: If there is no such attribute, or two would have one key.
    """
    unknown = sorted(set(rename) - set(rubric.keys))
    if unknown:
        raise RubricError(
            f"{where}: there is no attribute {unknown[0]!r}; rubric {rubric.name!r} has {', '.join(rubric.keys)}"
        )
    attributes = []
    for attribute in rubric.attributes:
        key = rename.get(attribute.key, attribute.key)
        name = attribute.name if key == attribute.key else key.replace("_", " ").capitalize()
        parts = tuple(rename.get(part, part) for part in attribute.sum_of)
        try:
            attributes.append(dataclasses.replace(attribute, key=key, name=name, sum_of=parts))
        except RubricError as error:
            raise RubricError(f"{where}: {error}") from error
    keys = [attribute.key for attribute in attributes]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise RubricError(f"{where}: two attributes would have the key {twice[0]!r}")
    return Rubric(rubric.name, tuple(attributes))


def unite_rubrics(name: str, rubrics: Sequence[tuple[str, Rubric]]) -> Rubric:
    """A rubric with the attributes of all, in the order in which they first stand.

    Args:
        name: Of the new rubric.
        rubrics: Each with the name of the data set that it belongs to.

    Raises:
        RubricError: If two of them define one key differently; the message names both data sets.
    """
    united: dict[str, tuple[str, Attribute]] = {}
    for owner, rubric in rubrics:
        for attribute in rubric.attributes:
            first, known = united.setdefault(attribute.key, (owner, attribute))
            differences = [
                f"{field.name} {getattr(known, field.name)!r} and {getattr(attribute, field.name)!r}"
                for field in dataclasses.fields(Attribute)
                if getattr(known, field.name) != getattr(attribute, field.name)
            ]
            if differences:
                raise RubricError(
                    f"{first!r} and {owner!r} define the attribute {attribute.key!r} differently "
                    f"({'; '.join(differences)}); rename one of them, or name a rubric for all"
                )
    return Rubric(name, tuple(attribute for _, attribute in united.values()))
