"""`Sample` to V-Triune's parquet rows, such that rows sharing an image share its bytes on disk."""

# pyarrow has no types, so what comes from it is unknown to the checker.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportMissingTypeStubs=false
from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from data_specs.problem import DataSpecError, shorten
from data_specs.sample import Sample
from data_specs.schema import column
from data_specs.schema_arrow import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_PER_GROUP = 1024  # one row group is in memory at once
_ROWS_PER_PAGE = 64  # a page is unpacked whole; without this, one may hold the whole group
_ZSTD_LEVEL = 6


def write_samples(samples: Iterable[Sample], path: str | Path) -> int:
    """Write the samples as one zstd-compressed file and return how many there were.

    The file appears whole or not at all. Fields of `extra` outside the known ones get the type
    they have in the first 1,024 samples. Put samples that share an image side by side: then the
    image costs its bytes once.

    Raises: DataSpecError if a sample does not fit the columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    num_rows = 0
    chunks = _chunks(iter(samples))
    first = next(chunks, [])
    schema = _schema(first)
    try:
        with pq.ParquetWriter(
            temporary,
            schema,
            compression="zstd",
            compression_level=_ZSTD_LEVEL,
            use_dictionary=True,
            write_batch_size=_ROWS_PER_PAGE,
        ) as writer:
            chunk = first
            while chunk:
                rows = [_row(sample, schema) for sample in chunk]
                try:
                    table = pa.Table.from_pylist(rows, schema=schema)
                except pa.ArrowException as error:
                    raise DataSpecError(
                        f"{path.name}: rows {num_rows} to {num_rows + len(rows) - 1} do not fit "
                        f"the columns ({error}); give a field of extra one type in all samples"
                    ) from error
                writer.write_table(table)
                num_rows += len(rows)
                chunk = next(chunks, [])
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return num_rows


def _chunks(samples: Iterator[Sample]) -> Iterator[list[Sample]]:
    while chunk := list(islice(samples, _ROWS_PER_GROUP)):
        yield chunk


def _schema(first: list[Sample]) -> pa.Schema:
    """The columns, and in `extra_info` also what the first rows bring."""
    import pyarrow as pa

    known = {field.name for field in column("extra_info").fields}
    others: dict[str, list[object]] = {}
    for sample in first:
        for name, value in sample.extra.items():
            if name not in known:
                others.setdefault(name, []).append(value)
    fields: list[pa.Field] = []
    for name, values in others.items():
        try:
            fields.append(pa.field(name, pa.infer_type(values)))
        except pa.ArrowException as error:
            raise DataSpecError(
                f"extra field {name!r} has values of several types ({error}); "
                "give it one type, or write it as JSON text"
            ) from error
    return arrow_schema(fields)


def _row(sample: Sample, schema: pa.Schema) -> dict[str, object]:
    """One row as plain Python; names in `extra` that have no column are an error."""
    columns = schema.field("extra_info").type
    unknown = [name for name in sample.extra if columns.get_field_index(name) < 0]
    if unknown:
        raise DataSpecError(
            f"{sample.where or 'sample'} (id {sample.id}): extra field {unknown[0]!r} is "
            f"{shorten(sample.extra[unknown[0]])} but none of the first {_ROWS_PER_GROUP} samples "
            "has it; give it to one of them, or leave it out"
        )
    images = [{"bytes": image.data, "path": image.path} for image in sample.images]
    return sample_to_row(sample) | {"images": images}


def sample_to_row(sample: Sample) -> dict[str, object]:
    """A Sample as a row of V-Triune's columns in plain Python, without the pictures."""
    reward = sample.reward
    return {
        "data_source": sample.source,
        "prompt": [{"role": item.role, "content": item.content} for item in sample.messages],
        "ability": sample.task,
        "reward_model": {
            "answer": reward.answer,
            "ground_truth": reward.ground_truth,
            "accuracy_ratio": reward.accuracy_ratio,
            "format_ratio": reward.format_ratio,
            "verifier": reward.verifier,
            "verifier_parm": json.dumps(dict(reward.params)) if reward.params else None,
        },
        "extra_info": {"image_path": None, **sample.extra, "id": sample.id},
    }
