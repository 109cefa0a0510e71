import io
import json
import os
import pickle
import random
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_specs import (
    DataSpecError,
    ImageRef,
    Message,
    RewardSpec,
    Sample,
    file_uses,
    read_rows,
    read_samples,
    sample_from_row,
    sample_to_row,
    write_samples,
)


def png(seed=0, size=(8, 6)):
    noise = random.Random(seed).randbytes(size[0] * size[1] * 3)
    buffer = io.BytesIO()
    Image.frombytes("RGB", size, noise).save(buffer, "PNG")
    return buffer.getvalue()


def sample(number=0, image=None, **changes):
    fields = {
        "id": f"row-{number}",
        "source": "made",
        "task": "counting",
        "messages": (
            Message(role="system", content="Be short."),
            Message(role="user", content="<image> How many dogs? "),
        ),
        "images": (ImageRef(data=image or png()),),
        "reward": RewardSpec(
            verifier="number",
            answer="7",
            ground_truth=r"\boxed{7}",
            accuracy_ratio=0.9,
            format_ratio=0.1,
            params={"relative_tolerance": 0.05, "year": False},
        ),
        "extra": {"split": "train", "difficulty": 0.25, "mine": 1.5},
    }
    return Sample(**(fields | changes))


def row(**changes):
    """A raw row as another program would write it."""
    reward = {"ground_truth": "\\boxed{1}", "verifier": "mathverify"} | changes.pop("reward", {})
    return {
        "data_source": "other",
        "images": [{"bytes": b"x", "path": None}],
        "prompt": [{"role": "user", "content": "<image>q"}],
        "ability": "math",
        "reward_model": {"answer": "1"} | reward,
        "extra_info": {"id": "r1"},
    } | changes


def write_rows(path, *rows):
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "train_counting_made_2.parquet"
    wanted = [sample(0), sample(1, images=(), extra={})]
    assert write_samples(wanted, path) == 2
    found = list(read_samples(path))
    assert [item.where for item in found] == [f"{path.name} row 0", f"{path.name} row 1"]
    for before, after in zip(wanted, found, strict=True):
        for name in ("id", "source", "task", "messages", "images", "reward", "extra"):
            assert getattr(after, name) == getattr(before, name), name
    assert found[0].question == "How many dogs?"


def test_the_columns_are_those_of_v_triune(tmp_path):
    path = tmp_path / "a.parquet"
    write_samples([sample()], path)
    raw = pq.read_table(path).to_pylist()[0]
    assert list(raw) == [
        "data_source",
        "images",
        "prompt",
        "ability",
        "reward_model",
        "extra_info",
    ]
    assert raw["reward_model"]["verifier_parm"] == '{"relative_tolerance": 0.05, "year": false}'
    assert pq.read_schema(path).field("reward_model").type.field("format_ratio").type == "float"


