"""Python literals in model text: read without evaluation, without warnings."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext

NOT_LITERAL = (SyntaxError, ValueError)
"""What `python_literal` raises for text that is no literal."""

TOO_MUCH = (TypeError, MemoryError, RecursionError)
"""What it raises for a literal that cannot be built: an unhashable element, too deep a nesting."""

_WARNS = re.compile(r"\\|[\d.][A-Za-z_]")
"""What the compiler may warn of: escapes that are none, numbers with letters behind."""

_NEVER_DEEP = 60
"""Text as short as this never overflows the compiler's stack."""


def python_literal(text: str) -> object:
    """The value of a Python literal.

    Raises: one of NOT_LITERAL or TOO_MUCH.
    """
    with quiet(text):
        return ast.literal_eval(text)


def quiet(text: str) -> AbstractContextManager[object]:
    """Keeps the compiler from warning of a text that it may warn of."""
    if _WARNS.search(text) is None:
        return nullcontext()
    return _without_warnings()


@contextmanager
def _without_warnings() -> Generator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def unquoted(value: object) -> object:
    """The value of a text that is a Python string literal; anything else as it is."""
    if not isinstance(value, str):
        return value
    if len(value) <= _NEVER_DEEP and "'" not in value and '"' not in value:
        return value
    try:
        content = python_literal(value)
    except MemoryError:
        return ""  # upstream's answer to 20,000 dashes
    except (*NOT_LITERAL, TypeError, RecursionError):
        return value
    return content if isinstance(content, str) else value
