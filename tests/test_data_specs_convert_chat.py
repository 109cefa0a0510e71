import pytest
from converted import answer, convert, picture, write

from data_specs import Message
from data_specs.convert_chat import place_markers, read_turns
from data_specs.convert_log import Fault


@pytest.fixture
def run(tmp_path):
    for number in (1, 2):
        picture(tmp_path / f"{number}.png", seed=number)

    def go(value, *words, name="chat.json"):
        return convert(tmp_path, "llava", write(tmp_path / name, value), *words)

    return go


def said(row):
    return [(message.role, message.content) for message in row.messages]


def test_llava_keeps_earlier_turns_and_takes_the_last_answer_as_the_reference(run):
    record = {
        "id": "000033",
        "image": "1.png",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"},
            {"from": "gpt", "value": "A bus."},
            {"from": "human", "value": "What colour?"},
            {"from": "gpt", "value": "Red"},
        ],
    }
    done = run([record, {"id": "text", "conversations": [
        {"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]}])  # fmt: skip
    row, text = done.samples
    assert said(row) == [
        ("user", "<image>\nWhat is it?"),
        ("assistant", "A bus."),
        ("user", "What colour?"),
    ]
    assert (row.id, row.reward.verifier, row.reward.ground_truth) == (
        "chat-000033",
        "text",
        r"\boxed{Red}",
    )
    assert len(row.images) == 1
    assert (text.images, text.reward.verifier, text.reward.answer) == ((), "number", "4")


SWIFT = [{"role": "user", "content": "<image><image>Same?"}, {"role": "assistant", "content": "no"}]


@pytest.mark.parametrize(
    ("record", "messages"),
    [
        ({"messages": SWIFT, "images": ["1.png", "2.png"]}, [("user", "<image><image>Same?")]),
        (
            {"messages": [{"role": "user", "content": "Same?"}], "solution": "no",
             "images": ["1.png", "2.png"]},
            [("user", "<image><image>Same?")],
        ),
        (
            {"system": "Be short.", "query": "And now?", "response": "no",
             "history": [["Who?", "Me"]], "images": ["1.png"]},
            [("system", "Be short."), ("user", "<image>Who?"), ("assistant", "Me"),
             ("user", "And now?")],
        ),
        (
            {"messages": [
                {"role": "system", "content": [{"type": "text", "text": "Be short."}]},
                {"role": "user", "content": [
                    {"type": "text", "text": "Is "},
                    {"type": "image", "image": "1.png"},
                    {"type": "text", "text": " red?"},
                ]},
                {"role": "assistant", "content": [{"type": "text", "text": "no"}]},
            ]},
            [("system", "Be short."), ("user", "Is <image> red?")],
        ),
        (
            {"messages": [
                {"role": "user", "content": [
                    {"type": "image_url", "image_url": {"url": "2.png"}},
                    {"type": "text", "text": "Red?"},
                ]},
                {"role": "assistant", "content": "no"},
            ]},
            [("user", "<image>Red?")],
        ),
    ],
)  # fmt: skip
def test_chats_of_other_programs_are_read(run, record, messages):
    (row,) = run([record], name="chat.jsonl").samples
    assert said(row) == messages
    assert row.reward.answer == "no"
    assert len(row.images) == sum(text.count("<image>") for _, text in messages)


def test_objects_of_ms_swift_make_detection_rows(run):
    def record(question, reply, **objects):
        messages = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": reply},
        ]
        return {"messages": messages, "images": ["1.png"], "objects": objects}

    corners = [[10, 20, 40, 60], [0, 0, 10, 20]]
    done = run(
        [
            record("<image>Find <ref-object>.", "<bbox><bbox>", ref=["sheep"], bbox=corners),
            record(
                "<image>Box all.",
                "<ref-object><bbox>, <ref-object><bbox>",
                ref=["a", "b"],
                bbox=[[0.1, 0.1, 0.4, 0.3], [0, 0, 0.1, 0.1]],
                bbox_type="norm1",
            ),
            record("<image>What is in <bbox>?", "a <ref-object>", ref=["cow"], bbox=corners[:1]),
            record("<image>Describe.", "a dog <bbox> sleeps", ref=[], bbox=corners),
            record("<image>Find all.", "<bbox><bbox><bbox>", ref=["x"], bbox=corners),
            record("<image>Find it.", "<bbox>", ref=["x"], bbox=[[615, 226]]),
        ]
    )
    first, second, third = done.samples
    assert first.question == "Find sheep." and first.task == "detection"
    boxes = (0, 0, 100, 100), (100, 100, 400, 300)
    assert first.reward.ground_truth == answer((*boxes[0], "sheep"), (*boxes[1], "sheep"))
    assert first.extra["coordinate_space"] == "per_mille"
    assert second.reward.ground_truth == answer((*boxes[0], "b"), (*boxes[1], "a"))
    assert third.question == "What is in [100, 100, 400, 300]?"
    assert (third.reward.verifier, third.reward.answer, third.task) == ("text", "a cow", "vqa")
    assert [kind for kind, _ in done.kinds()] == [
        "boxes within text",
        "too few objects",
        "not a box",
    ]


TURNS = [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "cat"}]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"conversations": TURNS[:1]}, "no answer"),
        ({"conversations": [{"from": "nobody", "value": "x"}, TURNS[1]]}, "bad turn"),
        ({"conversations": ["hello"]}, "bad turn"),
        ({"conversations": [TURNS[0], {"from": "gpt", "value": ""}]}, "no answer"),
        ({"conversations": [{"from": "human", "value": [{"type": "video"}]}]}, "bad turn"),
        ({"conversations": []}, "no chat"),
        ({"image": "gone.png"}, "image missing"),
        ({"image": ["1.png", "2.png"]}, "markers do not match images"),
        ({"image": None}, "markers do not match images"),
        ({"videos": ["a.mp4"]}, "video or sound"),
    ],
)
def test_a_chat_that_gives_no_row_is_listed(run, change, kind):
    good = {"id": "good", "image": "1.png", "conversations": TURNS}
    done = run([good, {**good, **change, "id": "bad"}])
    assert [row.id for row in done.samples] == ["chat-good"]
    assert done.kinds() == [(kind, "bad")]


def test_one_verifier_may_judge_all_rows(run):
    record = {"image": "1.png", "conversations": TURNS}
    (row,) = run([record], "--verifier", "text", "--params", '{"metric": "cer"}').samples
    assert row.reward.params == {"metric": "cer", "ignore_case": True}
    done = run([record], "--verifier", "detection")
    assert done.code == 2 and [kind for kind, _ in done.kinds()] == ["reference cannot be judged"]


def test_markers_go_before_the_first_text_of_a_user():
    messages = [Message(role=role, content=role) for role in ("system", "user", "user")]
    placed = place_markers(messages, 2)
    assert [item.content for item in placed] == ["system", "<image><image>user", "user"]
    with pytest.raises(Fault, match="markers"):
        place_markers(messages[:1], 1)


def test_turns_that_are_no_turns_are_a_fault():
    assert read_turns(None) == ([], [])
    with pytest.raises(Fault) as caught:
        read_turns([{"role": "user", "content": [{"type": "audio"}]}])
    assert caught.value.kind == "bad turn"
