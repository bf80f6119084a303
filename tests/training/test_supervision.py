"""What a row teaches: rubrics and scales of its own, weights of attributes, and preferences beside ratings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from rmkit import losses
from rmkit.errors import DataError, TokenizerError
from rmkit.judge_encoder import JudgeEncoder
from rmkit.losses import SCORE_LOSSES, LossSettings
from rmkit.preparation.folder import RATED_FILES, write_prepared
from rmkit.prompts import render_prompt
from rmkit.rubric import Attribute, Rubric
from rmkit.schema import Message, RatedResponse
from rmkit.training.collation import JudgeCollator
from rmkit.training.examples import Example, GroupedExamples, count_comparisons, encode_example
from rmkit.training.head import CompletionHead, judge_loss, row_counts, row_sums
from rmkit.training.run import train_judge
from rmkit.training.settings import TrainingSettings
from rmkit.training.tiny_model import save_tiny_model

RUBRIC = Rubric(
    "run", (Attribute("helpfulness", "Helpfulness"), Attribute("overall", "Overall", minimum=0, maximum=20))
)
OWN = Rubric("own", (Attribute("verbosity", "Verbosity", minimum=1, maximum=10), Attribute("overall", "Overall")))
Item = Example | tuple[Example, ...]


@pytest.fixture(scope="module")
def encoder(tiny_tokenizer: Callable[..., Any]) -> JudgeEncoder:
    return JudgeEncoder(tiny_tokenizer("three_digits"), RUBRIC)  # one token for each score, as in Llama-3


@pytest.fixture(scope="module")
def model(tiny: Any, encoder: JudgeEncoder) -> PreTrainedModel:
    return tiny.build_model(len(encoder.prompts.tokenizer), "llama", layers=1).double()


@pytest.fixture(params=["fused", "plain"])
def head(request: pytest.FixtureRequest, model: PreTrainedModel) -> CompletionHead:
    """Both ways to the loss: tiles at a plain head, and logits of the last positions."""
    head = CompletionHead(model)
    if request.param == "plain":
        head._fall_back("the test asks for it")
    return head


def rated(encoder: JudgeEncoder, row_id: str, scores: dict[str, int], turn: str = "Hi", **more: Any) -> Example:
    words = "words " * (1 + len(row_id) % 4)
    row = RatedResponse(row_id, "s", (Message("user", turn),), words + row_id, scores, **more)
    return encode_example(encoder, row, neighbours=2, fill=False)


@pytest.fixture(scope="module")
def mixed(encoder: JudgeEncoder) -> list[tuple[Example, ...]]:
    """Three rubrics' worth of scales, a missing rating, two responses to one conversation, one example without any."""
    bare = replace(rated(encoder, "bare", {"helpfulness": 1}, "Bare."), positions=(), contrasts=())
    return [
        (
            rated(encoder, "r/1", {"helpfulness": 5, "overall": 17}, "Two?"),
            rated(encoder, "r/2", {"helpfulness": 2, "overall": 20}, "Two?"),
        ),
        (rated(encoder, "r/3", {"overall": 0}),),
        (
            rated(encoder, "r/40", {"verbosity": 10, "overall": 5}, "A longer question with words.", rubric=OWN),
            rated(encoder, "r/41", {"verbosity": 3, "overall": 1}, "A longer question with words.", rubric=OWN),
        ),
        (bare,),
        (rated(encoder, "r/5", {"verbosity": 1}, rubric=OWN),),
    ]


def gradients(model: PreTrainedModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)
    return dict(zip(dict(model.named_parameters()), found, strict=True))


def assert_gradients(model: PreTrainedModel, found: torch.Tensor, expected: torch.Tensor) -> None:
    wanted = gradients(model, expected)
    assert any(gradient.abs().max() > 1e-3 for gradient in wanted.values())
    for name, gradient in gradients(model, found).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("name", ["ce", *SCORE_LOSSES])
