"""What requests and answers look like on the wire, checked where they enter and shown on the API's page."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, FailFast, Field, JsonValue

_STRICT = ConfigDict(strict=True, extra="forbid")


class MessageBody(BaseModel):
    """One chat message. Further fields are passed over."""

    model_config = ConfigDict(strict=True)

    role: str = Field(description="system, user, assistant or tool")
    content: str | list[dict[str, JsonValue]] | None = Field(
        default=None, description="a text, a list of text blocks, or null"
    )
    tool_calls: list[JsonValue] | None = Field(default=None, description="shown to the judge as JSON after the text")


class AttributeBody(BaseModel):
    """One thing that a judge rates."""

    model_config = _STRICT

    key: str = Field(description="snake case")
    name: str | None = Field(default=None, description="what stands in the score sequence")
    description: str | None = Field(default=None, description="what it means; shown to the judge")
    scale: list[int] | None = Field(default=None, description="[lowest, highest] score; [1, 5] where left out")
    weight: float | None = Field(default=None, description="its share in the aggregate; 1 where left out")
    levels: dict[str, str] | None = Field(default=None, description="meaning of single scores; shown to the judge")
    sum_of: list[str] | None = Field(default=None, description="keys whose scores add up to this one")


class RubricBody(BaseModel):
    """A rubric, as `Rubric.to_dict` gives it."""

    model_config = _STRICT

    format_version: int = 1
    name: str = "rubric"
    attributes: list[AttributeBody]


Conversation = Annotated[
    str | list[MessageBody], Field(description="a text (one user turn), or all messages before the response")
]
Response = Annotated[str | list[MessageBody], Field(description="a text, or the messages of a completion")]


class ItemBody(BaseModel):
    """One response to judge."""

    model_config = _STRICT

    conversation: Conversation
    response: Response
    reference: str | None = Field(default=None, description="a reference answer; shown to the judge")
    rubric: RubricBody | None = Field(default=None, description="a rubric of its own, in place of the judge's")


class ScoreBody(BaseModel):
    """Responses to judge."""

    model_config = ConfigDict(
        **_STRICT,
        json_schema_extra={
            "example": {
                "items": [
                    {"conversation": "What is the opposite of hot?", "response": "Cold."},
                    {
                        "conversation": [
                            {"role": "system", "content": "Be brief."},
                            {"role": "user", "content": "What is the opposite of hot?"},
                        ],
                        "response": [{"role": "assistant", "content": "It is cold."}],
                        "reference": "Cold",
                    },
                ]
            }
        },
    )

    items: Annotated[list[ItemBody], FailFast()]


class PairBody(BaseModel):
    """Two responses to compare."""

    model_config = _STRICT

    conversation: Conversation
    first: Response
    second: Response


class CompareBody(BaseModel):
    """Pairs of responses to compare."""

    model_config = ConfigDict(
        **_STRICT,
        json_schema_extra={
            "example": {
                "pairs": [{"conversation": "What is the opposite of hot?", "first": "Cold.", "second": "Warm."}],
                "tolerance": 0.0,
            }
        },
    )

    pairs: Annotated[list[PairBody], FailFast()]
    tolerance: float = Field(
        default=0.0, ge=0.0, allow_inf_nan=False, description="aggregates this close count as a tie"
    )


class RewardBody(BaseModel):
    """What OpenRLHF sends. Further fields, such as `labels`, are passed over."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={
            "example": {"query": ["What is the opposite of hot? Cold."], "prompts": ["What is the opposite of hot? "]}
        },
    )

    query: Annotated[list[str], FailFast()] = Field(description="prompt and response as one text each")
    prompts: Annotated[list[str], FailFast()] = Field(description="the prompt of each")


class DistributionAnswer(BaseModel):
    """P(score) of one attribute."""

    values: list[int] = Field(description="legal scores, ascending")
    probabilities: list[float] = Field(description="their probabilities, summing to 1")
    mean: float
    mode: int
    entropy: float = Field(description="in nats")
    outside_mass: float = Field(description="probability that the model gave to anything but a score")


class JudgmentAnswer(BaseModel):
    """What the judge says of one response: numbers, or an error and no number."""

    attributes: dict[str, DistributionAnswer]
    aggregate: float | None
    prompt_tokens: int
    truncated: bool = Field(description="whether old turns were left out to fit")
    error: str | None


class ScoreAnswer(BaseModel):
    """One judgement for each item, in order."""

    judgments: list[JudgmentAnswer]


class ComparisonAnswer(BaseModel):
    """What the judge says of two responses."""

    first: JudgmentAnswer
    second: JudgmentAnswer
    verdict: int | None = Field(description="1: the first is better; -1: the second; 0: a tie; null: one failed")
    probability_first: float | None = Field(description="P(first > second), ties half")


class CompareAnswer(BaseModel):
    """One comparison for each pair, in order."""

    comparisons: list[ComparisonAnswer]


class RewardAnswer(BaseModel):
    """What OpenRLHF reads."""

    rewards: list[float] = Field(description="aggregates, put on [-1, 1] with 0 in the middle of their range")
    scores: list[float] = Field(description="aggregates")
    extra_logs: dict[str, list[float]] = Field(description="mean score per attribute")


class ErrorAnswer(BaseModel):
    """Why there is no answer."""

    detail: str


class FailedRow(BaseModel):
    """A row that can't be judged."""

    index: int
    error: str


class RewardErrorAnswer(ErrorAnswer):
    """Which rows can't be judged, so that there are no rewards."""

    failed: list[FailedRow] = []


class HealthAnswer(BaseModel):
    """What the server runs, and how it is."""

    status: str = Field(description="ok, stopping, or what the engine broke down with")
    judge: str
    judge_sha256: str
    engine: str
    mode: str
    readout: str
    max_length: int
    rubric: dict[str, JsonValue]
    limits: dict[str, int]
    open_items: int
    versions: dict[str, str]
