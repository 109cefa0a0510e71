"""Pictures to tiles: the thumbnail and the tile grid of each picture as normalised pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ImagesKwargs

from .anyres import Pinpoints, fit_size, num_tiles, read_pinpoints, select_grid

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

Resizer = Literal["torchvision", "pil"]

_ONLY: dict[str, tuple[Any, str]] = {
    "process_image_mode": ("anyres", "the other modes of the released file were not trained with"),
    "do_resize": (True, "tiles have one size"),
    "do_rescale": (True, "the tower reads normalised pixels"),
    "do_normalize": (True, "the tower reads normalised pixels"),
    "resample": (Image.Resampling.BICUBIC, "the model was trained with bicubic resizing"),
}
"""Settings of a preprocessor_config.json that are accepted with one value only, and why."""


class MiniMaxVLImageKwargs(ImagesKwargs, total=False):
    """Settings that `from_pretrained(folder, name=value)` may override."""

    image_grid_pinpoints: list[list[int]]
    resizer: Resizer
    patch_size: int


class MiniMaxVLImageProcessor(BaseImageProcessor):
    """Cuts each picture into a thumbnail and tiles and normalises them with CLIP's mean and std.

    A picture is fitted into the best of the grids (bicubic, proportions kept, black bars), the grid
    is cut into tiles row by row, and the whole picture squashed to one tile comes first. Without
    grids the thumbnail is all. Source: the released MiniMax-VL-01 preprocessor, mode `anyres`.

    Pictures may be PIL images of any mode, uint8 arrays or tensors, or paths and URLs, in lists or
    lists of lists. Colours are read first: alpha is dropped, 16-bit grey keeps its upper 8 bits. An
    open PIL image is taken as its pixels lie; paths and URLs are turned as their EXIF block says.

    Args:
        size: side of the square tile in pixels; the released form [336, 336] and a dictionary with
            height and width are read too.
        image_grid_pinpoints: grids as (height, width) in pixels, list or text; none = no tiles.
        resizer: "torchvision" is several times faster; "pil" equals the released pipeline bit for
            bit, whatever Pillow's version. Their pixels differ by at most 2 of 255 levels, by 0.01
            on average.
        patch_size: pixels a side that become one image token, if the model merges none.
    """

    model_input_names = ("pixel_values", "image_sizes")
    valid_kwargs = MiniMaxVLImageKwargs

    def __init__(
        self,
        size: dict[str, int] | Sequence[int] | int = 64,
        image_mean: Sequence[float] = CLIP_MEAN,
        image_std: Sequence[float] = CLIP_STD,
        image_grid_pinpoints: str | Pinpoints | None = None,
        resizer: Resizer = "torchvision",
        patch_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        for name, (only, reason) in _ONLY.items():
            if kwargs.get(name, only) not in (only, None):
                raise ValueError(f"{name}: found {kwargs[name]!r}; only {only!r} works ({reason})")
        if resizer not in get_args(Resizer):
            raise ValueError(f"resizer: found {resizer!r}; use one of {get_args(Resizer)}")
        super().__init__(**kwargs)
        self.size = _read_size(size)
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.image_grid_pinpoints = read_pinpoints(image_grid_pinpoints, self.tile_px)
        self.resizer: Resizer = resizer
        self.patch_size = patch_size

    @property
    def tile_px(self) -> int:
        """Pixels along one side of a tile."""
        return self.size["height"]

    def preprocess(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        images: Any,
        return_tensors: str | None = "pt",
        *,
        pad_tiles: bool = False,
        **kwargs: Any,
    ) -> BatchFeature:
        """Tiles of all pictures in order, each picture's thumbnail before its tiles.

        `pixel_values` (tile, 3, side, side) in float32, `image_sizes` (picture, 2) as height and
        width, and `num_tiles` (picture), thumbnail included.

        Args:
            pad_tiles: make `pixel_values` (picture, tile, 3, side, side), filled up with zeros, as
                vLLM and LLaVA-NeXT have it.
        """
        if kwargs:
            raise TypeError(
                f"{sorted(kwargs)}: no settings of one call; give them when the image processor is "
                "made or loaded"
            )
        pictures = [read_picture(one) for one in flat_pictures(self.fetch_images(images))]
        if not pictures:
            raise ValueError("images: found none; leave them out for text alone")
        sizes = [(picture.height, picture.width) for picture in pictures]
        counts = [num_tiles(*size, self.image_grid_pinpoints, self.tile_px) for size in sizes]
        shape = (3, self.tile_px, self.tile_px)
        if pad_tiles:
            rows = _empty((len(counts), max(counts), *shape))
            for row, count in zip(rows, counts, strict=True):
                row[count:] = 0.0
            pixel_values, parts = rows, [row[:n] for row, n in zip(rows, counts, strict=True)]
        else:
            pixel_values = _empty((sum(counts), *shape))
            parts = pixel_values.split(counts)
        for picture, part in zip(pictures, parts, strict=True):
            self._write_tiles(picture, part)
        found = {"pixel_values": pixel_values, "image_sizes": sizes, "num_tiles": counts}
        return BatchFeature(found, return_tensors)

    def pixels(self, pictures: Any) -> UInt8[Tensor, "picture height width 3"]:
        """Thumbnails alone, not normalised: pictures squashed to one tile."""
        squashed = [
            self._resized(self._source(read_picture(one)), self.tile_px, self.tile_px)
            for one in flat_pictures(pictures)
        ]
        return torch.stack(squashed).permute(0, 2, 3, 1).contiguous()

    def normalise(self, pixels: Tensor) -> Float[Tensor, "picture channel height width"]:
        """uint8 (picture, height, width, 3) to normalised float32, channels first."""
        mean, std = self._scale()
        return ((pixels.float() - mean) / std).permute(0, 3, 1, 2).contiguous()

    def _write_tiles(self, picture: Image.Image, tiles: Tensor) -> None:
        """Fills `tiles` (tile, 3, side, side); bytes become floats once, in their final place."""
        side = self.tile_px
        source = self._source(picture)
        tiles[0].copy_(self._resized(source, side, side).contiguous())  # planes as bytes: faster
        if self.image_grid_pinpoints:
            size = (picture.height, picture.width)
            grid = select_grid(*size, self.image_grid_pinpoints)
            height, width = fit_size(*size, grid)
            top, left = (grid[0] - height) // 2, (grid[1] - width) // 2
            canvas = torch.zeros((3, *grid), dtype=torch.uint8)
            canvas[:, top : top + height, left : left + width] = self._resized(
                source, height, width
            )
            rows, columns = grid[0] // side, grid[1] // side
            cut = canvas.view(3, rows, side, columns, side).permute(1, 3, 0, 2, 4)
            tiles[1:].view(rows, columns, 3, side, side).copy_(cut)
        mean, std = self._scale()
        tiles.sub_(mean[:, None, None]).div_(std[:, None, None])

    def _source(self, picture: Image.Image) -> Image.Image | Tensor:
        """What the resizer reads: the picture itself or its pixels (3, height, width)."""
        return picture if self.resizer == "pil" else transforms.pil_to_tensor(picture)

    def _resized(self, source: Image.Image | Tensor, height: int, width: int) -> Tensor:
        """uint8 (3, height, width)."""
        if isinstance(source, Tensor):
            return transforms.resize(source, [height, width], InterpolationMode.BICUBIC)
        # width first, as Pillow up to 12 does and torchvision: Pillow 13 takes the cheaper order,
        # which moves pixels by up to 20 levels
        for size in ((width, source.height), (width, height)):
            if source.size != size:
                source = source.resize(size, Image.Resampling.BICUBIC)
        return transforms.pil_to_tensor(source)

    def _scale(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation by channel, in levels of 255."""
        return torch.tensor(self.image_mean) * 255.0, torch.tensor(self.image_std) * 255.0