def test_rubrics_and_scales_share_a_batch_under_every_loss(
    model: PreTrainedModel, mixed: list[tuple[Example, ...]], head: CompletionHead, name: str
) -> None:
    settings = LossSettings(name, tau=3.0, alpha=0.5)
    collate = JudgeCollator(0, settings)

    def sums(items: Sequence[Item]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        batch = collate(items)
        terms = head.loss(model, batch, settings, 1.0, 0.5)
        return terms.loss, row_sums(terms, batch), row_counts(batch)

    loss, rows, counts = sums(mixed)
    alone = [sums([item]) for item in mixed]
    torch.testing.assert_close(rows, torch.cat([one[1] for one in alone]), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(counts, torch.cat([one[2] for one in alone]))
    assert (counts[:, 1] > 0).tolist() == {
        "oprm": [True, False, True, False, False],
        "contrastive": [False] * 5,  # here all numbers are one token
    }.get(name, [True, True, True, False, True])
    assert_gradients(model, loss, sum((one[0] for one in alone), torch.zeros(())))


@pytest.mark.parametrize("reduction", ["tokens", "scores"])
def test_attribute_weights_make_weighted_means(
    model: PreTrainedModel, mixed: list[tuple[Example, ...]], head: CompletionHead, reduction: str
) -> None:
    weights = {"helpfulness": 2.0, "verbosity": 0.25, "overall": 0}
    settings = LossSettings("dist2", reduction=reduction, attribute_weights=weights)
    loss = judge_loss(model, JudgeCollator(0, settings)(mixed), settings, head)
    token_sum = score_sum = torch.zeros((), dtype=torch.float64)
    tokens = places = 0.0
    for example in (example for item in mixed for example in item):
        logprobs = full_logprobs(model, example)
        at = {position.index: weights[position.key] for position in example.positions}
        for i, token in enumerate(example.completion_ids):
            token_sum = token_sum - at.get(i, 1.0) * logprobs[i, token]
            tokens += at.get(i, 1.0)
        for position in example.positions:
            scores = torch.tensor([float(score) for (score,) in position.choice.scores], dtype=torch.float64)
            z = logprobs[position.index, list(position.choice.token_ids)]
            term = losses.dist2(z[None], (scores - position.score).square()[None], 1.0, torch.zeros(1))
            score_sum = score_sum + weights[position.key] * term.sum()
            places += weights[position.key]
    assert places == 2 * 2 + 3 * 0.25
    expected = token_sum / tokens + 0.1 * score_sum / (tokens if reduction == "tokens" else places)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)  # counts are float32
    assert_gradients(model, loss, expected)


def full_logprobs(model: PreTrainedModel, example: Example) -> torch.Tensor:
    """Log-probabilities over the vocabulary that predict each token of a completion, (C, V)."""
    ids = torch.tensor([[*example.prompt_ids, *example.completion_ids]])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(example.prompt_ids) - 1 : -1]
    return torch.log_softmax(logits, dim=-1)


def test_weights_that_sum_to_less_than_one_are_a_mean_as_well(
    model: PreTrainedModel, mixed: list[tuple[Example, ...]]
) -> None:
    found = []
    for weight in (1.0, 1e-3):
        weights = dict.fromkeys(("helpfulness", "verbosity", "overall"), weight)
        settings = LossSettings("dist2", alpha=1e6, reduction="scores", attribute_weights=weights)
        found.append(judge_loss(model, JudgeCollator(0, settings)(mixed), settings).item())
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.fixture(scope="module")
def preferred(encoder: JudgeEncoder) -> list[Example]:
    """Two preferences and two ratings of one conversation, a ranking of three, a tie, one that lost its other side."""
    derived = {"derived": ("helpfulness",)}
    return [
        rated(encoder, "p/000001a", {"helpfulness": 1, "overall": 3}, "One?", **derived),
        rated(encoder, "h/000001a", {"helpfulness": 4}, "One?"),
        rated(encoder, "p/000001b", {"helpfulness": 5, "overall": 9}, "One?", **derived),
        rated(encoder, "p/000002a", {"helpfulness": 5}, "One?", **derived),
        rated(encoder, "h/000002a", {"helpfulness": 2}, "One?"),
        rated(encoder, "p/000002b", {"helpfulness": 4}, "One?", **derived),
        rated(encoder, "q/000000a", {"helpfulness": 1}, "Three?", **derived),
        rated(encoder, "q/000000b", {"helpfulness": 3}, "Three?", **derived),
        rated(encoder, "q/000000c", {"helpfulness": 5}, "Three?", **derived),
        rated(encoder, "q/000001a", {"helpfulness": 3}, "Tie?", **derived),
        rated(encoder, "q/000001b", {"helpfulness": 3}, "Tie?", **derived),
        rated(encoder, "q/000002a", {"helpfulness": 5}, "Alone?", **derived),
    ]


PAIRS = [
    ("p/000001b", "p/000001a"),
    ("p/000002a", "p/000002b"),
    ("q/000000c", "q/000000b"),
    ("q/000000b", "q/000000a"),
]


