"""The images of records: found, looked at, and embedded as bytes or linked by path."""

from __future__ import annotations

import base64
import binascii
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

from data_specs.convert_files import Record
from data_specs.convert_log import Fault
from data_specs.convert_options import ConvertOptions
from data_specs.image_file import BadImage, decode, read_header
from data_specs.sample import ImageRef

_SUFFIXES = ("", ".jpg", ".png", ".jpeg", ".webp")  # some data sets name images by id alone
_MISSING = "Put the file there, or name its folder with --images"
_ASPECT_MAX = 0.02  # relative; above it, two sizes are not one image at two scales


class LoadedImage(NamedTuple):
    """An image as a row has it, and its size."""

    ref: ImageRef
    width: int
    """Pixels."""
    height: int
    """Pixels."""


class Images:
    """Loads images; asked again for the same file, gives the same bytes without reading them."""

    def __init__(self, options: ConvertOptions) -> None:
        self._options = options
        self._last: tuple[str, LoadedImage | Fault] | None = None

    def load_all(self, values: Sequence[object], record: Record) -> list[LoadedImage]:
        """The images of a record, in order.

        Raises: Fault for the first that is missing or cannot be decoded.
        """
        return [self.load(value, record) for value in values]

    def load(self, value: object, record: Record) -> LoadedImage:
        """One image: a path, its bytes, `{bytes, path}`, or a data URL.

        Raises: Fault if it is missing or cannot be decoded.
        """
        data, name = _parts(value)
        if data is not None:
            return self._looked_at(ImageRef(data=data, path=name or None), name or "bytes")
        path = self._find(name, record.folder)
        key = str(path)
        if self._last is None or self._last[0] != key:
            try:
                loaded: LoadedImage | Fault = self._from_file(path)
            except Fault as fault:
                loaded = fault
            self._last = (key, loaded)
        found = self._last[1]
        if isinstance(found, Fault):
            raise found
        return found

    def _find(self, name: str, folder: Path) -> Path:
        """The file that a record names: in the image folder, else its name alone in there."""
        if "://" in name:
            raise Fault(
                "image is a web address",
                "image",
                name,
                "a file on this machine",
                "Download it first; nothing is fetched here",
            )
        base = folder if self._options.images is None else self._options.images
        wanted = base / name  # an absolute name replaces the folder
        for path in (wanted, base / Path(name).name):
            for suffix in _SUFFIXES:
                found = path.with_name(path.name + suffix)
                if found.is_file():
                    return found
        raise Fault("image missing", "image", name, f"a file; {wanted} is none", _MISSING)

    def _from_file(self, path: Path) -> LoadedImage:
        try:
            data = path.read_bytes()
        except OSError as error:
            allowed = f"a file that can be read ({error})"
            raise Fault("image missing", "image", str(path), allowed, _MISSING) from error
        loaded = self._looked_at(ImageRef(data=data, path=path.name), str(path))
        if not self._options.link:
            return loaded
        relative = os.path.relpath(path.resolve(), self._options.out.resolve().parent)
        return loaded._replace(ref=ImageRef(path=Path(relative).as_posix()))

    def _looked_at(self, ref: ImageRef, name: str) -> LoadedImage:
        encoded = ref.encoded()
        try:
            if self._options.decode:
                return LoadedImage(ref, *decode(encoded).size)
            header = read_header(encoded)
            return LoadedImage(ref, header.width_px, header.height_px)
        except BadImage as error:
            allowed, remedy = f"a whole image ({error})", "Restore the file"
            raise Fault("image unreadable", "image", name, allowed, remedy) from error


def image_values(value: object) -> list[object]:
    """A record's image field as a list: one image, several, or none."""
    if value is None or value == "":
        return []
    return list(cast("list[object]", value)) if isinstance(value, list) else [value]


def check_size(image: LoadedImage, width: object, height: object) -> tuple[float, float]:
    """Width and height that a record's pixel boxes refer to: what it says, else the image's own.

    Raises: Fault if the record means an image of another shape, for instance one turned round.
    """
    stated = [
        float(side)
        for side in (width, height)
        if isinstance(side, int | float) and not isinstance(side, bool) and 0 < side < math.inf
    ]
    if len(stated) < 2:
        return float(image.width), float(image.height)
    ratio = (stated[0] / stated[1]) / (image.width / image.height)
    if abs(ratio - 1.0) > _ASPECT_MAX:
        raise Fault(
            "image size differs",
            "width, height",
            (width, height),
            f"the shape of the image, {image.width} x {image.height} px",
            "Use the image that was annotated; it counts as turned the way its EXIF block says",
        )
    return stated[0], stated[1]


def _parts(value: object) -> tuple[bytes | None, str]:
    """Bytes, or None, and path, or an empty text, of an image field."""
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        data = fields.get("bytes")
        if isinstance(data, bytes):
            path = fields.get("path")
            return data, path if isinstance(path, str) else ""
        names = ("path", "image", "url", "file_name", "image_url")
        inner = next((fields[name] for name in names if fields.get(name)), None)
        if isinstance(inner, str):
            return _from_text(inner)
    if isinstance(value, bytes):
        return value, ""
    if isinstance(value, str) and value.strip():
        return _from_text(value)
    shown = cast("object", value)
    raise Fault("no image", "image", shown, "a path, bytes, or {bytes, path}")


def _from_text(text: str) -> tuple[bytes | None, str]:
    text = text.strip().removeprefix("file://")
    return (_from_data_url(text), "") if text.startswith("data:") else (None, text)


def _from_data_url(text: str) -> bytes:
    head, _, body = text.partition(",")
    try:
        if not head.endswith(";base64"):
            raise ValueError("not base64")
        return base64.b64decode(body, validate=True)
    except (ValueError, binascii.Error) as error:
        raise Fault("image unreadable", "image", text, f"a base64 data URL ({error})") from error
