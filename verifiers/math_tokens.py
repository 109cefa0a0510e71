r"""Cuts LaTeX and plain notation into tokens: numbers, names, commands, brackets, signs."""

from __future__ import annotations

import re

from verifiers.math_node import FormulaError, TooLargeError

DEPTH_MAX = 60
"""Deepest nesting that is read; a pair of brackets counts twice, a fraction three times."""
DIGITS = frozenset("0123456789.")
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
FUNCTIONS = frozenset(
    (
        *("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "arcsin"),
        *("arccos", "arctan", "arccot", "asin", "acos", "atan", "ln", "log", "lg", "exp"),
    )
)
ACCENTS = ("vec", "hat", "bar", "overline", "tilde", "dot", "overrightarrow", "widehat", "mathbb")

_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<number>[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3}(?![0-9.]))?|\.[0-9]+)"
    r"|(?P<frame>\\(?:begin|end)\s*\{[A-Za-z]+\*?\})"
    rf"|(?P<accented>\\(?:{'|'.join(ACCENTS)})(?:\s*\{{[^{{}}]*\}}|\s+[A-Za-z]))"
    r"|(?P<subscript>_\s*(?:\{[^{}]*\}|\\[A-Za-z]+|[A-Za-z0-9]))"
    r"|(?P<command>\\(?:[A-Za-z]+|.))|(?P<word>[A-Za-z]+)|(?P<sign>\*\*|<=|>=|!=|==|\.\.\.|.)",
    re.DOTALL,
)
_NO_SPACES = str.maketrans("", "", " {}\t\n")
_PLAIN_NAMES = {"pi": "\\pi", "theta": "\\theta", "alpha": "\\alpha", "beta": "\\beta"}


def tokens(text: str) -> list[str]:
    """The tokens of a text. Subscripts, accents and environments are one token with their braces.

    Raises: FormulaError if it holds prose.
    """
    result: list[str] = []
    for found in _TOKEN.finditer(text):
        token = found.group()
        kind = found.lastgroup
        if kind == "word":
            result += _split_word(token)
        elif kind == "number" and result and not text[found.start() - 1].isspace():
            # x1 is the name x_1, as it is typed; `x 1` is not.
            if result[-1] in LETTERS and is_whole(token):
                result[-1] += token
            else:
                result.append(token)
        elif kind == "accented" and result and result[-1][-1] == ".":
            raise FormulaError("a repeating decimal")  # `numerals` reads those that stand alone
        elif kind in ("frame", "accented", "subscript"):
            result.append(token.translate(_NO_SPACES))
        elif kind != "space":
            result.append(token)
    return result


def is_whole(token: str) -> bool:
    """Whether a token is a whole number."""
    return token.isdigit() and token.isascii()


def _split_word(word: str) -> list[str]:
    """A run of letters as names: `xy` is x times y, `sinx` is the sine of x; no prose."""
    if word in ("and", "or"):
        return [","]
    if word in _PLAIN_NAMES:
        return [_PLAIN_NAMES[word]]
    if word in ("infinity", "inf"):
        return [r"\infty"]
    for size in range(min(6, len(word)), 1, -1):
        if word[:size] == "sqrt" or word[:size] in FUNCTIONS:
            rest = word[size:]
            if len(rest) < 2 or rest in _PLAIN_NAMES:
                return ["\\" + word[:size], *_split_word(rest)] if rest else ["\\" + word[:size]]
    if len(word) > 3:
        raise FormulaError(f"{word!r} is a word")
    return list(word)


class Cursor:
    """A place in a row of tokens."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.place = 0
        self.depth = 0
        self.bars = 0
        """Absolute values that are open; inside them a bar closes."""

    @property
    def next(self) -> str:
        """The token at the place; empty at the end."""
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self) -> str:
        """The token at the place, which moves on."""
        token = self.next
        self.place += 1
        return token

    def expect(self, token: str) -> None:
        """Step over a token that must stand here."""
        if self.take() != token:
            raise FormulaError(f"{token!r} is missing")

    def deeper(self) -> None:
        """Count a level of nesting."""
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise TooLargeError(f"too deep: nested more than {DEPTH_MAX} times")