@pytest.mark.parametrize("loss", ["ce", "dist2", "raft", "contrastive"])
def test_a_preference_counts_by_its_order_beside_ratings(
    model: PreTrainedModel, preferred: list[Example], head: CompletionHead, loss: str
) -> None:
    items = GroupedExamples(preferred, derived_only=True)
    assert sorted([e.id for e in items[n]] for n in range(len(items))) == [
        *(["h/000001a"], ["h/000002a"], ["p/000001a", "p/000001b"], ["p/000002a", "p/000002b"]),
        *(["q/000000a", "q/000000b", "q/000000c"], ["q/000001a", "q/000001b"], ["q/000002a"]),
    ]
    assert sum(count_comparisons(items[n], derived_only=True) for n in range(len(items))) == len(PAIRS)
    weights = {"helpfulness": 2.0}
    settings = LossSettings(
        loss, reduction="scores", preference_loss="oprm", preference_alpha=0.75, attribute_weights=weights
    )
    batch = JudgeCollator(0, settings)([items[n] for n in range(len(items))])
    found = judge_loss(model, batch, settings, head)

    logprobs = {example.id: full_logprobs(model, example) for example in preferred}
    by_id = {example.id: example for example in preferred}
    token_sum = score_sum = pair_sum = torch.zeros((), dtype=torch.float64)
    tokens = places = 0.0
    plain = LossSettings("dist2")
    for example in preferred:
        at = {position.index: position for position in example.positions}
        for i, token in enumerate(example.completion_ids):
            weight = 1.0
            if i in at:
                weight = 0.0 if at[i].key in example.derived else weights.get(at[i].key, 1.0)
            token_sum = token_sum - weight * logprobs[example.id][i, token]
            tokens += weight
        if loss == "contrastive":  # all numbers are one token, so there is nothing to compare but preferences
            continue
        for position in example.positions:
            if position.key in example.derived:
                continue
            scores = torch.tensor([float(score) for (score,) in position.choice.scores], dtype=torch.float64)
            z = logprobs[example.id][position.index, list(position.choice.token_ids)][None]
            target = torch.tensor([float(position.score)])
            term = {
                "ce": lambda z, s, y: torch.zeros(1),
                "dist2": lambda z, s, y: losses.dist2(z, (s - y).square()[None], plain.tau, torch.zeros(1)),
                "raft": lambda z, s, y: losses.raft(z, s, y, torch.zeros(1)),
            }[loss](z, scores, target)
            score_sum = score_sum + weights.get(position.key, 1.0) * term.sum()
            places += weights.get(position.key, 1.0)
    for example in preferred:  # of a derived score only the order counts, and that it is one
        row = logprobs[example.id]
        for ids, index in [(p.choice.token_ids, p.index) for p in example.positions if p.key in example.derived]:
            pair_sum = pair_sum - 2.0 * row[index, list(ids)].logsumexp(-1)
            places += 2.0
    for better, worse in PAIRS:
        sides = [
            logprobs[row][next(p for p in by_id[row].positions if p.key == "helpfulness").index]
            for row in (better, worse)
        ]
        ids = list(by_id[better].positions[0].choice.token_ids)
        pair_sum = pair_sum + 2.0 * losses.oprm(sides[0][ids][None], sides[1][ids][None]).sum()
    expected = token_sum / tokens + (0.1 * score_sum + 0.75 * pair_sum) / places
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert_gradients(model, judge_loss(model, batch, settings, head), expected)


def test_a_score_without_rivals_teaches_that_it_is_one(
    model: PreTrainedModel, preferred: list[Example], head: CompletionHead
) -> None:
    settings = LossSettings("ce", preference_loss="oprm")
    lone, tied, other = (preferred[-1],), tuple(preferred[-3:-1]), preferred[1]
    batch = JudgeCollator(0, settings)([lone, tied, other])
    assert batch["score_rivals"].tolist() == [-1] * 4
    assert batch["score_ordered"].tolist() == [True, True, True, False]
    terms = head.loss(model, batch, settings, 0.0, settings.alpha)
    expected = torch.zeros(())
    for example in (*lone, *tied):
        (position,) = example.positions
        row = full_logprobs(model, example)[position.index]
        expected = expected - row[list(position.choice.token_ids)].logsumexp(-1)
    torch.testing.assert_close(terms.loss, expected, rtol=1e-6, atol=1e-6)
    assert_gradients(model, terms.loss, expected)
    # And nothing at all where there is none, in a loss that is connected to the graph.
    batch = JudgeCollator(0, settings)([other])
    terms = head.loss(model, batch, settings, 0.0, 1.0)
    assert terms.loss.item() == 0 and terms.loss.requires_grad and terms.scores.tolist() == [0]
    assert all(not gradient.any() for gradient in gradients(model, terms.loss).values())


