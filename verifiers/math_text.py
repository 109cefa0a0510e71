r"""The text of an answer made plain: no `\left`, `\text{}`, dollar signs or typographic signs."""

from __future__ import annotations

import re
import unicodedata

_WRAPPER_NAMES = (
    r"text|textbf|textit|textrm|textsf|texttt|textnormal|mathrm|mathbf|mathit|mathsf|mathtt|mathcal"
    r"|boldsymbol|bm|mbox|hbox|operatorname|rm|bf|boxed|fbox|ce|emph|underline|ensuremath"
)
_WRAPPER = re.compile(rf"\\(?:{_WRAPPER_NAMES})\*?\s*\{{([^{{}}]*)\}}")
_SIZES = re.compile(
    r"\\(?:(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z])\.?"
    r"|(?:displaystyle|textstyle|limits|nolimits|bf|rm|it)(?![A-Za-z]))"
)
# Not after a backslash: `\\ ` ends a row of a matrix.
_SPACES = re.compile(
    r"(?<!\\)\\(?:[,;:! ]|(?:quad|qquad|thinspace|enspace)(?![A-Za-z])|hspace\*?\{[^{}]*\})|~"
)
_THOUSANDS = re.compile(
    r"(?<=[0-9])(?:\\[,!; ]|\{,\}|,\\!|[\u00a0\u2009\u202f])(?=[0-9]{3}(?![0-9]))"
)
_DECIMAL_COMMA = re.compile(r"(?<=[0-9])\{,\}(?=[0-9])")
_RENAMED = re.compile(
    r"(?<!\\)\\(?:(?P<frac>[dtc]frac)|(?P<binom>[dt]binom)|(?P<mid>lvert|rvert|vert)|(?P<brace>lbrace)"
    r"|(?P<close>rbrace)|(?P<bracket>lbrack)|(?P<unbracket>rbrack)|(?P<percent>%)"
    r"|(?P<degree>degree|textdegree)|(?P<mark>[&#_]))(?![A-Za-z])"
)
_NEW_NAMES = {
    **{"frac": r"\frac", "binom": r"\binom", "mid": "|", "brace": r"\{", "close": r"\}"},
    **{"bracket": "[", "unbracket": "]", "percent": "%", "degree": "°"},
}
_DEGREE = re.compile(r"\s{0,4}\^\s{0,4}(?:\{\s{0,4}\\circ\s{0,4}\}|\\circ(?![A-Za-z]))")
_DEGREE_UNIT = re.compile(r"° (?=[CF](?![A-Za-z]))")
_MATH_MARKS = re.compile(r"^\\[(\[](.*)\\[)\]]$", re.DOTALL)
_SIGNS = str.maketrans(
    {
        **{"²": "^2", "³": "^3", "⁴": "^4", "⁵": "^5", "⁻": "^-", "¹": "^1", "⁰": "^0"},
        **{"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/"},
        **{"π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne "},
        **{"±": r"\pm ", "∓": r"\mp ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset "},
        **{"∈": r"\in ", "≈": r"\approx ", "ℝ": r"\mathbb{R}", "θ": r"\theta ", "α": r"\alpha "},
        **{"β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "Δ": r"\Delta ", "λ": r"\lambda "},
        **{"μ": r"\mu ", "σ": r"\sigma ", "φ": r"\phi ", "ω": r"\omega ", "Ω": r"\Omega "},
        **{"⟨": r"\langle ", "⟩": r"\rangle ", "∠": r"\angle ", "∖": r"\setminus ", "ρ": r"\rho "},
    }
)
_SUPERSCRIPTS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]{2,}")
_SUPERSCRIPT_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_INVISIBLE = re.compile("[\u200b\u200c\u200d\u2060-\u2064\ufeff\u00ad]")
_QUOTES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "′": "'"})
_ROOT = re.compile(r"√\s*([0-9]+(?:\.[0-9]+)?|\([^()]*\)|\{[^{}]*\}|[A-Za-z])")
_VULGAR = re.compile("(?<=[0-9])(?=[¼½¾⅐-⅞])")
_LEAD_IN = re.compile(
    r"^(?:so |thus |therefore |hence )?(?:the )?(?:final |correct |right )?(?:answer|result|value)"
    r"(?: is|:| =)\s*:?\s*|^(?:\\approx|=)\s*",
    re.IGNORECASE,
)
_ROW_GAP = re.compile(r"\\\\\s*\[\s*-?[0-9.]+\s*(?:pt|em|ex|mm|cm)\s*\]")
_INFINITY = re.compile(r"(?<![A-Za-z\\])(?:positive )?infinity(?![A-Za-z])", re.IGNORECASE)
_SET_BUILDER = re.compile(
    r"^\\\{\s*[A-Za-z](?:\s*\\in\s*\\mathbb\s*\{?R\}?)?\s*(?:\||:|\\mid(?![a-z]))(.*)\\\}$",
    re.DOTALL,
)
_PLAIN_UNION = re.compile(r"(?<=[)\]}])\s*[Uu]\s*(?=[\[(\\])")
_OUTWARD = re.compile(r"^(?P<open>[\]\[(])(?P<inside>[^()\[\]]*)(?P<close>[\[\])])$")
_BRACKETED_LETTER = re.compile(r"[(\[]([A-Z])[)\]]")
_EMPTY = re.compile(r"[\s{}$.,;:()\[\]\\]*")


