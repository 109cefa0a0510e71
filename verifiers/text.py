"""Judges read text (OCR): exact match, ANLS, character or word error rate, best of references."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import cast

from data_specs import Sample, shorten
from verifiers.answer import reference_text
from verifiers.iou_rule import ScoreContext
from verifiers.opening import open_answer, unusable_reference
from verifiers.params import ParamError, flag, fraction, one_of, reject_unknown
from verifiers.verdict import Verdict

VERSION = "2"

METRICS = ("exact", "anls", "cer", "wer")
"""exact: 0 or 1. anls: similarity, 0 below the threshold. cer, wer: 1 - the error rate."""

TEXT_CHARS_MAX = 4096
"""Longer answers are not compared."""

_LATEX_TEXT = re.compile(r"^\\(?:text|textbf|textit|texttt|mathrm|mathbf|mbox)\{(.*)\}$", re.DOTALL)
_LATEX_ESCAPE = re.compile(r"\\([%&#$_{}])")
_QUOTES = str.maketrans({"‘": "'", "’": "'", "‚": "'", "“": '"', "”": '"', "„": '"'})
_DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"))
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_NUMBER_LIKE = re.compile(r"[+-]?[$€£¥]? ?[+-]?[0-9][0-9.,:/ -]*[%°$€£¥]?")


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


def read_text(text: str, ignore_case: bool = False) -> str:
    """The text as it is compared: normalised, and the short dashes written as hyphens."""
    text = normalise_text(text, ignore_case)
    return text if text.isascii() else text.translate(_DASHES)


def bare_words(text: str) -> str:
    """A name or a short phrase without letter case, bold, quotes and the last full stop."""
    return read_text(text, ignore_case=True).lstrip("*`\"' ").rstrip("*`\"' .")


def similarity(metric: str, answer: str, reference: str, threshold: float = 0.5) -> float:
    """How alike two texts from `read_text` are, in [0, 1]; 1 only if they are equal.

    A reference that looks like a number must be met exactly: 43 is not half of 42.
    """
    if not reference:
        return 0.0
    if answer == reference:
        return 1.0
    if metric == "exact" or _NUMBER_LIKE.fullmatch(reference):
        return 0.0
    from rapidfuzz.distance import Levenshtein

    if metric == "wer":
        words = reference.split()
        return max(0.0, 1.0 - Levenshtein.distance(answer.split(), words) / len(words))
    distance = Levenshtein.distance(answer, reference)
    if metric == "cer":
        return max(0.0, 1.0 - distance / len(reference))
    value = 1.0 - distance / max(len(answer), len(reference))
    # departs from arXiv 1905.13648, eq. 1, which gives 0 at the threshold itself as well: the
    # code in use (lmms-eval, VLMEvalKit) keeps it, but divides by the length before stripping
    return value if value >= threshold else 0.0


def check_params(params: Mapping[str, object]) -> None:
    """Raise ParamError if a parameter is wrong."""
    reject_unknown(params, ("metric", "ignore_case", "threshold", "references"))
    metric = one_of(params, "metric", METRICS, "exact")
    flag(params, "ignore_case", False)
    fraction(params, "threshold", 0.5)
    if "threshold" in params and metric != "anls":
        raise ParamError(f"parameter threshold belongs to metric anls; the metric is {metric}")
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
        return unusable_reference(spec.ground_truth, TEXT_CHARS_MAX)
    zero = None if metric == "exact" else {"exact": 0.0}
    opened = open_answer(response, spec.ground_truth, TEXT_CHARS_MAX, zero)
    if isinstance(opened, Verdict):
        return opened
    text = read_text(opened.text, ignore_case)
    score = similarity(metric, text, reference, threshold)
    for other in others:
        score = max(score, similarity(metric, text, read_text(other, ignore_case), threshold))
    reason = "" if score == 1.0 else f"{text[:80]!r} against {reference[:80]!r}: {metric}"
    parts = zero and {"exact": float(score == 1.0)}
    return Verdict.scored(score, format=opened.format, reason=reason, parts=parts)


@lru_cache(maxsize=16384)
def _reference(ground_truth: str, ignore_case: bool) -> str:
    """The reference as it is compared; empty if no answer could meet it."""
    text = reference_text(ground_truth).text or ""
    return read_text(text, ignore_case) if len(text) <= TEXT_CHARS_MAX else ""


def _other_references(params: Mapping[str, object]) -> tuple[str, ...]:
    """Further right answers, from the parameter `references`."""
    value = params.get("references", ())
    if isinstance(value, list | tuple):
        items = tuple(cast("list[object]", value))
        texts = tuple(item for item in items if isinstance(item, str) and _is_usable(item))
        if len(texts) == len(items):
            return texts
    raise ParamError(
        f"parameter references is {shorten(params['references'])}; allowed: a list of texts, "
        f"none empty, none over {TEXT_CHARS_MAX} characters"
    )


def _is_usable(reference: str) -> bool:
    return 0 < len(reference) <= TEXT_CHARS_MAX and not reference.isspace()
