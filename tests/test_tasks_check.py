"""The check as a whole: what it counts, what it keeps apart, how fast and small it is."""

import subprocess
import sys
from dataclasses import replace

import pytest
from test_data_specs_parquet import png, row, sample, write_rows
from test_tasks_check_kinds import BOXES, asked, judged

from data_specs import DataSpecError, ImageRef, write_samples
from tasks.check import check_files


def check(tmp_path, *samples, **options):
    path = tmp_path / "train_math_made_9.parquet"
    write_samples(samples, path)
    return check_files(path, **options)


def test_a_good_file_has_counts_and_no_problem(tmp_path):
    report = check(
        tmp_path,
        sample(0),
        sample(1, png(1), task="ocr", reward=judged("text", r"\boxed{EXIT}")),
        sample(2, png(2), source="other", reward=judged("detection", BOXES, iou_threshold=0.5)),
        sample(3, images=(), **asked("2 + 5?")),
    )
    assert report.problems == ()
    assert report.is_ok
    assert report.num_rows == 4
    assert report.num_images == 3
    assert report.rows_by_source == {"made": 3, "other": 1}
    assert report.rows_by_task == {"counting": 3, "ocr": 1}
    assert [(file.name, file.num_rows, file.is_heldout) for file in report.files] == [
        ("train_math_made_9.parquet", 4, False)
    ]
    report.raise_if_bad()


def test_a_malformed_row_does_not_hide_the_next_one(tmp_path):
    bad = row(ability=None)
    other = row(reward={"verifier": "nobody"}, images=[{"bytes": png(), "path": None}])
    report = check_files(write_rows(tmp_path / "a.parquet", bad, other | {"extra_info": None}))
    assert [(problem.row, problem.field) for problem in report.problems] == [
        (0, "ability"),
        (1, "reward_model.verifier"),
    ]
    assert (report.num_rows, report.num_bad_rows) == (2, 2)


def test_everything_wrong_with_a_row_is_told(tmp_path):
    bad = {"images": (ImageRef(data=b"no image"),), "reward": judged("nobody")}
    report = check(tmp_path, sample(0, **bad, extra={"objects": "x"}, **asked("no marker")))
    assert [problem.kind for problem in report.problems] == [
        *("unknown_verifier", "image_markers", "bad_objects", "image_unknown")
    ]
    assert report.num_bad_rows == 1


def test_problems_come_in_the_order_of_files_and_rows(tmp_path):
    formula = judged("mathverify", r"\boxed{x^2")  # judged in another process, after the others
    rows = [sample(0, reward=formula), sample(1, reward=judged("nobody")), sample(2, id="row-0")]
    report = check(tmp_path, *rows)
    assert [(problem.row, problem.kind) for problem in report.problems] == [
        (0, "bad_reference"),
        (1, "unknown_verifier"),
        (2, "duplicate_id"),
    ]


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for folder, number in (("train", 0), ("test", 1)):
        (tmp_path / folder).mkdir()
        bad = sample(number, png(number), reward=judged("nobody"), extra={})
        write_samples([bad], tmp_path / folder / "a.parquet")
    report = check_files([tmp_path / "train", tmp_path / "test"])
    assert [problem.file for problem in report.problems] == ["train/a.parquet", "test/a.parquet"]
    assert [file.is_heldout for file in report.files] == [False, True]


def test_a_file_given_twice_is_checked_once(tmp_path):
    write_samples([sample(0), sample(1)], tmp_path / "a.parquet")
    report = check_files([tmp_path / "a.parquet", tmp_path, tmp_path / "." / "a.parquet"])
    assert (report.num_rows, report.problems) == (2, ())


def test_a_missing_file_is_a_problem_and_the_others_are_checked(tmp_path):
    write_samples([sample()], tmp_path / "a.parquet")
    (tmp_path / "empty").mkdir()
    report = check_files([tmp_path / "gone.parquet", tmp_path / "empty", tmp_path / "a.parquet"])
    assert [problem.field for problem in report.problems] == ["file", "file"]
    assert report.num_rows == 1


def test_boxes_answered_in_resized_pixels_keep_their_per_mille_reference(tmp_path):
    reward = judged("detection", BOXES, det_verifier_normalized=True)
    sizes = {"resized_width": 28, "resized_height": 28}
    assert check(tmp_path, sample(0, reward=reward, extra=sizes)).problems == ()