def test_preferences_need_their_other_side_and_one_token_a_score(
    preferred: list[Example], tiny_tokenizer: Callable[..., Any]
) -> None:
    settings = LossSettings(preference_loss="oprm")
    with pytest.raises(ValueError, match=r"'oprm' compares .* GroupedExamples\(examples, derived_only=True\)"):
        JudgeCollator(0, settings)(preferred[:1])
    with pytest.raises(DataError, match="derived from one preference"):
        GroupedExamples([preferred[1], preferred[4], *preferred[-3:]], derived_only=True)
    digits = JudgeEncoder(tiny_tokenizer("split_digits"), RUBRIC)
    pair = [rated(digits, f"p/0{side}", {"overall": n}, derived=("overall",)) for side, n in (("a", 20), ("b", 0))]
    with pytest.raises(TokenizerError, match="loss 'oprm' needs one token for each score, but those of 'overall'"):
        JudgeCollator(0, settings)([tuple(pair)])
    # Ratings digit by digit don't mind, and nor do derived scores that are trained on as ratings.
    several = rated(digits, "p/0", {"helpfulness": 5, "overall": 14}, derived=("helpfulness",))
    JudgeCollator(0, settings)([(several,)])
    JudgeCollator(0, LossSettings())(pair)


def test_an_attribute_without_a_rating_is_written_and_not_trained(encoder: JudgeEncoder) -> None:
    """A judge is asked for all attributes in order, so rows that rate some of them must look alike."""
    drawn = set()
    for n in range(12):
        row = RatedResponse(f"s/{n}", "s", (Message("user", "Hi"),), "Hello.", {"helpfulness": 4})
        found = encode_example(encoder, row)
        text = encoder.prompts.tokenizer.decode(found.completion_ids)
        drawn.add(int(text.removeprefix("Helpfulness: 4, Overall: ").removesuffix("<|im_end|>")))
        assert [position.key for position in found.positions] == ["helpfulness"]
        assert found == encode_example(encoder, row)
        batch = JudgeCollator(0, LossSettings(attribute_weights={"helpfulness": 3, "overall": 5}))([found])
        weights = [1.0] * len(found.completion_ids)
        weights[found.positions[0].index], weights[-2] = 3.0, 0.0
        assert batch["label_weights"].tolist() == [weights]
        assert batch["score_weights"].tolist() == [3.0]
    assert len(drawn) > 5 and drawn <= set(range(21))
    row = replace(row, scores={"helpfulness": 4, "overall": 20})
    assert encode_example(encoder, row) == encode_example(encoder, row, fill=False)
    whole = encode_example(encoder, row, fill=False)
    assert whole.untrained == ()


HELLOS = Rubric(
    "hellos",
    (Attribute("helpfulness", "Helpfulness", "Does it help?"), Attribute("verbosity", "Verbosity", weight=0.0)),
)


