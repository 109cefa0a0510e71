"""MEGA-Bench's dataset, task by task: every column a string, several of them Python literals.

Source: TIGER-Lab/MEGA-Bench on the Hugging Face Hub, its card and the code that reads it.
"""

# pyarrow and datasets have no types, so what comes from them is unknown to the checker.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false
from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from data_specs.parquet import parquet_files
from data_specs.problem import DataSpecError, Problem, shorten

Config = Literal["core", "open", "core_single_image", "open_single_image"]
CONFIGS: tuple[Config, ...] = get_args(Config)
HUB_ID = "TIGER-Lab/MEGA-Bench"

COLUMNS = (
    "id",
    "task_name",
    "task_description",
    "global_media",
    "example_text",
    "example_media",
    "query_text",
    "query_media",
    "answer",
    "metric_info",
    "eval_context",
)
"""The columns that are needed; taxonomy_tree_path and the others may be missing."""

_OF_THE_TASK = ("task_description", "global_media", "example_text", "example_media", "metric_info")


@dataclass(frozen=True, kw_only=True)
class MegaQuery:
    """One question of a task."""

    id: str
    """Of the sample, over all tasks: `global_idx` in response files."""
    index: int
    """Position in its task, from 0: `query_idx` in response files."""
    text: str
    """Holds `<image>` or `<video>` for each of `media`."""
    media: tuple[str, ...] = ()
    """Paths as the dataset gives them, from the folder that holds `data/`."""
    answer: Mapping[str, Any]
    """Field -> reference; a name that starts with `##` marks a field without reference."""
    eval_context: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the metric needs beside the reference: tests, a planning problem, constraints."""


@dataclass(frozen=True, kw_only=True)
class MegaTask:
    """A task: what is asked in all its queries, how replies are scored, and the queries."""

    name: str
    description: str = ""
    global_media: tuple[str, ...] = ()
    example_text: str = ""
    """The one-shot example with the closing instruction; empty for a task without one."""
    example_media: tuple[str, ...] = ()
    metric_info: Mapping[str, Any]
    """As the dataset has it; its parts are the properties below."""
    taxonomy: tuple[str, ...] = ()
    """Names from the application down."""
    queries: tuple[MegaQuery, ...] = ()

    @property
    def parser(self) -> str | None:
        """Name of the response parser; None: the reply is read as JSON, without fallback."""
        return self.metric_info.get("response_parse_function")

    @property
    def field_metrics(self) -> Mapping[str, str]:
        """Field -> metric."""
        return self.metric_info["field_score_function"]

    @property
    def aux_metrics(self) -> Mapping[str, str]:
        """Further score -> metric that looks at the whole answer."""
        return self.metric_info.get("global_aux_metrics") or {}

    @property
    def aggregation(self) -> str | None:
        """How field scores become the query's: `mean` or `min`."""
        return self.metric_info["aggregation"].get("function")

    @property
    def field_weights(self) -> Mapping[str, float]:
        """Field -> weight in the mean."""
        return self.metric_info["aggregation"].get("field_weights") or {}

    @property
    def judge_config(self) -> Mapping[str, Any]:
        """Prompt and its parts for the judge; empty for a task of rules."""
        return self.metric_info.get("gpt4o_eval_configs") or {}

    @property
    def has_example(self) -> bool:
        """Whether an example is shown: it counts as a sample in summaries."""
        return bool(self.example_text or self.example_media)


def read_tasks(
    source: str | Path | Iterable[str | Path], config: Config | None = None
) -> list[MegaTask]:
    """The tasks of a configuration in the order of their first rows.

    Args:
        source: parquet files; a folder of them, or with one folder a configuration; or a Hub id
            such as `TIGER-Lab/MEGA-Bench`, which needs the package `datasets`.
        config: one of CONFIGS; needed for a Hub id and for a folder of several.

    Raises: DataSpecError at the first row that cannot be used.
    """
    if isinstance(source, str) and not Path(source).exists() and source.count("/") == 1:
        return group_rows(_rows_of_hub(source, config))
    return group_rows(_rows_of_files(_files_of(source, config)))


