"""Files laid out as Orsta-Data-47k and as other programs write the same rows."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_data_specs_parquet import png

from data_specs import file_uses, read_samples

PARAMS = {
    "det_verifier_normalized": True,
    "det_reward_ratio": {"iou_max_label_first": 1.0, "map": 0.0, "map50": None},
}
READ = {
    "det_verifier_normalized": True,
    "det_reward_ratio": {"iou_max_label_first": 1.0, "map": 0.0},
}


def orsta_row(number, params, images):
    return {
        "data_source": "v3det",
        "images": images,
        "prompt": [{"role": "user", "content": "<image>" * len(images) + "Box every dog."}],
        "ability": "detection",
        "reward_model": {
            "answer": "[]",
            "ground_truth": "<answer>[{'bbox_2d': [1, 2, 30, 40], 'label': 'dog'}]</answer>",
            "accuracy_ratio": 1.0,
            "format_ratio": 0.1,
            "verifier": "detection",
            "verifier_parm": params,
        },
        "extra_info": {"id": f"v3det_{number}", "image_path": "coco/1.jpg"},
    }


def struct(**fields):
    return pa.struct(list(fields.items()))


def schema(text=None, many=pa.list_, params=None, number=None, binary=None):
    """The columns, with types to choose."""
    text, binary = text or pa.string(), binary or pa.binary()
    number = number or pa.float32()
    reward = {
        "answer": text,
        "ground_truth": text,
        "accuracy_ratio": number,
        "format_ratio": number,
        "verifier": text,
        "verifier_parm": params or pa.null(),
    }
    return pa.schema(
        [
            ("data_source", text),
            ("images", many(struct(bytes=binary, path=text))),
            ("prompt", many(struct(role=text, content=text))),
            ("ability", text),
            ("reward_model", struct(**reward)),
            ("extra_info", struct(id=text, image_path=text)),
        ]
    )


RATIO = struct(iou_max_label_first=pa.float64(), map=pa.float64(), map50=pa.float64())
STRUCT = struct(det_verifier_normalized=pa.bool_(), det_reward_ratio=RATIO)
EMBEDDED = {"bytes": png(), "path": "1.jpg"}
NAMED = {"bytes": None, "path": "pictures/1.png"}


@pytest.mark.parametrize("images", [[], [EMBEDDED], [NAMED], [EMBEDDED, NAMED, EMBEDDED]])
@pytest.mark.parametrize(
    ("params", "kind", "read"),
    [
        (None, pa.null(), {}),
        (None, STRUCT, {}),
        (PARAMS, STRUCT, READ),
        (json.dumps(PARAMS), pa.string(), READ),
        ("{}", pa.string(), {}),
        ("", pa.string(), {}),
    ],
)
def test_files_of_orsta_are_read_unchanged(tmp_path, images, params, kind, read):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.png").write_bytes(png())
    path = tmp_path / "train_detection_v3det_1_x2.parquet"
    table = pa.Table.from_pylist([orsta_row(7, params, images)], schema=schema(params=kind))
    pq.write_table(table, path)
    assert file_uses(path) == 2
    (row,) = read_samples(path)
    assert (row.id, row.source, row.task) == ("v3det_7", "v3det", "detection")
    assert row.question == "Box every dog."
    assert row.messages[0].content.count("<image>") == len(row.images) == len(images)
    assert all(image.open().size == (8, 6) for image in row.images)
    assert row.reward.params == read
    assert (row.reward.verifier, row.reward.answer) == ("detection", "[]")
    assert (row.reward.accuracy_ratio, row.reward.format_ratio) == (1.0, 0.1)
    assert row.reward.ground_truth.startswith("<answer>[{'bbox_2d': [1, 2, 30, 40]")
    assert row.extra == {"image_path": "coco/1.jpg"}


@pytest.mark.parametrize(
    "types",
    [
        {"text": pa.large_string(), "binary": pa.large_binary(), "many": pa.large_list},
        {"text": pa.dictionary(pa.int32(), pa.string())},
        {"many": lambda item: pa.list_(item, 1)},
        {"number": pa.float64()},
        {"number": pa.int64()},
    ],
    ids=["large", "dictionary", "fixed size", "float64", "int64"],
)
def test_the_same_rows_are_read_however_their_types_are_stored(tmp_path, types):
    row = orsta_row(7, None, [EMBEDDED])
    row["reward_model"] |= {"accuracy_ratio": 1, "format_ratio": 1}
    plain = pa.Table.from_pylist([row], schema=schema())
    # Built through JSON-like Python, because pyarrow cannot build dictionaries within structs.
    stored = schema(**types) if "dictionary" not in str(types) else schema()
    table = pa.Table.from_pylist([row], schema=stored)
    if "dictionary" in str(types):
        for name in ("data_source", "ability"):
            index = table.schema.get_field_index(name)
            table = table.set_column(index, name, table[name].dictionary_encode())
    pq.write_table(plain, tmp_path / "plain.parquet")
    pq.write_table(table, tmp_path / "stored.parquet")
    (one,), (other,) = (read_samples(tmp_path / f"{name}.parquet") for name in ("plain", "stored"))
    for name in ("id", "source", "task", "messages", "images", "reward", "extra"):
        assert getattr(one, name) == getattr(other, name), name


def test_columns_that_are_not_ours_are_ignored_and_fields_of_extra_info_kept(tmp_path):
    row = orsta_row(7, None, []) | {"embedding": [0.5] * 4, "level": 3}
    row["extra_info"] |= {"index": 4, "difficulty": "hard", "tags": ["a", "b"], "gone": None}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    (read,) = read_samples(tmp_path / "a.parquet")
    extra = {"image_path": "coco/1.jpg", "index": 4, "difficulty": "hard", "tags": ["a", "b"]}
    assert read.extra == extra


def test_a_column_that_is_null_in_every_row_is_absent_where_it_may_be(tmp_path):
    row = orsta_row(7, None, []) | {"images": None, "extra_info": None}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "train_a.parquet")
    (read,) = read_samples(tmp_path / "train_a.parquet")
    assert (read.id, read.images, read.extra) == ("train_a:0", (), {})
