import pytest
from converted import convert, picture, write
from hypothesis import given, settings
from hypothesis import strategies as st

from data_specs import Message, Sample
from data_specs.convert_answers import AnswerRules, answer_reward, option_letter, with_options
from data_specs.convert_log import Fault
from data_specs.convert_options import Judging
from verifiers import score
from verifiers.answer import extract_answer
from verifiers.number import read_number

JUDGING = Judging(
    is_number=lambda text: read_number(text) is not None,
    final_answer=lambda text: extract_answer(text).text,
    gold_fault=lambda sample: "",
)


def reward(*answers, task="vqa", options=(), **rules):
    return answer_reward(
        answers, task=task, rules=AnswerRules(**rules), judging=JUDGING, options=options
    )


@pytest.fixture
def run(tmp_path):
    for number in (1, 2, 3):
        picture(tmp_path / f"{number}.png", seed=number)
    picture(tmp_path / "COCO_val2014_000000000042.jpg", seed=42)

    def go(value, *words, name="vqa.json", format_name="vqa"):
        return convert(tmp_path, format_name, write(tmp_path / name, value), *words)

    return go


@pytest.mark.parametrize(
    ("answers", "more", "verifier", "truth", "params"),
    [
        (["3"], {}, "number", r"\boxed{3}", {}),
        (["1,200"], {}, "number", r"\boxed{1,200}", {}),
        (["two"], {}, "number", r"\boxed{two}", {}),
        (["45%"], {"relative_tolerance": 0.05}, "number", None, {"relative_tolerance": 0.05}),
        (["yes"], {}, "text", r"\boxed{yes}", {"metric": "exact", "ignore_case": True}),
        (["about 3"], {}, "text", None, None),
        ([r"\sqrt{2}"], {}, "mathverify", r"\boxed{\sqrt{2}}", {}),
        (["x^2"], {}, "mathverify", None, {}),
        (["$5x$"], {}, "mathverify", None, {}),
        (["3"], {"task": "math"}, "mathverify", r"\boxed{3}", {}),
        ([r"so it is \boxed{7}."], {}, "number", r"\boxed{7}", {}),
        (["<think>a</think><answer> cat </answer>"], {}, "text", r"\boxed{cat}", None),
        (["3"], {"verifier": "text"}, "text", r"\boxed{3}", None),
        (["b", "a", "b"], {}, "text", r"\boxed{b}", None),
        (["dog"], {"options": ["cat", "dog"]}, "choice", r"\boxed{B}", {"options": ["cat", "dog"]}),
        (["(b)"], {"options": ["cat", "dog"]}, "choice", r"\boxed{B}", None),
        (["1"], {"options": ["cat", "dog"]}, "choice", r"\boxed{B}", None),
        (["1"], {"options": ["1", "2"]}, "choice", r"\boxed{A}", None),
    ],
)
def test_the_verifier_follows_from_the_answer(answers, more, verifier, truth, params):
    spec = reward(*answers, **more)
    assert spec.verifier == verifier
    assert truth is None or spec.ground_truth == truth
    assert params is None or dict(spec.params) == params
    sample = Sample(
        id="a", source="a", task="a", messages=(Message(role="user", content="q"),), images=(),
        reward=spec,
    )  # fmt: skip
    assert score(sample, spec.ground_truth).score == 1.0


def test_further_answers_are_references_of_text():
    spec = reward("gray", "grey", "gray", "Grey")
    assert (spec.answer, spec.params["references"]) == ("gray", ["grey", "Grey"])
    assert "references" not in reward("gray").params


def test_parameters_belong_to_a_named_verifier():
    spec = reward("gray", "grey", verifier="text", params={"metric": "anls"})
    assert dict(spec.params) == {"metric": "anls", "ignore_case": True, "references": ["grey"]}
    with pytest.raises(ValueError, match="name the verifier"):
        AnswerRules(params={"metric": "anls"})


@pytest.mark.parametrize("answer", ["bird", "C", "7", ""])
def test_an_answer_that_is_none_of_the_options_is_a_fault(answer):
    with pytest.raises(Fault) as caught:
        option_letter(answer, ["cat", "dog"])
    assert caught.value.kind == "answer is no option"


