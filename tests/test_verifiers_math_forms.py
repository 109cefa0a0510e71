"""How answers may be written: for each reference, answers that are right and ones that are not."""

import subprocess
import sys

import pytest
from test_verifiers_cases import make

from verifiers import score

FORMS = {
    "numbers": [
        ("5", ("5.", "5.0", "+5", "05", r"\text{5}", r"\mathbf{5}", "five", r"\{5\}", "((5))")),
        ("five", ("5", "Five.")),
        ("-5", ("−5", "–5", "- 5", r"-5\,")),
        ("1234", ("1,234", r"1\,234", "1{,}234", "1 234", "1234.00")),
        ("1.5", ("1{,}5", r"\frac{3}{2}", r"1\frac12", "1 1/2", "1½", "3/2")),
        ("-2.5", (r"-2\frac{1}{2}", r"-\frac52", r"\frac{-5}{2}", r"\frac{5}{-2}")),
        ("2500", ("2.5e3", "2.5E3", r"2.5\times 10^3", "2.5 × 10³", r"2.5\cdot10^{3}")),
        ("0.0025", (r"2.5\times10^{-3}", "2.5e-3", r"\frac{1}{400}")),
        (r"\frac13", ("0.333333", "0.33333333", r"0.\overline{3}", r"0.\dot{3}")),
        (r"\frac16", (r"0.1\overline{6}", "0.166667")),
        (r"\pi", ("3.141593", "3.14159265", "π")),
        (r"\sqrt{8}", ("2.828427", r"2\sqrt2", "2√2", r"8^{1/2}", r"8^{0.5}")),
        ("9" * 600, ("9" * 600 + ".0",)),
    ],
    "no such number": [
        ("5", (), ("6", "-5", "5!", "5^2", "55", "5 million", "5x", "about 5", "5 or more", "5i")),
        ("5", (), ("5 or 6", "5, 6", r"\{5,6\}", "5/6", "5 6", "5 maybe 6", "5 not 6", "5-6")),
        ("1234", (), ("12,34", "1.234")),
        (r"\frac13", (), ("0.333", "0.33", "0.333334")),
        (r"\pi", (), ("3.14", "22/7", "3.1415")),
        (r"\frac{1}{2^{99}}", ("2^{-99}",), (r"\frac{1}{2^{98}}", "0")),
        ("10^{100}", ("1e100",), ("10^{99}",)),
        ("9" * 600, (), ("9" * 599 + "8", "9" * 601)),
    ],
    "not worked out": [
        ("5", (), ("10-5", "10 - 5", r"2\cdot 2+1", "2+3", r"\sum_{k=5}^{5} k")),
        ("12", (), (r"3\times 4", "3*4", "13-1")),
        (r"\frac23", (r"1-\frac13", r"\frac46", r"2\cdot\frac13")),
        ("3", (r"\sqrt[3]{27}", r"\sqrt9", r"\log_2 8", r"\log_{2}(8)", "6/2", r"\frac{6}{2}")),
        ("120", ("5!", r"\binom{120}{1}", "2^3\\cdot 15")),
        ("3+4", ("7", "4+3")),
    ],
    "units": [
        ("5", ("5 cm", r"5\text{ cm}", r"5\,\mathrm{cm}^2", "5 apples", r"5\text{ m}", "5km")),
        (r"5\text{ cm}", ("5", "5 centimeters", "5cm", "x=5 cm"), ("5 m", r"5\text{ kg}", "6 cm")),
        (r"5\text{ cm}^2", ("5 cm^2", "5 square centimeters", "5 sq cm"), ("5 cm", "5 cm^3")),
        ("5 m/s", ("5 meters per second", r"5\ \mathrm{m}/\mathrm{s}"), ("5 km/h", "5 m")),
        (
            r"25^\circ\text{C}",
            ("25", "25°C", r"25^{\circ} C", r"25\,^\circ\mathrm{C}"),
            ("25°F", "26°C"),
        ),
        (r"\$10 per hour", ("10", "10 dollars per hour"), (r"\$10 per day", r"\$11 per hour")),
        ("5 kg", (), ("5 apples", "5 g")),
        (r"12\pi", (r"12\pi\text{ cm}^2", "12π cm", r"12\pi \text{ square inches}"), (r"12\pi r",)),
        (r"5\sqrt{2}\text{ cm}", (r"5\sqrt2", r"5\sqrt{2} cm"), (r"5\sqrt2\text{ m}",)),
        ("5000000", ("5 million", r"5\text{ million}", r"\$5 million")),
        ("2ab", ("2ba", r"2a\cdot b", "2 a b"), ("2", "2b")),
    ],
    "money and percent": [
        (r"\$5", ("5", "$5", "5 dollars", r"\$5.00", "$5$"), ("€5", "5 cents", r"\$6")),
        ("1234.5", (r"\$1,234.50",)),
        (r"50\%", ("0.5", "50", r"\frac12", "50 percent", "50 %"), ("0.05", "5", r"5\%")),
        ("0.5", (r"50\%", "50%"), ("50", r"0.5\%")),
        ("50", (), (r"50\%", "0.5")),
    ],
    "angles": [
        (r"30^\circ", ("30", "30 degrees", "30°", r"30^{\circ}", r"\frac{\pi}{6}"), ("31°", "60")),
        (r"\frac{\pi}{6}", (r"30^\circ",), (r"60^\circ", "30")),
        (r"\frac12", (r"\sin 30^\circ", r"\cos(60^\circ)", r"\sin\frac{\pi}{6}"), (r"\sin 30",)),
        ("30", (r"\angle ABC = 30^\circ", r"m\angle A = 30^{\circ}")),
    ],
    "formulas": [
        ("(x+1)^2", ("x^2+2x+1", "1+2x+x²", "(1+x)(x+1)", "{x}^{2}+2x+1"), ("x^2+1", "(X+1)^2")),
        ("x-y", ("-(y-x)", "-y+x"), ("y-x", "x+y", "x-Y")),
        (r"\frac{x}{x+1}", (r"\frac{1}{1+\frac{1}{x}}", "x/(x+1)", r"1-\frac{1}{x+1}")),
        (r"\frac{x}{2}", ("1/2x", r"x\frac{1}{2}", "0.5x", "x/2", r"\frac12x"), (r"\frac{2}{x}",)),
        (r"\sin 2x", (r"2\sin x\cos x", r"2\sin(x)\cos(x)", "sin(2x)"), (r"2\sin x", r"\sin x^2")),
        (r"\sin^2 x+\cos^2 x", ("1",), ("2", "0")),
        (r"\tan x", (r"\frac{\sin x}{\cos x}", r"\frac{1}{\cot x}"), (r"\tan^{-1} x",)),
        (r"\ln x^2", (r"2\ln x", r"2\ln|x|"), (r"(\ln x)^2",)),
        (r"\ln 2", (r"\log 2", r"\log_e 2", r"\frac{1}{\log_2 e}"), (r"\ln 3",)),
        (r"\log 100", ("2",), ("3",)),
        ("e^{x+1}", (r"e\cdot e^x", r"\exp(x+1)"), ("e^x+1",)),
        (r"2^{n+1}", (r"2\cdot 2^n", r"4\cdot 2^{n-1}"), ("2^{n}+1", "2n+1")),
        (r"(-1)^n", (r"\cos(n\pi)",), ("-1", "1")),
        (r"\sqrt{x^2}", ("|x|", r"\lvert x\rvert"), ("x",)),
        (r"\sqrt{a}\sqrt{b}", (r"\sqrt{ab}",), (r"\sqrt{a+b}",)),
        ("n!", (r"n(n-1)!", r"n\cdot(n-1)!"), ("n", "(n-1)!")),
        ("3+4i", ("4i+3", "3+4 i"), ("3-4i", "7i")),
        ("2i", (r"\sqrt{-4}", "(1+i)^2"), ("2", "-2")),
        ("x^{10}", ("x^10", r"x^{5}\cdot x^{5}"), ("x^{11}",)),
        ("x_1+x_2", ("x_2+x_1", "x_{1}+x_{2}", "x1+x2"), ("x_1+x_3", "2x")),
        ("xy", (r"x\cdot y", "x*y"), ("yx", "x+y")),
        (r"\Delta", ("Δ",), (r"\delta",)),
        ("2R", ("2 R", r"2\cdot R"), ("2r",)),
        (r"\lfloor 3.7\rfloor", ("3",), ("4",)),
        ("0", ("(x+1)^{200}-(1+x)^{200}", r"\sin^2x+\cos^2x-1"), (r"e^{-100}", "10^{-50}")),
        (r"\sum_{k=1}^{n} k", (r"\sum_{k=1}^{n}k", r"\frac{n(n+1)}{2}"), ("n",)),
    ],
    "equations": [
        (
            "5",
            ("x=5", "5=x", "f(2)=5", "a+b=5", "AB = 5", "2+3=5", r"x \approx 5"),
            ("2x=5", "4=5"),
        ),
        ("x=5", ("5", "x = 5.0", "5=x", r"x=5\text{ cm}"), ("y=5", "x=6", "x>5")),
        ("x^2+y^2=4", ("y^2+x^2=4", "4=x^2+y^2", "x^2+y^2-4=0", "2x^2+2y^2=8"), ("x^2+y^2=2",)),
        ("y=2x+1", ("2x-y+1=0", "2y=4x+2", "2x+1"), ("y=2x-1", "x=2y+1", "2x")),
        (r"y=\frac1x", ("xy=1", "yx-1=0"), ("y=x", "xy=2")),
        (r"\frac{x^2}{4}+\frac{y^2}{9}=1", ("9x^2+4y^2=36",), ("4x^2+9y^2=36",)),
        ("x=2,y=3", ("(2,3)", "y=3, x=2", r"\begin{cases}x=2\\y=3\end{cases}"), ("(3,2)", "x=2")),
    ],
    "sets, lists and pairs": [
        (
            r"\{1,2\}",
            (r"\{2,1\}", "{2,1}", "1,2", r"\{1,2,2\}", r"\left\{2, 1\right\}"),
            ("(1,2)",),
        ),
        (r"\{1,2\}", ("1 and 2", r"\lbrace 1,2\rbrace"), (r"\{1\}", r"\{1,2,3\}", "[1,2]", "3")),
        (r"\{\frac12,\sqrt{2}\}", (r"\{\sqrt2, 0.5\}",), (r"\{\sqrt3, 0.5\}",)),
        (r"\{5\}", ("5", "x=5", "{5}"), ("6", "(5,5)")),
        (r"\{\{1\},\{2\}\}", (r"\{\{2\},\{1\}\}",), (r"\{1,2\}", r"\{\{1,2\}\}")),
        ("(1,2)", ("( 1 , 2 )", "1,2", r"\langle 1,2\rangle"), ("(2,1)", "[1,2]", "(1,2]", "2,1")),
        ("2,3", ("3,2", r"2 \text{ and } 3", r"x=2\text{ or }x=3", "2; 3"), ("2", "2,3,4", "2,2")),
        ("1,2", ("x=1, 2", "x=1,x=2", "x=1 or 2"), ("x=1", "x=1, 3")),
        (r"\pm 2", ("2,-2", r"\{-2,2\}", r"x=\pm2", "±2", r"x=2 \text{ or } x=-2"), ("2", "-2")),
        (r"1\pm\sqrt{2}", (r"1+\sqrt2, 1-\sqrt2", r"1\mp\sqrt2"), (r"1+\sqrt2", r"2\pm\sqrt2")),
        (r"1,2,\ldots,n", (), (r"1,3,5,\ldots,2n-1",)),
    ],
    "intervals": [
        (
            "[1,3)",
            ("[ 1, 3 )", r"\left[1,3\right)", "[1,3[", r"1\le x<3", r"x\in[1,3)"),
            ("[1,3]",),
        ),
        ("(1,3)", ("]1,3[", "1<x<3", "3>x>1", r"x>1 \text{ and } x<3"), ("[1,3]", r"1\le x\le 3")),
        ("[1,3]", (r"\{x \mid 1\le x\le 3\}", r"\{x\in\mathbb{R} : 1\leq x\leq 3\}"), ("1,3",)),
        ("x<3", (r"(-\infty,3)", "3>x", "2x<6", "-x>-3"), (r"x\le 3", "x>3", "x<4", "y<3")),
        (
            r"(-\infty,1)\cup(2,\infty)",
            (r"(2,\infty)\cup(-\infty,1)", "(-∞,1)U(2,∞)", r"x<1 \text{ or } x>2"),
            (r"(-\infty,1]\cup(2,\infty)", r"(-\infty,1)", r"(1,2)"),
        ),
        (r"(-\infty,1)\cup(1,\infty)", (r"x\ne 1", r"\mathbb{R}\setminus\{1\}"), (r"\mathbb{R}",)),
        (r"(1,2)\cup[2,3)", ("(1,3)",), ("(1,2)", r"(1,2)\cup(2,3)")),
        (r"\mathbb{R}", (r"(-\infty,\infty)", r"(-\infty,+\infty)"), (r"[0,\infty)", "R")),
        (r"\infty", (r"+\infty", "∞", "infinity"), (r"-\infty", "5", "0")),
        (r"\emptyset", (r"\{\}", r"\varnothing"), ("0", r"\{0\}")),
    ],
    "vectors and matrices": [
        (
            r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
            (
                r"\begin{bmatrix} 1 & 2 \\[4pt] 3 & 4\\ \end{bmatrix}",
                r"\left[\begin{array}{cc} 1.0 & 2 \\ 3 & \frac{8}{2} \end{array}\right]",
                "[[1,2],[3,4]]",
            ),
            (r"\begin{pmatrix}1&3\\2&4\end{pmatrix}", "(1,2,3,4)", "[[1,2,3,4]]"),
        ),
        (
            r"\begin{pmatrix}1\\2\end{pmatrix}",
            ("(1,2)",),
            (r"\begin{pmatrix}1&2\end{pmatrix}", "(2,1)"),
        ),
        ("(1,2,3)", (r"\begin{pmatrix}1\\2\\3\end{pmatrix}", "[1,2,3]"), ("(3,2,1)", "(1,2)")),
    ],
    "options": [
        ("B", ("(B)", "B.", "B)", "b", r"\text{(B)}", r"\textbf{B}", "B. Paris", "Option B"), ()),
        (
            "B",
            ("The answer is B", r"\mathbf{(B)}"),
            ("A", "A. Boat", "B or C", "B, C", "BC", "Bob"),
        ),
        ("B. Paris", ("B", "(B)", "Paris", "b) paris"), ("A", "A. Paris", "B. London", "London")),
    ],
    "words and codes": [
        ("left", ("Left.", "LEFT", r"\text{left}", "'left'", '"left"', "**left**"), ("felt", "l")),
        ("no", ("No", "NO!"), ("on", "yes", "n")),
        ("New York", ("new york", r"\text{New York}", r"New\ York"), ("New Jersey", "NewYork")),
        ("A1", ("A_1",), ("1A", "a1", "A2")),
        ("ABC-12", (), ("CBA-12", "ABC-21", "-12ABC")),
        ("X", (r"\text{X}",), ("x", "Y")),
        ("H_2O", ("H2O", r"\text{H}_2\text{O}"), ("O2H", "H_3O")),
        ("2024-05-31", (), ("1988", "2024-31-05", "2024")),
        ("555-1234", (), ("-679", "1234-555")),
        ("-679", (), ("555-1234",)),
        ("12:30", ("12 : 30",), ("12/30", "12:30 PM", "0.4")),
        ("Coca-Cola", ("coca-cola",), ("Coca Cola", "Cola-Coca")),
    ],
}
ROWS = [
    (kind, *(row if len(row) == 3 else (*row, ()))) for kind, rows in FORMS.items() for row in rows
]


