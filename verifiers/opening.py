"""How a verifier of short answers opens a response: the final answer, or a verdict at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from verifiers.answer import extract_answer, form_score
from verifiers.verdict import Verdict


class Opened(NamedTuple):
    """A final answer that can be judged."""

    text: str
    """The answer as it was written; never empty."""
    format: float
    """The response's format score, in [0, 1]."""


def open_answer(
    response: str, ground_truth: str, chars_max: int, zero: Mapping[str, float] | None = None
) -> Opened | Verdict:
    """The final answer, or the verdict on a response that has none or one that is too long.

    Args:
        response: what was generated.
        ground_truth: the reference, whose form the format score asks for.
        chars_max: longest answer that is read, in characters.
        zero: parts of the verdict on a response without an answer.
    """
    answer = extract_answer(response)
    form = form_score(response, ground_truth, answer)
    if answer.text is None:
        return Verdict.scored(
            0.0, format=form, reason=answer.reason, status=answer.status, parts=zero
        )
    if len(answer.text) > chars_max:
        reason = f"answer of {len(answer.text)} characters; at most {chars_max} are read"
        return Verdict.scored(0.0, format=form, reason=reason, status="unparseable", parts=zero)
    return Opened(answer.text, form)


def unusable_reference(ground_truth: str, chars_max: int) -> Verdict:
    """The verdict on a row whose reference is empty, or longer than answers may be."""
    found = f"has {len(ground_truth)} characters" if len(ground_truth) > chars_max else "is empty"
    reason = f"reference {ground_truth[:80]!r} {found}; needed: 1 to {chars_max} characters"
    return Verdict.unscored(reason, status="bad_reference")
