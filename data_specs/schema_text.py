"""The columns for people and other programs: a JSON Schema of a row, and a table of its fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_specs.schema import COLUMNS, Column, ColumnType, columns_and_fields

JSON_SCHEMA_DRAFT = "https://json-schema.org/draft/2020-12/schema"

_JSON: Mapping[ColumnType, dict[str, Any]] = {
    "text": {"type": "string"},
    "integer": {"type": "integer"},
    "float32": {"type": "number"},
    "float64": {"type": "number"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
    "json": {
        "anyOf": [
            {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"type": "object"},
            },
            {"type": "object"},
        ]
    },
}


def json_schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) of one row; the bytes of an image count as base64 text."""
    return {
        "$schema": JSON_SCHEMA_DRAFT,
        "title": "A row of vl-triune",
        "description": "V-Triune's columns; in extra_info also ours. Further columns are ignored.",
        **_object(COLUMNS),
    }


def columns_table() -> str:
    """Every column and field as a Markdown table."""
    lines = ["| field | type | must be there | meaning |", "| --- | --- | --- | --- |"]
    for name, item in columns_and_fields():
        origin = " (ours)" if item.is_ours else ""
        needed = "yes" if item.is_needed else ""
        doc = item.doc.replace("|", "\\|")
        choice = f": {', '.join(item.allowed)}" if item.allowed else ""
        lines.append(f"| `{name}`{origin} | {_TYPE_WORDS[item.type]} | {needed} | {doc}{choice} |")
    return "\n".join(lines)


_TYPE_WORDS: Mapping[ColumnType, str] = {
    "text": "string",
    "json": "string (JSON), or a struct",
    "integer": "int64",
    "float32": "float32",
    "float64": "float64",
    "bytes": "binary",
    "struct": "struct",
    "structs": "list of structs",
    "images": "list of images",
}


def _object(columns: Sequence[Column]) -> dict[str, Any]:
    needed = [item.name for item in columns if item.is_needed]
    return {
        "type": "object",
        "properties": {item.name: _value(item) for item in columns},
        **({"required": needed} if needed else {}),
    }


def _value(column: Column) -> dict[str, Any]:
    """What the column may hold; null as well, unless it is needed."""
    about: dict[str, Any] = {"description": column.doc}
    value: dict[str, Any]
    if column.type == "struct":
        value = _object(column.fields)
    elif column.fields:
        value = {"type": "array", "items": _object(column.fields)}
        if column.is_needed:
            value["minItems"] = 1
    else:
        value = dict(_JSON[column.type])
    if column.allowed:
        value["enum"] = list(column.allowed)
    if column.least is not None:
        value["minimum"] = column.least
    if column.is_needed:
        if value.get("type") == "string" and not column.may_be_empty:
            value["minLength"] = 1
        return about | value
    if "anyOf" in value:
        return about | {"anyOf": [*value["anyOf"], {"type": "null"}]}
    value["type"] = [value["type"], "null"]
    if column.allowed:
        value["enum"] = [*column.allowed, None]
    return about | value
