from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from rmkit.errors import DataError, JudgeError, TokenizerError
from rmkit.judge import Judge
from rmkit.judge_config import FILE_NAME
from rmkit.judge_encoder import JudgeEncoder
from rmkit.manifest import read_json, write_json
from rmkit.preparation.folder import PAIR_FILES, RATED_FILES, write_prepared
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Message, PreferencePair, RatedResponse
from rmkit.training.checkpoints import find_checkpoint
from rmkit.training.examples import ExampleDataset
from rmkit.training.run import read_rubric, train_judge
from rmkit.training.settings import TrainingSettings

Settings = Callable[..., TrainingSettings]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def evaluations(figures: dict[str, Any], name: str) -> dict[int, float]:
    """A figure by step, as first logged there."""
    found: dict[int, float] = {}
    for line in figures["log"]:
        if name in line:
            found.setdefault(line["step"], line[name])
    return found


@pytest.mark.parametrize("metric", ["eval_loss", "eval_mae_helpfulness", "eval_pair_accuracy", "qwk_overall"])
def test_the_checkpoint_with_the_best_figure_is_exported(small_settings: Settings, metric: str) -> None:
    figures = train_judge(small_settings("--metric_for_best_model", metric, "--learning_rate", "0.03"))
    metric = f"eval_{metric.removeprefix('eval_')}"
    by_step = evaluations(figures, metric)
    assert list(by_step) == [2, 4, 6]
    best = max(by_step.values()) if metric in ("eval_pair_accuracy", "eval_qwk_overall") else min(by_step.values())
    assert figures["metrics"][metric] == pytest.approx(best, abs=1e-6)
    assert by_step[int(figures["best_checkpoint"].removeprefix("checkpoint-"))] == best


def test_the_best_is_saved_and_exported_also_between_two_checkpoints(small_settings: Settings) -> None:
    upside_down = ("--metric_for_best_model", "eval_loss", "--greater_is_better", "true")  # so the first is the best
    figures = train_judge(small_settings("--eval_steps", "1", "--save_steps", "4", *upside_down))
    by_step = evaluations(figures, "eval_loss")
    best = max(by_step, key=lambda step: by_step[step])
    assert best not in (4, 6), by_step  # where a checkpoint is saved in any case
    assert figures["best_checkpoint"] == f"checkpoint-{best}"
    assert figures["metrics"]["eval_loss"] == pytest.approx(by_step[best], abs=1e-6)


def test_cross_entropy_alone_trains_and_validates(small_settings: Settings) -> None:
    figures = train_judge(small_settings("--loss", "ce", "--max_steps", "2"))
    assert figures["metrics"]["eval_loss"] == pytest.approx(evaluations(figures, "eval_loss")[2], abs=1e-6)
    assert evaluations(figures, "loss_scores") == {1: 0.0, 2: 0.0}


def test_a_judge_of_independent_attributes(small_settings: Settings) -> None:
    settings = small_settings(
        "--mode", "independent", "--per_device_train_batch_size", "12", "--learning_rate", "0.02"
    )
    figures = train_judge(settings)
    losses = [line["loss"] for line in figures["log"] if "loss" in line]
    assert losses[-1] < losses[0] - 0.3
    # Each of 24 to 30 rows is one for each of its two or three ratings, and a row's ratings share its prompt.
    assert figures["rows"]["train"] > 60
    assert figures["tokens"]["computed"] < 0.3 * figures["tokens"]["logical"]
    judge = Judge.load(str(settings.training.output_dir))
    assert judge.mode == "independent"
    [judgment] = judge.score(["Hello?"], ["Hello!"])
    assert tuple(judgment.attributes) == judge.rubric.keys
    assert max(d.outside_mass for d in judgment.attributes.values()) < 0.9


def test_killed_between_the_last_checkpoint_and_the_judge(small_settings: Settings) -> None:
    settings = small_settings()
    folder = Path(str(settings.training.output_dir))
    whole = train_judge(settings)
    weights = load((folder / "model.safetensors").read_bytes())
    for name in (FILE_NAME, "run.json", "README.md"):
        (folder / name).unlink()
    (folder / "model.safetensors").write_bytes(b"half of it")

    again = train_judge(small_settings())
    assert again["resumed_from"] == "checkpoint-6"
    assert again["steps"] == whole["steps"] == 6
    assert evaluations(again, "loss") == evaluations(whole, "loss")
    assert again["metrics"] == pytest.approx(whole["metrics"], abs=1e-6)
    for name, tensor in load((folder / "model.safetensors").read_bytes()).items():
        assert torch.equal(tensor, weights[name])
    assert Judge.load(folder).score(["Hello?"], ["Hello!"])[0].error is None


