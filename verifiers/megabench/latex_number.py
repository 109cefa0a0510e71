r"""Arithmetic in LaTeX, read as the LaTeX grammar of sympy reads it, without sympy.

Spaces vanish (`3 1/2` is 31/2), juxtaposition multiplies, minus binds before multiplication, and a
readable start is enough: `5, 6` is 5. What matters of names is only that there are some.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

from verifiers.megabench.latex_number_tokens import BAD, Token, read_token

Number = int | float

MAX_DEPTH = 60
"""Nested groups that are read; upstream's recursion limit is near."""
_MOST_DIGITS = 4000
"""Below Python's own limit for reading integers; no longer one is compared with a reference."""
MAX_BITS = 100_000
"""Size of the largest power that is worked out."""


class NotRead(Exception):
    """The text does not start with arithmetic."""


class _NoOperand(Exception):
    """Nothing readable here; a shorter reading may do."""


class NotNumber(Exception):
    """The text is read, and its value is no number: names, functions, division by zero."""


_FUNCTIONS = frozenset(
    re.findall(
        r"\w+",
        "exp log lg ln sin cos tan csc sec cot arcsin arccos arctan arccsc arcsec arccot "
        "sinh cosh tanh arsinh arcosh artanh sqrt overline",
    )
)
_UNUSUAL = frozenset(
    re.findall(r"\w+", "lim int sum prod binom dbinom tbinom mathit langle lfloor lceil")
)
_GROUPS = {"(": ")", "[": "]", "{": "}", "\\{": "\\}"}
_RELATIONS: dict[str, Callable[[Number, Number], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
}


def read_latex_number(text: str) -> Number:
    """Value of the arithmetic that a text starts with; the letter E is 2.718, True is 1.

    Raises: NotRead, NotNumber.
    """
    try:
        return _Reader(text).relation()
    except _NoOperand:
        raise NotRead from None


class _Reader:
    """A parser over tokens that are made as they are looked at."""

    def __init__(self, text: str) -> None:
        self._text = text.strip()
        self._at = 0
        self._tokens: list[Token] = []
        self._next = 0
        self._depth = 0
        self._was_x = False
        self._has_e = False

    def relation(self) -> Number:
        value = self._sum()
        token = self._peek()
        if token.kind != "relation":
            return _checked(value)
        self._next += 1
        other = self._sum()
        if self._peek().kind == "relation":
            raise NotRead  # upstream compares a truth value: mostly an error
        left, right = _checked(value), _checked(other)
        if self._has_e:
            raise NotNumber
        return int(_RELATIONS.get(token.text, operator.eq)(left, right))

    def _sum(self) -> Number | None:
        value = self._product()
        while self._is_sign("+", "-"):
            start, sign = self._next, self._peek().text
            try:
                self._next += 1
                value = _apply(sign, value, self._product())
            except _NoOperand:
                self._back(start)
                break
        return value

    def _product(self) -> Number | None:
        value = self._signed()
        while self._is_sign("*", "/", ":"):
            start, sign = self._next, self._peek().text
            try:
                self._next += 1
                value = _apply(sign, value, self._signed())
            except _NoOperand:
                self._back(start)
                break
        return value

    def _signed(self) -> Number | None:
        if self._is_sign("+", "-"):
            sign = self._peek().text
            self._next += 1
            self._enter()
            value = self._signed()
            self._depth -= 1
            return value if sign == "+" or value is None else -value
        factors = [self._factor()]
        is_x = [self._was_x]
        while self._starts_factor():
            start = self._next
            try:
                factors.append(self._factor())
                is_x.append(self._was_x)
            except _NoOperand:
                self._back(start)
                break
        return self._multiplied(factors, is_x)

    def _multiplied(self, factors: list[Number | None], is_x: list[bool]) -> Number | None:
        """Product from the right; an x between two numbers is a sign, no name."""
        value = factors[-1]
        for at in range(len(factors) - 2, -1, -1):
            if at > 0 and is_x[at] and not self._has_e and None not in factors[at - 1 : at + 2 : 2]:
                continue
            value = _apply("*", factors[at], value)
        return value

    def _factor(self) -> Number | None:
        first = self._next
        value = self._primary()
        while self._is_sign("^"):
            start = self._next
            try:
                self._next += 1
                value = _apply("^", value, self._script())
                self._optional_subscript()
            except _NoOperand:
                self._back(start)
                break
        while self._is_sign("!"):
            self._next += 1
            value = None
        self._was_x = self._next == first + 1 and self._tokens[first] == ("letter", "x")
        return value

    def _script(self) -> Number | None:
        """What follows ^ or _: one atom or a group in braces."""
        if self._is_sign("{"):
            return self._group("}")
        if self._peek().kind in ("digit", "letter", "word", "frac"):
            return self._primary(is_script=True)
        raise _NoOperand

    def _optional_subscript(self) -> None:
        if self._is_sign("_"):
            start = self._next
            try:
                self._next += 1
                self._script()
            except _NoOperand:
                self._back(start)

    def _primary(self, *, is_script: bool = False) -> Number | None:
        token = self._peek()
        if token.kind == "digit":
            return self._number()
        if token.text in _GROUPS and not is_script:
            return self._group(_GROUPS[token.text])
        if token == ("sign", "|") and not is_script:
            self._group("|")
            return None
        if token.kind == "frac":
            self._next += 1
            upper = self._part_of_fraction()
            return _apply("/", upper, self._part_of_fraction())
        if token.kind == "word" and token.text[1:] in _FUNCTIONS | _UNUSUAL:
            return self._function(token.text[1:])
        if token.kind in ("letter", "word"):
            return self._name()
        raise _NoOperand

    def _function(self, name: str) -> None:
        """Passes over a function and its argument; the value is never a number."""
        if name in _UNUSUAL:
            raise NotNumber
        self._next += 1
        if name in ("sqrt", "overline"):
            if name == "sqrt" and self._is_sign("["):
                self._group("]")
            if not self._is_sign("{"):
                raise _NoOperand
            self._group("}")
            return
        for _ in range(2):
            if self._is_sign("_", "^"):
                self._next += 1
                self._script()
        if self._is_sign("("):
            self._call(optional=False)
        else:
            self._enter()
            self._product()
            self._depth -= 1

    def _name(self) -> Number | None:
        is_e = self._peek() == ("letter", "E")
        self._next += 1
        if self._is_sign("_", "(") or self._peek().kind == "quotes":
            is_plain = self._next
            self._optional_subscript()
            while self._peek().kind == "quotes":
                self._next += 1
            self._call()
            is_e = is_e and self._next == is_plain
        self._has_e = self._has_e or is_e
        return 2.718 if is_e else None

    def _call(self, *, optional: bool = True) -> None:
        """Passes over arguments in parentheses."""
        if optional and not self._is_sign("("):
            return
        start = self._next
        try:
            self._enter()
            self._next += 1
            self._sum()
            while self._is_sign(","):
                self._next += 1
                self._sum()
            self._expect(")")
            self._depth -= 1
        except _NoOperand:
            if not optional:
                raise
            self._back(start)

    def _group(self, closing: str) -> Number | None:
        self._enter()
        self._next += 1
        value = self._sum()
        self._expect(closing)
        self._depth -= 1
        return value

    def _part_of_fraction(self) -> Number | None:
        token = self._peek()
        if token.kind == "digit":
            self._next += 1
            return int(token.text)
        if token == ("sign", "{"):
            return self._group("}")
        raise _NoOperand

    def _number(self) -> Number:
        """A number; where a dot without digits follows, as much of it as is read without."""
        start = self._next
        digits = self._digits()
        ends = [(self._next, digits)]
        while self._is_sign(",") and (group := self._thousand()):
            digits += group
            ends.append((self._next, digits))
        if not self._is_sign("."):
            return _integer(digits)
        self._next += 1
        decimals = self._digits()
        if decimals:
            if len(decimals) > 1 and (self._is_sign(".") or self._thousand_follows()):
                self._next -= 1  # its last digit starts a number of its own
                decimals = decimals[:-1]
            return float(f"{digits}.{decimals}")
        if len(ends) > 1:
            self._next, digits = ends[-2]
            return _integer(digits)
        if len(digits) == 1:
            raise _NoOperand
        self._next = start + 1
        return int(digits[0])

    def _thousand(self) -> str:
        """The three digits after a comma, or nothing."""
        start = self._next
        self._next += 1
        group = ""
        while len(group) < 3 and self._peek().kind == "digit":
            group += self._peek().text
            self._next += 1
        if len(group) < 3:
            self._next = start
            return ""
        return group

    def _thousand_follows(self) -> bool:
        start = self._next
        follows = self._is_sign(",") and bool(self._thousand())
        self._next = start
        return follows

    def _digits(self) -> str:
        digits = ""
        while self._peek().kind == "digit":
            digits += self._peek().text
            self._next += 1
        return digits

    def _starts_factor(self) -> bool:
        token = self._peek()
        if token.kind in ("digit", "letter", "word", "frac"):
            return True
        return token.text in _GROUPS or token == ("sign", "|")

    def _is_sign(self, *signs: str) -> bool:
        token = self._peek()
        return token.kind == "sign" and token.text in signs

    def _expect(self, closing: str) -> None:
        if self._peek().text != closing:
            raise _NoOperand
        self._next += 1

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotRead

    def _back(self, start: int) -> None:
        self._next = start

    def _peek(self) -> Token:
        while self._next >= len(self._tokens):
            token, self._at = read_token(self._text, self._at)
            self._tokens.append(token)
        token = self._tokens[self._next]
        if token is BAD:
            raise NotRead
        return token


def _integer(digits: str) -> Number:
    return int(digits) if len(digits) < _MOST_DIGITS else float("inf")


def _checked(value: Number | None) -> Number:
    if value is None:
        raise NotNumber
    return value


def _apply(sign: str, left: Number | None, right: Number | None) -> Number | None:
    if left is None or right is None:
        return None
    try:
        return work_out(sign, left, right)
    except (ArithmeticError, ValueError):
        return None


def work_out(sign: str, left: Number, right: Number) -> Number | None:
    """One step of arithmetic; None where the result is no real number or too large."""
    match sign:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/" | ":":
            return left / right
        case _:
            if isinstance(left, int) and abs(left).bit_length() * abs(right) > MAX_BITS:
                return None
            power = left**right
            return None if isinstance(power, complex) else power
