from __future__ import annotations

import multiprocessing
import sqlite3
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from rmkit.errors import DataError
from rmkit.rewards.judgment_cache import JudgmentCache
from rmkit.schema import Judgment
from rmkit.scores import ScoreDistribution


def judgment(share: float) -> Judgment:
    return Judgment({"truth": ScoreDistribution((1, 2), (1 - share, share), 0.1)}, share, 12, True)


def test_what_was_written_comes_back_exactly(tmp_path: Path) -> None:
    cache = JudgmentCache(tmp_path / "cache", "judge")
    assert cache.read(["a"]) == {}
    cache.write({"a": judgment(1 / 3), "half \ud83d": judgment(0.1)})
    assert cache.read(["b", "a", "half \ud83d"]) == {"a": judgment(1 / 3), "half \ud83d": judgment(0.1)}
    cache.write({"a": judgment(0.5)})
    assert cache.read(["a"]) == {"a": judgment(0.5)}
    assert JudgmentCache(tmp_path / "cache", "another judge").read(["a"]) == {}


def test_more_than_one_statement_takes(tmp_path: Path) -> None:
    cache = JudgmentCache(tmp_path / "cache", "judge")
    cache.write({str(number): judgment(number / 2000) for number in range(1200)})
    found = cache.read(map(str, range(2000)))
    assert found == {str(number): judgment(number / 2000) for number in range(1200)}


def test_several_processes_write_at_a_time(tmp_path: Path) -> None:
    cache = JudgmentCache(tmp_path / "cache", "judge")
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in [pool.submit(cache.write, {str(number): judgment(number / 100)}) for number in range(40)]:
            done.result(timeout=60)
    assert len(cache.read(map(str, range(40)))) == 40


def test_what_is_no_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("These are my notes. " * 100)
    with pytest.raises(DataError, match=r"notes.txt: can't be used as a cache"):
        JudgmentCache(tmp_path / "notes.txt", "judge").read(["a"])
    with pytest.raises(DataError, match="can't be used as a cache"):
        JudgmentCache(tmp_path / "missing" / "cache", "judge").write({"a": judgment(0.5)})


@pytest.mark.parametrize("row", ["garbage", "{}", "null", '{"attributes": {}, "aggregate": 7}'])
def test_a_row_that_is_no_judgement_is_no_number(tmp_path: Path, row: str) -> None:
    cache = JudgmentCache(tmp_path / "cache", "judge")
    cache.write({"a": judgment(0.5)})
    with sqlite3.connect(tmp_path / "cache") as database:
        database.execute("UPDATE judgments SET judgment = ?", [row])
    with pytest.raises(DataError, match="is no judgement"):
        cache.read(["a"])
