"""The policy as it was at the start, which a KL penalty keeps the trained one near.

    reference = reference_of(policy)     # before the first step and before a checkpoint is loaded
    PolicyUpdate(policy, ..., reference=reference)

Source: GRPO (arXiv 2402.03300) section 4.1; CISPO, DAPO and Dr. GRPO use none.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from .policy import AnswerScores, Policy, Question, Scorer

_T = TypeVar("_T")

_ADAPTER_INPUT = (".lora_A.", ".lora_embedding_A.")
_ADAPTER_OUTPUT = (".lora_B.", ".lora_embedding_B.")


def reference_of(policy: Policy) -> Scorer:
    """What gives today's log-probs for ever, without gradient.

    Where nothing but adapters train, and these still add nothing, it is the same model with its
    adapters switched off, which costs no memory; else a frozen copy of all weights.
    """
    if _adds_nothing(policy.model):
        return _WithoutAdapters(policy)
    frozen = copy.deepcopy(policy)
    frozen.model.requires_grad_(False).eval()
    return frozen


def _adds_nothing(model: nn.Module) -> bool:
    """True if all that trains is adapters whose output matrices are zero, as new ones are."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    outputs = [p for name, p in trained if any(mark in name for mark in _ADAPTER_OUTPUT)]
    inputs = [p for name, p in trained if any(mark in name for mark in _ADAPTER_INPUT)]
    is_adapters_alone = bool(outputs) and len(outputs) + len(inputs) == len(trained)
    return is_adapters_alone and not any(bool(param.any()) for param in outputs)


@dataclass(frozen=True)
class _WithoutAdapters:
    """A policy's scores with the model's adapters switched off.

    No other thread may compute with the model meanwhile.
    """

    _policy: Policy

    def features(self, entries: Sequence[Any]) -> list[Any]:
        """Without adapters."""
        return self._off(lambda: self._policy.features(entries))

    def read(self, features: Sequence[Any], questions: Sequence[Question]) -> Any:
        """Without adapters."""
        return self._off(lambda: self._policy.read(features, questions))

    def score(
        self,
        memory: Any,
        owners: Sequence[int],
        answers: Sequence[Sequence[int]],
        *,
        temperature: float = 1.0,
    ) -> AnswerScores:
        """Without adapters."""
        return self._off(
            lambda: self._policy.score(memory, owners, answers, temperature=temperature)
        )

    def score_alone(
        self,
        features: Sequence[Any],
        questions: Sequence[Question],
        answers: Sequence[Sequence[int]],
        *,
        temperature: float = 1.0,
    ) -> AnswerScores:
        """Without adapters."""
        return self._off(
            lambda: self._policy.score_alone(features, questions, answers, temperature=temperature)
        )

    def _off(self, compute: Callable[[], _T]) -> _T:
        with torch.no_grad(), _adapters_off(self._policy.model):
            return compute()


@contextmanager
def _adapters_off(model: PreTrainedModel) -> Iterator[None]:
    model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()  # sets their requires_grad again
