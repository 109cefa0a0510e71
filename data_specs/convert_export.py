"""V-Triune's rows for TRL and for verl: the same facts in their columns, and all the way back.

TRL gets `prompt` as messages of parts, `images`, and `solution`; every other column reaches its
reward functions. verl gets its own columns, with the judge a second time in `extra_info`, since
its function hook sees nothing else of a row. The parameters of the verifier stay JSON text: as a
struct, every row would have the fields of all others.
"""

# pyarrow has no types, so what comes from it is unknown to the checker.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportMissingTypeStubs=false
from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast
from uuid import uuid4

from data_specs.convert_files import drawn_records
from data_specs.convert_formats import ConvertReport, Gate, guarded, overridden, place_of
from data_specs.convert_log import ConvertLog, Fault, Place
from data_specs.convert_options import ConvertOptions
from data_specs.parquet import count_rows, open_parquet, parquet_files, read_rows
from data_specs.parquet_write import sample_to_row
from data_specs.problem import DataSpecError
from data_specs.sample import IMAGE_MARKER, ImageRef, Sample
from data_specs.schema_arrow import METADATA_KEY, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, object]

_ROWS_PER_GROUP = 256  # one row group is in memory at once
_ZSTD_LEVEL = 6
_JUDGE = ("verifier", "verifier_parm", "accuracy_ratio", "format_ratio")


def export(
    paths: Sequence[Path],
    target: str,
    options: ConvertOptions,
    log: ConvertLog,
    *,
    strict: bool = False,
) -> ConvertReport:
    """Write V-Triune's rows as another trainer has them, whole or not at all.

    Args:
        paths: V-Triune's parquet files, or folders of them.
        target: `trl` or `verl`.
        options: the shared ones; linked images get whole paths, as those trainers need them.
        log: rows that cannot be used.
        strict: write nothing if any row cannot be used.

    Raises: DataSpecError if there is no row to write, or, strictly, if anything was at fault.
    """
    files = parquet_files(paths)
    make, schema = _TARGETS[target]
    gate = Gate(log, options.limit)

    def rows() -> Iterator[Row]:
        for index, sample in enumerate(_samples(files, options, log)):
            try:
                row = make(sample, index) | {"images": _images(sample, options)}
            except DataSpecError as error:
                fault = Fault("image missing", "images", str(error), "images that can be read")
                log.add(fault, place_of(sample))
                continue
            gate.count(sample)
            yield row
            if gate.is_full:
                return

    _write(guarded(rows(), log, strict=strict), schema(_extra_fields(files)), options.out)
    return gate.report(options.out)


def trl_row(sample: Sample, index: int) -> Row:
    """A row of TRL's columns, without the pictures; `solution` is the reference."""
    del index
    row = sample_to_row(sample)
    prompt = [
        {"role": message.role, "content": content_parts(message.content)}
        for message in sample.messages
    ]
    return row | {"prompt": prompt, "solution": sample.reward.ground_truth}


def verl_row(sample: Sample, index: int) -> Row:
    """A row of verl's columns, without the pictures; `index` is its position in the file."""
    row = sample_to_row(sample)
    reward = cast("Row", row["reward_model"])
    judge = {name: reward[name] for name in _JUDGE}
    extra = cast("Row", row["extra_info"])
    return row | {
        "reward_model": {"style": "rule"} | reward,
        "extra_info": extra | {"index": index, "reward_model": judge | {"ability": sample.task}},
    }


def content_parts(content: str) -> list[dict[str, str | None]]:
    """A message's text as parts of type image and text, as TRL has it; markers become images.

    Every part has both keys, since a parquet file gives them to every part anyway.
    """
    parts: list[dict[str, str | None]] = []
    for number, text in enumerate(content.split(IMAGE_MARKER)):
        if number:
            parts.append({"type": "image", "text": None})
        if text:
            parts.append({"type": "text", "text": text})
    return parts


def _samples(files: Sequence[Path], options: ConvertOptions, log: ConvertLog) -> Iterator[Sample]:
    total, done = sum(map(count_rows, files)), 0
    chosen = drawn_records(total, options)
    for path in files:
        for number, row in enumerate(read_rows(path)):
            options.progress(done, total)
            done += 1
            if chosen is not None and done - 1 not in chosen:
                continue
            try:
                if isinstance(row, DataSpecError):
                    problem = row.problems[0]
                    raise Fault("bad row", problem.field, problem.value, problem.allowed)
                yield overridden(row, options)
            except Fault as fault:
                log.add(fault, Place(file=path.name, number=number))


