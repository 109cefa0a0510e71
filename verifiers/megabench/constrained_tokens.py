"""Sentences and words of English text, exactly as NLTK 3.9.1 finds them.

Sentences: the Punkt algorithm, which asks of each `.`, `?` and `!` whether a sentence ends there.
Words: the Penn Treebank rules. Source: Kiss and Strunk, Computational Linguistics 32(4), 2006, and
the behaviour of NLTK's sent_tokenize and word_tokenize; no limit on the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from verifiers.megabench.constrained_words import punkt

_NON_WORD = r"(?:[)\";}\]\*:@\'\({\[!?])"
_MULTI = r"(?:\-{2,}|\.{2,}|(?:\.\s){2,}\.)"
_TOKEN = re.compile(
    rf"({_MULTI}"
    rf"|(?=[^\(\"\`{{\[:;&\#\*@\)}}\]\-,])\S+?(?=\s|$|{_NON_WORD}|{_MULTI}"
    rf"|,(?=$|\s|{_NON_WORD}|{_MULTI}))"
    r"|\S)"
)
"""A token of one line: dots or dashes, a word with its last period, or one other character."""
_MAYBE_END = re.compile(rf"[.?!](?=(?P<after>{_NON_WORD}|\s+(?P<next>\S+)))")
_CLOSERS = re.compile(r'["\')\]}]+?(?:\s+|(?=--)|$)', re.MULTILINE)
"""Closing quotes and brackets that belong to the sentence before them."""
_NUMBER = re.compile(r"^-?[\.,]?\d[\d,\.-]*\.?$")
_INITIAL = re.compile(r"[^\W\d]\.$")
_ELLIPSIS = re.compile(r"\.\.+$")
_SPACES = " \t\n\r\x0b\x0c"

_MIDDLE_UPPER = 1 << 2
_ANY_UPPER = 1 << 1 | 1 << 2 | 1 << 3
_START_LOWER = 1 << 4
_ANY_LOWER = 1 << 4 | 1 << 5 | 1 << 6


@dataclass(slots=True)
class _Token:
    text: str
    kind: str
    """Lower case; `##number##` for a number."""
    ends: bool = False
    """Whether a sentence ends after it."""
    shortened: bool = False
    """Whether it is an abbreviation or an ellipsis."""

    @property
    def kind_inside(self) -> str:
        """The kind, less the period that ends a sentence."""
        return _without_period(self.kind) if self.ends else self.kind


def split_sentences(text: str) -> list[str]:
    """The sentences in order, without the space between them."""
    return [text[start:stop] for start, stop in _realigned(text, _spans(text))]


def split_words(text: str) -> list[str]:
    """The word tokens of every sentence of the text, in order."""
    return [word for sentence in split_sentences(text) for word in _treebank_words(sentence)]


def _spans(text: str) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    start = 0
    for match, context in _maybe_ends(text):
        if not _holds_an_end(context):
            continue
        spans.append((start, match.end()))
        start = match.start("next") if match.group("next") else match.end()
    spans.append((start, len(text.rstrip())))
    return spans


def _maybe_ends(text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Each place where a sentence may end, with the word before and the token after it.

    Of several marks in one word (`!!!`) the last counts.
    """
    before = (0, 0)
    last: re.Match[str] | None = None
    for match in _MAYBE_END.finditer(text):
        stretch = text[before[1] : match.start()]
        space = max(stretch.rfind(mark) for mark in _SPACES)
        # A space at the very start counts as none, as in NLTK.
        word = (before[1] + space + 1 if space > 0 else before[0], match.start())
        if last is not None and before[1] <= word[0]:
            yield last, _context(text, before, last)
        last, before = match, word
    if last is not None:
        yield last, _context(text, before, last)


def _context(text: str, word: tuple[int, int], match: re.Match[str]) -> str:
    return text[word[0] : word[1]] + match.group() + match.group("after")


