"""Metrics on texts: equal as they are, in a simple spelling, or nearly."""

from __future__ import annotations

import re

from verifiers.megabench.convert import metric, to_list
from verifiers.megabench.parse import fence_content
from verifiers.megabench.registry import Mode
from verifiers.megabench.transliterate import to_ascii

NEAR = 0.9
"""Least similarity of `near_str_match` that counts."""

_LETTER_FIRST = re.compile(r"\(?([A-Za-z])")
_LETTER_ALONE = re.compile(r"\(?([A-Za-z])(?![^\W_])")
_SPELLING = str.maketrans("", "", " -\n\t.")


def same_text(prediction: object, reference: object, mode: Mode) -> int:
    """1 if the texts are equal; of a reference of one letter only the reply's first one counts."""
    if mode == "sound" and prediction is None:
        return 0
    answer, expected = str(prediction), str(reference)
    if len(expected) == 1 and expected.isalpha() and len(answer) > 1:
        match = (_LETTER_FIRST if mode == "compat" else _LETTER_ALONE).match(answer)
        answer = match.group(1) if match else answer
    return int(answer == expected)


def same_simple_text(prediction: object, reference: str, mode: Mode) -> int:
    """1 if the texts are equal without case, spaces, hyphens and dots."""
    if mode == "sound" and prediction is None:
        return 0
    answer, expected = str(prediction), reference.translate(_SPELLING).lower()
    is_letter = mode == "sound" and len(expected) == 1
    answer = answer.strip() if is_letter else answer.translate(_SPELLING)
    return same_text(answer.lower(), expected, mode)


@metric
def exact_str_match(prediction: object, reference: object, mode: Mode) -> float:
    """1 if equal as texts; null is the text `None`."""
    return same_text(prediction, reference, mode)


@metric
def simple_str_match(prediction: object, reference: str, mode: Mode) -> float:
    """1 if equal as texts without case, spaces, hyphens and dots."""
    return same_simple_text(prediction, reference, mode)


@metric
def exact_str_match_case_insensitive(prediction: str, reference: str, mode: Mode) -> float:
    """1 if both are texts, equal without case."""
    return same_text(prediction.lower(), reference.lower(), mode)


@metric
def code_result_exact_str_match(prediction: object, reference: str, mode: Mode) -> float:
    """1 if equal to the inside of the reference's fence."""
    return same_text(prediction, fence_content(reference, "verbatim")[0], mode)


@metric
def multi_ref_phrase(prediction: object, reference: str, mode: Mode) -> float:
    """1 if equal, in simple spelling, to one of the references."""
    references = to_list(reference.replace("，", ","), mode)
    return int(any(same_simple_text(prediction, str(item), mode) for item in references))


@metric
def near_str_match(prediction: object, reference: object, mode: Mode) -> float:
    """Edit similarity without articles, accents and case; 0 below NEAR."""
    del mode
    if not isinstance(prediction, str) or not isinstance(reference, str):
        return 0
    from rapidfuzz.distance import DamerauLevenshtein

    if prediction == reference:
        return 1
    return DamerauLevenshtein.normalized_similarity(
        _approximate(prediction), _approximate(reference), score_cutoff=NEAR
    )


@metric
def normalized_similarity_damerau_levenshtein(
    prediction: object, reference: object, mode: Mode
) -> float:
    """Edit similarity in [0, 1]: 1 less the edits per character of the longer text."""
    from rapidfuzz.distance import DamerauLevenshtein

    if not isinstance(prediction, str) and (isinstance(reference, str) or mode == "sound"):
        return 0
    return DamerauLevenshtein.normalized_similarity(
        prediction,  # pyright: ignore[reportArgumentType]  # two lists are compared as sequences
        reference,  # pyright: ignore[reportArgumentType]
    )


def _approximate(text: str) -> str:
    words = [word for word in text.split(" ") if word.lower() not in {"the", "a"}]
    return to_ascii(" ".join(words)).lower()
