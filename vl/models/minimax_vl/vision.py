"""The vision tower: a CLIP-style pre-norm ViT without its last norm, and the projector.

Source: MiniMax-01 report (arXiv 2501.08313) section 6.2; module names follow the released
checkpoint, misspelling of `pre_layrnorm` included.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

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
        return patches + self.position_embedding.weight


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
    """Two layers with exact GELU."""

    def __init__(self, config: MiniMaxVLVisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """(image, patch, width) to the same."""
        return self.fc2(F.gelu(self.fc1(hidden)))


class VisionLayer(nn.Module):
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

    def __init__(self, config: MiniMaxVLVisionConfig) -> None:
        super().__init__()
        self.use_class_token = config.use_class_token
        self.embeddings = VisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.encoder = VisionEncoder(config)

    def forward(
        self, pixel_values: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image patch width"]:
        """One feature a patch, row-major, the class token dropped."""
        hidden = self.pre_layrnorm(self.embeddings(pixel_values))
        for layer in self.encoder.layers:
            hidden = layer(hidden)
        return hidden[:, 1:] if self.use_class_token else hidden


class VisionTower(nn.Module):
    """Keeps the released name `vision_tower.vision_model`."""

    def __init__(self, config: MiniMaxVLVisionConfig) -> None:
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
        inputs = config.vision_config.hidden_size * self.merge**2
        hidden = config.text_config.hidden_size
        self.linear_1 = nn.Linear(inputs, hidden)
        self.linear_2 = nn.Linear(hidden, hidden)

    def forward(
        self, features: Float[Tensor, "image patch width"]
    ) -> Float[Tensor, "image token hidden"]:
        """Image tokens, row-major over the merged grid."""
        if self.merge > 1:
            images, _, width = features.shape
            cells = self.side // self.merge
            grid = features.view(images, cells, self.merge, cells, self.merge, width)
            features = grid.transpose(2, 3).reshape(images, cells * cells, -1)
        return self.linear_2(F.gelu(self.linear_1(features)))
