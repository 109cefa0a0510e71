"""Parquet files of V-Triune's rows, read as `Sample`s while memory holds a few rows.

Rows are those of Orsta-Data-47k: data_source, images, prompt, ability, reward_model, extra_info.
"""

# pyarrow has no types, so what comes from it is unknown to the checker.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportMissingTypeStubs=false
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from data_specs.parquet_row import RowReader, sample_from_row
from data_specs.problem import DataSpecError, Problem, shorten
from data_specs.sample import ImageRef, Sample
from data_specs.schema import COLUMNS
from data_specs.schema_arrow import TypeFault, type_faults

if TYPE_CHECKING:
    import pyarrow.parquet as pq

__all__ = [
    "count_rows",
    "file_uses",
    "open_parquet",
    "parquet_files",
    "read_rows",
    "read_samples",
    "sample_from_row",
]

_ROWS_PER_BATCH, _BYTES_PER_BATCH = 128, 8_000_000  # images of one batch are in memory at once
_BUFFER_BYTES = 1 << 20  # a row group may hold the whole file: it is read in pieces of this size
_USES = re.compile(r"_x([1-9][0-9]{0,2})$")


def file_uses(path: str | Path) -> int:
    """How often a file's rows are used: K if its name ends in `_xK.parquet`, otherwise 1."""
    found = _USES.search(Path(path).stem)
    return int(found.group(1)) if found else 1


def count_rows(path: str | Path) -> int:
    """Rows of a file, from its footer; 0 if it cannot be read."""
    try:
        with open_parquet(Path(path)) as file:
            return file.metadata.num_rows
    except DataSpecError:
        return 0


def read_samples(
    paths: str | Path | Iterable[str | Path], *, honour_uses: bool = False
) -> Iterator[Sample]:
    """The samples of one or several files, in file order, read as they are needed.

    Args:
        paths: files, or folders of which every `*.parquet` file is read, by name.
        honour_uses: give the rows of a file `..._xK.parquet` K times, as training counts them.

    Raises: DataSpecError at the first row or file that cannot be used.
    """
    for path in parquet_files(paths):
        for _ in range(file_uses(path) if honour_uses else 1):
            for row in read_rows(path):
                if isinstance(row, DataSpecError):
                    raise row
                yield row


def read_rows(path: str | Path) -> Iterator[Sample | DataSpecError]:
    """The rows of one file; a malformed row gives its error instead of stopping the reading.

    Raises: DataSpecError if the file itself is missing, no parquet, or lacks a column.
    """
    import pyarrow as pa

    path = Path(path)
    file = open_parquet(path)
    reader = RowReader(path)
    try:
        names = file.schema_arrow.names
        columns = [item.name for item in COLUMNS if item.name in names]
        number = 0
        last_image: bytes | None = None
        for batch in file.iter_batches(_batch_rows(file), columns=columns, use_threads=False):
            for raw in batch.to_pylist():
                try:
                    sample = reader.sample(cast("dict[str, object]", raw), number)
                except DataSpecError as error:
                    number += 1
                    yield error
                    continue
                number += 1
                # Rows that share an image lie side by side: keep one copy of its bytes.
                if sample.images and sample.images[0].data is not None:
                    if sample.images[0].data == last_image:
                        first = ImageRef(data=last_image, path=sample.images[0].path)
                        sample = replace(sample, images=(first, *sample.images[1:]))
                    else:
                        last_image = sample.images[0].data
                yield sample
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, f"damaged ({error})", "an intact parquet file") from error
    finally:
        file.close()


def parquet_files(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """Every file meant by `paths`: files as they are, folders as their `*.parquet` files by name.

    Raises: DataSpecError for a folder without any.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    files: list[Path] = []
    for path in map(Path, given):
        if path.is_dir():
            inside = sorted(path.glob("*.parquet"))
            if not inside:
                raise _unreadable(path, "a folder without *.parquet files", "parquet files in it")
            files.extend(inside)
        else:
            files.append(path)
    return files


def open_parquet(path: Path) -> pq.ParquetFile:
    """The opened file; its columns and their types are those that rows are read from.

    Raises: DataSpecError if they are not, or if the file is missing or no parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # pyarrow's read-ahead would keep every row group that was read
        file = pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except FileNotFoundError as error:
        raise _unreadable(path, "missing", "the path of a parquet file") from error
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, f"unreadable ({error})", "an intact parquet file") from error
    faults = type_faults(file.schema_arrow)
    if faults:
        names = file.schema_arrow.names
        file.close()
        raise DataSpecError.of(*(_bad_column(path, fault, names) for fault in faults))
    return file


def _batch_rows(file: pq.ParquetFile) -> int:
    """How many rows to read at once."""
    groups = (file.metadata.row_group(index) for index in range(file.metadata.num_row_groups))
    num_bytes = sum(group.total_byte_size for group in groups)
    fitting = _BYTES_PER_BATCH * file.metadata.num_rows // max(1, num_bytes)
    return max(1, min(_ROWS_PER_BATCH, fitting))


def _bad_column(path: Path, fault: TypeFault, names: list[str]) -> Problem:
    missing = not fault.found
    return Problem(
        file=path.name,
        row=None,
        id="",
        field=fault.field,
        value=f"missing (columns are {shorten(names)})" if missing else f"of type {fault.found}",
        allowed=fault.allowed,
        remedy=f"{'Add the column' if missing else 'Change its type'}, or convert the file with "
        "`vl data convert`",
        kind="missing_column" if missing else "column_type",
    )


def _unreadable(path: Path, value: str, allowed: str) -> DataSpecError:
    return DataSpecError.of(
        Problem(
            file=str(path),
            row=None,
            id="",
            field="file",
            value=value,
            allowed=allowed,
            remedy="Check the path, or make the file again",
            kind="unreadable_file",
        )
    )
