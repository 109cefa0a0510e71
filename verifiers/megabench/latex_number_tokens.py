"""Tokens of LaTeX arithmetic, as the LaTeX grammar of sympy tells them apart."""

from __future__ import annotations

import re
from typing import NamedTuple


class Token(NamedTuple):
    """A sign, a digit, a letter, a command."""

    kind: str
    text: str


_SKIP = r"""[ \t\r\n]+|\\[,:;!*\-./"(=]"""
_SKIPPED_WORDS = frozenset(
    re.findall(
        r"\w+",
        "thinspace medspace thickspace quad qquad negthinspace negmedspace negthickspace "
        "left right vrule vcenter vbox vskip vspace hfil",
    )
)
_PATTERN = re.compile(
    rf"(?P<skip>{_SKIP})"
    r"|(?P<sign>[+\-*/()\[\]{}|_^:!.,])"
    r"|(?P<relation>(?:&[ \t\r\n]*)?=|=(?:[ \t\r\n]*&)?|[<>])"
    r"|(?P<digit>[0-9])"
    r"|(?P<letter>[A-Za-z])"
    r"|(?P<quotes>'+)"
    r"|(?P<bar>\\(?:right|left)\|)"
    r"|(?P<literal>\\[{}])"
    r"|(?P<word>\\[A-Za-z]+)"
)
_WORDS = {
    **dict.fromkeys(("times", "cdot"), Token("sign", "*")),
    "div": Token("sign", "/"),
    **dict.fromkeys(("frac", "dfrac", "tfrac"), Token("frac", "")),
    "neq": Token("relation", "!="),
    **dict.fromkeys(("leq", "le", "leqq", "leqslant"), Token("relation", "<=")),
    **dict.fromkeys(("geq", "ge", "geqq", "geqslant"), Token("relation", ">=")),
    **dict.fromkeys(("to", "rightarrow", "Rightarrow"), Token("arrow", "")),
    **dict.fromkeys(("longrightarrow", "Longrightarrow"), Token("arrow", "")),
    **dict.fromkeys(("rangle", "rfloor", "rceil"), Token("arrow", "")),
}
END = Token("end", "")
BAD = Token("bad", "")
"""A character that no token has."""


def read_token(text: str, at: int) -> tuple[Token, int]:
    """The first token from a place on, spaces and spacing commands passed over, and its end."""
    while at < len(text):
        match = _PATTERN.match(text, at)
        if match is None:
            return BAD, at
        at = match.end()
        kind, found = str(match.lastgroup), match.group()
        if kind == "word" and found[1:] not in _SKIPPED_WORDS:
            return _WORDS.get(found[1:], Token(kind, found)), at
        if kind not in ("skip", "word"):
            return Token(kind, found), at
    return END, at
