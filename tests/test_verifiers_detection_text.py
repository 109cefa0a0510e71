import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verifiers_cases import BOX, make

from verifiers import score
from verifiers.box_text import BOXES_MAX, Limits, parse_boxes, read_boxes

ENTRY = "{'bbox_2d': [10, 10, 90, 90], 'label': 'dog'}"
DOG = ([(10, 10, 90, 90)], ["dog"])
BARE = ([(10, 10, 90, 90)], [None])


@pytest.mark.parametrize(
    ("text", "expected", "num_malformed"),
    [
        ("[]", ([], []), 0),
        (ENTRY, DOG, 0),
        (f"[{ENTRY}]", DOG, 0),
        (f"[[{ENTRY}]]", DOG, 0),
        (f"({ENTRY},)", DOG, 0),
        (f"[{ENTRY},]", DOG, 0),
        (f"[{ENTRY}, {{'bbox_2d': [1, 2", DOG, 0),
        (f"Here it is: {ENTRY}.", DOG, 0),
        ('[{"bbox_2d":[10,10,90,90],"label":"dog","confidence":0.9}]', DOG, 0),
        ("[{'label': 'dog', 'box': (10, 10, 90, 90)}]", DOG, 0),
        ("[{'label': 'dog', 'bbox_2d': ((10, 10), (90, 90))}]", DOG, 0),
        ("[10, 10, 90, 90]", BARE, 0),
        ("(10, 10, 90, 90)", BARE, 0),
        ("[[10, 10, 90, 90]]", BARE, 0),
        ("[[[10, 10, 90, 90]]]", BARE, 0),
        ("[[10, 10], [90, 90]]", BARE, 0),
        ("(10,10),(90,90)", BARE, 0),
        ("[[10, 10, 90, 90], 'dog']", BARE, 1),
        ("<|box_start|>(10,10),(90,90)<|box_end|>", BARE, 0),
        ("<|object_ref_start|>dog<|object_ref_end|><|box_start|>(10,10),(90,90)", DOG, 0),
        ("<|box_start|>dog<|box_end|>", ([], []), 1),
        ("[{'bbox_2d': [10, 10, 90, 90]}]", ([(10, 10, 90, 90)], [""]), 0),
        ("[{'bbox_2d': [10, 10, 90, 90], 'label': None}]", ([(10, 10, 90, 90)], [""]), 0),
        ("[{'bbox_2d': [10, 10, 90, 90], 'label': 7}]", ([], []), 1),
        ("[{'bbox_2d': [90, 10, 10, 90], 'label': 'dog'}]", ([], []), 1),
        ("[{'bbox_2d': [10, True, 90, 90], 'label': 'dog'}]", ([], []), 1),
        ("[{'bbox_2d': [10, 1e7, 90, 1e8], 'label': 'dog'}]", ([], []), 1),
        ("[{'bbox_2d': '10, 10, 90, 90', 'label': 'dog'}]", ([], []), 1),
        ("[{'bbox_2d': [[10, 10, 90, 90]], 'label': 'dog'}]", ([], []), 1),
        ("[{'bbox_2d': [], 'label': 'dog'}]", ([], []), 1),
        ("[{'label': 'dog'}]", ([], []), 1),
        ("[1, 2, 3]", ([], []), 3),
        ("[{}]", ([], []), 1),
    ],
)
def test_what_is_read_of_a_text(text, expected, num_malformed):
    read = read_boxes(text)
    assert (read.corners, read.labels) == expected
    assert read.num_malformed == num_malformed
    assert read.is_list


@pytest.mark.parametrize("text", ["", "dog", "10, 10, 90, 90", "[[[[", "{", "]", "[1, 2", "()()"])
def test_what_is_no_list(text):
    assert not read_boxes(text).is_list
    assert parse_boxes(text) == []


def test_numbers_beyond_the_limits_make_no_box():
    limits = Limits(-1, -2, 100, 200)
    assert read_boxes("[[-1, -2, 100, 200], [-1.1, 0, 9, 9]]", limits=limits).corners == [
        (-1, -2, 100, 200)
    ]


