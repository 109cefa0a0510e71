"""When a rollout ends: an end token, a complete answer, a run of near-certain tokens, or its limit.

    stops = Stops(num_rows, policy.end_ids, max_new_tokens=2048, decode=policy.decode)
    reasons = stops.update(tokens, probabilities)     # after each token: None where a row goes on
    stops.keep(rows)                                  # after the same rows of the batch were kept

Source: the repetition rule is MiniMax-M1's (arXiv 2506.13585, section 3.2): it ends a loop early,
it does not punish it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from verifiers.answer import extract_answer

StopReason = Literal["end", "complete", "repetition", "length"]
"""Why a rollout ended; `length` and `repetition` leave it without its end: it counts as cut off."""

AnswerForm = Literal["tag", "boxed"]


@dataclass(frozen=True, kw_only=True)
class RepetitionStop:
    """Ends a rollout after `num_tokens` tokens in a row of a probability above `probability`."""

    num_tokens: int = 3000
    probability: float = 0.99
    """In (0, 1); a token of exactly this probability starts the count anew."""

    def __post_init__(self) -> None:
        if self.num_tokens < 1 or not 0.0 < self.probability < 1.0:
            raise ValueError(
                f"RepetitionStop: found num_tokens {self.num_tokens!r} and probability "
                f"{self.probability!r}; use 1 token or more and a probability between 0 and 1, "
                "or repetition=None for no such stop"
            )


@dataclass(frozen=True, kw_only=True)
class StopConfig:
    """What ends a rollout before its limit, beside end tokens."""

    complete_answer: AnswerForm | None = None
    r"""tag: a closed `<answer>`; boxed: that or a balanced `\boxed{}`, after the thinking if there
    is any; None: go on to the end token. A model that is always cut at its answer never learns to
    end, and is not judged by what it would have added: for evaluation and for base models."""
    repetition: RepetitionStop | None = RepetitionStop()
    """None = no such stop."""


def is_complete(text: str, form: AnswerForm) -> bool:
    """True if a response holds a final answer of this form, so that nothing more is needed."""
    answer = extract_answer(text)
    return answer.text is not None and form in ("boxed", answer.form)


def repetition_stop(
    probabilities: Sequence[float], config: RepetitionStop = RepetitionStop()
) -> int | None:
    """Tokens after which a whole rollout would have been stopped; None if it would not have been.

    Args:
        probabilities: of each token drawn, at the sampling temperature.
    """
    run = 0
    for index, probability in enumerate(probabilities):
        run = run + 1 if probability > config.probability else 0
        if run == config.num_tokens:
            return index + 1
    return None


class Stops:
    """Decides after each token which rows of a batch end, and why.

    Rows that ended keep being updated until they are dropped by `keep`; what is said of them after
    their end has no meaning.

    Args:
        decode: text of each row of token ids; needed only if complete answers stop a rollout.
    """

    def __init__(
        self,
        num_rows: int,
        end_ids: Collection[int],
        *,
        max_new_tokens: int,
        config: StopConfig = StopConfig(),
        decode: Callable[[Sequence[Sequence[int]]], list[str]] | None = None,
    ) -> None:
        if config.complete_answer is not None and decode is None:
            raise ValueError(
                f"Stops: complete_answer is {config.complete_answer!r}, but no `decode` is given "
                "to read the answers with; pass the policy's"
            )
        self.config, self.end_ids, self.max_new_tokens = config, frozenset(end_ids), max_new_tokens
        self._decode = decode
        self._run = torch.zeros(num_rows, dtype=torch.long)
        self._ids: list[list[int]] = [[] for _ in range(num_rows)]
        self._num_tokens = 0
        self._may_close: dict[int, bool] = {}

    def update(
        self, tokens: Int[Tensor, " row"], probabilities: Float[Tensor, " row"]
    ) -> list[StopReason | None]:
        """Why each row ends with this token; None where it goes on.

        Args:
            probabilities: of the tokens drawn, at the sampling temperature.
        """
        self._num_tokens += 1
        reasons: list[StopReason | None] = [None] * len(tokens)
        if self._num_tokens >= self.max_new_tokens:
            reasons = ["length"] * len(tokens)
        repetition = self.config.repetition
        if repetition is not None:
            is_sure = probabilities.cpu() > repetition.probability
            self._run = (self._run + 1) * is_sure
            for row in (self._run >= repetition.num_tokens).nonzero()[:, 0].tolist():
                reasons[row] = "repetition"
        ids: list[int] = tokens.tolist()
        if self.config.complete_answer is not None:
            for row in self._complete_rows(ids, self.config.complete_answer):
                reasons[row] = "complete"
        for row, token in enumerate(ids):
            if token in self.end_ids:
                reasons[row] = "end"
        return reasons

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Drops all rows but these."""
        self._run = self._run[rows.cpu()]
        self._ids = [self._ids[row] for row in rows.tolist()]

    def _complete_rows(self, ids: list[int], form: AnswerForm) -> list[int]:
        """Rows whose new token may close an answer are decoded and read; the others cost nothing.

        A tag ends with `>` and a box with `}`, both one byte: no tokenizer splits them.
        """
        assert self._decode is not None
        unseen = [token for token in set(ids) if token not in self._may_close]
        if unseen:
            for token, text in zip(unseen, self._decode([[t] for t in unseen]), strict=True):
                self._may_close[token] = ">" in text or "}" in text
        for row, token in enumerate(ids):
            self._ids[row].append(token)
        rows = [row for row, token in enumerate(ids) if self._may_close[token]]
        texts = self._decode([self._ids[row] for row in rows]) if rows else []
        return [row for row, text in zip(rows, texts, strict=True) if is_complete(text, form)]
