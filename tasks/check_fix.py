"""Writes what a check found good: the same files without their bad rows, and a list of those."""

# pyarrow has no types, so what comes from it is unknown to the checker.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportMissingTypeStubs=false
from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from data_specs import Problem
from data_specs.parquet import open_parquet
from tasks.check_report import CheckedFile, CheckReport

if TYPE_CHECKING:
    import pyarrow as pa

REJECTS = "rejects.jsonl"
"""Name of the file that lists bad rows and files, one JSON object a line."""

_ROWS_PER_GROUP = 256  # so many rows with their images are in memory at once


@dataclass(frozen=True, kw_only=True)
class FixReport:
    """What `write_good_rows` wrote."""

    num_good: int
    num_rejected: int
    """Rows left out of files that were written."""
    left_out: tuple[str, ...]
    """Files without a good row, or wrong as a whole: not written."""


def write_good_rows(report: CheckReport, out: Path) -> FixReport:
    """Write the good rows of the checked files to `out`, and what was wrong to `rejects.jsonl`.

    Every column is kept as it is, those that we do not read as well; only relative image paths
    change, so that they lead to the same files. Each file appears whole or not at all, and
    `rejects.jsonl` last.

    Raises: ValueError if `out` is not empty.
    """
    refuse_full(out)
    out.mkdir(parents=True, exist_ok=True)
    problems: dict[str, dict[int | None, list[Problem]]] = {}
    for problem in report.problems:
        problems.setdefault(problem.file, {}).setdefault(problem.row, []).append(problem)
    num_good = num_rejected = 0
    left_out: list[str] = []
    for file in report.files:
        bad = problems.get(file.name, {})
        if None in bad or len(bad) >= file.num_rows:
            left_out.append(file.name)
            continue
        _copy_good(file, {row for row in bad if row is not None}, out / file.name)
        num_good += file.num_rows - len(bad)
        num_rejected += len(bad)
    with _appearing(out / REJECTS) as temporary, temporary.open("w", encoding="utf-8") as lines:
        for name, by_row in problems.items():
            lines.writelines(_reject(name, row, found) for row, found in by_row.items())
    return FixReport(num_good=num_good, num_rejected=num_rejected, left_out=tuple(left_out))


def refuse_full(out: Path) -> None:
    """Raise ValueError if there is something at `out` already."""
    if out.is_file() or (out.exists() and any(out.iterdir())):
        raise ValueError(f"{out}: not empty; choose another folder, or delete it")


def _reject(file: str, row: int | None, problems: list[Problem]) -> str:
    """A bad row, or with row null a bad file, as one line of JSON."""
    reasons = [
        {name: value for name, value in asdict(problem).items() if name not in _PLACE}
        for problem in problems
    ]
    return json.dumps({"file": file, "row": row, "id": problems[0].id, "reasons": reasons}) + "\n"


_PLACE = ("file", "row", "id")


def _copy_good(file: CheckedFile, bad: set[int], path: Path) -> None:
    """Copy the rows that are not bad."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    is_good = np.ones(file.num_rows, dtype=np.bool_)
    is_good[list(bad)] = False
    number = 0
    with (
        open_parquet(file.path) as source,
        _appearing(path) as temporary,
        pq.ParquetWriter(temporary, source.schema_arrow, compression="zstd") as writer,
    ):
        for batch in source.iter_batches(batch_size=_ROWS_PER_GROUP, use_threads=False):
            kept = batch.filter(pa.array(is_good[number : number + batch.num_rows]))
            number += batch.num_rows
            writer.write_batch(_with_moved_paths(kept, file.path, path))


def _with_moved_paths(batch: pa.RecordBatch, old: Path, new: Path) -> pa.RecordBatch:
    """The rows with image paths, which are relative to their file, relative to the new one."""
    import pyarrow as pa

    index = batch.schema.get_field_index("images")
    kind = batch.schema.field(index).type if index >= 0 else None
    if kind is None or pa.types.is_null(kind) or not _names_files(batch.column(index)):
        return batch
    rows: list[Any] = batch.column(index).to_pylist()
    for image in (image for row in rows for image in row or () if image):
        if image.get("bytes") is None and image.get("path"):
            target = os.path.abspath(old.parent / image["path"])
            image["path"] = os.path.relpath(target, new.absolute().parent)
    return batch.set_column(index, batch.schema.field(index), pa.array(rows, type=kind))


def _names_files(images: pa.ListArray) -> bool:
    """Whether an image has a path instead of bytes."""
    structs = images.flatten()
    names = [item.name for item in structs.type]
    if "path" not in names:
        return False
    return "bytes" not in names or structs.field(names.index("bytes")).null_count > 0


@contextmanager
def _appearing(path: Path) -> Generator[Path]:
    """A path to write to, which becomes `path` if all goes well and vanishes if not."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
