r"""Reads LaTeX and plain notation to a tree: `\frac{x}{2}`, `[1,3)`, `\{1,2\}`, `x^2+y^2=4`."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple

from verifiers import math_node as m
from verifiers import math_words as words
from verifiers.math_node import FormulaError, Node, NotationError, TooLargeError, UndefinedError
from verifiers.math_tokens import DIGITS, FUNCTIONS, LETTERS, Cursor, is_whole, tokens

FORMULA_CHARS_MAX = 2000
"""Longer formulas are not read."""
PARTS_MAX = 200
"""Longest set, list or matrix that is read."""
UNITED_MAX = 20
"""Longest chain of unions and differences that is read."""

_LITERAL_FRACTION = re.compile(r"\\frac (?:\{ ([0-9]+) \} \{ ([0-9]+) \}|([0-9])([0-9]))(?: |$)")


class Refusal(NamedTuple):
    """Why a text is not read as a formula."""

    reason: str
    kind: Literal["syntax", "notation", "value"] = "syntax"
    """No formula; a formula with unknown commands; or one that is too large or undefined."""


@lru_cache(maxsize=2048)
def read_formula(text: str) -> Node | Refusal:
    """The tree of a cleaned text (`math_text.clean`), or why there is none."""
    if len(text) > FORMULA_CHARS_MAX:
        reason = f"too long: {len(text)} characters, at most {FORMULA_CHARS_MAX} are read"
        return Refusal(reason, "value")
    try:
        cursor = Cursor(tokens(text))
        items = _items(cursor)
        if cursor.next or not items:
            raise FormulaError(f"{cursor.next or 'the end'!r} is out of place")
    except NotationError as error:
        return Refusal(str(error), "notation")
    except (TooLargeError, UndefinedError) as error:
        return Refusal(str(error), "value")
    except FormulaError as error:
        return Refusal(str(error))
    return items[0] if len(items) == 1 else Node("list", tuple(items))


def _items(cursor: Cursor) -> list[Node]:
    """Parts with commas, semicolons, "and" or "or" between them; none before a closing bracket."""
    items: list[Node] = []
    while cursor.next and cursor.next not in (")", "]", "}", r"\}"):
        items.append(_item(cursor))
        if len(items) > PARTS_MAX:
            raise TooLargeError(f"too many parts: more than {PARTS_MAX}")
        if cursor.next not in (",", ";"):
            break
        while cursor.next in (",", ";"):
            cursor.take()
    return items


def _item(cursor: Cursor) -> Node:
    """A formula, an equation or a chain of inequalities."""
    sides = [_united(cursor)]
    signs: list[str] = []
    while cursor.next in words.RELATIONS:
        signs.append(words.RELATIONS[cursor.take()])
        sides.append(_united(cursor))
    return Node("relation", tuple(sides), " ".join(signs)) if signs else sides[0]


def _united(cursor: Cursor) -> Node:
    node = _sum(cursor)
    num_united = 0
    while cursor.next in (r"\cup", r"\setminus", r"\backslash"):
        num_united += 1
        if num_united > UNITED_MAX:
            raise TooLargeError(f"too many parts: more than {UNITED_MAX} united")
        kind = "union" if cursor.take() == r"\cup" else "minus"
        node = Node(kind, (node, _sum(cursor)))
    return node


def _sum(cursor: Cursor) -> Node:
    terms: list[Node] = []
    while True:
        sign, is_both = 1, ""
        while (token := cursor.next) in ("+", "-", r"\pm", r"\mp"):
            cursor.take()
            sign = -sign if token == "-" else sign
            is_both = "+" if token == r"\pm" else "-" if token == r"\mp" else is_both
        term = _term(cursor)
        if sign < 0:
            term = m.negative(term)
        terms.append(Node("pm", (term,), is_both) if is_both else term)
        if cursor.next not in ("+", "-", r"\pm", r"\mp"):
            break
    return m.add(terms) if len(terms) > 1 else terms[0]


def _term(cursor: Cursor) -> Node:
    """Factors with signs of multiplication and division between them."""
    node = _product(cursor)
    while cursor.next in words.TIMES or cursor.next in words.OVER:
        if cursor.take() in words.TIMES:
            node = m.multiply((node, _signed(cursor, is_product=True)))
            continue
        divisor = _signed(cursor, is_product=False)
        if m.exact(node) is not None and m.exact(divisor) is not None:
            node = m.divide(node, divisor)  # 3/4x is three quarters of x
            divisor = m.ONE
        factors = [divisor, *_more_factors(cursor)]
        divisor = factors[0] if len(factors) == 1 else m.multiply(factors)
        node = m.multiply((node, divisor)) if factors[0] is m.ONE else m.divide(node, divisor)
    return node


def _signed(cursor: Cursor, is_product: bool) -> Node:
    """A factor, or several side by side, that may have a minus sign: 2*-3."""
    sign = 1
    while cursor.next in ("+", "-"):
        sign = -sign if cursor.take() == "-" else sign
    node = _product(cursor) if is_product else _power(cursor)
    return node if sign > 0 else m.negative(node)


def _product(cursor: Cursor) -> Node:
    """Factors side by side; a whole number before a fraction of whole numbers is a mixed number."""
    mixed = _mixed_number(cursor)
    factors = [mixed if mixed is not None else _power(cursor), *_more_factors(cursor)]
    return factors[0] if len(factors) == 1 else m.multiply(factors)


def _more_factors(cursor: Cursor) -> list[Node]:
    factors: list[Node] = []
    while _starts_factor(cursor):
        factors.append(_power(cursor))
    return factors


def _starts_factor(cursor: Cursor) -> bool:
    token = cursor.next
    if token == "|":
        return cursor.bars == 0
    return bool(token) and (
        token[0] in LETTERS
        or token in ("(", "[", "{", r"\{")
        or (
            token[0] == "\\"
            and token not in words.RELATIONS
            and token not in words.TIMES
            and token not in words.OVER
            and token not in words.ENDS
            and not token.startswith(r"\end")
        )
    )


def _mixed_number(cursor: Cursor) -> Node | None:
    r"""The mixed number `2\frac{1}{3}` or `2 1/3` at the place; None if there is none."""
    if not is_whole(cursor.next):
        return None
    ahead = cursor.tokens[cursor.place + 1 : cursor.place + 8]
    if not ahead:
        return None
    if found := _LITERAL_FRACTION.match(" ".join(ahead)):
        above, below = int(found[1] or found[3]), int(found[2] or found[4])
        length = 7 if found[1] else 2
    elif len(ahead) > 2 and is_whole(ahead[0]) and ahead[1] == "/" and is_whole(ahead[2]):
        above, below, length = int(ahead[0]), int(ahead[2]), 3
    else:
        return None
    whole = int(cursor.take())
    cursor.place += length
    return m.add((m.number(whole), m.divide(m.number(above), m.number(below))))


def _power(cursor: Cursor) -> Node:
    """A factor with what follows it: exponent, exclamation mark, percent, degree."""
    cursor.deeper()
    node = _atom(cursor)
    for _ in range(4):
        token = cursor.next
        if token in ("^", "**"):
            cursor.take()
            node = m.power(node, _exponent(cursor))
        elif token == "!":
            cursor.take()
            if cursor.next == "!":
                raise FormulaError("a double factorial")
            node = m.factorial(node)
        elif token == "%":
            cursor.take()
            node = m.divide(node, m.number(100))
        elif token == "°":
            cursor.take()
            node = m.multiply((node, Node("name", (), r"\pi"), m.divide(m.ONE, m.number(180))))
        else:
            break
    cursor.depth -= 1
    return node


def _exponent(cursor: Cursor) -> Node:
    sign = 1
    while cursor.next in ("+", "-"):
        sign = -sign if cursor.take() == "-" else sign
    node = _power(cursor) if cursor.next not in ("{", "(") else _atom(cursor)
    return node if sign > 0 else m.negative(node)


def _atom(cursor: Cursor) -> Node:
    token = cursor.take()
    if not token:
        raise FormulaError("it breaks off")
    if token[0] in DIGITS and token != "...":
        return _number(cursor, token)
    if token in words.CONSTANTS:
        return words.CONSTANTS[token]
    if token[0] in LETTERS or token in words.GREEK or token.startswith(words.ACCENTED):
        return _name(cursor, token)
    if token in words.FENCES:
        return _fenced(cursor, token)
    if token in ("(", "[", "{", r"\{", r"\langle"):
        return _bracketed(cursor, token)
    if token in words.SKIPPED:
        return _atom(cursor)
    if token.startswith(r"\begin"):
        return _matrix(cursor, token.removeprefix(r"\begin"))
    if token in _SPECIAL:
        return _SPECIAL[token](cursor)
    if token[1:] in FUNCTIONS:
        return _function(cursor, words.ALIASES.get(token[1:], token[1:]))
    if token[0] == "\\" and token[1:].isalpha() and token not in words.ENDS:
        raise NotationError(f"{token!r} is not known here")
    raise FormulaError(f"{token!r} is out of place")


def _number(cursor: Cursor, token: str) -> Node:
    """A number; one with a base, `101_2`, is a name."""
    if cursor.next[:1] == "_":
        return Node("name", (), token + cursor.take())
    if is_whole(token):
        return m.number(int(token))
    if token == ".":
        raise FormulaError("a lone full stop")
    return m.number(Fraction(token if token[-1] != "." else token[:-1]))


def _name(cursor: Cursor, token: str) -> Node:
    r"""A letter with its subscript and primes; x1 is x_1, and f(2) is a name as well."""
    if len(token) > 1 and token[0] in LETTERS:
        token = f"{token[0]}_{token[1:]}"
    if cursor.next[:1] == "_":
        token += cursor.take()
    while cursor.next == "'":
        token += cursor.take()
    ahead = cursor.tokens[cursor.place : cursor.place + 3]
    if token in words.FUNCTION_NAMES and len(ahead) == 3 and (ahead[0], ahead[2]) == ("(", ")"):
        argument = ahead[1]
        if argument[0] in DIGITS:
            cursor.place += 3
            token += f"({argument})"
    return Node("name", (), token)


def _fenced(cursor: Cursor, token: str) -> Node:
    closer, function = words.FENCES[token]
    cursor.deeper()
    cursor.bars += token == "|"
    node = _sum(cursor)
    cursor.bars -= token == "|"
    cursor.expect(closer)
    cursor.depth -= 1
    return m.call(function, node)


def _bracketed(cursor: Cursor, token: str) -> Node:
    cursor.deeper()
    bars, cursor.bars = cursor.bars, 0
    items = _items(cursor)
    cursor.bars = bars
    closer = cursor.take()
    cursor.depth -= 1
    if token == r"\langle" and closer == r"\rangle":
        token, closer = "(", ")"
    if (token == r"\{" and closer == r"\}") or (token == "{" and closer == "}" and len(items) != 1):
        return Node("set", tuple(items))
    if token == "{" and closer == "}":
        return items[0]
    if token not in ("(", "[") or closer not in (")", "]"):
        raise FormulaError(f"{token!r} is closed by {closer!r}")
    if len(items) == 1 and (token, closer) in (("(", ")"), ("[", "]")):
        return items[0]
    if not items or ((token == "[") != (closer == "]") and len(items) != 2):
        raise FormulaError(f"{len(items)} parts between {token!r} and {closer!r}")
    return Node("tuple", tuple(items), token + closer)


def _function(cursor: Cursor, name: str) -> Node:
    r"""A function with its argument: `\sin x`, `\sin^2(x)`, `\log_2 8`, `\sin^{-1} x`."""
    base: Node | None = None
    exponent: Node | None = None
    for _ in range(2):
        if cursor.next[:1] == "_" and name == "log":
            base = _base(cursor.take()[1:])
        elif cursor.next in ("^", "**"):
            cursor.take()
            exponent = _exponent(cursor)
    if exponent is not None and m.exact(exponent) == -1 and name in words.INVERSES:
        name, exponent = words.INVERSES[name], None
    argument = _function_argument(cursor)
    if name == "log10":
        name, base = "log", m.number(10)
    if name == "exp":
        node = m.power(Node("name", (), "e"), argument)
    else:
        node = _logarithm(name, argument, base)
    return node if exponent is None else m.power(node, exponent)


def _base(text: str) -> Node:
    """The base of a logarithm: a number or a name."""
    cursor = Cursor(tokens(text))
    node = _power(cursor)
    if cursor.next:
        raise FormulaError(f"a logarithm to the base {text!r}")
    return node


def _logarithm(name: str, argument: Node, base: Node | None) -> Node:
    if name != "log" or base is None:
        return m.call(name, argument)
    if base.kind == "name" and base.value == "e":
        return m.call("ln", argument)
    return m.divide(m.call("ln", argument), m.call("ln", base))


def _function_argument(cursor: Cursor) -> Node:
    if cursor.next in ("(", "[", "{") or cursor.next in words.FENCES:
        return _atom(cursor)
    sign = 1
    while cursor.next in ("+", "-"):
        sign = -sign if cursor.take() == "-" else sign
    mixed = _mixed_number(cursor)
    factors = [mixed if mixed is not None else _power(cursor)]
    while _starts_factor(cursor) and cursor.next[1:] not in FUNCTIONS:
        factors.append(_power(cursor))
    node = factors[0] if len(factors) == 1 else m.multiply(factors)
    return node if sign > 0 else m.negative(node)


def _argument(cursor: Cursor) -> Node:
    r"""A TeX argument: a braced group, or one character, `\frac12`."""
    token = cursor.next
    if is_whole(token) and len(token) > 1:
        cursor.tokens[cursor.place : cursor.place + 1] = [token[0], token[1:]]
    cursor.deeper()
    node = _atom(cursor)
    cursor.depth -= 1
    return node


def _fraction(cursor: Cursor) -> Node:
    dividend = _argument(cursor)
    return m.divide(dividend, _argument(cursor))


def _root(cursor: Cursor) -> Node:
    index = m.number(2)
    if cursor.next == "[":
        cursor.take()
        index = _sum(cursor)
        cursor.expect("]")
    return m.root(_argument(cursor), index)


def _binomial(cursor: Cursor) -> Node:
    above, below = _argument(cursor), _argument(cursor)
    return m.divide(
        m.factorial(above), m.multiply((m.factorial(below), m.factorial(m.subtract(above, below))))
    )


def _matrix(cursor: Cursor, kind: str) -> Node:
    """Rows of as many cells each, or a system of equations; `kind` is the environment."""
    if kind in words.SYSTEMS:
        return _system(cursor, kind)
    if kind not in words.MATRICES:
        raise NotationError(f"a {kind!r} is not known here")
    if kind == "array" and cursor.next == "{":
        while cursor.take() not in ("}", ""):
            pass
    rows: list[Node] = []
    cells: list[Node] = []
    cursor.deeper()
    while not cursor.next.startswith(r"\end"):
        if cursor.next == r"\\":
            cursor.take()
            rows.append(Node("row", tuple(cells)))
            cells = []
        elif cursor.next == "&":
            cursor.take()
        else:
            cells.append(_united(cursor))
            if cursor.next not in ("&", r"\\") and not cursor.next.startswith(r"\end"):
                raise FormulaError(f"{cursor.next!r} in a matrix")
        if len(rows) * max(1, len(cells)) > PARTS_MAX or len(cells) > PARTS_MAX:
            raise TooLargeError(f"too many parts: more than {PARTS_MAX}")
    end = cursor.take()
    cursor.depth -= 1
    if cells:
        rows.append(Node("row", tuple(cells)))
    if end != rf"\end{kind}" or not rows or len({len(row.parts) for row in rows}) > 1:
        raise FormulaError("a matrix whose rows differ in length")
    return Node("matrix", tuple(rows))


def _system(cursor: Cursor, kind: str) -> Node:
    """The lines of a system as a list."""
    items: list[Node] = []
    cursor.deeper()
    while cursor.next != rf"\end{kind}":
        if cursor.next in (r"\\", "&", ","):
            cursor.take()
        else:
            items.append(_item(cursor))
    cursor.take()
    cursor.depth -= 1
    if not items:
        raise FormulaError(f"an empty {kind!r}")
    return Node("list", tuple(items))


_SPECIAL = {
    r"\frac": _fraction,
    r"\sqrt": _root,
    r"\binom": _binomial,
}
