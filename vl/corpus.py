"""Samples made ready for training: pictures once as pixels, texts as token ids, rows by picture.

Several rows may ask about one picture; they stay together, so that the picture is encoded once
for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Int
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from data_specs import Sample


class Padded(NamedTuple):
    """Token ids padded on the right."""

    ids: Int[Tensor, "row token"]
    valid: Bool[Tensor, "row token"]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture and the rows that ask about it (all of one source)."""

    index: int
    """Position in `Corpus.pixels`."""
    samples: tuple[Sample, ...]

    @property
    def source(self) -> str:
        """Data source of its rows."""
        return self.samples[0].source


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """All pictures (uint8, one size) and their rows."""

    pixels: Tensor
    """(picture, height, width, 3) uint8."""
    pictures: tuple[Picture, ...]

    @property
    def num_samples(self) -> int:
        """Rows over all pictures."""
        return sum(len(picture.samples) for picture in self.pictures)


def owners_of(pictures: Sequence[Picture]) -> list[int]:
    """For each row of the pictures, in order, the position of its picture among them."""
    return [index for index, picture in enumerate(pictures) for _ in picture.samples]


def build_corpus(groups: Iterable[Sequence[Sample]], *, size_px: int) -> Corpus:
    """Decodes each group's picture once and squashes it to a square; one `Picture` a group.

    Args:
        groups: rows that share one picture and one source.

    Raises:
        ValueError: a row has no picture or several (the embedded trainer packs rows by picture).
    """
    rows = [tuple(group) for group in groups]
    pixels = np.empty((len(rows), size_px, size_px, 3), dtype=np.uint8)
    for index, group in enumerate(rows):
        for sample in group:
            if len(sample.images) != 1:
                raise ValueError(
                    f"{sample.where} (id {sample.id}): images: found {len(sample.images)}; the "
                    "embedded trainer takes exactly one picture a row for now. Leave the row out"
                )
        picture = group[0].images[0].open()
        if picture.size != (size_px, size_px):
            picture = picture.resize((size_px, size_px), Image.Resampling.BICUBIC)
        pixels[index] = np.asarray(picture)
    pictures = tuple(Picture(index=index, samples=group) for index, group in enumerate(rows))
    return Corpus(pixels=torch.from_numpy(pixels), pictures=pictures)


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


Pose = Callable[[Sample, int], str]
"""(sample, epoch) to the user's text without the picture marker."""


def pad_right(rows: Sequence[Sequence[int]], pad_id: int) -> Padded:
    """One tensor of all rows; at least one column."""
    width = max(1, max(len(row) for row in rows))
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row, dtype=torch.long)
    lengths = torch.tensor([len(row) for row in rows])
    return Padded(ids, torch.arange(width)[None] < lengths[:, None])