@pytest.mark.parametrize(("kind", "reference", "right", "wrong"), ROWS)
def test_an_answer_is_judged_by_what_it_says(kind, reference, right, wrong):
    sample = make("mathverify", rf"\boxed{{{reference}}}")
    found = {answer: score(sample, rf"\boxed{{{answer}}}").score for answer in (*right, *wrong)}
    assert found == dict.fromkeys(right, 1.0) | dict.fromkeys(wrong, 0.0)


@pytest.mark.parametrize(
    ("ground_truth", "reason"),
    [
        ("", "empty"),
        ("$$", "no readable text"),
        (r"\boxed{}", "empty"),
        (r"\boxed{ . }", "no readable text"),
        (r"\boxed{\text{}}", "no readable text"),
        (r"\boxed{7", "never closed"),
        ("<answer>7", "never closed"),
        (r"\frac{1}{", "cannot be read"),
        (r"\boxed{\frac{1}{0}}", "division by zero"),
        (r"\boxed{\frac{1}{x-x}}", "division by zero"),
        (r"\boxed{x+" + r"\frac{1}{2}" * 300 + "}", "too long"),
        ("7" * 70_000, "at most"),
    ],
)
def test_a_reference_that_nothing_can_equal_is_the_rows_fault(ground_truth, reason):
    for response in (r"\boxed{7}", "nothing", rf"\boxed{{{ground_truth}}}"):
        verdict = score(make("mathverify", ground_truth), response)
        assert (verdict.score, verdict.reward, verdict.status) == (None, None, "bad_reference")
        assert reason in verdict.reason


