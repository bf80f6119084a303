from __future__ import annotations

import pytest

from rmkit.errors import RubricError
from rmkit.preparation.rubric_union import rename_attributes, unite_rubrics
from rmkit.rubric import Attribute, Rubric

A, B, C = (Attribute(key, key.upper(), f"What {key} means.", levels={1: "bad"}) for key in "abc")


def test_attributes_stand_where_they_first_do() -> None:
    found = unite_rubrics(
        "all", [("one", Rubric("x", (B, A))), ("two", Rubric("y", (C, A))), ("three", Rubric("z", (B,)))]
    )
    assert found == Rubric("all", (B, A, C))


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (Attribute("a", "A", "Other.", levels={1: "bad"}), "description 'What a means.' and 'Other.'"),
        (Attribute("a", "A", "What a means.", maximum=6, levels={1: "bad"}), "maximum 5 and 6"),
        (Attribute("a", "A", "What a means.", weight=0.5, levels={1: "bad"}), "weight 1.0 and 0.5"),
        (Attribute("a", "Aa", "What a means.", levels={1: "bad"}), "name 'A' and 'Aa'"),
        (Attribute("a", "A", "What a means."), "levels {1: 'bad'} and {}"),
    ],
)
def test_two_meanings_of_one_key_are_refused_with_both_owners(other: Attribute, what: str) -> None:
    with pytest.raises(RubricError, match="'one' and 'two' define the attribute 'a' differently") as caught:
        unite_rubrics("all", [("one", Rubric("x", (A,))), ("two", Rubric("y", (C, other)))])
    assert what in str(caught.value)


def test_renaming_keeps_the_meaning_and_follows_sums() -> None:
    total = Attribute("total", "Total", minimum=2, maximum=10, sum_of=("a", "b"))
    found = rename_attributes(Rubric("x", (A, B, total)), {"a": "good_looks"})
    assert found.keys == ("good_looks", "b", "total")
    assert found["good_looks"] == Attribute("good_looks", "Good looks", "What a means.", levels={1: "bad"})
    assert found["total"].sum_of == ("good_looks", "b")
    assert rename_attributes(Rubric("x", (A, B)), {"a": "b", "b": "a"}).keys == ("b", "a")


@pytest.mark.parametrize(
    ("rename", "match"),
    [
        ({"d": "e"}, "here: there is no attribute 'd'"),
        ({"a": "b"}, "here: two attributes would have the key 'b'"),
        ({"a": "Not Snake"}, "here: attribute key 'Not Snake': write it in snake case"),
    ],
)
def test_what_can_not_be_renamed(rename: dict[str, str], match: str) -> None:
    with pytest.raises(RubricError, match=match):
        rename_attributes(Rubric("x", (A, B)), rename, "here")
