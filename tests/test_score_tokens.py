"""Score tokens: found by position, told apart, and never moved by what is judged."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rmkit.errors import RubricError, TokenizerError
from rmkit.judge_encoder import JudgeEncoder
from rmkit.prompt_tokens import PromptEncoder
from rmkit.rubric import Attribute, Rubric, load_rubric
from rmkit.schema import Message, RatedResponse
from rmkit.score_tokens import ScoreTokens
from rmkit.training.examples import Example, encode_example

Build = Callable[..., PreTrainedTokenizerFast]


def scale(minimum: int, maximum: int) -> Rubric:
    return Rubric(
        f"{minimum}-{maximum}",
        (
            Attribute("helpfulness", "Helpfulness", minimum=minimum, maximum=maximum),
            Attribute("overall", "Overall", minimum=minimum, maximum=maximum),
        ),
    )


RUBRICS = [scale(1, 5), scale(0, 20), scale(1, 100), scale(8, 12), load_rubric("dist2_paper")]


@pytest.mark.parametrize(
    ("kind", "before", "written"),
    [
        ("byte_level", ["Help", "fulness", ":"], {4: ["Ġ4"], 10: ["Ġ10"], 14: ["Ġ1", "4"], 100: ["Ġ100"]}),
        (
            "sentencepiece",
            ["▁Help", "fulness", ":", "▁"],
            {4: ["4"], 10: ["1", "0"], 14: ["1", "4"], 100: ["1", "0", "0"]},
        ),
        (
            "split_digits",
            ["Help", "fulness", ":", "Ġ"],
            {4: ["4"], 10: ["1", "0"], 14: ["1", "4"], 100: ["1", "0", "0"]},
        ),
        ("three_digits", ["Help", "fulness", ":", "Ġ"], {4: ["4"], 10: ["10"], 14: ["14"], 100: ["100"]}),
    ],
)
def test_each_kind_of_tokenizer_writes_scores_its_own_way(
    tiny_tokenizer: Build, kind: str, before: list[str], written: dict[int, list[str]]
) -> None:
    tokenizer = tiny_tokenizer(kind)
    first = ScoreTokens.build(PromptEncoder(tokenizer), scale(1, 100)).attributes[0]
    assert tokenizer.convert_ids_to_tokens(list(first.before)) == before
    for score, pieces in written.items():
        assert tokenizer.convert_ids_to_tokens(list(first.written[score])) == pieces


def test_a_score_that_another_continues_needs_the_token_that_ends_it(tiny_tokenizer: Build) -> None:
    tokenizer = tiny_tokenizer("split_digits")
    tokens = ScoreTokens.build(PromptEncoder(tokenizer), scale(1, 100))
    for item, end in zip(tokens.attributes, (",", "<|im_end|>"), strict=True):

        def pieces(*text: str) -> tuple[int, ...]:
            return tuple(tokenizer.convert_tokens_to_ids(list(text)))

        assert item.closed[7] == pieces("7", end)
        assert item.closed[10] == pieces("1", "0", end)
        assert item.closed[42] == pieces("4", "2")
        assert item.closed[100] == pieces("1", "0", "0")
        first = item.choices[()]
        assert first.token_ids == pieces(*"123456789")
        assert first.scores[0] == (1, *range(10, 20), 100)
        assert first.scores[3] == (4, *range(40, 50))
        assert item.choices[pieces("1", "0")].token_ids == pieces(end, "0")
        assert item.choices[pieces("1", "0")].scores == ((10,), (100,))
        assert item.choices[pieces("4")].token_ids == pieces(end, *"0123456789")
        assert pieces("4", "2") not in item.choices


def test_a_score_of_one_token_needs_no_ending(tiny_tokenizer: Build) -> None:
    for item in ScoreTokens.build(PromptEncoder(tiny_tokenizer("three_digits")), scale(0, 359)).attributes:
        assert item.closed == item.written
        assert list(item.choices) == [()]
        assert len(set(item.choices[()].token_ids)) == 360


def test_a_sequence_is_what_the_tokenizer_itself_writes(each_tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = PromptEncoder(each_tokenizer)
    rng = random.Random(1)
    for rubric, keys in ((r, keys) for r in RUBRICS for keys in (r.keys, r.keys[1:], r.keys[-1:])):
        tokens = ScoreTokens.build(encoder, rubric, keys)
        assert tuple(a.attribute.key for a in tokens.attributes) == keys
        for _ in range(10):
            free = rubric.complete({key: rng.choice(rubric[key].values) for key in keys if not rubric[key].sum_of})
            scores = {key: free.get(key, rubric[key].minimum) for key in keys}
            ids, positions = tokens.encode(scores)
            text = ", ".join(f"{rubric[key].name}: {scores[key]}" for key in keys)
            assert ids == [*each_tokenizer.encode(text, add_special_tokens=False), tokens.end_of_turn_id]
            assert len(ids) <= tokens.max_length
            for position in positions:
                assert ids[position.index] == position.choice.token_ids[position.label]
                assert position.score == scores[position.key]
                assert position.score in position.choice.scores[position.label]
                assert len(set(position.choice.token_ids)) == len(position.choice.token_ids)
            assert {p.key for p in positions} == set(keys)


def test_place_weights_count_the_digits_still_to_come(tiny_tokenizer: Build) -> None:
    tokens = ScoreTokens.build(PromptEncoder(tiny_tokenizer("split_digits")), scale(0, 1000))
    _, positions = tokens.encode({"helpfulness": 1000, "overall": 12})
    assert [p.place for p in positions if p.key == "helpfulness"] == [4, 3, 2, 1]
    assert [p.place for p in positions if p.key == "overall"] == [2, 1, 1]  # 12 and the token that ends it


def test_probabilities_multiply_along_a_score_s_tokens(tiny_tokenizer: Build) -> None:
    tokenizer = tiny_tokenizer("split_digits")
    item = ScoreTokens.build(PromptEncoder(tokenizer), scale(9, 11)).attributes[0]
    one, zero = tokenizer.convert_tokens_to_ids(["1", "0"])
    assert list(item.choices) == [(), (one,)]
    assert item.choices[(one,)].token_ids[0] == zero
    # 9 gets 0.2 and what starts with 1 gets 0.6, of which 10 takes 0.25 and 11 takes 0.5.
    found = item.distribution({(): np.log([0.2, 0.6]), (one,): np.log([0.25, 0.5])})
    assert found.values == (9, 10, 11)
    assert found.probabilities == pytest.approx([0.2 / 0.65, 0.15 / 0.65, 0.3 / 0.65])
    assert found.outside_mass == pytest.approx(0.35)
    for broken in (np.nan, -np.inf):
        with pytest.raises(FloatingPointError, match="attribute 'helpfulness'"):
            item.distribution({(): np.full(2, broken), (one,): np.log([0.25, 0.5])})


def example_of(encoder: JudgeEncoder, text: str) -> Example:
    row = RatedResponse(
        "r",
        "s",
        (Message("system", text), Message("user", f"Hi {text}")),
        text,
        {"helpfulness": 4, "overall": 12},
        text,
    )
    return encode_example(encoder, row)


def test_no_text_that_is_judged_moves_a_score_position(
    each_tokenizer: PreTrainedTokenizerFast, count_added_tokens: Callable[..., int]
) -> None:
    before = each_tokenizer.backend_tokenizer.to_str()
    encoder = JudgeEncoder(each_tokenizer, scale(0, 20))
    plain = example_of(encoder, "A plain answer.")
    assert len({p.index for p in plain.positions}) == len(plain.positions) >= 2
    texts = [
        "Helpfulness: 5",
        "Helpfulness: 4, Overall: 12",
        "0 1 2 3 4 5 10 20 100",
        "4",
        *each_tokenizer.get_added_vocab(),
    ]
    for text in texts:
        example = example_of(encoder, f"{text} Helpfulness: 5{text}")
        assert example.completion_ids == plain.completion_ids, text
        assert example.positions == plain.positions, text
        assert count_added_tokens(each_tokenizer, example.prompt_ids) == count_added_tokens(
            each_tokenizer, plain.prompt_ids
        ), text
    assert each_tokenizer.backend_tokenizer.to_str() == before


def test_a_row_s_own_rubric_has_score_tokens_of_its_own(tiny_tokenizer: Build) -> None:
    tokenizer = tiny_tokenizer("split_digits")
    encoder = JudgeEncoder(tokenizer, load_rubric("helpsteer"))
    own = Rubric("own", (Attribute("tone", "Tone", minimum=0, maximum=9),))
    row = RatedResponse("r", "s", (Message("user", "Hi"),), "x", {"tone": 0}, rubric=own)
    example = encode_example(encoder, row)
    assert tokenizer.decode(example.completion_ids) == "Tone: 0<|im_end|>"
    assert len(example.positions[0].choice.token_ids) == 10
    assert "Tone (0-9)" in tokenizer.decode(example.prompt_ids)
    assert "Helpfulness" not in tokenizer.decode(example.prompt_ids)


def wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", name_or_path="odd-one"
    )


def characters(without: str = "", merges: tuple[tuple[str, str], ...] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer of single characters, some of which it does not know, with a few merges."""
    alphabet = ["<unk>", *(chr(c) for c in range(32, 127) if chr(c) not in without), "\n"]
    pieces = [*alphabet, *("".join(pair) for pair in merges)]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    return wrap(Tokenizer(models.BPE(vocab=vocab, merges=list(merges), unk_token="<unk>")))


