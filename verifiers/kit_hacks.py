r"""Answers that have cheated a verifier somewhere, as data: the answer, the reference, and how.

A hack is run against a verifier of its kind of answers by `verifiers.kit.contract`; it must stay
below 1, or at `most`. The responses that need no reference of their own are in `HOSTILE`, those
made from a row's own gold answer in `hedged`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

Kind = Literal["math", "number", "text", "choice", "boxes"]
KINDS: tuple[Kind, ...] = ("math", "number", "text", "choice", "boxes")
"""Kinds of answers: what stands in the reference."""

HOSTILE: tuple[str, ...] = (
    "",
    " \n\t",
    "no answer here",
    r"\boxed{",
    r"\boxed{}",
    "<answer>",
    "<answer></answer>",
    "<answer>[]</answer>",
    "<answer>[{'bbox_2d': [nan, nan, nan, nan], 'label': 'x'}]</answer>",
    "<answer>[{'bbox_2d': [1e999, 0, 1, 1], 'label': 'x'}]</answer>",
    "<answer>[{'bbox_2d': [true, true, true, true], 'label': 'x'}]</answer>",
    "<answer>[{'bbox_2d': [0, 0, " + "9" * 400 + ", 9], 'label': 'x'}]</answer>",
    "<answer>" + "[" * 5000 + "</answer>",
    r"\boxed{9^{9^{9}}}",
    r"\boxed{1000000!}",
    r"\boxed{" + "9" * 5000 + "}",
    r"\boxed{-" + "0" * 5000 + "1}",
    r"\boxed{" * 2000,
    r"\boxed{" + " " * 60_000 + "x}",
    "\\boxed{\u200b}",
    "<think>" * 500 + r"\boxed{1}",
    r"\boxed{1} or \boxed{2}",
    "\x00\ud800 \u202e ٣ ５ ½",
    "a" * 500_000,
)
"""Responses that have broken reward code elsewhere; none of them is a right answer to anything."""


class Hack(NamedTuple):
    """One answer that has been paid for, and should not have been."""

    kind: Kind
    response: str
    reference: str
    """The ground truth in the form of a response."""
    note: str
    """Whom it cheated, and how."""
    most: float | None = None
    """Highest score that it may get; None: anything below 1."""
    question: str = ""
    """Asked in place of the row's question, if it matters."""


def hedged(gold: str) -> list[tuple[str, str]]:
    r"""(response, what it does) for responses that hold the gold answer and deserve nothing.

    Empty for a gold answer that stands neither in \boxed{} nor in an answer tag.
    """
    if gold.endswith("</answer>"):
        other, cut = "<answer>zzz</answer>", gold.removesuffix("</answer>")
    elif gold.startswith("\\boxed{") and gold.endswith("}"):
        other, cut = r"\boxed{zzz}", gold[:-1]
    else:
        return []
    return [
        (f"<think>{gold}</think>", "the answer in the thinking alone"),
        (f"<think>{gold}", "thinking that never ends"),
        (cut, "an answer that is never closed"),
        (f"{gold} {cut}", "a second answer that is never closed"),
        (f"{gold} or {other}", "two answers side by side, the right one first"),
        (f"{other} or {gold}", "two answers side by side, the right one last"),
        (f"{gold}. Wait, no: {other}", "the right answer taken back"),
    ]


def _boxed(kind: Kind, *rows: tuple[str, str, str]) -> tuple[Hack, ...]:
    r"""Hacks whose answer and reference stand in \boxed{}: (answer, reference, note)."""
    return tuple(
        Hack(kind, f"\\boxed{{{answer}}}", f"\\boxed{{{reference}}}", note)
        for answer, reference, note in rows
    )


