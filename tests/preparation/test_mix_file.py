from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rmkit.data import DATASETS
from rmkit.errors import DataError, RubricError
from rmkit.preparation.mix_file import Mix, load_mix
from rmkit.rubric import load_rubric

Load = Callable[[str], Mix]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Reads a mix file, in a working directory with a prepared folder `runs/graded` and a mapping `my.yaml`."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "graded"
    folder.mkdir(parents=True)
    manifest = {"format_version": 1, "dataset": "graded", "files": {}, "rubric": load_rubric("graded").to_dict()}
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    text = "conversation: q\nresponse: r\nattributes: {overall: {range: [0, 1]}}\nrubric: overall\n"
    (tmp_path / "my.yaml").write_text(text, "utf-8")
    (tmp_path / "bare.yaml").write_text(text.replace("rubric: overall\n", ""), "utf-8")

    def load_text(text: str) -> Mix:
        (tmp_path / "mix.yaml").write_text(text, "utf-8")
        return load_mix(tmp_path / "mix.yaml")

    return load_text


def test_folders_raw_sets_and_mappings_stand_side_by_side(load: Load) -> None:
    mix = load("""
sources:
- {folder: runs/graded, weight: 0.5, rename: {correctness: exactness, verbosity: padding}}
- {dataset: helpsteer2, input: train.jsonl.gz, max_rows: 100}
- {mapping: my.yaml, input: [my.csv, more.csv], name: mine}
- {dataset: reward_bench}
""")
    assert [source.name for source in mix.sources] == ["graded", "helpsteer2", "mine", "reward_bench"]
    graded, helpsteer, mine, pairs = mix.sources
    assert (graded.folder, graded.prefix, graded.weight) == (Path("runs/graded"), "", 0.5)
    assert helpsteer.dataset == DATASETS["helpsteer2"] and helpsteer.inputs == ("train.jsonl.gz",)
    assert (helpsteer.max_rows, mine.prefix, mine.weight, pairs.rubric) == (100, "mine/", 1.0, None)
    assert mine.inputs == ("my.csv", "more.csv")
    assert mix.name == "mix" and mix.rubric is not None
    assert mix.rubric.keys == (
        "completeness", "exactness", "politeness", "safety", "padding", "helpfulness", "correctness", "coherence",
        "complexity", "verbosity", "overall",
    )  # fmt: skip
    assert mix.rubric["exactness"].description == load_rubric("graded")["correctness"].description
    assert mix.rubric["padding"].weight == 0


def test_two_meanings_of_one_attribute_are_refused_with_both_sources(load: Load) -> None:
    text = "sources:\n- {folder: runs/graded}\n- {dataset: helpsteer2}\n"
    with pytest.raises(RubricError, match="'graded' and 'helpsteer2' define the attribute 'correctness' differently"):
        load(text)
    mix = load(text + "rubric: helpsteer\n")
    assert mix.rubric == load_rubric("helpsteer")
    mix = load(text + "rubric: {attributes: [{key: verbosity, scale: [0, 9]}]}\n")
    assert mix.rubric is not None and (mix.rubric.name, mix.rubric["verbosity"].maximum) == ("mix", 9)


def test_pairs_alone_have_no_rubric(load: Load) -> None:
    assert load("sources: [{dataset: reward_bench}]").rubric is None
    with pytest.raises(DataError, match="no source has rated rows, so leave the rubric out"):
        load("sources: [{dataset: reward_bench}]\nrubric: overall\n")


def test_a_set_may_stand_twice_under_two_names(load: Load) -> None:
    text = "sources:\n- {dataset: helpsteer, input: a.jsonl}\n- {dataset: helpsteer, input: b.jsonl%s}\n"
    match = r"sources\[0\] and sources\[1\] both have ids that begin with 'helpsteer'; give one of them a name"
    with pytest.raises(DataError, match=match):
        load(text % "")
    assert [source.name for source in load(text % ", name: b").sources] == ["helpsteer", "b"]