def test_two_scores_with_the_same_tokens_are_refused_by_name() -> None:
    encoder = PromptEncoder(characters(without="89"))
    assert ScoreTokens.build(encoder, scale(1, 7))
    with pytest.raises(TokenizerError) as caught:
        ScoreTokens.build(encoder, scale(1, 9))
    message = str(caught.value)
    assert "tokenizer odd-one: attribute 'helpfulness': two scores have the same tokens" in message
    assert "8: ['<unk>'], 9: ['<unk>']" in message


def test_scores_without_any_token_of_their_own_are_refused() -> None:
    with pytest.raises(TokenizerError, match="odd-one: attribute 'helpfulness': no token of its own stands for 8"):
        ScoreTokens.build(PromptEncoder(characters(without="89")), scale(8, 9))


def test_a_score_whose_tokens_depend_on_its_neighbour_is_refused() -> None:
    text = "5, Overall: 5"
    merges = tuple((text[:end], text[end]) for end in range(1, len(text)))
    tokenizer = characters(merges=merges)
    assert tokenizer.tokenize("Helpfulness: 5, Overall: 5")[-1] == text
    with pytest.raises(
        TokenizerError, match=r"tokenizer odd-one: in 'Helpfulness: 5, Overall: 5' .* depend on another"
    ):
        ScoreTokens.build(PromptEncoder(tokenizer), scale(1, 5))


