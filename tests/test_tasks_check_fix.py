"""What `write_good_rows` keeps, leaves out, and never touches."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_data_specs_parquet import png, row, sample, write_rows
from test_tasks_check_kinds import judged, scenes

from data_specs import ImageRef, read_samples, write_samples
from tasks import check_fix
from tasks.check import check_files
from tasks.check_fix import REJECTS, write_good_rows


def fix(tmp_path, paths, **options):
    report = check_files(paths, **options)
    return write_good_rows(report, tmp_path / "out")


def rejects(tmp_path):
    return [json.loads(line) for line in (tmp_path / "out" / REJECTS).read_text().splitlines()]


def test_good_rows_are_written_bad_ones_listed_and_the_input_is_untouched(tmp_path):
    path = tmp_path / "train_a.parquet"
    rows = [sample(i, png(i)) for i in range(700)]
    rows[3] = sample(3, png(3), reward=judged("nobody"))
    rows[600] = sample(0, png(600), reward=judged(ground_truth="7"))
    write_samples(rows, path)
    before = path.read_bytes()
    fixed = fix(tmp_path, path)
    assert (fixed.num_good, fixed.num_rejected, fixed.left_out) == (698, 2, ())
    assert path.read_bytes() == before
    kept = list(read_samples(tmp_path / "out" / "train_a.parquet"))
    wanted = [item for index, item in enumerate(rows) if index not in (3, 600)]
    for one, other in zip(kept, wanted, strict=True):
        for name in ("id", "messages", "images", "reward", "extra"):
            assert getattr(one, name) == getattr(other, name)
    first, second = rejects(tmp_path)
    assert (first["file"], first["row"], first["id"]) == ("train_a.parquet", 3, "row-3")
    assert set(first["reasons"][0]) == {"kind", "field", "value", "allowed", "remedy"}
    assert first["reasons"][0]["field"] == "reward_model.verifier"
    assert (second["row"], second["id"]) == (600, "row-0")
    assert [reason["kind"] for reason in second["reasons"]] == ["bad_reference", "duplicate_id"]
    assert check_files(tmp_path / "out").problems == ()
    names = sorted(item.name for item in (tmp_path / "out").iterdir())
    assert names == [REJECTS, "train_a.parquet"]


def test_all_columns_and_their_description_are_kept(tmp_path):
    path = tmp_path / "a.parquet"
    picture = [{"bytes": png(), "path": None}]
    good = row(images=picture, embedding=[0.5, 1.5], extra_info={"id": "a", "tags": ["x"]})
    bad = good | {"ability": None}
    table = pa.Table.from_pylist([bad, good])
    table = table.replace_schema_metadata({b"huggingface": b"{}", b"mine": b"kept"})
    pq.write_table(table, path)
    fix(tmp_path, path)
    copied, given = (pq.read_table(folder / "a.parquet") for folder in (tmp_path / "out", tmp_path))
    assert copied.schema.equals(given.schema, check_metadata=True)
    assert copied.to_pylist() == [good]


def test_image_paths_still_lead_to_the_images(tmp_path):
    (tmp_path / "in" / "pictures").mkdir(parents=True)
    (tmp_path / "in" / "pictures" / "a.png").write_bytes(png())
    named = {"bytes": None, "path": "pictures/a.png"}
    embedded = {"bytes": png(1), "path": "where/it/was.png"}
    good = row(
        images=[named, embedded],
        prompt=[{"role": "user", "content": "<image><image>q"}],
        extra_info={"id": "b"},
    )
    path = write_rows(tmp_path / "in" / "a.parquet", row(ability=None), good)
    fix(tmp_path, path)
    (kept,) = read_samples(tmp_path / "out" / "a.parquet")
    assert kept.images[0].encoded() == png()
    raw = pq.read_table(tmp_path / "out" / "a.parquet").to_pylist()[0]["images"]
    assert raw == [{"bytes": None, "path": "../in/pictures/a.png"}, embedded]


def test_a_file_that_is_wrong_as_a_whole_is_left_out_and_listed(tmp_path):
    boxes = [(20 + 9 * i, 15 + 9 * i, 120 + 40 * i, 100 + 30 * i) for i in range(13)]
    write_samples(scenes(boxes), tmp_path / "train_pixels.parquet")
    write_samples([sample(70, reward=judged("nobody"))], tmp_path / "train_bad.parquet")
    (tmp_path / "train_torn.parquet").write_bytes(b"PAR1")
    write_samples([sample(80)], tmp_path / "train_good.parquet")
    fixed = fix(tmp_path, tmp_path)
    left_out = ("train_bad.parquet", "train_pixels.parquet", "train_torn.parquet")
    assert (fixed.num_good, fixed.num_rejected, fixed.left_out) == (1, 0, left_out)
    assert [(item["file"], item["row"]) for item in rejects(tmp_path)] == [
        ("train_bad.parquet", 0),
        ("train_pixels.parquet", None),
        ("train_torn.parquet", None),
    ]
    assert sorted(item.name for item in (tmp_path / "out").iterdir()) == [
        *(REJECTS, "train_good.parquet")
    ]


def test_a_training_row_that_is_held_out_goes_and_the_held_out_one_stays(tmp_path):
    write_samples([sample(0, png(0)), sample(1, png(1))], tmp_path / "a.parquet")
    write_samples([sample(2, png(1))], tmp_path / "b.parquet")
    fixed = fix(tmp_path, tmp_path / "a.parquet", heldout=tmp_path / "b.parquet")
    assert (fixed.num_good, fixed.num_rejected) == (2, 1)
    assert [item["row"] for item in rejects(tmp_path)] == [1]
    assert next(read_samples(tmp_path / "out" / "b.parquet")).id == "row-2"


def test_nothing_half_written_stays_when_the_copy_fails(tmp_path, monkeypatch):
    write_samples([sample(0), sample(1, reward=judged("nobody"))], tmp_path / "a.parquet")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(check_fix, "_with_moved_paths", fail)
    with pytest.raises(KeyboardInterrupt):
        fix(tmp_path, tmp_path / "a.parquet")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    write_samples([sample(0, images=(ImageRef(data=b""),))], tmp_path / "a.parquet")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="out: not empty; choose another folder"):
        fix(tmp_path, tmp_path / "a.parquet")
    assert [item.name for item in (tmp_path / "out").iterdir()] == ["mine.txt"]
