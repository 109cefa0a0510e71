"""Answers made with their truth: each kind that reasoning data has, equal and wrong, many times."""

import random
from fractions import Fraction

import pytest
from test_verifiers_cases import make

from verifiers import score

WORDS = [
    "left",
    "carbon",
    "mitosis",
    "hydrogen",
    "blue",
    "triangle",
    "isosceles",
    "Brazil",
    "false",
]
PHRASES = ["the red bar", "New York", "blue whale", "two of the three", "supply and demand"]
ANAGRAMS = [
    *(("listen", "silent"), ("left", "felt"), ("on", "no"), ("STOP", "POST"), ("A1", "1A")),
    *(("ABC", "CBA"), ("dog bites man", "man bites dog"), ("X+2", "x+2"), ("2R", "2r")),
    *((r"\Delta", r"\delta"), ("AB-12", "BA-12"), ("2024-05-31", "1988"), ("555-1234", "-679")),
]
IDENTITIES = [
    *((r"(x+1)^2", r"x^2+2x+1"), (r"\pi r^2", r"r^2\pi"), (r"\sqrt{8}", r"2\sqrt{2}")),
    *((r"\frac{1}{\sqrt{3}}", r"\frac{\sqrt{3}}{3}"), ("a^2-b^2", "(a-b)(a+b)")),
    *((r"\frac{x}{x+1}", r"\frac{1}{1+\frac{1}{x}}"), (r"\sin 2x", r"2\sin x\cos x")),
    *((r"\cos^2 x", r"1-\sin^2 x"), (r"\log_2 8", "3"), (r"\ln 8", r"3\ln 2"), ("2^{10}", "1024")),
    *((r"\sqrt[3]{27}", "3"), (r"1-\frac{1}{3}", r"\frac{2}{3}"), ("5!", "120")),
    *((r"\binom{6}{2}", "15"), (r"e^{2\ln 3}", "9"), ("x^{-1}", r"\frac{1}{x}")),
    *((r"\frac{n(n+1)}{2}", r"\frac{n^2+n}{2}"), (r"2^{n+1}", r"2\cdot 2^n"), ("-(y-x)", "x-y")),
    *((r"x^{\frac{1}{2}}", r"\sqrt{x}"), (r"\tan 45^\circ", "1"), (r"i^2", "-1"), ("2ab", "2ba")),
]
UNEQUAL = [
    *(("x-y", "y-x"), ("a+b", "ab"), ("x^2", "x^3"), ("2x", "x+2"), (r"\sqrt{x^2}", "x")),
    *((r"\sin x", r"\cos x"), (r"\frac{a}{b}", r"\frac{b}{a}"), (r"\sqrt{2}", r"\sqrt{3}")),
    *((r"\sqrt{a+b}", r"\sqrt{a}+\sqrt{b}"), ("(x+1)^2", "x^2+1"), (r"\ln(a+b)", r"\ln a+\ln b")),
    *((r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"), (r"1-\frac{1}{e}", r"1+\frac{1}{e}")),
    *((r"\pi", "3.14"), ("2x+1", "2y+1"), ("x_1", "x_2"), (r"\pi r^2", r"2\pi r")),
]
BOMBS = [
    *("9^{9^{9}}", "10^{10^{10}}", "9^{9^{9^{9}}}", "2^{1000000000}", "(10!)!", "100000!"),
    *(r"\binom{1000000}{500000}", r"\sum_{k=1}^{100000000} k", r"\prod_{k=1}^{10000000} k"),
    *(r"(x+y+z)^{999}", r"3^{3^{30}} \mod 7", r"\int_0^1 x^{99} dx", "9" * 3000, "(" * 999),
    *(r"\frac{1}{" * 200 + "2" + "}" * 200, r"\sqrt[3]{10^{9^9}}", r"\log\log 10^{10^{10}}"),
]


def fraction(value, draw):
    k = draw.randrange(2, 8)
    above, below = value.numerator * k, value.denominator * k
    forms = (rf"\frac{{{above}}}{{{below}}}", rf"\dfrac{{{above}}}{{{below}}}", f"{above}/{below}")
    return draw.choice(forms)


def equal_number(draw):
    whole = draw.randrange(-999, 10**6)
    yield (
        str(whole),
        draw.choice((f"{whole:,}", f"{whole}.0", f"{whole}.", f" {whole} ", f"x={whole}")),
    )
    yield str(whole), draw.choice((f"{whole:,}".replace(",", r"\,"), rf"\text{{{whole}}}"))
    cents = Fraction(draw.randrange(-9999, 9999), 100)
    yield f"{float(cents)}", draw.choice((f"{float(cents):.4f}", f"{float(cents)}\\text{{ cm}}"))
    part = Fraction(draw.randrange(1, 60), draw.randrange(2, 40))
    yield rf"\frac{{{part.numerator}}}{{{part.denominator}}}", fraction(part, draw)
    eighths = Fraction(draw.randrange(1, 99), 8)
    yield rf"\frac{{{eighths.numerator}}}{{{eighths.denominator}}}", str(float(eighths))
    mixed = draw.randrange(1, 9), draw.randrange(1, 9), draw.choice((9, 10, 11, 13))
    value = mixed[0] + Fraction(mixed[1], mixed[2])
    yield (
        rf"\frac{{{value.numerator}}}{{{value.denominator}}}",
        r"{}\frac{{{}}}{{{}}}".format(*mixed),
    )
    power = draw.randrange(3, 9)
    digit = draw.randrange(1, 10)
    scientific = (rf"{digit}\times 10^{{{power}}}", f"{digit}e{power}", rf"{digit}\cdot10^{power}")
    yield str(digit * 10**power), draw.choice(scientific)
    yield str(whole), draw.choice((rf"\${whole}", rf"{whole}\text{{ dollars}}", f"{whole} apples"))
    percent = draw.randrange(1, 100)
    yield f"{percent / 100}", rf"{percent}\%"
    yield rf"{percent}\%", draw.choice((f"{percent}", f"{percent / 100}", f"{percent} percent"))


def wrong_number(draw):
    whole = draw.randrange(10, 10**5)
    yield str(whole), str(whole + draw.choice((-1, 1, 10, -10)))
    yield (
        str(whole),
        draw.choice((f"-{whole}", f"{whole}0", f"{whole}!", f"{whole}^2", f"2{whole}")),
    )
    yield f"{whole}.25", draw.choice((f"{whole}.26", f"{whole}", f"{whole}.52"))
    yield rf"\frac{{{whole}}}{{7}}", rf"\frac{{{whole + 7}}}{{7}}"
    yield str(whole), rf"{whole} \text{{ or }} {whole + 3}"
    yield str(whole), f"{whole}, {whole + 3}"
    yield str(whole), rf"\pm {whole}"
    yield str(whole), f"{whole - 3}+3"
    yield f"{whole}\\text{{ cm}}", f"{whole}\\text{{ m}}"
    yield "50", r"50\%"


def structures(draw):
    """(reference, answer, truth) of sets, intervals, pairs, equations and matrices."""
    a, b, c = sorted(draw.sample(range(-20, 20), 3))
    shuffled = draw.sample((a, b, c), 3)
    braces = r"\{" + f"{a}, {b}, {c}" + r"\}"
    yield braces, r"\left\{" + ",".join(map(str, shuffled)) + r"\right\}", 1
    yield braces, ",".join(map(str, shuffled)), 1
    yield braces, r"\{" + f"{a},{b},{c + 1}" + r"\}", 0
    yield braces, r"\{" + f"{a},{b}" + r"\}", 0
    yield braces, f"({a},{b},{c})", 0
    yield rf"\left({a},{b}\right)", f"({a}, {b})", 1
    yield f"({a},{b})", f"({b},{a})", 0
    yield f"({a},{b})", f"[{a},{b}]", 0
    yield f"[{a},{b})", rf"\left[ {a} , {b} \right)", 1
    yield f"[{a},{b})", f"[{a},{b}]", 0
    yield f"[{a},{b})", rf"{a} \le x < {b}", 1
    yield f"[{a},{b})", rf"{a} < x < {b}", 0
    united = rf"(-\infty,{a})\cup[{b},\infty)"
    yield united, rf"[{b},\infty) \cup (-\infty,{a})", 1
    yield united, rf"x<{a} \text{{ or }} x\ge {b}", 1
    yield united, rf"(-\infty,{a}]\cup[{b},\infty)", 0
    yield f"x={a}", f"{a}", 1
    yield f"{a}", f"x = {a}", 1
    yield f"x={a}", f"x={b}", 0
    yield f"x={a}", f"y={a}", 0
    yield f"y={a}x+{abs(b)}", f"{a}x+{abs(b)}-y=0", 1
    yield f"y={a}x+{abs(b)}", f"2y={2 * a}x+{2 * abs(b)}", 1
    yield f"y={a}x+{abs(b)}", f"y={a}x+{abs(b) + 1}", 0
    yield f"x={a}, y={b}", f"({a},{b})", 1
    yield rf"x=\pm {abs(c) + 1}", rf"\{{{abs(c) + 1}, {-abs(c) - 1}\}}", 1
    rows = rf"{a} & {b} \\ {c} & 7"
    matrix = rf"\begin{{pmatrix}} {rows} \end{{pmatrix}}"
    yield matrix, rf"\begin{{bmatrix}}{rows.replace(' ', '')}\end{{bmatrix}}", 1
    yield matrix, rf"\begin{{pmatrix}} {a} & {c} \\ {b} & 7 \end{{pmatrix}}", 0
    yield rf"\begin{{pmatrix}} {a} \\ {b} \end{{pmatrix}}", f"({a},{b})", 1


def choices(draw):
    letter, other = draw.sample("ABCDE", 2)
    for form in ("{}", "({})", "{}.", r"\text{{{}}}", r"\textbf{{({})}}", "{}. Paris", "Option {}"):
        yield letter, form.format(letter), 1
        yield letter, form.format(other), 0
    yield letter, letter.lower(), 1
    yield letter, f"{letter} or {other}", 0
    yield letter, f"{letter}, {other}", 0
    yield f"{letter}. Paris", "Paris", 1
    yield f"{letter}. Paris", f"{other}. Paris", 0


def words(draw):
    first, second = draw.sample(WORDS, 2)
    for form in ("{}", r"\text{{{}}}", r"\textbf{{{}}}", "{}.", r"\text{{{}.}}"):
        yield first, form.format(first), 1
        yield first, form.format(second), 0
    yield first, first.upper(), 1
    one, two = draw.sample(PHRASES, 2)
    yield one, rf"\text{{{one.title()}}}", 1
    yield one, two, 0


def made():
    draw = random.Random(20260101)
    for _ in range(6):
        for reference, answer in equal_number(draw):
            yield "number", reference, answer, 1
        for reference, answer in wrong_number(draw):
            yield "wrong number", reference, answer, 0
        for kind, rows in (("structure", structures), ("choice", choices), ("words", words)):
            for reference, answer, truth in rows(draw):
                yield kind, reference, answer, truth
    for left, right in IDENTITIES:
        yield "identity", left, right, 1
        yield "identity", right, left, 1
    for left, right in UNEQUAL + ANAGRAMS:
        yield "no identity", left, right, 0
        yield "no identity", right, left, 0
    for bomb in BOMBS:
        for reference in ("5", r"x^2+1", r"\{1,2\}", "B", "left"):
            yield "bomb", reference, bomb, 0


CASES = list(made())
KINDS = sorted({kind for kind, *_ in CASES})
THOUGHT = "So the ratio follows from similar triangles. Wait, let me re-check that step. "
FORMS = [
    "{}The answer is \\boxed{{{}}}.",
    "<think>\n{}\n</think>\n<answer>\n\\boxed{{{}}}\n</answer>",
    "<think>{}</think> \\boxed{{{}}}",
]
GROUND_TRUTHS = ["\\boxed{{{}}}", "{}", "<answer>{}</answer>", "$ {} $"]


def test_there_are_cases_of_every_kind():
    assert len(CASES) > 600
    assert {
        kind: sum(1 for case in CASES if case[0] == kind) > 15 for kind in KINDS
    } == dict.fromkeys(KINDS, True)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_score_as_they_were_made(kind):
    misses = []
    for index, (_, reference, answer, truth) in enumerate(
        case for case in CASES if case[0] == kind
    ):
        truths = GROUND_TRUTHS if "$" not in reference else GROUND_TRUTHS[:1]
        sample = make("mathverify", truths[index % len(truths)].format(reference))
        verdict = score(sample, FORMS[index % len(FORMS)].format(THOUGHT, answer))
        if verdict.score != truth:
            misses.append((sample.reward.ground_truth, answer, truth, verdict.reason))
    assert misses == []


@pytest.mark.parametrize("kind", ["structure", "identity", "no identity", "words"])
def test_answer_and_reference_may_change_places(kind):
    misses = []
    for _, reference, answer, truth in (case for case in CASES if case[0] == kind):
        verdict = score(make("mathverify", f"\\boxed{{{answer}}}"), f"\\boxed{{{reference}}}")
        if verdict.score != truth:
            misses.append((reference, answer, truth, verdict.reason))
    assert misses == []
