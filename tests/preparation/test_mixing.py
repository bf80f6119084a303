from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from rmkit.cleaning.balance import draw
from rmkit.cleaning.drop import Drop
from rmkit.cleaning.options import CleaningOptions
from rmkit.data import DATASETS
from rmkit.data.dataset import Dataset, RawComparison, RawResponse, RecordError
from rmkit.errors import DataError
from rmkit.preparation.conversion import RecordConverter, Refusal, Row, needs_rubric, row_to_dict
from rmkit.preparation.folder import PAIR_FILES, RATED_FILES, write_prepared
from rmkit.preparation.mix_file import Mix, MixSource
from rmkit.preparation.mixing import (
    PreparedReader,
    Sample,
    draw_sample,
    find_share,
    list_files,
    list_sources,
    prepare_mix,
    rename_dataset,
)
from rmkit.preparation.published import PreparationSettings
from rmkit.raw.files import RawRecord
from rmkit.raw.source import open_source
from rmkit.row_files import read_rows
from rmkit.rubric import Attribute, Rubric, load_rubric
from rmkit.schema import Message, PreferencePair, RatedResponse

HELPSTEER = load_rubric("helpsteer")
RAW = {"prompt": "Name a bird.", "response": "The wren.", "helpfulness": 3, "correctness": 4, "coherence": 3}
RAW |= {"complexity": 2, "verbosity": 2}


def make_source(**given: Any) -> MixSource:
    """A source of a mix; HelpSteer's raw set if nothing else is said."""
    fields: dict[str, Any] = dict.fromkeys(("folder", "rule", "max_rows"))
    fields |= {"name": "helpsteer", "prefix": "", "inputs": (), "dataset": DATASETS["helpsteer"], "rubric": HELPSTEER}
    return MixSource(**(fields | {"keep_derived": True, "weight": 1.0} | given))


def make_row(number: int, **given: Any) -> RatedResponse:
    """A row of a prepared folder."""
    fields = {"id": f"helpsteer/{number:06d}a", "source": "helpsteer", "response": "The wren."}
    scores = {"helpfulness": 4, "correctness": 5}
    return RatedResponse(
        **(fields | {"conversation": (Message("user", f"Bird {number}?"),), "scores": scores} | given)
    )


# Weights.


def test_a_weight_keeps_its_share_by_the_rows_ids_alone() -> None:
    rows = [make_row(number) for number in range(4000)]
    kept = [row.id for row in rows if Sample(0.25, 0).check(row) is row]
    assert 900 < len(kept) < 1100
    assert kept == [row.id for row in reversed(rows) if not isinstance(Sample(0.25, 0).check(row), Drop)][::-1]
    assert set(kept) < {row.id for row in rows if Sample(0.5, 0).check(row) is row}  # a larger share has the same rows
    assert set(kept) != {row.id for row in rows if Sample(0.25, 1).check(row) is row}
    assert all(Sample(1.0, 0).check(row) is row for row in rows)
    drop = next(found for found in map(Sample(0.25, 0).check, rows) if isinstance(found, Drop))
    assert (drop.reason, drop.message) == ("weight", "one row in 4 is kept")


def test_weights_and_balance_draw_apart() -> None:
    kept = [row for row in map(make_row, range(4000)) if Sample(0.25, 0).check(row) is row]
    assert 0.4 < sum(draw(row.id, 0) < 0.5 for row in kept) / len(kept) < 0.6


# Raw sets under other names.


def test_a_renamed_set_rates_other_keys_under_its_name() -> None:
    rubric = Rubric("two", tuple(HELPSTEER.select(["correctness", "verbosity"])))
    dataset = rename_dataset(make_source(name="hs", rubric=rubric, rename={"correctness": "truth"}, prefix="hs/"))
    assert list(dataset.scales["truth"]) == [0, 4] and dataset.numeric == tuple(HELPSTEER.keys)
    assert pickle.loads(pickle.dumps(dataset)) == dataset
    target = Rubric("mix", (Attribute("verbosity", "Verbosity"), Attribute("truth", "Truth", minimum=0, maximum=8)))
    outcome = RecordConverter(dataset, target).convert(RawRecord(1, dict(RAW)), 7, "raw.jsonl")
    assert not isinstance(outcome, Refusal)
    (row,) = outcome
    assert isinstance(row, RatedResponse)
    assert (row.id, row.source, row.scores) == ("hs/000007a", "hs", {"verbosity": 3, "truth": 8})


