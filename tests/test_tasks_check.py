import time

import pytest
from test_data_specs_parquet import png, row, sample, write_rows

from data_specs import DataSpecError, ImageRef, Message, RewardSpec, write_samples
from tasks.check import check_files

BOX = "<answer>[{'bbox_2d': [10, 10, 90, 90], 'label': 'dog'}]</answer>"


def judged(verifier="number", ground_truth=r"\boxed{7}", **params):
    return RewardSpec(verifier=verifier, answer="", ground_truth=ground_truth, params=params)


def check(tmp_path, *samples, **options):
    path = tmp_path / "train_math_made_9.parquet"
    write_samples(samples, path)
    return check_files(path, **options)


def test_a_good_file_has_counts_and_no_problem(tmp_path):
    report = check(
        tmp_path,
        sample(0),
        sample(1, png(1), task="ocr", reward=judged("text", r"\boxed{EXIT}")),
        sample(2, source="other", reward=judged("detection", BOX, iou_threshold=0.5)),
    )
    assert report.problems == ()
    assert report.is_ok
    assert report.num_rows == 3
    assert report.num_images == 2
    assert report.rows_by_source == {"made": 2, "other": 1}
    assert report.rows_by_task == {"counting": 2, "ocr": 1}
    report.raise_if_bad()


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        (
            {"reward": judged("nunber")},
            "reward_model.verifier",
            "'nunber'; allowed: verifier 'nunber' is not registered (did you mean 'number'?)",
        ),
        (
            {"reward": judged(relative_tolerence=0.1)},
            "reward_model.verifier_parm",
            "'relative_tolerence' is unknown",
        ),
        ({"reward": judged(ground_truth="7")}, "reward_model.ground_truth", "scores 0"),
        ({"reward": judged(ground_truth="")}, "reward_model.ground_truth", "bad_reference"),
        (
            {"reward": judged("detection", "<answer>[{'bbox_2d': [1, 2]}]</answer>")},
            "reward_model.ground_truth",
            "no list of boxes",
        ),
        (
            {"reward": judged("detection", BOX.replace("90, 90", "90, 1090"))},
            "reward_model.ground_truth",
            "(10.0, 10.0, 90.0, 1090.0, 'dog'); allowed: boxes within the image",
        ),
        (
            {
                "reward": judged("detection", BOX),
                "extra": {"coordinate_space": "pixel", "image_width": 64, "image_height": 64},
            },
            "reward_model.ground_truth",
            "boxes within the image (pixel)",
        ),
        ({"extra": {"coordinate_space": "percent"}}, "extra_info.coordinate_space", "per_mille"),
        ({"extra": {"objects": "{}"}}, "extra_info.objects", "'{}'"),
        (
            {"extra": {"objects": '[{"bbox_2d": [0, 0, 1, 1001], "label": "a"}]'}},
            "extra_info.objects",
            "1001",
        ),
        ({"images": ()}, "prompt", "'1 markers'; allowed: as many <image> markers as images"),
        ({"messages": (Message(role="user", content="<image>"),)}, "prompt", "no question"),
        ({"images": (ImageRef(data=png()[:60]),)}, "images[0]", "cannot be decoded"),
        ({"images": (ImageRef(path="gone.png"),)}, "images[0]", "cannot be read"),
    ],
)
def test_a_bad_row_is_named_with_field_value_and_remedy(tmp_path, changes, field, words):
    (problem,) = check(tmp_path, sample(0), sample(1, **changes)).problems
    assert (problem.file, problem.row, problem.id) == ("train_math_made_9.parquet", 1, "row-1")
    assert problem.field == field
    assert words in str(problem)
    assert problem.remedy


def test_ids_are_unique_in_a_file(tmp_path):
    (problem,) = check(tmp_path, sample(0), sample(1), sample(2, id="row-0")).problems
    assert (problem.row, problem.field, problem.value) == (2, "extra_info.id", "'row-0'")
    assert "row 0 has it already" in problem.allowed


def test_a_malformed_row_does_not_hide_the_next_one(tmp_path):
    bad = row(ability=None)
    other = row(reward={"verifier": "nobody"}, images=[{"bytes": png(), "path": None}])
    report = check_files(write_rows(tmp_path / "a.parquet", bad, other))
    assert [(problem.row, problem.field) for problem in report.problems] == [
        (0, "ability"),
        (1, "reward_model.verifier"),
    ]
    assert report.num_rows == 2


def test_a_missing_file_is_a_problem_and_the_others_are_checked(tmp_path):
    write_samples([sample()], tmp_path / "a.parquet")
    report = check_files([tmp_path / "gone.parquet", tmp_path / "a.parquet"])
    assert [problem.field for problem in report.problems] == ["file"]
    assert report.num_rows == 1
    assert not check_files(tmp_path / "nowhere").is_ok


def test_images_are_not_decoded_unless_asked(tmp_path):
    broken = sample(0, images=(ImageRef(data=b"no image"),))
    assert check(tmp_path, broken, decode_images=False).is_ok
    assert not check(tmp_path, broken).is_ok


def test_boxes_answered_in_resized_pixels_keep_their_per_mille_reference(tmp_path):
    reward = judged("detection", BOX, det_verifier_normalized=True)
    assert check(tmp_path, sample(0, reward=reward)).is_ok


def test_the_error_names_the_first_twenty_problems(tmp_path):
    rows = [sample(i, reward=judged("nobody")) for i in range(30)]
    with pytest.raises(DataSpecError) as caught:
        check(tmp_path, *rows).raise_if_bad()
    lines = str(caught.value).splitlines()
    assert lines[0] == "30 problems in 30 rows:"
    assert len(lines) == 22
    assert lines[1].startswith("train_math_made_9.parquet row 0 (id row-0): reward_model.verifier")
    assert lines[-1] == "... and 10 more"


def test_checking_is_fast(tmp_path):
    images = [png(i, (36, 36)) for i in range(500)]
    path = tmp_path / "a.parquet"
    write_samples([sample(i, images[i // 4]) for i in range(2000)], path)
    started = time.process_time()
    assert check_files(path).is_ok
    assert 2000 / (time.process_time() - started) > 1500
