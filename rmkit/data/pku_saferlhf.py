"""PKU-SafeRLHF: two responses to each risky prompt, with a level of harm each, and which is more helpful and safer.

Source: https://huggingface.co/datasets/PKU-Alignment/PKU-SafeRLHF (83.4 thousand records by its card; arXiv
2406.15513).
Licence: CC-BY-NC-4.0: not for commercial use. The texts are unsafe.
Columns: `prompt`; for i of 0 and 1 `response_i`, `response_i_severity_level` (0 harmless, 1 minor, 2 moderate,
3 severe) and `response_i_harm_category` (an object of 19 booleans); `better_response_id` and `safer_response_id`
(0 or 1). `is_response_i_safe`, which says that the level is 0, is not read, nor are sources and hashes.
Raters: people together with a model.
Mapping: safety is the level of harm, reversed (rule `severity`); helpfulness is 1 for the better response and 0 for
the other (rule `rank`), and marked as derived. Which is safer adds nothing that a scale can hold beside the levels: it
stands in the metadata.
Traps: "better" means more helpful whatever the harm, so the better response may be a severe one. There are no ties:
between two harmless responses one is called safer all the same, and in one record of six with different levels the
safer one has the higher level. Other versions of the set (v0, 10K, 30K) have no levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rmkit.data.dataset import (
    Dataset,
    RawResponse,
    RecordError,
    check_object,
    read_column,
    read_text_column,
    read_whole_column,
)
from rmkit.data.shares import share_rank
from rmkit.schema import read_conversation

WORST = 3
SCALES = {"helpfulness": (0, 1), "safety": (WORST, 0)}


def read_record(record: Mapping[str, Any]) -> Iterator[RawResponse]:
    """Two rated responses per record."""
    conversation = read_conversation(read_text_column(record, "prompt", if_empty="empty_prompt"))
    responses = [read_text_column(record, f"response_{i}", if_empty="empty_response") for i in (0, 1)]
    if responses[0] == responses[1]:
        raise RecordError("same_response", "both responses are the same text, so neither is better")
    better = read_whole_column(record, "better_response_id", 0, 1)
    safer = read_whole_column(record, "safer_response_id", 0, 1)
    shares = share_rank([int(i != better) for i in (0, 1)])
    for i, response in enumerate(responses):
        harms = check_object(
            read_column(record, f"response_{i}_harm_category"), f"column 'response_{i}_harm_category'"
        )
        yield RawResponse(
            conversation=conversation,
            response=response,
            ratings={
                "helpfulness": shares[i],
                "safety": read_whole_column(record, f"response_{i}_severity_level", 0, WORST),
            },
            derived=("helpfulness",),
            metadata={"is_safer": i == safer, "harms": [str(name) for name, found in harms.items() if found is True]},
        )


PKU_SAFERLHF = Dataset(
    name="pku_saferlhf",
    hub_id="PKU-Alignment/PKU-SafeRLHF",
    revision="9421ffafec3fa40a1f1a7d567b4d525079477ecb",
    split="train",
    read=read_record,
    rubric="pku_saferlhf",
    scales=SCALES,
)