def test_comparisons_and_pairs_are_renamed_too() -> None:
    def read(record: Any) -> Any:
        conversation = (Message("user", "Q?"),)
        yield RawComparison(conversation, ("a", "b"), (1, 2), id="7")
        yield RawComparison(conversation, ("a", "b"), (1, 2))
        yield PreferencePair("easy/1", "easy", conversation, ("a",), ("b",))
        yield RawResponse(conversation, "a", {"own": 3}, rubric=Rubric("own", (Attribute("own", "Own"),)))
        yield RawResponse(conversation, "a", {"helpfulness": 3, "other": 5}, derived=("helpfulness",))

    dataset = Dataset("d", "", "", "", read)
    rename = {"overall": "quality", "own": "changed", "helpfulness": "help"}
    found = list(rename_dataset(make_source(dataset=dataset, name="n", prefix="n/", rename=rename)).read({}))
    assert [getattr(item, "id", None) for item in found[:3]] == ["n/7", "", "n/easy/1"]
    assert [getattr(item, "attribute", None) for item in found[:2]] == ["quality", "quality"]
    assert isinstance(found[3], RawResponse) and dict(found[3].ratings) == {"own": 3}
    assert isinstance(found[4], RawResponse)
    assert (dict(found[4].ratings), found[4].derived) == ({"help": 3}, ("help",))


def test_a_response_with_a_rubric_of_its_own_keeps_its_raw_scale() -> None:
    own = Rubric("own", (Attribute("criterion", "Criterion"),))

    def read(record: Any) -> Any:
        yield RawResponse((Message("user", "Q?"),), "a", {"criterion": record["rating"]}, rubric=own)

    dataset = Dataset("d", "", "", "", read, scales={"criterion": (1, 10)})
    source = make_source(dataset=dataset, name="d", rubric=own, rename={"criterion": "other"})
    target = Rubric("mix", (Attribute("other", "Other"),))
    outcome = RecordConverter(rename_dataset(source), target).convert(RawRecord(1, {"rating": 10}), 0, "raw")
    assert not isinstance(outcome, Refusal)
    (row,) = outcome
    assert isinstance(row, RatedResponse) and (row.scores, row.rubric) == ({"criterion": 5}, own)


# Prepared folders.


def test_rows_of_a_folder_move_to_the_scales_of_the_mix() -> None:
    target = Rubric(
        "mix", (Attribute("truth", "Truth", minimum=0, maximum=8), Attribute("helpfulness", "Helpfulness"))
    )
    row = make_row(1, derived=("correctness",), metadata={"a": 1}, reference="Ref.")
    data = row_to_dict(row, HELPSTEER)
    (same,) = PreparedReader(HELPSTEER, HELPSTEER, {}, "")(data)
    assert same == row
    (moved,) = PreparedReader(HELPSTEER, target, {"correctness": "truth"}, "")(data)
    expected = make_row(
        1, derived=("truth",), metadata={"a": 1}, reference="Ref.", scores={"truth": 8, "helpfulness": 4}
    )
    assert moved == expected
    (named,) = PreparedReader(HELPSTEER, target, {"correctness": "truth"}, "first/")(data)
    assert isinstance(named, RatedResponse)
    assert (named.id, named.source) == ("first/helpsteer/000001a", "first")
    only = Rubric("mix", (Attribute("coherence", "Coherence"),))
    with pytest.raises(RecordError, match="rates helpfulness, correctness, none of which the mix has") as caught:
        list(PreparedReader(HELPSTEER, only, {}, "")(data))
    assert caught.value.reason == "no_rating"


def test_a_row_with_a_rubric_of_its_own_keeps_it() -> None:
    own = Rubric("own", (Attribute("correctness", "Correctness", maximum=9),))
    row = make_row(1, rubric=own, scores={"correctness": 9})
    (found,) = PreparedReader(HELPSTEER, HELPSTEER, {"correctness": "truth"}, "")(row_to_dict(row, HELPSTEER))
    assert found == row


def test_packed_columns_of_parquet_are_read() -> None:
    own = Rubric("own", (Attribute("correctness", "Correctness", maximum=9),))
    for row in (make_row(1, metadata={"a": [1]}), make_row(2, rubric=own, scores={"correctness": 9})):
        data = row_to_dict(row, HELPSTEER)
        packed = {key: json.dumps(value) if value is not None else None for key, value in data.items()}
        packed = data | {key: packed[key] for key in ("scores", "rubric", "metadata")}
        (found,) = PreparedReader(HELPSTEER, HELPSTEER, {}, "")(packed)
        assert found == row


