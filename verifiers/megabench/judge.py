"""Metrics that a language model judges, through any OpenAI-compatible endpoint.

What the judge is asked and how its reply is read: here. Sending and storing: judge_endpoint.py.
Without a judge the score is unscored.
"""

from __future__ import annotations

import re
from typing import Any

from verifiers.megabench.judge_drawing import draw_text
from verifiers.megabench.judge_endpoint import EndpointJudge
from verifiers.megabench.registry import (
    Judge,
    JudgedReply,
    JudgeMessage,
    Mode,
    Scored,
    Unscored,
)

__all__ = ["EndpointJudge", "ascii_art_gpt4o_judge", "gpt_4o_as_judge"]

ASCII_ART_QUESTION = (
    "Determine if the following two ASCII art images depict the same object. Your answer should be "
    'either "yes" or "no", but without the quotation marks.'
)
"""Upstream's question, which a comparable judge has to be asked."""

_SCORE = {
    "compat": re.compile(r"\*\*Score\*\*\s*:\s*(\d+)"),
    "sound": re.compile(r"\*\*Score\s*(?:\*\*\s*:|:\s*\*\*)\s*(\d+(?:\.\d+)?)"),
}
_EXPLANATION = re.compile(r"\*\*Score explanation\*\*\s*:\s*(.*)", re.DOTALL)


def gpt_4o_as_judge(reply: JudgedReply, judge: Judge | None, *, mode: Mode = "compat") -> Scored:
    """The judge's mark out of ten, as a share; info holds mark and explanation.

    In `compat` a mark above ten gives more than 1, and a judge that names none gives 0; in `sound`
    the mark is at most ten, may have decimals, and a judge that names none leaves it unscored.
    """
    if judge is None:
        raise Unscored("no judge")
    images = reply.images if reply.config.get("judge_model_type") == "with image" else ()
    said = judge(JudgeMessage(_judge_prompt(reply), tuple(images)))
    return _read_mark(said, mode)


def ascii_art_gpt4o_judge(
    reply: JudgedReply, judge: Judge | None, *, mode: Mode = "compat"
) -> Scored:
    """1 if the judge, shown both texts as pictures, says that they depict the same thing."""
    answer, reference = reply.prediction, reply.reference
    if not isinstance(answer, str) or not isinstance(reference, str) or not answer:
        return Scored(0, None)
    if not reference:
        return Scored(0, None)  # upstream: raises, scored 0
    if judge is None:
        raise Unscored("no judge")
    if mode == "sound" and not answer.strip():
        return Scored(0, None)
    pictures = draw_text(answer), draw_text(reference)
    said = judge(JudgeMessage(ASCII_ART_QUESTION, pictures)).lower()
    # upstream: any "yes" counts, also the one in "eyes"
    agreed = "yes" in said if mode == "compat" else re.search(r"\byes\b", said) is not None
    return Scored(int(agreed), said)


def _judge_prompt(reply: JudgedReply) -> str:
    """The task's prompt with its blanks filled in.

    Raises: Unscored if the row lacks what the prompt asks for: a fault of the row, not the reply.
    """
    try:
        blanks = {
            blank: _filling(source, reply)
            for blank, source in reply.config["template_mapping"].items()
        }
        return str(reply.config["eval_criteria_prompt"]).format(**blanks)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise Unscored(
            f"the judge's prompt cannot be filled in: {type(error).__name__} {error}; see the "
            "task's gpt4o_eval_configs"
        ) from None


def _filling(source: str, reply: JudgedReply) -> Any:
    if source == "model_output":
        return reply.prediction
    if source == "example_question":
        return reply.query_text
    kind, name = source.split(".")[:2]
    return {"answers": reply.references, "eval_context": reply.eval_context}[kind][name]


def _read_mark(said: str, mode: Mode) -> Scored:
    found = _SCORE[mode].search(said)
    if found is None:
        if mode == "sound":
            raise Unscored(f"the judge names no score: {said[:200]!r}")
        return Scored(0, f"Score is NULL: {said};")
    mark = int(found.group(1)) if mode == "compat" else min(10.0, float(found.group(1)))
    why = _EXPLANATION.search(said)
    info = f"Score: {mark}; Explanation: {why.group(1).strip() if why else ''}"
    return Scored(mark / 10.0, info)
