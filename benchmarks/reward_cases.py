"""Made answers for the reward benchmark: mathematics, bombs and boxes, equal for equal seeds."""

from __future__ import annotations

import random
from typing import NamedTuple

from data_specs import RewardSpec, Sample

BOMBS = (
    r"9^{9^{9}}",
    r"10^{10^{10}}",
    r"9^{9^{9^{9}}}",
    r"(10!)!",
    r"3^{3^{30}} \mod 7",
    r"\binom{1000000}{500000}",
    r"\sum_{i=1}^{100000000} \frac{1}{i^2}",
    r"2^{1000000000}",
    "(" * 3000 + "1" + ")" * 3000,
    r"\frac{1}{" * 200 + "2" + "}" * 200,
)
"""Answers that keep a symbolic checker busy for seconds."""

LABELS = ("dog", "cat", "person", "traffic light", "cup", "chair")
RATIOS = (
    {"iou_max_label_first": 1.0, "iou_completeness": 0.3},
    {"iou_max_iou_first": 1.0, "iou_completeness": 0.3},
    {"iou_max_label_first": 0.5, "map": 0.25, "map50": 0.25},
    {"map": 1.0},
)
NO_WEIGHTS = dict.fromkeys(
    ("iou_max_label_first", "iou_max_iou_first", "iou_completeness", "map", "map50", "map75"), 0.0
)

Corners = tuple[int, int, int, int]


class Case(NamedTuple):
    """One response with the reference it is judged by."""

    verifier: str
    """`mathverify` or `detection`."""
    response: str
    solution: str
    ratio: dict[str, float]
    """V-Triune's `det_reward_ratio`; empty for mathematics."""

    def sample(self) -> Sample:
        """The row as vl-triune has it."""
        params = {"det_verifier_normalized": False, "det_reward_ratio": self.ratio}
        spec = RewardSpec(
            verifier=self.verifier,
            answer="",
            ground_truth=self.solution,
            accuracy_ratio=0.9,
            format_ratio=0.1,
            params=params if self.ratio else {},
        )
        return Sample(
            id="", source="bench", task=self.verifier, messages=(), images=(), reward=spec
        )


def math_cases(num: int, seed: int, bomb_share: float = 0.0) -> list[Case]:
    """Four of five answers are numbers, fractions, sets, tuples, intervals, letters or words."""
    rng = random.Random(seed)
    cases: list[Case] = []
    for _ in range(num):
        gold, right, wrong = _math_answer(rng)
        answer = right if rng.random() < 0.6 else wrong
        if rng.random() < bomb_share:
            answer = rng.choice(BOMBS)
        thought = " ".join(rng.choice(_SENTENCES) for _ in range(rng.randint(1, 12)))
        response = f"<think>{thought}</think> The answer is \\boxed{{{answer}}}."
        cases.append(Case("mathverify", response, f"\\boxed{{{gold}}}", {}))
    return cases


_SENTENCES = (
    "First, read the axis labels.",
    "So the ratio follows from similar triangles.",
    "Substituting gives the next line.",
    "Let us add the two values.",
)
_WORDS = ("mitosis", "Paris", "photosynthesis", "granite", "silent", "left", "north pole")
_EXPRESSIONS = (
    (r"\frac{x+1}{2}", r"\frac{1}{2}x + \frac{1}{2}", r"\frac{x-1}{2}"),
    (r"x^2-1", r"(x-1)(x+1)", r"x^2+1"),
    (r"2\sqrt{3}", r"\sqrt{12}", r"3\sqrt{2}"),
    (r"\sin^2 x", r"1-\cos^2 x", r"\cos^2 x"),
    (r"a(b+c)", r"ab+ac", r"ab+c"),
)


