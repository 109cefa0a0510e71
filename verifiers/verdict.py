"""The one result type of every verifier: a score, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

Status = Literal["ok", "no_answer", "unparseable", "bad_reference", "timeout", "fault"]
"""`ok`, `no_answer`, `unparseable`: the response's doing, scored. The others: ours, unscored."""

UNSCORED: frozenset[str] = frozenset({"bad_reference", "timeout", "fault"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a verifier says about one response.

    Two verdicts are equal if they say the same; the time they took is not compared.
    """

    score: float | None
    """How right the answer is, in [0, 1]; None if unscored."""
    format: float | None = None
    """How well the response keeps to the asked form, in [0, 1]; None if not judged."""
    reward: float | None = None
    """Weighted mean of score and format, as the row weighs them; None if unscored."""
    status: Status = "ok"
    reason: str = ""
    """Why, in words; never empty if the score is below 1 or missing."""
    parts: Mapping[str, float] = field(default_factory=lambda: dict[str, float]())
    """Named numbers for metrics, `iou_50`, `map`, ..."""
    seconds: float = field(default=0.0, compare=False)
    """Time the verdict took."""
    verifier: str = ""
    version: str = ""
    """Version of the verifier, raised when its scores may move."""

    def to_json(self) -> dict[str, Any]:
        """The verdict as plain values, `from_json`'s inverse."""
        return {name: getattr(self, name) for name in _FIELDS} | {"parts": dict(self.parts)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Verdict:
        """The verdict that `to_json` wrote.

        Raises: ValueError if a field is missing or unknown.
        """
        if set(content) != set(_FIELDS):
            raise ValueError(
                f"a verdict with the fields {', '.join(sorted(content))}; "
                f"needed: {', '.join(_FIELDS)}"
            )
        return cls(**content)

    @classmethod
    def scored(
        cls,
        score: float,
        *,
        format: float | None = None,
        reason: str = "",
        status: Status = "ok",
        parts: Mapping[str, float] | None = None,
    ) -> Verdict:
        """A verdict with a score in [0, 1]."""
        return cls(score=score, format=format, status=status, reason=reason, parts=parts or {})

    @classmethod
    def unscored(cls, reason: str, *, status: Status = "fault") -> Verdict:
        """A verdict without a score: the row or we are at fault, not the response."""
        if status not in UNSCORED:
            raise ValueError(
                f"status {status!r} is scored; unscored: {', '.join(sorted(UNSCORED))}"
            )
        return cls(score=None, status=status, reason=reason)


_FIELDS = tuple(item.name for item in fields(Verdict))
