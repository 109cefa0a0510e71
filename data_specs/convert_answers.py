r"""Which verifier judges a row, by the kind of its answer, and the reference in a response's form.

Without a verifier named, the first rule that holds decides:

1. there are options: `choice`; an answer that is a whole number counts the options from 0;
2. the task is math: `mathverify`;
3. there is one answer, and it is a number: `number`;
4. there is one answer, with LaTeX in it (a backslash, `^`, or in dollar signs): `mathverify`;
5. otherwise `text`, letter case aside; further answers are right as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from data_specs.convert_log import Fault
from data_specs.convert_options import Judging
from data_specs.sample import RewardSpec

OPTIONS_MAX = 26
"""Options have one letter each."""


@dataclass(frozen=True, kw_only=True)
class AnswerRules:
    """Who judges answers.

    Raises: ValueError for parameters without the verifier that they belong to.
    """

    verifier: str = ""
    """Verifier of every row; empty = chosen by the rules above."""
    params: Mapping[str, object] = field(default_factory=lambda: dict[str, object]())
    """Parameters of `verifier`."""
    relative_tolerance: float = 0.0
    """Of rows judged by `number`, chosen by rule; 0 = exact."""

    def __post_init__(self) -> None:
        if self.params and not self.verifier:
            raise ValueError(
                f"parameters {dict(self.params)!r} are given but no verifier: name the verifier "
                "that they belong to"
            )


def answer_reward(
    answers: Sequence[str],
    *,
    task: str,
    rules: AnswerRules,
    judging: Judging,
    options: Sequence[str] = (),
) -> RewardSpec:
    """How responses to a question with these answers are judged; the first one is the reference.

    Raises: Fault if there is no answer, or none of the options is meant.
    """
    texts = list(dict.fromkeys(bare for bare in (_bare(a, judging) for a in answers) if bare))
    if not texts:
        raise Fault("no answer", "answer", list(answers), "a text that is not empty")
    verifier = rules.verifier or _verifier(texts, task, judging, options)
    params: dict[str, object] = {}
    if verifier == "choice":
        texts = [option_letter(texts[0], options)] if options else texts[:1]
        params = {"options": list(options)} if options else {}
    elif verifier == "number" and rules.relative_tolerance:
        params = {"relative_tolerance": rules.relative_tolerance}
    elif verifier == "text":
        params = {"metric": "exact", "ignore_case": True}
        if len(texts) > 1:
            params["references"] = texts[1:]
    params |= rules.params
    ground_truth = f"\\boxed{{{texts[0]}}}"
    if verifier == "detection":  # boxes stand in a tag
        ground_truth = f"<answer>{texts[0]}</answer>"
    return RewardSpec(verifier=verifier, answer=texts[0], ground_truth=ground_truth, params=params)


def option_letter(answer: str, options: Sequence[str]) -> str:
    """The letter of the option that an answer means: its letter, its number from 0, or its text.

    Raises: Fault if it means none of them.
    """
    if not 2 <= len(options) <= OPTIONS_MAX:
        raise Fault("no options", "options", list(options), f"2 to {OPTIONS_MAX} options")
    folded = [_folded(option) for option in options]
    if folded.count(_folded(answer)) == 1:
        return chr(ord("A") + folded.index(_folded(answer)))
    letter = answer.strip().strip("().:").upper()
    if len(letter) == 1 and 0 <= ord(letter) - ord("A") < len(options):
        return letter
    if answer.isascii() and answer.isdigit() and int(answer) < len(options):
        return chr(ord("A") + int(answer))
    allowed = f"the letter, number from 0, or text of one of {list(options)!r}"
    raise Fault("answer is no option", "answer", answer, allowed)


def with_options(question: str, options: Sequence[str]) -> str:
    """The question with lettered options behind it, unless it shows all of them already."""
    if not options or all(_folded(option) in _folded(question) for option in options):
        return question
    lines = (f"{chr(ord('A') + index)}. {option}" for index, option in enumerate(options))
    return "\n".join([question, *lines])


def _verifier(texts: Sequence[str], task: str, judging: Judging, options: Sequence[str]) -> str:
    if options:
        return "choice"
    if task == "math":
        return "mathverify"
    if len(texts) == 1 and judging.is_number(texts[0]):
        return "number"
    if len(texts) == 1 and _is_latex(texts[0]):
        return "mathverify"
    return "text"


def _is_latex(text: str) -> bool:
    return "\\" in text or "^" in text or (len(text) > 2 and text[0] == "$" == text[-1])


def _bare(answer: str, judging: Judging) -> str:
    """The answer without its box or tag, stripped."""
    if "\\boxed" in answer or "<answer>" in answer:
        inside = judging.final_answer(answer)
        if inside is not None:
            return inside.strip()
    return answer.strip()


def _folded(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")
