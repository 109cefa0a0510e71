"""What a policy sees of a corpus: pixels prepared once, features too if vision is frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .corpus import Corpus
from .policy import Policy

LIMIT_BYTES = 2 * 2**30


class Sight:
    """Pixels and features of pictures by their index, remembered up to a limit.

    Call `prepare` first where several threads look at once: they then only read.
    """

    def __init__(
        self,
        policy: Policy,
        corpus: Corpus,
        *,
        is_frozen: bool = False,
        limit_bytes: int = LIMIT_BYTES,
    ) -> None:
        """Args: is_frozen: the vision part does not train, so that features can be kept."""
        self._policy, self._corpus, self._is_frozen = policy, corpus, is_frozen
        self._pixels = _Memory(limit_bytes)
        self._features = _Memory(limit_bytes)

    def prepare(self, indices: Sequence[int]) -> None:
        """Decodes pictures that are not remembered; computes their features if frozen."""
        wanted = list(dict.fromkeys(indices))
        if self._is_frozen:
            new = [index for index in wanted if index not in self._features]
            if new:
                # each alone: a batch would round otherwise than the one that a resumed run makes
                with torch.no_grad():
                    found = [self._policy.features([self._encode(index)])[0] for index in new]
                self._features.add(dict(zip(new, found, strict=True)), keep=wanted)
            return
        new = [index for index in wanted if index not in self._pixels]
        self._pixels.add({index: self._encode(index) for index in new}, keep=wanted)

    def pixels(self, indices: Sequence[int]) -> list[Any]:
        """The policy's `Pixels` of each picture."""
        return [
            self._pixels[index] if index in self._pixels else self._encode(index)
            for index in indices
        ]

    def features(self, indices: Sequence[int]) -> list[Any]:
        """The policy's `Features` of each picture; without gradient if frozen."""
        if not self._is_frozen:
            return self._policy.features(self.pixels(indices))
        if any(index not in self._features for index in indices):
            self.prepare(indices)
        return [self._features[index] for index in indices]

    def _encode(self, index: int) -> Any:
        images = self._corpus.pictures[index].images
        return self._policy.encode([image.open() for image in images])


class _Memory:
    """Values by index; the ones that came first leave when the limit is passed."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._values: dict[int, Any] = {}
        self.num_bytes = 0

    def __contains__(self, index: int) -> bool:
        return index in self._values

    def __getitem__(self, index: int) -> Any:
        return self._values[index]

    def add(self, values: Mapping[int, Any], *, keep: Sequence[int]) -> None:
        """Remembers values; drops the oldest beyond the limit, but none of `keep`."""
        self._values |= values
        self.num_bytes += sum(map(num_bytes, values.values()))
        if self.num_bytes <= self._limit_bytes:
            return
        kept = set(keep)
        for index in list(self._values):
            if self.num_bytes <= self._limit_bytes:
                return
            if index not in kept:
                self.num_bytes -= num_bytes(self._values.pop(index))


def num_bytes(value: Any) -> int:
    """Bytes of all tensors in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(num_bytes, value.values()))
    if isinstance(value, tuple | list):
        return sum(map(num_bytes, value))
    return 0
