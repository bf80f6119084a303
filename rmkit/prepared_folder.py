"""The folder that the prepare stage writes: rows, refusals, and last of all the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rmkit import __version__
from rmkit.errors import DataError
from rmkit.jsonl import dump_line
from rmkit.manifest import read_json, sha256_file, write_json
from rmkit.preparation import Outcome, Refusal, is_validation, row_to_dict
from rmkit.rubric import Rubric
from rmkit.schema import PreferencePair

RATED_FILES = ("train.jsonl", "validation.jsonl")
PAIR_FILES = ("pairs.jsonl",)
REFUSED_FILE = "refused.jsonl"
MANIFEST_FILE = "manifest.json"


def write_prepared(
    output: Path,
    outcomes: Iterable[Outcome],
    files: Sequence[str],
    rubric: Rubric | None,
    seed: int,
    validation_fraction: float,
    origin: Mapping[str, Any],
) -> dict[str, Any]:
    """Write a prepared folder and return its manifest. Memory use does not grow with the rows.

    What an earlier run left under these file names is replaced, its manifest first, so that an interrupted run never
    looks complete; other files are not touched. The same input and settings give the same bytes.

    Args:
        output: The folder; made where there is none.
        outcomes: What became of each raw record, in order.
        files: Names of the files that rows go to: `RATED_FILES`, `PAIR_FILES` or both.
        rubric: The rubric of the rated rows; None where there are only pairs.
        seed: Of the split.
        validation_fraction: Expected share of conversations whose rows go to `validation.jsonl`, in [0, 1).
        origin: What else the manifest says, such as data set, source and its revision.

    Raises:
        DataError: If no record was accepted. `refused.jsonl` then says why, and is the only file.
    """
    if not 0 <= validation_fraction < 1:
        raise DataError(f"validation fraction {validation_fraction} is outside [0, 1)")
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name in (MANIFEST_FILE, *RATED_FILES, *PAIR_FILES, REFUSED_FILE):
            (output / name).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"output folder {output}: can't be written ({error})") from error
    accepted = 0
    refused: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    histogram = {a.key: dict.fromkeys(map(str, a.values), 0) for a in (rubric.attributes if rubric else ())}
    with ExitStack() as stack:
        opened = {
            name: stack.enter_context((output / name).open("w", encoding="utf-8", newline="\n"))
            for name in (*files, REFUSED_FILE)
        }
        for outcome in outcomes:
            if isinstance(outcome, Refusal):
                refused[outcome.reason] += 1
                rows[REFUSED_FILE] += 1
                opened[REFUSED_FILE].write(dump_line(outcome.to_dict()))
                continue
            accepted += 1
            for row in outcome:
                if isinstance(row, PreferencePair):
                    name, line = PAIR_FILES[0], row.to_dict()
                else:
                    assert rubric is not None  # rated rows come with one
                    name = RATED_FILES[is_validation(row.conversation, seed, validation_fraction)]
                    line = row_to_dict(row, rubric)
                    if row.rubric is None:  # a rubric of its own may have other attributes
                        for key, score in row.scores.items():
                            histogram[key][str(score)] += 1
                rows[name] += 1
                opened[name].write(dump_line(line))
    if not accepted:
        for name in files:
            (output / name).unlink()
        why = ", ".join(f"{reason} {count}" for reason, count in sorted(refused.items())) or "the input is empty"
        raise DataError(f"no record was accepted ({why}); see {output / REFUSED_FILE}")
    total = sum(rows[name] for name in files)
    manifest = {
        **origin,
        "raw_records": accepted + refused.total(),
        "accepted": accepted,
        "refused": dict(sorted(refused.items())),
        "rows": total,
        "rows_per_accepted_record": round(total / accepted, 6),
        "files": {name: {"rows": rows[name], "sha256": sha256_file(output / name)} for name in opened},
        "histogram": histogram,
        "rubric": None if rubric is None else rubric.to_dict(),
        "seed": seed,
        "validation_fraction": validation_fraction,
        "rmkit_version": __version__,
    }
    write_json(output / MANIFEST_FILE, manifest)
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder.

    Raises:
        DataError: If there is none, so that the folder is not complete, or it can't be read.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise DataError(
            f"{folder} has no {MANIFEST_FILE}: it is no prepared folder, or its preparation did not finish; "
            "run data_prep/prepare.py"
        )
    manifest = read_json(path)
    if "files" not in manifest:
        raise DataError(f"{path} names no files, so {folder} is no prepared folder; name one of data_prep/prepare.py")
    return manifest


def summarise(manifest: Mapping[str, Any], output: Path) -> str:
    """What a run did, in at most ten lines: records, refusals by reason, rows per file, histograms, the path."""
    refused = manifest["refused"]
    lines = [
        f"{manifest['dataset']} from {manifest['source']['name']}: {manifest['raw_records']} records, "
        f"{manifest['accepted']} accepted, {sum(refused.values())} refused"
    ]
    if refused:
        lines.append("refused: " + ", ".join(f"{reason} {count}" for reason, count in refused.items()))
    counts = {name: file["rows"] for name, file in manifest["files"].items() if name != REFUSED_FILE}
    hint = "" if counts.get("validation.jsonl", 1) else " (raise --validation-fraction for validation rows)"
    lines.append("rows: " + ", ".join(f"{name} {count}" for name, count in counts.items()) + hint)
    shown = list(manifest["histogram"].items())[:6]
    width = max((len(key) for key, _ in shown), default=0)
    for key, counts_by_score in shown:
        seen = {score: n for score, n in counts_by_score.items() if n or len(counts_by_score) <= 21}
        lines.append(f"{key:{width}}  " + "  ".join(f"{score}: {n}" for score, n in seen.items()))
    lines.append(f"written to {output}")
    return "\n".join(lines)