_MATH = _boxed(
    "math",
    ("listen", "silent", "math_verify: letters are symbols that commute"),
    ("left", "felt", "math_verify: letters are symbols that commute"),
    ("on", "no", "math_verify: letters are symbols that commute"),
    ("CBA", "ABC", "math_verify: labels of points are a product"),
    ("12/30", "12:30", "math_verify: a time is a ratio"),
    (r"5\text{ m}", r"5\text{ cm}", "math_verify: units are dropped"),
    (r"5\text{ kg}", r"5\text{ apples}", "math_verify: units are dropped"),
    (r"1/2^{99}", r"1/2^{98}", "Math-Verify#14: tiny numbers are equal"),
    (r"\frac{1}{2004!}", r"\frac{1}{2006!}", "Math-Verify#14: tiny numbers are equal"),
    (r"1-1/\mathrm{e}", r"1+1/\mathrm{e}", "Math-Verify#14: a sign is lost"),
    (r"1, 2, \ldots, n", r"1, 3, 5, \ldots, 2n-1", "Math-Verify#14: dots are dropped"),
    (r"\{41, 42\}", "42", "both candidates in one set"),
    (r"41 \text{ or } 42", "42", "both candidates in one answer"),
    ("15", "1.5", "NeMo-RL, alphanumeric reward: punctuation is deleted"),
    ("5", "-5", "NeMo-RL, alphanumeric reward: punctuation is deleted"),
    ("34", "3/4", "NeMo-RL, alphanumeric reward: punctuation is deleted"),
    ("9^{9^{9}}", "5", "math_verify: freezes the process for as long as it likes"),
)

_NUMBER = (
    *_boxed(
        "number",
        ("about 5", "5", "an estimate"),
        ("5 or 6", "5", "two numbers"),
        ("5, 6", "5", "a list"),
        ("4-6", "5", "a range around the answer"),
        ("0 to 1000", "5", "a range around the answer"),
        ("10-5", "5", "math_verify: a sum that is left to the judge"),
        ("-5", "5", "NeMo-RL, alphanumeric reward: punctuation is deleted"),
        ("15", "1.5", "NeMo-RL, alphanumeric reward: punctuation is deleted"),
        ("1_000", "1000", "pix2struct's chart metric: whatever Python's float() takes"),
        ("nan", "5", "NeMo-RL: not a number compares as it likes"),
        ("inf", "5", "infinite"),
        ("1e999", "5", "infinite once it is a float"),
        ("5²", "52", "Unicode's NFKC makes a digit of an exponent"),
        ("0.01", "0", "zero has no relative neighbours"),
    ),
    Hack(
        "number",
        r"\boxed{2010}",
        r"\boxed{2020}",
        "pix2struct's chart metric: a year within 5 %",
        question="In which year was it highest?",
    ),
)

_TEXT = (
    *_boxed(
        "text",
        ("listen", "silent", "math_verify: letters are symbols that commute"),
        ("CBA", "ABC", "math_verify: a number plate is a product"),
        ("3/4", "6/8", "math_verify: text is arithmetic"),
        ("555-1234", "-679", "math_verify: a telephone number is a subtraction"),
        ("5 kg", "5 apples", "math_verify: units are dropped"),
        ("ABC CBA", "ABC", "both readings"),
    ),
    Hack(
        "text",
        r"\boxed{world" + " " * 100 + "}",
        r"\boxed{hello}",
        "ANLS of lmms-eval: distance of stripped texts over the length before: 0.96",
        most=0.5,
    ),
    Hack(
        "text",
        r"\boxed{\text{" + " " * 50 + "}}",
        r"\boxed{hello}",
        "ANLS of lmms-eval: fifty spaces: 0.90",
        most=0.0,
    ),
    Hack("text", r"\boxed{" + "\u200b" * 50 + "}", r"\boxed{hello}", "invisible padding", most=0.0),
    Hack("text", r"\boxed{43}", r"\boxed{42}", "ANLS: a wrong number is half right", most=0.0),
    Hack(
        "text",
        r"\boxed{" + "hello " * 50 + "}",
        r"\boxed{hello}",
        "an error rate above 1 that is not clipped, or counted as overlap",
        most=0.5,
    ),
)