def group_rows(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> list[MegaTask]:
    """Rows, each with its place (`file row 3`), as tasks.

    Raises: DataSpecError for a row that cannot be used, or unlike its task's first one.
    """
    groups: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for where, row in rows:
        for column in COLUMNS:
            if not isinstance(row.get(column), str):
                raise _problem(where, row, column, "a string", "Load the dataset anew")
        groups.setdefault(row["task_name"], []).append((where, row))
    return [_task(name, group) for name, group in groups.items()]


def _task(name: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> MegaTask:
    where, first = rows[0]
    for other_where, row in rows[1:]:
        for column in _OF_THE_TASK:
            if row[column] != first[column]:
                allowed = f"the same in all rows of task {name!r}, as in {where}"
                raise _problem(other_where, row, column, allowed, "Load the dataset anew")
    path = first.get("taxonomy_tree_path")
    return MegaTask(
        name=name,
        description=first["task_description"],
        global_media=_paths(where, first, "global_media"),
        example_text=first["example_text"],
        example_media=_paths(where, first, "example_media"),
        metric_info=_metric_info(where, first),
        taxonomy=tuple(path.split(";")) if isinstance(path, str) and path else (),
        queries=tuple(_query(place, row, index) for index, (place, row) in enumerate(rows)),
    )


def _query(where: str, row: Mapping[str, Any], index: int) -> MegaQuery:
    return MegaQuery(
        id=row["id"],
        index=index,
        text=row["query_text"],
        media=_paths(where, row, "query_media"),
        answer=_dict(where, row, "answer"),
        eval_context=_dict(where, row, "eval_context") if row["eval_context"].strip() else {},
    )


def _metric_info(where: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
    info = _dict(where, row, "metric_info")
    aggregation = info.get("aggregation")
    if not isinstance(info.get("field_score_function"), dict) or not isinstance(aggregation, dict):
        allowed = "a dict with `field_score_function` and `aggregation`, both dicts"
        raise _problem(where, row, "metric_info", allowed, "Load the dataset anew")
    return info


def _paths(where: str, row: Mapping[str, Any], column: str) -> tuple[str, ...]:
    value = _literal(where, row, column) if row[column].strip() else []
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise _problem(where, row, column, "a list of paths", "Load the dataset anew")
    return tuple(cast("Sequence[str]", value))


def _dict(where: str, row: Mapping[str, Any], column: str) -> Mapping[str, Any]:
    value = _literal(where, row, column)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _problem(where, row, column, "a dict with string keys", "Load the dataset anew")
    return cast("Mapping[str, Any]", value)


def _literal(where: str, row: Mapping[str, Any], column: str) -> object:
    """The value of a Python literal; nothing is run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings, such as \d
            return ast.literal_eval(row[column])
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        allowed = f"a Python literal ({error})"
        raise _problem(where, row, column, allowed, "Load the dataset anew") from error


def _files_of(source: str | Path | Iterable[str | Path], config: Config | None) -> list[Path]:
    if isinstance(source, str | Path) and Path(source).is_dir() and config is not None:
        folder = Path(source)
        inside = sorted([*folder.glob(f"{config}/*.parquet"), *folder.glob(f"{config}-*.parquet")])
        if inside:
            return inside
        if any((folder / name).is_dir() for name in CONFIGS):
            raise DataSpecError(
                f"{folder}: found no parquet files of configuration {config!r}; allowed: "
                f"{folder.name}/{config}/*.parquet. Give the folder of the downloaded dataset"
            )
    return parquet_files(source)


def _rows_of_files(files: Sequence[Path]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in files:
        try:
            rows = pq.read_table(path).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise DataSpecError(
                f"{path}: cannot be read ({error}); allowed: a parquet file of MEGA-Bench. "
                "Check the path, or load the dataset anew"
            ) from error
        for number, row in enumerate(rows):
            yield f"{path.name} row {number}", cast("Mapping[str, Any]", row)


def _rows_of_hub(name: str, config: Config | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if config is None:
        raise DataSpecError(f"{name}: found no configuration; allowed: {', '.join(CONFIGS)}")
    from datasets import load_dataset

    rows = load_dataset(name, config, split="test")
    for number, row in enumerate(rows):
        yield f"{name} {config} row {number}", cast("Mapping[str, Any]", row)


def _problem(
    where: str, row: Mapping[str, Any], column: str, allowed: str, remedy: str
) -> DataSpecError:
    file, _, number = where.rpartition(" row ")
    return DataSpecError.of(
        Problem(
            file=file,
            row=int(number),
            id=str(row.get("id", "")),
            field=column,
            value=shorten(row[column]) if column in row else "missing",
            allowed=allowed,
            remedy=remedy,
            kind="bad_value" if column in row else "missing_column",
        )
    )
