import string
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verifiers_cases import make

from verifiers import check_spec, score
from verifiers.choice import read_choice

PROPERTY = settings(max_examples=200, deadline=None, derandomize=True)
LETTERS = st.sampled_from(string.ascii_uppercase)
FORMS = ["{}", "({})", "[{}]", "{}.", "{})", "**{}**", r"\text{{{}}}", "option {}", "Answer: {}"]
JOINTS = [" or ", " and ", ", ", "/", " ", "", " & ", ") ", ".", ";", " or maybe ", "\n"]


@PROPERTY
@given(LETTERS, st.sampled_from(FORMS), st.booleans())
def test_a_letter_is_read_in_every_form(letter, form, lower):
    written = form.format(letter.lower() if lower else letter)
    assert read_choice(written) == (letter, "")


@PROPERTY
@given(
    st.lists(LETTERS, min_size=2, max_size=5, unique=True), st.sampled_from(JOINTS), st.booleans()
)
def test_two_letters_are_never_right(letters, joint, bracketed):
    written = joint.join(f"({letter})" if bracketed else letter for letter in letters)
    for reference in letters:
        for params in ({}, {"options": [f"text {n}" for n in range(26)]}):
            sample = make("choice", f"\\boxed{{{reference}}}", **params)
            assert score(sample, f"\\boxed{{{written}}}").score == 0.0, written


@PROPERTY
@given(st.text(max_size=200))
def test_any_text_names_one_letter_or_nothing(text):
    found = read_choice(text)
    assert found is None or (found[0] in string.ascii_uppercase and found[0] in text.upper() + "ⓐ")


OPTIONS = st.lists(st.text("abcdefg", min_size=2, max_size=6), min_size=2, max_size=26, unique=True)


@PROPERTY
@given(OPTIONS, st.data())
def test_letter_and_text_name_the_same_option_and_no_other(options, data):
    right, other = data.draw(st.permutations(range(len(options))))[:2]
    letters = string.ascii_uppercase
    sample = make("choice", f"\\boxed{{{letters[right]}}}", options=options)

    def judged(answer):
        return score(sample, f"\\boxed{{{answer}}}").score

    for form in ("{0}", "{1}", "{0}) {1}", "({0}) {1}", "{0}: {1}.", "The answer is {0}"):
        assert judged(form.format(letters[right], options[right])) == 1.0
        assert judged(form.format(letters[other], options[other])) == 0.0
    assert judged(f"{letters[right]}) {options[other]}") == 0.0
    assert judged(f"{letters[other]}) {options[right]}") == 0.0
    assert judged(f"{options[right]} or {options[other]}") == 0.0
    assert judged(f"{options[right]}, {letters[other]}") == 0.0


@pytest.mark.parametrize("reference", ["C", "(C) a fish", "a fish", "none"])
def test_a_reference_outside_its_options_is_unscored(reference):
    verdict = score(make("choice", f"\\boxed{{{reference}}}", options=["a cat", "a dog"]), "")
    assert (verdict.score, verdict.status) == (None, "bad_reference")
    assert "names none of the options A, B" in verdict.reason


def test_an_answer_that_names_nothing_is_unparseable_and_a_wrong_one_is_not():
    sample = make("choice", r"\boxed{A}", options=["yes", "no"])
    assert score(sample, r"\boxed{I know}").status == "unparseable"
    assert score(sample, r"\boxed{no}").status == "ok"


@pytest.mark.parametrize(
    "options",
    [[], ["x"] * 27, {"AB": "x"}, {"1": "x"}, {"a": "x", "A": "y"}, [None], "x", {"A": 1}],
)
def test_options_that_letters_cannot_name_are_the_rows_fault(options):
    said = check_spec(make("choice", r"\boxed{A}", options=options).reward)
    assert "allowed: a list of up to 26 texts, or letter to text" in said


def test_long_answers_cost_milliseconds():
    for answer in ("A) " * 330, "(" * 999, "A or " * 200, "the answer is " * 70, "* " * 60_000):
        started = time.process_time()
        assert score(make("choice", r"\boxed{B}"), f"\\boxed{{{answer}}}").score == 0.0
        assert time.process_time() - started < 0.05
