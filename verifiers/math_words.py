r"""What commands and signs of mathematics mean to the formula reader."""

from __future__ import annotations

from verifiers.math_node import INFINITY, REALS, Node
from verifiers.math_tokens import ACCENTS

GREEK = frozenset(
    rf"\{name}"
    for name in (
        *("alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta"),
        *("vartheta", "iota", "kappa", "lambda", "mu", "nu", "xi", "rho", "varrho", "sigma"),
        *("varsigma", "tau", "upsilon", "phi", "varphi", "chi", "psi", "omega", "Gamma", "Delta"),
        *("Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega", "pi", "ell"),
        *("hbar", "partial", "nabla", "ldots", "dots", "cdots"),
    )
)
"""Commands that are names."""
FUNCTION_NAMES = frozenset("fghFGHP")
"""Letters that name a function before a number in brackets: f(2)."""
ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "log10"}
"""Other spellings of functions."""
INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot"}
"""What an exponent of -1 makes of a function."""
SKIPPED = frozenset(
    (r"\angle", r"\triangle", r"\measuredangle", r"\boxed", r"\text", r"\mathrm", r"\mathbf")
)
"""Commands that say nothing about the value."""
CONSTANTS = {
    r"\infty": INFINITY,
    r"\emptyset": Node("set"),
    r"\varnothing": Node("set"),
    r"\mathbbR": REALS,
}
"""Commands with a meaning of their own."""
RELATIONS = {
    **{"=": "=", "==": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!="},
    **{r"\le": "<=", r"\leq": "<=", r"\leqslant": "<=", r"\ge": ">=", r"\geq": ">="},
    **{r"\geqslant": ">=", r"\lt": "<", r"\gt": ">", r"\ne": "!=", r"\neq": "!=", r"\in": "in"},
    **{r"\approx": "=", r"\sim": "sim", r"\cong": "cong", r"\equiv": "equiv"},
    **{r"\perp": "perp", r"\parallel": "parallel", r"\to": "to", r"\rightarrow": "to"},
}
"""Signs between the sides of equations and inequalities, in one spelling."""
FENCES = {
    r"\lvert": (r"\rvert", "abs"),
    r"\lfloor": (r"\rfloor", "floor"),
    r"\lceil": (r"\rceil", "ceil"),
    "|": ("|", "abs"),
}
"""Opening signs, with the closing one and what they do."""
TIMES = frozenset(("*", r"\cdot", r"\times", r"\ast"))
"""Signs of multiplication."""
OVER = frozenset(("/", r"\div"))
"""Signs of division."""
SYSTEMS = frozenset(("cases", "aligned", "align", "align*", "gathered", "split"))
"""Environments that hold lines of equations."""
MATRICES = frozenset(("matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array"))
"""Environments that hold a matrix."""
ENDS = frozenset(
    (r"\pm", r"\mp", r"\cup", r"\cap", r"\setminus", r"\backslash", r"\}", r"\\")
).union((r"\rvert", r"\rfloor", r"\rceil", r"\rangle", r"\mid"))
"""Commands that end a product."""
ACCENTED = (*(rf"\{name}" for name in ACCENTS), "...")
"""How a token with an accent starts."""
