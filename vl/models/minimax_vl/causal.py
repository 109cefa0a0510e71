"""What the text model and MiniMax-VL share: new weights, loading, loss, generation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedModel
from transformers.utils.generic import ModelOutput

from .cache import MiniMaxVLCache
from .checkpoint_names import IGNORED_KEYS, missing_on_disk, refuse_other_keys
from .configuration import MiniMaxVLTextConfig
from .moe import Experts, load_balancing_loss
from .packing import documents_of
from .text import LanguageHead, MiniMaxTextModel, TextOutput, TextWithHead
from .vision import VisionAttention, VisionEmbeddings, VisionMlp


@dataclass
class MiniMaxOutput(ModelOutput):
    """Loss (if labels were given, balancing loss included), logits, cache and routing."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: MiniMaxVLCache | None = None
    aux_loss: Tensor | None = None
    """Load-balancing loss without its weight; 1.0 at balance, see `load_balancing_loss`."""
    router_logits: tuple[Tensor, ...] | None = None
    """One (token, expert) tensor a layer, if asked for."""
    dropped_frac: Tensor | None = None
    """Share of routed slots that found no room; None without a capacity."""


class MiniMaxPreTrainedModel(PreTrainedModel):
    """Initialisation and loading.

    Memory and disk differ in one thing: experts are fused in memory, one by one on disk, as
    published; `checkpoint_names` holds the rule. Router gates stay float32 in any lower type.
    """

    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _is_stateful = True  # generate() then refuses what must take drafted tokens back
    _supports_sdpa = True
    _no_split_modules = ["DecoderLayer", "VisionLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _keep_in_fp32_modules_strict = ["block_sparse_moe.gate"]
    _keys_to_ignore_on_load_unexpected = list(IGNORED_KEYS)

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, *args: Any, output_loading_info: bool = False, **kwargs: Any
    ) -> Any:
        """As any transformers model, but weights that are missing or left over are an error.

        Raises:
            ValueError: names them.
        """
        where = str(args[0] if args else cls.__name__)
        try:
            found: Any = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        except RuntimeError as error:  # experts that are not all there cannot be fused
            kind: Any = cls.config_class
            config = kwargs.get("config") or kind.from_pretrained(where)
            missing = missing_on_disk(config, Path(where))
            refuse_other_keys(where, {"missing_keys": missing, "unexpected_keys": ()}, error)
            raise
        model, info = found
        refuse_other_keys(where, info)
        return (model, info) if output_loading_info else model

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        text = self.config.get_text_config().initializer_range
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
        elif isinstance(module, VisionEmbeddings) and hasattr(module, "class_embedding"):
            nn.init.normal_(module.get_parameter("class_embedding"), std=text or 0.5)
        elif module is self and hasattr(self, "image_newline"):
            nn.init.normal_(self.get_parameter("image_newline"), std=text or 0.5)
        if text is None:
            self._scale_outputs(module)

    def _scale_outputs(self, module: nn.Module) -> None:
        """Residual outputs x 0.5, head x 0.2: a new model starts close to the identity."""
        if isinstance(module, VisionAttention):
            module.out_proj.weight.mul_(0.5)
        elif isinstance(module, VisionMlp):
            module.fc2.weight.mul_(0.5)
        elif isinstance(module, TextWithHead | MiniMaxTextForCausalLM):
            module.lm_head.weight.mul_(0.2)


