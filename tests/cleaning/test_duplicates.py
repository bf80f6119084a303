from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
import re
import subprocess
import sys
import tracemalloc
from array import array
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rmkit.cleaning.drop import Drop, Row
from rmkit.cleaning.duplicates import DuplicateIndex, Fingerprint, fingerprint
from rmkit.errors import DataError
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Message, PreferencePair, RatedResponse

MakeText = Callable[[Random, int], str]


def rated(prompt: str, response: str, **changes: Any) -> RatedResponse:
    return dataclasses.replace(
        RatedResponse("r", "s", (Message("user", prompt),), response, {"quality": 3}), **changes
    )


def pair(prompt: str, chosen: str, rejected: str) -> PreferencePair:
    return PreferencePair("p", "s", (Message("user", prompt),), (chosen,), (rejected,))


def reason(*rows: Row, near: bool = True, threshold: float = 0.8) -> str | None:
    """Why the last of these rows would be left out; all others must stay."""
    index = DuplicateIndex(threshold)
    drops = [index.add(f"row{number}", fingerprint(row, near)) for number, row in enumerate(rows)]
    assert drops[:-1] == [None] * (len(rows) - 1)
    return None if drops[-1] is None else drops[-1].reason


def fresh_drop(index: DuplicateIndex, found: Fingerprint) -> Drop | None:
    """What an index would say of a row, without keeping it in mind."""
    return copy.deepcopy(index).add("new", found)


def edit(rng: Random, text: str, share: float) -> str:
    """The text with this share of its words replaced, and spelt and spaced a little differently."""
    words = [f"word{rng.randrange(999)}" if rng.random() < share else word for word in text.split()]
    return rng.choice((" ", "  ", "\n")).join(words).replace(",", rng.choice((",", " ,", ";"))).swapcase()


def test_the_first_of_equal_rows_stays_and_is_named() -> None:
    index = DuplicateIndex()
    first, again = rated("Name a bird.", "A heron."), rated("Name a  bird.\n", " A heron.", scores={"quality": 1})
    assert index.add("set/1a", fingerprint(first, False)) is None
    assert index.add("set/2a", fingerprint(rated("Name a bird.", "A swift."), False)) is None
    drop = index.add("set/3a", fingerprint(again, False))
    assert drop == Drop("exact_duplicate", "it is the same as set/1a", {"row": "set/1a", "similarity": 1.0})
    assert len(index) == 2


def test_what_is_asked_differently_is_no_duplicate(make_text: MakeText) -> None:
    text = make_text(Random(0), 30)
    first = rated("Name a bird.", text)
    own = Rubric("own", (Attribute("quality", "Quality", "Is it polite?"),))
    other = Rubric("own", (Attribute("quality", "Quality", "Is it short?"),))
    assert reason(first, rated("Name a bird.", text, scores={"safety": 3})) is None
    assert reason(first, rated("Name a bird.", text, reference="A heron.")) is None
    assert reason(rated("Name a bird.", text, rubric=own), rated("Name a bird.", text, rubric=other)) is None
    assert (
        reason(rated("Name a bird.", text, rubric=own), rated("Name a bird.", text, rubric=own)) == "exact_duplicate"
    )
    spoken = rated("x", text, conversation=(Message("system", "Name"), Message("user", "a bird.")))
    assert reason(first, spoken, near=False) is None


def test_sides_of_pairs_count() -> None:
    assert reason(pair("Q", "a", "b"), pair("Q", "a", "b")) == "exact_duplicate"
    assert reason(pair("Q", "a", "b"), pair("Q", "b", "a")) is None
    lists = PreferencePair("p", "s", (Message("user", "Q"),), ("a", "b"), ("c",))
    assert reason(lists, dataclasses.replace(lists, chosen=("a",), rejected=("b", "c"))) is None
    assert reason(pair("Q", "a", "b"), rated("Q", "a\nb")) is None


