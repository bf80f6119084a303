"""`rmkit.scoring.run` with a tiny judge in this process."""

from __future__ import annotations

import json
import shutil
from statistics import fmean

import pytest

from rmkit.engines.transformers import TransformersEngine
from rmkit.errors import DataError, JudgeError
from rmkit.jsonl import write_jsonl
from rmkit.judge import Judge
from rmkit.judge_encoder import JudgeEncoder
from rmkit.manifest import read_json, sha256_file
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Judgment, Message
from rmkit.scoring.folder import ScoreFolder, to_record
from rmkit.scoring.items import ScoreInput, ScoreItem
from rmkit.scoring.options import identify_judge
from rmkit.scoring.run import judge_items, score_file, summarise

RUBRIC = Rubric("two", (Attribute("helpfulness", "Helpfulness"), Attribute("verbosity", "Verbosity", weight=0.5)))
SETTINGS = {"judge": "tiny", "engine": "transformers"}


@pytest.fixture(scope="module")
def judges(tiny, tiny_tokenizer):
    """`judges(max_length)`: the same tiny judge with room for more or fewer tokens."""
    tokenizer = tiny_tokenizer("split_digits")
    model = tiny.build_model(len(tokenizer))

    def build(max_length=2048):
        return Judge(JudgeEncoder(tokenizer, RUBRIC), TransformersEngine(model), max_length=max_length)

    return build


@pytest.fixture
def pairs(tmp_path):
    """Eleven pairs, one of them with two and three responses: 25 responses."""
    rows = [
        {
            "id": f"pair-{index}",
            "subset": "even" if index % 2 == 0 else "odd",
            "conversation": f"List {index} words.",
            "chosen": ["red green blue"[: index + 3]] * (2 if index == 4 else 1),
            "rejected": [f"no, not {index} of them"] * (3 if index == 4 else 1),
        }
        for index in range(11)
    ]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    return ScoreInput(tmp_path / "pairs.jsonl", "pairs")


def read_scores(folder):
    return [json.loads(line) for line in (folder / "scores.jsonl").read_text("utf-8").splitlines()]


def never():
    raise AssertionError("the judge was loaded, but nothing was left to judge")


def test_file_of_pairs(judges, pairs, tmp_path):
    out = tmp_path / "out"
    summary = score_file(judges, pairs, out, SETTINGS, batch_size=4)
    records = read_scores(out)
    assert [(r["id"], r["side"], r["index"]) for r in records] == [item.key for item in pairs.items()]
    assert summary.records == len(records) == 25
    for record in records:
        assert list(record["attributes"]) == ["helpfulness", "verbosity"]
        for distribution in record["attributes"].values():
            assert sum(distribution["probabilities"]) == pytest.approx(1, abs=1e-9)
        assert record["error"] is None
        assert record["prompt_tokens"] > 50
    masses = [found["outside_mass"] for record in records for found in record["attributes"].values()]
    assert summary.outside_mass == pytest.approx(fmean(masses))
    assert f"\noutside mass   {fmean(masses):.4f} (mean; given to no score)\n" in summary.render()
    manifest = read_json(out / "manifest.json")
    assert Rubric.from_dict(manifest["rubric"]) == RUBRIC
    assert manifest["input_sha256"] == sha256_file(pairs.path)
    assert (manifest["input"], manifest["judge"], manifest["readout"]) == ("pairs.jsonl", "tiny", "mean")
    assert (manifest["records"], manifest["errors"], manifest["truncated"]) == (25, {}, 0)
    assert list(ScoreInput(out / "pairs.jsonl", "pairs").pairs()) == list(pairs.pairs())
    judged = judges().score(["List 0 words."] * 2, ["red", "no, not 0 of them"])
    for record, judgment in zip(records[:2], judged, strict=True):
        assert record["aggregate"] == pytest.approx(judgment.aggregate, abs=1e-5)


def test_a_log_gets_the_progress_of_a_run_that_takes_long(judges, pairs, tmp_path, monkeypatch, capsys):
    score_file(judges, pairs, tmp_path / "short", SETTINGS, batch_size=4)
    assert "judging" not in capsys.readouterr().err
    monkeypatch.setattr("rmkit.scoring.run._LOG_SECONDS", 0.001)
    score_file(judges, pairs, tmp_path / "long", SETTINGS, batch_size=4)
    assert "| 8/25 [" in capsys.readouterr().err


