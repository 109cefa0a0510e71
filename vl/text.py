"""Chat turns of MiniMax-VL as token ids, and rows of them as one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast


class Padded(NamedTuple):
    """Token ids padded on the right."""

    ids: Int[Tensor, "row token"]
    valid: Bool[Tensor, "row token"]


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """Chat template and tokenizer with a memory: a text is tokenized once."""

    tokenizer: PreTrainedTokenizerFast
    _memory: dict[str, list[int]] = field(default_factory=dict)

    def encode(self, text: str) -> list[int]:
        """Token ids, nothing added."""
        found = self._memory.get(text)
        if found is None:
            found = self.tokenizer(text, add_special_tokens=False).input_ids
            self._memory[text] = found
        return found

    def prompt(self, question: str) -> list[int]:
        """What follows the picture in a user turn, up to but without the assistant's header."""
        eos, bos = self.tokenizer.eos_token, self.tokenizer.bos_token
        return self.encode(f"{question}{eos}{bos}")

    @property
    def end_id(self) -> int:
        """Id of the end token."""
        return cast("int", self.tokenizer.eos_token_id)

    @property
    def pad_id(self) -> int:
        """Id that fills up padded rows."""
        return cast("int", self.tokenizer.pad_token_id)

    @property
    def opening(self) -> list[int]:
        """What precedes the picture."""
        return self.encode(f"{self.tokenizer.bos_token}user\n")

    @property
    def header(self) -> list[int]:
        """The assistant's header, the first token(s) the answer is conditioned on."""
        return self.encode("assistant\n")

    def answer(self, text: str) -> list[int]:
        """A complete answer with its end token."""
        return [*self.encode(text), self.end_id]


def pad_right(rows: Sequence[Sequence[int]], pad_id: int) -> Padded:
    """One tensor of all rows; at least one column."""
    width = max(1, max(len(row) for row in rows))
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row, dtype=torch.long)
    lengths = torch.tensor([len(row) for row in rows])
    return Padded(ids, torch.arange(width)[None] < lengths[:, None])
