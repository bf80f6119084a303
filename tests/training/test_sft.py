"""TRL's SFTTrainer with the judge's loss makes the steps that our own trainer makes, and refuses what would not."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig

from rmkit.errors import DataError
from rmkit.judge import Judge
from rmkit.judge_encoder import JudgeEncoder
from rmkit.losses import PRESETS, LossSettings
from rmkit.preparation.folder import read_manifest
from rmkit.row_files import read_rows
from rmkit.rubric import Rubric
from rmkit.schema import RatedResponse
from rmkit.training.collation import JudgeCollator
from rmkit.training.examples import ExampleDataset
from rmkit.training.settings import JudgeTrainingArguments
from rmkit.training.sft import JudgeSFTTrainer
from rmkit.training.trainer import JudgeTrainer

REPO = Path(__file__).resolve().parents[2]
STEPS: dict[str, Any] = {
    **{"use_cpu": True, "bf16": False, "max_steps": 6, "per_device_train_batch_size": 2, "save_strategy": "no"},
    **{"gradient_accumulation_steps": 2, "logging_steps": 1, "learning_rate": 0.003, "report_to": [], "seed": 5},
    **{"gradient_checkpointing": False, "eval_strategy": "no", "per_device_eval_batch_size": 3},
}


def losses(trainer: Any) -> list[tuple[float, float]]:
    found = [line for line in trainer.state.log_history if "loss" in line]
    return [(line["loss"], line["loss_scores"]) for line in found]


@pytest.fixture
def given(small_data: Path, small_model: Path) -> dict[str, Any]:
    """What both trainers take: a model of its own each time, the tokenizer, the rubric."""
    return {
        "model": AutoModelForCausalLM.from_pretrained(small_model),
        "processing_class": AutoTokenizer.from_pretrained(small_model),
        "rubric": Rubric.from_dict(read_manifest(small_data)["rubric"]),
    }


@pytest.fixture(scope="session")
def rows(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """Prepared files as a user of TRL loads them: each row has each column, with nulls where a row has no rating."""
    files = {name: str(small_data / f"{name}.jsonl") for name in ("train", "validation")}
    return load_dataset("json", data_files=files, cache_dir=str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def build(given: dict[str, Any], rows: dict[str, Dataset], tmp_path: Path) -> Callable[..., JudgeSFTTrainer]:
    """`build(options=..., **others)`: a trainer on the small rows."""

    def make(options: dict[str, Any] | None = None, **others: Any) -> JudgeSFTTrainer:
        args = SFTConfig(str(tmp_path / "sft"), **STEPS, **(options or {}))
        return JudgeSFTTrainer(**{"args": args, "train_dataset": rows["train"], **given, **others})

    return make


LOSSES = (PRESETS["paper"], LossSettings("sord", alpha=1.0, reduction="scores"), LossSettings("ce"))


@pytest.mark.parametrize("settings", LOSSES, ids=lambda settings: settings.loss)
def test_it_trains_as_our_own_trainer_does(
    build: Callable[..., JudgeSFTTrainer],
    given: dict[str, Any],
    small_data: Path,
    tmp_path: Path,
    settings: LossSettings,
) -> None:
    model = copy.deepcopy(given["model"])
    trainer = build(loss_settings=settings)
    trainer.train()

    tokenizer, rated = (
        given["processing_class"],
        [RatedResponse.from_dict(r) for _, r in read_rows(small_data, "train")],
    )
    own = JudgeTrainer(
        model=model,
        args=JudgeTrainingArguments(output_dir=str(tmp_path / "own"), load_best_model_at_end=False, **STEPS),
        train_dataset=ExampleDataset(JudgeEncoder(tokenizer, given["rubric"]), rated),
        processing_class=tokenizer,
        data_collator=JudgeCollator(tokenizer.pad_token_id, settings),
        loss_settings=settings,
    )
    own.train()
    assert len(losses(trainer)) == 6
    assert torch.tensor(losses(trainer)).sub(torch.tensor(losses(own))).abs().max() < 1e-5
    assert losses(own)[-1][0] < losses(own)[0][0] - 0.1
    assert trainer._head.is_fused
    for one, other in zip(trainer.model.parameters(), own.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_it_validates_on_rows_and_on_examples(
    build: Callable[..., JudgeSFTTrainer], given: dict[str, Any], rows: dict[str, Dataset], small_data: Path
) -> None:
    trainer = build(eval_dataset=rows["validation"])
    found = trainer.evaluate()["eval_loss"]
    encoder = JudgeEncoder(given["processing_class"], given["rubric"])
    examples = ExampleDataset(encoder, [RatedResponse.from_dict(r) for _, r in read_rows(small_data, "validation")])
    assert trainer.evaluate(examples)["eval_loss"] == pytest.approx(found, abs=1e-6)
    assert trainer.evaluate(rows["train"])["eval_loss"] != pytest.approx(found, abs=1e-3)


def test_adapters_of_trl_train(build: Callable[..., JudgeSFTTrainer]) -> None:
    trainer = build(peft_config=LoraConfig(r=4, target_modules="all-linear"))
    trainer.train()
    assert losses(trainer)[-1][0] < losses(trainer)[0][0] - 0.02
    assert {name.split(".")[-2] for name, p in trainer.model.named_parameters() if p.requires_grad} == {"default"}


def test_the_example_of_the_page_makes_a_judge(
    small_data: Path, small_model: Path, given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = (REPO / "docs/training.md").read_text("utf-8").split("## In TRL")[1].split("\n## ")[0]
    [program] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    program = program.replace('"runs/data"', repr(str(small_data))).replace('"runs/tiny"', repr(str(small_model)))
    program = program.replace("max_length=2048)", "max_length=1024, **STEPS)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    exec(program, {"STEPS": STEPS})
    judge = Judge.load("runs/sft/judge")
    assert judge.rubric == given["rubric"]
    assert judge.score(["Hello?"], ["Hello!"])[0].error is None


def test_a_pairwise_loss_keeps_conversations_together(
    build: Callable[..., JudgeSFTTrainer], given: dict[str, Any], rows: dict[str, Dataset]
) -> None:
    given["rubric"] = Rubric("one", given["rubric"].attributes[:1])
    one = rows["train"].map(
        lambda row: {"scores": {"helpfulness": row["scores"]["helpfulness"]}}, remove_columns="scores"
    )
    trainer = build(train_dataset=one, loss_settings=LossSettings("oprm", alpha=1.0))
    trainer.train()
    assert any(scores > 0 for _, scores in losses(trainer))
    assert len(trainer.train_dataset) < len(one)


def test_longer_rows_are_left_out_and_told(
    build: Callable[..., JudgeSFTTrainer], rows: dict[str, Dataset], caplog: pytest.LogCaptureFixture
) -> None:
    lengths = sorted(len(item.prompt_ids) + len(item.completion_ids) for item in build()._items)
    trainer = build({"max_length": lengths[-2]})
    left_out = len([length for length in lengths if length > lengths[-2]])
    assert 0 < len(trainer.train_dataset) <= len(rows["train"]) - left_out
    assert re.search(rf"train: \d+ rows are longer than max_length={lengths[-2]} and left out", caplog.text)
    with pytest.raises(DataError, match="no row is left to encode train"):
        build({"max_length": 20})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("packing", True),
        ("eval_packing", True),
        ("padding_free", True),
        ("pad_to_multiple_of", 8),
        ("completion_only_loss", False),
        ("assistant_only_loss", True),
        ("loss_type", "dft"),
        ("label_smoothing_factor", 0.1),
        ("use_liger_kernel", True),
        ("shuffle_dataset", True),
        ("dataset_kwargs", {"add_special_tokens": False}),
        ("chat_template_path", "somewhere"),
        ("eos_token", "<|end|>"),
    ],
)
def test_options_that_have_no_meaning_are_refused(
    build: Callable[..., JudgeSFTTrainer], name: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{name}={value!r} has no meaning for a judge: ")):
        build({name: value})


@pytest.mark.parametrize("name", ["compute_loss_func", "compute_metrics", "formatting_func", "data_collator"])
def test_arguments_that_have_no_meaning_are_refused(build: Callable[..., JudgeSFTTrainer], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} has no meaning for a judge: "):
        build(**{name: print})


def test_weights_of_attributes_that_there_are_not_are_refused(build: Callable[..., JudgeSFTTrainer]) -> None:
    with pytest.raises(DataError, match=r"attribute_weights names 'helpfulnes', .* did you mean 'helpfulness'\?"):
        build(loss_settings=LossSettings(attribute_weights={"helpfulnes": 2.0}))


def test_rows_need_a_rubric(build: Callable[..., JudgeSFTTrainer]) -> None:
    with pytest.raises(
        ValueError, match=r"rows need the rubric that they were rated by: JudgeSFTTrainer\(rubric=...\)"
    ):
        build(rubric=None)


def test_a_model_that_hides_its_logits_is_refused(build: Callable[..., JudgeSFTTrainer]) -> None:
    trainer = build()
    forward = trainer.model.forward

    def fused(*args: Any, **kwargs: Any) -> Any:  # as Liger's and TRL's own do, when they make the loss themselves
        outputs = forward(*args, **kwargs)
        outputs.logits = None
        return outputs

    trainer.model.forward = fused
    with pytest.raises(TypeError, match="logits"):
        trainer.train()
