"""The dataset's rows become tasks with queries; what is wrong with a row is said with its place."""

import pytest
from megabench_rows import row, write_rows

from data_specs import DataSpecError
from data_specs.megabench import group_rows, read_tasks


def located(*rows):
    return [(f"test.parquet row {number}", item) for number, item in enumerate(rows)]


def test_rows_are_grouped_by_task_and_numbered_within_it():
    tasks = group_rows(located(row(7), row(8, task_name="worldle"), row(9, answer={"answer": "C"})))
    assert [task.name for task in tasks] == ["waldo", "worldle"]
    waldo = tasks[0]
    assert [(query.id, query.index, query.answer) for query in waldo.queries] == [
        ("7", 0, {"answer": "B"}),
        ("9", 1, {"answer": "C"}),
    ]
    assert waldo.queries[0].media == ("./data/c.png",)
    assert waldo.taxonomy == ("Perception", "Visual_Recognition")
    assert waldo.parser == "answer_string"
    assert waldo.field_metrics == {"answer": "exact_str_match"}
    assert waldo.field_weights == {"answer": 1}
    assert waldo.has_example


def test_a_task_may_have_judges_a_further_metric_and_no_example():
    info = {
        "field_score_function": {"a": "gpt_4o_as_judge"},
        "aggregation": {"function": "mean", "field_weights": {"a": 1, "proximity": 5}},
        "response_parse_function": None,
        "global_aux_metrics": {"proximity": "geo_proximity_location_dict"},
        "gpt4o_eval_configs": {"eval_criteria_prompt": "Judge {x}."},
    }
    (task,) = group_rows(located(row(metric_info=info, example_text="", example_media=[])))
    assert task.parser is None
    assert task.aux_metrics == {"proximity": "geo_proximity_location_dict"}
    assert task.judge_config == {"eval_criteria_prompt": "Judge {x}."}
    assert not task.has_example


def test_literals_are_read_and_never_run(tmp_path):
    evil = f"__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch()"
    with pytest.raises(DataSpecError, match=r"answer is .*allowed: a Python literal"):
        group_rows(located(row(answer=evil)))
    assert not (tmp_path / "ran").exists()
    backslash = group_rows(located(row(answer="{'answer': '\\d'}")))  # no warning either
    assert backslash[0].queries[0].answer == {"answer": "\\d"}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"answer": "['B']"}, "answer is .*allowed: a dict with string keys"),
        ({"query_media": "{'a': 1}"}, "query_media is .*allowed: a list of paths"),
        ({"metric_info": "{}"}, "metric_info is .*`field_score_function` and `aggregation`"),
        ({"answer": "[" * 5000}, "answer is .*allowed: a Python literal"),
    ],
)
def test_a_bad_value_is_named_with_its_row(columns, message):
    with pytest.raises(DataSpecError, match=rf"test.parquet row 1 \(id 1\): {message}"):
        group_rows(located(row(0), row(1, task_name="other", **columns)))


def test_a_missing_column_is_named():
    bad = row(3)
    del bad["eval_context"]
    with pytest.raises(DataSpecError, match=r"row 0 \(id 3\): eval_context is missing"):
        group_rows(located(bad))


@pytest.mark.parametrize(
    "column", ["task_description", "global_media", "example_text", "example_media", "metric_info"]
)
def test_rows_of_a_task_agree_on_what_belongs_to_the_task(column):
    other = "{'other': 1}" if column == "metric_info" else "['other']"
    with pytest.raises(DataSpecError, match=f"row 1 .*{column} is .*allowed: the same in all rows"):
        group_rows(located(row(0), row(1, **{column: other})))


def test_a_folder_of_configurations_a_folder_of_files_and_a_file_are_read(tmp_path):
    core = write_rows(tmp_path / "core" / "test-00000-of-00001.parquet", [row(0)])
    write_rows(tmp_path / "open" / "test-00000-of-00001.parquet", [row(1, task_name="poem")])
    assert [task.name for task in read_tasks(tmp_path, "core")] == ["waldo"]
    assert [task.name for task in read_tasks(str(tmp_path), "open")] == ["poem"]
    assert [task.name for task in read_tasks(tmp_path / "open")] == ["poem"]
    assert [task.name for task in read_tasks([core])] == ["waldo"]
    with pytest.raises(DataSpecError, match="no parquet files of configuration"):
        read_tasks(tmp_path, "open_single_image")


def test_a_hub_id_needs_a_configuration_and_reads_through_datasets(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(name, config, split):
        asked.append((name, config, split))
        return [row(0), row(1)]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    (task,) = read_tasks("TIGER-Lab/MEGA-Bench", "core")
    assert len(task.queries) == 2
    assert asked == [("TIGER-Lab/MEGA-Bench", "core", "test")]
    with pytest.raises(DataSpecError, match="allowed: core, open, core_single_image"):
        read_tasks("TIGER-Lab/MEGA-Bench")