def test_a_checkpoint_that_was_cut_off_is_not_resumed(small_settings: Settings) -> None:
    settings = small_settings()
    folder = Path(str(settings.training.output_dir))
    whole = train_judge(settings)
    (folder / FILE_NAME).unlink()
    assert find_checkpoint(folder) == str(folder / "checkpoint-6")
    state = folder / "checkpoint-6/trainer_state.json"
    text = state.read_text("utf-8")
    state.write_text(text[: len(text) // 2], encoding="utf-8")
    (folder / "checkpoint-8").mkdir()  # killed before its first file

    best = folder / whole["best_checkpoint"]
    before = folder / "checkpoint-4" if (folder / "checkpoint-4").is_dir() else best
    assert find_checkpoint(folder) == str(before)
    again = train_judge(small_settings())
    assert again["resumed_from"] == before.name
    assert evaluations(again, "loss") == pytest.approx(evaluations(whole, "loss"), abs=1e-6)
    assert find_checkpoint(folder) == str(folder / "checkpoint-6")


def test_without_validation_rows_the_last_weights_are_exported(small_settings: Settings, tmp_path: Path) -> None:
    settings = small_settings("--max_steps", "2")
    data = tmp_path / "data"
    shutil.copytree(settings.data.data, data)
    (data / "validation.jsonl").write_bytes(b"")
    manifest = json.loads((data / "manifest.json").read_text("utf-8"))
    del manifest["files"]["validation.jsonl"]
    (data / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    figures = train_judge(small_settings("--max_steps", "2", "--data", str(data)))
    assert figures["metrics"] == {}
    assert figures["best_checkpoint"] is None
    assert figures["reliability"] == {} and figures["validation"]["rows"] == 0
    with pytest.raises(DataError, match="early_stopping_patience needs validation rows; prepare with --validation-"):
        train_judge(small_settings("--early_stopping_patience", "2", "--data", str(data), "--output_dir", "unused"))
    assert Judge.load(str(settings.training.output_dir)).score(["Hello?"], ["Hello!"])[0].error is None


@pytest.mark.parametrize("finished", [True, False])
def test_changed_settings_are_refused_and_nothing_is_lost(small_settings: Settings, finished: bool) -> None:
    settings = small_settings("--max_steps", "2")
    folder = Path(str(settings.training.output_dir))
    train_judge(settings)
    if not finished:
        (folder / FILE_NAME).unlink()
    before = contents(folder)
    with pytest.raises(DataError, match=r"learning_rate='0.003' and is now told learning_rate='0.5'"):
        train_judge(small_settings("--max_steps", "2", "--learning_rate", "0.5"))
    with pytest.raises(DataError, match=r"alpha=0.1 and is now told alpha=1.0"):
        train_judge(small_settings("--max_steps", "2", "--preset", "released"))
    assert contents(folder) == before


def test_settings_that_change_no_number_may_differ(small_settings: Settings, tmp_path: Path) -> None:
    settings = small_settings()
    train_judge(settings)
    moved = tmp_path / "moved"
    shutil.copytree(settings.data.data, moved)
    assert "complete" in train_judge(small_settings("--data", str(moved), "--logging_steps", "5"))


def test_a_typing_error_does_not_bind_the_folder(small_settings: Settings) -> None:
    with pytest.raises(JudgeError, match="the model /nowhere: its tokenizer can't be loaded"):
        train_judge(small_settings("--model", "/nowhere"))
    assert train_judge(small_settings("--max_steps", "2"))["steps"] == 2


def test_checkpoints_of_somebody_else_are_refused(small_settings: Settings) -> None:
    settings = small_settings("--max_steps", "2")
    folder = Path(str(settings.training.output_dir))
    train_judge(settings)
    (folder / "settings.json").unlink()
    with pytest.raises(DataError, match="has checkpoints but no settings.json"):
        train_judge(small_settings("--max_steps", "2"))


def test_data_without_a_manifest_is_refused(small_settings: Settings, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(small_settings().data.data, data)
    (data / "manifest.json").unlink()
    settings = small_settings("--data", str(data))
    with pytest.raises(DataError, match=r"no manifest.json.*run data_prep/prepare.py"):
        train_judge(settings)
    assert not Path(str(settings.training.output_dir)).exists()


def test_rows_that_changed_after_preparation_are_refused(small_settings: Settings, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(small_settings().data.data, data)
    rows = (data / "train.jsonl").read_text("utf-8")
    (data / "train.jsonl").write_text(rows + rows.splitlines()[0] + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"train.jsonl is not the file that manifest.json describes"):
        train_judge(small_settings("--data", str(data)))
    (data / "train.jsonl").unlink()
    with pytest.raises(DataError, match=r"train.jsonl is not the file that manifest.json describes"):
        train_judge(small_settings("--data", str(data)))


def test_a_folder_of_pairs_is_refused(small_settings: Settings, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(small_settings().data.data, data)
    manifest = json.loads((data / "manifest.json").read_text("utf-8"))
    (data / "manifest.json").write_text(json.dumps({**manifest, "rubric": None}), encoding="utf-8")
    with pytest.raises(DataError, match="holds no rated responses"):
        train_judge(small_settings("--data", str(data)))


def test_rows_that_are_too_long_are_counted(small_settings: Settings) -> None:
    figures = train_judge(small_settings("--max_steps", "2"))
    assert figures["skipped"] == {"train": {}, "validation": {}}
    lengths = figures["rows"]["train"]
    with pytest.raises(DataError, match=rf"no row is left to encode train: {lengths} are longer than max_length=60"):
        train_judge(small_settings("--max_length", "60", "--output_dir", "unused"))


def test_rows_are_kept_within_the_context_of_the_model(
    small_settings: Settings, small_rows: list[RatedResponse], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """GPT-2 has no position behind its last one; others would learn what their judge then refuses to read."""
    model = tmp_path / "gpt2"
    shutil.copytree(small_settings().model.model, model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    encoder = JudgeEncoder(tokenizer, read_rubric(Path(small_settings().data.data)))
    middle = sorted(len(example.token_ids) for example in ExampleDataset(encoder, small_rows).examples)[20]
    sizes = {"n_positions": middle, "n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": len(tokenizer)}
    GPT2LMHeadModel(GPT2Config(**sizes, eos_token_id=tokenizer.eos_token_id)).save_pretrained(model)
    figures = train_judge(small_settings("--model", str(model), "--max_steps", "2", "--packing", "none"))
    assert figures["skipped"]["train"]["too_long"] > 0
    assert f"max_length=2048 is more than the model takes; it is lowered to {middle} tokens" in caplog.text
    assert Judge.load(tmp_path / "judge").max_length == middle


@pytest.mark.parametrize("metric", ["eval_accuracy", "eval_mae_politeness", "eval_pairs"])
def test_an_unknown_metric_is_refused_before_training(small_settings: Settings, metric: str) -> None:
    settings = small_settings("--metric_for_best_model", metric)
    with pytest.raises(DataError, match=r"is none that the validation rows give: eval_calibration_error, "):
        train_judge(settings)
    assert not Path(str(settings.training.output_dir)).exists()


def test_a_file_or_the_folder_of_a_scoring_is_left_alone(small_settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine", encoding="utf-8")
    for folder in (file, file / "judge"):
        with pytest.raises(DataError, match="file is a file"):
            train_judge(small_settings("--output_dir", str(folder)))
    (tmp_path / "scores").mkdir()
    write_json(tmp_path / "scores" / "settings.json", {"judge": "tiny"})
    with pytest.raises(DataError, match="not of a training"):
        train_judge(small_settings("--output_dir", str(tmp_path / "scores")))
    assert read_json(tmp_path / "scores" / "settings.json")["judge"] == "tiny"


def test_a_base_model_without_all_its_weights_is_not_trained(small_settings: Settings, tmp_path: Path) -> None:
    settings = small_settings()
    model = tmp_path / "cut"
    shutil.copytree(settings.model.model, model)
    weights = load((model / "model.safetensors").read_bytes())
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    settings.model.model = str(model)
    with pytest.raises(JudgeError, match=r"1 weights .* such as model\.layers\.0\.mlp\.up_proj\.weight"):
        train_judge(settings)


def test_rows_in_parquet_train_as_those_in_json_lines(
    small_settings: Settings, small_data: Path, small_rows: list[RatedResponse], tmp_path: Path
) -> None:
    rubric = Rubric.from_dict(read_json(small_data / "manifest.json")["rubric"])
    origin = {"dataset": "small", "source": {}}
    outcomes = [(row,) for row in small_rows]
    write_prepared(tmp_path / "data", outcomes, RATED_FILES, rubric, 0, 0.25, origin, row_format="parquet")
    assert not list((tmp_path / "data").glob("train.jsonl"))
    figures = []
    for name, folder in (("jsonl", small_data), ("parquet", tmp_path / "data")):
        options = ("--data", str(folder), "--output_dir", str(tmp_path / name))
        figures.append(train_judge(small_settings(*options))["metrics"])
    assert figures[0]["eval_loss"] == figures[1]["eval_loss"]


def test_pairs_without_ratings_are_judged_where_ratings_make_none(small_settings: Settings, tmp_path: Path) -> None:
    rubric = Rubric("overall", (Attribute("overall", "Overall"),))
    conversations = [(Message("user", f"Say hello {n} times, please."),) for n in range(20)]
    rows = [RatedResponse(f"r/{n}", "r", conversations[n], "hello", {"overall": 1 + n % 5}) for n in range(16)]
    pairs = [PreferencePair(f"p/{n}", "", conversations[n], ("hello hello",), ("no", "hi")) for n in range(12, 20)]
    data, origin = tmp_path / "data", {"dataset": "mix", "source": {}}
    outcomes = ((row,) for row in [*rows, *pairs])
    write_prepared(data, outcomes, (*RATED_FILES, *PAIR_FILES), rubric, 0, 0.25, origin)
    figures = train_judge(small_settings("--data", str(data), "--max_steps", "2"))
    compared = {pair.conversation[0].content for pair in pairs}
    lines = (data / "train.jsonl").read_text("utf-8").splitlines()
    trained = sum(json.loads(line)["conversation"][0]["content"] in compared for line in lines)
    assert trained > 0
    assert figures["validation"]["pairs_without_ratings"] == 8 - trained
    assert figures["validation"]["pairs_left_out_as_trained_on"] == trained
    assert figures["metrics"]["eval_pairs"] == 2 * (8 - trained)
    assert 0 <= figures["metrics"]["eval_pair_accuracy_mode"] <= 1
    pairs_file = data / "pairs.jsonl"
    pairs_file.write_text(pairs_file.read_text("utf-8").replace("no", "yes"), encoding="utf-8")
    with pytest.raises(DataError, match=r"pairs.jsonl is not the file that manifest.json describes"):
        train_judge(small_settings("--data", str(data), "--output_dir", "unused"))


def test_numbers_of_several_tokens_are_told_apart_as_wholes(small_settings: Settings) -> None:
    figures = train_judge(small_settings("--loss", "contrastive", "--alpha", "1", "--reduction", "scores"))
    terms = [line["loss_scores"] for line in figures["log"] if "loss_scores" in line]
    assert len(terms) == 6 and all(term > 0 for term in terms)
    assert figures["metrics"]["eval_loss"] > 0


def test_the_pairwise_loss_trains_on_preferences(small_settings: Settings, tmp_path: Path) -> None:
    data = tmp_path / "preferences"
    rows = [
        RatedResponse(
            f"p/{n}{side}",
            "p",
            (Message("user", f"Say hello {n} times, please."),),
            text,
            {"overall": score},
            derived=("overall",),
        )
        for n in range(16)
        for side, text, score in (("a", "hello " * (n + 1), 5), ("b", "no", 1))
    ]
    origin = {"dataset": "p", "source": {}}
    rubric = Rubric("overall", (Attribute("overall", "Overall"),))
    write_prepared(data, ((row,) for row in rows), RATED_FILES, rubric, 0, 0.25, origin)
    figures = train_judge(
        small_settings(
            "--data",
            str(data),
            "--loss",
            "oprm",
            "--alpha",
            "10",
            "--max_steps",
            "30",
            "--eval_steps",
            "10",
            "--save_steps",
            "10",
        )
    )
    terms = [line["loss_scores"] for line in figures["log"] if "loss_scores" in line]
    # A judge that knows nothing says P(chosen > rejected) = (1 - 1/5) / 2 on five scores: 0.92 nats a pair.
    assert terms[-1] < 0.5 * terms[0]
    judge = Judge.load(tmp_path / "judge", "transformers")
    conversation = [{"role": "user", "content": "Say hello 3 times, please."}]
    good, bad = judge.score([conversation] * 2, ["hello " * 4, "no"])
    assert good.attributes["overall"].mean > bad.attributes["overall"].mean + 0.5


def test_losses_that_compare_need_something_to_compare(small_settings: Settings) -> None:
    with pytest.raises(TokenizerError, match="'oprm' needs one token for each score"):
        train_judge(small_settings("--loss", "oprm"))
