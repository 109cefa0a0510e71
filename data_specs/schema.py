"""The columns of a row, told once: names, types, meaning. Everything else about them follows.

From here come the Arrow schema of files we write and the check of files we read
(`schema_arrow`), the JSON Schema of a row and the table in `docs/data.md` (`schema_text`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from data_specs.boxes import SPACES

ColumnType = Literal[
    "text", "integer", "float32", "float64", "bytes", "json", "struct", "structs", "images"
]
"""`json` is text that holds a JSON object; a struct is read as well. `structs` is a list of them,
`images` one that Hugging Face `datasets` knows as `Image`."""

ROLES = ("system", "user", "assistant", "tool")
"""Who may speak in a prompt."""

HELD_OUT = ("test", "val", "validation", "dev", "eval", "heldout")
"""Values of `split`, and first words of file and folder names, that hold rows out of training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column, or one field of a struct."""

    name: str
    type: ColumnType
    doc: str
    """What it means, with unit or range; what null means."""
    is_needed: bool = False
    """A row without it, or with null in it, cannot be used."""
    may_be_empty: bool = False
    """An empty text is as good as any other."""
    is_ours: bool = False
    """Not one of V-Triune's: other tools pass over it."""
    allowed: tuple[str, ...] = ()
    """The only values a text may have; empty = any."""
    least: float | None = None
    """Smallest value of a number; None = any."""
    fields: tuple[Column, ...] = ()
    """Of the struct, or of each item of the list."""


def _extra_fields() -> tuple[Column, ...]:
    side = "of the original image that numbers in pixels refer to, px"
    resized = "of the image as the model sees it, that numbers in resized pixels refer to, px"
    return (
        Column(
            name="id",
            type="text",
            doc="Name of the row, unique in its split; null = file name and row number",
        ),
        Column(name="image_path", type="text", doc="Where the image once came from"),
        Column(
            name="split",
            type="text",
            doc=f"What the row is for: train, or held out ({', '.join(HELD_OUT)})",
            is_ours=True,
        ),
        Column(
            name="image_id", type="text", doc="Rows with equal ones share a picture", is_ours=True
        ),
        Column(
            name="coordinate_space",
            type="text",
            doc="What the numbers of reference boxes mean; null = per_mille",
            is_ours=True,
            allowed=SPACES,
        ),
        Column(
            name="objects",
            type="text",
            doc="Everything in the image, as JSON: a list of bbox_2d (per mille) and label",
            is_ours=True,
        ),
        Column(name="question_type", type="text", doc="Kind of question", is_ours=True),
        Column(name="licence", type="text", doc="Licence of the image", is_ours=True),
        Column(name="image_width", type="integer", doc=f"Width {side}", is_ours=True, least=1),
        Column(name="image_height", type="integer", doc=f"Height {side}", is_ours=True, least=1),
        Column(name="resized_width", type="integer", doc=f"Width {resized}", is_ours=True, least=1),
        Column(
            name="resized_height", type="integer", doc=f"Height {resized}", is_ours=True, least=1
        ),
        Column(
            name="difficulty",
            type="float64",
            doc="1 minus the mean score of a policy's answers, 0 to 1; null = not measured",
            is_ours=True,
            least=0,
        ),
    )


_IMAGE_FIELDS = (
    Column(name="bytes", type="bytes", doc="The encoded image: PNG, JPEG, WebP ..."),
    Column(
        name="path",
        type="text",
        doc="File to read if `bytes` is null, relative to the parquet file's folder",
    ),
)

_MESSAGE_FIELDS = (
    Column(name="role", type="text", doc="Who speaks", is_needed=True, allowed=ROLES),
    Column(
        name="content",
        type="text",
        doc="What is said; `<image>` marks the place of the next image",
        is_needed=True,
        may_be_empty=True,
    ),
)

_REWARD_FIELDS = (
    Column(name="answer", type="text", doc="The bare reference, `7`"),
    Column(
        name="ground_truth",
        type="text",
        doc=r"The reference as a response: `\boxed{7}` or `<answer>[...]</answer>`",
        is_needed=True,
    ),
    Column(
        name="accuracy_ratio",
        type="float32",
        doc="Weight a of the score in the reward (a * score + f * format) / (a + f); null = 1",
        least=0,
    ),
    Column(
        name="format_ratio",
        type="float32",
        doc="Weight f of the format score; null = 0. One of the two is above 0",
        least=0,
    ),
    Column(
        name="verifier",
        type="text",
        doc="Name of the verifier that judges responses",
        is_needed=True,
    ),
    Column(
        name="verifier_parm",
        type="json",
        doc="Parameters of the verifier; null, an empty text or {} = none",
    ),
)

COLUMNS: tuple[Column, ...] = (
    Column(
        name="data_source",
        type="text",
        doc="Data set the row comes from; the key of per-source metrics",
        is_needed=True,
    ),
    Column(
        name="images",
        type="images",
        doc="The images, in the order of the `<image>` markers; none, one or several",
        fields=_IMAGE_FIELDS,
    ),
    Column(
        name="prompt",
        type="structs",
        doc="Chat messages; the last is the question",
        is_needed=True,
        fields=_MESSAGE_FIELDS,
    ),
    Column(
        name="ability",
        type="text",
        doc="Task: math, puzzle, science, chart, detection, grounding, counting, ocr, ...",
        is_needed=True,
    ),
    Column(
        name="reward_model",
        type="struct",
        doc="How responses are judged and weighed",
        is_needed=True,
        fields=_REWARD_FIELDS,
    ),
    Column(
        name="extra_info",
        type="struct",
        doc="Everything else; fields that are not listed here are kept as they are",
        fields=_extra_fields(),
    ),
)
"""A row, in the order in which files have it."""


def column(name: str) -> Column:
    """The column, or `struct.field`, of that name."""
    found = dict(columns_and_fields())
    return found[name]


def columns_and_fields() -> Iterator[tuple[str, Column]]:
    """Every column and every field under its dotted name; fields of list items after `[]`."""
    for item in COLUMNS:
        yield item.name, item
        mark = "[]" if item.type in ("structs", "images") else ""
        for inner in item.fields:
            yield f"{item.name}{mark}.{inner.name}", inner
