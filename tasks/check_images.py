"""Whether the images of a row are there, whole, of the size that is stated, and used once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from data_specs import (
    IMAGE_PIXELS_MAX,
    BadImage,
    DataSpecError,
    ImageHeader,
    ImageRef,
    Sample,
    read_header,
)
from tasks.check_fault import FIX, Fault

_ALLOWED = f"a whole PNG, JPEG, WebP or other image of up to {IMAGE_PIXELS_MAX} pixels"
_RESTORE = "Restore the image, or remove the row"


class ImageCheck:
    """Looks at every image: its header, or with `decode` all of its pixels."""

    def __init__(self, decode: bool) -> None:
        self._decode = decode
        self._decoded: set[int] = set()  # hashes of images known to be good
        self._last: tuple[bytes, int, ImageHeader | Fault] | None = None

    def check(self, sample: Sample) -> tuple[list[int], ImageHeader | None, list[Fault]]:
        """Hash of each image, header of the first, and what is wrong.

        An image that cannot be read has no hash: as many rows lack one, it identifies none.
        """
        hashes: list[int] = []
        headers: list[ImageHeader | None] = []
        faults: list[Fault] = []
        for index, image in enumerate(sample.images):
            field = f"images[{index}]"
            try:
                encoded = image.encoded()
            except DataSpecError as error:
                value = image.path
                faults.append(Fault("image_missing", field, value, str(error), _RESTORE))
                headers.append(None)
                continue
            hash_, found = self._look(encoded, image)
            if isinstance(found, Fault):
                faults.append(found._replace(field=field))
                headers.append(None)
            else:
                headers.append(found)
                hashes.append(hash_)
        first = headers[0] if headers else None
        if first is not None:
            faults.extend(_size_faults(sample, first, alone=len(headers) == 1))
        return hashes, first, faults

    def _look(self, encoded: bytes, image: ImageRef) -> tuple[int, ImageHeader | Fault]:
        """The image's hash, and its header or what is wrong with it."""
        if self._last is not None and self._last[0] is encoded:
            return self._last[1:]
        hash_ = int.from_bytes(hashlib.sha256(encoded).digest()[:8], "little")
        found: ImageHeader | Fault
        try:
            found = read_header(encoded)
            if self._decode and hash_ not in self._decoded:
                image.open()
                self._decoded.add(hash_)
        except BadImage as error:
            found = Fault(error.kind, "", encoded[:24], f"{_ALLOWED}; found {error}", _RESTORE)
        except DataSpecError as error:
            found = Fault("image_truncated", "", encoded[:24], str(error), _RESTORE)
        self._last = (encoded, hash_, found)
        return hash_, found


def _size_faults(sample: Sample, header: ImageHeader, *, alone: bool) -> Iterator[Fault]:
    """The stated size against that of the only image; with several, it may mean any of them."""
    stated = tuple(sample.extra.get(name) for name in ("image_width", "image_height"))
    found = (header.width_px, header.height_px)
    if not alone:
        return
    for name, value, true in zip(("image_width", "image_height"), stated, found, strict=True):
        if value is not None and value != true:
            allowed = f"{true}: the image is {found[0]} x {found[1]} pixels"
            yield Fault("image_size", f"extra_info.{name}", value, allowed, FIX)
