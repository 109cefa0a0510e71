"""Rules of curation, one by one: a row that is kept, one that is dropped, one it is not about."""

from dataclasses import replace

import pytest
from test_data_specs_parquet import png, sample

from data_specs import ImageRef, Message, RewardSpec
from tasks.curate_balance import balance_single_multi, cap_groups, count_of, counted_category
from tasks.curate_boxes import single_or_multi
from tasks.curate_choice import read_options
from tasks.curate_known import read_known
from tasks.curate_rule import Candidate, Drop, Known, RowRule, Seen, SetRule, concerns
from tasks.curate_rules import RULES, chosen_rules
from tasks.curate_text import query_tokens

ANIMALS = "<image> Which animal is it?\nA. cat\nB. dog\nC. horse"


def row(answer="7", question="<image> How many dogs?", task="math", verifier="number", **changes):
    reward = RewardSpec(
        verifier=verifier,
        answer=answer,
        ground_truth=f"\\boxed{{{answer}}}",
        params=changes.pop("params", {}),
    )
    fields = {"task": task, "reward": reward, "messages": (Message(role="user", content=question),)}
    return sample(changes.pop("number", 0), **(fields | {"extra": {}} | changes))


def box_row(*boxes, task="detection", **changes):
    """A row with the boxes (label, x1, y1, x2, y2)."""
    items = ", ".join(f"{{'bbox_2d': {[*box[1:]]}, 'label': {box[0]!r}}}" for box in boxes)
    reward = RewardSpec(
        verifier="detection", answer=f"[{items}]", ground_truth=f"<answer>[{items}]</answer>"
    )
    return replace(row(task=task, **changes), reward=reward)


def judged(name, item, seen=None, **params):
    rule = RULES[name]
    assert isinstance(rule, RowRule)
    return rule.judge(item, {**rule.params, **params}, seen or Seen())


MANY = [("dog", 10 * i, 0, 10 * i + 10, 10) for i in range(11)]
EVALUATED = (
    "If the tall red tower casts a shadow of nine metres at noon what is its height in metres?"
)

