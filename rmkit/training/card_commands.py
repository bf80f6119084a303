"""The commands that made a judge, as its model card shows them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rmkit.data import DATASETS


def prepare_command(manifest: Mapping[str, Any], output: Path) -> str:
    """What prepares the data anew, as far as the manifest says it.

    Of a file the manifest holds the name and not where it lay; a mix or a mapping is a file of the user's own.
    """
    name, source = str(manifest["dataset"]), manifest["source"]
    words = ["python", "data_prep/prepare.py", "--dataset", name]
    if name == "graded":
        options = ("rows", "pairs", "difficulty", "rater_noise")
        words += [f"--{option.replace('_', '-')}={source[option]}" for option in options if option in source]
    elif name in DATASETS and manifest.get("sources"):
        [read] = manifest["sources"]
        words += _inputs(read["inputs"], DATASETS[name].hub_id)
        rubric = manifest["rubric"]["name"]
        words += [] if rubric == DATASETS[name].rubric else ["--rubric", str(rubric)]
        words += _given("--max-rows", read["max_rows"]) + _given("--rule", read["rule"])
        words += [] if read["keep_derived"] else ["--no-derived"]
    else:
        return f"# {name}: prepared from files of its author's own, as manifest.json lists them"
    words += [f"--seed={manifest['seed']}", f"--validation-fraction={manifest['validation_fraction']:g}"]
    words += _cleaning(manifest.get("cleaning", {}))
    words += ["--format", "parquet"] if manifest.get("format") == "parquet" else []
    return shlex.join([*words, "--output", str(output)])


def train_command(argv: Sequence[str], processes: int) -> str:
    """What trains the judge anew: this process's command, started by torchrun where several were."""
    words = [word for word in argv[1:] if not word.startswith(("--local_rank", "--local-rank"))]
    start = ["torchrun", "--nproc_per_node", str(processes)] if processes > 1 else ["python"]
    return shlex.join([*start, "train/train.py", *words])


def score_command(judge: str) -> str:
    """What scores responses with the judge."""
    return shlex.join(
        ["python", "evaluate/score_responses.py", "--judge", judge, "--input", "FILE.jsonl", "--output", "DIR"]
    )


def _inputs(read: Sequence[Mapping[str, Any]], hub_id: str) -> list[str]:
    """Files and hub ids that were read; none where it was the data set's own home."""
    if [item["name"] for item in read] == [hub_id]:
        return []
    return ["--input", *(f"{i['name']}@{i['revision']}" if i.get("revision") else str(i["name"]) for i in read)]


def _cleaning(options: Mapping[str, Any]) -> list[str]:
    words = [] if options.get("duplicates", "none") == "none" else ["--dedupe", options["duplicates"]]
    words += _given("--dedupe-threshold", options.get("threshold"))
    words += ["--drop-blank"] if options.get("drop_blank") else []
    words += ["--languages", ",".join(options["languages"])] if options.get("languages") else []
    words += _given("--max-tokens", options.get("max_tokens"))
    words += _given("--tokenizer", (options.get("tokenizer") or {}).get("name"))
    words += ["--truncate"] if options.get("truncate") else []
    if options.get("decontaminate"):
        words += ["--decontaminate", *(benchmark["name"] for benchmark in options["decontaminate"])]
        words += ["--contamination", "report"] if options["contamination"] == "report" else []
    return words + (["--balance", *options["balance"]] if options.get("balance") else [])


def _given(option: str, value: object) -> list[str]:
    return [] if value is None else [option, str(value)]
