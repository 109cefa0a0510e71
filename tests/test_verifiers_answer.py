import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verifiers_cases import BOX, make

from data_specs import Box
from verifiers import VERIFIERS, parse_boxes, score
from verifiers.answer import (
    ANSWER_CHARS_MAX,
    RESPONSE_CHARS_MAX,
    extract_answer,
    form_score,
    reference_text,
)
from verifiers.box_text import BOXES_MAX, read_boxes
from verifiers.numerals import number_word, plain_number


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed {7}", "7"),
        (r"\boxed{\boxed{7}}", "7"),
        ("<answer> 7 </answer>", "7"),
        ("<ANSWER>7</ANSWER>", "7"),
        ("<answer>```\n7\n```</answer>", "7"),
        (r"<answer>so \boxed{7}</answer>", "7"),
        ("<answer>6</answer>, no, wait: <answer>7</answer>", "7"),
        (r"<answer>7</answer> \boxed{7}", "7"),
        (r"<answer>'left'</answer>", "left"),
        ('<answer>```python\n"left"\n```</answer>', "left"),
        (r"\boxed{'it's'}", "'it's'"),
        (r"\boxed{''}", "''"),
        (r"\\boxed{7} and \\boxed{ 7 }", "7"),
        (r"a\\\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{6}. No: \boxed{7}", "7"),
        (r"\boxed{6} = \boxed{7}", "7"),
        (r"with a stray { it is \boxed{7}", "7"),
    ],
)
def test_the_final_answer_is_found(response, text):
    assert extract_answer(response).text == text


@pytest.mark.parametrize(
    ("response", "status", "reason"),
    [
        ("", "no_answer", "neither"),
        (r"\boxed{7", "no_answer", "never closed"),
        ("<answer>7", "no_answer", "never closed"),
        ("<answer>6</answer> <answer>7", "no_answer", "never closed"),
        ("<think> 7", "no_answer", "never ends"),
        ("<answer></answer>", "no_answer", "empty"),
        (r"\boxed{6} or \boxed{7}", "unparseable", "different"),
        ("<answer>6</answer> <answer>7</answer>", "unparseable", "different"),
        (r"\boxed{6}" + "\n" * 500 + r"\boxed{7}", "unparseable", "different"),
        (r"\boxed{6} $\quad \text{or}$ \boxed{7}", "unparseable", "different"),
        (r"\boxed{6}; alternatively, it could be \boxed{7}", "unparseable", "different"),
        (r"\boxed{6} \boxed{7} \boxed{7}", "unparseable", "different"),
        (r"<answer>\boxed{6} \boxed{7}</answer>", "unparseable", "different"),
        (r"\boxed{\boxed{7}", "no_answer", "never closed"),
        (r"\boxed{{{7}", "no_answer", "never closed"),
        (r"\boxed7}", "no_answer", "neither"),
        (r"\boxed{7\}", "no_answer", "never closed"),
        (r"<answer>6</answer> \boxed{7}", "unparseable", "something else"),
        ("x" * (RESPONSE_CHARS_MAX + 1), "unparseable", "at most"),
        (r"\boxed{" + "x" * (ANSWER_CHARS_MAX + 1) + "}", "unparseable", "at most"),
    ],
)
def test_a_missing_answer_says_why(response, status, reason):
    answer = extract_answer(response)
    assert (answer.text, answer.status) == (None, status)
    assert reason in answer.reason


def test_a_reference_may_be_bare_in_dollar_signs_quoted_or_fenced():
    for ground_truth in (
        "7",
        " $7$ ",
        "$$7$$",
        "'7'",
        "```\n7\n```",
        r"\boxed{7}",
        "<answer>7</answer>",
    ):
        assert reference_text(ground_truth).text == "7"
    for ground_truth in ("", "  ", r"\boxed{7", "<answer>7", "7" * (ANSWER_CHARS_MAX + 1)):
        assert reference_text(ground_truth).text is None


def test_the_format_score_of_a_tag_row_counts_the_four_tags_once_each():
    full = "<think>t</think><answer>7</answer>"
    for response, value in [(full, 1.0), ("<answer>7</answer>", 0.5), (full + "<think>", 0.75)]:
        assert form_score(response, "<answer>7</answer>", extract_answer(response)) == value