def test_options_stand_behind_the_question_unless_it_shows_them():
    assert with_options("which?", ["cat", "dog"]) == "which?\nA. cat\nB. dog"
    shown = "which? (A) cat (B) dog"
    assert with_options(shown, ["cat", "dog"]) == shown
    assert with_options("which?", []) == "which?"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=8), max_size=4))
def test_every_answer_gives_a_judge_or_a_fault(answer, options):
    try:
        spec = reward(answer, options=options)
    except Fault as fault:
        assert fault.kind in ("no answer", "no options", "answer is no option")
        return
    assert spec.ground_truth == f"\\boxed{{{spec.answer}}}"
    assert (
        spec.verifier == "choice" if options else spec.verifier in ("number", "text", "mathverify")
    )


def test_vqa_version_two_joins_its_two_files_and_counts_votes(run, tmp_path):
    def votes(**counts):
        names = [name for name, count in counts.items() for _ in range(count)]
        return [{"answer": name, "answer_id": n + 1} for n, name in enumerate(names)]

    questions = {
        "data_subtype": "val2014",
        "questions": [
            {"question_id": 420, "image_id": 42, "question": "What animal is it?"},
            {"question_id": 421, "image_id": 42, "question": "How many are there?"},
            {"question_id": 422, "image_id": 42, "question": "What is missing?"},
            {"question_id": 423, "image_id": 42, "question": "What is on top?"},
        ],
    }
    answers = {
        "data_subtype": "val2014",
        "annotations": [
            {
                "question_id": 420,
                "image_id": 42,
                "answer_type": "other",
                "multiple_choice_answer": "dog",
                "answers": votes(dog=5, puppy=3, cat=2),
            },
            {
                "question_id": 421,
                "image_id": 42,
                "answer_type": "number",
                "multiple_choice_answer": "2",
                "answers": votes(**{"2": 9, "3": 1}),
            },
            {"question_id": 423, "image_id": 42, "answers": votes(hat=2, cap=1, lid=1)},
        ],
    }
    done = run(questions, write(tmp_path / "annotations.json", answers))
    first, second, third = done.samples
    assert first.id == "vqa-420" and first.extra["image_id"] == "42"
    assert first.extra["question_type"] == "other"
    assert (first.reward.verifier, first.reward.answer) == ("text", "dog")
    assert first.reward.params["references"] == ["puppy"]
    assert (second.reward.verifier, second.reward.answer) == ("number", "2")
    assert (third.reward.answer, dict(third.reward.params)) == (
        "hat",
        {"metric": "exact", "ignore_case": True},
    )
    assert done.kinds() == [("no answer", "422")]
    again = run(questions, tmp_path / "annotations.json", "--min-votes", "2").samples[0]
    assert again.reward.params["references"] == ["puppy", "cat"]


def test_annotations_without_questions_are_refused(run, capsys):
    assert run({"annotations": [{"question_id": 1}], "data_subtype": "x"}).code == 2
    assert "needs VQAv2's questions file beside it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("record", "verifier", "answer"),
    [
        ({"image": "1.png", "question": "what?", "answer": "Cat"}, "text", "Cat"),
        ({"image_id": 1, "question": "what?", "answers": ["cat", "kitten"]}, "text", "cat"),
        ({"imageId": "1", "question": "how many?", "answer": 4}, "number", "4"),
        ({"image": "1.png", "query": "is it?", "label": True}, "text", "yes"),
        ({"image": ["1.png", "2.png"], "question": "same?", "answer": "no"}, "text", "no"),
        (
            {"image": "1.png", "question": "which?", "choices": ["1", "3"], "answer": 1},
            "choice",
            "B",
        ),
        (
            {
                "image_id": 1,
                "question": "which?",
                "choices": ["a", "b"],
                "correct_choice_idx": 0,
                "direct_answers": ["b"] * 10,
            },
            "choice",
            "A",
        ),
        ({"image": "1.png", "question": "what?", "answers": '["cat", "lion"]'}, "text", "cat"),
    ],
)
def test_records_of_several_data_sets_are_read(run, record, verifier, answer):
    (row,) = run([record]).samples
    assert (row.reward.verifier, row.reward.answer) == (verifier, answer)
    assert row.task == "vqa" and row.messages[0].content.startswith("<image>")
    assert len(row.images) == row.messages[0].content.count("<image>")


