"""The columns told once: as Arrow schema, as `datasets` features, as JSON Schema, as a table."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_data_specs_parquet import png, sample

from data_specs import KINDS, ImageRef, sample_to_row, write_samples
from data_specs.schema import COLUMNS, column, columns_and_fields
from data_specs.schema_arrow import arrow_schema, type_faults
from data_specs.schema_text import columns_table, json_schema

DOCS = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
TEXT = {"dtype": "string", "_type": "Value"}


def test_the_columns_written_are_those_of_v_triune_in_its_types():
    schema = arrow_schema()
    text = pa.string()
    assert schema.names == [
        *("data_source", "images", "prompt", "ability", "reward_model", "extra_info")
    ]
    image = pa.struct([("bytes", pa.binary()), ("path", text)])
    assert schema.field("images").type == pa.list_(image)
    message = pa.struct([("role", text), ("content", text)])
    assert schema.field("prompt").type == pa.list_(message)
    assert {item.name: str(item.type) for item in schema.field("reward_model").type} == {
        "answer": "string",
        "ground_truth": "string",
        "accuracy_ratio": "float",
        "format_ratio": "float",
        "verifier": "string",
        "verifier_parm": "string",
    }
    extra = {item.name: str(item.type) for item in schema.field("extra_info").type}
    assert extra["difficulty"] == "double" and extra["resized_height"] == "int64"


def test_datasets_finds_its_features_in_the_file(tmp_path):
    write_samples([sample(extra={"mine": 1.5, "tags": ["a"]})], tmp_path / "a.parquet")
    metadata = pq.read_schema(tmp_path / "a.parquet").metadata
    features = json.loads(metadata[b"huggingface"])["info"]["features"]
    assert features["images"] == [{"_type": "Image"}]
    assert features["prompt"] == [{"role": TEXT, "content": TEXT}]
    assert features["reward_model"]["format_ratio"] == {"dtype": "float32", "_type": "Value"}
    assert features["extra_info"]["image_width"] == {"dtype": "int64", "_type": "Value"}
    assert features["extra_info"]["difficulty"] == {"dtype": "float64", "_type": "Value"}
    assert features["extra_info"]["mine"] == {"dtype": "float64", "_type": "Value"}
    assert features["extra_info"]["tags"] == [TEXT]


def test_the_features_say_of_every_field_what_arrow_says(tmp_path):
    write_samples([sample(extra={"mine": {"deep": [1]}})], tmp_path / "a.parquet")
    schema = pq.read_schema(tmp_path / "a.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]

    def same(feature, kind):
        if isinstance(feature, list):
            return same(feature[0], kind.value_type)
        if feature.get("_type") == "Image":
            return [item.name for item in kind] == ["bytes", "path"]
        if "_type" in feature:
            names = {"float": "float32", "double": "float64"}
            return feature["dtype"] == names.get(str(kind), str(kind))
        return list(feature) == [item.name for item in kind] and all(
            same(feature[item.name], item.type) for item in kind
        )

    assert list(features) == schema.names
    assert all(same(features[item.name], item.type) for item in schema)


def test_datasets_loads_what_we_write_with_its_images_decoded(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the library `datasets` is not installed")
    path = tmp_path / "train_a_2.parquet"
    images = (ImageRef(data=png(0)), ImageRef(data=png(1)))
    write_samples([sample(0), sample(1, images=images), sample(2, images=())], path)
    rows = datasets.load_dataset(
        "parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert isinstance(rows.features["images"].feature, datasets.Image)
    assert [[image.size for image in row["images"]] for row in rows] == [
        [(8, 6)],
        [(8, 6), (8, 6)],
        [],
    ]
    first = rows[0]
    assert first["prompt"][1] == {"role": "user", "content": "<image> How many dogs? "}
    assert json.loads(first["reward_model"]["verifier_parm"])["relative_tolerance"] == 0.05


@pytest.mark.parametrize(
    ("name", "kind", "faults"),
    [
        ("data_source", pa.int64(), ["data_source"]),
        ("data_source", pa.dictionary(pa.int8(), pa.large_string()), []),
        ("data_source", pa.null(), []),
        ("images", pa.list_(pa.binary()), ["images"]),
        ("images", pa.struct([("bytes", pa.binary())]), ["images"]),
        ("images", pa.list_(pa.struct([("bytes", pa.string())])), ["images[].bytes"]),
        ("images", pa.large_list(pa.struct([("bytes", pa.large_binary())])), []),
        ("images", pa.list_(pa.null()), []),
        ("prompt", pa.string(), ["prompt"]),
        ("prompt", pa.list_(pa.struct([("content", pa.string())])), ["prompt[].role"]),
        ("reward_model", pa.string(), ["reward_model"]),
        (
            "reward_model",
            pa.struct([("ground_truth", pa.list_(pa.string())), ("format_ratio", pa.string())]),
            ["reward_model.ground_truth", "reward_model.format_ratio", "reward_model.verifier"],
        ),
        ("extra_info", pa.list_(pa.string()), ["extra_info"]),
        ("extra_info", pa.struct([("id", pa.int64()), ("difficulty", pa.string())]), []),
    ],
)
def test_a_type_that_rows_cannot_be_read_from_is_named(name, kind, faults):
    schema = arrow_schema()
    schema = schema.set(schema.get_field_index(name), pa.field(name, kind))
    assert [fault.field for fault in type_faults(schema)] == faults


def test_the_json_schema_has_every_column_and_no_other():
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert list(schema["properties"]) == [item.name for item in COLUMNS]
    assert schema["required"] == ["data_source", "prompt", "ability", "reward_model"]
    reward = schema["properties"]["reward_model"]
    assert reward["required"] == ["ground_truth", "verifier"]
    assert reward["properties"]["accuracy_ratio"]["type"] == ["number", "null"]
    assert reward["properties"]["accuracy_ratio"]["minimum"] == 0
    role = schema["properties"]["prompt"]["items"]["properties"]["role"]
    assert role["enum"] == ["system", "user", "assistant", "tool"]
    space = schema["properties"]["extra_info"]["properties"]["coordinate_space"]
    assert space["enum"] == ["pixel", "resized", "per_mille", "unit", None]
    for name, item in columns_and_fields():
        assert item.doc, name


def test_our_rows_keep_to_the_json_schema_and_broken_ones_do_not():
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    jsonschema.Draft202012Validator.check_schema(json_schema())
    validator = jsonschema.Draft202012Validator(json_schema())
    row = sample_to_row(sample()) | {"images": [{"bytes": "aGk=", "path": None}]}
    assert validator.is_valid(row)
    for broken in (
        row | {"data_source": None},
        row | {"ability": ""},
        row | {"prompt": []},
        row | {"prompt": [{"role": "human", "content": "q"}]},
        row | {"reward_model": {**row["reward_model"], "format_ratio": -1}},
        row | {"reward_model": {**row["reward_model"], "verifier": None}},
        row | {"extra_info": {"coordinate_space": "percent"}},
        row | {"extra_info": {"image_width": 0}},
    ):
        assert not validator.is_valid(broken), broken


def test_the_documentation_shows_the_table_of_the_columns():
    assert columns_table() in DOCS


def test_the_documentation_explains_every_kind_of_problem():
    explained = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", DOCS, re.MULTILINE))
    assert {kind: explained.get(kind) for kind in KINDS} == KINDS


def test_a_column_is_found_by_its_name():
    assert column("reward_model.verifier_parm").type == "json"
    assert column("prompt[].role").allowed == ("system", "user", "assistant", "tool")
