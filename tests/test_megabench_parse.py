"""Replies to parsed answers: the official parsers' results, and the habits behind them."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiers.megabench.literals import python_literal, unquoted
from verifiers.megabench.parse import PARSERS, fence_content, parse_json, parse_reply
from verifiers.megabench.text_object import candidates, read_object

CASES = Path(__file__).parent / "cases" / "megabench" / "parser_cases.jsonl"
ROWS = [json.loads(line) for line in CASES.read_text().splitlines()]
FUZZ = settings(max_examples=300, deadline=None, derandomize=True)
MARKS = (
    '"',
    "'",
    "\\",
    "[",
    "]",
    "{",
    "}",
    "(",
    ",",
    ":",
    " ",
    "\n",
    "*",
    "```",
    "json",
    "Answer:",
)
WORDS = ("answer: ", "1", "a", "é", "{}", "[1, 2]", '"{\\"a\\": 1}"', "\x00", "-" * 90)
PIECES = st.lists(st.sampled_from(MARKS + WORDS), max_size=30).map("".join)


def parse(parser, reply, *, is_single_line=False, mode="compat"):
    name = "unsupported" if parser == "json" else parser  # without the fallback to the raw reply
    parsed = parse_reply(name, reply, ["x"], is_single_line=is_single_line, mode=mode)
    return parsed["x"] if parser.endswith("string") else parsed


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_a_reply_is_read_as_the_official_parser_reads_it(row):
    parsed = parse(row["parser"], row["response"], is_single_line=row["is_single_line"])
    if row["official_error"]:
        assert parsed == row["response"].removeprefix("Answer: ")  # upstream stops; we keep text
    else:
        assert (repr(parsed) if row["is_repr"] else parsed) == row["parsed"]


@FUZZ
@given(st.one_of(st.text(), PIECES), st.sampled_from(PARSERS), st.sampled_from(["compat", "sound"]))
def test_any_text_is_parsed_by_every_parser(reply, parser, mode):
    parsed = parse_reply(parser, reply, ["a", "##b"], is_single_line=True, mode=mode)
    if parser.endswith("_string"):
        assert list(parsed) == ["a"] and isinstance(parsed["a"], str)
    elif parser == "json":
        assert isinstance(parsed, dict) and parsed
    elif parser == "dummy":
        assert parsed == reply.strip()


@pytest.mark.parametrize(
    "reply",
    [
        *("{" * 20_000, "[a, {" * 5000, "-" * 20_000, "[" * 9000, "`" * 50_000),
        *("Answer: " + "\n " * 20_000 + "x", "**Answer:" + " " * 50_000),
        *('{"a": ' * 3000 + "}" * 3000, "1+" * 5000 + "1"),
    ],
)
def test_hostile_replies_are_parsed_at_once(reply):
    for parser in PARSERS:  # upstream needs minutes, or its clock, for each
        assert parse_reply(parser, reply, ["a"], is_single_line=True) is not None


@FUZZ
@given(st.text("{}[]ab", max_size=30))
def test_candidates_are_balanced_and_apart(text):
    spans = list(candidates(text))
    for span in spans:
        piece = text[span.start : span.end]
        assert piece[0] + piece[-1] in ("{}", "[]")
        assert piece.count("{") == piece.count("}")
    assert all(first.end <= second.start for first, second in pairwise(spans))


def test_the_last_object_wins_and_python_outranks_json():
    assert read_object('{"a": 1} [2] {"b": true}', "compat") == {"b": True}
    assert read_object("{'a': (1, 2)}", "compat") == {"a": (1, 2)}
    assert read_object(r'{"a": "\frac"}', "compat") == {"a": "\frac"}


def test_without_an_object_the_kind_of_nothing_follows_the_first_character():
    assert read_object("[a]", "compat") == []
    assert read_object("a [b]", "compat") == {}


def test_json_falls_back_to_the_whole_reply_for_every_field():
    assert parse_reply("json", "no object", ["a", "##b"]) == {"a": "no object", "##b": "no object"}
    assert parse_reply("unsupported", "no object", ["a"]) == {}
    assert parse_reply(None, "{1, 2}", ["a"]) == {1, 2}


def test_the_answer_field_is_the_one_with_a_reference():
    assert parse_reply("answer_string", "Answer: 5", ["##why", "a"]) == {"a": "5"}


@pytest.mark.parametrize(
    ("spacing", "inside"), [("trimmed", "a\n  b"), ("ascii", "  a\n  b"), ("verbatim", "  a\n  b ")]
)
def test_a_fence_keeps_as_much_white_space_as_its_parser_asks(spacing, inside):
    assert fence_content("```py\n\n  a\n  b \n\n```", spacing) == (inside, True)


def test_code_of_over_ten_thousand_characters_loses_its_last_spaces():
    assert fence_content("a" * 9_999 + " ", "verbatim") == ("a" * 9_999 + " ", False)
    assert fence_content("a" * 10_000 + " ", "verbatim") == ("a" * 10_000, False)


def test_quotes_go_once():
    assert unquoted("'a'") == "a"
    assert unquoted("\"'a'\"") == "'a'"
    assert unquoted("b'a'") == "b'a'"
    assert unquoted("-" * 20_000) == ""
    assert unquoted(["'a'"]) == ["'a'"]


def test_literals_with_bad_escapes_warn_of_nothing():
    assert python_literal(r"'\d'") == r"\d"
    with pytest.raises(SyntaxError):
        python_literal("1if")


@pytest.mark.parametrize(
    ("parser", "reply", "compat", "sound"),
    [
        ("answer_string", "**Answer:** B", "", "B"),
        ("verbatim_answer_string", "**Answer:** B", "", " B"),
        ("json", 'Answer: {\n "a": 1\n}', {}, {"a": 1}),
        ("json", 'Answer:\n```json\n{"a": 1}\n```', {}, {"a": 1}),
        ("json", '{"a": 1}', {"a": 1}, {"a": 1}),
    ],
)
def test_sound_parsing_differs_where_upstream_loses_the_answer(parser, reply, compat, sound):
    assert parse(parser, reply) == compat
    assert parse(parser, reply, mode="sound") == sound


def test_json_values_lose_one_layer_of_quotes():
    assert parse_json('{"a": "\'b\'", "c": ["\'d\'"]}') == {"a": "b", "c": ["'d'"]}
