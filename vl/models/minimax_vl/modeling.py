"""MiniMax-VL for generation: pictures and text in, next-token logits out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedModel
from transformers.utils.generic import ModelOutput

from .cache import MiniMaxVLCache
from .configuration import MiniMaxVLConfig
from .moe import Experts, load_balancing_loss
from .text import MiniMaxTextForCausalLM, TextOutput
from .vision import MultiModalProjector, VisionAttention, VisionMlp, VisionTower


@dataclass
class MiniMaxVLOutput(ModelOutput):
    """Loss (if labels were given, balancing loss included), logits and the cache."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: MiniMaxVLCache | None = None
    aux_loss: Tensor | None = None


class MiniMaxVLPreTrainedModel(PreTrainedModel):
    """Initialisation and loading."""

    config_class = MiniMaxVLConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ["image", "text"]
    _supports_sdpa = True
    _no_split_modules = ["DecoderLayer", "VisionLayer"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        text = self.config.text_config.initializer_range
        if isinstance(module, nn.Linear | nn.Conv2d):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=text or 0.8 / fan_in**0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, Experts):
            for weight in (module.gate_up_proj, module.down_proj):
                nn.init.normal_(weight, std=text or 0.8 / weight.shape[-1] ** 0.5)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=text or 0.5)
        elif isinstance(module, nn.RMSNorm | nn.LayerNorm | nn.GroupNorm):
            nn.init.ones_(module.weight)
            bias = getattr(module, "bias", None)
            if isinstance(bias, Tensor):
                nn.init.zeros_(bias)
        if text is None:
            self._scale_outputs(module)

    def _scale_outputs(self, module: nn.Module) -> None:
        """Residual outputs x 0.5, head x 0.2: a new model starts close to the identity."""
        if isinstance(module, VisionAttention):
            module.out_proj.weight.mul_(0.5)
        elif isinstance(module, VisionMlp):
            module.fc2.weight.mul_(0.5)
        elif isinstance(module, MiniMaxTextForCausalLM):
            module.lm_head.weight.mul_(0.2)


class MiniMaxVLForConditionalGeneration(MiniMaxVLPreTrainedModel, GenerationMixin):
    """Vision tower, projector and hybrid decoder with its head.

    Beyond transformers' `forward` and `generate`, the trainer uses `image_features`, `embed` and
    `decode` directly, so that one image and one prompt are computed once for all their rollouts.
    """

    def __init__(self, config: MiniMaxVLConfig) -> None:
        super().__init__(config)
        self.vision_tower = VisionTower(config.vision_config)
        self.multi_modal_projector = MultiModalProjector(config)
        self.language_model = MiniMaxTextForCausalLM(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Token embeddings."""
        return self.language_model.model.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        """Language-model head."""
        return self.language_model.lm_head

    def image_features(
        self, pixel_values: Float[Tensor, "image channel height width"]
    ) -> Float[Tensor, "image token hidden"]:
        """What the decoder reads of each picture."""
        return self.multi_modal_projector(self.vision_tower(pixel_values))

    def embed(
        self,
        input_ids: Int[Tensor, "batch token"],
        features: Float[Tensor, "image image_token hidden"] | None = None,
    ) -> Float[Tensor, "batch token hidden"]:
        """Token embeddings with image features at the `<image>` positions, in order.

        Raises:
            ValueError: the number of `<image>` tokens differs from the number of features.
        """
        placeholder = input_ids == self.config.image_token_index
        embeds = self.get_input_embeddings()(input_ids.masked_fill(placeholder, 0))
        num_features = 0 if features is None else features.shape[0] * features.shape[1]
        num_placeholders = int(placeholder.sum())
        if num_placeholders != num_features:
            raise ValueError(
                f"the text holds {num_placeholders} image tokens, the pictures give {num_features} "
                "features; let the processor expand each <image> marker"
            )
        if features is None:
            return embeds
        return embeds.masked_scatter(placeholder[..., None], features.to(embeds.dtype))

    def decode(
        self,
        inputs_embeds: Float[Tensor, "batch token hidden"],
        valid: Bool[Tensor, "batch token"] | None = None,
        cache: MiniMaxVLCache | None = None,
    ) -> TextOutput:
        """Reads one chunk of embeddings after `cache`."""
        return self.language_model.model(inputs_embeds, valid, cache)

    def logits(self, hidden: Float[Tensor, "... hidden"]) -> Float[Tensor, "... vocab"]:
        """Next-token logits in float32."""
        return self.language_model.logits(hidden)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        past_key_values: MiniMaxVLCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> MiniMaxVLOutput:
        """As any transformers image-text-to-text model.

        Args:
            attention_mask: (B, T) over cached and new tokens, 1 = real token.
            labels: (B, T), already aligned with `input_ids`; -100 = not trained on.
            logits_to_keep: only the last so many positions' logits; 0 = all.
        """
        del kwargs
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("input_ids or inputs_embeds is needed, found neither")
            features = None if pixel_values is None else self.image_features(pixel_values)
            inputs_embeds = self.embed(input_ids, features)
        tokens = inputs_embeds.shape[1]
        valid = None
        if attention_mask is not None and not bool(attention_mask.all()):
            valid = attention_mask[:, -tokens:].bool()
        output = self.decode(inputs_embeds, valid, past_key_values)
        logits = self.logits(output.hidden[:, -logits_to_keep:])
        loss = aux_loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
            text = self.config.text_config
            aux_loss = load_balancing_loss(
                torch.stack(output.router_probs), text.num_experts_per_tok
            )
            loss = loss + text.router_aux_loss_coef * aux_loss
        return MiniMaxVLOutput(
            loss=loss,
            logits=logits,
            past_key_values=output.cache if use_cache is not False else None,
            aux_loss=aux_loss,
        )

    @staticmethod
    def _reorder_cache(
        past_key_values: MiniMaxVLCache, beam_idx: Int[Tensor, " row"]
    ) -> MiniMaxVLCache:
        """Beam search's hook; without it the reordered copy would be dropped."""
        return past_key_values.select(beam_idx)

    def prepare_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: Tensor,
        past_key_values: MiniMaxVLCache | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Only the tokens not yet in the cache; pictures with the first call alone."""
        del kwargs
        inputs: dict[str, Any] = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "past_key_values": past_key_values,
            "use_cache": True,
            "logits_to_keep": 1,
        }
        if past_key_values is None:
            inputs["pixel_values"] = pixel_values
        else:
            inputs["input_ids"] = input_ids[:, past_key_values.get_seq_length() :]
        return inputs
