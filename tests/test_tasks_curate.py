"""Curation as a whole: bands, scores that survive a kill, files, and the same result every time."""

import json
import random
from dataclasses import dataclass, field

import pytest
from test_data_specs_parquet import png, row, sample
from test_tasks_curate_rules import box_row
from test_tasks_curate_rules import row as asked

from data_specs import DataSpecError, ImageRef, Message, read_samples, write_samples
from tasks.check import check_files
from tasks.curate import CurateConfig, curate, split_of
from tasks.curate_difficulty import Band, RowScores, ScoreBook, band_of, read_bands
from tasks.curate_report import difficulty_bin
from tasks.curate_rules import chosen_rules
from verifiers import FixedIou, ScoreContext, Verdict, score_many


def judge(items):
    return score_many(items, ScoreContext(iou_rule=FixedIou(0.5)))


@dataclass
class Scripted:
    """Gives each row the answers of a table, and dies after so many rows."""

    texts: dict[str, list[str]]
    rows_before_death: int | None = None
    asked: list[tuple[str, int]] = field(default_factory=list)
    name: str = "scripted"
    is_live: bool = True

    def answers(self, asks):
        for ask in asks:
            if len(self.asked) == self.rows_before_death:
                raise KeyboardInterrupt
            self.asked.append((ask.sample.id, ask.num_answers))
            yield ask.sample, self.texts.get(ask.sample.id, [])


def numbered(num, **changes):
    return [
        asked(
            "7", f"<image> What is sum {i}?", number=i, images=(ImageRef(data=png(i)),), **changes
        )
        for i in range(num)
    ]


def written(path, rows):
    write_samples(rows, path)
    return path


def ids(folder):
    return [item.id for item in read_samples(folder)]


@pytest.mark.parametrize(
    ("num_right", "outcome"), [(0, "kept"), (1, "kept"), (7, "kept"), (8, "too_easy")]
)
def test_boxed_answers_are_kept_from_none_right_to_all_but_one(num_right, outcome):
    band = band_of(asked(), read_bands([]))
    assert band.outcome([1.0] * num_right + [0.0] * (8 - num_right)) == outcome


@pytest.mark.parametrize(
    ("ious", "outcome"),
    [
        ([0.5] * 4 + [0.0] * 12, "kept"),  # sum 2
        ([0.6] * 3 + [0.0] * 13, "too_hard"),  # 1.8
        ([1.0] * 10 + [0.0] * 6, "kept"),  # 10
        ([1.0] * 10 + [0.5] + [0.0] * 5, "too_easy"),  # 10.5
        ([1.0] * 15, "unjudged"),
        ([1.0] * 12 + [0.0] * 20, "kept"),  # 12 of 32 answers: 6 of 16
    ],
)
def test_box_rows_are_kept_from_2_to_10_of_16(ious, outcome):
    assert band_of(box_row(("dog", 0, 0, 9, 9)), read_bands([])).outcome(ious) == outcome


def test_a_band_is_written_as_an_interval():
    bands = read_bands(["boxed=(0, 3]/4", "number=[1,2)/4"])
    assert bands["boxed"] == Band(low=0, high=3, num_answers=4, is_low_open=True)
    assert str(bands["number"]) == "[1,2)/4"
    assert band_of(asked(verifier="text"), bands).outcome([0.0] * 4) == "too_hard"
    assert band_of(asked(), bands).outcome([1.0, 1.0, 0.0, 0.0]) == "too_easy"


@pytest.mark.parametrize(
    "text", ["boxed", "boxed=0,8", "boxed=[3,2]/8", "boxed=[0,8)/0", "=[0,1]/1"]
)
def test_a_band_of_another_form_is_refused(text):
    with pytest.raises(ValueError, match=r"--band .* allowed: VERIFIER=\[LOW,HIGH\]/ANSWERS"):
        read_bands([text])


def test_difficulty_counts_in_tenths():
    assert [difficulty_bin(x) for x in (0.0, 0.099, 0.1, 1 - 0.7, 0.99, 1.0)] == [0, 0, 1, 3, 9, 9]
    assert RowScores((1.0, None, 0.0), ("ok", "fault", "ok")).difficulty == 0.5
    assert RowScores((None,), ("fault",)).difficulty is None


TEXTS = {
    "row-0": [r"\boxed{7}"] * 8,
    "row-1": [r"\boxed{7}"] * 2 + [r"\boxed{8}"] * 6,
    "row-2": [r"\boxed{8}"] * 8,
    "row-3": [r"\boxed{8}"] * 7,
}