def test_two_values_too_large_to_work_out_are_the_references_fault():
    sample = make("mathverify", r"\boxed{9^{9^{9^{9}}}}")
    assert score(sample, r"\boxed{9^{9^{9^{9}}}}").score == 1.0
    assert score(sample, r"\boxed{5}").score == 0.0
    assert score(sample, r"\boxed{9^{9^{9^{10}}}}").status == "bad_reference"


@pytest.mark.parametrize(
    ("question", "answer", "value"),
    [
        (r"What is \sqrt{16}?", r"\sqrt{16}", 0.0),
        (r"What is $\frac{1}{2} + \frac{7}{2}$?", r"\frac{1}{2}+\frac{7}{2}", 0.0),
        (r"What is \sqrt{16}?", r"\sqrt[4]{256}", 1.0),
        ("Write 8/2 in lowest terms.", "8/2", 1.0),
    ],
)
def test_an_answer_that_repeats_the_question_is_not_worked_out(question, answer, value):
    sample = make("mathverify", r"\boxed{4}", question=question)
    assert score(sample, rf"\boxed{{{answer}}}").score == value


def test_what_rows_for_v_triune_carry_is_accepted_and_nothing_else():
    rows = {
        "det_verifier_normalized": True,
        "det_reward_ratio": {"map": 1.0},
        "verifier_style": "rule",
    }
    assert score(make("mathverify", r"\boxed{7}", **rows), r"\boxed{7}").score == 1.0
    from verifiers import check_spec

    assert check_spec(make("mathverify", r"\boxed{7}", **rows).reward) is None
    assert "precision" in (check_spec(make("mathverify", r"\boxed{7}", precision=3).reward) or "")


PROGRAM = """
import sys
sys.path.insert(0, "tests")
from test_verifiers_math_forms import FORMS, make, score
rows = [row for rows in FORMS.values() for row in rows if "sum_" not in row[0]]
for reference, *answers in rows:
    for answer in [text for texts in answers for text in texts]:
        score(make("mathverify", rf"\\boxed{{{reference}}}"), rf"\\boxed{{{answer}}}")
print(sum(len(texts) for _, *answers in rows for texts in answers), "sympy" in sys.modules)
"""


def test_no_ordinary_answer_needs_sympy():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    number, is_loaded = done.stdout.split()
    assert int(number) > 400
    assert is_loaded == "False"
