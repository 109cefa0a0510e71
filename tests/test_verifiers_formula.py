"""Bombs end without a point and without sympy, which only ever works out references."""

import subprocess
import sys

import pytest
from test_verifiers_cases import make

from verifiers import score
from verifiers.formula import refuse_formula, worked_out
from verifiers.math_node import Node
from verifiers.math_reader import read_formula

BOMBS = [
    # powers, factorials and logarithms of them
    *("9^{9^{9}}", "9**9**9", "10^{10^{10}}", "9^{9^{9^{9}}}", "2^{1000000000}", "2^{-10^{9}}"),
    *(
        "2^{999999.5}",
        r"2^{10^3\cdot 10^6}",
        r"2^{\sqrt{10^{18}}}",
        "9^" * 200 + "9",
        "x^{10^{15}}",
    ),
    *("(10!)!", "10000000!", "((5!)!)!", "1500!" * 20, "(10^9)!", "(x!)!", "7!!!!!!"),
    *(r"\log\log\log 10^{10^{10}}", r"\ln" * 20 + " x", r"\sqrt[3]{10^{99999}}", r"\sqrt[n]{9^9}"),
    *(r"e^{e^{e^{e^{9}}}}", r"\pi^{\pi^{\pi^{\pi}}}", "i^{i^{i^{i}}}", r"2^{2^{2^{2^{x}}}}"),
    *(
        "(x+1)^{999}",
        "(x+y+z)^{99999999}",
        r"(1+\sqrt{x})^{9999}",
        "((((x+1)^{99}+1)^{99}+1)^{99})^{9}",
    ),
    *(r"\tan(999)^{999}+\pi^{999}", r"\sin(10^{100})", r"\lfloor 10^{1000}\pi\rfloor"),
    # long and deep
    *("(" * 3000 + "1" + ")" * 3000, "1" * 60_000, "9" * 4301, "-" * 900 + "6", "|" * 500 + "x"),
    *(r"\frac{1}{" * 200 + "2" + "}" * 200, r"\sqrt{" * 19 + "2" + "}" * 19, "2^" * 300 + "2"),
    *(r"\frac" * 300 + "12", r"\sin" * 200 + " x", "x_{" * 100 + "1" + "}" * 100, "{" * 900),
    *(
        "+".join(rf"\sin({k}x)" for k in range(150)),
        "+".join(f"1/3^{{{k}}}" for k in range(9000, 9070)),
    ),
    *("1;" * 900 + "1", r"\pm" * 200 + "6", "+".join([r"\pm 1"] * 60), r"\text{" * 300),
    # many parts
    *(
        r"\{" + ",".join(map(str, range(3000))) + r"\}",
        "[[" * 20 + "1" + "]]" * 20,
        "1<" * 150 + "2",
    ),
    *(
        r"\{" + ",".join(rf"\sqrt{{{k}}}" for k in range(2, 60)) + r"\}",
        r"\{" * 30 + "1" + r"\}" * 30,
    ),
    *(r"(-\infty,1)" + r"\cup(1,2)" * 80, r"\mathbb{R}" + r"\setminus\{1,2,3\}" * 40),
    r"\begin{vmatrix}" + r"\\".join("&".join("abcdefghijkl") for _ in range(12)) + r"\end{vmatrix}",
    *(r"\begin{cases}\end{cases}", r"\begin{pmatrix}\end{pmatrix}", r"\{\}", "()", "[]", "{}"),
    # what would be worked out step by step
    *(r"\binom{1000000}{500000}", r"\sum_{k=1}^{100000000} k", r"\prod_{k=1}^{999} (x+k)"),
    *(r"\int x^{99}\sin(x) dx", r"3^{3^{30}} \mod 7", r"\lim_{n\to\infty} (1+1/n)^n"),
]
REFERENCES = [
    "5",
    "x^2+1",
    r"\sqrt{2}",
    r"\{1,2\}",
    "(1,2)",
    "x<3",
    "y=x^2",
    r"5\text{ cm}",
    "left",
]

