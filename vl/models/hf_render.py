"""Pictures and questions as a transformers processor writes them: pixels once, text many times.

A processor expands each picture's placeholder into as many tokens as the picture needs, and wants
the pixels for it. Here the pixels are prepared once; the expansion of each picture is noted from
what the processor hands its tokenizer, and put into every question about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, cast

from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from data_specs import IMAGE_MARKER

_BETWEEN = "\n=#=\n"
"""Parts the expansions of an entry's pictures; occurs in none."""
_TEXT_INPUTS = frozenset(
    ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "special_tokens_mask")
)


class Pixels(NamedTuple):
    """One entry's pictures as the processor gives them."""

    inputs: dict[str, Tensor]
    """What `get_image_features` takes, by its names."""
    expansions: tuple[str, ...]
    """The text that each picture's placeholder becomes."""


class _Tape:
    """A tokenizer that notes the texts it is called with."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.texts: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: Any, *args: Any, **options: Any) -> Any:
        self.texts += [text] if isinstance(text, str) else list(text)
        return self._tokenizer(text, *args, **options)


@dataclass(frozen=True)
class Renderer:
    """The processor's chat template, tokenizer and image side."""

    processor: ProcessorMixin

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The processor's."""
        return cast("PreTrainedTokenizerBase", self.processor.tokenizer)

    @cached_property
    def placeholder(self) -> str:
        """What the chat template writes for a picture and the processor expands."""
        token = getattr(self.processor, "image_token", None)
        if token is None:
            raise ValueError(
                f"{type(self.processor).__name__} has no `image_token`; models whose processor "
                "does not mark pictures in the text are not supported"
            )
        return str(token)

    def encode(self, images: Sequence[Image.Image]) -> Pixels:
        """Pixels of an entry's pictures and the text they expand to."""
        processor = copy(self.processor)  # its tokenizer is replaced
        tape = _Tape(self.tokenizer)
        processor.tokenizer = tape
        colour = [image.convert("RGB") for image in images]
        text = _BETWEEN.join([self.placeholder] * len(images))
        batch = cast("Any", processor)(images=[colour], text=[text], return_tensors="pt")
        expansions = tape.texts[-1].split(_BETWEEN)
        if len(expansions) != len(images):
            raise ValueError(
                f"{type(self.processor).__name__}: {len(images)} pictures were expanded to "
                f"{len(expansions)} pieces of text; this processor is not supported"
            )
        inputs = {name: value for name, value in batch.items() if name not in _TEXT_INPUTS}
        return Pixels(inputs, tuple(expansions))

    def prompt(self, expansions: tuple[str, ...], question: str) -> list[int]:
        """Token ids of the whole prompt, up to where the answer starts."""
        messages = [{"role": "user", "content": _content(question, len(expansions))}]
        text = self._chat(messages, add_generation_prompt=True)
        return self.tokenize(self._expand(text, expansions))

    def tokenize(self, text: str) -> list[int]:
        """Ids of rendered text; the tokenizer adds its own marks only where the text has none."""
        bos = cast("str | None", self.tokenizer.bos_token)
        add = bos is None or not text.startswith(bos)
        return self.tokenizer(text, add_special_tokens=add)["input_ids"]

    @cached_property
    def answer_tail(self) -> str:
        """What the chat template writes after an assistant's answer."""
        answer = "=#="
        messages: list[Mapping[str, Any]] = [
            {"role": "user", "content": [{"type": "text", "text": "?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ]
        return self._chat(messages, add_generation_prompt=False).rsplit(answer, 1)[-1]

    def _chat(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool) -> str:
        return cast("Any", self.processor).apply_chat_template(
            list(messages), add_generation_prompt=add_generation_prompt, tokenize=False
        )

    def _expand(self, text: str, expansions: tuple[str, ...]) -> str:
        pieces = text.split(self.placeholder)
        if len(pieces) - 1 != len(expansions):
            raise ValueError(
                f"the rendered prompt {text[:80]!r} has {len(pieces) - 1} picture placeholders "
                f"{self.placeholder!r} for {len(expansions)} pictures; a question must not hold "
                "the placeholder, and the chat template must write one a picture"
            )
        out = [pieces[0]]
        for expansion, piece in zip(expansions, pieces[1:], strict=True):
            out += [expansion, piece]
        return "".join(out)


def _content(question: str, num_pictures: int) -> list[dict[str, str]]:
    """A user turn's content with every picture where its marker stands, or first."""
    pieces = question.split(IMAGE_MARKER)
    if len(pieces) == 1:
        return [{"type": "image"}] * num_pictures + [{"type": "text", "text": question}]
    if len(pieces) - 1 != num_pictures:
        raise ValueError(
            f"the text {question[:80]!r} has {len(pieces) - 1} {IMAGE_MARKER} markers for "
            f"{num_pictures} pictures; write one for each, or none"
        )
    content: list[dict[str, str]] = []
    for index, piece in enumerate(pieces):
        content += [{"type": "image"}] if index else []
        content += [{"type": "text", "text": piece}] if piece else []
    return content
