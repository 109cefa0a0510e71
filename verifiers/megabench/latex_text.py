"""LaTeX in the spelling that two expressions are compared in."""

from __future__ import annotations

import re
import unicodedata

_MACRON = "\u0304"

_SMALL = dict(
    zip(
        "αβγδεζηθικλμνξοπρστυφχψω",
        (
            *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"),
            *("iota", "kappa", "lambda", "mu", "nu", "xi", "omicron", "pi"),
            *("rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
        ),
        strict=True,
    )
)
_GREEK = _SMALL | {letter.upper(): name.capitalize() for letter, name in _SMALL.items()}


def normal_latex(text: str) -> str:
    r"""The text with `\overline{}` for bars and macrons, commands for Greek letters, no delimiters.

    Raises: IndexError for a macron with nothing before it; KeyError for a final sigma (`ς`).
    """
    text = _macrons_as_commands(text.replace(r"\bar", r"\overline"))
    text = re.sub(r"\\overline\{([^}]*)\}_([^{}\\ ]*)", r"\\overline{\1_\2}", text)
    text = re.sub(r"[α-ωΑ-Ω]", lambda match: f"\\{_GREEK[match.group()]} ", text)
    text = re.sub(r"\\(begin|end)\{.*?\}(?:\[[^\[\]]*\])?", "", text)
    return re.sub(r"\\[\[\]]", "", re.sub(r"\\[()]", "", text))


def split_latex(text: str) -> tuple[str, str]:
    """The plain text around `$...$` without commas, and what is inside, joined by spaces."""
    plain: list[str] = []
    latex: list[str] = []
    for part in re.split(r"(\$[^$]*\$)", text):
        if part.startswith("$") and part.endswith("$"):
            latex.append(part[1:-1].strip().replace(",", ""))
        else:
            plain.append(part.strip())
    return "".join(plain).replace(",", ""), " ".join(latex)


def _macrons_as_commands(text: str) -> str:
    parts: list[str] = []
    for mark in text:
        if mark.isalpha():
            decomposed = unicodedata.normalize("NFD", mark)
            has_macron = decomposed[1:2] == _MACRON
            parts.append(rf"\overline{{{decomposed[0]}}}" if has_macron else mark)
        elif mark == _MACRON:
            parts[-1] = rf"\overline{{{parts[-1]}}}"
        else:
            parts.append(mark)
    return "".join(parts)
