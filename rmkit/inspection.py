"""A look at a prepared folder, as text: counts, score histograms, lengths, correlations, refusals, examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rmkit.errors import DataError
from rmkit.jsonl import read_jsonl
from rmkit.manifest import sha256_file
from rmkit.prepared_folder import PAIR_FILES, RATED_FILES, REFUSED_FILE, read_manifest

_BAR = 40  # characters of the longest bar
_MAX_SUBSETS = 40
_MANY_SCORES = 21  # on longer scales, scores that nobody gave are left out
_RULE = "-" * 100


def inspect_folder(folder: Path, examples: int = 3, max_characters: int = 1500) -> str:
    """Describe a prepared folder.

    Args:
        folder: What `data_prep/prepare.py` wrote.
        examples: How many rows to show in full, spread evenly over the first file.
        max_characters: Longer texts of examples are cut in their middle.

    Raises:
        DataError: If the folder is not complete, or a file is not what the manifest says.
    """
    manifest = read_manifest(folder)
    for name, file in manifest["files"].items():
        if not (folder / name).is_file() or sha256_file(folder / name) != file["sha256"]:
            raise DataError(f"{folder / name} is missing or not the file that was prepared; run data_prep/prepare.py")
    files = [name for name in manifest["files"] if name != REFUSED_FILE]
    rated = [folder / name for name in RATED_FILES if name in files]
    paired = [folder / name for name in PAIR_FILES if name in files]
    parts = [_describe_counts(manifest)]
    if manifest["refused"]:
        parts.append(_describe_refusals(folder / REFUSED_FILE, manifest["refused"]))
    if rated:
        parts += [_draw_histogram(key, counts) for key, counts in manifest["histogram"].items()]
        parts.append(_describe_rated(rated, list(manifest["histogram"])))
    if paired:
        parts.append(_describe_pairs(paired))
    first = (rated + paired)[0]
    parts += _render_examples(first, manifest["files"][first.name]["rows"], examples, max_characters)
    return "\n\n".join(parts)


def _describe_counts(manifest: Mapping[str, Any]) -> str:
    source = manifest["source"]
    lines = [f"{manifest['dataset']} from {source['name']}"]
    if source.get("revision"):
        lines[0] += f" at revision {source['revision']}"
    lines.append(
        f"{manifest['raw_records']} raw records = {manifest['accepted']} accepted "
        f"+ {sum(manifest['refused'].values())} refused; "
        f"{manifest['rows_per_accepted_record']:g} rows per accepted record"
    )
    lines += [f"{name:18}{file['rows']:>9} rows" for name, file in manifest["files"].items()]
    return "\n".join(lines)


def _describe_refusals(path: Path, counts: Mapping[str, int]) -> str:
    first: dict[str, str] = {}
    for _, refusal in read_jsonl(path):
        first.setdefault(refusal["reason"], f"{refusal['file']}:{refusal['line']}: {refusal['message']}"[:120])
    width = max(map(len, counts))
    return "\n".join(
        ["Refused, with the first of each kind"]
        + [f"{reason:{width}} {count:>6}  {first[reason]}" for reason, count in counts.items()]
    )


def _draw_histogram(key: str, counts: Mapping[str, int]) -> str:
    total, most = sum(counts.values()), max(counts.values())
    lines = [f"{key} ({total} rated)"]
    for score, count in counts.items():
        if not count and len(counts) > _MANY_SCORES:
            continue
        bar = "#" * round(_BAR * count / most) if most else ""
        share = f"{count / total:6.1%}" if total else f"{'-':>6}"
        lines.append(f"{score:>5} {count:>8} {share}  {bar}".rstrip())
    return "\n".join(lines)


def _describe_rated(paths: Sequence[Path], keys: Sequence[str]) -> str:
    turns: list[float] = []
    asked: list[float] = []
    answered: list[float] = []
    scores: list[list[float]] = []
    for _, row in _read_all(paths):
        turns.append(len(row["conversation"]))
        asked.append(sum(len(message["content"]) for message in row["conversation"]))
        answered.append(len(row["response"]))
        scores.append([_number(row["scores"].get(key)) for key in keys])
    lengths = {"turns": turns, "conversation, characters": asked, "response, characters": answered}
    table = np.array(scores, dtype=float).reshape(-1, len(keys))  # (rows, attributes), NaN where not rated
    return f"{_describe_lengths(lengths)}\n\n{_describe_correlations(keys, table, np.array(answered, dtype=float))}"


def _describe_pairs(paths: Sequence[Path]) -> str:
    subsets: Counter[str] = Counter()
    asked: list[float] = []
    chosen: list[float] = []
    rejected: list[float] = []
    longer = 0.0
    for _, pair in _read_all(paths):
        subsets[pair["subset"]] += 1
        asked.append(sum(len(message["content"]) for message in pair["conversation"]))
        chosen.append(float(np.mean([len(text) for text in pair["chosen"]])))
        rejected.append(float(np.mean([len(text) for text in pair["rejected"]])))
        longer += (np.sign(chosen[-1] - rejected[-1]) + 1) / 2
    lines = ["Pairs by subset"]
    lines += [f"{subset:28}{count:>7}" for subset, count in sorted(subsets.items())[:_MAX_SUBSETS]]
    if len(subsets) > _MAX_SUBSETS:
        lines.append(f"and {len(subsets) - _MAX_SUBSETS} more")
    lengths = {"conversation, characters": asked, "chosen, characters": chosen, "rejected, characters": rejected}
    share = f"chosen is longer in {longer / len(asked):.1%} of the pairs (ties half)" if asked else "no pairs"
    return "\n".join([*lines, "", _describe_lengths(lengths), share])


def _describe_lengths(lengths: Mapping[str, Sequence[float]]) -> str:
    lines = [f"{'Lengths':28}{'least':>9}{'median':>9}{'mean':>9}{'95 %':>9}{'most':>9}"]
    for name, values in lengths.items():
        if values:
            figures = [min(values), np.median(values), np.mean(values), np.quantile(values, 0.95), max(values)]
            lines.append(f"{name:28}" + "".join(f"{figure:>9.0f}" for figure in figures))
    return "\n".join(lines)


def _describe_correlations(keys: Sequence[str], table: np.ndarray, lengths: np.ndarray) -> str:
    """Pearson's r between attributes, and of each with the response's length, over the rows that have both."""
    names = [*keys, "length"]
    columns = [*table.T, lengths]
    width = max(map(len, names)) + 2
    header = " " * width + "".join(f"{name:>{width}}" for name in names)
    lines = ["Correlations (Pearson; length is the response's)", header]
    for index, name in enumerate(names):
        cells = [_correlate(columns[index], column) for column in columns[: index + 1]]
        lines.append(f"{name:{width}}" + "".join(f"{cell:>{width}}" for cell in cells))
    return "\n".join(lines)


def _correlate(first: np.ndarray, second: np.ndarray) -> str:
    both = ~(np.isnan(first) | np.isnan(second))
    first, second = first[both], second[both]
    if len(first) < 2 or first.std() == 0 or second.std() == 0:
        return "-"
    return f"{np.corrcoef(first, second)[0, 1]:.2f}"


def _render_examples(path: Path, rows: int, examples: int, max_characters: int) -> Iterator[str]:
    wanted = {round(step * (rows - 1) / max(examples - 1, 1)) for step in range(min(examples, rows))}
    for index, (_, row) in enumerate(read_jsonl(path)):
        if index not in wanted:
            continue
        if "completion" in row:
            texts = [row["prompt"][0]["content"], f">>> {row['completion'][0]['content']}"]
        else:
            texts = [f"[{message['role']}] {message['content']}" for message in row["conversation"]]
            texts += [f">>> chosen: {text}" for text in row["chosen"]]
            texts += [f">>> rejected: {text}" for text in row["rejected"]]
        title = f"{_RULE}\n{row['id']} ({path.name})\n{_RULE}"
        yield "\n".join([title, *(_cut(text, max_characters) for text in texts)])


def _read_all(paths: Iterable[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in paths:
        yield from read_jsonl(path)


def _number(score: int | None) -> float:
    return float("nan") if score is None else float(score)


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}\n[... {len(text) - most} characters ...]\n{text[len(text) - most + most // 2 :]}"
