r"""The pool of instructions, and the user text that a row is posed with.

A verifier says by `asks_for` whether prompts shall ask for its answer in \boxed{} or in tags. The
wordings derive from (seed, row, epoch) and are the first ones for held-out rows, always.

# departs from V-Triune: its draw is unseeded and also changes test rows; unless `thinking` is asked
# for, ours leaves "think step by step" out, and rows that are answered in tags as they are.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from data_specs import Sample
from tasks import find_task
from verifiers import find_verifier

POOL: tuple[str, ...] = (
    r"answer in \boxed{}",
    r"use \boxed{}",
    r"reply with \boxed{}",
    r"put it in \boxed{}",
    r"give only \boxed{}",
    r"final answer in \boxed{}",
    r"write \boxed{}",
    r"end with \boxed{}",
    r"your answer in \boxed{}",
    r"return \boxed{} only",
)
"""Ten wordings for answers in a box; the first one is used for every held-out row."""

TAG_POOL: tuple[str, ...] = (
    "Give the answer between <answer> and </answer>.",
    "Write your final answer as <answer>final answer</answer>.",
    "The answer belongs between <answer> and </answer>.",
    "Close with <answer>your answer</answer>.",
    "Enclose what you answer in <answer> and </answer>.",
    "End your reply with the answer inside <answer></answer>.",
    "Reply with <answer>, the answer and </answer>.",
    "State the result in the form <answer>result</answer>.",
    "Mark your answer with <answer> before it and </answer> after it.",
    "Put only the answer inside <answer> and </answer>.",
)
"""The same for answers in tags."""

THINKING_POOL: tuple[str, ...] = (
    "Think step by step between <think> and </think> first.",
    "Before you answer, reason step by step inside <think></think>.",
    "Work it out step by step within <think> and </think>.",
    "Begin with your reasoning, step by step, as <think>reasoning</think>.",
    "Start with <think>, go step by step, and close with </think>.",
    "First go through it step by step in <think></think>.",
    "Reason carefully, step by step, between <think> and </think>.",
    "Lay out your thoughts step by step inside <think> and </think> beforehand.",
    "Solve it step by step and keep the working in <think>working</think>.",
    "Show how you get there, step by step, from <think> to </think>.",
)
"""Ten wordings that ask for thinking before the answer."""

_SAYS = {
    "boxed": ("\\boxed",),
    "tag": ("<answer>",),
    "thinking": ("<think>", "step by step"),
}
"""What a question holds that says the thing already."""


def pose(sample: Sample, *, seed: int, epoch: int, heldout: bool, thinking: bool = False) -> str:
    r"""The final user text: the row's question, and the instructions that its verifier asks for.

    Nothing is added that the question says already, and nothing to rows whose verifier asks for
    nothing. Rows answered in tags say so themselves ("box every dog."), unless `thinking`.

    Args:
        thinking: also ask for thinking, and for the tags of answers in tags.
    """
    text, form = question(sample), answer_form(sample)
    pools: dict[str, tuple[str, ...]] = {}
    if thinking and form is not None:
        pools["thinking"] = THINKING_POOL
    if form == "boxed":
        pools["boxed"] = POOL
    elif thinking and form == "tag":
        pools["tag"] = TAG_POOL
    wordings = [
        pool[0] if heldout else instruction(sample.id, seed, epoch, pool, kind)
        for kind, pool in pools.items()
        if not any(said in text for said in _SAYS[kind])
    ]
    return " ".join([text, *wordings])


def question(sample: Sample) -> str:
    """The user text of a row without instructions, as its task poses it.

    `<image>` markers stay only where a row shows several pictures: one picture comes first.
    """
    task = find_task(sample.task)
    if task is not None and task.pose is not None:
        return task.pose(sample)
    if len(sample.images) < 2:
        return sample.question
    said = [message.content for message in sample.messages if message.role == "user"]
    return said[-1].strip() if said else ""


def answer_form(sample: Sample) -> Literal["boxed", "tag"] | None:
    """How prompts shall ask for the answer to this row; None if they shall not."""
    verifier = find_verifier(sample.reward.verifier)
    return None if verifier is None else verifier.asks_for


def instruction(
    row_id: str, seed: int, epoch: int, pool: tuple[str, ...] = POOL, kind: str = "boxed"
) -> str:
    """The wording for this row in this epoch; equal arguments give equal wordings."""
    salt = "" if kind == "boxed" else f"{kind}/"  # kinds are drawn independently of each other
    digest = hashlib.sha256(f"{salt}{seed}/{epoch}/{row_id}".encode()).digest()
    return pool[int.from_bytes(digest[:8], "big") % len(pool)]