@pytest.mark.parametrize(
    "value",
    [
        {"data": [{"image": "1.png", "question": "what?", "answer": "cat"}]},
        {"q1": {"imageId": "1", "question": "what?", "answer": "cat"}},
    ],
)
def test_records_may_be_wrapped(run, value):
    (row,) = run(value).samples
    assert row.reward.answer == "cat"


def test_lines_are_read_and_a_bad_one_is_named(run, tmp_path):
    good = '{"image": "1.png", "question": "what?", "answer": "cat"}\n'
    for name in ("lines.jsonl", "lines.json"):
        path = tmp_path / name
        path.write_text(good + "{broken\n\n" + good.replace("1.png", "2.png"))
        done = convert(tmp_path, "vqa", path)
        assert [row.id for row in done.samples] == ["lines-0", "lines-3"]
        assert [(line["kind"], line["record"]) for line in done.listed] == [("not JSON", 1)]


def test_markers_stay_where_the_question_has_them(run):
    records = [
        {"image": ["1.png", "2.png"], "question": "is <image> like <image>?", "answer": "no"},
        {"image": ["1.png", "2.png"], "question": "is <image> red?", "answer": "no"},
    ]
    done = run(records)
    assert [row.messages[0].content for row in done.samples] == ["is <image> like <image>?"]
    assert done.kinds() == [("markers do not match images", "")]


def test_rows_that_say_the_same_twice_are_told_apart_from_contradictions(run):
    record = {"image": "1.png", "question": "what?", "answer": "cat"}
    done = run([record, record, record | {"answer": "dog"}, record | {"image": "2.png"}])
    assert [row.id for row in done.samples] == ["vqa-0", "vqa-3"]
    assert [kind for kind, _ in done.kinds()] == ["contradiction"]
    assert [kind for kind, _ in done.kinds(by_rule=True)] == ["repeated row"]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"question": ""}, "no question"),
        ({"question": "<image>"}, "no question"),
        ({"answer": " "}, "no answer"),
        ({"answer": "{"}, "reference cannot be judged"),
        ({"image": "https://example.org/1.png"}, "image is a web address"),
        ({"image": "data:image/png;base64,####"}, "image unreadable"),
        ({"image": {"bytes": None}}, "no image"),
        ({"image": None}, "no image"),
    ],
)
def test_a_record_that_gives_no_row_is_listed(run, change, kind):
    good = {"id": "good", "image": "1.png", "question": "what?", "answer": "cat"}
    done = run([good, {**good, **change, "id": "bad"}])
    assert [row.id for row in done.samples] == ["vqa-good"]
    assert done.kinds() == [(kind, "bad")]


def test_charts_allow_five_percent_for_numbers_and_none_for_names(run):
    records = [
        {"imgname": "1.png", "query": "What is the value of B?", "label": "200"},
        {"imgname": "1.png", "query": "Which bar is highest?", "label": "Norway"},
        {"imgname": "1.png", "query": "In which year?", "label": "2010"},
    ]
    done = run(records, format_name="chartqa")
    value, name, year = done.samples
    assert {row.task for row in done.samples} == {"chart"}
    assert dict(value.reward.params) == {"relative_tolerance": 0.05}
    assert score(value, r"\boxed{209}").score == 1.0
    assert score(value, r"\boxed{211}").score == 0.0
    assert name.reward.verifier == "text" and score(name, r"\boxed{norway}").score == 1.0
    assert score(year, r"\boxed{2011}").score == 0.0
    exact = run(records, "--tolerance", "0", format_name="chartqa").samples[0]
    assert score(exact, r"\boxed{209}").score == 0.0


def test_answers_of_documents_can_be_judged_by_their_likeness(run):
    record = {"image": "1.png", "question": "title?", "answers": ["annual report", "Report"]}
    words = ["--verifier", "text", "--params", '{"metric": "anls"}', "--task", "ocr"]
    (row,) = run([record], *words).samples
    assert score(row, r"\boxed{anual report}").score == pytest.approx(12 / 13)
    assert row.task == "ocr"


def test_keys_with_other_names_are_renamed(run):
    record = {"picture": "1.png", "q": "what?", "gold": "cat"}
    words = ["--rename", "picture=image", "q=question", "gold=answer"]
    (row,) = run([record], *words).samples
    assert (row.question, row.reward.answer) == ("what?", "cat")
