"""MiniMax-VL for generation: pictures and text in, next-token logits out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import GenerationMixin

from .cache import MiniMaxVLCache
from .causal import CausalDecoder, MiniMaxOutput, MiniMaxPreTrainedModel
from .configuration import MiniMaxVLConfig
from .rows import pictures_by_row, take_pictures, unread_pictures
from .text import TextWithHead
from .vision import MultiModalProjector, VisionTower, flat_tiles, pack_picture


class MiniMaxVLForConditionalGeneration(  # pyright: ignore[reportIncompatibleMethodOverride]
    CausalDecoder, MiniMaxPreTrainedModel, GenerationMixin
):
    """Vision tower, projector and hybrid decoder with its head.

    Beyond transformers' `forward` and `generate`, the trainer uses `image_features`, `embed` and
    `decode` directly, so that one image and one prompt are computed once for all their rollouts.
    """

    config_class = MiniMaxVLConfig
    input_modalities = ["image", "text"]

    def __init__(self, config: MiniMaxVLConfig) -> None:
        super().__init__(config)
        self.vision_tower = VisionTower(config)
        self.multi_modal_projector = MultiModalProjector(config)
        self.language_model = TextWithHead(config.text_config)
        if config.image_grid_pinpoints:
            self.image_newline = nn.Parameter(torch.zeros(config.text_config.hidden_size))
        self.post_init()
        # a drawn <image> would stand for a picture that is not there
        self.generation_config.suppress_tokens = [config.image_token_index]

    @property
    def decoder(self) -> TextWithHead:
        """The part that reads embeddings."""
        return self.language_model

    def image_features(
        self, pixel_values: Float[Tensor, "tile channel height width"]
    ) -> Float[Tensor, "tile token hidden"]:
        """What the decoder reads of each tile; one tile is a whole picture without pinpoints."""
        return self.multi_modal_projector(self.vision_tower(pixel_values))

    def get_image_features(
        self,
        pixel_values: Tensor,
        image_sizes: Int[Tensor, "picture 2"] | Sequence[tuple[int, int]] | None = None,
    ) -> list[Float[Tensor, "image_token hidden"]]:
        """The image tokens of each picture, as many as its size asks for.

        Args:
            pixel_values: tiles of all pictures, flat (tile, 3, H, W), each picture's thumbnail
                first, or padded (picture, tile, 3, H, W).
            image_sizes: (height, width) of each picture in pixels before tiling.
        """
        sizes = _pairs(image_sizes)
        tiles, counts = flat_tiles(pixel_values, sizes, self.config)
        features = self.image_features(tiles.to(self.multi_modal_projector.linear_1.weight.dtype))
        if not self.config.image_grid_pinpoints:
            return list(features)
        assert sizes is not None
        each = zip(features.split(counts), sizes, strict=True)
        return [pack_picture(one, size, self.image_newline, self.config) for one, size in each]

    def embed(
        self,
        input_ids: Int[Tensor, "batch token"],
        features: Tensor | Sequence[Float[Tensor, "image_token hidden"]] | None = None,
        copies: int = 1,
    ) -> Float[Tensor, "batch token hidden"]:
        """Token embeddings with image features at the `<image>` positions, in order.

        Args:
            features: one tensor (..., hidden) of all image tokens, or one for each picture.
            copies: this many rows next to each other read the same pictures, given one for each.

        Raises:
            ValueError: the `<image>` tokens do not fit the features.
        """
        placeholder = input_ids == self.config.image_token_index
        embeds = self.get_input_embeddings()(input_ids.masked_fill(placeholder, 0))
        per_row: list[int] = placeholder.sum(1).tolist()
        if features is None or isinstance(features, Tensor):
            _check_count(per_row, 0 if features is None else features.numel() // embeds.shape[-1])
        else:
            rows = pictures_by_row(per_row[::copies], [len(one) for one in features])
            each = [features[picture] for row in rows for _ in range(copies) for picture in row]
            features = torch.cat(each) if each else None
        if features is None:
            return embeds
        return embeds.masked_scatter(placeholder[..., None], features.to(embeds.dtype))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: MiniMaxVLCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        image_copies: int = 1,
        **options: Any,
    ) -> MiniMaxOutput | tuple[Any, ...]:
        """As any transformers image-text-to-text model; `options` as of `CausalDecoder.run`.

        Args:
            attention_mask: (B, T) over cached and new tokens, 1 = real token.
            pixel_values: tiles, see `get_image_features`.
            image_sizes: (picture, 2), height and width in pixels.
            labels: (B, T), already aligned with `input_ids`; `ignore_index` = not trained on.
            image_copies: this many rows next to each other read the same pictures; each picture
                is then given and computed once.
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("input_ids or inputs_embeds is needed, found neither")
            features = None
            if pixel_values is not None:
                features = self.get_image_features(pixel_values, image_sizes)
            inputs_embeds = self.embed(input_ids, features, image_copies)
        options["position_ids"] = position_ids
        return self.run(inputs_embeds, attention_mask, past_key_values, labels, **options)

    def prepare_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: Tensor,
        past_key_values: MiniMaxVLCache | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        image_copies: int = 1,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Only the tokens not yet in the cache, and the pictures that those tokens stand for."""
        inputs = super().prepare_inputs_for_generation(
            input_ids, past_key_values, inputs_embeds, **kwargs
        )
        ids = inputs.get("input_ids")
        if ids is None or not bool((ids == self.config.image_token_index).any()):
            return inputs
        if pixel_values is not None and ids.shape[1] < input_ids.shape[1]:
            pixel_values, image_sizes = self._unread(
                input_ids[::image_copies], ids[::image_copies], pixel_values, image_sizes
            )
        inputs |= {"pixel_values": pixel_values, "image_sizes": image_sizes}
        return inputs | {"image_copies": image_copies}

    def _unread(
        self, ids: Tensor, new_ids: Tensor, pixel_values: Tensor, image_sizes: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The pictures of `new_ids`, where those of all of `ids` may be given."""
        sizes = _pairs(image_sizes)
        _, counts = flat_tiles(pixel_values, sizes, self.config)
        lengths = [
            self.config.num_picture_tokens(*size) for size in sizes or [(1, 1)] * len(counts)
        ]
        marker = self.config.image_token_index
        per_row = [(tokens == marker).sum(1).tolist() for tokens in (ids, new_ids)]
        unread = unread_pictures(per_row[0], per_row[1], lengths)
        if image_sizes is not None:
            image_sizes = torch.as_tensor(image_sizes)[unread]
        return take_pictures(pixel_values, counts, unread), image_sizes

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> Any:
        """Every row `expand_size` times, each picture once: its features are repeated instead."""
        pictures = {
            name: model_kwargs.pop(name)
            for name in ("pixel_values", "image_sizes")
            if model_kwargs.get(name) is not None
        }
        parent: Any = super()
        input_ids, model_kwargs = parent._expand_inputs_for_generation(
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )
        if pictures:
            model_kwargs |= {**pictures, "image_copies": expand_size}
        return input_ids, model_kwargs


def _pairs(
    image_sizes: Int[Tensor, "picture 2"] | Sequence[tuple[int, int]] | None,
) -> list[tuple[int, int]] | None:
    if image_sizes is None:
        return None
    pairs = image_sizes.tolist() if isinstance(image_sizes, Tensor) else image_sizes
    return [(int(height), int(width)) for height, width in pairs]


def _check_count(per_row: list[int], num_features: int) -> None:
    if sum(per_row) != num_features:
        raise ValueError(
            f"the text holds {sum(per_row)} image tokens, the pictures give {num_features} "
            f"features; by row the text holds {per_row}; let the processor expand each <image> "
            "marker"
        )
