"""Which row's text reads which pictures, and the pixels of some of a batch's pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pictures_by_row(per_row: Sequence[int], lengths: Sequence[int]) -> list[range]:
    """Indices of the pictures that each row's image tokens stand for.

    Args:
        per_row: image tokens of each row.
        lengths: image tokens of each picture, in the order of the markers, row by row.

    Raises:
        ValueError: the tokens of a row are not those of whole pictures, or pictures are left.
    """
    if sum(per_row) != sum(lengths):
        raise ValueError(
            f"the text holds {sum(per_row)} image tokens, the pictures give {sum(lengths)} "
            f"features; by row the text holds {list(per_row)}, by picture the features are "
            f"{list(lengths)}; let the processor expand each <image> marker"
        )
    rows: list[range] = []
    start = 0
    for row, count in enumerate(per_row):
        stop = start
        while stop < len(lengths) and sum(lengths[start:stop]) < count:
            stop += 1
        taken = list(lengths[start:stop])
        if sum(taken) != count:
            raise ValueError(
                f"row {row} holds {count} image tokens, the next pictures have {taken} features; "
                "pictures must come in the order of their markers, row by row"
            )
        rows.append(range(start, stop))
        start = stop
    return rows


def unread_pictures(
    all_tokens: Sequence[int], new_tokens: Sequence[int], lengths: Sequence[int]
) -> list[int]:
    """Indices of the pictures whose tokens a cache does not hold yet: each row's last ones.

    Args:
        all_tokens: image tokens of each row, those in the cache included.
        new_tokens: image tokens of each row behind the cache.
        lengths: image tokens of each picture: of all of the text, or of the new text alone.
    """
    if sum(lengths) == sum(new_tokens) or sum(lengths) != sum(all_tokens):
        return list(range(len(lengths)))  # what does not fit is refused where it is read
    unread: list[int] = []
    for pictures, new in zip(pictures_by_row(all_tokens, lengths), new_tokens, strict=True):
        first = pictures.stop
        while first > pictures.start and sum(lengths[first : pictures.stop]) < new:
            first -= 1
        unread += range(first, pictures.stop)
    return unread


def take_pictures(pixel_values: Tensor, counts: Sequence[int], wanted: Sequence[int]) -> Tensor:
    """`pixel_values` of some pictures; flat (tile, 3, H, W) or padded (picture, tile, 3, H, W).

    `counts` are the tiles of each picture.
    """
    if pixel_values.dim() == 5:
        return pixel_values[list(wanted)]
    tiles = pixel_values.split(list(counts))
    return torch.cat([pixel_values[:0], *(tiles[picture] for picture in wanted)])
