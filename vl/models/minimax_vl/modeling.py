"""MiniMax-VL for generation: pictures and text in, next-token logits out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import GenerationMixin

from .cache import MiniMaxVLCache
from .causal import CausalDecoder, MiniMaxOutput, MiniMaxPreTrainedModel
from .configuration import MiniMaxVLConfig
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
        sizes = None
        if image_sizes is not None:
            pairs = image_sizes.tolist() if isinstance(image_sizes, Tensor) else image_sizes
            sizes = [(int(height), int(width)) for height, width in pairs]
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
    ) -> Float[Tensor, "batch token hidden"]:
        """Token embeddings with image features at the `<image>` positions, in order.

        Args:
            features: one tensor (..., hidden) of all image tokens, or one for each picture.

        Raises:
            ValueError: the `<image>` tokens do not fit the features.
        """
        placeholder = input_ids == self.config.image_token_index
        embeds = self.get_input_embeddings()(input_ids.masked_fill(placeholder, 0))
        lengths = None
        if features is not None and not isinstance(features, Tensor):
            lengths = [len(one) for one in features]
            features = torch.cat(list(features)) if lengths else None
        num_features = 0 if features is None else features.numel() // features.shape[-1]
        _check_markers(placeholder, num_features, lengths)
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
        **options: Any,
    ) -> MiniMaxOutput | tuple[Any, ...]:
        """As any transformers image-text-to-text model; `options` as of `CausalDecoder.run`.

        Args:
            attention_mask: (B, T) over cached and new tokens, 1 = real token.
            pixel_values: tiles, see `get_image_features`.
            image_sizes: (picture, 2), height and width in pixels.
            labels: (B, T), already aligned with `input_ids`; `ignore_index` = not trained on.
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("input_ids or inputs_embeds is needed, found neither")
            features = None
            if pixel_values is not None:
                features = self.get_image_features(pixel_values, image_sizes)
            inputs_embeds = self.embed(input_ids, features)
        options["position_ids"] = position_ids
        return self.run(inputs_embeds, attention_mask, past_key_values, labels, **options)

    def prepare_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: Tensor,
        past_key_values: MiniMaxVLCache | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Only the tokens not yet in the cache, and pictures where those tokens stand for some."""
        inputs = super().prepare_inputs_for_generation(
            input_ids, past_key_values, inputs_embeds, **kwargs
        )
        ids = inputs.get("input_ids")
        if ids is not None and bool((ids == self.config.image_token_index).any()):
            inputs |= {"pixel_values": pixel_values, "image_sizes": image_sizes}
        return inputs


def _check_markers(
    placeholder: Bool[Tensor, "batch token"], num_features: int, lengths: list[int] | None
) -> None:
    """Every row's `<image>` tokens must be whole pictures' features."""
    per_row = placeholder.sum(1).tolist()
    if sum(per_row) != num_features:
        raise ValueError(
            f"the text holds {sum(per_row)} image tokens, the pictures give {num_features} "
            f"features; by row the text holds {per_row}, by picture the features are "
            f"{lengths if lengths is not None else num_features}; let the processor expand each "
            "<image> marker"
        )
    if lengths is None:
        return
    waiting = list(lengths)
    for row, count in enumerate(per_row):
        taken: list[int] = []
        while waiting and sum(taken) < count:
            taken.append(waiting.pop(0))
        if sum(taken) != count:
            raise ValueError(
                f"row {row} holds {count} image tokens, the next pictures have {taken} features; "
                "pictures must come in the order of their markers, row by row"
            )