def test_conversation_and_response_must_both_be_near(make_text: MakeText) -> None:
    rng = Random(1)
    prompt, other_prompt = make_text(rng, 60), make_text(rng, 60)
    response, other_response = make_text(rng, 12), make_text(rng, 12)
    first = rated(prompt, response)
    assert reason(first, rated(edit(rng, prompt, 0.01), edit(rng, response, 0.01))) == "near_duplicate"
    assert reason(first, rated(prompt, response + " And that is all.")) == "near_duplicate"
    assert reason(first, rated(prompt, other_response)) is None  # two responses to one long prompt
    assert reason(first, rated(other_prompt, response)) is None  # one stock answer to two prompts
    assert reason(first, rated(edit(rng, prompt, 0.01), response), near=False) is None
    assert reason(first, rated(edit(rng, prompt, 0.02), response), threshold=1.0) is None
    assert reason(rated("Is it?", "Yes."), rated("Is it?", "No.")) is None
    assert reason(rated("What is 2+2?", "It is 4."), rated("What is 2+3?", "It is 5.")) is None
    assert reason(rated("Smile", "🙂"), rated("Smile", "🙃")) is None


def test_both_sides_of_a_pair_must_be_near(make_text: MakeText) -> None:
    rng = Random(2)
    long, short, other = make_text(rng, 60), make_text(rng, 2), make_text(rng, 2)
    assert reason(pair("Q", long, short), pair("q!", edit(rng, long, 0.01), short)) == "near_duplicate"
    assert reason(pair("Q", long, short), pair("Q", long, other)) is None


def true_similarity(one: RatedResponse, other: RatedResponse) -> float:
    """The smaller Jaccard similarity of prompts and responses over runs of three words, worked out plainly."""

    def runs(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text.lower())
        return set(zip(words, words[1:], words[2:], strict=False))

    found = []
    for get in (lambda row: row.conversation[0].content, lambda row: row.response):
        a, b = runs(get(one)), runs(get(other))
        found.append(len(a & b) / len(a | b))
    return min(found)


def test_planted_near_copies_are_found_and_siblings_are_not(make_text: MakeText) -> None:
    rng = Random(3)
    index = DuplicateIndex()
    originals: list[RatedResponse] = []
    for _ in range(200):
        prompt = make_text(rng, rng.randint(3, 20))
        originals += [rated(prompt, make_text(rng, rng.randint(5, 25))) for _ in range(3)]
    wrong = sum(index.add(f"row{n}", fingerprint(row, True)) is not None for n, row in enumerate(originals))
    found: dict[str, list[bool]] = {"near": [], "far": []}
    for number, row in enumerate(originals):
        share = rng.choice((0.005, 0.01, 0.06, 0.1))
        edited = rated(edit(rng, row.conversation[0].content, share), edit(rng, row.response, share))
        similarity = true_similarity(row, edited)
        if 0.7 < similarity < 0.87:
            continue  # so near the threshold that an estimate may fall on either side
        drop = fresh_drop(index, fingerprint(edited, True))
        found["near" if similarity >= 0.87 else "far"].append(drop is not None and drop.found["row"] == f"row{number}")
    counts = {kind: (sum(hits), len(hits)) for kind, hits in found.items()}
    print(counts, wrong)
    assert wrong == 0
    assert counts["near"][1] > 150 and counts["near"][0] >= 0.98 * counts["near"][1]
    assert counts["far"][1] > 150 and counts["far"][0] <= 0.02 * counts["far"][1]


def test_the_estimate_is_near_the_similarity() -> None:
    words = [f"w{number}" for number in range(400)]
    for shared in (340, 370, 390):
        changed = words[:shared] + [f"x{number}" for number in range(400 - shared)]
        index = DuplicateIndex(0.7)
        index.add("first", fingerprint(rated("Q", " ".join(words)), True))
        drop = index.add("copy", fingerprint(rated("Q", " ".join(changed)), True))
        true = (shared - 2) / (398 + 398 - (shared - 2))
        assert drop is not None and abs(drop.found["similarity"] - true) < 0.15