def _images(sample: Sample, options: ConvertOptions) -> list[Row]:
    """The images as both trainers read them: bytes, or the whole path of a linked one."""
    return [_image(image, options) for image in sample.images]


def _image(image: ImageRef, options: ConvertOptions) -> Row:
    if image.data is None and image.path and options.link:
        path = Path(image.path).resolve()
        if not path.is_file():
            raise DataSpecError(f"image {image.path!r} is no file: restore it or remove the row")
        return {"bytes": None, "path": str(path)}
    return {"bytes": image.encoded(), "path": image.path}


def _extra_fields(files: Sequence[Path]) -> dict[str, pa.DataType]:
    """The fields of `extra_info` in the files.

    Raises: DataSpecError if one has several types.
    """
    import pyarrow as pa

    found: dict[str, pa.DataType] = {}
    for path in files:
        with open_parquet(path) as file:
            names = file.schema_arrow.names
            kind = file.schema_arrow.field("extra_info").type if "extra_info" in names else None
        for item in kind if kind is not None and pa.types.is_struct(kind) else ():
            known = found.setdefault(item.name, item.type)
            if pa.types.is_null(known):
                found[item.name] = item.type
            elif known != item.type and not pa.types.is_null(item.type):
                raise DataSpecError(
                    f"{path.name}: extra_info.{item.name} is of type {item.type}, in an earlier "
                    f"file {known}; convert the files one by one"
                )
    return found


def _trl_schema(extra: Mapping[str, pa.DataType]) -> pa.Schema:
    import pyarrow as pa

    text = pa.string()
    part = pa.struct([pa.field("type", text), pa.field("text", text)])
    message = pa.struct([pa.field("role", text), pa.field("content", pa.list_(part))])
    columns = dict(_base_columns(extra))
    columns |= {"prompt": pa.list_(message), "solution": text}
    return _with_images(columns)


def _verl_schema(extra: Mapping[str, pa.DataType]) -> pa.Schema:
    import pyarrow as pa

    columns = dict(_base_columns(extra))
    reward = list(columns["reward_model"])
    judge = [item for item in reward if item.name in _JUDGE] + [pa.field("ability", pa.string())]
    own = [item for item in columns["extra_info"] if item.name not in ("index", "reward_model")]
    own += [pa.field("index", pa.int64()), pa.field("reward_model", pa.struct(judge))]
    columns["reward_model"] = pa.struct([pa.field("style", pa.string()), *reward])
    columns["extra_info"] = pa.struct(own)
    return _with_images(columns)


def _base_columns(extra: Mapping[str, pa.DataType]) -> Iterator[tuple[str, pa.DataType]]:
    """V-Triune's columns, `extra_info` with the fields of the input."""
    import pyarrow as pa

    for item in arrow_schema():
        if item.name != "extra_info":
            yield item.name, item.type
            continue
        ours = {inner.name: inner.type for inner in item.type}
        others = {
            name: pa.string() if pa.types.is_null(kind) else kind
            for name, kind in extra.items()
            if name not in ours
        }
        yield item.name, pa.struct([pa.field(*pair) for pair in (ours | others).items()])


def _with_images(columns: Mapping[str, pa.DataType]) -> pa.Schema:
    """The schema; `datasets` reads from it that `images` are images, and decodes them."""
    import pyarrow as pa

    features = {"info": {"features": {"images": [{"_type": "Image"}]}}}
    metadata = {METADATA_KEY: json.dumps(features)}
    return pa.schema([pa.field(*pair) for pair in columns.items()], metadata=metadata)


def _write(rows: Iterator[Row], schema: pa.Schema, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        with pq.ParquetWriter(
            temporary, schema, compression="zstd", compression_level=_ZSTD_LEVEL
        ) as writer:
            while chunk := list(islice(rows, _ROWS_PER_GROUP)):
                writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


_TARGETS: Mapping[
    str, tuple[Callable[[Sample, int], Row], Callable[[Mapping[str, pa.DataType]], pa.Schema]]
] = {"trl": (trl_row, _trl_schema), "verl": (verl_row, _verl_schema)}
