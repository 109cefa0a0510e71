"""What a MiniMax-VL is made of: sizes, layer pattern, presets.

Source: MiniMax-01 report (arXiv 2501.08313) sections 2 and 6, and the released configuration of
MiniMax-VL-01. Field names follow the released files where they exist there.
"""

from __future__ import annotations

from typing import Any, Literal

from transformers import PretrainedConfig
from transformers.activations import ACT2FN

from .anyres import RELEASED_PINPOINTS, num_image_tokens, read_pinpoints
from .config_forms import LIGHTNING, SOFTMAX, from_minimax, read_text_config, read_vision_config

__all__ = [
    "LIGHTNING",
    "SOFTMAX",
    "MiniMaxVLConfig",
    "MiniMaxVLTextConfig",
    "MiniMaxVLVisionConfig",
]


class MiniMaxVLTextConfig(PretrainedConfig):
    """The hybrid decoder: lightning attention, a softmax layer every few layers, MoE feed-forward.

    Args:
        attn_type_list: one entry a layer, 0 = lightning attention, 1 = softmax attention.
        rotary_dim: leading dimensions of each softmax head that are rotated; the rest pass through.
        layernorm_full_attention_alpha: residual weight at softmax layers; None =
            (2 * layers) ** 0.25, which is what the released 80-layer model has. Likewise
            `layernorm_linear_attention_alpha` and `layernorm_mlp_alpha`.
        layernorm_full_attention_beta: weight of what softmax attention adds; likewise the others.
        postnorm: the residual is the normed input (DeepNorm's order); False = the input itself.
        shared_intermediate_size: width of a shared expert; only 0 (none) exists in the release.
        lightning_block_tokens: tokens a block of the blocked form of lightning attention; the
            released files say `block_size` or `block`. It changes the speed, not the result.
        lightning_kernel: what computes the blocked form: "torch" (anywhere), or "fla" (the Triton
            kernels of flash-linear-attention, which must be installed).
        router_aux_loss_coef: weight of the load-balancing loss; 0 = none.
        router_jitter_noise: in training the router reads its input times a random factor in
            [1 - noise, 1 + noise]; 0 = none.
        router_capacity_factor: in training an expert takes at most this many times its even share
            of the tokens and drops the rest; None = no token is ever dropped.
        output_router_logits: return each layer's router logits, and the loss of them.
        lm_head_fp32: compute next-token logits in float32 (MiniMax-M1 report, section 3.2);
            False = in the model's own type.
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
        router_jitter_noise: float = 0.0,
        router_capacity_factor: float | None = None,
        output_router_logits: bool = False,
        layernorm_full_attention_alpha: float | None = None,
        layernorm_full_attention_beta: float = 1.0,
        layernorm_linear_attention_alpha: float | None = None,
        layernorm_linear_attention_beta: float = 1.0,
        layernorm_mlp_alpha: float | None = None,
        layernorm_mlp_beta: float = 1.0,
        postnorm: bool = True,
        shared_intermediate_size: int | list[int] = 0,
        lightning_block_tokens: int = 64,
        lightning_kernel: str = "torch",
        lm_head_fp32: bool = True,
        hidden_act: str = "silu",
        attention_dropout: float = 0.0,
        rms_norm_eps: float = 1e-5,
        initializer_range: float | None = None,
        max_position_embeddings: int = 8192,
        tie_word_embeddings: bool = False,
        **kwargs: Any,
    ) -> None:
        alpha = (2 * num_hidden_layers) ** 0.25
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
        self.router_jitter_noise = router_jitter_noise
        self.router_capacity_factor = router_capacity_factor
        self.output_router_logits = output_router_logits
        self.layernorm_full_attention_alpha = _given(layernorm_full_attention_alpha, alpha)
        self.layernorm_full_attention_beta = layernorm_full_attention_beta
        self.layernorm_linear_attention_alpha = _given(layernorm_linear_attention_alpha, alpha)
        self.layernorm_linear_attention_beta = layernorm_linear_attention_beta
        self.layernorm_mlp_alpha = _given(layernorm_mlp_alpha, alpha)
        self.layernorm_mlp_beta = layernorm_mlp_beta
        self.postnorm = postnorm
        self.shared_intermediate_size = shared_intermediate_size
        block = kwargs.pop("block", None)
        self.lightning_block_tokens = kwargs.pop("block_size", block) or lightning_block_tokens
        self.lightning_kernel = lightning_kernel
        if lightning_kernel not in ("torch", "fla"):
            raise ValueError(
                f"lightning_kernel: found {lightning_kernel!r}; it must be 'torch' or 'fla'"
            )
        self.lm_head_fp32 = lm_head_fp32
        self.hidden_act = hidden_act
        self.attention_dropout = attention_dropout
        self.rms_norm_eps = rms_norm_eps
        self.initializer_range = initializer_range
        self.max_position_embeddings = max_position_embeddings
        self.tie_word_embeddings = tie_word_embeddings
        kwargs.pop("auto_map", None)  # remote code of the released folder; this class replaces it
        self._check_sizes()
        self._check_absent(kwargs.get("sliding_window"))
        kwargs["tie_word_embeddings"] = tie_word_embeddings
        super().__init__(**kwargs)

    def _check_sizes(self) -> None:
        layers = self.num_hidden_layers
        if len(self.attn_type_list) != layers or set(self.attn_type_list) - {LIGHTNING, SOFTMAX}:
            raise ValueError(
                f"attn_type_list: found {self.attn_type_list!r}; it needs one entry, 0 (lightning) "
                f"or 1 (softmax), for each of the {layers} layers"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads: {self.num_key_value_heads} does not divide "
                f"num_attention_heads {self.num_attention_heads}"
            )
        if self.rotary_dim % 2 or not 0 <= self.rotary_dim <= self.head_dim:
            raise ValueError(
                f"rotary_dim: {self.rotary_dim} must be even and at most head_dim {self.head_dim}"
            )
        if not 1 <= self.num_experts_per_tok <= self.num_local_experts:
            raise ValueError(
                f"num_experts_per_tok: {self.num_experts_per_tok} must lie between 1 and "
                f"num_local_experts {self.num_local_experts}"
            )
        factor = self.router_capacity_factor
        if factor is not None and factor <= 0:
            raise ValueError(f"router_capacity_factor: {factor} must be above 0, or None")
        if not 0 <= self.router_jitter_noise < 1:
            raise ValueError(f"router_jitter_noise: {self.router_jitter_noise} must be in [0, 1)")

    def _check_absent(self, sliding_window: int | None) -> None:
        """Refuses settings that the released files name and the released model does not use."""
        shared = self.shared_intermediate_size
        unsupported = {
            "shared_intermediate_size": (
                shared,
                any(shared) if isinstance(shared, list) else shared,
            ),
            "hidden_act": (self.hidden_act, self.hidden_act != "silu"),
            "attention_dropout": (self.attention_dropout, self.attention_dropout),
            "sliding_window": (sliding_window, sliding_window is not None),
            "tie_word_embeddings": (self.tie_word_embeddings, self.tie_word_embeddings),
        }
        for name, (found, refused) in unsupported.items():
            if refused:
                raise ValueError(
                    f"{name}: found {found!r}; the released model has no shared expert, SiLU, no "
                    "dropout, no window and an untied head, and nothing else is built: leave it out"
                )

    @classmethod
    def from_dict(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, config_dict: dict[str, Any], **kwargs: Any
    ) -> Any:
        """As any transformers configuration; transformers' own MiniMax form is read too."""
        return super().from_dict(read_text_config(config_dict), **kwargs)

    @classmethod
    def from_transformers_minimax(
        cls, config: PretrainedConfig | dict[str, Any]
    ) -> MiniMaxVLTextConfig:
        """The same decoder as transformers' `MiniMaxConfig` describes.

        Raises:
            ValueError: a rotary rule other than the default one.
        """
        found = config if isinstance(config, dict) else config.to_dict()
        return cls(**from_minimax(found))


