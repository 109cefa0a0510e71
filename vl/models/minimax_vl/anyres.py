"""How a picture of any size becomes tiles and image tokens: integer geometry, no tensors.

A picture is fitted into one of the grids of tiles that the configuration lists (`pinpoints`), and
comes with a thumbnail, the whole picture squashed to one tile. The tiles' features form one map;
lines of the map that hold nothing but padding are dropped, and each kept row ends with a newline
token. All pairs here are (height, width).

Source: MiniMax-01 report (arXiv 2501.08313) section 6; rounding as in the released processor.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

RELEASED_PINPOINTS: tuple[tuple[int, int], ...] = tuple(
    (336 * rows, 336 * columns)
    for rows in range(1, 7)
    for columns in range(1, 7)
    if rows * columns <= 18
)
"""Tile grids of MiniMax-VL-01 in pixels, 336 to 2016 a side, at most 18 tiles."""

Pinpoints = Sequence[Sequence[int]]


def read_pinpoints(found: str | Pinpoints | None, tile_px: int) -> list[list[int]]:
    """Grids as [height, width] lists; a string such as "[[336, 672]]" is parsed, None is no grid.

    Raises:
        ValueError: an entry is no pair of positive multiples of the tile.
    """
    grids: Any = found
    if isinstance(found, str):
        try:
            grids = ast.literal_eval(found)
        except (ValueError, SyntaxError) as error:
            raise ValueError(
                f"image_grid_pinpoints: found the text {found!r}, which is no list of pairs; "
                'write a list such as [[336, 672]], or the same as text "[[336, 672]]"'
            ) from error
    pairs = [list(pair) for pair in grids or ()]
    for pair in pairs:
        if len(pair) != 2 or any(side <= 0 or side % tile_px for side in pair):
            raise ValueError(
                f"image_grid_pinpoints: found {pair}; each is a pair (height, width) of positive "
                f"multiples of the tile's {tile_px} pixels"
            )
    return pairs


def select_grid(height: int, width: int, pinpoints: Pinpoints) -> tuple[int, int]:
    """The grid (height, width) in pixels that keeps most of a picture and wastes least canvas.

    The first of equally good grids wins.
    """
    if height <= 0 or width <= 0 or not pinpoints:
        raise ValueError(
            f"picture of {height}x{width} (height x width) and {len(pinpoints)} grids: both sides "
            "must be positive and at least one grid is needed"
        )

    def rank(grid: Sequence[int]) -> tuple[int, int]:
        scale = min(grid[1] / width, grid[0] / height)  # floats, so that ties fall as released
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - grid[0] * grid[1]

    best = max(pinpoints, key=rank)
    return best[0], best[1]


def fit_size(height: int, width: int, grid: tuple[int, int]) -> tuple[int, int]:
    """Size (height, width) in pixels of a picture fitted into `grid`, proportions kept."""
    grid_height, grid_width = grid
    # departs from the released processor: it fails on a side that rounds to 0 pixels, here it is 1
    if width * grid_height > grid_width * height:
        return max(1, grid_width * height // width), grid_width
    return grid_height, max(1, grid_height * width // height)


def kept_cells(
    height: int, width: int, grid: tuple[int, int], tile_px: int, patch_px: int, merge: int = 1
) -> tuple[int, int]:
    """Rows and columns of the feature map that are left when padding lines are dropped.

    The same number is dropped on both sides, so an odd line of padding stays; a very long, thin
    picture may be left with 0 rows or columns.
    """
    cells = cells_per_side(tile_px, patch_px, merge)
    rows, columns = grid[0] // tile_px * cells, grid[1] // tile_px * cells
    if width * rows > columns * height:
        return rows - 2 * ((rows - height * columns // width) // 2), columns
    return rows, columns - 2 * ((columns - width * rows // height) // 2)


def cells_per_side(tile_px: int, patch_px: int, merge: int = 1) -> int:
    """Image features along one side of a tile."""
    return tile_px // patch_px // merge


def num_image_tokens(
    height: int,
    width: int,
    pinpoints: Pinpoints,
    tile_px: int,
    patch_px: int,
    merge: int = 1,
) -> int:
    """Image tokens of one picture: thumbnail, then the kept rows with one newline token each.

    Without pinpoints a picture is its thumbnail alone. 480x640 takes 2340 tokens in the released
    model: 576 + 36 * (48 + 1).
    """
    thumbnail = cells_per_side(tile_px, patch_px, merge) ** 2
    if not pinpoints:
        return thumbnail
    grid = select_grid(height, width, pinpoints)
    rows, columns = kept_cells(height, width, grid, tile_px, patch_px, merge)
    return thumbnail + rows * (columns + 1)


def num_tiles(height: int, width: int, pinpoints: Pinpoints, tile_px: int) -> int:
    """Tiles of one picture, thumbnail included."""
    if not pinpoints:
        return 1
    grid = select_grid(height, width, pinpoints)
    return 1 + (grid[0] // tile_px) * (grid[1] // tile_px)