PROGRAM = """
import sys
sys.modules["sympy"] = None  # importing it fails
sys.path.insert(0, "tests")
from test_verifiers_formula import BOMBS, REFERENCES, make, score
for reference in REFERENCES:
    sample = make("mathverify", rf"\\boxed{{{reference}}}")
    for bomb in BOMBS:
        verdict = score(sample, f"<answer>{bomb}</answer>")
        assert verdict.score == 0.0, verdict
print("done")
"""


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *(("2^{100}", "number"), ("2^{20000}", "power"), ("9^{9^9}", "power")),
        *(
            ("1500!", "number"),
            ("1501!", "call"),
            (r"\sqrt[3]{27}", "number"),
            (r"\sqrt{2}", "root"),
        ),
    ],
)
def test_numbers_are_worked_out_up_to_a_size(text, kind):
    found = read_formula(text)
    assert isinstance(found, Node)
    assert found.kind == kind


def test_bombs_end_without_a_point_and_without_sympy():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize(
    ("reference", "right", "wrong"),
    [
        (
            r"\sum_{k=1}^{n} k",
            (r"\frac{n(n+1)}{2}", r"\sum_{k=1}^{n}k"),
            (r"\frac{n(n-1)}{2}", "n"),
        ),
        (
            r"\sum_{k=0}^{\infty} \frac{1}{2^k}",
            ("2", "x=2"),
            ("1", r"\sum_{k=1}^{\infty} \frac{1}{2^k}"),
        ),
        (r"\prod_{k=1}^{n} k", ("n!",), ("n",)),
        (r"\int_0^{\infty} e^{-x^2} dx", (r"\frac{\sqrt{\pi}}{2}",), (r"\sqrt{\pi}",)),
        (r"\lim_{x\to 0} \frac{\sin x}{x}", ("1",), ("0",)),
        (
            r"\begin{vmatrix}1&2\\3&4\end{vmatrix}",
            ("-2",),
            ("2", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
        ),
        (r"x_{1}+\alpha\max(2,3)", (r"3\alpha+x_1",), (r"2\alpha+x_1", "3a+x_1")),
        (r"\gcd(12,18)", ("6",), ("3",)),
        (r"n \equiv 3 \pmod{7}", (r"n\equiv 3\pmod{7}",), (r"n\equiv 4\pmod{7}", "3")),
        (r"p\Rightarrow q", (r"p \Rightarrow q",), (r"q \Rightarrow p", "p")),
    ],
)
def test_a_reference_in_other_notation_is_worked_out_or_compared_as_text(reference, right, wrong):
    sample = make("mathverify", rf"\boxed{{{reference}}}")
    found = {answer: score(sample, rf"\boxed{{{answer}}}").score for answer in (*right, *wrong)}
    assert found == dict.fromkeys(right, 1.0) | dict.fromkeys(wrong, 0.0)


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda text: text[:20])
def test_no_answer_to_such_a_reference_reaches_sympy(bomb, monkeypatch):
    sample = make("mathverify", r"\boxed{\sum_{k=1}^{n} k}")
    assert score(sample, r"\boxed{n}").score == 0.0  # the reference is worked out
    monkeypatch.setattr("math_verify.parse", None)
    assert score(sample, f"<answer>{bomb}</answer>").score == 0.0


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("x" * 301, "too long"),
        (r"\max(" + "(" * 12 + "2" + ")" * 13, "too deep"),
        (r"\sum_{k=1}^{100} k", "too large a number"),
        (r"\int x^{10} dx", "too large an exponent"),
        (r"\int x^{9^{9}} dx", "too large an exponent"),
        (r"\max(n!!, 2)", "too many factorials"),
        (r"\sum_{k=1}^{9} \sum_{j=1}^{9} jk", "too heavy"),
    ],
)
def test_a_reference_that_may_take_long_is_compared_as_text(reference, reason):
    assert refuse_formula(reference).startswith(reason)
    assert worked_out(reference) is None
    sample = make("mathverify", rf"\boxed{{{reference}}}")
    assert score(sample, rf"\boxed{{{reference} }}").score == 1.0
    assert score(sample, r"\boxed{5}").score == 0.0
