"""Judges read text (OCR): exact match, ANLS or character error rate, best of several references."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import cast

from data_specs import Sample
from verifiers.answer import extract_answer, form_score, reference_text
from verifiers.iou_rule import ScoreContext
from verifiers.params import ParamError, flag, fraction, one_of, reject_unknown
from verifiers.verdict import Verdict

VERSION = "1"

METRICS = ("exact", "anls", "cer")
"""exact: 0 or 1. anls: similarity, 0 below the threshold. cer: 1 - character error rate."""

_TEXT_CHARS_MAX = 4096
_LATEX_TEXT = re.compile(r"^\\(?:text|textbf|textit|texttt|mathrm|mathbf|mbox)\{(.*)\}$", re.DOTALL)
_LATEX_ESCAPE = re.compile(r"\\([%&#$_{}])")
_QUOTES = str.maketrans({"‘": "'", "’": "'", "‚": "'", "“": '"', "”": '"', "„": '"'})
_INVISIBLE = re.compile("[\u200b\u200c\u200d\u2060\ufeff\u00ad]")
_NUMBER_LIKE = re.compile(r"[+-]?[0-9][0-9.,:/ -]*")


def normalise_text(text: str, ignore_case: bool = False) -> str:
    r"""The text in Unicode form NFKC, spaces collapsed, quotes straight, `\text{}` unwrapped."""
    if len(text) > 4 and text[0] == "\\" and (found := _LATEX_TEXT.match(text)):
        text = found.group(1)
    if "\\" in text:
        text = _LATEX_ESCAPE.sub(r"\1", text)
    if not text.isascii():
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text).translate(_QUOTES))
    text = " ".join(text.split())
    return text.casefold() if ignore_case else text


def similarity(metric: str, answer: str, reference: str, threshold: float = 0.5) -> float:
    """How alike two normalised texts are, in [0, 1].

    A reference that looks like a number must be met exactly: 43 is not half of 42.
    """
    if answer == reference:
        return 1.0
    if metric == "exact" or not reference or not answer or _NUMBER_LIKE.fullmatch(reference):
        return 0.0
    from rapidfuzz.distance import Levenshtein

    distance = Levenshtein.distance(answer, reference)
    if metric == "cer":
        return max(0.0, 1.0 - distance / len(reference))
    value = 1.0 - distance / max(len(answer), len(reference))
    return value if value >= threshold else 0.0


def check_params(params: Mapping[str, object]) -> None:
    """Raise ParamError if a parameter is wrong."""
    reject_unknown(params, ("metric", "ignore_case", "threshold", "references"))
    one_of(params, "metric", METRICS, "exact")
    flag(params, "ignore_case", False)
    fraction(params, "threshold", 0.5)
    _other_references(params)


def judge(sample: Sample, response: str, context: ScoreContext) -> Verdict:
    """The similarity of the final answer to the reference that it is most like."""
    spec = sample.reward
    params = spec.params
    metric, ignore_case, threshold = "exact", False, 0.5
    others: tuple[str, ...] = ()
    if params:
        metric = one_of(params, "metric", METRICS, "exact")
        ignore_case = flag(params, "ignore_case", False)
        threshold = fraction(params, "threshold", 0.5)
        others = _other_references(params)
    reference = _reference(spec.ground_truth, ignore_case)
    if not reference:
        return Verdict.unscored(
            f"reference {spec.ground_truth[:80]!r} has no text", status="bad_reference"
        )
    answer = extract_answer(response)
    form = form_score(response, spec.ground_truth, answer)
    if answer.text is None:
        return Verdict.scored(0.0, format=form, reason=answer.reason, status=answer.status)
    if len(answer.text) > _TEXT_CHARS_MAX:
        reason = f"answer of {len(answer.text)} characters; at most {_TEXT_CHARS_MAX} are read"
        return Verdict.scored(0.0, format=form, reason=reason, status="unparseable")
    text = normalise_text(answer.text, ignore_case)
    score = similarity(metric, text, reference, threshold)
    for other in others:
        other = normalise_text(other, ignore_case)
        score = max(score, similarity(metric, text, other, threshold))
    reason = "" if score == 1.0 else f"{text[:80]!r} against {reference[:80]!r}: {metric}"
    return Verdict.scored(score, format=form, reason=reason)


@lru_cache(maxsize=16384)
def _reference(ground_truth: str, ignore_case: bool) -> str:
    return normalise_text(reference_text(ground_truth).text or "", ignore_case)


def _other_references(params: Mapping[str, object]) -> tuple[str, ...]:
    """Further right answers, from the parameter `references`."""
    value = params.get("references", ())
    if isinstance(value, list | tuple):
        items = tuple(cast("list[object]", value))
        texts = tuple(item for item in items if isinstance(item, str) and item)
        if len(texts) == len(items):
            return texts
    raise ParamError(f"parameter references is {value!r}; allowed: a list of texts, none empty")