CASES = {
    # name: (kept, dropped, what the reason says, not concerned)
    "choice": (
        row("dog", "<image> Which animal is it?", verifier="text"),
        row("B", ANIMALS, verifier="choice"),
        "a choice question; the answer is 'B'",
        row("B", ANIMALS, verifier="choice", task="ocr"),
    ),
    "true_false": (row("truth"), row("True."), "'true'", row("true", task="counting")),
    "answer_symbols": (
        row(r"\frac{1}{2}"),
        row("x=3"),
        "the answer 'x=3' has '='",
        row("x=3", task="ocr"),
    ),
    "answer_length": (
        row("a" * 20),
        row("a" * 21),
        "21 characters; most 20",
        row("a" * 21, task="ocr"),
    ),
    "query_length": (
        row(question="<image>" + "a" * 16_000),  # 7 + 16000 characters and 48 pixels: 4002 tokens
        row(question="<image>" + "a" * 16_400),
        "about 4102 tokens with images; most 4096",
        row(question="<image>" + "a" * 16_400, task="detection"),
    ),
    "relative_boxes": (
        box_row(("dog", 10, 20, 30, 40)),
        box_row(
            ("dog", 1, 2, 3, 4), images=(), extra={"coordinate_space": "pixel"}, task="grounding"
        ),
        "size is not known",
        box_row(("dog", 1, 2, 3, 4), task="ocr", extra={"coordinate_space": "pixel"}),
    ),
    "boxes_per_category": (
        box_row(*MANY[:10], ("cat", 0, 0, 9, 9)),
        box_row(*MANY),
        "11 boxes of 'dog'; most 10",
        box_row(*MANY, task="grounding"),
    ),
    "box_share": (
        box_row(("dog", 0, 0, 1000, 500)),
        box_row(("cat", 0, 0, 9, 9), ("dog", 0, 0, 1000, 510)),
        "a box covers 51% of the picture; most 50%",
        box_row(("dog", 0, 0, 1000, 510), task="counting"),
    ),
    "label_phrase": (
        box_row(("a person in a red coat", 0, 0, 9, 9), task="grounding"),
        box_row(("a dog that is led by a rope", 0, 0, 9, 9), task="grounding"),
        "is a phrase with 'that'",
        box_row(("a dog that is led by a rope", 0, 0, 9, 9)),
    ),
    "english": (
        row(question="<image> How many cafés are on the picture?", task="counting"),
        row(question="<image> Wie viele Hunde siehst du hier?", task="counting"),
        "no English function word",
        row(question="<image> Wie viele Hunde siehst du hier?", task="math"),
    ),
    "verifiable": (
        row("stop", verifier="text", task="ocr"),
        row("", verifier="text", task="ocr"),
        "is empty",
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_rule_keeps_drops_and_lets_pass(name):
    kept, dropped, reason, other = CASES[name]
    rule = RULES[name]
    assert concerns(rule, kept) and concerns(rule, dropped)
    assert judged(name, kept) is kept
    found = judged(name, dropped)
    assert isinstance(found, Drop) and reason in found.reason
    assert other is None or not concerns(rule, other)


def test_every_rule_has_a_test():
    stateful = {"duplicates", "known_words", "known_image"}
    sets = {name for name, rule in RULES.items() if isinstance(rule, SetRule)}
    assert set(CASES) | stateful | sets == set(RULES)
    assert sets == {"single_multi", "category_cap", "count_balance", "count_category"}


def test_the_same_question_of_the_same_image_is_dropped_and_other_images_are_kept():
    seen = Seen()
    first, again = row(number=1, where="a row 1"), row(number=2, where="a row 2")
    other = row(number=3, where="a row 3", images=(ImageRef(data=png(3)),))
    contradiction = row("8", number=4, where="a row 4")
    assert judged("duplicates", first, seen) is first
    assert judged("duplicates", again, seen) == Drop("a row 1 asks the same")
    assert judged("duplicates", other, seen) is other
    assert judged("duplicates", contradiction, seen) == Drop(
        "a row 1 asks the same and has another reference"
    )


def known_of(tmp_path, *lines, n=13, common_max=10):
    path = tmp_path / "questions.txt"
    path.write_text("\n".join(lines))
    return Seen(read_known([path], n=n, common_max=common_max))


def test_thirteen_words_in_a_row_are_known_and_twelve_are_not(tmp_path):
    seen = known_of(tmp_path, EVALUATED)
    words = EVALUATED.split()
    short = row(question=f"<image> {' '.join(words[:12])} today")
    long = row(question=f"<image> So: {' '.join(words[:13]).upper()}!")
    assert judged("known_words", short, seen) is short
    found = judged("known_words", long, seen)
    assert isinstance(found, Drop) and "if the tall red tower" in found.reason


def test_wording_of_many_evaluation_questions_is_no_content(tmp_path):
    wording = "think step by step and output the final answer in answer and answer tags"
    lines = [f"{name}: {wording}" for name in "abcdefghijk"]
    item = row(question=f"<image> {wording}")
    assert isinstance(judged("known_words", item, known_of(tmp_path, *lines[:10])), Drop)
    assert judged("known_words", item, known_of(tmp_path, *lines)) is item


def test_a_short_question_is_known_only_if_it_has_no_image(tmp_path):
    seen = known_of(tmp_path, "What is 2 + 2?")
    assert isinstance(judged("known_words", row(question="what is 2 + 2", images=()), seen), Drop)
    pictured = row(question="<image> what is 2 + 2")
    assert judged("known_words", pictured, seen) is pictured


def test_an_image_of_an_evaluation_is_dropped():
    seen = Seen(Known(frozenset(), frozenset(), frozenset({ImageRef(data=png(5)).sha256()})))
    clean = row()
    assert judged("known_image", clean, seen) is clean
    dirty = row(images=(ImageRef(data=png(1)), ImageRef(data=png(5))))
    assert isinstance(judged("known_image", dirty, seen), Drop)


@pytest.mark.parametrize(
    ("line", "said"), [('{"other": "x"}', "line 1"), ("no json", "'no json'"), ("[1]", "[1]")]
)
def test_a_line_without_a_question_is_refused(tmp_path, line, said):
    path = tmp_path / "q.jsonl"
    path.write_text(line)
    with pytest.raises(ValueError, match=r"allowed: an object") as error:
        read_known([path], n=13, common_max=10)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("question", "texts"),
    [
        (ANIMALS, {"A": "cat", "B": "dog", "C": "horse"}),
        ("Pick one: (A) 3 cm, (B) 4 cm", {"A": "3 cm", "B": "4 cm"}),
        ("Choices:\nA: yes it is\nB: no", {"A": "yes it is", "B": "no"}),
        ("Sum? A.3 B.4 C、5", {"A": "3", "B": "4", "C": "5"}),
        ("Is A. the only one?", None),
        ("What does HAL. say to BAL. here", None),
        ("", None),
    ],
)
def test_options_are_read_from_a_question(question, texts):
    found = read_options(question)
    assert (found and found.texts) == texts


REWRITTEN = [
    # question, answer, open question, open answer, verifier
    (ANIMALS, "B", "<image> Which animal is it?", "dog", "text"),
    (
        "<image> What is true here?\nA. all have a tail\nB. no",
        "A",
        "<image> What is true here?",
        "all have a tail",
        "text",
    ),
    (ANIMALS, "horse", "<image> Which animal is it?", "horse", "text"),
    (
        "<image>Find x. Answer with the option's letter.\nChoices:\n(A) 3\n(B) 4.5",
        "(B)",
        "<image>Find x.",
        "4.5",
        "number",
    ),
    (
        "<image>Find x.\nA. $\\frac{1}{2}$\nB. 2x",
        "A",
        "<image>Find x.",
        "$\\frac{1}{2}$",
        "mathverify",
    ),
]


@pytest.mark.parametrize(("question", "answer", "asked", "opened", "verifier"), REWRITTEN)
def test_a_choice_is_asked_openly(question, answer, asked, opened, verifier):
    found = judged("choice", row(answer, question, verifier="choice"), rewrite=1)
    assert not isinstance(found, Drop)
    assert found.messages == (Message(role="user", content=asked),)
    assert (found.reward.answer, found.reward.verifier) == (opened, verifier)
    assert judged("verifiable", found) is found
    assert judged("choice", found, rewrite=1) is found  # a second time changes nothing


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("<image> Which of the following is it?\nA. cat\nB. dog", "A", "no sense without"),
        ("<image> What is it?\nA. cat\nB. none of the above", "B", "no answer by itself"),
        ("<image> What is it?\nA. cat\nB. dog\nC. both A and B", "C", "no answer by itself"),
        ("<image> What is it?\nA. <image>\nB. <image>", "B", "an option is a picture"),
        ("<image> What is it?", "B", "options cannot be read"),
    ],
)
def test_a_choice_that_cannot_be_asked_openly_is_dropped(question, answer, reason):
    found = judged("choice", row(answer, question, verifier="choice"), rewrite=1)
    assert isinstance(found, Drop) and reason in found.reason