def flat_pictures(images: Any) -> list[Any]:
    """All pictures in order; lists and stacks (4 dimensions) are opened, None is no picture."""
    if images is None:
        return []
    if isinstance(images, list | tuple) or getattr(images, "ndim", 0) == 4:
        return [picture for part in images for picture in flat_pictures(part)]
    return [images]


def read_picture(picture: Any) -> Image.Image:
    """An RGB image of a PIL image of any mode or of a uint8 array.

    Arrays are (height, width), (height, width, channel) or (channel, height, width) with 1, 3 or 4
    channels. Where both ends may be channels, a torch tensor is read channels first and a numpy
    array channels last, as is the custom of each.

    Raises:
        TypeError: neither an image nor an array.
        ValueError: an array of another type or shape, an image of floats or without pixels.
    """
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(_read_array(picture))
    if 0 in picture.size:
        raise ValueError(f"a picture of {picture.width}x{picture.height} pixels has nothing to see")
    if picture.mode == "RGB":
        return picture
    if picture.mode == "F":
        raise ValueError("a picture of floats (mode F) has no known range; give 8-bit levels")
    if picture.mode.startswith("I"):
        # departs from Pillow's convert, which clips all above 255 to white
        levels = np.asarray(picture).clip(0, 65535) >> 8
        picture = Image.fromarray(levels.astype(np.uint8))
    if picture.mode == "P" and isinstance(picture.info.get("transparency"), bytes):
        picture = picture.convert("RGBA")  # straight to RGB Pillow warns of the lost alpha
    return picture.convert("RGB")


def _read_array(picture: Any) -> np.ndarray:
    """uint8 (height, width) or (height, width, 3 or 4)."""
    if not isinstance(picture, np.ndarray | Tensor):
        raise TypeError(
            f"images: found a {type(picture).__name__}; give PIL images, uint8 arrays or tensors, "
            "paths or URLs"
        )
    array = picture if isinstance(picture, np.ndarray) else picture.detach().cpu().numpy()
    if array.dtype != np.uint8:
        raise ValueError(
            f"images: found an array of {array.dtype}; give uint8 levels from 0 to 255, the image "
            "processor scales them itself"
        )
    if array.ndim == 3:
        ends = [0, 2] if isinstance(picture, Tensor) else [2, 0]
        axis = next((axis for axis in ends if array.shape[axis] in (1, 3, 4)), None)
        if axis is not None:
            array = np.moveaxis(array, axis, 2)
            return np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array)
    if array.ndim != 2:
        raise ValueError(
            f"images: found an array of shape {tuple(array.shape)}; a picture is (height, width), "
            "(height, width, channel) or (channel, height, width) with 1, 3 or 4 channels"
        )
    return array


def _read_size(size: dict[str, int] | Sequence[int] | int) -> dict[str, int]:
    """Height and width of the tile, equal."""
    if isinstance(size, int):
        sides = [size, size]
    elif isinstance(size, dict):
        sides = [size.get("height", 0), size.get("width", 0)]
    else:
        sides = list(size)
    if len(sides) != 2 or sides[0] != sides[1] or sides[0] <= 0:
        raise ValueError(
            f"size: found {size!r}; tiles are square: give their side in pixels, [336, 336] or "
            '{"height": 336, "width": 336}'
        )
    return {"height": sides[0], "width": sides[1]}


def _empty(shape: tuple[int, ...]) -> Tensor:
    """Room for float32 pixels. numpy asks for huge pages, torch does not: 7 times fewer seconds."""
    return torch.from_numpy(np.empty(shape, dtype=np.float32))
