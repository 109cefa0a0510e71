import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verifiers_cases import make

from verifiers import check_spec, score
from verifiers.number import MISS_MAX, Quantity, read_number, read_quantity, shaped_score

PROPERTY = settings(max_examples=200, deadline=None, derandomize=True)
HUGE = st.integers(-(10**60), 10**60)


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("1,234,567.50", Fraction(2469135, 2), ""),
        ("$1,234", 1234, "$"),
        ("-€3", -3, "€"),
        ("12.5%", Fraction(25, 2), "%"),
        (r"12\%", 12, "%"),
        ("12 per cent", 12, "%"),
        ("$-7$", -7, ""),
        ("Two hundred and six.", 206, ""),
        ("3/4", Fraction(3, 4), ""),
    ],
)
def test_a_number_is_read_with_its_unit(text, value, unit):
    assert read_quantity(text) == Quantity(value, unit)


@pytest.mark.parametrize(
    "text",
    [
        *("", "about 5", "5-6", "5 or 6", "5, 6", "5;6", "[5]", "5 5", "five dogs", "1_000", "٣"),
        *("0x10", "1e999", "5²", "nan", "inf", "-", "%", "$", "--5", "5%%", "$5%", "1.2.3", "+-5"),
        "9" * 5000,
    ],
)
def test_anything_else_is_no_number(text):
    assert read_number(text) is None


@PROPERTY
@given(HUGE)
def test_an_integer_reads_as_itself_however_it_is_written(value):
    assert read_number(str(value)) == value
    if abs(value) < 10**50:
        assert read_number(f"{value:,}") == value == read_number(f" **{value}**. ")
        assert read_number(f"{value:,}".replace(",", "\u202f").replace("-", "\u2212")) == value
        assert read_quantity(f"{value}%") == Quantity(value, "%")


@PROPERTY
@given(st.text(max_size=300))
def test_any_text_is_a_number_or_none(text):
    value = read_number(text)
    assert value is None or isinstance(value, int | Fraction)


@PROPERTY
@given(HUGE, HUGE, HUGE)
def test_a_shaped_score_never_rises_with_the_distance_and_no_miss_is_right(reference, one, other):
    near, far = sorted((abs(one - reference), abs(other - reference)))
    assert 0.0 <= shaped_score(far, reference) <= shaped_score(near, reference) <= 1.0
    assert (shaped_score(near, reference) == 1.0) == (near == 0)


@PROPERTY
@given(st.integers(-50, 50), st.integers(-150, 150), st.booleans())
def test_a_small_shaped_score_is_its_formula(reference, answer, charted):
    params = {"shaping": "relative", **({"relative_tolerance": 0.05} if charted else {})}
    verdict = score(make("number", f"\\boxed{{{reference}}}", **params), f"\\boxed{{{answer}}}")
    distance, scale = abs(answer - reference), max(abs(reference), 1)
    hit = distance == 0 or (charted and distance * 20 <= abs(reference))
    assert verdict.score == pytest.approx(1.0 if hit else max(0.0, 1 - distance / scale))
    assert (verdict.score == 1.0) == hit == (verdict.parts["exact"] == 1.0)


def test_numbers_that_are_one_as_floats_are_told_apart():
    reference = 2**80
    assert float(reference + 1) == float(reference)
    sample = make("number", f"\\boxed{{{reference}}}", shaping="relative")
    assert score(sample, f"\\boxed{{{reference + 1}}}").score == MISS_MAX < 1.0
    assert score(sample, f"\\boxed{{{reference}.0}}").score == 1.0


@pytest.mark.parametrize("digits", [399, 400, 401, 4300, 4301, 60_000])
def test_any_number_of_digits_is_safe(digits):
    answer = f"\\boxed{{{'9' * digits}}}"
    for params in ({}, {"shaping": "relative"}, {"relative_tolerance": 0.05}):
        assert score(make("number", r"\boxed{5}", **params), answer).score == 0.0
        gold = score(make("number", answer, **params), answer)
        expected = (1.0, "ok") if digits <= 4096 else (None, "bad_reference")
        assert (gold.score, gold.status) == expected


@pytest.mark.parametrize(
    ("question", "exact"),
    [
        ("In which year was it highest?", True),
        ("What years are shown?", True),
        ("When did it peak?", True),
        ("Tell me when it was founded: when was it?", True),
        ("What was the value in the year 2010?", False),
        ("How many years did it last?", False),
        ("How much is sold per year?", False),
        ("What was the value when it peaked?", False),
        ("How many birds?", False),
    ],
)
def test_a_year_is_exact_where_the_question_asks_for_one(question, exact):
    for params in (
        {"relative_tolerance": 0.05},
        {"relative_tolerance": 0.05, "shaping": "relative"},
    ):
        sample = make("number", r"\boxed{2010}", question, **params)
        assert score(sample, r"\boxed{2011}").score == (0.0 if exact else 1.0)
        assert score(sample, r"\boxed{2010}").score == 1.0


def test_what_is_no_bare_year_keeps_its_tolerance():
    for reference in ("2,010", "2010.5", "999", "3000", "$2010"):
        sample = make(
            "number", f"\\boxed{{{reference}}}", "In which year?", relative_tolerance=0.05
        )
        answer = score(sample, r"\boxed{2011}")
        assert answer.score == (0.0 if reference in ("999", "3000") else 1.0)


@pytest.mark.parametrize("reference", ["", r"\boxed{}", r"\boxed{.}", "$ $", "<answer></answer>"])
def test_a_reference_without_content_is_unscored(reference):
    verdict = score(make("number", reference), r"\boxed{5}")
    assert (verdict.score, verdict.status) == (None, "bad_reference")


def test_a_wrong_shaping_is_the_rows_fault():
    assert "allowed: none, relative" in check_spec(make("number", "5", shaping="log").reward)


def test_long_answers_cost_milliseconds():
    for answer in (
        " " * 60_000 + "5",
        "5 " * 2000,
        "-" * 60_000,
        "$" * 4000,
        "1," * 2000,
        "½" * 199,
    ):
        started = time.process_time()
        assert score(make("number", r"\boxed{5}"), f"\\boxed{{{answer}}}").score in (0.0, 1.0)
        assert time.process_time() - started < 0.05
