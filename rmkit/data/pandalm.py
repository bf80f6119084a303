"""PandaLM's test set: pairs of short answers, each judged by three people.

Source: https://github.com/WeOpenML/PandaLM (`data/testset-v1.json`, 999 records; arXiv 2306.05087).
Licence: Apache-2.0.
Columns: `idx`, `motivation_app`, `cmp_key` (the two models), `instruction`, `input` (may be empty), `response1`,
`response2`, `annotator1`, `annotator2`, `annotator3` (0 a tie, 1 or 2 the better response).
Raters: three people each; their votes become one verdict and its strength by `take_majority`.
Traps: some responses are empty texts, which there is nothing to judge in, and some `True` without quotes, whose
text is lost; both are refused. A few records stand more than once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rmkit.data.dataset import Dataset, RawComparison, check_text, read_column, read_text_column, read_whole_column
from rmkit.data.shares import take_majority
from rmkit.schema import read_conversation

_RANKS = {0: (1, 1), 1: (1, 2), 2: (2, 1)}


def read_record(record: Mapping[str, Any]) -> Iterator[RawComparison]:
    """One comparison per record, by the majority of its votes."""
    prompt = read_text_column(record, "instruction", if_empty="empty_prompt")
    extra = read_column(record, "input")
    if extra != "":
        prompt += "\n\n" + check_text(extra, "column 'input'", if_empty="empty_input")
    votes = [read_whole_column(record, f"annotator{number}", 0, 2) for number in (1, 2, 3)]
    better, strength = take_majority(votes)
    yield RawComparison(
        conversation=read_conversation(prompt),
        responses=(
            read_text_column(record, "response1", if_empty="empty_response"),
            read_text_column(record, "response2", if_empty="empty_response"),
        ),
        ranks=_RANKS[better],
        strength=strength,
        id=f"pandalm/{read_whole_column(record, 'idx', 0, 10**9)}",
        metadata={"votes": votes, "models": read_text_column(record, "cmp_key", if_empty="empty_model_name")},
    )


PANDALM = Dataset(
    name="pandalm",
    hub_id="",
    revision="",
    split="",
    read=read_record,
    rubric="overall",
    rule="margin",
    url="https://github.com/WeOpenML/PandaLM/blob/3871806e72b4832f815ecafd24d3503c73403f48/data/testset-v1.json",
)
