r"""The pool of answer instructions, and the user text that a row is posed with.

# departs from V-Triune: its pool also draws one of ten "think step by step" wordings, unseeded;
ours draws only the answer instruction, from (seed, row, epoch).
"""

from __future__ import annotations

import hashlib

from data_specs import Sample
from tasks.task import BOXED

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
"""Ten wordings; the first one is used for every held-out row."""


def pose(sample: Sample, *, seed: int, epoch: int, heldout: bool, box_instruction: str = "") -> str:
    """The final user text: the row's question, a space, and an answer instruction.

    Rows answered by boxes say so themselves ("box every dog.") and get `box_instruction` as it is.
    """
    if sample.reward.verifier not in BOXED:
        return f"{sample.question} {box_instruction}".rstrip()
    return f"{sample.question} {POOL[0] if heldout else instruction(sample.id, seed, epoch)}"


def instruction(row_id: str, seed: int, epoch: int) -> str:
    """The wording for this row in this epoch; equal arguments give equal wordings."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{row_id}".encode()).digest()
    return POOL[int.from_bytes(digest[:8], "big") % len(POOL)]
