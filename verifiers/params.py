"""Reading a row's verifier parameters: each has a type, and a wrong one is the row's fault."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping


class ParamError(ValueError):
    """A verifier parameter that cannot be used; never an answer's fault."""


def reject_unknown(params: Mapping[str, object], known: Collection[str]) -> None:
    """Raise ParamError if a parameter is not one of `known`."""
    for name in params:
        if name not in known:
            raise ParamError(
                f"parameter {name!r} is unknown; allowed: {', '.join(sorted(known)) or 'none'}"
            )


def flag(params: Mapping[str, object], name: str, default: bool) -> bool:
    """A parameter that is true or false."""
    value = params.get(name, default)
    if not isinstance(value, bool):
        raise ParamError(f"parameter {name} is {value!r}; allowed: true or false")
    return value


def fraction(params: Mapping[str, object], name: str, default: float, most: float = 1.0) -> float:
    """A parameter from 0 to `most`."""
    return number_in(params.get(name, default), f"parameter {name}", most)


def number_in(value: object, what: str, most: float) -> float:
    """`value` as a float, if it is a number from 0 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        upper = "" if math.isinf(most) else f" to {most:g}"
        raise ParamError(f"{what} is {value!r}; allowed: a number from 0{upper}")
    return float(value)


def one_of(params: Mapping[str, object], name: str, allowed: Collection[str], default: str) -> str:
    """A parameter with a few allowed values."""
    value = params.get(name, default)
    if value not in allowed or not isinstance(value, str):
        raise ParamError(f"parameter {name} is {value!r}; allowed: {', '.join(sorted(allowed))}")
    return value
