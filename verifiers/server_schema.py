"""The schema of requests and answers: what a body is read by, and what /openapi.json shows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from verifiers.iou_rule import AveragedIou, FixedIou, IouRule, StagedIou

PROBLEMS_SHOWN_MAX = 100
"""So many problems of a request are listed; the others are counted."""

_TEXT = {"type": "string"}
_RATIO = {"type": "number", "minimum": 0}
_ROW_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "A row of V-Triune's columns. Pictures stay out; the prompt may.",
    "required": ["data_source", "ability", "reward_model"],
    "properties": {
        "data_source": {"type": "string", "description": "Data set the row came from."},
        "ability": {"type": "string", "description": "What is asked: math, detection, ..."},
        "prompt": {
            "type": "array",
            "items": {"type": "object", "properties": {"role": _TEXT, "content": _TEXT}},
        },
        "reward_model": {
            "type": "object",
            "required": ["verifier", "ground_truth"],
            "properties": {
                "verifier": {"type": "string", "description": "Name of the verifier."},
                "ground_truth": {
                    "type": "string",
                    "description": "The reference in the form of a response, \\boxed{7}.",
                },
                "answer": {"type": ["string", "null"], "description": "The bare reference."},
                "accuracy_ratio": {**_RATIO, "default": 1.0, "description": "Weight of score."},
                "format_ratio": {**_RATIO, "default": 0.0, "description": "Weight of format."},
                "verifier_parm": {
                    "type": ["object", "string", "null"],
                    "description": "Parameters of the verifier, as an object or as JSON text.",
                },
            },
        },
        "extra_info": {
            "type": ["object", "null"],
            "description": "id, coordinate_space, image_width, image_height, ...",
        },
    },
    "example": {
        "data_source": "made",
        "ability": "math",
        "reward_model": {"verifier": "mathverify", "ground_truth": "\\boxed{7}"},
    },
}

Row = Annotated[dict[str, object], WithJsonSchema(_ROW_SCHEMA)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class FixedRule(_Strict):
    """One IoU threshold."""

    type: Literal["fixed"]
    threshold: float = Field(description="Smallest paid IoU, above 0, up to 1.")

    def rule(self) -> IouRule:
        """The rule as verifiers know it."""
        return FixedIou(self.threshold)


class StagedRule(_Strict):
    """A threshold that changes with progress, as Dynamic IoU does."""

    type: Literal["staged"]
    stages: list[Annotated[list[float], Field(min_length=2, max_length=2)]] = Field(
        description="[until this progress, threshold], progress rising to 1."
    )

    def rule(self) -> IouRule:
        """The rule as verifiers know it."""
        return StagedIou(tuple((end, threshold) for end, threshold in self.stages))


class AveragedRule(_Strict):
    """The mean over several thresholds."""

    type: Literal["averaged"]
    values: list[float] = Field(description="Thresholds, each above 0, up to 1.")

    def rule(self) -> IouRule:
        """The rule as verifiers know it."""
        return AveragedIou(tuple(self.values))


Rule = FixedRule | StagedRule | AveragedRule


def _usable(rule: Rule) -> Rule:
    rule.rule()  # raises ValueError with what is allowed
    return rule


class Item(_Strict):
    """One response and the row it answers."""

    row: Annotated[int, Field(ge=0)] | Row = Field(
        description="The row itself, or its index in `rows`."
    )
    response: str = Field(description="What the model wrote.")


class ScoreRequest(_Strict):
    """A batch to judge."""

    items: list[Item] = Field(min_length=1)
    rows: list[Row] = Field(
        default_factory=lambda: list[dict[str, object]](),
        description="Rows that several items share.",
    )
    progress: float = Field(default=1.0, ge=0, le=1, description="Fraction of training done.")
    iou_rule: Annotated[Rule, Field(discriminator="type"), AfterValidator(_usable)] | None = Field(
        default=None, description="Left out: Dynamic IoU at 0.85, 0.95 and 0.99."
    )
    request_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Sent again with the same body, it gets the stored answer.",
    )


class Problem(BaseModel):
    """One thing that is wrong with a request."""

    item: int | None = Field(description="Index of the item; null if it is not an item's.")
    field: str = Field(description="Field within the item, or within the request.")
    value: str = Field(description="What was found, shortened.")
    allowed: str


class Refusal(BaseModel):
    """Why nothing of a request was judged."""

    error: str
    num_problems: int = 0
    problems: list[Problem] = Field(
        default_factory=lambda: list[Problem](),
        description=f"The first {PROBLEMS_SHOWN_MAX} of them.",
    )


class VerdictAnswer(BaseModel):
    """One verdict."""

    score: float | None = Field(ge=0, le=1, description="null if unscored.")
    format: float | None = Field(ge=0, le=1, description="null if not judged.")
    reward: float | None = Field(ge=0, le=1, description="Weighted mean; null if unscored.")
    status: Literal["ok", "no_answer", "unparseable", "bad_reference", "timeout", "fault"]
    reason: str
    parts: dict[str, float]
    seconds: float = Field(ge=0)
    verifier: str
    version: str = Field(description="The verifier's version.")


class ScoreAnswer(BaseModel):
    """The verdicts, in the order of the items."""

    request_id: str | None
    server: str
    version: str = Field(description="The server's version.")
    verdicts: list[VerdictAnswer]