def hello_rows() -> list[RatedResponse]:
    """Pairs of which the side with more greetings is better, and rows rated on their fillers; no row has both."""
    rows = []
    for n in range(240):
        turn = (Message("user", f"Greet {n}."),)
        fillers = [n % 5, n // 5 % 5]
        texts = ["hello " * count + "well " * f for count, f in zip((4 + n % 3, n // 3 % 3), fillers, strict=True)]
        if n % 2:
            rows += [
                RatedResponse(f"pairs/{n:06d}{side}", "pairs", turn, text + ".", {"helpfulness": score}, derived=kept)
                for side, text, score, kept in zip("ab", texts, (5, 1), [("helpfulness",)] * 2, strict=True)
            ]
        else:
            rows += [
                RatedResponse(f"rated/{n:06d}{side}", "rated", turn, text + ".", {"verbosity": 1 + f})
                for side, text, f in zip("ab", texts, fillers, strict=True)
            ]
    return rows


def test_preferences_alone_teach_which_response_is_better(
    small_settings: Callable[..., TrainingSettings], small_model: Path, tmp_path: Path
) -> None:
    data, origin = tmp_path / "hellos", {"dataset": "hellos", "source": {}}
    rows = [row for row in hello_rows() if row.derived]
    write_prepared(data, ((row,) for row in rows), RATED_FILES, HELLOS, 0, 0.25, origin)
    options = ["--data", str(data), "--preference_loss", "oprm", "--learning_rate", "0.01"]
    options += ["--max_steps", "150", "--eval_steps", "150", "--save_steps", "150", "--lr_scheduler_type", "cosine"]
    options += ["--per_device_train_batch_size", "8"]
    figures = train_judge(small_settings(*options))
    held_out = figures["rows"]["validation"] // 2
    assert figures["comparisons"] == figures["rows"]["train"] // 2
    assert figures["metrics"]["eval_pairs"] == held_out > 25
    assert figures["metrics"]["eval_pair_accuracy"] > 0.8
    assert figures["metrics"]["eval_outside_mass"] < 0.1  # it writes scores, though none was given
    terms = [line["loss_preferences"] for line in figures["log"] if "loss_preferences" in line]
    assert terms[-1] < 0.2 * terms[0]
    assert all(line["loss_scores"] == 0 for line in figures["log"] if "loss_scores" in line)


@pytest.mark.parametrize("lora", ["false", "true"])
def test_comparisons_make_the_same_steps_however_a_batch_is_split(
    small_settings: Callable[..., TrainingSettings],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    lora: str,
) -> None:
    data, origin = tmp_path / "hellos", {"dataset": "hellos", "source": {}}
    write_prepared(data, ((row,) for row in hello_rows()[:120]), RATED_FILES, HELLOS, 0, 0.25, origin)
    options = ["--data", str(data), "--preference_loss", "oprm", "--alpha", "1", "--lora", lora, "--max_steps", "3"]
    split = ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2"]
    found = []
    for name, more in {
        "whole": [],
        "split": [*split, "--gradient_checkpointing", "true", "--packing", "none"],
    }.items():
        log = train_judge(small_settings(*options, *more, "--output_dir", str(tmp_path / name)))["log"]
        found.append([(line["loss"], line["loss_preferences"]) for line in log if "loss_preferences" in line])
    assert len(found[0]) == 3 and any(preferences > 0.01 for _, preferences in found[0])
    assert torch.tensor(found[0]).sub(torch.tensor(found[1])).abs().max() < 1e-5
    assert "comparisons are lost" not in caplog.text


def test_comparisons_that_no_batch_can_hold_are_told(
    small_settings: Callable[..., TrainingSettings], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, origin = tmp_path / "hellos", {"dataset": "hellos", "source": {}}
    rows = [row for row in hello_rows()[:80] if row.derived]
    write_prepared(data, ((row,) for row in rows), RATED_FILES, HELLOS, 0, 0.25, origin)
    options = ["--data", str(data), "--preference_loss", "oprm", "--max_steps", "1", "--packing", "separate"]
    figures = train_judge(small_settings(*options, "--batch_tokens", "300"))
    pairs = figures["rows"]["train"] // 2
    assert figures.get("comparisons", 0) < pairs
    assert f"{pairs - figures.get('comparisons', 0)} comparisons are lost: their responses do not fit" in caplog.text


def test_preferences_and_ratings_are_learnt_in_one_run(
    small_settings: Callable[..., TrainingSettings], tmp_path: Path
) -> None:
    """No row has both attributes, and held-out rows are asked for both."""
    rows, data, model = hello_rows(), tmp_path / "hellos", tmp_path / "model"
    write_prepared(data, ((row,) for row in rows), RATED_FILES, HELLOS, 0, 0.25, {"dataset": "hellos", "source": {}})
    texts = [
        f"{row.response} {render_prompt(HELLOS, row.conversation, '')} Helpfulness: 5, Verbosity: 1" for row in rows
    ]
    save_tiny_model(texts, model, 400, layers=2, width=64, max_length=1024)
    options = ["--data", str(data), "--model", str(model), "--preference_loss", "oprm", "--alpha", "1"]
    options += ["--reduction", "scores", "--learning_rate", "0.005", "--lr_scheduler_type", "cosine"]
    options += ["--per_device_train_batch_size", "8", "--adam_beta2", "0.98", "--max_steps", "250"]
    options += ["--eval_steps", "250", "--save_steps", "250", "--logging_steps", "50"]
    metrics = train_judge(small_settings(*options))["metrics"]
    assert metrics["eval_pairs"] > 25
    assert metrics["eval_pair_accuracy"] > 0.85  # chance is 0.5
    assert metrics["eval_mae_verbosity"] < 0.4  # of 3 for everything it is 1.2
    assert metrics["eval_outside_mass"] < 0.05
