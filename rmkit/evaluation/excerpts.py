"""The worst disagreements as records to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rmkit.evaluation.layout import Excerpt, Text
from rmkit.evaluation.tables import with_sign


def list_excerpts(disagreements: Sequence[Mapping[str, Any]]) -> Iterator[Excerpt]:
    """Disagreements of pairs, or of single responses with ratings, as `rmkit.evaluation.disagreements` gives them."""
    for item in disagreements:
        yield _show_pair(item) if "margin" in item else _show_rated(item)


def _show_pair(item: Mapping[str, Any]) -> Excerpt:
    facts = [item["subset"], f"margin {with_sign(item['margin'], 3)}"]
    if item["probability"] is not None:
        facts.append(f"P(chosen > rejected) {item['probability']:.3f}")
    responses = tuple(
        Text(label, item[side]["text"], _facts(item[side]))
        for side, label in (("chosen", "Chosen: better, by the labels"), ("rejected", "Rejected: scored higher"))
    )
    return Excerpt(item["id"], tuple(fact for fact in facts if fact), item["conversation"], responses)


def _show_rated(item: Mapping[str, Any]) -> Excerpt:
    given = ", ".join(f"{key} {score}" for key, score in item["ratings"].items())
    facts = (f"judge minus rating {with_sign(item['difference'], 3)}", f"ratings: {given}")
    response = Text("Response", item["response"]["text"], _facts(item["response"]))
    return Excerpt(item["id"], facts, item["conversation"], (response,))


def _facts(response: Mapping[str, Any]) -> tuple[str, ...]:
    return (f"aggregate {response['aggregate']:.3f}", *(f"{key} {m:.2f}" for key, m in response["scores"].items()))