def _math_answer(rng: random.Random) -> tuple[str, str, str]:
    """(reference, a right way to write it, a wrong answer)."""
    a, b, c = (rng.randint(2, 99) for _ in range(3))
    kind = rng.randrange(10)
    if kind == 0:
        return str(a * 1000 + b), f"{a},{b:03d}", str(a * 1000 + b + 1)
    if kind == 1:
        return f"{a}.{b:02d}", f"{a}.{b:02d}0", f"{a}.{b:02d}1"
    if kind in (2, 3):
        return rf"\frac{{{a}}}{{{b}}}", rf"\frac{{{a * c}}}{{{b * c}}}", rf"\frac{{{b + 1}}}{{{a}}}"
    if kind == 4:
        return rf"\{{{a}, {b + 100}\}}", rf"\{{{b + 100},{a}\}}", rf"\{{{a},{b}\}}"
    if kind == 5:
        return f"({a}, {b})", f"({a},{b})", f"({b + 100}, {a})"
    if kind == 6:
        return f"[{a}, {a + b})", rf"\left[{a},{a + b}\right)", f"({a}, {a + b}]"
    if kind == 7:
        letters = rng.sample("ABCD", 2)
        return letters[0], f"({letters[0]})", letters[1]
    if kind == 8:
        word, other = rng.sample(_WORDS, 2)
        return rf"\text{{{word}}}", word, other
    return rng.choice(_EXPRESSIONS)


def box_cases(num: int, seed: int) -> list[Case]:
    """1 to 10 references; 1 to 20 predictions, most of them near a reference."""
    rng = random.Random(seed)
    cases: list[Case] = []
    for index in range(num):
        labels = rng.sample(LABELS, rng.randint(1, 4))
        references = [(_box(rng), rng.choice(labels)) for _ in range(rng.randint(1, 10))]
        wanted = rng.randint(1, 20)
        predicted: list[tuple[Corners, str]] = []
        while len(predicted) < wanted:
            near = len(predicted) < len(references)
            box, label = references[len(predicted)] if near else rng.choice(references)
            kind = rng.random()
            if kind < 0.65:
                predicted.append((_shifted(rng, box, rng.choice((1, 3, 10, 40))), label))
            elif kind < 0.75:
                predicted.append((_shifted(rng, box, 3), rng.choice(labels)))
            else:
                predicted.append((_box(rng), rng.choice(labels)))
        rng.shuffle(predicted)
        cases.append(_box_case(predicted, references, RATIOS[index % len(RATIOS)]))
    return cases


def many_boxes(num: int, seed: int) -> Case:
    """As many predictions as references, each a little off."""
    rng = random.Random(seed)
    references = [(_box(rng), LABELS[i % len(LABELS)]) for i in range(num)]
    predicted = [(_shifted(rng, box, 10), label) for box, label in references]
    return _box_case(predicted, references, RATIOS[0])


def _box_case(
    predicted: list[tuple[Corners, str]],
    references: list[tuple[Corners, str]],
    ratio: dict[str, float],
) -> Case:
    thought = "<think>\nI look at the picture and locate each object.\n</think>\n"
    response = f"{thought}<answer>\n{_written(predicted)}\n</answer>"
    solution = f"<answer>\n{_written(references)}\n</answer>"
    return Case("detection", response, solution, NO_WEIGHTS | ratio)


def _written(boxes: list[tuple[Corners, str]]) -> str:
    return "[" + ", ".join(f"{{'bbox_2d': {list(b)}, 'label': '{n}'}}" for b, n in boxes) + "]"


def _box(rng: random.Random) -> Corners:
    width, height = rng.randint(20, 600), rng.randint(20, 600)
    x, y = rng.randint(0, 1000 - width), rng.randint(0, 1000 - height)
    return x, y, x + width, y + height


def _shifted(rng: random.Random, box: Corners, size: int) -> Corners:
    x1, y1, x2, y2 = (min(1000, max(0, v + rng.randint(-size, size))) for v in box)
    return min(x1, x2 - 1), min(y1, y2 - 1), x2, y2
