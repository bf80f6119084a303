"""What `--dry-run` says, against the run that it speaks of."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from rmkit.errors import DataError, JudgeError, TokenizerError
from rmkit.judge_encoder import JudgeEncoder
from rmkit.schema import Message, RatedResponse
from rmkit.training.dry_run import describe_run
from rmkit.training.example_view import show_text, show_tokens
from rmkit.training.examples import encode_example
from rmkit.training.gpus import GPUS
from rmkit.training.run import train_judge
from rmkit.training.settings import TrainingSettings, read_settings
from rmkit.training.token_estimate import CharacterEncoder
from tests.training.conftest import SMALL_RUBRIC

REPO = Path(__file__).resolve().parents[2]
SHAPES = REPO / "train/configs/shapes"
LLAMA = "train/configs/helpsteer2_llama31_8b.yaml"


def report(settings: TrainingSettings, colour: bool = False) -> str:
    assert settings.dry_run is not None
    return describe_run(settings, settings.dry_run, SHAPES, colour)


def numbers(pattern: str, text: str) -> list[int]:
    """The numbers that a pattern's groups find."""
    found = re.search(pattern, text)
    assert found, f"{pattern} not in\n{text}"
    return [int(group.replace(",", "")) for group in found.groups()]


def test_llama_under_zero3_without_gpu_hub_or_weights(
    small_data: Path, run_command: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    command = [sys.executable, "train/train.py", "--config", LLAMA, "--data", str(small_data), "--dry-run"]
    status, text = run_command(command, tmp_path / "log")
    assert status == 0, text
    assert "8.03 billion parameters, all trained; sizes from shape file Llama-3.1-8B.json" in text
    assert "ZeRO-3, bfloat16, gradient checkpointing" in text
    assert "8 x NVIDIA H100 SXM (number: the command in the config's header)" in text
    assert "ESTIMATED from characters" in text
    assert "fits" in text and "IF training reaches 40%" in text and "not a measurement" in text
    rows = {line[10:42].strip(): line[42:].split() for line in text.splitlines() if line.startswith(" " * 10)}
    assert rows["optimizer and master weights"] == ["12.05", "12.05"]  # (4 + 8) of 8.03 billion, over 8
    assert rows["gradients"] == ["2.01", "6.02"] or rows["gradients"] == ["2.01", "6.01"]
    assert "\x1b" not in text


def test_it_says_what_the_run_then_does(small_settings: Callable[..., TrainingSettings]) -> None:
    options = ("--max_steps", "-1", "--num_train_epochs", "1", "--max_length", "330", "--eval_strategy", "no")
    options = (*options, "--save_strategy", "no", "--load_best_model_at_end", "false")
    for more in ((), ("--packing", "none"), ("--batch_tokens", "700"), ("--gradient_accumulation_steps", "2")):
        text = report(small_settings(*options, *more, "--dry_run", "true"))
        folder = ("--output_dir", f"{small_settings().training.output_dir}{'-'.join(more)}")
        figures = train_judge(small_settings(*options, *more, *folder))
        rows, steps = figures["rows"]["train"], figures["steps"]
        assert numbers(r"rows +([\d,]+) training", text) == [rows]
        assert numbers(r"([\d,]+) left out", text) == [figures["skipped"]["train"].get("too_long", 0)]
        assert numbers(r"steps +([\d,]+) in all; ([\d,]+) in an epoch", text) == [steps, steps]
        assert numbers(r"([\d,]+) computed", text) == [figures["tokens"]["computed"]]
        assert numbers(r"([\d,]+) in an epoch: ", text) == [figures["tokens"]["logical"]]


def test_a_folder_without_manifest_is_refused(
    tmp_path: Path, small_model: Path, run_command: Callable[..., tuple[int, str]]
) -> None:
    (tmp_path / "data").mkdir()
    command = [sys.executable, "train/train.py", "--config", LLAMA, "--dry-run", "--data", str(tmp_path / "data")]
    status, text = run_command(command, tmp_path / "log")
    assert status == 1 and "has no manifest.json" in text and "Traceback" not in text


def test_models_and_tokenizers_that_are_nowhere_are_refused(
    small_settings: Callable[..., TrainingSettings], tmp_path: Path
) -> None:
    with pytest.raises(JudgeError, match=r"no folder.*no shape of that name \(only Llama-3.1-70B, .*nobody-7B.json"):
        report(small_settings("--dry_run", "true", "--model", "someone/nobody-7B"))
    with pytest.raises(TokenizerError, match="tokenizer in .* can't be read"):
        report(small_settings("--dry_run", "true", "--tokenizer", str(tmp_path)))


def test_rows_that_no_length_takes_are_refused(small_settings: Callable[..., TrainingSettings]) -> None:
    for model in ((), ("--model", "Qwen/Qwen3-0.6B")):
        with pytest.raises(DataError, match="max_length=50"):
            report(small_settings("--dry_run", "true", "--max_length", "50", *model))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--attribute_weights", '{"helpfulnes": 2}'), r"attribute_weights names 'helpfulnes', .* 'helpfulness'\?"),
        (("--metric_for_best_model", "eval_f1"), r"metric_for_best_model='f1' is none that the validation rows give"),
        (("--dtype", "float23"), r"dtype='float23' is unknown"),
        (("--load_in_4bit", "true"), r"4-bit weights can't be trained, only adapters on them"),
    ],
)
def test_what_the_run_would_refuse_is_refused(
    small_settings: Callable[..., TrainingSettings], options: Sequence[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        report(small_settings(*options, "--dry_run", "true"))


def test_lora_offload_and_four_bits_are_counted(small_settings: Callable[..., TrainingSettings]) -> None:
    offload = ("--deepspeed", "train/deepspeed/zero3_offload.json", "--bf16", "true", "--num_gpus", "4")
    large = ("--dry_run", "true", "--model", "Qwen/Qwen3-32B", "--use_cpu", "false")
    text = report(small_settings(*large, *offload))
    assert "32.76 billion parameters" in text and "optimizer on the CPU" in text
    line = next(line for line in text.splitlines() if "optimizer and master weights" in line)
    backward, step, cpu = map(float, line.split()[-3:])
    assert (backward, step) == (0, 0) and cpu == pytest.approx(12 * 32.76 / 4, rel=0.01)
    text = report(small_settings(*large, "--lora", "true", "--load_in_4bit", "true", "--num_gpus", "1"))
    line = next(line for line in text.splitlines() if " parameters  " in line)
    # 31.2 billion in 4 bits, embedding and head of 778 million each in 16 bits, 134 million of adapters in 32 bits
    assert float(line.split()[-1]) == pytest.approx(0.516 * 31.2 + 2 * 1.556 + 4 * 0.134, rel=0.02)
    assert "does NOT fit" not in text
    assert "does NOT fit: " in report(small_settings(*large, "--num_gpus", "1", "--gpu", "l4"))


def test_options_of_a_dry_run_are_no_settings(
    small_settings: Callable[..., TrainingSettings],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dry = small_settings("--dry-run", "--num_gpus", "2", "--gpu", "a100", "--tokenizer", "x")
    assert dry.given == small_settings().given and small_settings().dry_run is None
    assert dry.dry_run is not None and (dry.dry_run.ranks, dry.dry_run.gpu) == (2, "a100")
    for wrong, words in (
        (("--num_gpus", "2"), "add --dry_run"),
        (("--dry_run", "true", "--gpu", "h1000"), "gpu='h1000' is unknown; choose a100"),
        (("--dry_run", "true", "--peak_share", "1.5"), "peak_share=1.5"),
        (("--dry_run", "true", "--num_gpus", "0"), "num_gpus=0"),
    ):
        with pytest.raises(SystemExit):
            small_settings(*wrong)
        assert words in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("RANK", "3")
    launched = small_settings("--dry_run", "true").dry_run
    assert launched is not None and (launched.ranks, launched.ranks_from, launched.is_first) == (
        16,
        "WORLD_SIZE",
        False,
    )


def test_a_config_for_gpus_is_parsed_as_it_is(small_data: Path) -> None:
    configs = sorted((REPO / "train/configs").glob("helpsteer2_*.yaml"))
    assert len(configs) >= 4
    for path in configs:
        settings = read_settings(["--config", str(path), "--data", str(small_data), "--dry_run", "true"])
        assert settings.training.deepspeed and settings.training.bf16 and not settings.training.use_cpu
        assert f"shape file {settings.model.model.partition('/')[2].removesuffix('-Instruct')}.json" in report(
            settings
        )


def test_tokens_and_scores_of_a_row_are_marked(small_rows: Sequence[RatedResponse], small_model: Path) -> None:
    encoder = JudgeEncoder(AutoTokenizer.from_pretrained(str(small_model)), SMALL_RUBRIC)
    row = RatedResponse("a", "", (Message("user", "Hi \x1b[2J"),), "hello", {"helpfulness": 4, "overall": 17})
    example = encode_example(encoder, row)
    plain, coloured = (show_tokens(example, encoder, colour) for colour in (False, True))
    last = plain.splitlines()[-1]
    assert re.fullmatch(
        "Helpfulness: 4, Overall: 17, Verbosity: [1-5]", re.sub(r"[][()]|<<|>>", "", last).replace("<|end|>", "")
    )
    assert re.search(r"\([1-5]\)\[<\|end\|>\]$", last) and "not trained ( )" in plain.splitlines()[0]  # no rating
    assert re.findall(r"<<(.*?)>>", last)[:2] == ["4", "1"]
    assert "\x1b" not in plain and r"Hi \x1b[2J" in plain
    assert "\x1b[1;33m<<4>>\x1b[0m" in coloured and r"Hi \x1b[2J" in coloured
    text = show_text(row, SMALL_RUBRIC, colour=False).splitlines()[-1]
    assert text == "[Helpfulness: ]<<4>>[, ][Overall: ]<<17>>[end of turn]"


def test_estimated_tokens_follow_characters_and_drop_the_oldest_turns() -> None:
    turns = tuple(Message("user" if n % 2 == 0 else "assistant", f"turn {n} " + "word " * 80) for n in range(9))
    row = RatedResponse("a", "", turns, "well", {"helpfulness": 4, "overall": 17, "verbosity": 2})
    encoder = CharacterEncoder(SMALL_RUBRIC)
    whole, cut = (encoder.encode_example(row, length, truncate=True) for length in (4000, 500))
    assert not whole.truncated and cut.truncated and len(cut.token_ids) <= 500 < len(whole.token_ids)
    assert len(whole.token_ids) == pytest.approx(
        len(row.response + "".join(turn.content for turn in turns)) / 4, rel=0.2
    )
    other = encoder.encode_example(RatedResponse("b", "", turns, "badly", {"overall": 3}), 4000, truncate=False)
    shared = next(n for n, (a, b) in enumerate(zip(whole.token_ids, other.token_ids, strict=False)) if a != b)
    assert whole.group == other.group and shared > 0.8 * len(whole.token_ids)


def test_every_gpu_has_a_source() -> None:
    assert all(gpu.source and 1e13 < gpu.rate < 1e16 and 1e10 < gpu.memory < 1e12 for gpu in GPUS.values())
