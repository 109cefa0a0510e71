"""The vision tower: a CLIP-style pre-norm ViT without its last norm, and the projector.

Source: MiniMax-01 report (arXiv 2501.08313) section 6.2; module names follow the released
checkpoint, misspelling of `pre_layrnorm` included.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .anyres import cells_per_side, kept_cells, num_tiles, select_grid
from .configuration import MiniMaxVLConfig, MiniMaxVLVisionConfig


class VisionEmbeddings(nn.Module):
    """Pixels to patch embeddings with learnt positions (and a class token if configured)."""

    def __init__(self, config: MiniMaxVLVisionConfig) -> None:
        super().__init__()
        width, channels = config.hidden_size, config.stem_channels
        self.stem = nn.Sequential()
        inputs = config.num_channels
        for outputs in channels:
            self.stem.append(nn.Conv2d(inputs, outputs, kernel_size=4, stride=2, padding=1))
            self.stem.append(nn.GroupNorm(8, outputs))
            self.stem.append(nn.GELU())
            inputs = outputs
        patch = 3 if channels else config.patch_size
        self.patch_embedding = nn.Conv2d(
            inputs,
            width,
            kernel_size=patch,
            stride=1 if channels else patch,
            padding=1 if channels else 0,
            bias=False,
        )
        positions = config.num_patches_per_side**2 + int(config.use_class_token)
        self.position_embedding = nn.Embedding(positions, width)
        if config.use_class_token:
            self.class_embedding = nn.Parameter(torch.zeros(width))

    def forward(
        self, pixel_values: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image patch width"]:
        """Patch embeddings, row-major."""
        patches = self.patch_embedding(self.stem(pixel_values)).flatten(2).transpose(1, 2)
        if hasattr(self, "class_embedding"):
            first = self.class_embedding.expand(patches.shape[0], 1, -1)
            patches = torch.cat([first, patches], dim=1)
        every = torch.arange(patches.shape[1], device=patches.device)
        return patches + self.position_embedding(every)


class VisionAttention(nn.Module):
    """Full attention among the patches of one picture."""

    def __init__(self, config: MiniMaxVLVisionConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """(image, patch, width) to the same."""
        images, patches, width = hidden.shape

        def heads(tensor: Tensor) -> Tensor:
            return tensor.view(images, patches, self.heads, -1).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(
            heads(self.q_proj(hidden)), heads(self.k_proj(hidden)), heads(self.v_proj(hidden))
        )
        return self.out_proj(mixed.transpose(1, 2).reshape(images, patches, width))


class VisionMlp(nn.Module):
    """Two layers and the configured activation (released: exact GELU)."""

    def __init__(self, config: MiniMaxVLVisionConfig) -> None:
        super().__init__()
        self.activation = ACT2FN[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """(image, patch, width) to the same."""
        return self.fc2(self.activation(self.fc1(hidden)))


class VisionLayer(GradientCheckpointingLayer):
    """Pre-norm transformer block."""

    def __init__(self, config: MiniMaxVLVisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = VisionAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = VisionMlp(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """(image, patch, width) to the same."""
        hidden = hidden + self.self_attn(self.layer_norm1(hidden))
        return hidden + self.mlp(self.layer_norm2(hidden))


class VisionEncoder(nn.Module):
    """The stack of blocks."""

    def __init__(self, config: MiniMaxVLVisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.num_hidden_layers))


class VisionTransformer(nn.Module):
    """Embeddings, first norm and blocks."""

    def __init__(self, config: MiniMaxVLConfig) -> None:
        super().__init__()
        vision = config.vision_config
        depth = vision.num_hidden_layers
        self.feature_layers = [layer % (depth + 1) for layer in config.feature_layers]
        strategy = config.vision_feature_select_strategy
        self.drop_first = vision.use_class_token and strategy == "default"
        self.embeddings = VisionEmbeddings(vision)
        self.pre_layrnorm = nn.LayerNorm(vision.hidden_size, eps=vision.layer_norm_eps)
        self.encoder = VisionEncoder(vision)

    def forward(
        self, pixel_values: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image patch width"]:
        """One feature a patch, row-major; several feature layers side by side."""
        hidden = self.pre_layrnorm(self.embeddings(pixel_values))
        outputs = [hidden]
        for layer in self.encoder.layers[: max(self.feature_layers)]:
            outputs.append(layer(outputs[-1]))
        features = torch.cat([outputs[index] for index in self.feature_layers], dim=-1)
        return features[:, 1:] if self.drop_first else features


class VisionTower(nn.Module):
    """Keeps the released name `vision_tower.vision_model`."""

    def __init__(self, config: MiniMaxVLConfig) -> None:
        super().__init__()
        self.vision_model = VisionTransformer(config)

    def forward(
        self, pixel_values: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image patch width"]:
        """One feature a patch."""
        return self.vision_model(pixel_values)


class MultiModalProjector(nn.Module):
    """Two layers from merged vision features to the decoder's width."""

    def __init__(self, config: MiniMaxVLConfig) -> None:
        super().__init__()
        self.merge = config.spatial_merge_size
        self.side = config.vision_config.num_patches_per_side
        width = config.vision_config.hidden_size * len(config.feature_layers)
        hidden, bias = config.text_config.hidden_size, config.multimodal_projector_bias
        self.activation = ACT2FN[config.projector_hidden_act]
        self.linear_1 = nn.Linear(width * self.merge**2, hidden, bias=bias)
        self.linear_2 = nn.Linear(hidden, hidden, bias=bias)

    def forward(
        self, features: Float[Tensor, "image patch width"]
    ) -> Float[Tensor, "image token hidden"]:
        """Image tokens, row-major over the merged grid."""
        if self.merge > 1:
            images, _, width = features.shape
            cells = self.side // self.merge
            grid = features.view(images, cells, self.merge, cells, self.merge, width)
            features = grid.transpose(2, 3).reshape(images, cells * cells, -1)
        return self.linear_2(self.activation(self.linear_1(features)))