def _realigned(text: str, spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Moves closing quotes and brackets to the sentence they close."""
    moved = 0
    for index, (span_start, stop) in enumerate(spans):
        start = span_start + moved
        if index + 1 == len(spans):
            if text[start:stop]:
                yield start, stop
            return
        after = spans[index + 1]
        match = _CLOSERS.match(text[after[0] : after[1]])
        if match:
            yield start, after[0] + len(match.group().rstrip())
            moved = match.end()
        else:
            moved = 0
            if text[start:stop]:
                yield start, stop


def _holds_an_end(context: str) -> bool:
    """Whether a sentence ends at a token that is not the context's last."""
    tokens = [
        _classified(text)
        for line in context.split("\n")
        if line.strip()
        for text in _TOKEN.findall(line)
    ]
    for token, following in pairwise(tokens):
        if token.text.endswith("."):
            _decide(token, following)
        if token.ends:
            return True
    return False


def _classified(text: str) -> _Token:
    token = _Token(text, _NUMBER.sub("##number##", text.lower()))
    if text in (".", "?", "!"):
        token.ends = True
    elif _ELLIPSIS.match(text):
        token.shortened = True
    elif text.endswith(".") and not text.endswith(".."):
        stem = text[:-1].lower()
        known = punkt().abbreviations
        token.shortened = stem in known or stem.split("-")[-1] in known
        token.ends = not token.shortened
    return token


def _decide(token: _Token, following: _Token) -> None:
    """Second thoughts about a token that ends in a period, from the token after it."""
    model = punkt()
    kind, next_kind = _without_period(token.kind), following.kind_inside
    is_initial = _INITIAL.match(token.text) is not None
    if (kind, next_kind) in model.collocations:
        token.ends, token.shortened = False, True
        return
    starts = _starts_a_sentence(following)
    if token.shortened and not is_initial:
        if starts is True:
            token.ends = True
            return
        if following.text[0].isupper() and next_kind in model.starters:
            token.ends = True
            return
    if is_initial or kind == "##number##":
        never_lower = not model.spellings.get(next_kind, 0) & _ANY_LOWER
        is_name = is_initial and following.text[0].isupper() and never_lower
        if starts is False or (starts is None and is_name):
            token.ends, token.shortened = False, True


def _starts_a_sentence(token: _Token) -> bool | None:
    """Whether its letter case speaks for the start of a sentence; None: it does not tell."""
    if token.text in (";", ":", ",", ".", "!", "?"):
        return False
    seen = punkt().spellings.get(token.kind_inside, 0)
    if token.text[0].isupper() and seen & _ANY_LOWER and not seen & _MIDDLE_UPPER:
        return True
    if token.text[0].islower() and (seen & _ANY_UPPER or not seen & _START_LOWER):
        return False
    return None


def _without_period(kind: str) -> str:
    return kind[:-1] if len(kind) > 1 and kind.endswith(".") else kind


_TREEBANK = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"([«“‘„]|[`]+)", r" \1 "),
        (r"^\"", r"``"),
        (r"(``)", r" \1 "),
        (r"([ \(\[{<])(\"|\'{2})", r"\1 `` "),
        (r"(?i)(\')(?!re|ve|ll|m|t|s|d|n)(\w)\b", r"\1 \2"),
        (r'([^\.])(\.)([\]\)}>"\'»”’ ]*)\s*$', r"\1 \2 \3 "),
        (r"([:,])([^\d])", r" \1 \2"),
        (r"([:,])$", r" \1 "),
        (r"\.{2,}", r" \g<0> "),
        (r"[;@#$%&]", r" \g<0> "),
        (r'([^\.])(\.)([\]\)}>"\']*)\s*$', r"\1 \2\3 "),
        (r"[?!]", r" \g<0> "),
        (r"([^'])' ", r"\1 ' "),
        (r"[*]", r" \g<0> "),
        (r"[\]\[\(\)\{\}\<\>]", r" \g<0> "),
        (r"--", r" -- "),
    )
)
_TREEBANK_PADDED = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"([»”’])", r" \1 "),
        (r"''", " '' "),
        (r'"', " '' "),
        (r"\s+", " "),
        (r"([^' ])('[sS]|'[mM]|'[dD]|') ", r"\1 \2 "),
        (r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", r"\1 \2 "),
        (r"(?i)\b(can)(not)\b", r" \1 \2 "),
        (r"(?i)\b(d)('ye)\b", r" \1 \2 "),
        (r"(?i)\b(gim)(me)\b", r" \1 \2 "),
        (r"(?i)\b(gon)(na)\b", r" \1 \2 "),
        (r"(?i)\b(got)(ta)\b", r" \1 \2 "),
        (r"(?i)\b(lem)(me)\b", r" \1 \2 "),
        (r"(?i)\b(more)('n)\b", r" \1 \2 "),
        (r"(?i)\b(wan)(na)(?=\s)", r" \1 \2 "),
        (r"(?i) ('t)(is)\b", r" \1 \2 "),
        (r"(?i) ('t)(was)\b", r" \1 \2 "),
    )
)
"""Applied to the sentence with a space at each end."""


def _treebank_words(sentence: str) -> list[str]:
    for pattern, replacement in _TREEBANK:
        sentence = pattern.sub(replacement, sentence)
    sentence = f" {sentence} "
    for pattern, replacement in _TREEBANK_PADDED:
        sentence = pattern.sub(replacement, sentence)
    return sentence.split()