class MiniMaxVLVisionConfig(PretrainedConfig):
    """The vision tower: a CLIP-style ViT without its last norm.

    Args:
        stem_channels: output channels of stride-2 convolutions in front of the ViT; their number
            must give the patch size (3 convolutions = patch 8). Empty = one patch convolution, as
            in the released model.
        use_class_token: prepend a class token, as the released model does.
        hidden_act: `gelu` is the exact one, as released; `quick_gelu` is CLIP's own.
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
        hidden_act: str = "gelu",
        attention_dropout: float = 0.0,
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
        self.hidden_act = hidden_act
        self.attention_dropout = attention_dropout
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        if image_size % patch_size:
            raise ValueError(f"patch_size: {patch_size} does not divide image_size {image_size}")
        if hidden_size % num_attention_heads:
            raise ValueError(
                f"vision num_attention_heads: {num_attention_heads} does not divide "
                f"hidden_size {hidden_size}"
            )
        if self.stem_channels and 2 ** len(self.stem_channels) != patch_size:
            raise ValueError(
                f"stem_channels: {len(self.stem_channels)} stride-2 convolutions make patches of "
                f"{2 ** len(self.stem_channels)} pixels, patch_size says {patch_size}"
            )
        if attention_dropout:
            raise ValueError(
                f"vision attention_dropout: found {attention_dropout}; only 0 is built"
            )
        _check_activation("vision hidden_act", hidden_act)
        super().__init__(**kwargs)

    @property
    def num_patches_per_side(self) -> int:
        """Patches along one side of the square input."""
        return self.image_size // self.patch_size


class MiniMaxVLConfig(PretrainedConfig):
    """Vision tower, projector and hybrid decoder together.

    The released config.json is read as it is: its text part (`model_type` minimax_text_01), a text
    part in transformers' form (minimax) and a vision part of `clip_vision_model`.

    Args:
        image_token_index: id of `<image>`; every occurrence is replaced by one image feature.
        spatial_merge_size: neighbouring features merged (concatenated) along each side before the
            projector; 1 = none, as in the released model.
        image_grid_pinpoints: grids of tiles (height, width) in pixels that a picture may be fitted
            into, a list or the same as text; empty = every picture is one tile.
        vision_feature_layer: whose output the projector reads; -1 = the last block's. Several are
            concatenated.
        vision_feature_select_strategy: `default` drops the class token, `full` keeps it (only
            without pinpoints).
        image_seq_length: features of one tile; checked if given.
        ignore_index: label that is not trained on.
    """

    model_type = "minimax_vl_01"
    attribute_map = {"image_token_id": "image_token_index"}
    # transformers declares a property here, and replaces it by such a dict in its own classes
    sub_configs = {  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
        "text_config": MiniMaxVLTextConfig,
        "vision_config": MiniMaxVLVisionConfig,
    }

    def __init__(
        self,
        *,
        text_config: dict[str, Any] | PretrainedConfig | None = None,
        vision_config: dict[str, Any] | PretrainedConfig | None = None,
        image_token_index: int = 3,
        spatial_merge_size: int = 1,
        image_grid_pinpoints: list[list[int]] | str | None = None,
        vision_feature_layer: int | list[int] = -1,
        vision_feature_select_strategy: str = "default",
        projector_hidden_act: str = "gelu",
        multimodal_projector_bias: bool = True,
        image_seq_length: int | None = None,
        ignore_index: int = -100,
        **kwargs: Any,
    ) -> None:
        if not isinstance(text_config, MiniMaxVLTextConfig):
            text_config = MiniMaxVLTextConfig(**read_text_config(text_config))
        if not isinstance(vision_config, MiniMaxVLVisionConfig):
            vision_config = MiniMaxVLVisionConfig(**read_vision_config(vision_config))
        self.text_config = text_config
        self.vision_config = vision_config
        self.image_token_index = kwargs.pop("image_token_id", image_token_index)
        self.spatial_merge_size = spatial_merge_size
        self.image_grid_pinpoints = read_pinpoints(image_grid_pinpoints, vision_config.image_size)
        self.vision_feature_layer = vision_feature_layer
        self.vision_feature_select_strategy = vision_feature_select_strategy
        self.projector_hidden_act = projector_hidden_act
        self.multimodal_projector_bias = multimodal_projector_bias
        self.ignore_index = ignore_index
        self._check(image_seq_length)
        self.image_seq_length = self.num_image_tokens
        kwargs.pop("auto_map", None)  # remote code of the released folder; this class replaces it
        kwargs.setdefault("tie_word_embeddings", text_config.tie_word_embeddings)
        super().__init__(**kwargs)

    def _check(self, image_seq_length: int | None) -> None:
        vision, strategy = self.vision_config, self.vision_feature_select_strategy
        if vision.num_patches_per_side % self.spatial_merge_size:
            raise ValueError(
                f"spatial_merge_size: {self.spatial_merge_size} does not divide the "
                f"{vision.num_patches_per_side} patches of a side"
            )
        depth = vision.num_hidden_layers
        if any(not -depth - 1 <= layer <= depth for layer in self.feature_layers):
            raise ValueError(
                f"vision_feature_layer: found {self.vision_feature_layer!r}; the tower's {depth} "
                f"layers allow {-depth - 1} (its embeddings) to {depth}"
            )
        if strategy not in ("default", "full"):
            raise ValueError(
                f"vision_feature_select_strategy: found {strategy!r}; allowed are 'default' "
                "(without class token) and 'full'"
            )
        whole = vision.use_class_token and self.spatial_merge_size == 1
        if strategy == "full" and (self.image_grid_pinpoints or not whole):
            raise ValueError(
                "vision_feature_select_strategy 'full' keeps the class token, which has no place "
                "in a map of tiles: it needs use_class_token, no merging and no pinpoints"
            )
        _check_activation("projector_hidden_act", self.projector_hidden_act)
        if image_seq_length not in (None, self.num_image_tokens):
            raise ValueError(
                f"image_seq_length: found {image_seq_length}, a tile of {vision.image_size} pixels "
                f"in patches of {vision.patch_size} gives {self.num_image_tokens}; leave it out"
            )

    @property
    def feature_layers(self) -> list[int]:
        """Indices of the tower's outputs that the projector reads; 0 = the embeddings."""
        layers = self.vision_feature_layer
        return list(layers) if isinstance(layers, list | tuple) else [layers]

    @property
    def num_image_tokens(self) -> int:
        """Image tokens of one tile, which is a whole picture where there are no pinpoints."""
        cells = (self.vision_config.num_patches_per_side // self.spatial_merge_size) ** 2
        return cells + int(self.vision_feature_select_strategy == "full")

    def num_picture_tokens(self, height: int, width: int) -> int:
        """Image tokens that a picture of this size in pixels takes in the prompt."""
        if not self.image_grid_pinpoints:
            return self.num_image_tokens
        vision = self.vision_config
        return num_image_tokens(
            height,
            width,
            self.image_grid_pinpoints,
            vision.image_size,
            vision.patch_size,
            self.spatial_merge_size,
        )

    @classmethod
    def preset(cls, name: Literal["tiny", "vl_01"]) -> MiniMaxVLConfig:
        """`tiny`: every part of the released model in 4 M parameters; `vl_01`: its sizes."""
        if name not in PRESETS:
            raise ValueError(f"preset: found {name!r}; allowed are {', '.join(PRESETS)}")
        return cls(**PRESETS[name])


def _given(value: float | None, default: float) -> float:
    return default if value is None else value


def _check_activation(field: str, name: str) -> None:
    if name not in ACT2FN:
        raise ValueError(f"{field}: found {name!r}; allowed are {', '.join(sorted(ACT2FN))}")


_VL_01 = {
    "text_config": {
        "vocab_size": 200064,
        "hidden_size": 6144,
        "intermediate_size": 9216,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "attn_type_list": ([LIGHTNING] * 7 + [SOFTMAX]) * 10,
        "rotary_dim": 64,
        "rope_theta": 10_000_000.0,
        "num_local_experts": 32,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": [0],
        "lightning_block_tokens": 256,
        "initializer_range": 0.02,
        "max_position_embeddings": 8192,
    },
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
        "use_class_token": True,
        "initializer_range": 0.02,
    },
    "image_token_index": 200025,
    "image_grid_pinpoints": [list(grid) for grid in RELEASED_PINPOINTS],
}
_TINY = {
    "text_config": {
        "num_hidden_layers": 8,
        "attn_type_list": [LIGHTNING] * 7 + [SOFTMAX],
        "head_dim": 64,
        "rotary_dim": 32,
        "rope_theta": 10_000_000.0,
        "shared_intermediate_size": [0],
    },
    "vision_config": {
        "image_size": 56,
        "patch_size": 14,
        "use_class_token": True,
    },
    "image_grid_pinpoints": [
        [56 * rows, 56 * columns] for rows in range(1, 4) for columns in range(1, 4)
    ],
}
PRESETS: dict[str, dict[str, Any]] = {"tiny": _TINY, "vl_01": _VL_01}
"""Constructor arguments by name. Source of `vl_01`: the released configuration."""
