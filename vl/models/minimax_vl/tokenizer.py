"""A small tokenizer for models trained from scratch: words, characters, box coordinates, bytes.

Any string round-trips: what is not in the vocabulary falls back to characters and then to bytes.
Box coordinates and the fixed pieces of a box answer are one token each, so that a box costs nine
tokens and the model chooses a coordinate in one draw.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

BOS = "<beginning_of_sentence>"
EOS = "<end_of_sentence>"
PAD = "<pad>"
IMAGE = "<image>"
VIDEO = "<video>"
SPECIALS = (PAD, BOS, EOS, IMAGE, VIDEO)

ANSWER_PIECES = (
    "<answer>[{'bbox_2d': [",
    "'}, {'bbox_2d': [",
    "], 'label': '",
    "'}]</answer>",
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    " \\boxed{}",
    "\\boxed{",
)
ROLE_PIECES = ("user\n", "assistant\n")


def _chat_template(headers: dict[str, str], after_turn: str) -> str:
    """<bos>header, content, <eos> for each message; pictures are `<image>` without a line break.

    Assistants' turns are marked as generated, for `return_assistant_tokens_mask`.
    """
    return (
        f"{{%- set headers = {headers!r} -%}}"
        "{%- for message in messages -%}"
        "{%- if message['role'] not in headers -%}"
        "{{ raise_exception('role ' ~ message['role'] ~ ': use system, user or assistant') }}"
        "{%- endif -%}"
        "{%- set parts = message['content'] -%}"
        "{%- if parts is string -%}"
        "{%- set parts = [{'type': 'text', 'text': parts}] -%}"
        "{%- endif -%}"
        "{{ bos_token + headers[message['role']] }}"
        "{%- set text -%}{%- for part in parts -%}"
        "{%- if part['type'] == 'image' -%}{{ '<image>' }}"
        "{%- elif part['type'] == 'text' -%}{{ part['text'] }}"
        "{%- else -%}{{ raise_exception('part ' ~ part['type'] ~ ': use image or text') }}"
        "{%- endif -%}{%- endfor -%}{%- endset -%}"
        "{%- if message['role'] == 'assistant' -%}"
        "{%- generation -%}{{ text + eos_token }}{%- endgeneration -%}"
        "{%- else -%}{{ text + eos_token }}{%- endif -%}"
        f"{{{{ {after_turn!r} }}}}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ bos_token + headers['assistant'] }}{%- endif -%}"
    )


CHAT_TEMPLATE = _chat_template(
    {"system": "system\n", "user": "user\n", "assistant": "assistant\n"}, after_turn=""
)
"""MiniMax-01's turn form with short role names: <bos>role, newline, content, <eos>."""

RELEASED_CHAT_TEMPLATE = _chat_template(
    {
        "system": "system ai_setting=assistant\n",
        "user": "user name=user\n",
        "assistant": "ai name=assistant\n",
    },
    after_turn="\n",
)
"""The turn form of MiniMax-Text-01 and MiniMax-VL-01."""

_COORDINATE = r"(?<=\[|, )\d{1,4}, (?=\d)|(?<=, )\d{1,4}(?=\], 'label')"
_WORD = r" ?[a-z]+"


def build_tokenizer(texts: Iterable[str], *, coordinate_bins: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose words are the lower-case words of `texts` (prompts and answers).

    Args:
        coordinate_bins: per mille coordinates k * 1000 / bins, k = 0 ... bins, are single tokens;
            other numbers are spelt digit by digit.
    """
    words = sorted({word for text in texts for word in re.findall(_WORD, text)})
    coordinates = sorted(
        {str(round(k * 1000 / coordinate_bins)) for k in range(coordinate_bins + 1)}
    )
    vocabulary: dict[str, int] = {}
    for piece in _vocabulary_in_order(words, coordinates):
        vocabulary.setdefault(piece, len(vocabulary))
    model = models.BPE(vocab=vocabulary, merges=[], ignore_merges=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    pieces = "|".join(re.escape(piece) for piece in ANSWER_PIECES + ROLE_PIECES)
    pattern = Regex(f"{pieces}|{_COORDINATE}|{_WORD}|\\d|[^a-z\\d]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="isolated")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        extra_special_tokens={"image_token": IMAGE, "video_token": VIDEO},
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def placeholder_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Ids that a policy must never sample: picture and video placeholders, padding, turn starts."""
    vocabulary = tokenizer.get_vocab()
    return [vocabulary[token] for token in (IMAGE, VIDEO, PAD, BOS) if token in vocabulary]


def _vocabulary_in_order(words: Sequence[str], coordinates: Sequence[str]) -> Iterable[str]:
    yield from SPECIALS
    yield from (f"<0x{byte:02X}>" for byte in range(256))
    yield from (chr(code) for code in range(32, 127))
    yield "\n"
    yield from ANSWER_PIECES
    yield from ROLE_PIECES
    yield from (f"{number}, " for number in sorted(coordinates, key=int))
    yield from sorted(coordinates, key=int)
    yield from words
