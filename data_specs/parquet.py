"""V-Triune's parquet rows to `Sample`; the only file but `parquet_write` that knows column names.

Rows are those of Orsta-Data-47k: data_source, images, prompt, ability, reward_model, extra_info.
"""

# pyarrow has no types, so what comes from it is unknown to the checker.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportMissingTypeStubs=false
from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

from data_specs.sample import (
    DataSpecError,
    ImageRef,
    Message,
    Problem,
    RewardSpec,
    Sample,
    shorten,
)

if TYPE_CHECKING:
    import pyarrow.parquet as pq

ROLES = ("system", "user", "assistant", "tool")
"""Who may speak in a prompt."""

_ROWS_PER_BATCH = 128  # images of one batch are in memory at once
_COLUMNS_NEEDED = ("data_source", "prompt", "ability", "reward_model")
_COLUMNS_OPTIONAL = ("images", "extra_info")
_USES = re.compile(r"_x([1-9][0-9]{0,2})$")
_FIX_ROW = "Correct the row where the file is made"


def file_uses(path: str | Path) -> int:
    """How often a file's rows are used: K if its name ends in `_xK.parquet`, otherwise 1."""
    found = _USES.search(Path(path).stem)
    return int(found.group(1)) if found else 1


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

    Raises: DataSpecError if the file itself is missing, no parquet or lacks a column.
    """
    import pyarrow as pa

    path = Path(path)
    file = _open(path)
    try:
        names = file.schema_arrow.names
        columns = [name for name in (*_COLUMNS_NEEDED, *_COLUMNS_OPTIONAL) if name in names]
        number = 0
        last_image: bytes | None = None
        for batch in file.iter_batches(batch_size=_ROWS_PER_BATCH, columns=columns):
            for raw in batch.to_pylist():
                row = _Row(path, number, cast("dict[str, object]", raw))
                number += 1
                try:
                    sample = row.sample()
                except DataSpecError as error:
                    yield error
                    continue
                # Rows that share an image lie side by side: keep one copy of its bytes.
                if sample.images and sample.images[0].data is not None:
                    if sample.images[0].data == last_image:
                        first = ImageRef(data=last_image, path=sample.images[0].path)
                        sample = replace(sample, images=(first, *sample.images[1:]))
                    else:
                        last_image = sample.images[0].data
                yield sample
    except (OSError, pa.ArrowException) as error:
        raise _file_error(path, f"unreadable ({error})", "an intact parquet file") from error
    finally:
        file.close()


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
    return _Row(Path(place), number, raw).sample()


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
                raise _file_error(path, "a folder without *.parquet files", "parquet files in it")
            files.extend(inside)
        else:
            files.append(path)
    return files


def _open(path: Path) -> pq.ParquetFile:
    """The opened file, with its columns checked."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise _file_error(path, "missing", "the path of a parquet file") from error
    except (OSError, pa.ArrowException) as error:
        raise _file_error(path, f"unreadable ({error})", "an intact parquet file") from error
    missing = [name for name in _COLUMNS_NEEDED if name not in file.schema_arrow.names]
    if missing:
        found = shorten(file.schema_arrow.names)
        file.close()
        raise DataSpecError.of(
            Problem(
                file=str(path),
                row=None,
                id="",
                field="columns",
                value=found,
                allowed=f"at least {', '.join(_COLUMNS_NEEDED)}",
                remedy=f"Add {', '.join(missing)}, or convert the file",
            )
        )
    return file


def _file_error(path: Path, value: str, allowed: str) -> DataSpecError:
    return DataSpecError.of(
        Problem(
            file=str(path),
            row=None,
            id="",
            field="file",
            value=value,
            allowed=allowed,
            remedy="Check the path, or make the file again",
        )
    )


