"""One planted fault of every kind, and the field, row and words it is reported with."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_data_specs_image_file import bomb, picture
from test_data_specs_parquet import png, sample, write_rows
from test_data_specs_parquet import row as raw_row

from data_specs import KINDS, ImageRef, Message, RewardSpec, write_samples
from tasks.check import check_files

BOXES = "<answer>[{'bbox_2d': [10, 10, 90, 90], 'label': 'dog'}]</answer>"


def judged(verifier="number", ground_truth=r"\boxed{7}", **params):
    return RewardSpec(verifier=verifier, answer="", ground_truth=ground_truth, params=params)


def boxed(*corners, label="dog"):
    box = {"bbox_2d": [*corners], "label": label}
    return judged("detection", f"<answer>{[box]}</answer>")


def asked(text, role="user"):
    return {"messages": (Message(role=role, content=text),)}


def image(encoded):
    return {"images": (ImageRef(data=encoded),)}


def space(name, **sizes):
    return {"extra": {"coordinate_space": name, **sizes}}


RAW = {
    # kind: what is changed in a raw row, field, words of the line
    "bad_value": (
        {"prompt": [{"role": "user", "content": None}]},
        "prompt[0].content",
        "None; allowed: a text",
    ),
    "no_source": ({"data_source": ""}, "data_source", "a text that is not empty"),
    "no_task": ({"ability": "  "}, "ability", "a text that is not empty"),
    "empty_prompt": ({"prompt": []}, "prompt", "list of {role, content} that is not empty"),
    "bad_role": (
        {"prompt": [{"role": "human", "content": "<image>q"}]},
        "prompt[0].role",
        "'human'; allowed: system, user, assistant, tool",
    ),
    "bad_json": (
        {"reward": {"verifier_parm": '{"relative_tolerance": '}},
        "reward_model.verifier_parm",
        "a JSON object",
    ),
    "bad_weight": (
        {"reward": {"accuracy_ratio": float("nan")}},
        "reward_model.accuracy_ratio",
        "nan; allowed: a finite number of at least 0",
    ),
}

PLANTED = [
    # kind, what is changed in row 1, field, words of the line
    (
        "unknown_verifier",
        {"reward": judged("nunber")},
        "reward_model.verifier",
        "did you mean 'number'?",
    ),
    (
        "bad_parameter",
        {"reward": judged(relative_tolerence=0.1)},
        "reward_model.verifier_parm",
        "'relative_tolerence' is unknown",
    ),
    (
        "bad_parameter",
        {"reward": judged(relative_tolerance=-1)},
        "reward_model.verifier_parm",
        "relative_tolerance is -1",
    ),
    (
        "bad_reference",
        {"reward": judged(ground_truth="7")},
        "reward_model.ground_truth",
        "scores 0",
    ),
    (
        "bad_reference",
        {"reward": judged("mathverify", r"\boxed{x^2")},
        "reward_model.ground_truth",
        "Write it as a response",
    ),
    (
        "bad_reference",
        {"reward": judged("detection", "<answer>[{'bbox_2d': [1, 2]}]</answer>")},
        "reward_model.ground_truth",
        "it scores",
    ),
    ("empty_reference", {"reward": judged("text", "")}, "reward_model.ground_truth", "a reference"),
    (
        "empty_reference",
        {"reward": judged("text", " \\boxed{ } ")},
        "reward_model.ground_truth",
        "a reference",
    ),
    (
        "empty_reference",
        {"reward": judged("text", "<answer>\\boxed{}</answer>")},
        "reward_model.ground_truth",
        "a reference",
    ),
    (
        "coordinate_space",
        space("percent"),
        "extra_info.coordinate_space",
        "'percent'; allowed: pixel, resized, per_mille, unit",
    ),
    (
        "coordinate_space",
        {"reward": boxed(1, 1, 5, 5), **space("resized", image_width=8, image_height=6)},
        "extra_info.resized_width",
        "None; allowed: resized_width and resized_height",
    ),
    (
        "box_outside",
        {"reward": boxed(10, 10, 90, 1010)},
        "reward_model.ground_truth",
        "(10, 10, 90, 1010, 'dog'); allowed: boxes within the image (per_mille",
    ),
    (
        "box_outside",
        {"reward": boxed(-3, 10, 90, 100)},
        "reward_model.ground_truth",
        "(-3, 10, 90, 100, 'dog')",
    ),
    (
        "box_outside",
        {"reward": boxed(0, 0, 8, 6.2), **space("pixel")},
        "reward_model.ground_truth",
        "(pixel: 0 to 8 and 0 to 6)",
    ),
    (
        "box_outside",
        {"reward": boxed(0, 0, 29, 28), **space("resized", resized_width=28, resized_height=28)},
        "reward_model.ground_truth",
        "(resized: 0 to 28 and 0 to 28)",
    ),
    (
        "box_inverted",
        {"reward": boxed(90, 10, 10, 90)},
        "reward_model.ground_truth",
        "(90, 10, 10, 90); allowed: x1 <= x2 and y1 <= y2",
    ),
    (
        "box_empty",
        {"reward": boxed(10, 10, 10, 90)},
        "reward_model.ground_truth",
        "(10, 10, 10, 90, 'dog'); allowed: a box with an area above 0",
    ),
    (
        "box_space",
        {"reward": boxed(100, 100, 500, 900), **space("unit")},
        "reward_model.ground_truth",
        "If the numbers are per_mille, set extra_info.coordinate_space to per_mille",
    ),
    (
        "box_space",
        {"reward": boxed(100, 100, 500, 900), **space("pixel")},
        "reward_model.ground_truth",
        "If the numbers are per_mille",
    ),
    (
        "box_space",
        {"reward": boxed(10, 20, 1800, 40), **image(png(3, (2000, 50)))},
        "reward_model.ground_truth",
        "If the numbers are pixel",
    ),
    (
        "box_space",
        {"reward": boxed(0.1, 0.25, 0.5, 0.75)},
        "reward_model.ground_truth",
        "Set extra_info.coordinate_space to unit",
    ),
    ("bad_objects", {"extra": {"objects": "{}"}}, "extra_info.objects", "'{}'"),
    (
        "bad_objects",
        {"extra": {"objects": '[{"bbox_2d": [0, 0, 1, 1001], "label": "a"}]'}},
        "extra_info.objects",
        "1001",
    ),
    (
        "bad_objects",
        {"extra": {"objects": '[{"bbox_2d": [0, 0, 9, 9]}]'}},
        "extra_info.objects",
        "9",
    ),
    ("image_missing", {"images": (ImageRef(path="gone.png"),)}, "images[0]", "gone.png"),
    ("image_empty", image(b""), "images[0]", "zero bytes"),
    ("image_unknown", image(b"<html>404</html>"), "images[0]", "b'<html>404</html>'"),
    ("image_truncated", image(png()[:-20]), "images[0]", "ends too early"),
    ("image_truncated", image(picture("JPEG")[:-9]), "images[0]", "ends too early"),
    ("image_truncated", image(picture("WEBP")[:-9]), "images[0]", "RIFF"),
    ("image_too_large", image(bomb(9000)), "images[0]", "9000 x 9000 pixels"),
    (
        "image_size",
        {"extra": {"image_width": 8, "image_height": 7}},
        "extra_info.image_height",
        "7; allowed: 6: the image is 8 x 6 pixels",
    ),
    ("image_markers", {"images": ()}, "prompt", "'1 markers'; allowed: as many <image> markers"),
    ("image_markers", asked("How many dogs are there?"), "prompt", "'0 markers'"),
    ("no_question", asked("<image>"), "prompt", "a user message with text"),
    ("no_question", asked("<image>What?", role="system"), "prompt", "no question"),
    (
        "bad_role",
        {
            "messages": (
                Message(role="user", content="<image>What?"),
                Message(role="assistant", content="7"),
            )
        },
        "prompt[1].role",
        "it may give the answer away",
    ),
    (
        "bad_weight",
        {"reward": replace(judged(), accuracy_ratio=0.0)},
        "reward_model.accuracy_ratio and .format_ratio",
        "Set accuracy_ratio to 1.0",
    ),
    ("duplicate_id", {"id": "row-0", **image(png(9))}, "extra_info.id", "row 0 of train_a.parquet"),
    (
        "contradiction",
        {"reward": judged(ground_truth=r"\boxed{8}")},
        "reward_model.ground_truth",
        "the reference of row 0 of train_a.parquet (id row-0), which asks the same",
    ),
]


def said(problem):
    return problem.kind, problem.file, problem.row, problem.field


@pytest.mark.parametrize("kind", RAW)
def test_a_row_that_cannot_be_read_is_named(tmp_path, kind):
    changes, field, words = RAW[kind]
    spoilt = raw_row(images=[{"bytes": png(1), "path": None}], **changes)
    good = raw_row(images=[{"bytes": png(), "path": None}])
    path = write_rows(tmp_path / "train_a.parquet", good, spoilt | {"extra_info": {"id": "r2"}})
    (problem,) = check_files(path).problems
    assert said(problem) == (kind, "train_a.parquet", 1, field)
    assert words in str(problem) and problem.remedy


@pytest.mark.parametrize(
    ("kind", "changes", "field", "words"),
    PLANTED,
    ids=[f"{index}-{item[0]}" for index, item in enumerate(PLANTED)],
)
@pytest.mark.parametrize("decode", [False, True])
def test_a_planted_fault_is_named_with_its_field_value_and_remedy(
    tmp_path, kind, changes, field, words, decode
):
    rows = [sample(0, extra={}), sample(1, **{"extra": {}} | changes), sample(2, extra={})]
    write_samples(rows, tmp_path / "train_a.parquet")
    (problem,) = check_files(tmp_path / "train_a.parquet", decode).problems
    assert said(problem) == (kind, "train_a.parquet", 1, field)
    assert problem.id == rows[1].id
    assert words in str(problem) and problem.remedy


def test_damage_in_the_middle_of_an_image_is_found_by_decoding(tmp_path):
    damaged = bytearray(picture())
    damaged[len(damaged) // 2 :][:9] = bytes(9)
    damaged[200:240] = bytes(40)
    write_samples([sample(0, extra={}, **image(bytes(damaged)))], tmp_path / "train_a.parquet")
    assert check_files(tmp_path, False).is_ok
    (problem,) = check_files(tmp_path, True).problems
    assert said(problem) == ("image_truncated", "train_a.parquet", 0, "images[0]")


def test_a_formula_that_does_not_end_is_slow_and_stops_nothing(tmp_path, monkeypatch):
    from concurrent.futures import Future

    from verifiers import ScoringPool, Verdict

    def submit(self, items, context=None):
        future = Future()
        verdict = Verdict.unscored("no verdict within 2 s", status="timeout")
        future.set_result([verdict for _ in items])
        return future

    monkeypatch.setattr(ScoringPool, "submit", submit)
    rows = [sample(0), sample(1, reward=judged("mathverify", r"\boxed{9^{9^{9}}}")), sample(2)]
    write_samples(rows, tmp_path / "train_a.parquet")
    (problem,) = check_files(tmp_path).problems
    field = "reward_model.ground_truth"
    assert said(problem) == ("slow_reference", "train_a.parquet", 1, field)
    assert "no verdict within 2 s" in str(problem)


@pytest.mark.parametrize(
    ("spoil", "kind", "field"),
    [
        (lambda path: path.write_bytes(b"not parquet"), "unreadable_file", "file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "unreadable_file", "file"),
        (lambda path: path.unlink(), "unreadable_file", "file"),
        (
            lambda path: rewrite(path, lambda table: table.drop_columns("ability")),
            "missing_column",
            "ability",
        ),
        (lambda path: rewrite(path, lambda table: table.slice(0, 0)), "empty_file", "rows"),
        (
            lambda path: rewrite(
                path, lambda table: table.set_column(2, "prompt", pa.array(["q"] * len(table)))
            ),
            "column_type",
            "prompt",
        ),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_named_and_the_others_checked(
    tmp_path, spoil, kind, field
):
    for name in ("train_a", "train_b"):
        write_samples([sample(name, png(len(name)))], tmp_path / f"{name}.parquet")
    spoil(tmp_path / "train_a.parquet")
    report = check_files([tmp_path / "train_a.parquet", tmp_path / "train_b.parquet"])
    (problem,) = report.problems
    assert said(problem) == (kind, "train_a.parquet", None, field)
    assert report.rows_by_source == {"made": 1}


def rewrite(path: Path, change):
    pq.write_table(change(pq.read_table(path)), path)


def test_rows_damaged_in_the_middle_of_a_file_are_told_of(tmp_path):
    path = tmp_path / "train_a.parquet"
    write_samples([sample(i, png(i, (64, 64)), extra={}) for i in range(50)], path)
    content = bytearray(path.read_bytes())
    content[4:40] = bytes(36)  # where the first page says what it is
    path.write_bytes(bytes(content))
    (problem,) = check_files(path).problems
    assert said(problem) == ("unreadable_file", "train_a.parquet", None, "file")
    assert "damaged" in problem.value


BESIDE = [
    # boxes in a picture of 640 x 480 pixels, taken for per mille
    (20 + 10 * i, 15 + 9 * i, 120 + 40 * i, 100 + 30 * i)
    for i in range(13)
]


def scenes(boxes, size=(640, 480), **extra):
    buffer = io.BytesIO()
    for number, corners in enumerate(boxes):
        buffer = io.BytesIO()
        Image.new("RGB", size, (number, 0, 0)).save(buffer, "PNG")
        yield sample(number, buffer.getvalue(), reward=boxed(*corners), extra=extra)


def test_a_file_of_pixels_that_should_be_per_mille_is_seen_as_a_whole(tmp_path):
    path = tmp_path / "train_a.parquet"
    write_samples(scenes(BESIDE), path)
    (problem,) = check_files(path, False).problems
    assert said(problem) == ("box_space", "train_a.parquet", None, "reward_model.ground_truth")
    assert "all 13 box rows" in problem.value
    assert "coordinate_space to pixel" in problem.remedy


def test_large_pictures_do_not_speak_for_per_mille(tmp_path):
    small = list(scenes(BESIDE[:9]))
    large = [replace(item, id="large") for item in scenes([(5, 5, 900, 900)], size=(5000, 2000))]
    write_samples([*small, *large], tmp_path / "train_a.parquet")
    (problem,) = check_files(tmp_path, False).problems
    assert problem.kind == "box_space" and "all 10 box rows" in problem.value


@pytest.mark.parametrize(
    "rows",
    [
        scenes([*BESIDE, (10, 10, 900, 900)]),
        scenes(BESIDE[:4]),
        scenes([(3, 4, 50 + i, 60 + i) for i in range(4)], size=(64, 64)),
        scenes(BESIDE, coordinate_space="pixel"),
        scenes(BESIDE, size=(1600, 1200)),
        scenes([(3, 4, 800 + i, 350) for i in range(9)], size=(900, 400)),
        scenes([(1 + i, 1, 30 + i, 30) for i in range(13)]),
    ],
    ids=["one more", "few", "few and small", "declared", "large", "likely enough", "small boxes"],
)
def test_boxes_that_may_well_be_per_mille_are_left_alone(tmp_path, rows):
    path = tmp_path / "train_a.parquet"
    write_samples(rows, path)
    assert check_files(path, False).problems == ()


def two_splits(tmp_path, train, test, names=("train_a.parquet", "test_a.parquet")):
    for name, rows in zip(names, (train, test), strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_samples(rows, tmp_path / name)
    return [tmp_path / name for name in names]


@pytest.mark.parametrize(
    ("names", "splits", "explicit"),
    [
        (("train_a.parquet", "test_a.parquet"), (None, None), False),
        (("train/a.parquet", "test/a.parquet"), (None, None), False),
        (("a.parquet", "val_a.parquet"), (None, None), False),
        (("a.parquet", "b.parquet"), ("train", "validation"), False),
        (("test_a.parquet", "test_b.parquet"), ("train", None), False),
        (("a.parquet", "b.parquet"), (None, None), True),
    ],
)
def test_a_training_image_that_is_held_out_is_named(tmp_path, names, splits, explicit):
    extras = [{"split": split} if split else {} for split in splits]
    first, second = two_splits(
        tmp_path,
        [sample(0, png(0), extra=extras[0]), sample(1, png(5), extra=extras[0])],
        [sample(2, png(5), extra=extras[1], **asked("<image>Another question?"))],
        names,
    )
    report = check_files(first, heldout=second) if explicit else check_files([second, first])
    (problem,) = report.problems
    train, test = (name if "/" in name else Path(name).name for name in names)
    assert said(problem) == ("overlap", train, 1, "images")
    assert f"row 0 of {test} (id row-2)" in problem.allowed


def test_a_question_without_images_is_held_out_by_its_words(tmp_path):
    other, words = asked("What is 2 + 2?"), asked("What is 3 + 4?")
    bare = {"images": (), "extra": {}}
    train = [sample(0, **bare, **other), sample(1, **bare, **words)]
    files = two_splits(tmp_path, train, [sample(2, **bare, **words)])
    (problem,) = check_files(files).problems
    assert (problem.kind, problem.row) == ("overlap", 1)


def test_a_file_given_for_both_splits_is_refused(tmp_path):
    write_samples([sample()], tmp_path / "a.parquet")
    problems = check_files(tmp_path / "a.parquet", heldout=tmp_path / "a.parquet").problems
    assert [said(problem) for problem in problems] == [("overlap", "a.parquet", None, "file")]


def test_ids_are_unique_in_a_split_but_not_between_splits(tmp_path):
    one, other = [sample(0, png(0), extra={})], [sample(0, png(1), extra={})]
    assert check_files(two_splits(tmp_path, one, other)).problems == ()
    files = two_splits(tmp_path, one, other, ("train_a.parquet", "train_b.parquet"))
    (problem,) = check_files(files).problems
    assert said(problem) == ("duplicate_id", "train_b.parquet", 0, "extra_info.id")
    assert "row 0 of train_a.parquet (id row-0) has it already" in problem.allowed


def test_rows_without_ids_are_no_duplicates(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        picture_of_it = [{"bytes": png(ord(folder)), "path": None}]
        write_rows(
            tmp_path / folder / "part-0.parquet",
            raw_row(extra_info={"id": None, "n": 1}, images=picture_of_it),
        )
    assert check_files([tmp_path / "x", tmp_path / "y"]).is_ok


@pytest.mark.parametrize("other", [r"\boxed{7.0}", "<answer>7</answer>", r"\boxed{ 7 }"])
def test_the_same_reference_in_other_words_is_no_contradiction(tmp_path, other):
    rows = [sample(0), sample(1, reward=judged(ground_truth=other))]
    write_samples(rows, tmp_path / "train_a.parquet")
    assert check_files(tmp_path).problems == ()


def test_another_question_or_image_is_no_contradiction(tmp_path):
    rows = [
        sample(0),
        sample(1, png(1), reward=judged(ground_truth=r"\boxed{8}")),
        sample(2, reward=judged(ground_truth=r"\boxed{8}"), **asked("<image>How many cats?")),
        sample(3, images=(ImageRef(path="gone.png"),), reward=judged(ground_truth=r"\boxed{8}")),
        sample(4, images=(ImageRef(path="gone.png"),), reward=judged(ground_truth=r"\boxed{9}")),
    ]
    write_samples(rows, tmp_path / "train_a.parquet")
    kinds = [problem.kind for problem in check_files(tmp_path).problems]
    assert kinds == ["image_missing", "image_missing"]


def test_every_kind_of_problem_has_a_planted_fault():
    here = Path(__file__).read_text(encoding="utf-8")
    tested = {item[0] for item in PLANTED} | set(RAW)
    assert {kind for kind in KINDS if kind not in tested and f'"{kind}"' not in here} == set()
    assert json.dumps(sorted(tested - set(KINDS))) == "[]"
