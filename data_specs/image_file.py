"""Encoded images: what their first and last bytes tell without decoding, and their pixels."""

from __future__ import annotations

import io
import struct
import warnings
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL import Image

IMAGE_PIXELS_MAX = 80_000_000
"""Largest image, in pixels, that is decoded; above it a file is taken for a decompression bomb."""

_ORIENTATION_TAG = 0x0112
_JPEG_SCAN = 0xDA
_JPEG_END = b"\xff\xd9"
_PNG_END = b"IEND\xaeB`\x82"
_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8")


class BadImage(ValueError):
    """Bytes that are no usable image; the message says why."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        """One of `problem.KINDS`."""


class ImageHeader(NamedTuple):
    """What is known of an image that was not decoded."""

    format: str
    """Pillow's name: PNG, JPEG, WEBP, ..."""
    width_px: int
    """Of the image as a viewer shows it."""
    height_px: int


def read_header(encoded: bytes) -> ImageHeader:
    """The format and size of an image whose header is sound and whose end is there.

    Raises: BadImage if it is empty, no image, cut off (PNG, JPEG, WebP, GIF, BMP) or too large.
    """
    image = _opened(encoded)
    kind = image.format or ""
    if not _is_whole(encoded, kind):
        raise BadImage("image_truncated", f"a {kind} that ends too early")
    width, height = image.size
    if "exif" in image.info and _orientation(image) >= 5:  # lies on its side
        width, height = height, width
    return ImageHeader(kind, width, height)


def decode(encoded: bytes) -> Image.Image:
    """The image as a viewer shows it (turned as its EXIF block says, as `datasets` does), RGB.

    Raises: BadImage if it is empty, no image, cut off or too large.
    """
    image = _opened(encoded)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged tags, which change nothing
            image.load()
            turn = _turn(_orientation(image)) if "exif" in image.info else None
            return (image if turn is None else image.transpose(turn)).convert("RGB")
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise BadImage("image_truncated", str(error)) from error


def _opened(encoded: bytes) -> Image.Image:
    """The image with its header read."""
    from PIL import Image

    if not encoded:
        raise BadImage("image_empty", "zero bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bombs and of damaged EXIF blocks
            image = Image.open(io.BytesIO(encoded))
    except Image.UnidentifiedImageError as error:
        if encoded.startswith(_STARTS):
            raise BadImage("image_truncated", "its header is damaged or cut off") from error
        raise BadImage("image_unknown", "no image format is recognised") from error
    except Image.DecompressionBombError as error:
        raise BadImage("image_too_large", str(error)) from error
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise BadImage("image_truncated", str(error)) from error
    width, height = image.size
    if width * height > IMAGE_PIXELS_MAX:
        raise BadImage("image_too_large", f"{width} x {height} pixels")
    return image


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 if there is none or its block is damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = image.getexif().get(_ORIENTATION_TAG, 1)
    except (SyntaxError, ValueError, TypeError, KeyError, struct.error):
        return 1
    return value if value in range(1, 9) else 1


def _turn(orientation: int) -> Image.Transpose | None:
    """What makes an image of that EXIF orientation upright."""
    from PIL.Image import Transpose

    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)


def _is_whole(encoded: bytes, kind: str) -> bool:
    """Whether the end that the format promises is there; True for formats that promise none."""
    if kind == "PNG":
        return encoded.rfind(_PNG_END) >= 0
    if kind in ("JPEG", "MPO"):
        return encoded.rfind(_JPEG_END, _jpeg_scan(encoded)) >= 0
    if kind == "WEBP":
        return int.from_bytes(encoded[4:8], "little") + 8 <= len(encoded)
    if kind == "GIF":
        return encoded.rstrip(b"\0").endswith(b";")
    if kind == "BMP":
        return int.from_bytes(encoded[2:6], "little") <= len(encoded)
    return True


def _jpeg_scan(encoded: bytes) -> int:
    """Where the pixels of a JPEG start: an end mark before it is that of a thumbnail."""
    position = 2
    while position + 4 <= len(encoded) and encoded[position] == 0xFF:
        if encoded[position + 1] == _JPEG_SCAN:
            return position
        if encoded[position + 1] == 0xFF:  # a fill byte
            position += 1
            continue
        position += 2 + int.from_bytes(encoded[position + 2 : position + 4], "big")
    return position