def test_threshold_is_checked() -> None:
    with pytest.raises(DataError, match=r"threshold 0.5 is outside 0.7-1"):
        DuplicateIndex(0.5)


def random_fingerprint(rng: Random) -> Fingerprint:
    return Fingerprint(rng.randbytes(16), rng.randbytes(128), rng.randbytes(48))


def test_many_rows_are_told_apart_in_little_memory() -> None:
    rng = Random(4)
    found = [random_fingerprint(rng) for _ in range(3_000)]
    ids = [f"helpsteer2/{number:06d}a" for number in range(len(found))]
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    index = DuplicateIndex()
    assert not any(map(index.add, ids, found))
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    print(f"{index.bytes_per_row:.0f} bytes per row")
    assert index.num_bytes == pytest.approx(used, rel=0.02)
    assert 250 < index.bytes_per_row < 700
    exact = DuplicateIndex()
    assert not any(exact.add(row_id, Fingerprint(item.key)) for row_id, item in zip(ids, found, strict=True))
    assert exact.bytes_per_row < 120
    # The tables have grown many times: each row is still there, by its key and by each of its bands.
    for row_id, item in list(zip(ids, found, strict=True))[::97]:
        same, near = index.add("new", item), index.add("new", dataclasses.replace(item, key=b"?" * 16))
        assert same is not None and near is not None
        assert (same.reason, same.found["row"]) == ("exact_duplicate", row_id)
        assert (near.reason, near.found["row"]) == ("near_duplicate", row_id)
    assert len(index) == len(found)


def test_thousands_of_variations_are_not_all_compared() -> None:
    rng = Random(6)
    bands = rng.randbytes(48)
    index = DuplicateIndex()
    copied = dataclasses.replace(random_fingerprint(rng), bands=bands)
    assert index.add("first", copied) is None
    assert not any(
        index.add(f"row{n}", dataclasses.replace(random_fingerprint(rng), bands=bands)) for n in range(2_000)
    )
    assert [len(list(index._by_band.find(tag))) for tag in array("I", bands)] == [64] * 12
    drop = index.add("copy", dataclasses.replace(copied, key=b"?" * 16))
    assert drop is not None and drop.found["row"] == "first"


PROBE = """
import pickle, sys
from rmkit.cleaning.duplicates import fingerprint
rows = pickle.load(open(sys.argv[1], "rb"))
sys.stdout.buffer.write(pickle.dumps([fingerprint(row, True) for row in rows]))
"""


def test_every_process_makes_the_same_fingerprints(tmp_path: Path, make_text: MakeText) -> None:
    rng = Random(5)
    rows: list[Row] = [rated(make_text(rng, 3), make_text(rng, n)) for n in range(1, 20)]
    rows += [pair("Q", "Café ①", "日本語のテキスト"), rated("\ud83d", "half a pair")]
    (tmp_path / "rows").write_bytes(pickle.dumps(rows))
    expected = [fingerprint(row, True) for row in rows]
    for seed in ("1", "2"):
        command = [sys.executable, "-c", PROBE, str(tmp_path / "rows")]
        result = subprocess.run(command, capture_output=True, env={"PYTHONHASHSEED": seed}, timeout=600)
        assert result.returncode == 0, result.stderr
        assert pickle.loads(result.stdout) == expected


def test_fingerprints_do_not_change_between_machines_and_versions() -> None:
    found = fingerprint(rated("Name three birds that swim.", "Ducks, swans and coots swim on most lakes."), True)
    assert found.key.hex() == "c2be3ece72b1354209231e149cd14bf7"
    assert found.signature.hex()[:32] == "5f9b62e0169e1fc3abfda043ac96203e"
    assert found.bands.hex()[:32] == "e656aaea00cc5036a69cf53c559d7907"