def test_boxes_in_pixels_become_per_mille():
    # the picture is 8 x 6 pixels: 2 / 8 = 250, 3 / 6 = 500 per mille
    item = box_row(("dog's", 2, 0, 4, 3), extra={"coordinate_space": "pixel"})
    found = judged("relative_boxes", item)
    assert found.reward.answer == "[{'bbox_2d': [250, 0, 500, 500], 'label': \"dog's\"}]"
    assert found.reward.ground_truth == f"<answer>{found.reward.answer}</answer>"
    assert found.extra["coordinate_space"] == "per_mille"
    assert judged("verifiable", found) is found
    assert judged("relative_boxes", found) is found


def test_boxes_as_shares_and_resized_pixels_become_per_mille():
    unit = box_row(("a", 0.1, 0.2, 0.3, 0.4), extra={"coordinate_space": "unit"})
    assert "[100, 200, 300, 400]" in judged("relative_boxes", unit).reward.answer
    extra = {"coordinate_space": "resized", "resized_width": 200, "resized_height": 400}
    resized = box_row(("a", 20, 40, 100, 80), extra=extra)
    assert "[100, 100, 500, 200]" in judged("relative_boxes", resized).reward.answer


def test_a_picture_costs_its_pixels_up_to_a_limit():
    params = {"chars_per_token": 4, "pixels_per_token": 12, "image_tokens_max": 3}
    assert query_tokens(row(question="<image>!"), params) == 2 + 3  # 48 pixels are 4 tokens, cut
    assert query_tokens(row(question="狗狗", images=()), params) == 2


