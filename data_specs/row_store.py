"""Rows of parquet files laid out on disk so that any one can be read alone, in little memory.

A parquet file is compressed by the thousand rows, so that reading its rows in shuffled order would
unpack a thousand for each. A store unpacks every row once and remembers where it lies.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from data_specs.parquet import file_uses, parquet_files, read_samples, sample_from_row
from data_specs.parquet_write import sample_to_row
from data_specs.sample import DataSpecError, ImageRef, Sample

_ROWS, _INDEX, _SOURCES = "rows.bin", "index.npy", "store.json"
_LAYOUT = 1  # raised when the files below are laid out differently


class RowPlace(NamedTuple):
    """What is known of a row without reading it."""

    source: str
    image_id: str
    """The row's `image_id`, or its own id: rows with equal ones share a picture."""


class RowStore:
    """Rows by number, in the order of their files. Safe to read from threads and forks.

    Memory does not grow with the pictures: about 24 bytes a row beside its image id.
    """

    def __init__(self, folder: Path) -> None:
        content = json.loads((folder / _SOURCES).read_text(encoding="utf-8"))
        self.folder = folder
        self.num_uses: tuple[int, ...] = tuple(content["num_uses"])
        """Uses of each file's rows, from names that end in `_xK`."""
        self._sources: list[str] = content["sources"]
        self._image_ids: list[str] = content["image_ids"]
        index = cast("NDArray[np.int64]", np.load(folder / _INDEX))
        self._starts, self._lengths, self._source_of, self._file_of = index
        self._file = os.open(folder / _ROWS, os.O_RDONLY)

    def __len__(self) -> int:
        return int(self._starts.size)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def place(self, number: int) -> RowPlace:
        """Source and picture of a row."""
        return RowPlace(self._sources[int(self._source_of[number])], self._image_ids[number])

    def uses(self, number: int) -> int:
        """How often the row counts, by the name of its file."""
        return self.num_uses[int(self._file_of[number])]

    def read(self, number: int) -> Sample:
        """One row with its encoded pictures."""
        start, length = int(self._starts[number]), int(self._lengths[number])
        record = cast("dict[str, object]", json.loads(os.pread(self._file, length, start)))
        places = cast("list[tuple[int, int, str | None]]", record.pop("places"))
        where = cast("str", record.pop("where"))
        sample = sample_from_row(record, "row store", number)
        images = tuple(
            ImageRef(data=os.pread(self._file, size, offset) if size >= 0 else None, path=path)
            for offset, size, path in places
        )
        return replace(sample, images=images, where=where)


def open_store(paths: str | Path | Iterable[str | Path], cache_dir: Path) -> RowStore:
    """The store of these files, built in `cache_dir` if it is not there or a file has changed.

    Raises: DataSpecError at the first row or file that cannot be used.
    """
    files = parquet_files(paths)
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    key = hashlib.sha256(json.dumps([_LAYOUT, stats]).encode()).hexdigest()[:16]
    folder = cache_dir / f"rows-{key}"
    if not (folder / _SOURCES).exists():
        _build(files, folder)
    return RowStore(folder)


def _build(files: list[Path], folder: Path) -> None:
    """Write the store beside its place and move it there when it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    needed = sum(path.stat().st_size for path in files)
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise DataSpecError(
            f"{folder.parent}: {free} bytes are free, the rows need more than {needed}; "
            "free some space or name another cache folder"
        )
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.tmp")
    temporary.mkdir()
    sources: dict[str, int] = {}
    image_ids: list[str] = []
    index: list[tuple[int, int, int, int]] = []
    try:
        with (temporary / _ROWS).open("wb") as out:
            for file_number, path in enumerate(files):
                last: tuple[bytes, int] | None = None  # rows that share a picture are neighbours
                for sample in read_samples(path):
                    places: list[tuple[int, int, str | None]] = []
                    for image in sample.images:
                        if image.data is None:
                            places.append((0, -1, image.path))
                            continue
                        if last is None or last[0] is not image.data:
                            last = image.data, out.tell()
                            out.write(image.data)
                        places.append((last[1], len(image.data), image.path))
                    record = sample_to_row(sample) | {"places": places, "where": sample.where}
                    encoded = _encoded(record)
                    source = sources.setdefault(sample.source, len(sources))
                    index.append((out.tell(), len(encoded), source, file_number))
                    image_ids.append(_image_id(sample))
                    out.write(encoded)
        table = np.array(index, dtype=np.int64).reshape(-1, 4).T
        np.save(temporary / _INDEX, np.ascontiguousarray(table))
        content = {
            "sources": list(sources),
            "image_ids": image_ids,
            "num_uses": [file_uses(path) for path in files],
        }
        (temporary / _SOURCES).write_text(json.dumps(content), encoding="utf-8")
        if not folder.exists():  # another process may have been faster
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _encoded(record: dict[str, object]) -> bytes:
    try:
        return json.dumps(record).encode()
    except TypeError as error:
        raise DataSpecError(
            f"{record['where']}: extra_info or verifier_parm holds a value that JSON has no form "
            f"for ({error}); allowed: text, numbers, true, false, lists and structs. Convert it"
        ) from error


def _image_id(sample: Sample) -> str:
    return str(sample.extra.get("image_id") or sample.id)