def test_four_rows_that_share_an_image_cost_about_one(tmp_path):
    images = [random.Random(i).randbytes(4096) for i in range(64)]
    path = tmp_path / "a.parquet"
    write_samples([sample(i, images[i // 4]) for i in range(256)], path)
    assert os.path.getsize(path) < 64 * 4096 * 1.1 + 8000


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    def samples():
        yield sample()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_samples(samples(), tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []


def test_an_extra_field_of_two_types_is_an_error(tmp_path):
    rows = [sample(0, extra={"mine": 1}), sample(1, extra={"mine": "one"})]
    with pytest.raises(DataSpecError, match=r"rows 0 to 1 do not fit.*'one'"):
        write_samples(rows, tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (None, {}),
        ("", {}),
        ('{"a": [1]}', {"a": [1]}),
        ({"a": {"b": 1.0, "c": None}, "d": None}, {"a": {"b": 1.0}}),
    ],
)
def test_parameters_may_be_null_text_or_struct(tmp_path, given, read):
    path = write_rows(tmp_path / "a.parquet", row(reward={"verifier_parm": given}))
    assert next(read_samples(path)).reward.params == read


def test_a_float32_weight_is_read_as_it_was_meant(tmp_path):
    write_samples([sample()], tmp_path / "a.parquet")
    reward = next(read_samples(tmp_path / "a.parquet")).reward
    assert (reward.accuracy_ratio, reward.format_ratio) == (0.9, 0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_source": None}, "data_source is None; allowed: a text that is not empty"),
        ({"ability": ""}, "ability is ''"),
        ({"prompt": []}, r"prompt is \[\]"),
        ({"prompt": [{"role": "human", "content": "q"}]}, r"prompt\[0\].role is 'human'"),
        ({"prompt": [{"role": "user", "content": None}]}, r"prompt\[0\].content is None"),
        ({"images": [{"bytes": None, "path": None}]}, r"images\[0\].*Embed the image"),
        ({"images": [None]}, r"images\[0\] is None"),
        ({"reward": {"verifier": None}}, "reward_model.verifier is None"),
        ({"reward": {"ground_truth": None}}, "reward_model.ground_truth is None"),
        ({"reward": {"accuracy_ratio": -1.0}}, "accuracy_ratio is -1.0; allowed: a finite"),
        ({"reward": {"accuracy_ratio": float("nan")}}, "accuracy_ratio is nan"),
        ({"reward": {"accuracy_ratio": 0.0}}, "no response can earn anything"),
        ({"reward": {"verifier_parm": "{broken"}}, "verifier_parm is '{broken'"),
        ({"reward": {"verifier_parm": "[1]"}}, "verifier_parm is .*allowed: a JSON object"),
        ({"extra_info": {"id": None}, "ability": None}, r"row 0 \(id a:0\): ability"),
    ],
)
def test_a_malformed_row_is_named_with_field_value_and_remedy(tmp_path, changes, message):
    path = write_rows(tmp_path / "a.parquet", row(**changes))
    with pytest.raises(DataSpecError, match=message) as caught:
        list(read_samples(path))
    assert str(caught.value).startswith("a.parquet row 0 (id ")
    assert caught.value.problem.row == 0


def test_reading_rows_goes_on_after_a_malformed_one(tmp_path):
    path = write_rows(tmp_path / "a.parquet", row(ability=None), row())
    bad, good = read_rows(path)
    assert isinstance(bad, DataSpecError)
    assert isinstance(good, Sample)


def test_long_values_are_shortened_in_messages(tmp_path):
    path = write_rows(tmp_path / "a.parquet", row(reward={"verifier_parm": "{" * 9999}))
    with pytest.raises(DataSpecError) as caught:
        list(read_samples(path))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("content", [b"", b"not parquet at all"])
def test_a_file_that_is_no_parquet_is_named(tmp_path, content):
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    with pytest.raises(DataSpecError, match=r"a\.parquet: file is unreadable"):
        list(read_samples(path))


def test_missing_files_columns_and_empty_folders_are_named(tmp_path):
    with pytest.raises(DataSpecError, match=r"gone\.parquet: file is missing"):
        list(read_samples(tmp_path / "gone.parquet"))
    with pytest.raises(DataSpecError, match="without"):
        list(read_samples(tmp_path))


def test_every_missing_and_mistyped_column_is_named(tmp_path):
    pq.write_table(pa.table({"prompt": ["x"], "images": [["a.png"]]}), tmp_path / "a.parquet")
    with pytest.raises(DataSpecError, match="data_source is missing") as caught:
        list(read_samples(tmp_path))
    assert [(problem.field, problem.kind) for problem in caught.value.problems] == [
        ("data_source", "missing_column"),
        ("images", "column_type"),
        ("prompt", "column_type"),
        ("ability", "missing_column"),
        ("reward_model", "missing_column"),
    ]
    assert "of type list<element: string>; allowed: a list of structs" in str(caught.value)


def test_a_missing_field_of_a_struct_is_named(tmp_path):
    whole = row()
    del whole["reward_model"]["ground_truth"], whole["prompt"][0]["role"]
    with pytest.raises(DataSpecError) as caught:
        list(read_samples(write_rows(tmp_path / "a.parquet", whole)))
    fields = [problem.field for problem in caught.value.problems]
    assert fields == ["prompt[].role", "reward_model.ground_truth"]


def test_everything_wrong_with_a_row_is_told_at_once(tmp_path):
    path = write_rows(
        tmp_path / "a.parquet",
        row(data_source=" ", ability=None, prompt=[], reward={"accuracy_ratio": -1.0}),
    )
    (error,) = read_rows(path)
    assert [(problem.field, problem.kind) for problem in error.problems] == [
        ("data_source", "no_source"),
        ("ability", "no_task"),
        ("prompt", "empty_prompt"),
        ("reward_model.accuracy_ratio", "bad_weight"),
    ]
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.problems) == (str(error), error.problems)


def test_a_suffix_says_how_often_a_file_is_used(tmp_path):
    assert file_uses("train_puzzle_puzzlevqa_2648_x2.parquet") == 2
    assert file_uses("train_chart_chartx_100.parquet") == 1
    write_samples([sample(0), sample(1)], tmp_path / "a_x3.parquet")
    assert len(list(read_samples(tmp_path))) == 2
    ids = [item.id for item in read_samples([tmp_path], honour_uses=True)]
    assert ids == ["row-0", "row-1"] * 3


def test_a_path_without_bytes_is_relative_to_the_file(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(png())
    image = [{"bytes": None, "path": "pictures/a.png"}]
    path = write_rows(tmp_path / "a.parquet", row(images=image))
    assert next(read_samples(path)).images[0].open().size == (8, 6)


def test_a_nesting_deeper_than_python_goes_is_bad_json(tmp_path):
    deep = '{"a":' * 900 + "1" + "}" * 900
    (error,) = read_rows(write_rows(tmp_path / "a.parquet", row(reward={"verifier_parm": deep})))
    assert error.problem.kind == "bad_json"


def test_whole_numbers_that_pandas_wrote_as_floats_are_whole_again(tmp_path):
    extra = {"id": 7, "image_width": 640.0, "image_height": 479.5, "difficulty": 1.0}
    (read,) = read_samples(write_rows(tmp_path / "a.parquet", row(extra_info=extra)))
    assert read.id == "7"
    assert read.extra == {"image_width": 640, "image_height": 479.5, "difficulty": 1.0}
    assert isinstance(read.extra["image_width"], int)
    assert isinstance(read.extra["difficulty"], float)


def test_memory_stays_small_though_one_row_group_holds_the_file(tmp_path):
    path = tmp_path / "a.parquet"
    rows = [row(images=[{"bytes": os.urandom(200_000), "path": None}]) for _ in range(600)]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, path, write_batch_size=16)  # 120 MB in one row group, small pages
    code = (
        "import pyarrow.parquet; from data_specs import read_samples; "
        "now = lambda: int(open('/proc/self/statm').read().split()[1]) * 4096 // 1_000_000; "
        f"first = now(); most = [now() - first for _ in read_samples({str(path)!r})]; "
        "print(len(most), max(most))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    num_rows, grown_mb = map(int, done.stdout.split())
    assert num_rows == 600
    assert grown_mb < 150, grown_mb


def test_an_image_opens_as_rgb_and_has_the_hash_of_its_bytes():
    image = ImageRef(data=png())
    assert image.open().mode == "RGB"
    assert image.sha256() == ImageRef(data=png()).sha256() != ImageRef(data=png(1)).sha256()


def bomb():
    """A PNG whose header claims 20,000 x 20,000 pixels."""
    data = bytearray(png())
    data[16:24] = (20000).to_bytes(4, "big") * 2
    return bytes(data)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (ImageRef(data=png()[:40]), "cannot be decoded"),
        (ImageRef(data=png()[:-30]), "cannot be decoded"),
        (ImageRef(data=b""), "cannot be decoded"),
        (ImageRef(data=b"hello"), "starting b'hello'"),
        (ImageRef(data=bomb()), "cannot be decoded|allowed: up to"),
        (ImageRef(path="gone.png"), "cannot be read"),
        (ImageRef(path="/dev/zero"), "no such file"),
        (ImageRef(path="a\0b.png"), "no such file"),
        (ImageRef(path="a" * 9999), "too long"),
        (ImageRef(), "neither bytes nor a path"),
    ],
)
def test_an_image_that_cannot_be_used_is_a_data_error(image, message):
    with pytest.raises(DataSpecError, match=message):
        image.open()


def test_reading_is_fast(tmp_path):
    image = png(0, (36, 36))  # about 4 kB
    write_samples(
        [sample(i, image, extra={"objects": json.dumps([])}) for i in range(4000)],
        tmp_path / "a.parquet",
    )
    started = time.process_time()
    assert sum(1 for _ in read_samples(tmp_path / "a.parquet")) == 4000
    assert 4000 / (time.process_time() - started) > 5000


def test_a_row_in_memory_needs_neither_pictures_nor_prompt():
    row = {
        "data_source": "web",
        "ability": "math",
        "reward_model": {"ground_truth": r"\boxed{7}", "verifier": "mathverify"},
        "extra_info": {"id": "a1"},
    }
    sample = sample_from_row(row)
    assert (sample.id, sample.messages, sample.images) == ("a1", (), ())
    assert sample_from_row(sample_to_row(sample)) == sample
    del row["reward_model"]["verifier"]
    with pytest.raises(DataSpecError, match=r"request row 3 \(id a1\): reward_model.verifier"):
        sample_from_row(row, "request", 3)
