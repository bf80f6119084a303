from __future__ import annotations

import json
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from rmkit.errors import DataError
from rmkit.losses import PRESETS, SCORE_LOSSES, LossSettings
from rmkit.training.figures import CHOOSING
from rmkit.training.run_record import check_settings, write_run, write_settings
from rmkit.training.settings import LossArguments, read_settings


@pytest.fixture
def needed(tmp_path: Path) -> list[str]:
    return ["--data", "d", "--model", "m", "--output_dir", str(tmp_path / "out"), "--use_cpu", "true"]


def write(folder: Path, text: str) -> list[str]:
    file = folder / "run.yaml"
    file.write_text(text, encoding="utf-8")
    return ["--config", str(file)]


def refusal(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as error:
        read_settings(argv)
    assert error.value.code == 2
    return capsys.readouterr().err


def test_the_command_line_wins_over_the_file(needed: list[str], tmp_path: Path) -> None:
    config = write(tmp_path, "learning_rate: 1.0e-5\nmax_length: 99\nloss: ce\ntruncate_turns: true\n")
    settings = read_settings([*config, *needed, "--max_length", "77", "--num-train-epochs=2"])
    assert settings.training.learning_rate == 1e-5
    assert settings.data.max_length == 77
    assert settings.data.truncate_turns is True
    assert settings.training.num_train_epochs == 2
    assert settings.loss.settings() == LossSettings(loss="ce")
    assert settings.given["max_length"] == "77"
    assert settings.given["num_train_epochs"] == "2"  # as it is called in a file
    assert settings.given["learning_rate"] == 1e-5
    assert list(settings.given) == sorted(settings.given)


def test_weights_of_attributes_are_a_mapping_in_a_file_and_json_on_the_line(needed: list[str], tmp_path: Path) -> None:
    config = write(tmp_path, "attribute_weights: {verbosity: 0.5, helpfulness: 2}\npreference_loss: oprm\n")
    found = read_settings([*config, *needed]).loss.settings()
    assert found.attribute_weights == {"helpfulness": 2, "verbosity": 0.5}
    assert found.preference_loss == "oprm" and found.preference_alpha == 1.0
    again = read_settings([*config, *needed, "--attribute_weights", '{"verbosity": 3}', "--preference_alpha", "0.5"])
    assert again.loss.settings() == LossSettings(
        attribute_weights={"verbosity": 3}, preference_loss="oprm", preference_alpha=0.5
    )
    assert LossSettings(**json.loads(json.dumps(asdict(found)))) == found  # as a judge's folder keeps it


def test_the_file_may_come_last_or_with_an_equals_sign(needed: list[str], tmp_path: Path) -> None:
    _, file = write(tmp_path, "seed: 5\n")
    assert read_settings([*needed, f"--config={file}"]).training.seed == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 1\n", r"unknown option 'learning_rat' in .*run.yaml; did you mean 'learning_rate'\?"),
        ("presett: paper\n", r"unknown option 'presett' in .*run.yaml; did you mean 'preset'\?"),
        ("preset: papr\n", r"preset='papr' is unknown; choose paper, released"),
        ("loss: mse\n", r"loss='mse' is unknown; choose ce, cdw_ce, ce_vocab, contrastive, dist2"),
        ("tau: 0\n", r"tau=0.0 must be above 0"),
        ("attribute_weights: heavy\n", r"attribute_weights='heavy' is no JSON .*; expected .\"helpfulness\": 2"),
        ("attribute_weights: 3\n", r"attribute_weights='3' is no mapping; expected"),
        ("attribute_weights: {helpfulness: -1}\n", r"attribute_weights: helpfulness has -1; .* at least 0"),
        ("attribute_weights: {helpfulness: .inf}\n", r"attribute_weights: helpfulness has inf"),
        ("attribute_weights: {helpfulness: yes}\n", r"attribute_weights: helpfulness has True"),
        ("preference_loss: dist2\n", r"preference_loss='dist2' is unknown; choose oprm\n"),
        ("preference_loss: oprm\nloss: oprm\n", r"loss='oprm' compares all scores already; leave preference_loss out"),
        ("preference_loss: oprm\nalpha: 0\n", r"alpha=0 with a preference_loss: say loss: ce"),
        ("preference_alpha: -1\n", r"preference_alpha=-1.0 must be at least 0"),
        ("max_length: long\n", r"argument --max_length/--max-length: invalid int value: 'long'"),
        ("lr_scheduler_type: sometimes\n", r"sometimes"),
        (
            "report_to: [tensorboard, tensorbord]\n",
            r"report_to='tensorbord' is unknown; choose all, none, .*tensorboard",
        ),
        ("label_smoothing_factor: 0.1\n", r"label_smoothing_factor=0.1 .*; loss: label_smoothing smooths over scores"),
        ("train_sampling_strategy: group_by_length\n", r"train_sampling_strategy='group_by_length' .* batch_tokens"),
        ("num_train_epochs: 0\n", r"num_train_epochs=0 would train nothing; give more than 0"),
        ("bf16_full_eval: true\n", r"bf16_full_eval=True has no place here: it would round the weights"),
        ("validation_rows: -1\n", r"validation_rows=-1 is no number of rows; 0 scores none"),
        ("early_stopping_patience: 0\n", r"early_stopping_patience=0 and .*: give a number of evaluations, 1 or more"),
        ("early_stopping_threshold: 0.1\n", r"threshold=0.1 does nothing without early_stopping_patience"),
        (
            "early_stopping_patience: 2\neval_strategy: no\nload_best_model_at_end: false\n",
            r"early_stopping_patience=2 needs evaluations: set eval_strategy to steps or epoch",
        ),
    ],
)
def test_what_a_file_says_wrong(
    needed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    assert re.search(message, refusal([*write(tmp_path, text), *needed], capsys))


def test_what_a_command_line_says_wrong(needed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = refusal([*needed, "--learning_rat", "1"], capsys)
    assert "unknown option 'learning_rat' in the command line; did you mean 'learning_rate'?" in found
    found = refusal([*needed, "--entirely_unlike_any", "1"], capsys)
    assert "unknown option 'entirely_unlike_any' in the command line\n" in found
    assert "required: --data" in refusal(["--model", "m"], capsys)
    found = refusal([*needed, "--resume_from_checkpoint", "c"], capsys)
    assert "resume_from_checkpoint is not needed: the same command resumes its output_dir" in found
    assert len(found.splitlines()) == 2  # short usage, and the error
    assert "--config needs a file" in refusal([*needed, "--config"], capsys)
    for factor in ("1", "-2"):
        found = refusal([*needed, "--divergence_factor", factor], capsys)
        assert f"divergence_factor={float(factor)} would stop every run; give above 1, or 0" in found


def test_files_that_are_no_config(needed: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent.yaml: .*No such file"):
        read_settings(["--config", str(tmp_path / "absent.yaml"), *needed])
    with pytest.raises(DataError, match=r"expected 'key: value' lines, found list"):
        read_settings([*write(tmp_path, "- data\n"), *needed])
    with pytest.raises(DataError, match=r"run.yaml: can.t be read as YAML"):
        read_settings([*write(tmp_path, "a: [\n"), *needed])
    with pytest.raises(DataError, match="the key 'tau' stands twice"):
        read_settings([*write(tmp_path, "tau: 1\nalpha: 1\ntau: 2\n"), *needed])


def test_a_strategy_of_no_needs_no_quotes(needed: list[str], tmp_path: Path) -> None:
    text = "eval_strategy: no\nsave_strategy: no\nload_best_model_at_end: false\n"
    settings = read_settings([*write(tmp_path, text), *needed])
    assert settings.training.eval_strategy == "no"
    assert settings.training.save_strategy == "no"


def test_mappings_and_lists_pass(needed: list[str], tmp_path: Path) -> None:
    text = "lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 0.001}\nreport_to: [tensorboard]\n"
    settings = read_settings([*write(tmp_path, text), *needed])
    assert settings.training.lr_scheduler_kwargs == {"min_lr": 0.001}
    assert settings.training.report_to == ["tensorboard"]


def test_defaults_suit_a_judge(needed: list[str]) -> None:
    settings = read_settings(needed)
    training = settings.training
    assert (training.eval_strategy, training.save_strategy, training.load_best_model_at_end) == (
        "epoch",
        "epoch",
        True,
    )
    assert training.remove_unused_columns is False
    assert training.logging_nan_inf_filter is False
    assert training.dataloader_pin_memory is False  # on a CPU
    assert training.report_to == ["tensorboard"]
    assert training.disable_tqdm is True  # standard error is no terminal here
    assert settings.loss.settings() == PRESETS["paper"]


@pytest.mark.parametrize(
    ("metric", "higher"),
    [
        *(("eval_loss", False), ("eval_mae", False), ("eval_mae_helpfulness", False), ("eval_pair_accuracy", True)),
        *(("pair_accuracy_mode", True), ("eval_qwk", True), ("qwk_safety", True), ("eval_spearman_safety.0-10", True)),
        *(("eval_calibration_error", False), ("calibration_error_qwk", False), ("outside_mass", False)),
    ],
)
def test_which_figures_are_better_when_higher(needed: list[str], metric: str, higher: bool) -> None:
    assert read_settings([*needed, "--metric_for_best_model", metric]).training.greater_is_better is higher


@pytest.mark.parametrize("name", PRESETS)
def test_an_option_overrides_its_preset_and_no_other(needed: list[str], name: str) -> None:
    found = read_settings([*needed, "--preset", name, "--alpha", "3", "--place_weights", "false"]).loss.settings()
    preset = PRESETS[name]
    assert (found.alpha, found.place_weights) == (3.0, False)
    assert (found.tau, found.normalize, found.reduction) == (preset.tau, preset.normalize, preset.reduction)


@pytest.mark.parametrize("loss", sorted(SCORE_LOSSES))
def test_a_file_chooses_any_loss_by_its_name(needed: list[str], tmp_path: Path, loss: str) -> None:
    text = f"loss: {loss}\nalpha: 0.3\npower: 1.5\nsmoothing: 0.2\nmargin: 0.1\nmetric_seed: 7\nnormalize: scale\n"
    found = read_settings([*write(tmp_path, text), *needed]).loss.settings()
    assert found == LossSettings(
        loss, 0.3, normalize="scale", power=1.5, smoothing=0.2, margin=0.1, metric_seed=7
    )  # with the distance it was published with
    found = read_settings([*write(tmp_path, text + "distance: circular\nperiod: 24\n"), *needed]).loss.settings()
    assert (found.distance, found.period) == ("circular", 24.0)


def test_every_option_of_a_loss_can_be_written_in_a_file() -> None:
    options = {field.name for field in fields(LossSettings)}
    assert {field.name for field in fields(LossArguments)} == options | {"preset"}


def test_a_preset_keeps_its_distance_unless_the_loss_changes(needed: list[str]) -> None:
    assert read_settings([*needed, "--preset", "released"]).loss.settings() == PRESETS["released"]
    found = read_settings([*needed, "--preset", "released", "--loss", "ntl_was"]).loss.settings()
    assert (found.distance, found.place_weights) == ("absolute", True)


def test_settings_bind_but_for_what_changes_no_number(tmp_path: Path) -> None:
    def told(**options: Any) -> dict[str, Any]:
        return {"options": {"seed": 1, "data": "a", **options}, "world_size": 2}

    write_settings(tmp_path, told())
    check_settings(tmp_path, told())
    check_settings(tmp_path, told(data="b", logging_steps=3, save_total_limit=9, report_to="tensorboard"))
    check_settings(tmp_path, told(divergence_factor=0))
    with pytest.raises(DataError, match=r"was started with seed=1 and is now told seed=2"):
        check_settings(tmp_path, told(seed=2))
    with pytest.raises(DataError, match=r"was started with bf16=None and is now told bf16=True"):
        check_settings(tmp_path, told(bf16=True))
    with pytest.raises(DataError, match=r"was started with world_size=2 and is now told world_size=4"):
        check_settings(tmp_path, {**told(), "world_size": 4})


def test_a_loss_that_is_no_number_is_written_down_as_a_word(tmp_path: Path) -> None:
    write_run(tmp_path, {}, {"log": [{"loss": float("nan"), "grad_norm": float("inf"), "step": 1}]}, started=0.0)
    text = (tmp_path / "run.json").read_text("utf-8")
    assert '"loss": "nan"' in text and '"grad_norm": "inf"' in text


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_teaches(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        read_settings([flag])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert shown.index("--data ") < shown.index("--learning_rate")  # our own options come first
    assert "Example: torchrun" in shown
    words = " ".join(shown.split())
    assert all(f" {name}," in words or f" {name};" in words for name in CHOOSING)
    assert "qwk_ATTRIBUTE" in words and "--early_stopping_patience" in words