def test_goes_on_after_any_cut_with_the_same_batches(judges, pairs, tmp_path):
    whole = tmp_path / "whole"
    score_file(judges, pairs, whole, SETTINGS, batch_size=4)
    lines = (whole / "scores.jsonl").read_bytes().splitlines(keepends=True)
    for kept, half in ((0, 1), (3, 0), (4, 17), (13, 200), (24, 0), (24, -1), (25, 0)):
        out = tmp_path / f"cut-{kept}-{half}"
        shutil.copytree(whole, out)
        if kept < 20:  # killed on the way; else someone cut the file of a complete folder
            (out / "manifest.json").unlink()
        (out / "scores.jsonl").write_bytes(b"".join(lines[:kept]) + b"".join(lines[kept:])[:half])
        batches = []

        def load(batches=batches):
            class Recording(Judge):
                def score(self, conversations, *arguments):
                    batches.append(len(conversations))
                    return super().score(conversations, *arguments)

            judge = judges()
            return Recording(judge.encoder, judge.engine)

        score_file(load, pairs, out, SETTINGS, batch_size=4)
        assert sum(batches) == 25 - kept
        assert batches[1:] == [4] * (len(batches) - 2) + [1] * (len(batches) > 1)
        for name in ("manifest.json", "pairs.jsonl", "settings.json"):
            assert (out / name).read_bytes() == (whole / name).read_bytes()
        for record, expected in zip(read_scores(out), read_scores(whole), strict=True):
            assert (record["id"], record["side"], record["index"]) == tuple(
                expected[k] for k in ("id", "side", "index")
            )
            assert record["aggregate"] == pytest.approx(expected["aggregate"], abs=1e-5)
        if kept % 4 == 0:
            assert (out / "scores.jsonl").read_bytes() == (whole / "scores.jsonl").read_bytes()


def test_complete_folder_needs_no_judge(judges, pairs, tmp_path):
    first = score_file(judges, pairs, tmp_path / "out", SETTINGS, batch_size=32)
    again = score_file(never, pairs, tmp_path / "out", SETTINGS, batch_size=8, retry_errors=True)
    assert (first.was_complete, again.was_complete) == (False, True)
    assert again.render() == "already complete: nothing was left to judge\n" + first.render()
    with pytest.raises(DataError, match="another --limit: null then, 2 now"):
        score_file(never, ScoreInput(pairs.path, "pairs", 2), tmp_path / "out", SETTINGS, batch_size=8)


def test_changed_input_is_refused(judges, pairs, tmp_path):
    score_file(judges, pairs, tmp_path / "out", SETTINGS, batch_size=32)
    pairs.path.write_text(pairs.path.read_text().replace("List 3", "Name 3"))
    with pytest.raises(DataError, match=r"another --input \(the content of the file\)"):
        score_file(never, pairs, tmp_path / "out", SETTINGS, batch_size=32)


