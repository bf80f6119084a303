from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from rmkit.prefix_tree import PrefixTree
from rmkit.tree_attention import _queries, find_obstacle, tree_inputs, use_tree_attention

SMALL = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}


def build(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **{**SMALL, "initializer_range": 0.2, **options})
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa").eval()


def draw_sequences(seed: int = 0) -> list[tuple[int, ...]]:
    """Six sequences: two roots, one with two branches, of which one branches again."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(48, (count,), generator=generator).tolist())

    root, branch = draw(20), draw(17)
    branches = [root + branch + draw(n) for n in (3, 1, 9)]
    return [*branches, root + draw(5), draw(11), root + branch]


def grow(sequences: list[tuple[int, ...]], share: bool = True) -> tuple[PrefixTree, list[list[int]]]:
    tree = PrefixTree(share)
    return tree, [list(tree.add(tokens)) for tokens in sequences]


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "gpt_neox", "phi3", "qwen3_moe"])
@pytest.mark.parametrize(("share", "queries"), [(True, 128), (True, 4), (False, 128)])
def test_a_tree_gives_the_states_and_gradients_of_its_sequences(
    name: str, share: bool, queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmkit.tree_attention.QUERIES", queries)  # 4: the longer segments are computed in parts
    model, sequences = build(name), draw_sequences()
    weights = [torch.randn(len(tokens), 48) for tokens in sequences]
    expected = [model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0] for tokens in sequences]
    sum((logits * w).sum() for logits, w in zip(expected, weights, strict=True)).backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)

    use_tree_attention(model)
    tree, places = grow(sequences, share)
    assert len(tree.token_ids) == (20 + 17 + 3 + 1 + 9 + 5 + 11 if share else sum(map(len, sequences)))
    logits = model(**tree_inputs(tree), use_cache=False).logits[0]
    found = [logits[where] for where in places]
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    sum((logits * w).sum() for logits, w in zip(found, weights, strict=True)).backward()
    for n, p in model.named_parameters():
        if n in gradients:
            scale = gradients[n].abs().max().clamp(min=1)
            torch.testing.assert_close(p.grad / scale, gradients[n] / scale, atol=1e-5, rtol=1e-5)


def test_a_long_segment_is_not_computed_as_a_square() -> None:
    parts = list(_queries(torch.zeros(1, 1, 1000, 1), 1010))  # 1,000 queries behind 10 keys of others
    assert torch.cat([part for part, _, _ in parts], dim=2).shape[2] == 1000
    assert [seen for _, seen, _ in parts] == [138, 266, 394, 522, 650, 778, 906, 1010]
    computed = sum(part.shape[2] * seen for part, seen, _ in parts)
    visible = sum(int(mask.sum()) for _, _, mask in parts if mask is not None)
    assert visible == sum(range(11, 1011))
    assert computed < 1.15 * visible < 0.6 * 1000 * 1010


def test_no_token_sees_a_branch_beside_its_own() -> None:
    model, sequences = build("llama").eval(), draw_sequences()
    use_tree_attention(model)
    changed = [*sequences]
    changed[0] = (*sequences[0][:-3], 1, 2, 3)
    assert changed[0] != sequences[0]
    found = []
    for each in (sequences, changed):
        tree, places = grow(each)
        logits = model(**tree_inputs(tree), use_cache=False).logits[0]
        found.append([logits[where] for where in places])
    torch.testing.assert_close(found[0][1:], found[1][1:])
    assert not torch.allclose(found[0][0][-3:], found[1][0][-3:])


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2"])
def test_a_tree_grows_on_what_is_computed_already(name: str) -> None:
    model, sequences = build(name), draw_sequences()
    expected = [model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1] for tokens in sequences]
    use_tree_attention(model)
    tree, cache = PrefixTree(), DynamicCache()
    tree.add(sequences[0][:25])
    model(**tree_inputs(tree), past_key_values=cache)
    for part in (sequences[:2], sequences[2:]):
        start, known = len(tree.segments), len(tree.token_ids)
        places = [tree.add(tokens) for tokens in part]
        places = [tree.repeat(where) if where[-1] < known else where for where in places]
        logits = model(**tree_inputs(tree, start), past_key_values=cache).logits[0]
        assert logits.shape[0] == len(tree.token_ids) - known
        for where, tokens in zip(places, part, strict=True):
            right = expected[sequences.index(tokens)]
            torch.testing.assert_close(logits[where[-1] - known], right, atol=1e-5, rtol=1e-5)


def test_without_a_tree_it_is_sdpa() -> None:
    model = build("qwen3").eval()
    ids = torch.randint(48, (2, 9))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1, 1], [1] * 9])
    before = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    use_tree_attention(model)
    after = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    torch.testing.assert_close(after[1], before[1])
    torch.testing.assert_close(after[0, 2:], before[0, 2:])


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "gpt_neox", "phi3", "olmo2"])
def test_models_that_can_take_trees(name: str) -> None:
    assert find_obstacle(AutoConfig.for_model(name), "sdpa", 1024) is None


def test_models_that_can_not_say_why() -> None:
    assert "eager" in str(find_obstacle(AutoConfig.for_model("llama"), "eager", 1024))
    mistral = AutoConfig.for_model("mistral", sliding_window=512)
    assert "window of 512" in str(find_obstacle(mistral, "sdpa", 513))
    assert find_obstacle(mistral, "sdpa", 512) is None
    assert "cap that a tree can't give" in str(find_obstacle(AutoConfig.for_model("gemma2"), "sdpa", 1024))
    # Recurrent layers run through all tokens: found by trying, not by name.
    assert "other hidden states" in str(find_obstacle(AutoConfig.for_model("qwen3_next"), "sdpa", 1024))
    stretched = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0, "original_max_position_embeddings": 64}
    llama = AutoConfig.for_model("llama", rope_parameters=stretched)
    assert "longest sequence" in str(find_obstacle(llama, "sdpa", 1024))
    # Both show beyond 8,192 tokens only, which no trial of a small model reaches.
    llama4 = AutoConfig.for_model("llama4_text", attn_temperature_tuning=False, attention_chunk_size=512)
    assert "chunks of 512" in str(find_obstacle(llama4, "sdpa", 513))
    llama4 = AutoConfig.for_model("llama4_text")
    assert "place in the batch" in str(find_obstacle(llama4, "sdpa", 1024))


def test_a_window_that_would_cut_a_sequence_is_refused() -> None:
    model = build("mistral", sliding_window=8)
    use_tree_attention(model)
    with pytest.raises(ValueError, match="MistralAttention asks for a window"):
        model(**tree_inputs(grow(draw_sequences())[0]), use_cache=False)
