"""The judge folder: what it holds, and that plain transformers, vLLM and rmkit read the same judge from it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from rmkit.evaluation.reliability import Reliability
from rmkit.jsonl import read_jsonl
from rmkit.judge import Judge
from rmkit.judge_config import JudgeConfig
from rmkit.losses import PRESETS
from rmkit.manifest import sha256_file
from rmkit.schema import Judgment, RatedResponse
from rmkit.training.run import train_judge
from rmkit.training.settings import TrainingSettings
from rmkit.training.validation import Validation
from rmkit.training.validation_sample import draw_validation

VLLM_PROGRAM = """
import json, sys
from pathlib import Path
from rmkit.judge import Judge
from rmkit.jsonl import read_jsonl
from rmkit.schema import RatedResponse

rows = [RatedResponse.from_dict(row) for _, row in read_jsonl(Path(sys.argv[2]))][: int(sys.argv[3])]
judge = Judge.load(sys.argv[1], engine="vllm", truncate=True)
judged = judge.score([row.conversation for row in rows], [row.response for row in rows])
Path(sys.argv[4]).write_text(json.dumps([judgment.to_dict() for judgment in judged]))
"""


def read_rows(file: Path) -> list[RatedResponse]:
    return [RatedResponse.from_dict(row) for _, row in read_jsonl(file)]


def score(judge: Judge, rows: Sequence[RatedResponse]) -> list[Judgment]:
    return judge.score([row.conversation for row in rows], [row.response for row in rows])


def test_plain_transformers_load_it(zero2_run: Any, training_data: Path) -> None:
    folder = zero2_run.folder
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert model.config.use_cache  # whoever generates with it wants the cache, which training turned off
    assert tokenizer.chat_template == json.loads((folder / "judge_config.json").read_text("utf-8"))["chat_template"]

    judge = Judge.load(folder, truncate=True)
    [row] = read_rows(training_data / "validation.jsonl")[:1]
    [judgment] = score(judge, [row])
    assert judgment.error is None
    prompt = judge.encoder.encode_prompt(row.conversation, row.response, max_length=judge.max_length, truncate=True)
    first = judge.rubric.attributes[0]
    before = tokenizer.encode(f"{first.name}: ", add_special_tokens=False)
    digits = [tokenizer.convert_tokens_to_ids(str(value)) for value in first.values]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt.ids, *before]])).logits[0, -1]
    found = judgment.attributes[first.key]
    assert found.probabilities == pytest.approx(logits[digits].softmax(-1).tolist(), abs=1e-5)
    assert 1 - found.outside_mass == pytest.approx(float(logits.softmax(-1)[digits].sum()), abs=1e-5)


def test_scores_are_those_of_validation(zero2_run: Any, zero3_run: Any, training_data: Path) -> None:
    train, rows = (read_rows(training_data / f"{name}.jsonl") for name in ("train", "validation"))
    for run in (zero2_run, zero3_run):
        judge = Judge.load(run.folder, truncate=True)
        validation = Validation(judge, draw_validation(training_data, judge.rubric, train, rows, 16), shard=False)
        figures = validation()
        assert figures["errors"] == 0 and run.record["validation"]["rows"] == 16
        recorded = {name: run.record["metrics"][f"eval_{name}"] for name in figures}
        assert figures == pytest.approx(recorded, abs=1e-4)
        assert set(validation.reliability) == set(run.record["reliability"]) == set(judge.rubric.keys)
        for key, found in validation.reliability.items():
            kept = Reliability.from_dict(run.record["reliability"][key])
            assert [part.n for part in kept.bins] == [part.n for part in found.bins]
            assert kept.expected_calibration_error == pytest.approx(found.expected_calibration_error, abs=1e-4)


def test_vllm_reads_the_same_scores(
    zero2_run: Any, training_data: Path, run_command: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    pytest.importorskip("vllm")
    count, output = 6, tmp_path / "judged.json"
    validation = training_data / "validation.jsonl"
    # A process of its own, since vLLM changes the process that it runs in.
    command = [sys.executable, "-c", VLLM_PROGRAM, str(zero2_run.folder), str(validation), str(count), str(output)]
    status, text = run_command(command, tmp_path / "vllm.log")
    assert status == 0, text[-4000:]
    found = [Judgment.from_dict(item) for item in json.loads(output.read_text("utf-8"))]
    expected = score(Judge.load(zero2_run.folder, truncate=True), read_rows(validation)[:count])
    assert len(found) == len(expected) == count
    for one, other in zip(found, expected, strict=True):
        assert one.error is None
        assert one.attributes.keys() == other.attributes.keys()
        for key, distribution in one.attributes.items():
            reference = other.attributes[key]
            assert np.abs(np.subtract(distribution.probabilities, reference.probabilities)).max() < 1e-3
            assert distribution.outside_mass == pytest.approx(reference.outside_mass, abs=1e-3)


def test_the_folder_holds_no_pickle(zero2_run: Any, zero3_run: Any) -> None:
    for run in (zero2_run, zero3_run):
        names = sorted(path.name for path in run.folder.iterdir() if path.is_file())
        assert "model.safetensors" in names
        assert not [name for name in names if re.search(r"\.(bin|pt|pth|pkl)$|\.tmp$", name)]
        assert "lm_head.weight" not in load_file(run.folder / "model.safetensors")  # tied, so it stands there once


def test_judge_config(zero2_run: Any, training_data: Path, training_model: Path) -> None:
    data = json.loads((zero2_run.folder / "judge_config.json").read_text("utf-8"))
    manifest = json.loads((training_data / "manifest.json").read_text("utf-8"))
    assert data["format_version"] == 1
    assert data["rubric"] == manifest["rubric"]
    assert data["prompt_version"] == 1
    assert data["score_format"] == "Name: n, Name: n"
    assert data["readout"] == "mean"
    assert data["max_length"] == 4096
    assert data["base_model"] == str(training_model)
    assert data["data_manifest_sha256"] == sha256_file(training_data / "manifest.json")
    assert data["loss"] == asdict(PRESETS["paper"])
    assert {"loss": "dist2", "alpha": 0.1, "tau": 1.0, "distance": "squared"}.items() <= data["loss"].items()
    tokenizer = AutoTokenizer.from_pretrained(zero2_run.folder)
    assert data["end_of_turn_id"] == tokenizer.convert_tokens_to_ids("<|end|>")
    for attribute in manifest["rubric"]["attributes"]:
        low, high = attribute["scale"]
        ids = {str(value): tokenizer.convert_tokens_to_ids([*str(value)]) for value in range(low, high + 1)}
        assert data["score_token_ids"][attribute["key"]] == ids
    assert JudgeConfig.load(zero2_run.folder / "judge_config.json").rubric.to_dict() == manifest["rubric"]


def test_run_record(zero2_run: Any, training_data: Path) -> None:
    record = zero2_run.record
    settings = json.loads((zero2_run.folder / "settings.json").read_text("utf-8"))
    assert {key: value for key, value in record["settings"].items() if key != "resolved"} == {
        key: value for key, value in settings.items() if key != "format_version"
    }
    assert settings["options"]["learning_rate"] == 0.001
    assert settings["options"]["max_grad_norm"] == "0"
    resolved = record["settings"]["resolved"]
    assert (resolved["seed"], resolved["max_grad_norm"], resolved["weight_decay"]) == (42, 0.0, 0.0)
    assert resolved["data"] == str(training_data)
    assert {"torch", "transformers", "deepspeed", "rmkit", "python"} <= set(record["versions"])
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", record["commit"] or "0" * 40)
    assert record["device"].startswith("CPU")
    assert record["command"][0].endswith("train/train.py")
    assert 0 < record["seconds"] < 3600
    assert 2**27 < record["peak_memory_bytes"] < 2**36
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record["started"])
    assert (record["steps"], record["resumed_from"]) == (20, None)


def test_model_card(zero2_run: Any, training_data: Path) -> None:
    text = (zero2_run.folder / "README.md").read_text("utf-8")
    _, header, body = text.split("---\n", 2)
    fields = yaml.safe_load(header)
    manifest = json.loads((training_data / "manifest.json").read_text("utf-8"))
    assert fields.get("datasets") == (["nvidia/HelpSteer"] if manifest["dataset"] == "helpsteer" else None)
    for attribute in manifest["rubric"]["attributes"]:
        assert f"| {attribute['name']} | 1-5 |" in body
    assert f"| loss | {zero2_run.record['metrics']['eval_loss']:.4g} |" in body
    assert "![Reliability of the most probable score](calibration.png)" in body
    assert (zero2_run.folder / "calibration.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert f"python data_prep/prepare.py --dataset {manifest['dataset']}" in body
    assert (
        f"torchrun --nproc_per_node 2 train/train.py --config train/configs/smoke.yaml --data {training_data}" in body
    )


def test_lora_is_merged_and_the_adapter_kept(
    small_settings: Callable[..., TrainingSettings], small_rows: list[RatedResponse]
) -> None:
    settings = small_settings("--lora", "true", "--lora_r", "4", "--learning_rate", "0.05")
    folder, base = Path(str(settings.training.output_dir)), settings.model.model
    figures = train_judge(settings)
    assert not (folder / "adapter/training_args.bin").exists()
    adapter = load_file(folder / "adapter/adapter_model.safetensors")
    assert adapter and all(".lora_" in name for name in adapter)
    assert any(float(tensor.abs().max()) > 0.01 for name, tensor in adapter.items() if "lora_B" in name)

    before, after = load_file(Path(base) / "model.safetensors"), load_file(folder / "model.safetensors")
    assert before.keys() == after.keys()
    moved = [name for name, tensor in after.items() if not torch.equal(tensor, before[name])]
    assert moved and all("proj" in name for name in moved)  # adapters stand at linear layers only

    judge = Judge.load(folder)
    ids = torch.tensor([judge.encoder.encode_prompt(small_rows[0].conversation, small_rows[0].response).ids])
    merged = AutoModelForCausalLM.from_pretrained(folder).eval()
    unmerged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder / "adapter")).eval()
    plain = AutoModelForCausalLM.from_pretrained(base).eval()
    with torch.no_grad():
        logits = merged(input_ids=ids).logits
        assert torch.allclose(logits.softmax(-1), unmerged(input_ids=ids).logits.softmax(-1), atol=1e-5)
        assert not torch.allclose(logits, plain(input_ids=ids).logits, atol=1e-2)
    data = Path(settings.data.data)
    train, rows = (read_rows(data / f"{name}.jsonl") for name in ("train", "validation"))
    validation = Validation(judge, draw_validation(data, judge.rubric, train, rows, 512), shard=False)
    expected = {f"eval_{name}": value for name, value in validation().items()}
    assert {name: figures["metrics"][name] for name in expected} == pytest.approx(expected, abs=1e-5)


def test_lora_starts_from_the_seed(small_settings: Callable[..., TrainingSettings], tmp_path: Path) -> None:
    def losses(name: str, seed: str) -> list[float]:
        lora = ("--lora", "true", "--max_steps", "2", "--eval_strategy", "no", "--save_strategy", "no", "--seed", seed)
        alone = ("--load_best_model_at_end", "false", "--data_seed", "1", "--output_dir", str(tmp_path / name))
        return [line["loss"] for line in train_judge(small_settings(*lora, *alone))["log"] if "loss" in line]

    torch.manual_seed(1)
    first = losses("first", "1")
    torch.manual_seed(2)  # as another process would be
    assert losses("second", "1") == first
    third = losses("third", "2")
    assert third[0] == first[0]  # the same rows, and adapters that start at nothing
    assert third[1] != first[1]


def test_a_run_of_lora_that_was_killed_goes_on(small_settings: Callable[..., TrainingSettings]) -> None:
    lora = ("--lora", "true", "--lora_r", "4", "--lora_dropout", "0.3")
    folder = Path(str(small_settings().training.output_dir))
    whole = train_judge(small_settings(*lora))
    weights = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    (folder / "judge_config.json").unlink()
    (folder / "checkpoint-6/trainer_state.json").unlink()
    again = train_judge(small_settings(*lora))
    assert again["resumed_from"] in ("checkpoint-2", "checkpoint-4")
    assert again["metrics"] == pytest.approx(whole["metrics"], abs=1e-6)
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert torch.allclose(tensor, weights[name], atol=1e-6)


@pytest.mark.long
def test_lora_under_zero3(train: Callable[..., Any], tmp_path: Path, training_model: Path) -> None:
    steps = ("--max_steps", "4", "--eval_steps", "2", "--save_steps", "2", "--lora", "true")
    single = ("--deepspeed", "", "--per_device_train_batch_size", "4")
    run = train(tmp_path / "zero3", *steps, "--deepspeed", "train/deepspeed/zero3.json")
    alone = train(tmp_path / "single", *steps, *single, name="python")
    assert run.losses == pytest.approx(alone.losses, abs=1e-3)
    expected = load_file(alone.folder / "model.safetensors")
    found = load_file(run.folder / "model.safetensors")
    assert found.keys() == expected.keys() == load_file(training_model / "model.safetensors").keys()
    for name, tensor in found.items():
        assert torch.allclose(tensor, expected[name], atol=1e-3), name