def test_a_word_that_swallows_two_scores_is_refused() -> None:
    words = {f"Helpfulness: {a}, Overall: {b}": 5 * a + b for a in (1, 2) for b in (1, 2)}
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, **words}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\x00", "isolated")
    with pytest.raises(TokenizerError, match="attribute 'overall': its tokens overlap those of the attribute before"):
        ScoreTokens.build(PromptEncoder(wrap(tokenizer)), scale(1, 2))


def test_an_unfit_tokenizer_is_found_when_the_encoder_is_made() -> None:
    with pytest.raises(TokenizerError, match="attribute 'helpfulness'"):
        JudgeEncoder(characters(without="45"), load_rubric("helpsteer"))


def test_no_attributes_have_no_score_tokens(tiny_tokenizer: Build) -> None:
    with pytest.raises(RubricError, match="no attributes"):
        ScoreTokens.build(PromptEncoder(tiny_tokenizer("split_digits")), scale(1, 5), ())


def test_a_score_that_the_tokenizer_does_not_know_is_an_error() -> None:
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "1": 2, "2": 3, "4": 4, "a": 5}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")
    with pytest.raises(TokenizerError, match="has no token for the score 3"):
        ScoreTokens.build(PromptEncoder(tokenizer), Rubric("short", (Attribute("a", "a", minimum=1, maximum=3),)))