@pytest.mark.parametrize(
    "change",
    [
        {"scores": {"helpfulness": 6}}, {"scores": {"other": 3}}, {"scores": "{"}, {"scores": {"helpfulness": None}},
        {"conversation": []}, {"response": 5}, {"rubric": {"attributes": []}}, {"chosen": ["a"]}, {"metadata": 5},
    ],
)  # fmt: skip
def test_what_is_no_row_is_refused(change: dict[str, Any]) -> None:
    data = row_to_dict(make_row(1), HELPSTEER) | change
    with pytest.raises(RecordError) as caught:
        list(PreparedReader(HELPSTEER, HELPSTEER, {}, "")(data))
    assert caught.value.reason in ("broken_row", "no_rating")


@pytest.mark.parametrize("row_format", ["jsonl", "parquet"])
def test_a_folder_is_read_as_it_was_written(tmp_path: Path, row_format: str) -> None:
    rows = [make_row(number, metadata={"n": number}) for number in range(30)]
    pair = PreferencePair("p/1", "p", (Message("user", "Which?"),), ("Good.",), ("Bad.", "Worse."), {"m": None})
    outcomes: list[tuple[Row, ...]] = [*((row,) for row in rows), (pair,)]
    origin = {"dataset": "helpsteer", "source": {"name": "x"}}
    files = (*RATED_FILES, *PAIR_FILES)
    write_prepared(tmp_path / "f", outcomes, files, HELPSTEER, 0, 0.3, origin, row_format)
    assert list(list_files(tmp_path / "f")) == ["train", "validation", "pairs"]
    mix = Mix("mix", (make_source(folder=tmp_path / "f", dataset=None),), HELPSTEER)
    rated, pairs = list_sources(mix, 0)
    found = [[row for given in source.inputs for row in read_all(source.dataset, given)] for source in (rated, pairs)]
    assert sorted(found[0], key=lambda row: getattr(row, "id", "")) == rows
    assert found[1] == [pair]
    assert rated.notes["folder"] == "f" and needs_rubric(rated.dataset) and not needs_rubric(pairs.dataset)
    path = tmp_path / "f" / f"train.{row_format}"
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(DataError, match="is missing or not the file that was prepared"):
        list_sources(mix, 0)


def read_all(dataset: Dataset, given: str) -> list[Any]:
    """What a data set reads from a file."""
    return [row for record in open_source(dataset, given).records for row in dataset.read(record.content)]  # type: ignore[arg-type]


def test_a_limit_is_a_share(tmp_path: Path) -> None:
    ids = [make_row(number).id for number in range(500)]
    share = find_share(ids, 40, 0)
    kept = [row_id for row_id in ids if draw_sample(row_id, 0) < share]
    assert len(kept) == 40
    assert set(kept) < {row_id for row_id in ids if draw_sample(row_id, 0) < find_share(ids, 60, 0)}
    assert find_share(ids, 500, 0) == find_share(ids, 10**6, 0) == 1.0


def test_shortened_rows_of_a_folder_stay_beside_their_siblings(tmp_path: Path) -> None:
    turns = {"turns_left_out": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]}
    rows = []
    for number in range(40):
        whole = (Message("user", "Hi."), Message("assistant", "Hello."), Message("user", f"Bird {number}?"))
        rows += [make_row(2 * number, conversation=whole), make_row(2 * number + 1, metadata=turns, response="Kite.")]
        rows[-1] = dataclasses.replace(rows[-1], conversation=whole[2:])
    rows.append(dataclasses.replace(rows[1], id="helpsteer/000099a"))
    folder, mix = tmp_path / "folder", tmp_path / "mix.yaml"
    write_prepared(folder, [(row,) for row in rows], RATED_FILES, HELPSTEER, 0, 0.5, {"dataset": "a", "source": {}})
    mix.write_text(f"sources: [{{folder: {json.dumps(str(folder))}}}]\n", "utf-8")
    settings = PreparationSettings(seed=3, validation_fraction=0.5, cleaning=CleaningOptions(duplicates="exact"))
    manifest = prepare_mix(mix, tmp_path / "out", settings)
    assert (manifest["rows"], manifest["turns_left_out"]) == (80, 40)
    sides: dict[str, list[str]] = {}
    for name in ("train", "validation"):
        for _, row in read_rows(tmp_path / "out", name):
            sides.setdefault(row["conversation"][-1]["content"], []).append(name)
    assert all(len(found) == 2 and len(set(found)) == 1 for found in sides.values())
    assert {name for found in sides.values() for name in found} == {"train", "validation"}
