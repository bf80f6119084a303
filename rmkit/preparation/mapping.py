"""Bring your own data: a YAML file says what a raw file's columns mean, and no Python is needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rmkit.data.dataset import Dataset
from rmkit.errors import DataError
from rmkit.preparation.preferences import RULES
from rmkit.preparation.record_mapping import MessageForm, RawRating, RecordMapping, Turn
from rmkit.preparation.record_path import RecordPath, parse_path
from rmkit.rubric import Rubric, load_rubric
from rmkit.schema import ROLES
from rmkit.yaml_files import check_keys, read_yaml, take_text

FORMAT_VERSION = 1
"""Version of a mapping's YAML form."""

_RATED = ("response", "attributes")
_COMPARED = ("chosen", "rejected", "attribute", "rule", "strength", "id", "subset")
_SHARED = (
    "format_version", "name", "hub_id", "revision", "split", "config", "rubric", "conversation", "messages",
    "reference", "metadata", "each", "optional", "missing", "text_numbers",
)  # fmt: skip


def load_mapping(path: Path) -> Dataset:
    """The data set that a mapping file describes; its raw files are opened like a published set's.

    Paths are columns, or lead into JSON: `question`, `scores.helpful`, `answers[0].text`; see `parse_path`. Ratings
    are put on the rubric's scale by `rmkit.preparation.conversion.rescale`. Needed are `response` and `attributes`, or
    `chosen` and `rejected`:

    | key | value |
    |---|---|
    | `conversation` | a path to a text, the user's turn, or to messages; or a list of `{role, path}` and `{path}`: \
texts of one role in a row are joined by a blank line. Without it, the last message of each response is the response |
    | `response` | a path |
    | `attributes` | per key `{path: the key, range: [low, high], lower_is_better: false, labels: {fair: 2}}` |
    | `chosen`, `rejected` | paths; with them `attribute: overall`, `strength: {path, range}`, `rule: margin` (of \
`rmkit.preparation.preferences`; `rank` without strength), and for pairs `id` and `subset` |
    | `rubric` | a ready one's name, a file beside this one, or a rubric as it is |
    | `reference` | a path |
    | `metadata` | a list of paths, or `{name: path}` |
    | `each` | a column that holds a list of responses: each element gives a row, and `answers.text` is its text |
    | `optional` | paths that a record may lack or have null |
    | `missing` | values that mean "not rated", such as `[N/A, null, -1]` |
    | `text_numbers` | `true` if ratings are numbers as text |
    | `messages` | `{role: from, content: value, roles: {human: user, gpt: assistant}}` |
    | `name` | what stands in row ids; the file's name if left out |
    | `hub_id`, `revision`, `split`, `config` | its home on the hub, if it has one |

    Raises:
        DataError: If the file can't be read, or says something that is no mapping; with the key.
        RubricError: If its rubric can't be read.
    """
    where = str(path)
    data = check_keys(read_yaml(path), (*_RATED, *_COMPARED, *_SHARED), where)
    if data.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        found = data["format_version"]
        raise DataError(f"{where}: format_version {found!r} is unknown; this rmkit reads {FORMAT_VERSION}")
    compared = "chosen" in data or "rejected" in data
    needed, strange = (("chosen", "rejected"), _RATED) if compared else (_RATED, _COMPARED)
    for key in strange:
        if key in data and (compared or "response" in data):
            raise DataError(f"{where}: key {key!r} does not go with {'chosen' if compared else 'response'!r}")
    missing = [key for key in needed if key not in data]
    if missing:
        raise DataError(f"{where}: key {missing[0]!r} is missing; map response and attributes, or chosen and rejected")
    rubric = _read_rubric(data, path)
    read = _read_mapping(data, where)
    _check_optional(read, where)
    for key in (read.compared,) if compared else read.ratings:
        if isinstance(rubric, Rubric) and key not in rubric.keys:
            raise DataError(
                f"{where}: rubric {rubric.name!r} has no attribute {key!r}; it has {', '.join(rubric.keys)}"
            )
    return Dataset(
        name=_read_name(data, path),
        hub_id=take_text(data, "hub_id", where),
        revision=take_text(data, "revision", where),
        split=take_text(data, "split", where, "train"),
        read=read,
        rubric=rubric,
        scales={key: rating.scale for key, rating in read.ratings.items()},
        rule=_read_rule(data, where) if compared else "",
        hub_options={"name": take_text(data, "config", where)} if "config" in data else {},
        numeric=_numeric_columns(read),
    )


def _read_mapping(data: Mapping[str, Any], where: str) -> RecordMapping:
    def path(key: str) -> RecordPath | None:
        return parse_path(data[key], f"{where}: {key}") if key in data else None

    responses = [parse_path(data[key], f"{where}: {key}") for key in ("response", "chosen", "rejected") if key in data]
    attributes = data.get("attributes", {})
    if "attributes" in data and (not isinstance(attributes, Mapping) or not attributes):
        raise DataError(f"{where}: attributes must map each attribute key to its range; found {attributes!r}")
    if not isinstance(data.get("missing", []), list):
        raise DataError(f"{where}: missing must be a list of values, found {data['missing']!r}")
    if not isinstance(data.get("text_numbers", False), bool):
        raise DataError(f"{where}: text_numbers must be true or false, found {data['text_numbers']!r}")
    return RecordMapping(
        conversation=_read_turns(data["conversation"], where) if "conversation" in data else (),
        responses=tuple(responses),
        ratings={str(key): _read_rating(item, str(key), f"{where}: {key}") for key, item in attributes.items()},
        compared=take_text(data, "attribute", where, "overall"),
        strength=_read_rating(data["strength"], None, f"{where}: strength") if "strength" in data else None,
        reference=path("reference"),
        id=path("id"),
        subset=path("subset"),
        metadata=_read_metadata(data.get("metadata", []), f"{where}: metadata"),
        each=take_text(data, "each", where),
        messages=_read_form(data.get("messages", {}), f"{where}: messages"),
        optional=tuple(_read_paths(data.get("optional", []), f"{where}: optional").values()),
        missing=tuple(data.get("missing", [])),
        text_numbers=data.get("text_numbers", False),
    )