def flat_tiles(
    pixel_values: Tensor, sizes: Sequence[tuple[int, int]] | None, config: MiniMaxVLConfig
) -> tuple[Float[Tensor, "tile channel height width"], list[int]]:
    """All pictures' tiles one after the other, and how many each picture has.

    Args:
        pixel_values: (tile, 3, H, W) flat, or (picture, tile, 3, H, W) padded at the end.
        sizes: (height, width) of each picture in pixels; not needed without pinpoints.

    Raises:
        ValueError: the sizes ask for other tiles than there are.
    """
    padded = pixel_values.dim() == 5
    pinpoints, tile_px = config.image_grid_pinpoints, config.vision_config.image_size
    if not pinpoints:
        tiles = pixel_values.flatten(0, 1) if padded else pixel_values
        return tiles, [1] * tiles.shape[0]
    if sizes is None:
        raise ValueError(
            "image_sizes is needed, found none: this model cuts pictures into tiles, and only a "
            "picture's height and width say how; pass what the image processor returns"
        )
    counts = [num_tiles(height, width, pinpoints, tile_px) for height, width in sizes]
    if padded:
        if pixel_values.shape[0] != len(sizes) or max(counts, default=0) > pixel_values.shape[1]:
            raise ValueError(
                f"pixel_values holds {pixel_values.shape[0]} pictures of up to "
                f"{pixel_values.shape[1]} tiles, image_sizes {list(sizes)} need {counts} tiles"
            )
        each = zip(pixel_values, counts, strict=True)
        return torch.cat([one[:count] for one, count in each]), counts
    if pixel_values.shape[0] != sum(counts):
        raise ValueError(
            f"pixel_values holds {pixel_values.shape[0]} tiles, the {len(sizes)} pictures of "
            f"image_sizes {list(sizes)} need {counts}; take both from one call of the processor"
        )
    return pixel_values, counts


def pack_picture(
    tiles: Float[Tensor, "tile token hidden"],
    size: tuple[int, int],
    newline: Float[Tensor, " hidden"],
    config: MiniMaxVLConfig,
) -> Float[Tensor, "image_token hidden"]:
    """One picture's image tokens: thumbnail, then the tiles' map without padding, row by row.

    Args:
        tiles: features of the thumbnail and of the tiles, row-major.
        size: (height, width) of the picture in pixels.
        newline: token that ends each row of the map.
    """
    vision, merge = config.vision_config, config.spatial_merge_size
    tile_px, patch_px = vision.image_size, vision.patch_size
    grid = select_grid(*size, config.image_grid_pinpoints)
    cells = cells_per_side(tile_px, patch_px, merge)
    rows, columns = grid[0] // tile_px, grid[1] // tile_px
    whole = tiles[1:].view(rows, columns, cells, cells, -1).transpose(1, 2)
    whole = whole.reshape(rows * cells, columns * cells, -1)
    kept_rows, kept_columns = kept_cells(*size, grid, tile_px, patch_px, merge)
    top = (rows * cells - kept_rows) // 2
    left = (columns * cells - kept_columns) // 2
    kept = whole[top : top + kept_rows, left : left + kept_columns]
    ends = newline.to(kept).expand(kept_rows, 1, -1)
    return torch.cat([tiles[0], torch.cat([kept, ends], dim=1).flatten(0, 1)])
