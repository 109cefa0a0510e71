"""What holds for every answer: gold scores 1, decorations change nothing, order counts or not."""

from fractions import Fraction

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_verifiers_cases import make

from verifiers import score
from verifiers.math_compare import same_formula
from verifiers.math_node import FormulaError, Node, TooLargeError
from verifiers.math_reader import read_formula
from verifiers.math_value import has_value
from verifiers.verdict import UNSCORED

quick = settings(max_examples=80, deadline=None, derandomize=True)

numbers = st.one_of(
    st.integers(-(10**12), 10**12).map(str),
    st.decimals(-1000, 1000, places=2).map(str),
    st.tuples(st.integers(-99, 99), st.integers(1, 99)).map(
        lambda p: rf"\frac{{{p[0]}}}{{{p[1]}}}"
    ),
)
atoms = st.one_of(numbers, st.sampled_from(["x", "y", "n", r"\pi", r"\sqrt{2}", "a_1", r"\theta"]))


def grown(parts):
    two = st.tuples(parts, parts)
    return st.one_of(
        two.map(lambda p: f"{p[0]}+{p[1]}"),
        two.map(lambda p: f"({p[0]})-({p[1]})"),
        two.map(lambda p: rf"({p[0]})\cdot ({p[1]})"),
        two.map(lambda p: rf"\frac{{{p[0]}}}{{({p[1]})^2+1}}"),
        parts.map(lambda p: f"({p})^{{3}}"),
        parts.map(lambda p: rf"\sin({p})"),
        parts.map(lambda p: rf"\sqrt{{({p})^2+1}}"),
    )


formulas = st.recursive(atoms, grown, max_leaves=6)
collections = st.one_of(
    st.lists(numbers, min_size=2, max_size=6).map(lambda p: r"\{" + ",".join(p) + r"\}"),
    st.lists(formulas, min_size=2, max_size=4).map(lambda p: "(" + ",".join(p) + ")"),
    st.tuples(formulas, formulas).map("=".join),
    st.tuples(formulas, formulas).map("<".join),
)
words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=2, max_size=9)
answers = st.one_of(numbers, formulas, collections, words, st.sampled_from("ABCDE"))

DECORATIONS = [
    lambda text: f" {text}  ",
    lambda text: f"${text}$",
    lambda text: f"{text}.",
    lambda text: rf"\displaystyle {text}",
    lambda text: rf"\({text}\)",
    lambda text: text.replace("+", " + ").replace("=", " = ").replace(",", r",\, "),
    lambda text: text.replace("(", r"\left(").replace(")", r"\right)"),
    lambda text: text.replace(r"\frac", r"\dfrac"),
]


def box(text):
    return rf"\boxed{{{text}}}"


@quick
@given(answers)
def test_the_gold_answer_scores_one(gold):
    for ground_truth in (box(gold), gold, f"<answer>{gold}</answer>"):
        verdict = score(make("mathverify", ground_truth), f"So it is {box(gold + ' ')}.")
        assert verdict.score == 1.0, verdict


@quick
@given(answers, answers, st.sampled_from(DECORATIONS), st.booleans())
def test_a_decoration_never_changes_a_verdict(gold, answer, decorate, is_gold):
    answer = gold if is_gold else answer
    sample = make("mathverify", box(gold))
    plain, decorated = score(sample, box(answer)), score(sample, box(decorate(answer)))
    assert plain.score == decorated.score, (plain, decorated)
    assert not is_gold or plain.score == 1.0


@quick
@given(st.lists(numbers, min_size=2, max_size=7, unique=True), st.randoms(use_true_random=False))
def test_a_shuffled_set_is_equal_and_a_shuffled_tuple_is_not(parts, draw):
    assume(len({value(part) for part in parts}) == len(parts))
    shuffled = draw.sample(parts, len(parts))
    for left, right, is_equal in ((r"\{", r"\}", True), ("(", ")", shuffled == parts)):
        gold, answer = (left + ",".join(order) + right for order in (parts, shuffled))
        assert score(make("mathverify", box(gold)), box(answer)).score == float(is_equal)


def value(written):
    return read_formula(written).value


@quick
@given(
    answers, answers, st.sampled_from(["", " ", " or ", ", ", "\n\n", " and ", r" \text{or} ", "/"])
)
def test_a_second_box_beside_the_first_never_scores(gold, other, between):
    assume("".join(other.split()) != "".join(gold.split()))
    sample = make("mathverify", box(gold))
    for response in (box(gold) + between + box(other), box(other) + between + box(gold)):
        verdict = score(sample, response)
        assert (verdict.score, verdict.status) == (0.0, "unparseable"), (response, verdict)


