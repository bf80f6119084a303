from __future__ import annotations

import pytest

from rmkit.errors import DataError
from rmkit.preparation.conversion import is_validation, row_to_dict
from rmkit.preparation.row_rendering import RowRenderer, row_texts
from rmkit.rubric import load_rubric
from rmkit.schema import Message, PreferencePair, RatedResponse

RUBRIC = load_rubric("helpsteer")
PAIR = PreferencePair("s/1", "s", (Message("user", "Hi"),), ("Hello!",), ("Go.", "No."))


def row(number: int, **changes: object) -> RatedResponse:
    """Two rows to each conversation, of one or two turns."""
    turns = (Message("user", f"Bird {number // 2}?"), Message("assistant", "Which?"), Message("user", "Any."))
    scores = {"helpfulness": number % 5 + 1} | ({"verbosity": 3} if number % 3 else {})
    given = {"conversation": turns[: 1 + 2 * (number % 2)], "response": f"Wren {number}.", "scores": scores, **changes}
    return RatedResponse(id=f"a/{number:06d}a", source="a", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_rendering_many_rows_gives_what_each_gives_alone(fraction: float) -> None:
    renderer = RowRenderer(RUBRIC, 7, fraction)
    own = row(50, scores={"verbosity": 0}, rubric=load_rubric("dist2_paper"))
    rows = [*map(row, range(40)), own, row(41, reference="Wren.", derived=("helpfulness",), metadata={"m": 1})]
    for found in rows:
        assert renderer.render(found) == row_to_dict(found, RUBRIC)
        expected = "validation" if is_validation(found.conversation, 7, fraction) else "train"
        assert renderer.name(found) == expected
    assert (renderer.name(PAIR), renderer.render(PAIR)) == ("pairs", PAIR.to_dict())


@pytest.mark.parametrize("cut", [1, 2])
def test_a_row_without_its_oldest_turns_stays_beside_its_siblings(cut: int) -> None:
    renderer = RowRenderer(RUBRIC, 7, 0.5)
    for number in range(1, 40, 2):
        whole = row(number)
        turns = [message.to_dict() for message in whole.conversation[:cut]]
        short = row(number, conversation=whole.conversation[cut:], metadata={"turns_left_out": turns})
        assert renderer.name(short) == renderer.name(whole)
    with pytest.raises(DataError, match=r"row a/000001a, metadata 'turns_left_out': expected a list .*found '2'"):
        renderer.name(row(1, metadata={"turns_left_out": 2}))


def test_a_row_is_known_by_its_texts() -> None:
    found = row(3)
    texts = {"conversation": [message.to_dict() for message in found.conversation], "response": "Wren 3."}
    assert row_texts(found) == row_texts(row_to_dict(found, RUBRIC)) == texts
    assert row_texts(PAIR) == {
        "conversation": [{"role": "user", "content": "Hi"}],
        "chosen": ["Hello!"],
        "rejected": ["Go.", "No."],
    }