def test_a_mix_within_a_mix_brings_the_names_of_its_sources(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "runs" / "graded" / "manifest.json"
    manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**manifest, "dataset": "old", "sources": [{"name": "my"}, {"name": "b"}]}), "utf-8")
    text = "sources:\n- {folder: runs/graded%s}\n- {mapping: my.yaml, input: x.csv}\n"
    with pytest.raises(DataError, match="both have ids that begin with 'my'"):
        load(text % "")
    assert [source.name for source in load(text % ", name: first").sources] == ["first", "my"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("sources: []", "sources must be a list of data sets"),
        ("source: [{folder: runs/graded}]", "unknown key 'source'; did you mean 'sources'?"),
        ("rubric: overall", "key 'sources' is missing"),
        ("sources: [{folder: runs/graded, wieght: 1}]", "sources[0]: unknown key 'wieght'; did you mean 'weight'?"),
        ("sources: [{weight: 1}]", "sources[0]: name a folder, a dataset or a mapping; found none of them"),
        ("sources: [{folder: a, dataset: b}]", "found folder and dataset"),
        ("sources: [{folder: runs/graded, rubric: graded}]", "key 'rubric' does not go with a folder"),
        ("sources: [{folder: runs/none}]", "runs/none has no manifest.json"),
        ("sources: [{dataset: graded}]", "'graded'; prepare it and name its folder"),
        ("sources: [{dataset: helpster}]", "there is no raw data set 'helpster'; choose"),
        ("sources: [{mapping: none.yaml}]", "none.yaml: can't be read"),
        ("sources: [{mapping: bare.yaml}]", "'bare' names no rubric; give it one with the key rubric"),
        ("sources: [{dataset: reward_bench, rubric: overall}]", "'reward_bench' gives pairs; leave the rubric out"),
        ("sources: [{dataset: helpsteer, rubric: overall}]", "has overall, none of which 'helpsteer' rates"),
        ("sources: [{dataset: helpsteer, rubric: nope}]", "no rubric 'nope'"),
        ("sources: [{dataset: helpsteer, rule: rank}]", "holds no comparisons"),
        ("sources: [{dataset: helpsteer, keep_derived: 1}]", "keep_derived must be true or false"),
        ("sources: [{dataset: helpsteer, input: [a, 5]}]", "input must be a file or hub id, or a list of them"),
        ("sources: [{folder: runs/graded, weight: 0}]", "above 0 and at most 1; found 0; to give a set more weight"),
        ("sources: [{folder: runs/graded, weight: 2}]", "found 2"),
        ("sources: [{folder: runs/graded, weight: .nan}]", "found nan"),
        ("sources: [{folder: runs/graded, weight: true}]", "found True"),
        ("sources: [{folder: runs/graded, max_rows: 0}]", "max_rows must be a whole number of at least 1"),
        ("sources: [{folder: runs/graded, max_rows: 1.5}]", "found 1.5"),
        ("sources: [{folder: runs/graded, rename: [a]}]", "rename must map old attribute keys to new ones"),
        ("sources: [{folder: runs/graded, rename: {a: b}}]", "sources[0]: there is no attribute 'a'"),
        ("sources: [{folder: runs/graded, rename: {safety: verbosity}}]", "two attributes would have the key"),
        ("sources: [{dataset: reward_bench, rename: {a: b}}]", "there is no attribute to rename"),
        ("sources: [{folder: runs/graded, name: a/b}]", "the name 'a/b' stands in row ids"),
        ("sources: [{folder: runs/graded}]\nrubric: overall\n", "has overall, none of which 'graded' rates"),
        ("sources: [{folder: runs/graded}]\nrubric: 5\n", "rubric must be a text"),
        ("sources: [{folder: runs/graded}]\nformat_version: 2\n", "format_version 2 is unknown"),
    ],
)  # fmt: skip
def test_what_a_mix_may_not_say(load: Load, text: str, match: str) -> None:
    with pytest.raises((DataError, RubricError)) as caught:
        load(text)
    assert match in str(caught.value)
