"""The records a data row becomes: `Sample`, its images, its messages and its reward settings."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from data_specs.image_file import IMAGE_PIXELS_MAX, BadImage, decode, read_header
from data_specs.problem import DataSpecError, shorten

if TYPE_CHECKING:
    from PIL import Image

IMAGE_MARKER = "<image>"
"""What stands in a message where an image goes."""

_MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRef:
    """One image of a row: its encoded bytes or a path to them. Nothing is decoded before `open`."""

    data: bytes | None = None
    """Encoded image (PNG, JPEG, ...); wins over `path`."""
    path: str | None = None
    """File to read if `data` is None, otherwise where the bytes once came from."""

    def __repr__(self) -> str:
        size = "None" if self.data is None else f"{len(self.data)} bytes"
        return f"ImageRef(data={size}, path={self.path!r})"

    def encoded(self) -> bytes:
        """The encoded bytes, read from `path` if need be.

        Raises: DataSpecError if there are none.
        """
        if self.data is not None:
            return self.data
        if not self.path:
            raise DataSpecError("image has neither bytes nor a path: give it one of them")
        why = "no such file"
        try:
            if Path(self.path).is_file():  # a device or a pipe might never end
                return Path(self.path).read_bytes()
        except OSError as error:
            why = error.strerror or str(error)
        raise DataSpecError(
            f"image {self.path!r} cannot be read ({why}): restore the file or remove the row"
        )

    def sha256(self) -> str:
        """Hex digest of the encoded bytes."""
        return hashlib.sha256(self.encoded()).hexdigest()

    def data_url(self) -> str:
        """The encoded image as a data URL; a format that model servers do not take becomes PNG.

        Raises: DataSpecError if it is missing or cannot be decoded.
        """
        encoded = self.encoded()
        try:
            kind = _MIME.get(read_header(encoded).format)
        except BadImage:
            kind = None  # `open` says what is wrong
        if kind is None:
            buffer = io.BytesIO()
            self.open().save(buffer, "PNG")
            encoded, kind = buffer.getvalue(), "image/png"
        return f"data:{kind};base64,{base64.b64encode(encoded).decode()}"

    def open(self) -> Image.Image:
        """The image as a viewer shows it, decoded, turned as its EXIF tag says, as RGB.

        Raises: DataSpecError if it is missing, truncated, unknown or larger than IMAGE_PIXELS_MAX.
        """
        encoded = self.encoded()
        try:
            return decode(encoded)
        except BadImage as error:
            name = f"image {self.path!r}" if self.path else "image"
            raise DataSpecError(
                f"{name} cannot be decoded ({error}); found {len(encoded)} bytes starting "
                f"{shorten(encoded[:12])}; allowed: a whole PNG, JPEG or other file that Pillow "
                f"reads, of up to {IMAGE_PIXELS_MAX} pixels. Restore the file or remove the row"
            ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One chat message; `<image>` in its content marks the place of an image."""

    role: str
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardSpec:
    """How a response to a row is judged and weighed.

    The reward of a response is `(a * score + f * format) / (a + f)`.
    """

    verifier: str
    """Name in `verifiers.VERIFIERS`."""
    answer: str
    r"""The bare reference, `7`."""
    ground_truth: str
    r"""The reference in the form of a response, `\boxed{7}` or `<answer>[...]</answer>`."""
    accuracy_ratio: float = 1.0
    """Weight a of the score, at least 0."""
    format_ratio: float = 0.0
    """Weight f of the format score, at least 0; 0 leaves the format out."""
    params: Mapping[str, object] = field(default_factory=lambda: dict[str, object]())
    """Parameters of the verifier for this row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One data row: a question with its images, and how a response to it is judged."""

    id: str
    source: str
    """Data set it came from; the key of per-source metrics."""
    task: str
    """What is asked: math, puzzle, chart, science, grounding, detection, counting, ocr, ..."""
    messages: tuple[Message, ...]
    images: tuple[ImageRef, ...]
    """In the order of the `<image>` markers in `messages`."""
    reward: RewardSpec
    extra: Mapping[str, object] = field(default_factory=lambda: dict[str, object]())
    """The row's other facts: split, image_id, coordinate_space, image_width, objects, ..."""
    where: str = ""
    """Place for error messages, `train_x.parquet row 12`; empty if made in memory."""

    @property
    def question(self) -> str:
        """The last user message without `<image>` markers, stripped."""
        for message in reversed(self.messages):
            if message.role == "user":
                return message.content.replace(IMAGE_MARKER, "").strip()
        return ""
