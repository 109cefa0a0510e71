"""The records of JSON, JSON lines and parquet files, with their places, as they are needed."""

# pyarrow has no types, so what comes from it is unknown to the checker.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false
from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from data_specs.convert_layouts import check_layout
from data_specs.convert_log import ConvertLog, Fault, Place
from data_specs.convert_options import ConvertOptions
from data_specs.problem import DataSpecError, shorten

_ROWS_PER_BATCH = 64  # images of one batch are in memory at once
_LIST_KEYS = ("data", "annotations", "questions", "items", "samples", "examples", "rows", "train")
_PICKLES = (".pkl", ".p", ".pickle", ".pt", ".npy")
_LINES = (".jsonl", ".ndjson", ".jsonlines")


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One entry of an input file."""

    fields: Mapping[str, object]
    place: Place
    folder: Path
    """Folder of the file, which its image paths may be relative to."""

    def first(self, names: Iterable[str]) -> object:
        """The first value among these keys that is there, not null and not empty."""
        for name in names:
            value = self.fields.get(name)
            if value is not None and value != "" and value != []:
                return value
        return None

    def text(self, names: Iterable[str]) -> str:
        """The first of these keys as stripped text; numbers as they are written."""
        value = self.first(names)
        if isinstance(value, str):
            return value.strip()
        return "" if value is None or isinstance(value, bool | list | dict | bytes) else str(value)

    def id(self) -> str:
        """The record's own name, or else its number."""
        return self.place.id or str(self.place.number)


def read_records(
    paths: Sequence[Path], format_name: str, options: ConvertOptions, log: ConvertLog
) -> Iterator[Record]:
    """The records of the files, in order; with a seed and a limit, that many drawn by chance.

    Args:
        paths: the files.
        format_name: the layout that first records are checked against; empty = not checked.
        options: the shared ones.
        log: where lines and items that are no records are listed.

    Raises: DataSpecError if a file cannot be read, or its first record has another format's keys.
    """
    files = [_open(path, log) for path in paths]
    total = sum(file.total for file in files)
    chosen = drawn_records(total, options)
    done = 0
    for file in files:
        is_first = True
        for number, fields in file.read():
            options.progress(done, total)
            record = _record(file, number, fields, options)
            if is_first:
                if format_name:
                    check_layout(format_name, record.fields.keys(), record.place)
                is_first = False
            if chosen is None or done in chosen:
                yield record
            done += 1


def drawn_records(total: int, options: ConvertOptions) -> set[int] | None:
    """The numbers of the records to take, if a seed and a limit draw them; None = all in order."""
    if options.seed is None or options.limit is None or options.limit >= total:
        return None
    return set(random.Random(options.seed).sample(range(total), options.limit))


def load_json(
    path: Path, log: ConvertLog, trim: Callable[[dict[str, object]], object] | None = None
) -> object:
    """A file's JSON; a file of JSON lines as a list, in which bad lines are null and logged.

    Args:
        path: the file.
        log: where lines that are no JSON are listed.
        trim: called with every object while it is read, gives what to keep of it.

    Raises: DataSpecError if the file is missing or no JSON.
    """
    if path.suffix.lower() in _PICKLES:
        raise DataSpecError(
            f"{path}: pickles are not opened, since opening one runs what is in it; allowed: "
            ".json, .jsonl, .parquet. Write it as JSON with the program that made it"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataSpecError(
            f"{path}: cannot be read ({error}); allowed: a .json, .jsonl or .parquet file. "
            "Check the path"
        ) from error
    if path.suffix.lower() in _LINES:
        return _lines(text, path, log)
    try:
        return cast("object", json.loads(text, object_hook=trim))
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            return _lines(text, path, log)
        raise DataSpecError(
            f"{path}: is no JSON ({error}), it starts with {shorten(text[:40])}; allowed: a JSON "
            "list or object, or one object a line. Repair the file"
        ) from error


def holds_object(path: Path) -> bool:
    """Whether a JSON file holds one object at its top, not a list of records."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        return stream.read(64).lstrip().startswith("{")


def fields_of(value: object) -> dict[str, object]:
    """A JSON object's fields; none if the value is something else."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def id_text(value: object) -> str:
    """An id as text: 7, 7.0 and "7" are one id; empty if there is none."""
    if value is None or isinstance(value, bool | list | dict):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


@dataclass(frozen=True)
class _File:
    """An input file: how many records, and how to read them."""

    path: Path
    total: int
    read: Callable[[], Iterator[tuple[int, Mapping[str, object]]]]


def _open(path: Path, log: ConvertLog) -> _File:
    if path.suffix.lower() == ".parquet":
        return _open_parquet(path)
    pairs = list(_pairs(load_json(path, log), path, log))
    return _File(path, len(pairs), lambda: iter(pairs))


def _record(
    file: _File, number: int, fields: Mapping[str, object], options: ConvertOptions
) -> Record:
    if options.rename:
        fields = {options.rename.get(name, name): value for name, value in fields.items()}
    names = ("id", "question_id", "questionId", "qid", "ref_id", "uid")
    id_ = next((id_text(fields[name]) for name in names if id_text(fields.get(name))), "")
    place = Place(file=file.path.name, number=number, id=id_)
    return Record(fields=fields, place=place, folder=file.path.parent)


def _pairs(
    value: object, path: Path, log: ConvertLog
) -> Iterator[tuple[int, Mapping[str, object]]]:
    """(number, record) of a file's JSON, however its list is wrapped."""
    if isinstance(value, dict):
        record = cast("dict[str, object]", value)
        inside = [name for name in _LIST_KEYS if isinstance(record.get(name), list)]
        if len(inside) == 1:
            value = record[inside[0]]
        elif record and all(isinstance(item, dict) for item in record.values()):
            named = cast("dict[str, dict[str, object]]", record)
            value = [{"id": name} | item for name, item in named.items()]
        else:
            value = [record]
    if not isinstance(value, list):
        raise DataSpecError(
            f"{path}: holds {shorten(value)}; allowed: a JSON list of records, or an object "
            f"with one under {', '.join(_LIST_KEYS)}. Export the records as a list"
        )
    for number, item in enumerate(cast("list[object]", value)):
        if isinstance(item, dict):
            yield number, cast("dict[str, object]", item)
        elif item is not None:  # null: a line that was no JSON, and is in the log
            fault = Fault("not a record", "record", item, "a JSON object")
            log.add(fault, Place(file=path.name, number=number))


def _lines(text: str, path: Path, log: ConvertLog) -> list[object]:
    values: list[object] = []
    for number, line in enumerate(text.split("\n")):
        value: object = None
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                fault = Fault("not JSON", "line", line, "one JSON object a line")
                log.add(fault, Place(file=path.name, number=number))
        values.append(value)
    return values


def _open_parquet(path: Path) -> _File:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def failed(error: Exception) -> DataSpecError:
        return DataSpecError(
            f"{path}: is no readable parquet file ({error}); allowed: a whole one. "
            "Check the path, or make the file again"
        )

    def read() -> Iterator[tuple[int, Mapping[str, object]]]:
        number = 0
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=_ROWS_PER_BATCH):
                    for row in batch.to_pylist():
                        yield number, cast("dict[str, object]", row)
                        number += 1
        except (OSError, pa.ArrowException) as error:
            raise failed(error) from error

    try:
        with pq.ParquetFile(path) as file:
            total = int(file.metadata.num_rows)
    except (OSError, pa.ArrowException) as error:
        raise failed(error) from error
    return _File(path, total, read)
