"""MEGA-Bench rows made for tests: strings in every column, as the dataset has them."""

METRIC_INFO = {
    "field_score_function": {"answer": "exact_str_match"},
    "aggregation": {"function": "mean", "field_weights": {"answer": 1}},
    "response_parse_function": "answer_string",
}


def row(number=0, **columns):
    """One sample; give other values by column name, Python objects where literals are stored."""
    values = {
        "id": str(number),
        "task_name": "waldo",
        "task_description": "Find him in <image>.",
        "global_media": ["./data/a.png"],
        "example_text": "Example 1:\n<image>\nExample Response:\nAnswer: B",
        "example_media": ["./data/b.png"],
        "query_text": "<image>\nQuestion: where?",
        "query_media": ["./data/c.png"],
        "answer": {"answer": "B"},
        "metric_info": METRIC_INFO,
        "eval_context": {},
        "taxonomy_tree_path": "Perception;Visual_Recognition",
        "application": "Perception",
        "input_format": "Photographs",
        "output_format": "structured_output",
    }
    return {
        name: value if isinstance(value, str) else repr(value)
        for name, value in (values | columns).items()
    }


def write_rows(path, rows):
    """A parquet file of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path