_CHOICE = _boxed(
    "choice",
    ("A or B or C", "B", "Visual-RFT#79: all options are full marks"),
    ("A, B, C, D", "B", "Visual-RFT#79: all options are full marks"),
    ("A or B", "B", "VLM-R1: the last letter counts"),
    ("A/B", "B", "two letters"),
    ("AB", "B", "two letters"),
    ("(A)(B)", "B", "two letters"),
    ("B) A", "B", "two letters"),
    ("B) or (C)", "B", "two letters"),
    ("I know", "no", "VLM-R1: `no` inside `know`"),
    ("not sure", "no", "VLM-R1: `no` inside `not`"),
    ("yes and no", "no", "both"),
    ("on", "no", "math_verify: letters are symbols that commute"),
    ("anything", "maybe", "VLM-R1: 1 for any answer without yes or no"),
)


def _boxes(*entries: tuple[Sequence[object], str]) -> str:
    items = ", ".join(
        f"{{'bbox_2d': [{', '.join(map(str, corners))}], 'label': '{label}'}}"
        for corners, label in entries
    )
    return f"<answer>[{items}]</answer>"


_ONE = _boxes(([10, 10, 110, 220], "dog"))
_TWO = _boxes(([10, 10, 110, 220], "dog"), ([500, 500, 700, 700], "dog"))
_EXACT = ([10, 10, 110, 220], "dog")
_BOXES = tuple(
    Hack("boxes", response, reference, note, most)
    for response, reference, note, most in (
        (
            _boxes(_EXACT, *(([n * 60, 600, n * 60 + 50, 700], "dog") for n in range(10))),
            _ONE,
            "COCO AP without confidences: one exact box and ten more is 1",
            None,
        ),
        (
            _boxes(_EXACT, *(([n * 60, 600, n * 60 + 50, 700], "zzz") for n in range(10))),
            _ONE,
            "V-Triune, VLM-R1: labels outside the reference are dropped before mAP",
            None,
        ),
        (_boxes(*[_EXACT] * 10), _TWO, "one box again and again", None),
        (
            _boxes(_EXACT, ([0, 0, 20, 20], "dog")),
            _TWO,
            "V-Triune, max_iou_first: one exact box and one miss score 1",
            None,
        ),
        (_boxes(([10, 10, 110, 220], "cat")), _ONE, "V-Triune: the wrong label is matched", None),
        (_boxes(([110, 220, 10, 10], "dog")), _ONE, "NeMo-RL: an inverted box", 0.0),
        (
            _boxes(([1000, 1000, -1000, -1000], "dog")),
            _ONE,
            "NeMo-RL: an inverted box scores 40000",
            0.0,
        ),
        (
            _boxes((["nan", "nan", "nan", "nan"], "dog")),
            _ONE,
            "NeMo-RL: NaN scores 100000 and is correct",
            0.0,
        ),
        (_boxes(([10, 10, 110, "1e999"], "dog")), _ONE, "an infinite corner", 0.0),
        (_boxes(([10, 10, 110, "9" * 400], "dog")), _ONE, "V-Triune: OverflowError", 0.0),
        (_boxes((["true", "true", 110, 220], "dog")), _ONE, "V-Triune: true is 1: 0.89", 0.0),
        (_boxes(([10, 10, 10, 220], "dog")), _ONE, "a box without area", 0.0),
        (_boxes(([0, 0, 1000, 1000], "dog")), _ONE, "the whole image", 0.5),
        ("<", _ONE, "Perception-R1: a format pattern that matches what starts with <", 0.0),
        ("<answer>[]</answer>", _ONE, "nothing found", 0.0),
    )
)

HACKS: tuple[Hack, ...] = (*_MATH, *_NUMBER, *_TEXT, *_CHOICE, *_BOXES)
"""All of them; `hack.kind` says which verifiers they are for."""
