"""What a MiniMax-VL is made of: sizes, layer pattern, presets.

Source: MiniMax-01 report (arXiv 2501.08313) sections 2 and 6, and the released configuration of
MiniMax-VL-01. Field names follow the released files where they exist there.
"""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig

LIGHTNING = 0
SOFTMAX = 1


class MiniMaxVLTextConfig(PretrainedConfig):
    """The hybrid decoder: lightning attention, a softmax layer every few layers, MoE feed-forward.

    Args:
        attn_type_list: one entry a layer, 0 = lightning attention, 1 = softmax attention.
        rotary_dim: leading dimensions of each softmax head that are rotated; the rest pass through.
        layernorm_alpha: residual weight of the post-norm layers; None = (2 * layers) ** 0.25, which
            is what the released 80-layer model uses for its three pairs.
        lightning_block_tokens: tokens a block of the blocked form of lightning attention.
        router_aux_loss_coef: weight of the load-balancing loss; 0 = none.
        initializer_range: standard deviation of new weights; None = 0.8 / sqrt(fan_in), with
            residual outputs halved (small models learn far faster from it).
    """

    model_type = "minimax_text_01"

    def __init__(
        self,
        *,
        vocab_size: int = 1024,
        hidden_size: int = 128,
        intermediate_size: int = 192,
        num_hidden_layers: int = 6,
        num_attention_heads: int = 4,
        num_key_value_heads: int = 2,
        head_dim: int = 32,
        attn_type_list: list[int] | None = None,
        rotary_dim: int = 16,
        rope_theta: float = 10_000.0,
        num_local_experts: int = 4,
        num_experts_per_tok: int = 2,
        router_aux_loss_coef: float = 0.001,
        layernorm_alpha: float | None = None,
        lightning_block_tokens: int = 64,
        rms_norm_eps: float = 1e-5,
        initializer_range: float | None = None,
        max_position_embeddings: int = 8192,
        tie_word_embeddings: bool = False,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads
        self.head_dim = head_dim
        self.attn_type_list = attn_type_list or [
            SOFTMAX if (layer + 1) % 3 == 0 else LIGHTNING for layer in range(num_hidden_layers)
        ]
        self.rotary_dim = rotary_dim
        self.rope_theta = rope_theta
        self.num_local_experts = num_local_experts
        self.num_experts_per_tok = num_experts_per_tok
        self.router_aux_loss_coef = router_aux_loss_coef
        self.layernorm_alpha = layernorm_alpha or (2 * num_hidden_layers) ** 0.25
        self.lightning_block_tokens = lightning_block_tokens
        self.rms_norm_eps = rms_norm_eps
        self.initializer_range = initializer_range
        self.max_position_embeddings = max_position_embeddings
        if len(self.attn_type_list) != num_hidden_layers or set(self.attn_type_list) - {0, 1}:
            raise ValueError(
                f"attn_type_list: found {self.attn_type_list!r}; it needs one entry, 0 (lightning) "
                f"or 1 (softmax), for each of the {num_hidden_layers} layers"
            )
        if num_attention_heads % num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads: {num_key_value_heads} does not divide "
                f"num_attention_heads {num_attention_heads}"
            )
        if rotary_dim % 2 or not 0 <= rotary_dim <= head_dim:
            raise ValueError(
                f"rotary_dim: {rotary_dim} must be even and at most head_dim {head_dim}"
            )
        kwargs["tie_word_embeddings"] = tie_word_embeddings
        super().__init__(**kwargs)


class MiniMaxVLVisionConfig(PretrainedConfig):
    """The vision tower: a CLIP-style ViT without its last norm.

    Args:
        stem_channels: output channels of stride-2 convolutions in front of the ViT; their number
            must give the patch size (3 convolutions = patch 8). Empty = one patch convolution, as
            in the released model.
        use_class_token: prepend a class token; its feature is dropped before the projector.
    """

    model_type = "minimax_vl_01_vision"

    def __init__(
        self,
        *,
        hidden_size: int = 128,
        intermediate_size: int = 512,
        num_hidden_layers: int = 2,
        num_attention_heads: int = 4,
        num_channels: int = 3,
        image_size: int = 64,
        patch_size: int = 8,
        stem_channels: list[int] | None = None,
        use_class_token: bool = False,
        layer_norm_eps: float = 1e-5,
        initializer_range: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_channels = num_channels
        self.image_size = image_size
        self.patch_size = patch_size
        self.stem_channels = list(stem_channels or [])
        self.use_class_token = use_class_token
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        if image_size % patch_size:
            raise ValueError(f"patch_size: {patch_size} does not divide image_size {image_size}")
        if self.stem_channels and 2 ** len(self.stem_channels) != patch_size:
            raise ValueError(
                f"stem_channels: {len(self.stem_channels)} stride-2 convolutions make patches of "
                f"{2 ** len(self.stem_channels)} pixels, patch_size says {patch_size}"
            )
        super().__init__(**kwargs)

    @property
    def num_patches_per_side(self) -> int:
        """Patches along one side of the square input."""
        return self.image_size // self.patch_size


class MiniMaxVLConfig(PretrainedConfig):
    """Vision tower, projector and hybrid decoder together.

    Args:
        image_token_index: id of `<image>`; every occurrence is replaced by one image feature.
        spatial_merge_size: neighbouring features merged (concatenated) along each side before the
            projector; 1 = none, as in the released model.
    """

    model_type = "minimax_vl_01"
    # transformers declares a property here, and replaces it by such a dict in its own classes
    sub_configs = {  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
        "text_config": MiniMaxVLTextConfig,
        "vision_config": MiniMaxVLVisionConfig,
    }

    def __init__(
        self,
        *,
        text_config: dict[str, Any] | MiniMaxVLTextConfig | None = None,
        vision_config: dict[str, Any] | MiniMaxVLVisionConfig | None = None,
        image_token_index: int = 3,
        spatial_merge_size: int = 1,
        **kwargs: Any,
    ) -> None:
        if not isinstance(text_config, MiniMaxVLTextConfig):
            text_config = MiniMaxVLTextConfig(**_without_model_type(text_config))
        if not isinstance(vision_config, MiniMaxVLVisionConfig):
            vision_config = MiniMaxVLVisionConfig(**_without_model_type(vision_config))
        self.text_config = text_config
        self.vision_config = vision_config
        self.image_token_index = image_token_index
        self.spatial_merge_size = spatial_merge_size
        if vision_config.num_patches_per_side % spatial_merge_size:
            raise ValueError(
                f"spatial_merge_size: {spatial_merge_size} does not divide the "
                f"{vision_config.num_patches_per_side} patches of a side"
            )
        kwargs.setdefault("tie_word_embeddings", text_config.tie_word_embeddings)
        super().__init__(**kwargs)

    @property
    def num_image_tokens(self) -> int:
        """Image tokens that one picture takes in the prompt."""
        return (self.vision_config.num_patches_per_side // self.spatial_merge_size) ** 2


def _without_model_type(config: dict[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (config or {}).items() if key != "model_type"}