def test_the_format_score_of_a_boxed_row_asks_for_the_box():
    assert score(make("number", r"\boxed{7}"), r"\boxed{8}").format == 1.0
    assert score(make("number", r"\boxed{7}"), "8").format == 0.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("seven", 7),
        ("Ninety-nine", 99),
        ("a hundred", 100),
        ("two thousand and five", 2005),
        ("nine hundred ninety nine", 999),
        ("hundred", None),
        ("one one", None),
        ("seven dogs", None),
        ("twenty ten", None),
        ("one hundred and", None),
        ("a", None),
    ],
)
def test_number_words(text, value):
    assert number_word(text) == value


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 9999))
def test_grouped_digits_and_decimals_have_the_value_of_the_integer(value):
    assert plain_number(f"{value:,}") == plain_number(f"{value}.00") == value


PIECES = [
    *("\\boxed{", "}", "{", "<answer>", "</answer>", "<think>", "</think>", "or", " ", "7", "-"),
    *("\\frac", "^", "!", "[", "]", "'bbox_2d': ", '"label": ', "'dog'", ",", "nan", "1e999", "A"),
    *("```", "\n", "$", "%", "\\", "\x00", "９", "½", "𝟕", "İ", "\\text{", "x="),
]
hostile = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES)).map("".join))
SAMPLES = [
    make("mathverify", r"\boxed{7}"),
    make("number", r"\boxed{7}", relative_tolerance=0.1),
    make("text", r"\boxed{dog}", metric="anls"),
    make("choice", r"\boxed{A}", options=["dog", "cat"]),
    make("detection", BOX),
    make("detection", BOX, det_reward_ratio={"map": 1.0, "iou_max_iou_first": 1.0}),
]


@settings(max_examples=150, deadline=None)
@given(hostile, st.sampled_from(["{}", "\\boxed{{{}}}", "<answer>{}</answer>"]))
def test_any_string_gets_a_finite_score_from_every_verifier(text, wrapper):
    response = wrapper.replace("{{", "{").replace("}}", "}").replace("{}", text, 1)
    for sample in SAMPLES:
        verdict = score(sample, response)
        assert verdict.status in ("ok", "no_answer", "unparseable"), verdict
        assert 0.0 <= verdict.score <= 1.0
        assert 0.0 <= verdict.reward <= 1.0
        assert all(math.isfinite(value) for value in verdict.parts.values())


@settings(max_examples=150, deadline=None)
@given(hostile)
def test_the_box_parser_gives_boxes_or_nothing(text):
    for entry in ("{}", "[{}]", "[{'bbox_2d': [{}], 'label': 'a'}]"):
        for box in parse_boxes(entry.replace("{}", text, 1)):
            assert isinstance(box, Box)


@pytest.mark.parametrize("name", VERIFIERS)
@pytest.mark.parametrize(
    "response",
    [
        "\\boxed{" * 50_000,
        "<answer>" * 40_000,
        "<answer>" + "[" * 60_000 + "</answer>",
        "<answer>" + "{'a':" * 12_000 + "</answer>",
        "<answer>" + "{}" * 1000 + "'\"" * 10_000 + "</answer>",
        "\\boxed{" + "(" * 60_000 + "}",
        "\\boxed{" + " " * 60_000 + "}",
        "\\boxed{" + "1,111" * 10_000 + "}",
        "\\boxed{7} and " * 30_000,
        "or " * 100_000 + "\\boxed{7}",
    ],
    ids=lambda text: text[:14],
)
def test_no_pattern_explodes(name, response):
    sample = make(name, BOX if name == "detection" else r"\boxed{7}")
    started = time.process_time()
    score(sample, response)
    assert time.process_time() - started < 1.0


def test_ten_thousand_boxes_are_refused_quickly():
    entry = "{'bbox_2d': [1, 2, 3, 4], 'label': 'dog'}"
    started = time.process_time()
    verdict = score(make("detection", BOX), f"<answer>[{', '.join([entry] * 10_000)}]</answer>")
    assert (verdict.score, verdict.status) == (0.0, "unparseable")
    assert time.process_time() - started < 0.5


def test_as_many_boxes_as_are_allowed_are_scored_in_time():
    entries = [f"{{'bbox_2d': [{i}, 2, {i + 9}, 40], 'label': 'dog'}}" for i in range(BOXES_MAX)]
    text = f"[{', '.join(entries)}]"
    assert len(read_boxes(text, "per_mille").boxes) == BOXES_MAX
    started = time.process_time()
    score(make("detection", f"<answer>{text}</answer>"), f"<answer>{text}</answer>")
    assert time.process_time() - started < 1.5


def test_boxes_are_parsed_for_drawing_from_a_response_and_from_a_bare_list():
    wanted = [Box(10, 10, 90, 90, "dog", "per_mille")]
    assert parse_boxes("I see it. " + BOX) == wanted
    assert parse_boxes('[{"bbox_2d": [10, 10, 90, 90], "label": "dog"}]') == wanted
    assert parse_boxes("nothing") == []
