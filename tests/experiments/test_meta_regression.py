"""Regression in context: its problems, what losses see of them, and the script as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats

from rmkit.losses import SCORE_LOSSES, ScoreLoss, dist2, distance_target

EXPERIMENT = "meta_regression"


@pytest.fixture(params=["whole", "digits"])
def spelling(request: pytest.FixtureRequest, modules: Any) -> Any:
    return modules.problems.SPELLINGS[request.param]


def test_points_lie_on_lines_that_stay_in_the_range(modules: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    lines = modules.problems.draw_lines(500, False, generator)
    assert (lines[:, 0] >= lines[:, 1]).all() and lines.min() >= 0 and lines.max() <= 1
    assert (modules.problems.draw_lines(500, True, generator).diff(dim=1) >= 0).all()
    x, y = modules.problems.draw_points(lines, 6, generator)
    exact = lines[:, :1] * (1 - x / 9) + lines[:, 1:] * (x / 9)
    assert (y / 99 - exact).abs().max() <= 0.5 / 99 + 1e-6
    assert all(len(set(row)) == 6 and set(row) <= set(range(10)) for row in x.tolist())
    assert len(set(x.flatten().tolist())) == 10  # all places of x are used


def test_one_seed_gives_the_same_problems(modules: Any) -> None:
    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.stack(
            modules.problems.draw_points(modules.problems.draw_lines(9, False, generator), 6, generator)
        )

    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))


def test_sequences_hold_the_points_where_answers_are_looked_for(modules: Any, spelling: Any) -> None:
    x, y = torch.tensor([[3, 0, 9]]), torch.tensor([[7, 98, 40]])
    ids = modules.problems.spell_points(x, y, spelling)
    starts = modules.problems.answer_starts(3, 1, spelling)
    assert ids.shape[1] == 3 * (1 + spelling.places) and ids.max() < spelling.vocab_size
    read = [int("".join(str(i) for i in ids[0, at : at + spelling.places].tolist())) for at in starts.tolist()]
    assert read == [98, 40]
    assert (ids[0, starts - 1] - spelling.base).tolist() == [0, 9]


def test_least_squares_finds_the_line_and_the_average_does_not(modules: Any) -> None:
    x, y = torch.tensor([[0, 3, 9, 6]]), torch.tensor([[90, 60, 0, 30]])
    assert modules.problems.predict_least_squares(x, y).item() == pytest.approx(30)
    assert modules.problems.predict_mean(x, y).item() == pytest.approx(50)


def test_targets_of_digits_are_the_mass_of_the_numbers_behind_them(modules: Any) -> None:
    arms, spelling = modules.arms, modules.problems.SPELLINGS["digits"]
    arm = next(arm for arm in arms.list_arms(spelling, (1.0,)) if arm.name == "dist2")
    values = torch.arange(100) * arms.UNIT
    assert values[-1] == pytest.approx(9)
    numbers = distance_target((values - values[39]).square().unsqueeze(0), 1.0).reshape(10, 10)
    target = distance_target(arms.ScoreTables(arm, spelling).distances[39], 1.0)  # 3, then 9
    assert torch.allclose(target[0], numbers.sum(1), atol=1e-5)
    assert torch.allclose(target[1], numbers[3] / numbers[3].sum(), atol=1e-5)


def test_digit_by_digit_knows_no_carry(modules: Any) -> None:
    arms, spelling = modules.arms, modules.problems.SPELLINGS["digits"]
    arm = next(arm for arm in arms.list_arms(spelling, (1.0,)) if arm.name == "full")
    tables = arms.ScoreTables(arm, spelling)
    assert tables.distances[39].tolist() == [[(d - 3) ** 2 for d in range(10)], [(d - 9) ** 2 for d in range(10)]]
    assert tables.weights.tolist() == [2.0, 1.0]


def test_a_soft_label_keeps_as_much_mass_as_the_target_of_dist2(modules: Any) -> None:
    arms, spelling = modules.arms, modules.problems.SPELLINGS["whole"]
    listed = {arm.name: arm for arm in arms.list_arms(spelling, (1.0,))}
    smoothing = listed["label_smoothing_soft"].settings.smoothing
    space = arms.number_space(listed["dist2"].settings)
    kept = distance_target(space.distances(torch.arange(100)), 1.0).diagonal().mean()
    assert 1 - smoothing + smoothing / 100 == pytest.approx(kept.item(), abs=1e-5)


def test_every_loss_is_there_and_a_new_one_comes_by_itself(
    modules: Any, spelling: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCORE_LOSSES, "mine", ScoreLoss(lambda x, s: dist2(x.logits, x.distances)))
    names = {arm.name for arm in modules.arms.list_arms(spelling, (1.0,))}
    whole_only = {name for name, loss in SCORE_LOSSES.items() if loss.whole_scores}
    assert {"ce", "mine"} <= names and whole_only
    missing = set(SCORE_LOSSES) - names
    assert missing == {"contrastive", "oprm"} | ({"weighted_ce"} if spelling.places == 1 else whole_only)


def test_each_arm_has_a_finite_loss_and_gradient_in_its_logits(modules: Any, spelling: Any) -> None:
    numbers = torch.tensor([0, 39, 99])
    for arm in modules.arms.list_arms(spelling, (0.5,)):
        logits = torch.randn(3, spelling.places, spelling.vocab_size, generator=torch.Generator().manual_seed(0))
        logits.requires_grad_()
        tables = modules.arms.ScoreTables(arm, spelling)
        loss = modules.training.token_and_score_loss(logits, numbers, arm, tables)
        loss.backward()
        assert logits.grad is not None
        assert torch.isfinite(loss) and torch.isfinite(logits.grad).all() and logits.grad.abs().sum() > 0, arm.name


def test_dist2_is_added_to_the_cross_entropy_with_its_weight(modules: Any) -> None:
    arms, spelling = modules.arms, modules.problems.SPELLINGS["whole"]
    arm = next(arm for arm in arms.list_arms(spelling, (0.3,)) if arm.name == "dist2")
    logits = torch.randn(2, 1, spelling.vocab_size, generator=torch.Generator().manual_seed(0))
    log_p = logits[:, 0].log_softmax(-1)
    expected = []
    for row, y in enumerate((5, 80)):
        target = torch.exp(-((torch.arange(100) - y) / 11).square())
        target /= target.sum()
        expected.append(-log_p[row, y] + 0.3 * (target * (target.log() - log_p[row, :100])).sum())
    found = modules.training.token_and_score_loss(logits, torch.tensor([5, 80]), arm, arms.ScoreTables(arm, spelling))
    assert found.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


def small(modules: Any, **changes: Any) -> Any:
    settings = {"width": 16, "layers": 1, "heads": 2, "points": 4, "batch": 4, "first_steps": 3, "steps": 3}
    settings |= {"first_learning_rate": 5e-3, "learning_rate": 5e-3, "test_problems": 8, **changes}
    return modules.training.Recipe(**settings)


def test_probabilities_and_means_equal_a_brute_force_computation(modules: Any, spelling: Any) -> None:
    torch.manual_seed(0)
    model = modules.training.build_model(spelling, small(modules))
    x, y = torch.tensor([[3, 0, 9, 1], [2, 4, 6, 8]]), torch.tensor([[7, 98, 40, 11], [1, 2, 3, 4]])
    prompts = modules.problems.spell_points(x, y, spelling)[:, : -spelling.places]
    with torch.no_grad():
        found = modules.training.number_logprobs(model, prompts, torch.arange(100).expand(2, -1), spelling)
        for row in range(2):
            expected = []
            for number in range(100):
                tokens = [number] if spelling.places == 1 else [number // 10, number % 10]
                ids = torch.tensor([[*prompts[row].tolist(), *tokens]])
                log_p = model(input_ids=ids).logits[0].log_softmax(-1)
                at = range(prompts.shape[1] - 1, ids.shape[1] - 1)
                expected.append(sum(log_p[i, ids[0, i + 1]].item() for i in at))
            assert found[row].tolist() == pytest.approx(expected, abs=1e-5)
            mass = [2.718281828459045**logprob for logprob in expected]
            mean = sum(n * p for n, p in enumerate(mass)) / sum(mass)
            assert modules.training.expected_numbers(found.double())[row].item() == pytest.approx(mean, rel=1e-4)


def test_runs_of_one_seed_differ_by_the_loss_alone(modules: Any, spelling: Any) -> None:
    recipe = small(modules)
    start = modules.training.first_training(spelling, 1, recipe, "cpu")

    def test(name: str, alpha: float, seed: int) -> dict[str, float]:
        arm = next(arm for arm in modules.arms.list_arms(spelling, (alpha,)) if arm.name == name)
        return modules.training.train_and_test(arm, spelling, start, 5, seed, recipe, "cpu")

    plain = test("ce", 0.0, 1)
    assert test("dist2", 0.0, 1) == pytest.approx(plain)
    assert test("dist2", 3.0, 1) != pytest.approx(plain)
    assert test("ce", 0.0, 2) != pytest.approx(plain)


def test_differences_are_paired_by_seed(modules: Any) -> None:
    ours, theirs = [0.5, 0.9, 0.2, 0.7], [0.6, 0.95, 0.35, 0.71]
    rows = [
        {"spelling": "whole", "arm": arm, "alpha": alpha, "problems": 10, "seed": seed, "error": None}
        | {"figures": dict.fromkeys(modules.summary.METRICS, value)}
        for arm, alpha, values in (("ce", 0.0, theirs), ("dist2", 1.0, ours), ("sord", 1.0, theirs))
        for seed, value in enumerate(values)
    ]
    rows.append({**rows[4], "seed": 9, "error": "not finite", "figures": {}})
    cells = {cell["arm"]: cell for cell in modules.summary.summarise(rows)["cells"]}
    assert (cells["dist2"]["n"], cells["dist2"]["errors"]) == (4, 1)
    difference = cells["dist2"]["mean_mae"]["from_ce"]
    test = stats.ttest_rel(ours, theirs)
    assert difference["p"] == pytest.approx(test.pvalue, rel=1e-3)
    assert difference["interval"] == pytest.approx(list(test.confidence_interval()), rel=1e-3)
    assert difference["holm"] == pytest.approx(2 * test.pvalue, rel=1e-3)  # the smaller of two
    assert cells["sord"]["mean_mae"]["from_ce"] == {"mean": 0.0, "interval": [0.0, 0.0], "p": 1.0, "holm": 1.0}
    assert "from_ce" not in cells["ce"]["mean_mae"]


def test_the_folder_is_no_package(repo: Path) -> None:
    assert not list((repo / "experiments").rglob("__init__.py"))


def command(repo: Path, *args: str) -> list[str]:
    return [sys.executable, str(repo / "experiments" / "meta_regression" / "run.py"), *args]


def test_a_killed_experiment_goes_on_without_doing_anything_twice(repo: Path, modules: Any, tmp_path: Path) -> None:
    call = command(repo, "--preset", "smoke", "--output", str(tmp_path), "--workers", "1")
    environment = {**os.environ, "PYTHONPATH": str(repo), "OMP_NUM_THREADS": "1"}
    log = tmp_path / "runs.jsonl"
    process = subprocess.Popen(call, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until:
            if log.exists() and log.read_bytes().count(b"\n") >= 3:
                break
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    kept = log.read_bytes()[: log.read_bytes().rfind(b"\n") + 1]
    log.write_bytes(kept + b'{"spelling": "who')
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    there = kept.count(b"\n")
    assert f"{there} were there, 0 diverged" in done.stdout
    assert log.read_bytes().startswith(kept)
    rows = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    keys = [tuple(row[name] for name in ("spelling", "arm", "alpha", "problems", "seed")) for row in rows]
    assert len(keys) == len(set(keys))
    preset = modules.runs.PRESETS["smoke"]
    assert 3 <= there < len(keys)
    assert len(keys) == len(modules.runs.plan_runs(preset, preset.seeds))
    table = (tmp_path / "results.md").read_text("utf-8")
    assert [
        name for name in ("ce", "full", *set(SCORE_LOSSES) - {"contrastive", "oprm"}) if f"| `{name}` |" not in table
    ] == []
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert {cell["n"] for cell in results["cells"]} == {2} and set(results["references"]) == {"whole", "digits"}
    for name in ("mae_whole", "mae_digits", "rmse_whole", "rmse_digits", "differences_whole", "differences_digits"):
        assert (tmp_path / f"{name}.svg").read_text("utf-8").rstrip().endswith("</svg>")
        assert (tmp_path / f"{name}.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("--losses", "nothing"), 2, "unknown loss 'nothing'; choose cdw_ce, ce, ce_vocab"),
        (("--output", "."), 1, "was started with sizes=[7] and is now told [3]"),
    ],
)
def test_wrong_calls_say_what_is_wrong(
    repo: Path, tmp_path: Path, args: tuple[str, ...], code: int, message: str
) -> None:
    settings = {"format_version": 1, "recipe": {}, "sizes": [7], "alphas": [1.0], "device": "cpu"}
    if code == 1:
        recipe = {"width": 16, "layers": 1, "heads": 2, "points": 4, "batch": 4, "first_steps": 3, "steps": 2}
        recipe |= {"first_learning_rate": 5e-3, "learning_rate": 2e-3, "test_problems": 8}
        (tmp_path / "settings.json").write_text(json.dumps({**settings, "recipe": recipe}), "utf-8")
    done = subprocess.run(
        command(repo, "--preset", "smoke", *args),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repo)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