@pytest.mark.parametrize("space", ["pixel", "resized", "unit", "per_mille"])
def test_right_boxes_pass_in_every_space(tmp_path, space):
    box = {"unit": [0.25, 0.5, 0.75, 1]}.get(space, [2, 3, 6, 6])
    reward = judged("detection", f"<answer>{[{'bbox_2d': box, 'label': 'dog'}]}</answer>")
    sizes = {f"{prefix}_{side}": 8 for prefix in ("resized",) for side in ("width", "height")}
    extra = {"coordinate_space": space, "image_width": 8, "image_height": 6, **sizes}
    assert check(tmp_path, sample(0, reward=reward, extra=extra)).problems == ()


def test_an_empty_list_of_boxes_is_a_reference(tmp_path):
    reward = judged("detection", "<answer>[]</answer>")
    assert check(tmp_path, sample(0, reward=reward)).problems == ()


def test_a_verifier_of_another_package_may_fail_without_stopping_the_check(tmp_path, monkeypatch):
    import verifiers
    from verifiers import VERIFIERS, Verifier

    def judge(sample, response, context):
        raise ZeroDivisionError(sample.id)

    mine = Verifier(judge=judge, check_params=lambda params: None, version="1")
    monkeypatch.setitem(VERIFIERS, "mine", mine)
    assert verifiers.find_verifier("mine") is mine
    report = check(tmp_path, sample(0, reward=judged("mine")), sample(1, png(1)))
    assert [(problem.row, problem.kind) for problem in report.problems] == [(0, "slow_reference")]
    assert "ZeroDivisionError" in report.problems[0].allowed


def test_equal_settings_are_judged_once_and_all_rows_named(tmp_path, monkeypatch):
    from tasks import check_reward

    judged_rows = []
    real = check_reward.score_many
    monkeypatch.setattr(
        check_reward, "score_many", lambda items: judged_rows.append(items) or real(items)
    )
    bad = judged(ground_truth="7")
    report = check(tmp_path, *(sample(i, png(i), reward=bad) for i in range(9)))
    assert [problem.row for problem in report.problems] == list(range(9))
    assert len(judged_rows) == 1


def test_the_error_names_the_first_twenty_problems(tmp_path):
    rows = [sample(i, reward=judged("nobody")) for i in range(25)]
    rows += [sample(30 + i, png(i), reward=judged(ground_truth="7")) for i in range(5)]
    report = check(tmp_path, *rows)
    with pytest.raises(DataSpecError) as caught:
        report.raise_if_bad()
    lines = str(caught.value).splitlines()
    assert lines[0] == "30 problems in 30 rows:"
    assert len(lines) == 22
    assert lines[1].startswith("train_math_made_9.parquet row 0 (id row-0): reward_model.verifier")
    assert lines[-1] == "... and 10 more: 5 unknown_verifier, 5 bad_reference"
    assert report.problems_by_kind == {"unknown_verifier": 25, "bad_reference": 5}
    assert len(caught.value.problems) == 30


def test_progress_is_told_in_rows(tmp_path):
    told = []
    rows = [sample(i, extra={}) for i in range(600)]
    check(tmp_path, *rows, progress=lambda done, total: told.append((done, total)))
    assert told == [(256, 600), (512, 600)]


def test_memory_does_not_grow_with_the_pictures(tmp_path):
    path = tmp_path / "a.parquet"
    base = sample(0, extra={})
    noise = png(1, (180, 180))  # about 97 kB
    end = len(noise) - 12

    def rows():
        for i in range(3000):  # 290 MB of different pictures
            text = f"tEXtn\0{i:06d}".encode() + bytes(4)
            picture = noise[:end] + len(text[4:-4]).to_bytes(4, "big") + text + noise[end:]
            yield replace(base, id=str(i), images=(ImageRef(data=picture),))

    write_samples(rows(), path)
    code = (
        "import threading, time, sys; from tasks.check import check_files; import pyarrow.parquet\n"
        "now = lambda: int(open('/proc/self/statm').read().split()[1]) * 4096 // 1_000_000\n"
        "first, most = now(), []\n"
        f"report = check_files({str(path)!r}, False, progress=lambda *_: most.append(now()))\n"
        "print(report.num_rows, report.num_images, max(most) - first)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    num_rows, num_images, grown_mb = map(int, done.stdout.split())
    assert (num_rows, num_images) == (3000, 3000)
    assert grown_mb < 180, grown_mb
