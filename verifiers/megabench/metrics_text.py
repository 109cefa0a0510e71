"""Metrics on longer texts: overlap of runs of words."""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

from verifiers.megabench.convert import metric
from verifiers.megabench.registry import Mode, Unscored

MAX_RUN = 4
"""Longest run of words that is counted."""

_BLEU_SPLITS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"([\{-\~\[-\` -\&\(-\+\:-\@\/])", r" \1 "),
        (r"([^0-9])([\.,])", r"\1 \2 "),
        (r"([\.,])([^0-9])", r" \1 \2"),
        (r"([0-9])(-)", r"\1 \2 "),
    )
)
"""Word borders of mteval-v13a, which BLEU is defined with."""


@metric
def gleu_cn(prediction: object, reference: object, mode: Mode) -> float:
    """GLEU of two Chinese texts in [0, 1]: shared runs of words / runs of the longer text.

    Source: Wu et al. 2016, arXiv 1609.08144, section 6; words as jieba cuts them for a search
    engine. Raises: Unscored without jieba.
    """
    del mode
    if not isinstance(prediction, str) or not isinstance(reference, str):
        return 0
    counts = [_runs(_chinese_words(text)) for text in (prediction, reference)]
    most = max(count.total() for count in counts)
    return (counts[0] & counts[1]).total() / most if most else 0.0


@metric
def bleu(prediction: Any, reference: Any, mode: Mode) -> float:
    """Corpus BLEU with mteval-v13a words and exponential smoothing, in [0, 1].

    upstream: the roles are swapped, so the reference's words are looked for in the reply.
    """
    if isinstance(prediction, str) and isinstance(reference, str):
        pair = [reference], [prediction]
    elif isinstance(prediction, (list, tuple)) and isinstance(reference, (list, tuple)):
        pair = list(cast(Sequence[str], reference)), list(cast(Sequence[str], prediction))
    else:
        return 0
    if not pair[0] or not pair[1]:
        return 0
    return _corpus_bleu(*(pair if mode == "compat" else pair[::-1]))


@metric
def nli_entailment(prediction: object, reference: object, mode: Mode) -> float:
    """Not measured: needs a language model. No task uses it.

    upstream: the check of types is inverted, so every pair of texts scores 0.
    """
    if not isinstance(prediction, str) or (isinstance(reference, str) and mode == "compat"):
        return 0
    raise Unscored("nli_entailment needs a language model, and no task uses it")


def _corpus_bleu(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    matches, totals = [0] * MAX_RUN, [0] * MAX_RUN
    length = reference_length = 0
    for hypothesis, reference in zip(hypotheses, references, strict=False):
        words, reference_words = _bleu_words(hypothesis), _bleu_words(reference)
        length += len(words)
        reference_length += len(reference_words)
        runs = _runs(words)
        for run, count in runs.items():
            totals[len(run) - 1] += count
        for run, count in (runs & _runs(reference_words)).items():
            matches[len(run) - 1] += count
    if not any(matches):
        return 0.0
    precisions: list[float] = []
    halving = 1
    for matched, total in zip(matches, totals, strict=True):
        if total == 0:
            return 0.0  # no run so long
        if matched == 0:
            halving *= 2
        precisions.append(100 * matched / total if matched else 100 / (halving * total))
    brevity = math.exp(1 - reference_length / length) if length < reference_length else 1.0
    return brevity * math.exp(sum(map(math.log, precisions)) / MAX_RUN) / 100


def _bleu_words(text: str) -> list[str]:
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for escaped, mark in (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")):
        text = text.replace(escaped, mark)
    text = f" {text} "
    for pattern, replacement in _BLEU_SPLITS:
        text = pattern.sub(replacement, text)
    return text.split()


def _runs(words: Sequence[str]) -> Counter[tuple[str, ...]]:
    """How often each run of 1 to MAX_RUN words occurs."""
    return Counter(
        tuple(words[start : start + length])
        for length in range(1, MAX_RUN + 1)
        for start in range(len(words) - length + 1)
    )


def _chinese_words(text: str) -> list[str]:
    return list(_jieba().cut_for_search(text))


@lru_cache(maxsize=1)
def _jieba() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own old syntax and imports
            import jieba  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]

            jieba.setLogLevel("ERROR")  # pyright: ignore[reportUnknownMemberType]
            jieba.initialize()  # pyright: ignore[reportUnknownMemberType]
    except ImportError:
        raise Unscored("gleu_cn cuts Chinese text with jieba: pip install jieba") from None
    return jieba  # pyright: ignore[reportUnknownVariableType]
