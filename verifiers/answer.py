r"""The final answer of a response: the last `<answer>` tag or `\boxed{}` after the thinking."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from verifiers.verdict import Status

RESPONSE_CHARS_MAX = 400_000
"""Longer responses are not read."""

ANSWER_CHARS_MAX = 65_536
"""Longer final answers are not read."""

_THINK_END = "</think>"
_ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
# A doubled backslash is what is left of one that was escaped twice.
_BOX_TOKEN = re.compile(r"\\\\?boxed\s*\{|\\.|[{}]", re.DOTALL)
# A box without braces or backslashes inside: what most answers are.
_SIMPLE_BOX = re.compile(r"\\boxed\{([^{}\\]*)\}")
_FENCE = re.compile(r"^```[A-Za-z0-9_+-]{0,20}[ \t]*\n?(.*?)\n?```$", re.DOTALL)
# Between two final answers, this makes them alternatives rather than a correction.
_ALTERNATIVE_GAP = re.compile(
    r"(?:[\s,;.:$|/&()\[\]{}*~#>•–—-]|\\[,;:! \\]|\\(?:text|textrm|mathrm|quad|qquad|lor|vee)\b"
    r"|(?:or|and|either|maybe|perhaps|also|possibly|alternatively|otherwise|else|versus|vs|it|could"
    r"|might|may|be)\b)*",
    re.IGNORECASE,
)
_GAP_CHARS_MAX, _GAP_CHARS_READ = 60, 2000

Form = Literal["tag", "boxed"]


class Answer(NamedTuple):
    """A final answer, or why there is none."""

    text: str | None
    """The answer, stripped, without tag, box and code fence; None if there is none."""
    status: Status = "ok"
    reason: str = ""
    form: Form = "boxed"
    """What it stood in."""


class _Span(NamedTuple):
    start: int
    end: int
    text: str


def extract_answer(response: str) -> Answer:
    r"""The final answer, in a tag or in a box, without code fence and quotation marks.

    A correction counts ("\boxed{1}. Wait. \boxed{2}" is 2); alternatives side by side
    ("\boxed{1} or \boxed{2}") do not, nor does a tag or box that is never closed.
    """
    # departs from V-Triune: its mathverify reads the thinking as well and takes all boxes of a
    # response for one set, so that two boxes are the answer "41, 42".
    final = _after_thinking(response)
    if isinstance(final, Answer):
        return final
    return _unquoted(_last_answer(final))


def _last_answer(final: str) -> Answer:
    """The last answer tag, or the last box if there is no tag."""
    tag = _last_tag(final) if "<" in final else None
    if isinstance(tag, Answer):
        return tag
    if tag is None:
        return _boxed(final)
    inside = _boxed(tag.text) if "\\boxed" in tag.text else Answer(tag.text, form="tag")
    if "\\boxed" in final[tag.end :]:
        later = _boxed(final[tag.end :])
        if later.text != inside.text:
            return Answer(None, "unparseable", "a box after the answer tag says something else")
    return _checked(inside._replace(form="tag"))


def extract_tag(response: str) -> Answer:
    """The content of the last complete `<answer>` tag after the thinking; boxes are not opened."""
    final = _after_thinking(response)
    if isinstance(final, Answer):
        return final
    tag = _last_tag(final)
    if isinstance(tag, Answer):
        return tag
    if tag is None:
        return Answer(None, "no_answer", "no <answer> tag")
    return _checked(Answer(tag.text, form="tag"))


@lru_cache(maxsize=16384)
def reference_text(ground_truth: str) -> Answer:
    """The reference in a ground truth, which may be bare or in dollar signs as well."""
    answer = extract_answer(ground_truth)
    if answer.text is not None or "\\boxed" in ground_truth or "<answer>" in ground_truth:
        return answer
    bare = ground_truth.strip()
    if len(bare) > 2 and bare[0] == "$" == bare[-1]:
        bare = bare.strip("$").strip()
    if not bare:
        return Answer(None, "no_answer", "the reference is empty")
    return _unquoted(_checked(Answer(bare)))


def form_score(response: str, ground_truth: str, answer: Answer) -> float:
    r"""How well the response keeps to the form its ground truth shows, in [0, 1].

    For a tag: a quarter for each of <think>, </think>, <answer>, </answer> that stands exactly
    once. For a box: 1 if there is one final answer in a box.
    Source: arXiv 2505.18129, format reward.
    """
    if "<answer>" not in ground_truth:
        return 1.0 if answer.text is not None else 0.0
    # departs from V-Triune: its code wants line breaks around each tag, its paper does not.
    tags = ("<think>", "</think>", "<answer>", "</answer>")
    return sum(0.25 for tag in tags if response.count(tag) == 1)


def without_fence(text: str) -> str:
    """The text without the code fence around it, stripped."""
    text = text.strip()
    if not text.startswith("```"):
        return text
    found = _FENCE.match(text)
    return found.group(1).strip() if found else text


def _after_thinking(response: str) -> str | Answer:
    """What follows the thinking, or why nothing does."""
    if len(response) > RESPONSE_CHARS_MAX:
        return Answer(
            None,
            "unparseable",
            f"response of {len(response)} characters; at most {RESPONSE_CHARS_MAX} are read",
        )
    thought_end = response.rfind(_THINK_END)
    final = response[thought_end + len(_THINK_END) :] if thought_end >= 0 else response
    if "<think>" in final:
        return Answer(None, "no_answer", "the thinking never ends")
    return final


def _checked(answer: Answer) -> Answer:
    """The answer without code fence; refused if it is empty or too long."""
    text = answer.text
    if text is None:
        return answer
    if len(text) > ANSWER_CHARS_MAX:
        reason = f"answer of {len(text)} characters; at most {ANSWER_CHARS_MAX} are read"
        return answer._replace(text=None, status="unparseable", reason=reason)
    text = without_fence(text)
    if not text:
        return answer._replace(text=None, status="no_answer", reason="the answer is empty")
    return answer._replace(text=text)


def _unquoted(answer: Answer) -> Answer:
    """The answer without quotation marks around it, as Python writes a string: 'left'."""
    text = answer.text
    if text is None or len(text) < 3 or text[0] not in "'\"" or text[0] != text[-1]:
        return answer
    inside = text[1:-1]
    if text[0] in inside or not inside.strip():
        return answer
    return answer._replace(text=inside.strip())


def _last_tag(final: str) -> _Span | Answer | None:
    """The last complete answer tag; an Answer if it is cut off or has an alternative."""
    spans: list[_Span] = []
    opened = -1
    start = 0
    for found in _ANSWER_TAG.finditer(final):
        if not found.group(1):
            opened, start = found.end(), found.start()
        elif opened >= 0:
            spans.append(_Span(start, found.end(), final[opened : found.start()].strip()))
            opened = -1
    if opened >= 0:
        return Answer(None, "no_answer", "the last <answer> tag is never closed", "tag")
    if not spans:
        return None
    if _has_alternative(final, spans):
        return Answer(None, "unparseable", "several different final answers", "tag")
    return spans[-1]


def _boxed(final: str) -> Answer:
    """The last balanced box."""
    if final.count("\\boxed") == 1:
        found = _SIMPLE_BOX.search(final)
        if found:
            return _checked(Answer(found.group(1)))
    spans = _box_spans(final)
    if spans is None:
        return Answer(None, "no_answer", "the last \\boxed{ is never closed")
    if not spans:
        return Answer(None, "no_answer", "neither an <answer> tag nor a \\boxed{}")
    if _has_alternative(final, spans):
        return Answer(None, "unparseable", "several different final answers")
    text = spans[-1].text
    while text.startswith("\\boxed{") and text.endswith("}"):
        text = text[len("\\boxed{") : -1].strip()
    return _checked(Answer(text))


def _box_spans(final: str) -> list[_Span] | None:
    """The outermost boxes, in order; None if one is never closed."""
    spans: list[_Span] = []
    stack: list[int] = []  # for each open brace: where its \\boxed starts, or -1
    contents: list[int] = []  # where the content of each open box starts
    for found in _BOX_TOKEN.finditer(final):
        token = found.group()
        if token == "{":
            stack.append(-1)
        elif token == "}":
            if stack and (start := stack.pop()) >= 0:
                content = contents.pop()
                if not contents:
                    spans.append(_Span(start, found.end(), final[content : found.start()].strip()))
        elif token.endswith("{") and len(token) > 2:
            stack.append(found.start())
            contents.append(found.end())
    return None if contents else spans


def _has_alternative(final: str, spans: list[_Span]) -> bool:
    """Whether a different answer stands beside the last one, with no more than an "or" between."""
    for before, after in zip(reversed(spans[:-1]), reversed(spans), strict=False):
        gap = " ".join(final[before.end : after.start][:_GAP_CHARS_READ].split())
        if len(gap) > _GAP_CHARS_MAX or not _ALTERNATIVE_GAP.fullmatch(gap):
            return False
        if "".join(before.text.split()) != "".join(spans[-1].text.split()):
            return True
    return False
