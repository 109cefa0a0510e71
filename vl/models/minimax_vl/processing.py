"""Pictures and text to model inputs: image processor and processor of MiniMax-VL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerFast, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class MiniMaxVLImageProcessor(BaseImageProcessor):
    """Squashes each picture to one square tile and normalises it with CLIP's mean and deviation.

    This is the released pipeline's thumbnail step. Tiling of large pictures (`anyres`) is refused,
    not imitated.

    Args:
        size: width and height of the tile in pixels.
        image_grid_pinpoints: tile grids of `anyres`; must be empty for now.
    """

    model_input_names = ("pixel_values",)

    def __init__(
        self,
        size: dict[str, int] | int = 64,
        image_mean: tuple[float, ...] = CLIP_MEAN,
        image_std: tuple[float, ...] = CLIP_STD,
        image_grid_pinpoints: list[list[int]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size = {"height": size, "width": size} if isinstance(size, int) else dict(size)
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.image_grid_pinpoints = image_grid_pinpoints or []
        if self.image_grid_pinpoints:
            raise NotImplementedError(
                "image_grid_pinpoints: dynamic-resolution tiling is not built yet; "
                "use an empty list (one tile a picture)"
            )

    def preprocess(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, images: Any, return_tensors: str | None = "pt", **kwargs: Any
    ) -> BatchFeature:
        """`pixel_values` (image, 3, height, width) for PIL pictures or a list of them."""
        del kwargs
        pictures = images if isinstance(images, list | tuple) else [images]
        return BatchFeature({"pixel_values": self.normalise(self.pixels(pictures))}, return_tensors)

    def pixels(self, pictures: Sequence[Image.Image]) -> Tensor:
        """PIL pictures as uint8 (image, height, width, 3), squashed to the tile's size."""
        return torch.from_numpy(np.stack([self._to_array(picture) for picture in pictures]))

    def normalise(self, pixels: Tensor) -> Float[Tensor, "image channel height width"]:
        """uint8 (image, height, width, 3) to normalised float32, channels first."""
        mean = torch.tensor(self.image_mean) * 255.0
        std = torch.tensor(self.image_std) * 255.0
        return ((pixels.float() - mean) / std).permute(0, 3, 1, 2).contiguous()

    def _to_array(self, picture: Image.Image) -> np.ndarray:
        size = (self.size["width"], self.size["height"])
        picture = picture.convert("RGB")
        if picture.size != size:
            picture = picture.resize(size, Image.Resampling.BICUBIC)
        return np.asarray(picture)


class MiniMaxVLProcessor(ProcessorMixin):
    """Image processor and tokenizer together; expands each `<image>` to its image tokens.

    Args:
        num_image_tokens: image tokens a picture takes, as the model's configuration says.
        coordinate_space: what box numbers in this model's prompts and answers refer to.
    """

    def __init__(
        self,
        image_processor: MiniMaxVLImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerFast | None = None,
        num_image_tokens: int = 16,
        coordinate_space: str = "per_mille",
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.num_image_tokens = num_image_tokens
        self.coordinate_space = coordinate_space
        self.image_token = "<image>"
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **kwargs)

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        images: Any = None,
        text: str | list[str] | None = None,
        return_tensors: str = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Token ids with expanded image tokens, and pixels.

        Raises:
            ValueError: the texts do not hold as many `<image>` markers as there are pictures.
        """
        texts = [text] if isinstance(text, str) else list(text or [])
        pictures = [] if images is None else images
        pictures = list(pictures) if isinstance(pictures, list | tuple) else [pictures]
        num_markers = sum(one.count(self.image_token) for one in texts)
        if num_markers != len(pictures):
            raise ValueError(
                f"the text has {num_markers} {self.image_token} markers for {len(pictures)} "
                "pictures; write one marker for each picture"
            )
        expanded = [
            one.replace(self.image_token, self.image_token * self.num_image_tokens) for one in texts
        ]
        inputs = self.tokenizer(
            expanded, return_tensors=return_tensors, padding=True, add_special_tokens=False
        )
        inputs.pop("token_type_ids", None)
        if pictures:
            inputs.update(self.image_processor(pictures, return_tensors=return_tensors))
        return BatchFeature(dict(inputs), return_tensors)