class CausalDecoder:
    """Next-token prediction over `decoder`, which the model that mixes this in names."""

    config: Any

    @property
    def decoder(self) -> TextWithHead | MiniMaxTextForCausalLM:
        """The part that reads embeddings: it has `model` and `lm_head`."""
        raise NotImplementedError

    def get_input_embeddings(self) -> nn.Module:
        """Token embeddings."""
        return self.decoder.model.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replaces the token embeddings (transformers' `resize_token_embeddings`)."""
        self.decoder.model.embed_tokens = value

    def get_output_embeddings(self) -> nn.Module:
        """Language-model head."""
        return self.decoder.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replaces the language-model head."""
        if type(new_embeddings) is nn.Linear:  # transformers makes one to resize the vocabulary
            with torch.device("meta"):
                head = LanguageHead(self.config.get_text_config())
            head.weight, head.out_features = new_embeddings.weight, new_embeddings.out_features
            new_embeddings = head
        self.decoder.lm_head = new_embeddings

    def logits(self, hidden: Float[Tensor, "... hidden"]) -> Float[Tensor, "... vocab"]:
        """Next-token logits, in float32 unless `lm_head_fp32` is off."""
        return self.decoder.lm_head(hidden)

    def decode(
        self,
        inputs_embeds: Float[Tensor, "batch token hidden"],
        valid: Bool[Tensor, "batch token"] | None = None,
        cache: MiniMaxVLCache | None = None,
        documents: Int[Tensor, "batch token"] | None = None,
    ) -> TextOutput:
        """Reads one chunk of embeddings after `cache`; see `MiniMaxTextModel`."""
        return self.decoder.model(inputs_embeds, valid, cache, documents)

    def run(
        self,
        inputs_embeds: Float[Tensor, "batch token hidden"],
        attention_mask: Tensor | None,
        past_key_values: MiniMaxVLCache | None,
        labels: Int[Tensor, "batch token"] | None,
        *,
        use_cache: bool | None = None,
        logits_to_keep: int | Int[Tensor, " position"] = 0,
        output_router_logits: bool | None = None,
        num_items_in_batch: int | Tensor | None = None,
        position_ids: Int[Tensor, "batch token"] | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> MiniMaxOutput | tuple[Any, ...]:
        """Decoder, head, loss.

        Args:
            logits_to_keep: only the last so many positions' logits, or those at these positions;
                0 = all.
            output_router_logits: None = as the configuration says.
            num_items_in_batch: trained tokens of the whole optimizer step; the loss is then this
                batch's share of their mean.
            position_ids: only needed for packed rows, where each 0 starts a new document.
        """
        for name in ("output_attentions", "output_hidden_states"):
            if others.get(name):
                raise ValueError(f"{name}=True: the layers keep no such record; leave it out")
        text: MiniMaxVLTextConfig = self.config.get_text_config()
        valid = None
        if attention_mask is not None and attention_mask.ndim != 2:
            raise ValueError(
                f"attention_mask: found {tuple(attention_mask.shape)}; lightning layers take no "
                "mask of token pairs. Pass (batch, token), 1 = real token, and position_ids that "
                "restart at 0 for packed documents"
            )
        if attention_mask is not None and not bool(attention_mask.all()):
            valid = attention_mask[:, -inputs_embeds.shape[1] :].bool()
        documents = None
        if position_ids is not None:
            read = None if past_key_values is None else past_key_values.num_tokens
            documents = documents_of(position_ids, valid, read)
        output = self.decode(inputs_embeds, valid, past_key_values, documents)
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.logits(output.hidden[:, keep])
        if output_router_logits is None:
            output_router_logits = text.output_router_logits
        loss = aux_loss = None
        if labels is not None or output_router_logits:
            aux_loss = _balance(output, valid, text)
        if labels is not None:
            ignored = getattr(self.config, "ignore_index", -100)
            loss = _cross_entropy(logits, labels, ignored, num_items_in_batch)
            assert aux_loss is not None
            loss = loss + text.router_aux_loss_coef * aux_loss
        found = MiniMaxOutput(
            loss=loss,
            logits=logits,
            past_key_values=output.cache if use_cache is not False else None,
            aux_loss=aux_loss,
            router_logits=output.router_logits if output_router_logits else None,
            dropped_frac=output.dropped_frac,
        )
        return found.to_tuple() if return_dict is False else found

    @staticmethod
    def _reorder_cache(
        past_key_values: MiniMaxVLCache, beam_idx: Int[Tensor, " row"]
    ) -> MiniMaxVLCache:
        """Beam search's hook; without it the reordered copy would be dropped."""
        return past_key_values.select(beam_idx)

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """An empty cache, unless one is given; `generate` calls this before its first pass."""
        given = model_kwargs.get("past_key_values")
        if given is None:
            if generation_config.use_cache:
                num_layers = self.config.get_text_config().num_hidden_layers
                model_kwargs["past_key_values"] = MiniMaxVLCache.empty(num_layers)
            return None
        if not isinstance(given, MiniMaxVLCache):
            raise ValueError(
                f"past_key_values: found a {type(given).__name__}; lightning layers need the "
                "MiniMaxVLCache that an earlier call returned, or none"
            )
        parent: Any = super()
        return parent._prepare_cache_for_generation(
            generation_config, model_kwargs, *args, **kwargs
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: MiniMaxVLCache | None = None,
        inputs_embeds: Tensor | None = None,  # generate() looks for this name
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Only the tokens not yet in the cache, after a cache with as many rows.

        A continued cache has one row a prompt, beams and several answers a prompt have more.
        """
        if past_key_values is not None and past_key_values.get_seq_length():
            past_key_values = past_key_values.expand(
                max(1, input_ids.shape[0] // past_key_values.valid.shape[0])
            )
        parent: Any = super()
        inputs = parent.prepare_inputs_for_generation(
            input_ids, past_key_values=past_key_values, inputs_embeds=inputs_embeds, **kwargs
        )
        inputs.pop("position_ids", None)  # counted, from the mask and the cache
        inputs.setdefault("logits_to_keep", 1)
        return inputs


class MiniMaxTextForCausalLM(  # pyright: ignore[reportIncompatibleMethodOverride]
    CausalDecoder, MiniMaxPreTrainedModel, GenerationMixin
):
    """MiniMax-Text-01 (and MiniMax-M1): the decoder alone, under its published names."""

    config_class = MiniMaxVLTextConfig

    def __init__(self, config: MiniMaxVLTextConfig) -> None:
        super().__init__(config)
        self.model = MiniMaxTextModel(config)
        self.lm_head: nn.Linear = LanguageHead(config)
        self.post_init()

    @property
    def decoder(self) -> MiniMaxTextForCausalLM:
        """The model itself."""
        return self

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: MiniMaxVLCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **options: Any,
    ) -> MiniMaxOutput | tuple[Any, ...]:
        """As any transformers causal language model; `options` as of `CausalDecoder.run`.

        Args:
            attention_mask: (B, T) over cached and new tokens, 1 = real token.
            labels: (B, T), already aligned with `input_ids`; -100 = not trained on.
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("input_ids or inputs_embeds is needed, found neither")
            inputs_embeds = self.model.embed_tokens(input_ids)
        assert inputs_embeds is not None
        options["position_ids"] = position_ids
        return self.run(inputs_embeds, attention_mask, past_key_values, labels, **options)


def _balance(output: TextOutput, valid: Tensor | None, text: MiniMaxVLTextConfig) -> Tensor:
    probs = torch.stack(output.router_logits).softmax(-1)
    counted = None if valid is None else valid.flatten()
    return load_balancing_loss(probs, text.num_experts_per_tok, counted)


def _cross_entropy(
    logits: Tensor, labels: Tensor, ignored: int, num_items: int | Tensor | None
) -> Tensor:
    """Mean over trained tokens, or their sum over `num_items`."""
    reduction = "mean" if num_items is None else "sum"
    loss = F.cross_entropy(
        logits[:, :-1].flatten(0, 1),
        labels[:, 1:].flatten(),
        ignore_index=ignored,
        reduction=reduction,
    )
    return loss if num_items is None else loss / num_items