def candidates(**sizes):
    groups = [group for group, num in sizes.items() for _ in range(num)]
    return [
        Candidate(number, "s", (group,), bytes([97 * number % 251]))
        for number, group in enumerate(groups)
    ]


@pytest.mark.parametrize(
    ("single", "multi", "kept"),
    [(3, 6, (3, 6)), (5, 4, (2, 4)), (2, 9, (2, 4)), (4, 0, (4, 0)), (0, 3, (0, 3))],
)
def test_one_single_box_row_to_two_of_several_boxes(single, multi, kept):
    rows = candidates(single=single, multi=multi)
    left_out = balance_single_multi(rows, {"multi_per_single": 2})
    stay = [item.groups[0] for item in rows if item.number not in left_out]
    assert (stay.count("single"), stay.count("multi")) == kept


def test_a_row_is_single_if_no_category_has_two_boxes():
    one, two = ("dog", 0, 0, 9, 9), ("dog", 5, 5, 9, 9)
    assert single_or_multi(box_row(one, ("cat", 0, 0, 9, 9))) == ("single",)
    assert single_or_multi(box_row(one, two)) == ("multi",)


def test_a_group_is_capped_at_a_multiple_of_the_median():
    rows = candidates(dog=30, cat=4, owl=2)  # median 4
    left_out = cap_groups(rows, {"times_median": 3, "least": 5})
    assert len(left_out) == 30 - 12 and all(number < 30 for number in left_out)
    assert cap_groups(rows, {"times_median": 3, "least": 30}) == {}


def test_a_row_with_a_rare_category_stays_though_its_other_one_is_full():
    rows = [Candidate(n, "s", ("dog",), bytes([n])) for n in range(5)]
    rows.append(Candidate(5, "s", ("dog", "owl"), b"\xff"))
    left_out = cap_groups(rows, {"times_median": 0, "least": 2})
    assert sorted(left_out) == [2, 3, 4]


@pytest.mark.parametrize(
    ("question", "category"),
    [
        ("How many small red cubes are there?", ("small red cubes",)),
        ("count every dog.", ("dog",)),
        ("What do you see?", ()),
    ],
)
def test_what_is_counted_is_read_from_the_question(question, category):
    assert counted_category(row("2.0", question)) == category
    assert count_of(row("2.0", question)) == ("2",)


def test_rules_are_chosen_and_set_by_name():
    names = list(chosen_rules(["english", "choice"], ["english"]))
    assert names == ["choice"]
    assert chosen_rules(settings=["answer_length.max_chars=30"])["answer_length"] == {
        "max_chars": 30
    }
    assert list(chosen_rules()) == list(RULES)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"only": ["chioce"]}, "did you mean 'choice'"),
        ({"skip": ["nothing"]}, "--skip 'nothing' is no rule"),
        ({"settings": ["choice"]}, "NAME.PARAM=VALUE"),
        ({"settings": ["choice.rewirte=1"]}, "its numbers: rewrite"),
        ({"settings": ["answer_length.max_chars=x"]}, "'x'; allowed: a number of at least 0"),
        ({"settings": ["query_length.pixels_per_token=0"]}, "above 0"),
        ({"skip": ["choice"], "settings": ["choice.rewrite=1"]}, "does not run"),
    ],
)
def test_a_wrong_choice_of_rules_is_refused(arguments, said):
    with pytest.raises(ValueError) as error:
        chosen_rules(**arguments)
    assert said in str(error.value)