def test_bad_input_is_found_before_the_judge_is_loaded(tmp_path):
    path = tmp_path / "input.jsonl"
    for text, message in (
        ("", "no rows, so there is nothing to score"),
        ('{"id": 1, "prompt": "x", "response": "y"}\n' * 2, "stands in line 1 too"),
        ('{"id": 1, "prompt": "x", "response": "y"}\nhello\n', r"input\.jsonl:2: not JSON"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            score_file(never, ScoreInput(path, "responses"), tmp_path / "out", SETTINGS, batch_size=4)
        assert not (tmp_path / "out").exists()


@pytest.fixture
def responses(tmp_path):
    """Four responses: a good one, an unreadable row, one that is too long for 512 tokens, a good one."""
    rows = [
        {"prompt": "List a word.", "response": "red"},
        {"response": "red"},
        {"prompt": "List " + "many " * 200 + "words.", "response": "green"},
        {"prompt": "List a word.", "response": "blue"},
    ]
    write_jsonl(tmp_path / "responses.jsonl", rows)
    return ScoreInput(tmp_path / "responses.jsonl", "responses")


def test_errors_are_final_until_retried(judges, responses, tmp_path):
    out = tmp_path / "out"
    summary = score_file(lambda: judges(512), responses, out, SETTINGS, batch_size=3)
    assert dict(summary.errors) == {"DataError": 1, "PromptTooLongError": 1}
    assert "errors         2 (DataError 1, PromptTooLongError 1)" in summary.render()
    assert read_json(out / "manifest.json")["errors"] == {"DataError": 1, "PromptTooLongError": 1}
    before = read_scores(out)
    assert [record["error"] is None for record in before] == [True, False, False, True]
    assert all(record["aggregate"] is None and not record["attributes"] for record in before[1:3])
    assert "responses.jsonl:2: neither 'conversation' nor 'prompt'" in before[1]["error"]

    assert score_file(never, responses, out, SETTINGS, batch_size=3).was_complete
    summary = score_file(judges, responses, out, SETTINGS, batch_size=3, retry_errors=True)
    after = read_scores(out)
    assert dict(summary.errors) == read_json(out / "manifest.json")["errors"] == {"DataError": 1}
    assert [*after[:2], after[3]] == [*before[:2], before[3]]
    assert after[2]["error"] is None
    (expected,) = judges().score(["List " + "many " * 200 + "words."], ["green"])
    assert after[2]["aggregate"] == pytest.approx(expected.aggregate, abs=1e-5)
    assert score_file(never, responses, out, SETTINGS, batch_size=3, retry_errors=True).was_complete


def test_retry_of_an_unfinished_folder_also_goes_on(judges, responses, tmp_path):
    out = tmp_path / "out"
    score_file(lambda: judges(512), responses, out, SETTINGS, batch_size=1)
    (out / "manifest.json").unlink()
    lines = (out / "scores.jsonl").read_bytes().splitlines(keepends=True)
    (out / "scores.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:9])
    summary = score_file(judges, responses, out, SETTINGS, batch_size=1, retry_errors=True)
    assert (summary.records, dict(summary.errors)) == (4, {"DataError": 1})


def test_nothing_but_errors(judges, responses, tmp_path):
    summary = score_file(lambda: judges(64), responses, tmp_path / "out", SETTINGS, batch_size=32)
    assert summary.all_failed
    assert summary.means == {}
    assert summary.outside_mass is None
    first = read_scores(tmp_path / "out")[0]
    assert f"\nfirst error    {first['id']}: PromptTooLongError: " in summary.render()
    assert summary.render().count("\n") == 4


def test_items_with_a_reference_and_a_rubric_of_their_own(judges):
    own = Rubric("own", (Attribute("tone", "Tone", maximum=3),))
    conversation = (Message("user", "List a word."),)
    items = [
        ScoreItem("a", "response", 0, conversation, "red"),
        ScoreItem("b", "response", 0, error="DataError: no row"),
        ScoreItem("c", "response", 0, conversation, "red", reference="green"),
        ScoreItem("d", "response", 0, conversation, "red", rubric=own),
    ]
    plain, unread, referenced, ruled = judge_items(judges(), items)
    assert unread == {
        "id": "b",
        "side": "response",
        "index": 0,
        **Judgment({}, None, error="DataError: no row").to_dict(),
    }
    assert referenced["prompt_tokens"] > plain["prompt_tokens"]
    assert list(ruled["attributes"]) == ["tone"]
    assert ruled["attributes"]["tone"]["values"] == [1, 2, 3]


def test_summary_counts_ties_and_errors(tmp_path):
    aggregates = {
        "won": ([0.75], [0.25]),
        "tied": ([0.5], [0.5]),
        "lost": ([0.25], [0.75]),
        "failed": ([None], [0.25]),
        "several": ([0.75, 0.25], [0.5, 0.25]),  # two wins, a tie and a loss: 2.5 of 4
    }
    with ScoreFolder.open(tmp_path, SETTINGS) as folder:
        folder.append(
            to_record(ScoreItem(row_id, side, index), Judgment({}, value, truncated=row_id == "won", error=error))
            for row_id, sides in aggregates.items()
            for side, values in zip(("chosen", "rejected"), sides, strict=True)
            for index, value in enumerate(values)
            for error in [None if value is not None else "PromptTooLongError: 9 tokens"]
        )
        summary = summarise(folder)
    assert summary.accuracy == pytest.approx((1 + 0.5 + 0 + 0 + 2.5 / 4) / 5)
    assert summary.means == {
        "chosen": pytest.approx((0.75 + 0.5 + 0.25 + 0.75 + 0.25) / 5),
        "rejected": pytest.approx((0.25 + 0.5 + 0.75 + 0.25 + 0.5 + 0.25) / 6),
    }
    assert (summary.records, summary.errors, summary.truncated) == (12, {"PromptTooLongError": 1}, 2)
    assert not summary.all_failed
    assert summary.render().splitlines() == [
        "responses      12",
        "errors         1 (PromptTooLongError 1)",
        "first error    failed: PromptTooLongError: 9 tokens",
        "truncated      2",
        "mean chosen    0.5000   mean rejected  0.4167",
        "pair accuracy  0.4250 (ties count a half, errors as wrong)",
        f"scores         {tmp_path / 'scores.jsonl'}",
    ]


def test_judge_is_known_by_its_content(save_tiny_model, tiny_tokenizer, tmp_path):
    first = save_tiny_model(tmp_path / "first", tiny_tokenizer("split_digits"), hidden=512)  # > 4 MiB: only sampled
    name, fingerprint = identify_judge(str(first))
    assert name == "first"
    shutil.copytree(first, tmp_path / "copy")
    (tmp_path / "copy/README.md").write_text("A copy.")
    assert identify_judge(str(tmp_path / "copy")) == ("copy", fingerprint)
    other = save_tiny_model(tmp_path / "other", tiny_tokenizer("split_digits"), hidden=512, seed=1)
    assert (other / "model.safetensors").stat().st_size == (first / "model.safetensors").stat().st_size > 2**22
    assert identify_judge(str(other))[1] != fingerprint
    (tmp_path / "copy/judge_config.json").write_text("{}")
    assert identify_judge(str(tmp_path / "copy"))[1] != fingerprint
    with pytest.raises(JudgeError, match="there is no judge folder ./nowhere"):
        identify_judge("./nowhere")