def _check_optional(read: RecordMapping, where: str) -> None:
    ratings = [rating.path for rating in (*read.ratings.values(), *((read.strength,) if read.strength else ()))]
    used = {turn.path for turn in read.conversation} | {*read.responses, *ratings, *read.metadata.values()}
    for path in read.optional:
        if path not in used | {read.reference, read.id, read.subset}:
            raise DataError(f"{where}: optional: nothing reads the path {str(path)!r}; map it, or correct its name")


def _read_name(data: Mapping[str, Any], path: Path) -> str:
    name = take_text(data, "name", str(path), path.stem)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise DataError(f"{path}: the name {name!r} stands in row ids: use letters, digits, '_', '-' and '.'")
    return name


def _read_rubric(data: Mapping[str, Any], path: Path) -> str | Rubric:
    """The rubric; a file is looked for beside the mapping. Empty where the caller must give one."""
    found = data.get("rubric", "overall" if "chosen" in data and "attribute" not in data else "")
    if isinstance(found, Mapping):
        return Rubric.from_dict({"name": path.stem, **found}, f"{path}: rubric")
    if not isinstance(found, str):
        raise DataError(f"{path}: rubric must be a name, a file or a rubric, found {str(found)[:80]!r}")
    return load_rubric(path.parent / found if found.endswith((".yaml", ".yml")) else found) if found else ""


def _read_rule(data: Mapping[str, Any], where: str) -> str:
    rule = take_text(data, "rule", where, "margin" if "strength" in data else "rank")
    if rule not in RULES:
        raise DataError(f"{where}: rule {rule!r} is unknown; choose {', '.join(RULES)}")
    return rule


def _read_turns(value: Any, where: str) -> tuple[Turn, ...]:
    where = f"{where}: conversation"
    if not isinstance(value, list) or not value or not isinstance(value[0], Mapping):
        return (Turn(parse_path(value, where)),)
    turns = []
    for number, item in enumerate(value):
        here = f"{where}[{number}]"
        check_keys(item, ("role", "path"), here, required=("path",))
        role = take_text(item, "role", here)
        if role and role not in ROLES:
            raise DataError(f"{here}: role {role!r} is unknown; choose {', '.join(ROLES)}")
        turns.append(Turn(parse_path(item["path"], here), role))
    return tuple(turns)


def _read_rating(item: Any, key: str | None, where: str) -> RawRating:
    known = ("path", "range", "lower_is_better", "labels")
    check_keys(item, known, where, required=("range",) if key else ("path", "range"))
    low_high = item["range"]
    numbers = isinstance(low_high, list) and all(_is_number(bound) for bound in low_high)
    if not numbers or len(low_high) != 2 or not low_high[0] < low_high[1]:
        raise DataError(
            f"{where}: range must be [lowest, highest], found {low_high!r}; where less is better, add "
            "lower_is_better: true"
        )
    lower_is_better = item.get("lower_is_better", False)
    if not isinstance(lower_is_better, bool):
        raise DataError(f"{where}: lower_is_better must be true or false, found {lower_is_better!r}")
    labels = item.get("labels", {})
    if not isinstance(labels, Mapping) or not all(_is_number(number) for number in labels.values()):
        raise DataError(f"{where}: labels must map each label to its number, found {labels!r}")
    outside = [label for label, number in labels.items() if not low_high[0] <= number <= low_high[1]]
    if outside:
        raise DataError(f"{where}: the label {outside[0]!r} stands for {labels[outside[0]]}, outside {low_high}")
    scale = (low_high[1], low_high[0]) if lower_is_better else (low_high[0], low_high[1])
    return RawRating(parse_path(item.get("path", key), where), scale, tuple(labels.items()))


def _read_form(item: Any, where: str) -> MessageForm:
    check_keys(item, ("role", "content", "roles"), where)
    roles = item.get("roles", {})
    if not isinstance(roles, Mapping) or not all(role in ROLES for role in roles.values()):
        raise DataError(f"{where}: roles must map the file's names to {', '.join(ROLES)}; found {roles!r}")
    role, content = take_text(item, "role", where, "role"), take_text(item, "content", where, "content")
    return MessageForm(role, content, {str(name): known for name, known in roles.items()})


def _read_metadata(value: Any, where: str) -> dict[str, RecordPath]:
    if isinstance(value, Mapping):
        return {str(name): parse_path(path, f"{where}: {name}") for name, path in value.items()}
    return _read_paths(value, where)


def _read_paths(value: Any, where: str) -> dict[str, RecordPath]:
    if not isinstance(value, list):
        raise DataError(f"{where}: expected a list of paths, found {str(value)[:80]!r}")
    paths = [parse_path(item, where) for item in value]
    return {str(path): path for path in paths}


def _numeric_columns(read: RecordMapping) -> tuple[str, ...]:
    """Columns that hold nothing but numbers, for CSV; labels and numbers as text stay as they are."""
    ratings = [*read.ratings.values(), *([read.strength] if read.strength else [])]
    return tuple(str(rating.path.steps[0]) for rating in ratings if len(rating.path.steps) == 1 and not rating.labels)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
