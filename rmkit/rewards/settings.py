"""Settings of a reward that is named on a command line: a YAML file and environment variables."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from rmkit.errors import DataError
from rmkit.rubric import load_rubric
from rmkit.yaml_files import check_keys, read_yaml

PREFIX = "RMKIT_REWARD_"
"""Begins each variable: `RMKIT_REWARD_JUDGE` is the option `judge`."""

CONFIG_VARIABLE = "RMKIT_REWARD_CONFIG"
"""Names a YAML file with the same options, which the other variables override."""


def read_reward_settings(environment: Mapping[str, str], known: Collection[str]) -> dict[str, Any]:
    """The options of a reward, from the file that `RMKIT_REWARD_CONFIG` names and variables `RMKIT_REWARD_<OPTION>`.

    Args:
        environment: The environment variables.
        known: Options that there are; `engine_options`, if it is one, is a mapping. Variables are read as YAML.

    Returns:
        Options by name, with a `rubric` read, and with those of the mapping `engine_options` beside the others.

    Raises:
        DataError: If there is no judge, or an option is unknown or of the wrong kind.
        RubricError: If the rubric can't be read.
    """
    where = "environment"
    given: dict[str, Any] = {}
    if config := environment.get(CONFIG_VARIABLE):
        where = config
        given.update(check_keys(read_yaml(Path(config)), known, config))
    variables = {
        name.removeprefix(PREFIX).lower(): _read_value(name, text)
        for name, text in environment.items()
        if name.startswith(PREFIX) and name != CONFIG_VARIABLE
    }
    given.update(check_keys(variables, known, f"environment variables {PREFIX}..."))
    if "judge" not in given:
        raise DataError(
            f"{where}: there is no judge; set {PREFIX}JUDGE to a judge folder or the address of a judge server, or "
            f"{CONFIG_VARIABLE} to a YAML file with `judge: ...`"
        )
    if "rubric" in given:
        given["rubric"] = load_rubric(str(given["rubric"]))
    options = given.pop("engine_options", {})
    if not isinstance(options, Mapping):
        raise DataError(f"{where}: engine_options must be a mapping, found {str(options)[:80]!r}")
    return {**given, **options}


def _read_value(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(f"environment variable {name}: {text[:80]!r} can't be read as YAML ({error})") from error