class _Row:
    """One raw row on its way to a Sample; knows its place for error messages."""

    def __init__(self, path: Path, number: int, raw: dict[str, object]) -> None:
        self.path = path
        self.number = number
        self.raw = raw
        self.id = ""

    def fail(self, field: str, value: object, allowed: str, remedy: str = _FIX_ROW) -> NoReturn:
        raise DataSpecError.of(
            Problem(
                file=self.path.name,
                row=self.number,
                id=self.id,
                field=field,
                value=shorten(value),
                allowed=allowed,
                remedy=remedy,
            )
        )

    def sample(self) -> Sample:
        """The row as a Sample."""
        extra = self._extra()
        given_id = extra.pop("id", None)
        self.id = f"{self.path.stem}:{self.number}" if given_id is None else str(given_id)
        return Sample(
            id=self.id,
            source=self._text(self.raw, "data_source"),
            task=self._text(self.raw, "ability"),
            messages=self._messages(),
            images=self._images(),
            reward=self._reward(),
            extra=extra,
            where=f"{self.path.name} row {self.number}",
        )

    def _text(self, record: Mapping[str, object], name: str, prefix: str = "") -> str:
        value = record.get(name)
        if not isinstance(value, str) or not value:
            self.fail(prefix + name, value, "a text that is not empty")
        return value

    def _extra(self) -> dict[str, object]:
        value = self.raw.get("extra_info")
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.fail("extra_info", value, "a struct or null")
        record = cast("dict[str, object]", value)
        return {name: item for name, item in record.items() if item is not None}

    def _messages(self) -> tuple[Message, ...]:
        if "prompt" not in self.raw:
            return ()
        value = self.raw["prompt"]
        if not isinstance(value, list) or not value:
            self.fail("prompt", value, "a list of {role, content} that is not empty")
        messages: list[Message] = []
        for index, item in enumerate(cast("list[object]", value)):
            if not isinstance(item, dict):
                self.fail(f"prompt[{index}]", item, "a struct {role, content}")
            record = cast("dict[str, object]", item)
            role, content = record.get("role"), record.get("content")
            if role not in ROLES:
                self.fail(f"prompt[{index}].role", role, ", ".join(ROLES))
            if not isinstance(content, str):
                self.fail(f"prompt[{index}].content", content, "a text")
            messages.append(Message(role=cast("str", role), content=content))
        return tuple(messages)

    def _images(self) -> tuple[ImageRef, ...]:
        value = self.raw.get("images")
        if value is None:
            return ()
        if not isinstance(value, list):
            self.fail("images", value, "a list of structs {bytes, path}, or null")
        images: list[ImageRef] = []
        for index, item in enumerate(cast("list[object]", value)):
            field = f"images[{index}]"
            if not isinstance(item, dict):
                self.fail(field, item, "a struct {bytes, path}")
            record = cast("dict[str, object]", item)
            data, path = record.get("bytes"), record.get("path")
            if not (data is None or isinstance(data, bytes)) or not (
                path is None or isinstance(path, str)
            ):
                self.fail(field, item, "bytes of type binary and a path of type string")
            if data is None and not path:
                self.fail(field, item, "bytes or a path", "Embed the image or name its file")
            if data is None and path:
                path = str(self.path.parent / path)  # paths are relative to the parquet file
            images.append(ImageRef(data=data, path=path))
        return tuple(images)

    def _reward(self) -> RewardSpec:
        value = self.raw.get("reward_model")
        if not isinstance(value, dict):
            self.fail("reward_model", value, "a struct with verifier and ground_truth")
        record = cast("dict[str, object]", value)
        answer, ground_truth = record.get("answer"), record.get("ground_truth")
        if not isinstance(answer, str | None):
            self.fail("reward_model.answer", answer, "a text or null")
        if not isinstance(ground_truth, str):
            self.fail("reward_model.ground_truth", ground_truth, "a text in the form of a response")
        accuracy_ratio = self._ratio(record, "accuracy_ratio", 1.0)
        format_ratio = self._ratio(record, "format_ratio", 0.0)
        if accuracy_ratio + format_ratio == 0:
            self.fail(
                "reward_model.accuracy_ratio and .format_ratio",
                (accuracy_ratio, format_ratio),
                "a sum above 0, otherwise no response can earn anything",
                "Set accuracy_ratio to 1.0",
            )
        return RewardSpec(
            verifier=self._text(record, "verifier", "reward_model."),
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
            self.fail(f"reward_model.{name}", value, "a finite number of at least 0")
        return round(float(value), 7)  # the column is float32: 0.9 arrives as 0.8999999761581421

    def _params(self, value: object) -> dict[str, object]:
        if isinstance(value, str):
            if not value.strip():
                return {}
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                self.fail("reward_model.verifier_parm", value, "a JSON object, a struct or null")
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.fail("reward_model.verifier_parm", value, "a JSON object, a struct or null")
        return _without_nulls(cast("dict[str, object]", value))


def _without_nulls(record: Mapping[str, object]) -> dict[str, object]:
    """The record without null fields: a parquet struct has every field that any row has."""
    return {
        name: _without_nulls(cast("dict[str, object]", value)) if isinstance(value, dict) else value
        for name, value in record.items()
        if value is not None
    }
