"""One row of V-Triune's columns, in plain Python, to a `Sample`, or everything wrong with it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn, TypeVar, cast

from data_specs.problem import DataSpecError, Problem, shorten
from data_specs.sample import ImageRef, Message, RewardSpec, Sample
from data_specs.schema import ROLES, column

_FIX_ROW = "Correct the row where the file is made"
_WHOLE_NUMBERS = tuple(item.name for item in column("extra_info").fields if item.type == "integer")
_Part = TypeVar("_Part")


def sample_from_row(row: Mapping[str, object], place: str = "row", number: int = 0) -> Sample:
    """A row of V-Triune's columns, held as plain Python, as a Sample.

    Rewards need neither pictures nor a prompt: both columns may be missing here.

    Args:
        row: column name to value.
        place: what to call the row's origin in an error message.
        number: its position there, from 0.

    Raises: DataSpecError if a column cannot be used.
    """
    raw = {name: value for name, value in row.items() if name != "prompt" or value}
    return RowReader(Path(place)).sample(raw, number)


class _BadField(Exception):
    """A field that cannot be used; the problem is in the reader's list."""


class RowReader:
    """Turns the rows of one file into samples."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._name, self._stem, self._folder = path.name, path.stem, path.parent
        self._number = 0
        self._id = ""
        self._problems: list[Problem] = []

    def sample(self, raw: Mapping[str, object], number: int) -> Sample:
        """The row as a Sample.

        Raises: DataSpecError with every field that cannot be used.
        """
        self._number, self._id, self._problems = number, f"{self._stem}:{number}", []
        extra = self._part(self._extra, raw, {})
        given_id = extra.pop("id", None)
        if given_id is not None:
            self._id = str(given_id)
        source = self._part(self._source, raw, "")
        task = self._part(self._task, raw, "")
        messages = self._part(self._messages, raw, ())
        images = self._part(self._images, raw, ())
        reward = self._part(self._reward, raw, None)
        if self._problems or reward is None:
            raise DataSpecError.of(*self._problems)
        return Sample(
            id=self._id,
            source=source,
            task=task,
            messages=messages,
            images=images,
            reward=reward,
            extra=extra,
            where=f"{self._name} row {number}",
        )

    def _part(
        self, read: Callable[[Mapping[str, object]], _Part], raw: Mapping[str, object], empty: _Part
    ) -> _Part:
        """What `read` makes of the row, or `empty` if it cannot be used."""
        try:
            return read(raw)
        except _BadField:
            return empty

    def _fail(
        self,
        kind: str,
        field: str,
        value: object,
        allowed: str,
        remedy: str = _FIX_ROW,
    ) -> NoReturn:
        self._problems.append(
            Problem(
                file=self._name,
                row=self._number,
                id=self._id,
                field=field,
                value=shorten(value),
                allowed=allowed,
                remedy=remedy,
                kind=kind,
            )
        )
        raise _BadField

    def _extra(self, raw: Mapping[str, object]) -> dict[str, object]:
        value = raw.get("extra_info")
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._fail("bad_value", "extra_info", value, "a struct or null")
        record = cast("dict[str, object]", value)
        extra = {name: item for name, item in record.items() if item is not None}
        for name in _WHOLE_NUMBERS:  # pandas writes them as floats where some rows have none
            item = extra.get(name)
            if isinstance(item, float) and item.is_integer():
                extra[name] = int(item)
        return extra

    def _source(self, raw: Mapping[str, object]) -> str:
        return self._text("no_source", "data_source", raw.get("data_source"))

    def _task(self, raw: Mapping[str, object]) -> str:
        return self._text("no_task", "ability", raw.get("ability"))

    def _text(self, kind: str, field: str, value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            self._fail(kind, field, value, "a text that is not empty")
        return value

    def _messages(self, raw: Mapping[str, object]) -> tuple[Message, ...]:
        if "prompt" not in raw:
            return ()
        value = raw["prompt"]
        allowed = "a list of {role, content} that is not empty"
        if value is None or value == []:
            self._fail("empty_prompt", "prompt", value, allowed)
        if not isinstance(value, list):
            self._fail("bad_value", "prompt", value, allowed)
        messages: list[Message] = []
        for index, item in enumerate(cast("list[object]", value)):
            if not isinstance(item, dict):
                self._fail("bad_value", f"prompt[{index}]", item, "a struct {role, content}")
            record = cast("dict[str, object]", item)
            role, content = record.get("role"), record.get("content")
            if role not in ROLES:
                self._fail("bad_role", f"prompt[{index}].role", role, ", ".join(ROLES))
            if not isinstance(content, str):
                self._fail("bad_value", f"prompt[{index}].content", content, "a text")
            messages.append(Message(role=cast("str", role), content=content))
        return tuple(messages)

    def _images(self, raw: Mapping[str, object]) -> tuple[ImageRef, ...]:
        value = raw.get("images")
        if value is None:
            return ()
        if not isinstance(value, list):
            self._fail("bad_value", "images", value, "a list of structs {bytes, path}, or null")
        images: list[ImageRef] = []
        for index, item in enumerate(cast("list[object]", value)):
            images.append(self._image(f"images[{index}]", item))
        return tuple(images)

    def _image(self, field: str, item: object) -> ImageRef:
        remedy = "Embed the image or name its file"
        if item is None:
            self._fail("image_missing", field, item, "a struct {bytes, path}", remedy)
        if not isinstance(item, dict):
            self._fail("bad_value", field, item, "a struct {bytes, path}")
        record = cast("dict[str, object]", item)
        data, path = record.get("bytes"), record.get("path")
        if not (isinstance(data, bytes | None) and isinstance(path, str | None)):
            allowed = "bytes of type binary and a path of type string"
            self._fail("bad_value", field, record, allowed)
        if data is None:
            if not path:
                self._fail("image_missing", field, record, "bytes or a path", remedy)
            path = str(self._folder / path)  # paths are relative to the parquet file
        return ImageRef(data=data, path=path)

    def _reward(self, raw: Mapping[str, object]) -> RewardSpec:
        value = raw.get("reward_model")
        if not isinstance(value, dict):
            allowed = "a struct with verifier and ground_truth"
            self._fail("bad_value", "reward_model", value, allowed)
        record = cast("dict[str, object]", value)
        answer, ground_truth = record.get("answer"), record.get("ground_truth")
        if not isinstance(answer, str | None):
            self._fail("bad_value", "reward_model.answer", answer, "a text or null")
        if not isinstance(ground_truth, str):
            allowed = "a text in the form of a response"
            self._fail("empty_reference", "reward_model.ground_truth", ground_truth, allowed)
        accuracy_ratio = self._ratio(record, "accuracy_ratio", 1.0)
        format_ratio = self._ratio(record, "format_ratio", 0.0)
        if accuracy_ratio + format_ratio == 0:
            self._fail(
                "bad_weight",
                "reward_model.accuracy_ratio and .format_ratio",
                (accuracy_ratio, format_ratio),
                "a sum above 0, otherwise no response can earn anything",
                "Set accuracy_ratio to 1.0",
            )
        verifier = self._text("unknown_verifier", "reward_model.verifier", record.get("verifier"))
        return RewardSpec(
            verifier=verifier,
            answer=answer or "",
            ground_truth=ground_truth,
            accuracy_ratio=accuracy_ratio,
            format_ratio=format_ratio,
            params=self._params(record.get("verifier_parm")),
        )

    def _ratio(self, record: Mapping[str, object], name: str, default: float) -> float:
        value = record.get(name)
        if value is None:
            return default
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not 0 <= value < math.inf
        ):
            field = f"reward_model.{name}"
            self._fail("bad_weight", field, value, "a finite number of at least 0")
        return round(float(value), 7)  # the column is float32: 0.9 arrives as 0.8999999761581421

    def _params(self, value: object) -> dict[str, object]:
        field, allowed = "reward_model.verifier_parm", "a JSON object, a struct or null"
        if isinstance(value, str):
            if not value.strip():
                return {}
            try:
                value = _without_nulls(json.loads(value))
            except (ValueError, RecursionError):
                self._fail("bad_json", field, value, allowed)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._fail("bad_json", field, value, allowed)
        return cast("dict[str, object]", _without_nulls(cast("object", value)))


def _without_nulls(value: object) -> object:
    """The value, structs without null fields: in parquet they have every field any row has."""
    if not isinstance(value, dict):
        return value
    record = cast("dict[str, object]", value)
    return {name: _without_nulls(item) for name, item in record.items() if item is not None}
