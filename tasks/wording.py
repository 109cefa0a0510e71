"""How our questions about objects are put, whether the images are drawn here or come from files."""

from __future__ import annotations

from collections.abc import Sequence


def box_classes(labels: Sequence[str]) -> str:
    """Asks for the boxes of every instance of the classes: `box every cat, dog and person.`."""
    *rest, last = labels
    named = f"{', '.join(rest)} and {last}" if rest else last
    return f"box every {named}."


def box_phrase(phrase: str) -> str:
    """Asks for the boxes of what a phrase describes: `box the left dog.`."""
    return f"box {phrase}."


def count_class(label: str) -> str:
    """Asks how many instances of a class there are: `count every dog.`."""
    return f"count every {label}."
