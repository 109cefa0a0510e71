"""What a transformers model has seen and read, as the trainer carries it from call to call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from vl.policy import Question

from .hf_attention import LayerPrefix, Prefix


class Features(NamedTuple):
    """What the decoder reads of one entry."""

    tokens: tuple[Float[Tensor, "token hidden"], ...]
    """Of its pictures, in order."""
    deep: tuple[tuple[Tensor, ...], ...]
    """The same for each further decoder layer that is fed (Qwen3-VL's deepstack)."""
    layout: dict[str, Tensor]
    """Sizes or grids of the pictures, by the names of the model's arguments."""
    expansions: tuple[str, ...]
    """The text of each picture's placeholders."""


class Chunk(NamedTuple):
    """Memory of prompts that were read together."""

    rows: tuple[int, ...]
    """Which questions these are."""
    prefix: Prefix
    positions: Int[Tensor, " prompt"]
    """Position of the first answer token."""
    hidden: Float[Tensor, "prompt hidden"]
    """Last state of each prompt, which predicts the first answer token."""


class Memory(NamedTuple):
    """Questions that have been read, or that will be read for each answer."""

    features: tuple[Features, ...]
    questions: tuple[Question, ...]
    chunks: tuple[Chunk, ...] | None
    """None where the model cannot share."""


def chunks_of(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Rows to compute together: of similar length, `budget` tokens with padding; at least one."""
    if len(lengths) * max(lengths) <= budget:
        yield list(range(len(lengths)))
        return
    chunk: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if chunk and (len(chunk) + 1) * lengths[row] > budget:
            yield chunk
            chunk = []
        chunk.append(row)
    yield chunk


def next_positions(
    positions: Int[Tensor, "3 row token"] | None, lengths: Int[Tensor, " row"]
) -> Int[Tensor, " row"]:
    """Position of the token after each row; one further than the largest, in m-RoPE too."""
    if positions is None:
        return lengths
    padding = torch.arange(positions.shape[-1], device=lengths.device) >= lengths[:, None]
    return positions.masked_fill(padding, -1).amax((0, 2)) + 1


def join(chunks: Sequence[Chunk]) -> Chunk:
    """All prompts as one chunk in the order of the questions."""
    if len(chunks) == 1:
        return chunks[0]
    order = torch.tensor([row for chunk in chunks for row in chunk.rows]).argsort()
    order = order.to(chunks[0].positions.device)
    width = max(chunk.prefix.layers[0].keys.shape[2] for chunk in chunks)
    layers = [
        LayerPrefix(
            *(
                torch.cat([F.pad(one, (0, 0, 0, width - one.shape[2])) for one in states])[order]
                for states in zip(*layer, strict=True)
            )
        )
        for layer in zip(*(chunk.prefix.layers for chunk in chunks), strict=True)
    ]
    lengths, positions, hidden = (
        torch.cat(each)[order]
        for each in zip(*((c.prefix.lengths, c.positions, c.hidden) for c in chunks), strict=True)
    )
    return Chunk(tuple(range(len(order))), Prefix(layers, lengths), positions, hidden)
