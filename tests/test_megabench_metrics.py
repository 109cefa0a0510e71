"""Text, set, list, number and dict metrics: official scores, and what `sound` corrects."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiers.megabench import METRICS, Unscored, find_metric
from verifiers.megabench.corrections import CORRECTIONS, corrections_of
from verifiers.megabench.latex_number import NotNumber, NotRead, read_latex_number
from verifiers.megabench.parse import PARSERS
from verifiers.megabench.python_number import read_python_number
from verifiers.megabench.transliterate import to_ascii

CASES = Path(__file__).parent / "cases" / "megabench" / "metric_cases.jsonl"
ROWS = [json.loads(line) for line in CASES.read_text().splitlines()]
OURS = sorted({row["metric"] for row in ROWS})
FUZZ = settings(max_examples=400, deadline=None, derandomize=True)

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
TEXTS = st.lists(
    st.sampled_from(
        [
            *("[", "]", "(", ")", "{", "}", ",", "'", '"', ":", " ", "a", "B", "1", "2.5", "-"),
            *("\\frac", "^", "=", "%", "π", "\\boxed{", "é", "東", "nan", "1e999", "\n", "x", "0"),
            "None",
        ]
    ),
    max_size=12,
).map("".join)


def score(name, prediction, reference, mode="compat"):
    return find_metric(name)(prediction, reference, mode=mode)


@pytest.mark.parametrize("name", OURS)
def test_metrics_give_the_official_scores(name):
    for row in (row for row in ROWS if row["metric"] == name):
        try:
            found = score(name, row["response"], row["reference"])
        except Unscored as error:
            assert "Unidecode" in str(error)
            continue
        assert found == pytest.approx(row["score"], abs=1e-9), row


@pytest.mark.parametrize("mode", ["compat", "sound"])
@FUZZ
@given(st.sampled_from(OURS), st.one_of(VALUES, TEXTS, VALUES.map(str)), TEXTS | VALUES | st.text())
def test_any_input_gives_a_score(mode, name, prediction, reference):
    try:
        found = score(name, prediction, reference, mode)
    except Unscored:
        assert name == "near_str_match"
        return
    assert -1 <= found <= 1 and not math.isnan(found)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_every_metric_is_named_once_and_its_module_is_a_module_of_the_package(name):
    assert METRICS[name].module.isidentifier()
    assert METRICS[name].form in ("reference", "context", "reply_and_context", "judged")


def test_a_metric_that_is_not_known_is_none():
    assert find_metric("exact_match") is None


@pytest.mark.parametrize(
    ("name", "prediction", "reference", "compat", "sound"),
    [
        ("exact_str_match", None, "N", 1, 0),
        ("exact_str_match", "Apple", "A", 1, 0),
        ("exact_str_match", "(A) x", "A", 1, 1),
        ("exact_str_match", "A. x", "A", 1, 1),
        ("simple_str_match", "Apple", "A", 1, 0),
        ("simple_str_match", "A. pple", "A", 1, 1),
        ("simple_str_match", "3.5", "35", 1, 1),
        ("multi_ref_phrase", ["a"], "None", 0, 0),
        ("normalized_similarity_damerau_levenshtein", ["a"], ["a"], 1, 0),
        ("set_equality", "[[1, 2], [3, 4]]", "[[5, 6]]", 1, 0),
        ("set_equality", "[[1, 2], [3, 4]]", "[[3, 4], [1, 2]]", 1, 1),
        ("set_equality", "None", "[]", 0, 1),
        ("set_precision", "", "a", 1, 0),
        ("set_precision", "(a", "a", 1, 0),
        ("str_set_equality_comma", ["a", "B"], "b, a", 0, 1),
        ("chess_move_list_jaccard_index", "Qh7+", "Qh7", 0, 1),
        ("chess_move_list_jaccard_index", "Qh7#", "Qh7", 1, 1),
        ("sequence_accuracy_case_insensitive", "[1, 'b']", "['a', 'b']", 0, 0.5),
        ("longest_common_list_prefix_ratio", ["a", "b"], "[a, c]", 0, 0.5),
        ("positive_int_match", 5, "5", 0, 1),
        ("positive_int_match", "0", "-3", -1, -1),
        ("normalized_rmse", 0.5, "0.55", 0, 0.5),
        ("general_single_numerical_match", "(1, 2)", "(1, 2)", 0, 1),
        ("general_single_numerical_match", r"50\%", "0.5", 0, 1),
        ("general_single_numerical_match", "25.", "25", 0, 1),
        ("boxed_single_numerical_match", r"\boxed{25.}", "25", 0, 1),
        ("dict_precision", {"a": None}, "{'a': 'N'}", 1, 0),
        ("dict_equality", 'Answer: {\n"a": 1}', "{'a': 1}", 0, 1),
    ],
)
def test_sound_differs_from_compat_where_it_is_said(name, prediction, reference, compat, sound):
    assert score(name, prediction, reference) == pytest.approx(compat, abs=1e-9)
    assert score(name, prediction, reference, "sound") == pytest.approx(sound, abs=1e-9)
    assert compat == sound or corrections_of(name)


def test_corrections_name_parsers_and_metrics_that_exist():
    for correction in CORRECTIONS:
        assert set(correction.names) <= {*PARSERS, *METRICS}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3 1/2", 15.5), ("5, 6", 5), ("12,3456", 74070), ("12,345", 12345), ("2^3^2", 64),
        ("-2^2", -4), ("1/2(3)", 1 / 6), (r"\frac12", 0.5), (r"5\times10^{-3}", 0.005),
        ("2 |", 2), ("5^-3", 5), ("5 +", 5), ("3 x 4", 12), ("25.", 2), ("125.", 2), ("3.57.", 3.5),
        ("5 > 3", 1), ("5=6", 0), ("2E", 5.436), ("2 (3, 4)", 2), ("[1,234]", 1234),
    ],
)  # fmt: skip
def test_latex_arithmetic_is_read_as_sympys_grammar_reads_it(text, value):
    assert read_latex_number(text) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("text", ["", "5.", "(5, 6)", "(2", "5 ?", r"50\%", "×", "5 = ", "(" * 999])
def test_text_that_does_not_start_with_arithmetic_is_not_read(text):
    with pytest.raises(NotRead):
        read_latex_number(text)


@pytest.mark.parametrize(
    "text", ["5 cm", r"\sqrt{2}", "1e3", "4!", "|5|", "1/0", "9^{9^{9^9}}", "nan"]
)
def test_names_and_functions_have_no_value(text):
    with pytest.raises(NotNumber):
        read_latex_number(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("[1, 2*3]", [1, 6]), ("(1, E)", (1, 2.718)), ("10^-3", -9), ("'5'", "5"), ("7//2", 3)],
)
def test_python_arithmetic_is_worked_out(text, value):
    assert read_python_number(text) == value


@pytest.mark.parametrize(
    "text", ["len('abcde')", "__import__('os')", "[x for x in (1,)]", "9**9**9", "1 if 1 else 2"]
)
def test_nothing_else_of_python_is(text):
    assert read_python_number(text) is None


@pytest.mark.parametrize(
    ("text", "spelled"),
    [("Café", "Cafe"), ("Straße", "Strasse"), ("Москва", "Moskva"), ("Ａ–Ｂ", "A-B"), ("😀x", "x")],
)
def test_foreign_letters_are_spelled_in_ascii(text, spelled):
    assert to_ascii(text) == spelled


def test_equal_texts_are_near_in_any_script():
    assert score("near_str_match", "東京", "東京") == 1
    assert score("near_str_match", "The Statue of Liberty", "statue of liberty") == 1
    assert score("near_str_match", "abcdefghiX", "abcdefghij") == 0.9
    assert score("near_str_match", "abcdefghXX", "abcdefghij") == 0


@pytest.mark.parametrize(
    ("prediction", "expected"), [("99", 1), ("101", 1), ("98.9", 0), ("102", 0)]
)
def test_numbers_within_a_hundredth_of_the_reference_are_equal(prediction, expected):
    assert score("general_single_numerical_match", prediction, "100") == expected
