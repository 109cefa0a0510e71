"""Mixed precision: matrix products in bfloat16; weights, optimizer and head as they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch
from transformers import PreTrainedModel

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Computing(Protocol):
    """What runs a model's layers."""

    @property
    def model(self) -> PreTrainedModel:
        """The network."""
        ...

    @property
    def autocast(self) -> bool:
        """Whether its layers multiply in bfloat16."""
        ...


_C = TypeVar("_C", bound=Computing)


def in_compute_type(
    method: Callable[Concatenate[_C, _P], _R],
) -> Callable[Concatenate[_C, _P], _R]:
    """A method whose layers compute in bfloat16 where its object says so.

    The language-model head belongs outside: it is computed in float32 (MiniMax-M1, section 3.2).
    """

    @wraps(method)
    def computing(self: _C, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        device = self.model.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.autocast):
            return method(self, *args, **kwargs)

    return computing
