"""What can be wrong with rows and files: one record a fault, and the error that carries them."""

from __future__ import annotations

from dataclasses import dataclass

_SHOWN_CHARS_MAX = 80

KINDS: dict[str, str] = {
    "unreadable_file": "the file is missing, damaged or not parquet",
    "empty_file": "the file has no rows",
    "missing_column": "a column, or a field of one, that every row needs is not there",
    "column_type": "a column has a type that rows cannot be read from",
    "bad_value": "a field holds something else than it should",
    "no_source": "`data_source` is empty",
    "no_task": "`ability` is empty",
    "empty_prompt": "there is no message",
    "bad_role": "a message is from nobody known, or the last one is the assistant's",
    "no_question": "no user message has text beside the image markers",
    "image_markers": "there are more or fewer `<image>` markers than images",
    "unknown_verifier": "no verifier has that name",
    "bad_json": "`verifier_parm` is no JSON object",
    "bad_parameter": "the verifier does not know a parameter, or not that value",
    "bad_weight": "a weight is negative or no number, or both are 0",
    "empty_reference": "there is no reference to compare with",
    "bad_reference": "the reference does not score 1 under its own verifier",
    "slow_reference": "the verifier takes too long over the reference, or fails",
    "coordinate_space": "the space of the boxes is unknown, or lacks the image size it needs",
    "box_outside": "a box reaches out of the image",
    "box_inverted": "a box's corners are swapped",
    "box_empty": "a box has no area",
    "box_space": "the boxes look like numbers of another coordinate space",
    "bad_objects": "`objects` is no list of boxes within the image",
    "image_missing": "an image has neither bytes nor a file",
    "image_empty": "an image has zero bytes",
    "image_unknown": "the bytes are not an image",
    "image_truncated": "the image ends too early, or cannot be decoded",
    "image_too_large": "the image has too many pixels: a decompression bomb",
    "image_size": "the image has another size than `image_width` and `image_height` say",
    "duplicate_id": "a row of the same split has the id already",
    "contradiction": "a row asks the same of the same images and has another reference",
    "overlap": "the image of a training row is in a held-out row as well",
}
"""Every kind of problem and what it means."""


def shorten(value: object) -> str:
    """`repr(value)`, cut to a length that fits an error message."""
    if isinstance(value, bytes | str) and len(value) > 4 * _SHOWN_CHARS_MAX:
        value = value[: 4 * _SHOWN_CHARS_MAX]
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS_MAX else text[: _SHOWN_CHARS_MAX - 3] + "..."


@dataclass(frozen=True, kw_only=True, slots=True)
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
    kind: str = "bad_value"
    """One of KINDS."""

    def __str__(self) -> str:
        row = "" if self.row is None else f" row {self.row}"
        id_ = f" (id {self.id})" if self.id else ""
        return (
            f"{self.file}{row}{id_}: {self.field} is {self.value}; "
            f"allowed: {self.allowed}. {self.remedy}"
        )


class DataSpecError(ValueError):
    """A file or row that cannot be used; the message says where, what, what else, what next."""

    def __init__(self, message: str, *problems: Problem) -> None:
        super().__init__(message)
        self.problems = problems

    @classmethod
    def of(cls, *problems: Problem) -> DataSpecError:
        """The error that reports the problems, one a line."""
        return cls("\n".join(map(str, problems)), *problems)

    @property
    def problem(self) -> Problem | None:
        """The first of the problems; None if the message is all there is."""
        return self.problems[0] if self.problems else None

    def __reduce__(self) -> tuple[type[DataSpecError], tuple[str | Problem, ...]]:
        return type(self), (str(self), *self.problems)
