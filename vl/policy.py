"""What the trainer needs of a model: see pictures, read prompts, branch answers off, score them.

The computation is a tree: a picture is seen once, its prompts read it, and the rollouts of a prompt
branch from the prompt's memory, in sampling and in the update alike. Gradients flow back through
the shared prefixes, so the update equals that of separate rows.

`vl.models.minimax_policy.MiniMaxPolicy` is this for MiniMax-VL, `vl.models.hf.HfPolicy` for any
image-text-to-text model of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

PARTS = ("vit", "connector", "llm")
"""The parts of a vision-language model that can be frozen or trained at a rate of their own."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One prompt: whose pictures it is about, and the user's text."""

    owner: int
    """Position, among the features it is read with, of its picture entry."""
    text: str
    """`<image>` marks where each picture of the entry stands; without a marker they come first."""


class AnswerScores(NamedTuple):
    """Per answer token, padded on the right."""

    logprobs: Float[Tensor, "row token"]
    entropy: Float[Tensor, "row token"]
    """In nats, of the whole next-token distribution at the temperature asked for."""
    valid: Bool[Tensor, "row token"]


class Branches(Protocol):
    """Answers in progress, one row each, that continue their prompts' memory. No gradients."""

    def logits(self) -> Float[Tensor, "row vocab"]:
        """Next-token logits of every row, float32, forbidden tokens at minus infinity."""
        ...

    def extend(self, tokens: Int[Tensor, " row"]) -> None:
        """Appends one token to every row."""
        ...

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Drops all rows but these (rising positions), e.g. those that have ended."""
        ...


class Scorer(Protocol):
    """What gives log-probs of answers.

    `Pixels`, `Features` and `Memory` are the policy's own: callers only carry them from one method
    to the next. An *entry* is what one row shows: one picture or several.
    """

    def features(self, entries: Sequence[Any]) -> list[Any]:
        """The `Features` of each entry's `Pixels`: what the language model reads of it."""
        ...

    def read(self, features: Sequence[Any], questions: Sequence[Question]) -> Any:
        """The `Memory` after each question, one row each, in order."""
        ...

    def score(
        self,
        memory: Any,
        owners: Sequence[int],
        answers: Sequence[Sequence[int]],
        *,
        temperature: float = 1.0,
    ) -> AnswerScores:
        """Log-probability and entropy of every token of each answer after its question's memory.

        Args:
            owners: the row of `memory` that each answer continues.
            answers: token ids, end token included where the answer ended.
        """
        ...

    def score_alone(
        self,
        features: Sequence[Any],
        questions: Sequence[Question],
        answers: Sequence[Sequence[int]],
        *,
        temperature: float = 1.0,
    ) -> AnswerScores:
        """The same without sharing: each question is read anew for its one answer."""
        ...


class Policy(Scorer, Protocol):
    """A model with its processor, as the trainer sees it."""

    @property
    def model(self) -> PreTrainedModel:
        """The network, in whatever mode the caller left it."""
        ...

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        ...

    @property
    def parts(self) -> Mapping[str, tuple[str, ...]]:
        """Leading pieces of parameter names for each of PARTS; together they name every one."""
        ...

    @property
    def forbidden_ids(self) -> tuple[int, ...]:
        """Tokens that sampling never draws; log-probs are normalised without them."""
        ...

    def encode(self, images: Sequence[Image.Image]) -> Any:
        """The `Pixels` of one entry: what the image processor makes of its pictures."""
        ...

    def branch(self, memory: Any, copies: int) -> Branches:
        """`copies` answers to each question: rows r * copies ... r * copies + copies - 1."""
        ...

    def negative_log_likelihood(
        self,
        features: Sequence[Any],
        questions: Sequence[Question],
        answers: Sequence[Sequence[int]],
    ) -> Float[Tensor, ""]:
        """Sum over all answer tokens, in nats: what supervised fine-tuning lowers."""
        ...

    def decode(self, answers: Sequence[Sequence[int]]) -> list[str]:
        """Text of answers, without special tokens."""
        ...

    def encode_answer(self, text: str) -> list[int]:
        """Token ids of a complete answer, end token included."""
        ...

    def num_prompt_tokens(self, features: Any, text: str) -> int:
        """Tokens that the model reads before an answer, pictures included."""
        ...

    def save(self, folder: Path) -> None:
        """Writes model, adapters added in, and processor in transformers' layout."""
        ...
