"""Metrics on LaTeX expressions, compared as mathematics where they can be read."""

from __future__ import annotations

from verifiers.megabench.convert import metric
from verifiers.megabench.latex_process import compare_latex
from verifiers.megabench.latex_text import normal_latex, split_latex
from verifiers.megabench.metrics_string import same_simple_text
from verifiers.megabench.registry import Mode


@metric
def latex_expr_equality(prediction: object, reference: object, mode: Mode) -> float:
    """1 if both read as equal expressions; if one cannot be read, 1 if the texts are the same."""
    if not isinstance(prediction, str) or not isinstance(reference, str):
        return 0
    return _same_latex(prediction, reference, mode)


@metric
def text_with_latex_expr_equality(prediction: object, reference: object, mode: Mode) -> float:
    """1 if the plain text is the same and the LaTeX between dollar signs is equal."""
    if not isinstance(prediction, str) or not isinstance(reference, str):
        return 0
    text, latex = split_latex(prediction)
    expected_text, expected_latex = split_latex(reference)
    if not same_simple_text(text, expected_text, mode):
        return 0
    return _same_latex(latex, expected_latex, mode)


def _same_latex(prediction: str, reference: str, mode: Mode) -> int:
    prediction, reference = normal_latex(prediction), normal_latex(reference)
    outcome = compare_latex(prediction, reference, strict=mode == "sound")
    if outcome == "unread":
        return same_simple_text(prediction, reference, mode)
    return int(outcome == "equal")
