"""The model card: what it says is what happened, and the programs in it run as they stand."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rmkit.judge import Judge
from rmkit.manifest import sha256_file
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Message
from rmkit.training.card_commands import prepare_command, score_command, train_command
from rmkit.training.model_card import escape_markdown, render_card
from rmkit.training.run import train_judge
from rmkit.training.settings import TrainingSettings, read_settings

Settings = Callable[..., TrainingSettings]


@pytest.fixture(scope="module")
def trained(
    small_data: Path, small_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("card") / "judge"
    settings = read_settings(
        [
            *(
                "--data",
                str(small_data),
                "--model",
                str(small_model),
                "--output_dir",
                str(folder),
                "--use_cpu",
                "true",
            ),
            *("--max_steps", "2", "--learning_rate", "0.003", "--eval_strategy", "steps", "--save_strategy", "steps"),
            *("--eval_steps", "2", "--save_steps", "2", "--per_device_train_batch_size", "4"),
        ]
    )
    return folder, train_judge(settings)


def split(folder: Path) -> tuple[dict[str, Any], str]:
    _, header, body = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(header), body


def test_the_hub_reads_its_metadata(trained: tuple[Path, dict[str, Any]]) -> None:
    folder, figures = trained
    fields, _ = split(folder)
    assert fields["library_name"] == "transformers"
    assert fields["pipeline_tag"] == "text-generation"
    assert {"reward-model", "generative-reward-model", "rmkit"} <= set(fields["tags"])
    assert "base_model" not in fields  # a folder is none that the hub knows, and it refuses such
    assert "license" not in fields and "datasets" not in fields
    [model] = fields["model-index"]
    assert model["name"] == "judge"
    [result] = model["results"]
    found = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert found["mae"] == pytest.approx(figures["metrics"]["eval_mae"], abs=1e-4)
    assert found["pair_accuracy"] == pytest.approx(figures["metrics"]["eval_pair_accuracy"], abs=1e-4)


def test_ids_of_the_hub_are_named(
    small_settings: Settings, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    settings = small_settings("--hub_model_id", "me/judge")
    settings.model.model = "meta-llama/Llama-3.1-8B-Instruct"
    manifest = json.loads((Path(settings.data.data) / "manifest.json").read_text("utf-8"))
    manifest |= {"dataset": "helpsteer2", "sources": [helpsteer2_source()]}
    (tmp_path / "data").mkdir()
    (tmp_path / "data/manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    settings.data.data = str(tmp_path / "data")
    rubric = Judge.load(trained[0]).rubric
    text = render_card(settings, rubric, trained[1], None)
    fields = yaml.safe_load(text.split("---\n")[1])
    assert fields["base_model"] == "meta-llama/Llama-3.1-8B-Instruct"
    assert fields["datasets"] == ["nvidia/HelpSteer2"]
    assert 'Judge.load("me/judge")' in text
    assert "| helpsteer2 | 100 | 4 | 90 | nvidia/HelpSteer2@abc |" in text
    assert "![" not in text


def helpsteer2_source() -> dict[str, Any]:
    inputs = [{"name": "nvidia/HelpSteer2", "revision": "abc", "sha256": None}]
    counts = {"raw_records": 100, "refused": {"blank": 3, "bad": 1}, "rows": 90}
    return {"name": "helpsteer2", "inputs": inputs, "rule": None, "keep_derived": True, "max_rows": None, **counts}


def test_it_says_what_was_found(trained: tuple[Path, dict[str, Any]], small_data: Path) -> None:
    folder, figures = trained
    _, body = split(folder)
    rubric = Judge.load(folder).rubric
    for attribute in rubric.attributes:
        meaning = attribute.description
        assert (
            f"| {attribute.name} | {attribute.minimum}-{attribute.maximum} | {attribute.weight:g} | {meaning} |"
            in body
        )
        [row] = re.findall(rf"^\| {attribute.key} \| (\d.*) \|$", body, re.MULTILINE)
        shown = dict(zip(("mae", "qwk", "spearman", "calibration_error"), row.split(" | "), strict=True))
        for name, value in shown.items():
            recorded = figures["metrics"].get(f"eval_{name}_{attribute.key}")
            assert value == ("n/a" if recorded is None else f"{recorded:.3f}".replace("-0.000", "0.000")), (
                name,
                attribute.key,
            )
    assert f"| loss | {figures['metrics']['eval_loss']:.4g} |" in body
    assert f"| pair accuracy, by the mean | {figures['metrics']['eval_pair_accuracy']:.4g} |" in body
    assert f"sha256 `{sha256_file(small_data / 'manifest.json')}`" in body
    assert f"Trained on {figures['rows']['train']} rows, {figures['rows']['validation']} held out" in body
    assert "| steps | 2 |\n| a step | 1 processes x 1 batches of 4 items |" in body
    assert "| exported | the checkpoint with the best eval\\_loss |" in body


def test_its_plot_is_there(trained: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = trained
    assert "![Reliability of the most probable score](calibration.png)" in split(folder)[1]
    assert (folder / "calibration.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_its_programs_run_as_they_stand(trained: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = trained
    with_rmkit, plain = re.findall(r"```python\n(.*?)```", split(folder)[1], re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(with_rmkit, {})
    judge = Judge.load(folder)
    [judgment] = judge.score(["What is 2 + 2?"], ["4"])
    assert printed.getvalue() == f"{judgment.aggregate} { {key: d.mean for key, d in judgment.attributes.items()} }\n"

    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(plain, names)
    ids = judge.encoder.encode_prompt((Message("user", "What is 2 + 2?"),), "4").ids
    assert tuple(names["inputs"]["input_ids"][0].tolist()) == ids
    assert names["written"].shape[1] > len(ids)


def test_what_markdown_would_read_is_escaped() -> None:
    assert escape_markdown("a|b\n`c` <script>") == r"a\|b \`c\` &lt;script&gt;"
    assert escape_markdown("[x](y) *z* __w__") == r"\[x\](y) \*z\* \_\_w\_\_"


def test_a_rubric_of_special_characters_breaks_no_table(small_settings: Settings, trained: tuple[Path, Any]) -> None:
    rubric = Rubric("odd", (Attribute("a", "A|B", 'Says "```" or <b>\n| x |.'),))
    text = render_card(small_settings(), rubric, trained[1], None)
    assert '| A\\|B | 1-5 | 1 | Says "\\`\\`\\`" or &lt;b&gt; \\| x \\|. |' in text
    names: dict[str, Any] = {}
    prompt = re.search(r"^prompt = (\(\n.*?\n\))$", text, re.MULTILINE | re.DOTALL)
    assert prompt is not None
    exec(f"prompt = {prompt[1]}", names)
    assert 'A|B (1-5): Says "```" or <b>\n| x |.' in names["prompt"]


def test_without_validation_it_says_so(small_settings: Settings, trained: tuple[Path, dict[str, Any]]) -> None:
    figures = {**trained[1], "metrics": {}, "rows": {"train": 9}, "reliability": {}}
    text = render_card(small_settings(), Judge.load(trained[0]).rubric, figures, None)
    assert "None: the data had no validation rows." in text
    assert "Trained on 9 rows, 0 held out" in text
    assert "model-index" not in text


def test_the_commands_are_those_that_were_run() -> None:
    argv = ["train/train.py", "--local_rank=1", "--config", "train/configs/smoke.yaml", "--data", "a b"]
    expected = "train/train.py --config train/configs/smoke.yaml --data 'a b'"
    assert train_command(argv, 2) == f"torchrun --nproc_per_node 2 {expected}"
    assert train_command(argv, 1) == f"python {expected}"
    assert shlex.split(score_command("me/judge"))[:4] == [
        "python",
        "evaluate/score_responses.py",
        "--judge",
        "me/judge",
    ]


@pytest.mark.parametrize(
    ("change", "options"),
    [
        ({}, "--dataset helpsteer2 --seed=3 --validation-fraction=0.1"),
        ({"max_rows": 50, "rule": "rank", "keep_derived": False}, "--max-rows 50 --rule rank --no-derived"),
        ({"rubric": {"name": "overall"}}, "--rubric overall"),
        (
            {"inputs": [{"name": "a.jsonl", "revision": None}, {"name": "x/y", "revision": "r"}]},
            "--input a.jsonl x/y@r",
        ),
        (
            {"cleaning": {"duplicates": "near", "threshold": 0.9, "languages": ["en", "de"], "drop_blank": True}},
            "--dedupe near --dedupe-threshold 0.9 --drop-blank --languages en,de",
        ),
        (
            {
                "cleaning": {
                    **{"max_tokens": 9, "tokenizer": {"name": "t"}, "truncate": True, "balance": ["helpfulness"]},
                    **{"decontaminate": [{"name": "reward_bench"}], "contamination": "report"},
                }
            },
            "--max-tokens 9 --tokenizer t --truncate --decontaminate reward_bench --contamination report "
            "--balance helpfulness",
        ),
    ],
)
def test_the_preparation_is_rebuilt_from_the_manifest(repo: Path, change: dict[str, Any], options: str) -> None:
    source = helpsteer2_source() | {key: value for key, value in change.items() if key in helpsteer2_source()}
    manifest = {
        **{"dataset": "helpsteer2", "source": {}, "sources": [source], "rubric": {"name": "helpsteer"}},
        **{"seed": 3, "validation_fraction": 0.1, **change},
    }
    command = prepare_command(manifest, Path("out"))
    assert options in command
    assert shlex.split(command)[-2:] == ["--output", "out"]
    script: dict[str, Any] = {"__name__": "prepare"}
    exec(compile((repo / "data_prep/prepare.py").read_text("utf-8"), "prepare.py", "exec"), script)
    script["build_parser"]().parse_args(shlex.split(command)[2:])  # all of it exists


def test_generated_data_and_files_of_ones_own() -> None:
    source = {"name": "generator", "rows": 40, "pairs": 2, "difficulty": 0.3, "rater_noise": 0.0, "seed": 1}
    manifest = {"dataset": "graded", "source": source, "seed": 1, "validation_fraction": 0.05}
    words = shlex.split(prepare_command(manifest, Path("d")))
    assert words[2:6] == ["--dataset", "graded", "--rows=40", "--pairs=2"]
    assert prepare_command({**manifest, "dataset": "mine"}, Path("d")).startswith("# mine: prepared from files of ")