def test_a_box_is_drawn_once_and_without_its_label():
    assert [b.label for b in parse_boxes(f"[{ENTRY}, {ENTRY}]")] == ["dog"]
    assert [b.label for b in parse_boxes("<answer>[1, 2, 3, 4]</answer>", "pixel")] == [""]
    assert parse_boxes("[1, 2, 3, 4]", "pixel")[0].space == "pixel"


def listed(num):
    return "[" + ", ".join(f"[{i}, 2, {i + 9}, 40]" for i in range(num)) + "]"


def test_more_boxes_than_the_cap_are_not_read():
    assert len(read_boxes(listed(BOXES_MAX)).corners) == BOXES_MAX
    assert read_boxes(listed(BOXES_MAX + 1)).is_too_many
    cut = f"[{', '.join([ENTRY] * (BOXES_MAX + 1))}, {{'bbox_2d'"
    assert read_boxes(cut).is_too_many


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("{'bbox_2d': [10, 10, 90, 90], 'label': '" + "a" * 100_000 + "'}", "characters"),
        (", ".join([ENTRY] * 10_000), "characters"),
        (", ".join("[1, 1, 2, 2]" for _ in range(4000)), "more boxes than are read"),
        ("{'bbox_2d': [" + "9" * 400 + ", 0, 1, 1], 'label': 'dog'}", "no list of boxes"),
        ("{'bbox_2d': [" + "9" * 5000 + ", 0, 1, 1], 'label': 'dog'}", "no list of boxes"),
        ("{'bbox_2d': [1e999, 0, 1e999, 1], 'label': 'dog'}", "no list of boxes"),
    ],
)
def test_what_is_too_large_is_refused_with_a_reason(entry, why):
    verdict = score(make("detection", BOX), f"<answer>[{entry}]</answer>")
    assert (verdict.score, verdict.status) == (0.0, "unparseable")
    assert why in verdict.reason


@pytest.mark.parametrize(
    "text",
    [
        "(" * 30_000 + ")" * 30_000,
        "-" * 60_000 + "1",
        "1+" * 30_000 + "1",
        "[" + "1, " * 20_000 + "]",
        "[" + "'" * 60_000,
        "()" * 30_000,
        "[]" * 30_000,
        "not " * 15_000 + "[1]",
        "lambda:" * 9000 + "[1]",
        "[" + "a." * 30_000 + "]",
        "<|box_start|>" * 5000,
        "<|object_ref_start|>" * 3000 + "<|box_start|>",
        "<|box_start|>(" + "1" * 60_000,
        "{'label':" * 7000,
        "{'label': '" * 6000 + "}",
        "[" * 30 + "1" * 60_000,
        "[1, " * 15_000,
        "\\" * 60_000 + "[",
        "'[{" * 20_000,
    ],
    ids=lambda text: text[:12],
)
def test_no_text_holds_up_the_reader(text):
    started = time.process_time()
    read_boxes(text)
    score(make("point", "[1, 1, 2, 2]"), f"<answer>{text}</answer>")
    assert time.process_time() - started < 1.0


PIECES = [
    *(
        "[",
        "]",
        "{",
        "}",
        "(",
        ")",
        ",",
        ":",
        "'",
        '"',
        "\\",
        "\n",
        " ",
        "-",
        "1",
        "90",
        "1e3",
        ".",
    ),
    *("'bbox_2d': ", '"label": ', "'dog'", "nan", "true", "None", "1e999", "<|box_start|>"),
    *("<|box_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "(10,10),(90,90)", ENTRY),
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_any_text_is_boxes_or_nothing(text):
    read = read_boxes(text)
    assert len(read.corners) == len(read.labels)
    for x1, y1, x2, y2 in read.corners:
        assert -1e6 <= x1 <= x2 <= 1e6 and -1e6 <= y1 <= y2 <= 1e6
        assert all(math.isfinite(value) for value in (x1, y1, x2, y2))
    assert 0.0 <= score(make("detection", BOX), f"<answer>{text}</answer>").score <= 1.0


@pytest.mark.parametrize(
    "text", ["[{'bbox_2d': [1, 2, 3, 4or 5], 'label': 'a'}]", r"['\d', 10in [1]]"]
)
def test_pythons_remarks_on_an_answer_are_not_printed(text, recwarn):
    assert read_boxes(text, "per_mille").boxes == ()
    assert list(recwarn) == []