def loosened(text: str) -> str:
    """The text without dollar signs, sizes, spacing commands and typographic signs."""
    if not text.isascii():
        text = _ascii_math(text)
    if "$" in text:
        text = _without_dollars(text)
    if "\\" not in text and "~" not in text and "{," not in text:
        return text
    if found := _MATH_MARKS.match(text):
        text = found[1].strip()
    text = _THOUSANDS.sub("", text)
    text = _DECIMAL_COMMA.sub(".", text)
    text = _DEGREE.sub("° ", text)
    if r"\begin" in text:
        text = _ROW_GAP.sub(r"\\\\", text)
    text = _RENAMED.sub(_rename, text)
    return _SPACES.sub(" ", _SIZES.sub(" ", text)).strip()


def unwrapped(text: str) -> str:
    r"""The loosened text without `\text{}` and the like, final full stop and doubled spaces."""
    for _ in range(4):
        if "\\" not in text:
            break
        inside = _WRAPPER.sub(r" \1 ", text)
        if inside == text:
            break
        text = inside
    text = " ".join(text.split())
    if text[-1:] in (".", ",", ";") and not text.endswith(".."):
        text = text[:-1].rstrip()
    if found := _LEAD_IN.match(text):
        text = text[found.end() :]
    text = text.replace(" ^", "^")
    if "°" in text:
        text = _DEGREE_UNIT.sub("°", text)
    if "nfinity" in text:
        text = _INFINITY.sub(r"\\infty", text)
    if text[:2] == "((":
        text = _without_doubled_brackets(text)
    if found := _BRACKETED_LETTER.fullmatch(text.replace(" ", "")):
        return found[1]
    if found := _SET_BUILDER.match(text):
        text = found[1].strip()
    return _brackets(text)


def is_empty(text: str) -> bool:
    """Whether nothing but brackets, dollar signs and full stops is written."""
    return _EMPTY.fullmatch(text) is not None


def undressed(raw: str) -> str:
    """Without quotation marks and asterisks around it."""
    text = raw.strip()
    while len(text) > 4 and text.startswith("**") and text.endswith("**"):
        text = text[2:-2].strip()
    if len(text) > 2 and text[0] == text[-1] and text[0] in "'\"`":
        text = text[1:-1].strip()
    return text


def _ascii_math(text: str) -> str:
    text = _SUPERSCRIPTS.sub(
        lambda found: "^{" + found.group().translate(_SUPERSCRIPT_DIGITS) + "}", text
    )
    text = _VULGAR.sub(" ", _ROOT.sub(lambda found: rf"\sqrt{{{found[1].strip('{}')}}}", text))
    text = text.replace("\u00a0", r"\ ").replace("\u2009", r"\,").replace("\u202f", r"\,")
    text = text.replace("º", "°").replace("℃", "°C").replace("℉", "°F")
    text = text.translate(_SIGNS)
    if text.isascii():
        return text
    # Form NFKC turns full-width digits, fractions and letters into plain ones.
    text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).translate(_QUOTES)
    return text.replace("\u2044", "/")


def _without_dollars(text: str) -> str:
    r"""Without the dollar signs of mathematics; those of money become `\dollar`."""
    text = text.replace(r"\$", r"\dollar ")
    if text.count("$") % 2:
        text = text.replace("$", r"\dollar ", 1)
    return text.replace("$", "").strip()


def _rename(found: re.Match[str]) -> str:
    group = found.lastgroup or ""
    return found[0][1:] if group == "mark" else _NEW_NAMES[group]


def _without_doubled_brackets(text: str) -> str:
    """The text with one pair of the round brackets that enclose all of it."""
    left = len(text) - len(text.lstrip("("))
    right = len(text) - len(text.rstrip(")"))
    depth = shallowest = left
    for char in text[left : len(text) - right]:
        depth += (char == "(") - (char == ")")
        shallowest = min(shallowest, depth)
    doubled = min(right, shallowest) - 1
    return text[doubled : len(text) - doubled] if depth == right and doubled > 0 else text


def _brackets(text: str) -> str:
    """Unions typed with a U, and French intervals: `]1,2[` is `(1,2)`."""
    if "U" in text or "u" in text:
        text = _PLAIN_UNION.sub(r" \\cup ", text)
    if text[:1] == "]" or text[-1:] == "[":
        found = _OUTWARD.match(text)
        if found:
            left = "(" if found["open"] == "]" else found["open"]
            right = ")" if found["close"] == "[" else found["close"]
            text = f"{left}{found['inside']}{right}"
    return text
