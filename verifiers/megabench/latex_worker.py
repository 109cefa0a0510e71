# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportMissingTypeStubs=false, reportUntypedBaseClass=false, reportUnknownArgumentType=false
"""The process that compares LaTeX: sympy behind a pipe, with a processor time limit per request."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

_MEMORY_LIMIT_BYTES = 4 << 30


def serve(cpu_limit_s: int) -> None:
    """Answers every line `[first, second, strict]` of standard input until that closes."""
    # Whatever prints goes to standard error: the pipe carries answers only.
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        read = latex_reader()
        read("x", True)
    except (ImportError, AttributeError, TypeError) as error:
        _send(pipe, f"{type(error).__name__}: {error}")
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT_BYTES, hard))
    _send(pipe, "ready")
    for line in sys.stdin:
        first, second, strict = json.loads(line)
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime) + 1 + cpu_limit_s
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        _send(pipe, compare(read, first, second, strict))


def compare(read: Callable[[str, bool], Any], first: str, second: str, strict: bool) -> str:
    """One of latex_process.Outcome."""
    from sympy import Expr
    from sympy.core.sympify import SympifyError
    from sympy.parsing.latex.errors import LaTeXParsingError

    try:
        one, other = read(first, strict), read(second, strict)
        if isinstance(one, Expr) and not isinstance(other, Expr):
            return "unread"  # as sympy 1.13, which upstream pins; later ones say they differ
        same = one.equals(other)
    except (LaTeXParsingError, SympifyError, TypeError, NotImplementedError):
        return "unread"
    except (ArithmeticError, AttributeError, LookupError, MemoryError):
        return "failed"
    except (AssertionError, RuntimeError, ValueError, OSError):  # RecursionError is the usual one
        return "failed"
    return "equal" if same else "different"


def latex_reader() -> Callable[[str, bool], Any]:
    """A function from LaTeX, and whether all of it has to be read, to a sympy object.

    departs from sympy's parse_latex: any ANTLR runtime that can load sympy's tables will do (from
    4.10 on), not 4.11 alone, which other packages may not allow.
    """
    import antlr4
    from sympy.parsing.latex import _parse_latex_antlr as inner
    from sympy.parsing.latex.errors import LaTeXParsingError

    class Lexer(inner.LaTeXLexer):
        def checkVersion(self, toolVersion: str) -> None:
            del toolVersion

    class Parser(inner.LaTeXParser):
        def checkVersion(self, toolVersion: str) -> None:
            del toolVersion

    def read(text: str, strict: bool) -> Any:
        text = text.strip()
        listener = inner.MathErrorListener(text)
        lexer = Lexer(antlr4.InputStream(text))
        parser = Parser(antlr4.CommonTokenStream(lexer))
        for recognizer in (lexer, parser):
            recognizer.removeErrorListeners()
            recognizer.addErrorListener(listener)
        relation = parser.math().relation()
        if strict and parser.getCurrentToken().type != antlr4.Token.EOF:
            raise LaTeXParsingError(f"{text!r} is an expression only in part")
        return inner.convert_relation(relation)

    return read


def _send(pipe: Any, answer: str) -> None:
    pipe.write(json.dumps(answer) + "\n")
    pipe.flush()
