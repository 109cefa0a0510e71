import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verifiers_cases import make

from verifiers import check_spec, score
from verifiers.text import (
    METRICS,
    TEXT_CHARS_MAX,
    bare_words,
    normalise_text,
    read_text,
    similarity,
)

PROPERTY = settings(max_examples=200, deadline=None, derandomize=True)
WORDS = st.text("abcé 1-", min_size=1, max_size=30).map(read_text).filter(bool)


def edits(left, right):
    """Levenshtein's distance, one row of the table at a time."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        before, row[0] = row[0], i
        for j, b in enumerate(right, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


@PROPERTY
@given(WORDS, WORDS)
def test_every_metric_is_its_formula(answer, reference):
    if reference.strip("+-0123456789.,:/ "):  # numbers are exact
        cer = edits(answer, reference) / len(reference)
        wer = edits(answer.split(), reference.split()) / len(reference.split())
        nls = 1 - edits(answer, reference) / max(len(answer), len(reference))
        assert similarity("cer", answer, reference) == pytest.approx(max(0.0, 1 - cer))
        assert similarity("wer", answer, reference) == pytest.approx(max(0.0, 1 - wer))
        if abs(nls - 0.5) > 1e-9:
            expected = nls if nls > 0.5 else 0.0
            assert similarity("anls", answer, reference) == pytest.approx(expected)
    assert similarity("exact", answer, reference) == float(answer == reference)


@PROPERTY
@given(st.text(max_size=60), st.text(max_size=60), st.sampled_from(METRICS))
def test_a_similarity_is_a_score_and_1_only_for_equal_texts(answer, reference, metric):
    answer, reference = read_text(answer), read_text(reference)
    value = similarity(metric, answer, reference)
    assert 0.0 <= value <= 1.0
    assert (value == 1.0) == (answer == reference != "")


@PROPERTY
@given(WORDS, WORDS, st.sampled_from(METRICS), st.sampled_from([" ", "\u200b", "\n\t", "\u00a0"]))
def test_padding_changes_nothing(answer, reference, metric, padding):
    plain = similarity(metric, read_text(answer), reference)
    padded = f"{padding * 100}{answer}{padding * 100}"
    assert similarity(metric, read_text(padded), reference) == plain


@PROPERTY
@given(st.text(max_size=80), st.booleans())
def test_a_normal_text_has_single_spaces_and_no_letter_case_if_told(text, ignore_case):
    found = normalise_text(text, ignore_case)
    assert found == " ".join(found.split())
    if not ignore_case:
        assert unicodedata.is_normalized("NFKC", found) or any(c in text for c in "‘’‚“”„\\")
    if text.isascii() and "\\" not in text:
        assert normalise_text(text.upper(), True) == normalise_text(text.lower(), True)
    assert bare_words(text) == bare_words(f"**{text}**. ") or "\\" in text


def test_many_references_count_by_the_best_of_them():
    sample = make("text", r"\boxed{color}", metric="cer", references=["colour", "42", "hue"])
    assert score(sample, r"\boxed{colour}").score == 1.0
    assert score(sample, r"\boxed{hua}").score == pytest.approx(2 / 3)
    assert score(sample, r"\boxed{43}").score == 0.0
    assert score(sample, r"\boxed{colors}").score == pytest.approx(0.8)  # 1/5, not 2/6


def test_a_hit_under_a_soft_metric_is_told_apart():
    sample = make("text", r"\boxed{hello}", metric="cer")
    assert score(sample, r"\boxed{hello}").parts == {"exact": 1.0}
    assert score(sample, r"\boxed{hallo}").parts == {"exact": 0.0}
    assert score(sample, "nothing").parts == {"exact": 0.0}
    assert score(make("text", r"\boxed{hello}"), r"\boxed{hello}").parts == {}


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"references": [" "]}, "none empty"),
        ({"references": ["x" * 5000]}, "none over 4096"),
        ({"references": "colour"}, "allowed: a list"),
        ({"threshold": 0.3}, "threshold belongs to metric anls; the metric is exact"),
        ({"metric": "wer", "threshold": 0.3}, "the metric is wer"),
        ({"metric": "anls", "threshold": 1.3}, "threshold is 1.3"),
    ],
)
def test_a_wrong_parameter_says_what_is_allowed(params, said):
    assert said in check_spec(make("text", r"\boxed{x}", **params).reward)


@pytest.mark.parametrize(
    "reference", ["", r"\boxed{\text{}}", "\u200b", "x" * (TEXT_CHARS_MAX + 1)]
)
def test_a_reference_that_no_answer_could_meet_is_unscored(reference):
    verdict = score(make("text", reference), r"\boxed{x}")
    assert (verdict.score, verdict.status) == (None, "bad_reference")


@pytest.mark.parametrize("metric", METRICS)
def test_the_longest_answers_cost_milliseconds(metric):
    sample = make("text", "\\boxed{" + "ab " * 1300 + "}", metric=metric)
    for answer in ("ba " * 1365, "\\text{" * 600, "\u200b" * 4000, "é" * 4096, " " * 60_000):
        started = time.process_time()
        score(sample, f"\\boxed{{{answer}}}")
        assert time.process_time() - started < 0.1
