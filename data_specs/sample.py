"""The records a data row becomes: `Sample`, its images, its messages and its reward settings."""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

IMAGE_MARKER = "<image>"
"""What stands in a message where an image goes."""

IMAGE_PIXELS_MAX = 80_000_000
"""Largest image, in pixels, that is decoded; above it a file is taken for a decompression bomb."""

_SHOWN_CHARS_MAX = 80


def shorten(value: object) -> str:
    """`repr(value)`, cut to a length that fits an error message."""
    if isinstance(value, bytes | str) and len(value) > 4 * _SHOWN_CHARS_MAX:
        value = value[: 4 * _SHOWN_CHARS_MAX]
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS_MAX else text[: _SHOWN_CHARS_MAX - 3] + "..."


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with one row, in parts, so that it can be listed or counted."""

    file: str
    """File name, or a name for the place where the row came from."""
    row: int | None
    """Number of the row in its file, from 0; None if the whole file is meant."""
    id: str
    """The row's id, empty if it has none."""
    field: str
    """Field that is wrong, dotted (`reward_model.verifier`)."""
    value: str
    """What was found, as a shortened repr."""
    allowed: str
    """What would have been right."""
    remedy: str
    """What to do about it."""

    def __str__(self) -> str:
        row = "" if self.row is None else f" row {self.row}"
        id_ = f" (id {self.id})" if self.id else ""
        return (
            f"{self.file}{row}{id_}: {self.field} is {self.value}; "
            f"allowed: {self.allowed}. {self.remedy}"
        )


class DataSpecError(ValueError):
    """A file or row that cannot be used; the message says where, what, what else, what next."""

    def __init__(self, message: str, problem: Problem | None = None) -> None:
        super().__init__(message)
        self.problem = problem

    @classmethod
    def of(cls, problem: Problem) -> DataSpecError:
        """The error that reports `problem`."""
        return cls(str(problem), problem)

    def __reduce__(self) -> tuple[type[DataSpecError], tuple[str, Problem | None]]:
        return type(self), (str(self), self.problem)


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
        try:
            return Path(self.path).read_bytes()
        except OSError as error:
            raise DataSpecError(
                f"image {self.path!r} cannot be read ({error.strerror}): "
                "restore the file or remove the row"
            ) from error

    def sha256(self) -> str:
        """Hex digest of the encoded bytes."""
        return hashlib.sha256(self.encoded()).hexdigest()

    def open(self) -> Image.Image:
        """The image, decoded, as RGB.

        Raises: DataSpecError if it is missing, truncated, unknown or larger than IMAGE_PIXELS_MAX.
        """
        from PIL import Image

        encoded = self.encoded()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                image = Image.open(io.BytesIO(encoded))
            if math.prod(image.size) > IMAGE_PIXELS_MAX:
                raise DataSpecError(
                    f"image is {image.size[0]} x {image.size[1]} pixels; "
                    f"allowed: up to {IMAGE_PIXELS_MAX} pixels. Scale it down or remove the row"
                )
            return image.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            if isinstance(error, DataSpecError):
                raise
            name = f"image {self.path!r}" if self.path else "image"
            raise DataSpecError(
                f"{name} cannot be decoded ({error}); found {len(encoded)} bytes starting "
                f"{shorten(encoded[:12])}; allowed: a whole PNG, JPEG or other file that Pillow "
                "reads. Restore the file or remove the row"
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
