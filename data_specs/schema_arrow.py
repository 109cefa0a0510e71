"""The columns as an Arrow schema: of files we write, and whether a file has types we can read."""

# pyarrow has no types, so what comes from it is unknown to the checker.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportMissingTypeStubs=false
from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from data_specs.schema import COLUMNS, Column, ColumnType

if TYPE_CHECKING:
    import pyarrow as pa

METADATA_KEY = b"huggingface"
"""Where Hugging Face `datasets` looks for the features of a parquet file."""

_ARROW: Mapping[ColumnType, str] = {
    "text": "string",
    "json": "string",
    "integer": "int64",
    "float32": "float",
    "float64": "double",
    "bytes": "binary",
}
"""Arrow's name of each simple type that we write."""


class TypeFault(NamedTuple):
    """A column of a file that rows cannot be read from."""

    field: str
    """Dotted name."""
    found: str
    """Arrow type, or an empty text if the column is missing."""
    allowed: str


def arrow_schema(others: Sequence[pa.Field] = ()) -> pa.Schema:
    """The columns as written, with the metadata that `datasets` reads.

    Args:
        others: fields that `extra_info` gets beside ours.
    """
    import pyarrow as pa

    fields = [pa.field(item.name, _arrow_type(item)) for item in COLUMNS[:-1]]
    features = {item.name: _feature(item) for item in COLUMNS[:-1]}
    extra = COLUMNS[-1]
    fields.append(pa.field(extra.name, pa.struct([*_arrow_type(extra), *others])))
    features[extra.name] = {item.name: _feature(item) for item in extra.fields} | {
        item.name: _feature_of(item.type) for item in others
    }
    metadata = {METADATA_KEY: json.dumps({"info": {"features": features}})}
    return pa.schema(fields, metadata=metadata)


def type_faults(schema: pa.Schema) -> list[TypeFault]:
    """What keeps rows from being read from a file with this schema; other columns may be there."""
    return list(_faults(COLUMNS, {item.name: item.type for item in schema}, ""))


def _arrow_type(column: Column) -> pa.DataType:
    import pyarrow as pa

    if not column.fields:
        return pa.type_for_alias(_ARROW[column.type])
    struct = pa.struct([pa.field(item.name, _arrow_type(item)) for item in column.fields])
    return struct if column.type == "struct" else pa.list_(struct)


def _feature(column: Column) -> object:
    """The column as `datasets` describes it.

    A list is written as a JSON list of one feature: every release of `datasets` reads that form,
    while its names for lists have changed.
    """
    if column.type == "images":
        return [{"_type": "Image"}]
    if not column.fields:
        return {"dtype": _DTYPES.get(_ARROW[column.type], _ARROW[column.type]), "_type": "Value"}
    struct = {item.name: _feature(item) for item in column.fields}
    return struct if column.type == "struct" else [struct]


_DTYPES = {"float": "float32", "double": "float64"}
"""`datasets`' names of the types that it does not call as Arrow does."""


def _feature_of(kind: pa.DataType) -> object:
    """An Arrow type as `datasets` describes it."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return {item.name: _feature_of(item.type) for item in kind}
    if pa.types.is_list(kind):
        return [_feature_of(kind.value_type)]
    return {"dtype": _DTYPES.get(str(kind), str(kind)), "_type": "Value"}


def _faults(
    columns: Sequence[Column], found: Mapping[str, pa.DataType], prefix: str
) -> Iterator[TypeFault]:
    for column in columns:
        name = prefix + column.name
        if column.name not in found:
            if column.is_needed:
                yield TypeFault(name, "", _WORDS[column.type])
            continue
        kind = _plain(found[column.name])
        if not _fits(column.type, kind):
            yield TypeFault(name, str(found[column.name]), _WORDS[column.type])
        elif column.fields and column.name != "extra_info" and not _is("null", kind):
            # in extra_info, names that we know may mean something else to those who made the file
            struct = kind if column.type == "struct" else _plain(kind.value_type)
            if not _is("null", struct):
                mark = "." if column.type == "struct" else "[]."
                inner = {item.name: item.type for item in struct}
                yield from _faults(column.fields, inner, name + mark)


_WORDS: Mapping[ColumnType, str] = {
    "text": "a text",
    "json": "a text that holds JSON, a struct or null",
    "integer": "whole numbers",
    "float32": "numbers",
    "float64": "numbers",
    "bytes": "binary",
    "struct": "a struct",
    "structs": "a list of structs",
    "images": "a list of structs {bytes: binary, path: text}",
}

_LISTS = "list large_list fixed_size_list list_view large_list_view"
_TEXTS = "string large_string string_view"
_NUMBERS = "integer floating decimal"
_ACCEPTED: Mapping[ColumnType, str] = {
    "text": _TEXTS,
    "json": f"{_TEXTS} struct",
    "integer": "integer floating",  # pandas writes whole numbers with gaps as floats
    "float32": _NUMBERS,
    "float64": _NUMBERS,
    "bytes": "binary large_binary binary_view fixed_size_binary",
    "struct": "struct",
    "structs": _LISTS,
    "images": _LISTS,
}
"""Names of pyarrow's tests for the types that each of ours can be read from."""


def _fits(wanted: ColumnType, kind: pa.DataType) -> bool:
    if not _is(f"null {_ACCEPTED[wanted]}", kind):
        return False
    if wanted in ("structs", "images"):
        return _is("null", kind) or _is("null struct", _plain(kind.value_type))
    return True


def _is(names: str, kind: pa.DataType) -> bool:
    import pyarrow as pa

    return any(getattr(pa.types, f"is_{name}")(kind) for name in names.split())


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values, however they are stored."""
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        return _plain(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _plain(kind.value_type)
    return kind
