"""MiniMax-VL: vision tower, projector and hybrid lightning/softmax MoE decoder."""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
)

from .cache import MiniMaxVLCache
from .causal import MiniMaxTextForCausalLM
from .checkpoint_names import register_conversions
from .configuration import MiniMaxVLConfig, MiniMaxVLTextConfig, MiniMaxVLVisionConfig
from .image_processing import MiniMaxVLImageProcessor
from .lightning import lightning_attention, lightning_step
from .modeling import MiniMaxVLForConditionalGeneration
from .processing import MiniMaxVLProcessor
from .tokenizer import build_tokenizer, placeholder_ids

register_conversions()
AutoConfig.register("minimax_vl_01", MiniMaxVLConfig, exist_ok=True)
AutoConfig.register("minimax_text_01", MiniMaxVLTextConfig, exist_ok=True)
AutoModelForCausalLM.register(MiniMaxVLTextConfig, MiniMaxTextForCausalLM, exist_ok=True)
AutoModelForImageTextToText.register(
    MiniMaxVLConfig, MiniMaxVLForConditionalGeneration, exist_ok=True
)
AutoProcessor.register(MiniMaxVLConfig, MiniMaxVLProcessor, exist_ok=True)
AutoImageProcessor.register(  # under both backends' names, else loading warns of a missing one
    MiniMaxVLConfig,
    slow_image_processor_class=MiniMaxVLImageProcessor,
    fast_image_processor_class=MiniMaxVLImageProcessor,
    exist_ok=True,
)

__all__ = [
    "MiniMaxTextForCausalLM",
    "MiniMaxVLCache",
    "MiniMaxVLConfig",
    "MiniMaxVLForConditionalGeneration",
    "MiniMaxVLImageProcessor",
    "MiniMaxVLProcessor",
    "MiniMaxVLTextConfig",
    "MiniMaxVLVisionConfig",
    "build_tokenizer",
    "lightning_attention",
    "lightning_step",
    "placeholder_ids",
]
