import time

import pytest
from test_verifiers_cases import make

from verifiers import score
from verifiers.formula import equal_formulas, refuse_formula

BOMBS = [
    "9^{9^{9}}",
    "9**9**9",
    "10^{10^{10}}",
    "2^{1000000000}",
    "(10!)!",
    "10000000!",
    r"\binom{1000000}{500000}",
    "(" * 3000 + "1" + ")" * 3000,
    "1" * 60_000,
    r"\frac{1}{" * 200 + "2" + "}" * 200,
    r"\sum_{k=1}^{999} \frac{1}{k^{k}}",
    r"\prod_{k=1}^{999} (x+k)",
    r"\int x^{99}\sin(x) dx",
    "((((x+1)^{99}+1)^{99}+1)^{99}+1)^{99}",
    r"\frac{(x+1)^{500}}{(x-1)^{500}}",
    r"\tan(999)^{999}+\pi^{999}",
    r"3^{3^{30}} \mod 7",
]


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda text: text[:20])
def test_a_bomb_ends_quickly_without_a_point(bomb):
    for gold in (r"\boxed{5}", r"\boxed{x^2+1}"):
        started = time.process_time()
        verdict = score(make("mathverify", gold), rf"\boxed{{{bomb}}}")
        assert verdict.score == 0.0
        assert time.process_time() - started < 2.0


@pytest.mark.parametrize(
    "formula",
    [r"\frac{x^{2}+1}{\sqrt{2}}", r"x^{-12}", r"\{1,2,3\}", "2^{100}", r"\binom{10}{3}", "20!"],
)
def test_ordinary_formulas_are_not_refused(formula):
    assert refuse_formula(formula) == ""


@pytest.mark.parametrize(
    ("reference", "answer", "equal"),
    [
        (r"2\sqrt{2}", r"\sqrt{8}", True),
        (r"\frac{x}{x+1}", r"\frac{1}{1+\frac{1}{x}}", True),
        ("y^2+x^2=4", "x^2+y^2=4", True),
        (r"\pi", "3.14", False),
        (r"\sin^2 x+\cos^2 x", "1", True),
        ("7^{999}", "7^{998}", False),
        (r"\frac{", "1", False),
    ],
)
def test_formulas_are_compared_as_mathematics(reference, answer, equal):
    assert equal_formulas(reference, answer) is equal