@quick
@given(answers, answers)
def test_exact_forms_are_symmetric(gold, answer):
    there = score(make("mathverify", box(gold)), box(answer))
    back = score(make("mathverify", box(answer)), box(gold))
    assume(not {there.status, back.status} & (UNSCORED | {"unparseable"}))
    assume("not worked out" not in there.reason + back.reason)
    assert there.score == back.score


@quick
@given(st.fractions(-1000, 1000, max_denominator=1000), st.integers(2, 50))
def test_a_number_is_equal_in_every_way_of_writing_it(number, k):
    above, below = number.numerator, number.denominator
    written = [
        f"{above}/{below}",
        rf"\frac{{{above * k}}}{{{below * k}}}",
        rf"\frac{{{-above}}}{{{-below}}}",
        rf"\frac{{{above + below}}}{{{below}}}-1",
        rf"\frac{{{above * 100}}}{{{below}}}\%",
        rf"x=\frac{{{above}}}{{{below}}}",
    ]
    whole, rest = divmod(abs(number), 1)
    if whole and rest:
        sign = "-" if number < 0 else ""
        written.append(rf"{sign}{whole}\frac{{{rest.numerator}}}{{{rest.denominator}}}")
    for answer in written:
        verdict = score(make("mathverify", box(f"{above}/{below}")), box(answer))
        assert verdict.score == 1.0, verdict
    near = number + Fraction(1, 997)
    wrong = rf"\frac{{{near.numerator}}}{{{near.denominator}}}"
    assert score(make("mathverify", box(f"{above}/{below}")), box(wrong)).score == 0.0


@quick
@given(formulas, formulas)
def test_formulas_obey_the_laws_of_algebra(a, b):
    def same(left, right):
        left, right = read_formula(left), read_formula(right)
        assert isinstance(left, Node), left
        assert isinstance(right, Node), right
        return same_formula(left, right)

    try:
        assert same(f"({a})+({b})", f"({b})+({a})")
        assert same(f"({a}-({b}))({a}+{b})", f"({a})^2-({b})^2")
        assert same(rf"-({a}-({b}))", f"{b}-({a})")
        assert not same(f"{a}", f"({a})^2+1")  # x^2 - x + 1 has no real root
    except TooLargeError:
        assume(False)  # the sine of a number of sixty digits


PIECES = [
    *("\\boxed{", "}", "{", "<answer>", "</answer>", "</think>", " or ", " ", "7", "-", "\\frac"),
    *("^{", "!", "[", "]", "(", ")", ",", "1e999", "A", "```", "\n", "$", "\\%", "\\\\", "\x00"),
    *("９", "½", "𝟕", "İ", "\\text{", "\\sqrt[3]{", "\\sin", "\\log_", "\\pi", "\\infty", "\\pm"),
    *("\\cup", "\\{", "\\}", "|", "\\left(", "\\right.", "\\begin{pmatrix}", "\\end{pmatrix}", "&"),
    *("\\begin{cases}", "\\end{cases}", "\\setminus", "\\langle", "\\rangle", "f(2)", "\\vec{a}"),
    *("\\in", "\\le", "<", "=", "\\mathbb{R}", "°", "x", "e", "abc", "sin", ";", ":", "/", "0.5"),
    *("_", "'", '"', "\\overline{3}", "9^9", "...", "\\", "\\frac{1}{2}", "{,}", "²", "\ud800"),
]
texts = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
REFERENCES = ["7", r"x^2+1", r"\{1,2\}", r"\sqrt{2}", "(1,2]", "x<3", "B", "left", r"5\text{ cm}"]


@settings(quick, max_examples=200)
@given(texts, st.sampled_from(REFERENCES))
def test_any_string_gets_a_verdict_and_never_blames_the_row(text, reference):
    sample = make("mathverify", box(reference))
    for response in (box(text), f"<answer>{text}</answer>", text):
        verdict = score(sample, response)
        assert verdict.status in ("ok", "no_answer", "unparseable"), verdict
        assert verdict.score in (0.0, 1.0)
        assert verdict.score == 1.0 or verdict.reason


@settings(quick, max_examples=200)
@given(texts)
def test_any_string_is_a_reference_that_scores_itself_or_says_what_is_wrong(text):
    verdict = score(make("mathverify", box(text)), box(text))
    assert (
        verdict.score == 1.0 or verdict.status == "bad_reference" or verdict.status == "no_answer"
    )


@settings(quick, max_examples=200)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_the_reader_gives_a_tree_or_a_reason(text):
    found = read_formula(text)
    if not isinstance(found, Node):
        assert found.reason
        return
    if has_value(found):
        try:
            assert same_formula(found, found)
        except FormulaError as error:
            assert str(error)