def test_rows_are_split_by_what_a_policy_makes_of_them(tmp_path):
    path = written(tmp_path / "train_a.parquet", numbered(5))
    policy = Scripted(TEXTS)
    report = curate([path], tmp_path / "out", CurateConfig(), policy=policy, judge=judge)
    assert policy.asked == [(f"row-{i}", 8) for i in range(5)]
    assert ids(tmp_path / "out") == ["row-1", "row-2"]
    assert ids(tmp_path / "out" / "unjudged") == ["row-3", "row-4"]
    assert [item.extra["difficulty"] for item in read_samples(tmp_path / "out")] == [0.75, 1.0]
    assert report.files == {
        "train_math_made_2.parquet": 2,
        "unjudged/train_math_made_2.parquet": 2,
    }
    count = report.sources["made"]
    assert (count.rows, count.kept) == (5, 2)
    assert count.left_out == {"too_easy": 1, "unjudged": 2}
    assert count.difficulty == [1, 0, 0, 0, 0, 0, 0, 1, 0, 1]
    assert count.passed == {"none": 1, "some": 1, "all": 1}
    assert "  0.7-0.8       1 " + "#" * 40 in report.lines()


def test_what_cannot_be_judged_is_no_failure_of_the_policy(tmp_path):
    path = written(tmp_path / "train_a.parquet", numbered(1))
    faults = [Verdict.unscored("broken")] + [Verdict.scored(0.0, reason="wrong")] * 7
    policy = Scripted({"row-0": ["x"] * 8})
    report = curate([path], tmp_path / "out", CurateConfig(), policy=policy, judge=lambda _: faults)
    assert report.sources["made"].left_out == {"unjudged": 1}
    (line,) = map(json.loads, (tmp_path / "out" / "difficulty.jsonl").read_text().splitlines())
    assert line["scores"] == [None] + [0.0] * 7 and line["statuses"][0] == "fault"
    assert (line["id"], line["source"]) == ("row-0", "made")


@pytest.mark.parametrize("torn", ["", '{"id": "row-2", "sour'])
def test_a_killed_curation_asks_no_row_twice(tmp_path, torn):
    path = written(tmp_path / "train_a.parquet", numbered(4))
    whole = Scripted(TEXTS)
    curate([path], tmp_path / "whole", CurateConfig(), policy=whole, judge=judge)
    killed, second = Scripted(TEXTS, rows_before_death=2), Scripted(TEXTS)
    with pytest.raises(KeyboardInterrupt):
        curate([path], tmp_path / "out", CurateConfig(), policy=killed, judge=judge)
    scores = tmp_path / "out" / "difficulty.jsonl"
    scores.write_text(scores.read_text() + torn)
    curate([path], tmp_path / "out", CurateConfig(), policy=second, judge=judge)
    assert [id_ for id_, _ in second.asked] == ["row-2", "row-3"]
    for name in ("difficulty.jsonl", "curation.json", "train_math_made_2.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_scores_of_another_policy_and_of_a_changed_row_are_not_taken(tmp_path):
    with ScoreBook(tmp_path / "s.jsonl", "a") as book:
        book.add(asked(), [Verdict.scored(1.0)])
    again = ScoreBook(tmp_path / "s.jsonl", "a")
    assert again.find(asked()) == RowScores((1.0,), ("ok",))
    assert again.find(asked("8")) is None
    with pytest.raises(ValueError, match=r"s.jsonl line 1: has the scores of 'a'; this is 'b'"):
        ScoreBook(tmp_path / "s.jsonl", "b")
    (tmp_path / "s.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"line 1: found .*allowed: an object with key"):
        ScoreBook(tmp_path / "s.jsonl", "a")


def mixed():
    """Rows of four tasks, some of them for every kind of rule."""
    rows = numbered(6)
    rows += numbered(6)[:2]  # duplicates
    rows.append(asked("true", "<image> Is it so?", number=6, verifier="text"))
    rows.append(asked("B", "<image> What is it?\nA. cat\nB. dog", number=7, verifier="choice"))
    for number in range(10, 16):
        boxes = [("dog", 0, 0, 90, 90), ("dog", 0, 0, 50, 50)][: 1 if number < 14 else 2]
        extra = {"split": "test"} if number == 10 else {}
        item = box_row(*boxes, number=number, images=(ImageRef(data=png(number)),), extra=extra)
        question = (Message(role="user", content="<image> box every dog"),)
        rows.append(
            sample(
                number,
                task="detection",
                reward=item.reward,
                extra=extra,
                images=item.images,
                messages=question,
                source="boxes/a b",
            )
        )
    return rows


CONFIG = CurateConfig(rules=chosen_rules(settings=["choice.rewrite=1"]), seed=3)


def test_what_is_written_is_counted_and_passes_the_check(tmp_path):
    path = written(tmp_path / "train_a_x2.parquet", mixed())
    report = curate([path], tmp_path / "out", CONFIG)
    rules = report.rules
    assert (rules["duplicates"].rows, rules["duplicates"].dropped) == (16, 2)
    assert (rules["choice"].rewritten, rules["choice"].dropped) == (1, 0)
    assert rules["true_false"].examples[0].reason == "the answer is 'true'"
    assert rules["single_multi"].dropped == 3  # 4 single to 2 multi: 1 stays
    names = {name: num for name, num in report.files.items() if "math" in name}
    assert names == {"train_math_made_7_x2.parquet": 7}
    assert sum(report.files.values()) == report.num_kept == 16 - 2 - 1 - 3
    assert all(name.startswith(("train_", "test_detection_boxes-a-b_")) for name in report.files)
    assert check_files([tmp_path / "out"]).problems == ()
    stored = json.loads((tmp_path / "out" / "curation.json").read_text())
    assert stored == report.to_json()
    assert stored["rules"]["choice"]["params"] == {"rewrite": 1}
    opened = [item for item in read_samples(tmp_path / "out") if item.id == "row-7"]
    assert [item.reward.answer for item in opened] == ["dog"]


def test_the_same_rows_in_any_order_give_the_same_balance(tmp_path):
    rows = mixed()[:6] + mixed()[8:]
    random.Random(1).shuffle(rows)
    one = written(tmp_path / "one.parquet", mixed()[:6] + mixed()[8:])
    other = written(tmp_path / "other.parquet", rows)
    curate([one], tmp_path / "a", CONFIG)
    curate([other], tmp_path / "b", CONFIG)
    assert sorted(ids(tmp_path / "a")) == sorted(ids(tmp_path / "b"))
    curate([one], tmp_path / "c", CONFIG)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "c" / file.name).read_bytes()


def test_evaluation_rows_keep_training_rows_out(tmp_path):
    path = written(tmp_path / "train_a.parquet", numbered(4))
    test = written(tmp_path / "test_a.parquet", numbered(2))
    report = curate([path], tmp_path / "out", CurateConfig(against=(test,)))
    assert ids(tmp_path / "out") == ["row-2", "row-3"]
    assert report.rules["known_image"].dropped == 2
    assert "known_image" not in curate([path], tmp_path / "b", CurateConfig()).rules


def test_a_dry_run_writes_nothing_and_asks_nobody(tmp_path):
    path = written(tmp_path / "train_a.parquet", numbered(3))
    policy = Scripted(TEXTS)
    report = curate([path], tmp_path / "out", CurateConfig(), policy=policy, dry_run=True)
    assert (policy.asked, report.num_not_asked, report.num_kept) == ([], 3, 3)
    stored = Scripted(TEXTS, is_live=False)
    report = curate(
        [path], tmp_path / "out", CurateConfig(), policy=stored, judge=judge, dry_run=True
    )
    assert report.sources["made"].left_out == {"too_easy": 1}
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_refused(tmp_path):
    path = written(tmp_path / "train_a.parquet", numbered(1))
    curate([path], tmp_path / "out", CurateConfig())
    with pytest.raises(ValueError, match=r"out: has curation.json.*allowed: an empty"):
        curate([path], tmp_path / "out", CurateConfig())


def test_files_that_a_kill_left_half_written_are_replaced(tmp_path):
    path = written(tmp_path / "train_a.parquet", numbered(2))
    (tmp_path / "out" / ".writing").mkdir(parents=True)
    (tmp_path / "out" / "train_math_made_9.parquet").write_bytes(b"half")
    curate([path], tmp_path / "out", CurateConfig())
    found = sorted(item.name for item in (tmp_path / "out").iterdir())
    assert found == ["curation.json", "train_math_made_2.parquet"]


def test_two_rows_with_one_id_are_refused(tmp_path):
    rows = numbered(2)
    path = written(tmp_path / "train_a.parquet", rows)
    other = [asked("9", "<image> What else?", number=1)]
    more = written(tmp_path / "train_b.parquet", other)
    with pytest.raises(DataSpecError, match=r"\(id row-1\): extra_info.id is 'row-1'; allowed:"):
        curate([path, more], tmp_path / "out", CurateConfig())


def test_a_row_that_cannot_be_read_is_refused_by_name(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "train_a.parquet"
    pq.write_table(pa.Table.from_pylist([row(), row(data_source="")]), path)
    with pytest.raises(
        DataSpecError, match=r"train_a.parquet row 1 .*data_source.*check FILE --fix"
    ):
        curate([path], tmp_path / "out", CurateConfig())


def test_images_that_lie_beside_the_file_are_written_into_it(tmp_path):
    (tmp_path / "a.png").write_bytes(png(3))
    item = asked(images=(ImageRef(path="a.png"),))
    path = written(tmp_path / "train_a.parquet", [item])
    curate([path], tmp_path / "out", CurateConfig())
    (found,) = read_samples(tmp_path / "out")
    assert found.images[0].data == png(3)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataSpecError, match=r"train_a.parquet row 0 \(id row-0\): image .*a.png"):
        curate([path], tmp_path / "again", CurateConfig())


def test_a_split_is_the_rows_own_or_that_of_its_file(tmp_path):
    plain = asked()
    assert split_of(asked(extra={"split": "val"}), tmp_path / "train_a.parquet") == "val"
    assert split_of(plain, tmp_path / "test_a.parquet") == "test"
    assert split_of(plain, tmp_path / "a.parquet") == "train"
    assert split_of(plain, tmp_path / "test" / "a.parquet") == "test"
    assert split_of(plain, tmp_path / "test" / "train_a.parquet") == "train"
