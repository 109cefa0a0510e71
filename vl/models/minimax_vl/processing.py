"""Pictures and text to model inputs: each `<image>` becomes the image tokens of its picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isqrt
from os import PathLike
from typing import Any, NamedTuple, cast

import torch
from transformers import AutoTokenizer, BatchFeature, PreTrainedTokenizerFast, ProcessorMixin
from transformers.processing_utils import MultiModalData

from .anyres import num_image_tokens
from .image_processing import MiniMaxVLImageProcessor, flat_pictures
from .tokenizer import IMAGE, RELEASED_CHAT_TEMPLATE

_NO_INPUT = ("videos", "audio")


class Expanded(NamedTuple):
    """A row's text with its image tokens, and where they stand."""

    text: str
    replacements: list[dict[str, Any]]
    """Per picture the characters it had (`span`) and has (`new_span`), named as in transformers."""


class MiniMaxVLProcessor(ProcessorMixin):
    """Image processor and tokenizer together; expands each `<image>` to its image tokens.

    Rows are padded on the left, as generation needs it; set `padding_side="right"` in a call, or
    `processor.tokenizer.padding_side`, for training. A tokenizer without a padding token (the
    released one) gets its unknown token, else its end token, for it.

    Args:
        num_image_tokens: image tokens of one tile; None = as the image processor's `patch_size`
            says.
        coordinate_space: what box numbers in this model's prompts and answers refer to.
        image_token: the marker, one token of the tokenizer.
        chat_template: None = the tokenizer's, else MiniMax-VL-01's.
    """

    def __init__(
        self,
        image_processor: MiniMaxVLImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerFast | None = None,
        num_image_tokens: int | None = None,
        coordinate_space: str = "per_mille",
        image_token: str = IMAGE,
        chat_template: str | dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        if image_processor is None or tokenizer is None:
            raise ValueError("a processor needs an image processor and a tokenizer")
        if num_image_tokens is None:
            num_image_tokens = _tokens_of_tile(image_processor)
        side = isqrt(num_image_tokens)
        has_grids = bool(image_processor.image_grid_pinpoints)
        if has_grids and (side**2 != num_image_tokens or image_processor.tile_px % side):
            raise ValueError(
                f"num_image_tokens: {num_image_tokens} do not lie in a square on a tile of "
                f"{image_processor.tile_px} pixels"
            )
        self.num_image_tokens = num_image_tokens
        self.coordinate_space = coordinate_space
        self.image_token = image_token
        self.image_token_id = _only_id(tokenizer, image_token)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
        tokenizer.padding_side = "left"
        chat_template = chat_template or tokenizer.chat_template or RELEASED_CHAT_TEMPLATE
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **kwargs)

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, pretrained_model_name_or_path: str | PathLike[str], **kwargs: Any
    ) -> MiniMaxVLProcessor:
        """A saved processor, or a folder of MiniMax-VL-01 as published.

        The published files name their own code for the Auto classes to run; it is not needed here.
        """
        name = pretrained_model_name_or_path
        settings, options = cls.get_processor_dict(name, **kwargs)
        parts = [
            MiniMaxVLImageProcessor.from_pretrained(name, **kwargs),
            AutoTokenizer.from_pretrained(name, **kwargs),
        ]
        return cast("MiniMaxVLProcessor", cls.from_args_and_dict(parts, settings, **options))

    def num_tokens(self, height: int, width: int) -> int:
        """Image tokens of a picture of that size in pixels."""
        side, grids = self.image_processor.tile_px, self.image_processor.image_grid_pinpoints
        if not grids:
            return self.num_image_tokens
        patch = side // isqrt(self.num_image_tokens)
        return num_image_tokens(height, width, grids, tile_px=side, patch_px=patch)

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        return_tensors: str | None = "pt",
        *,
        padding: bool | str = True,
        add_special_tokens: bool = False,
        return_mm_token_type_ids: bool = False,
        return_text_replacement_offsets: bool = False,
        images_kwargs: dict[str, Any] | None = None,
        **text_kwargs: Any,
    ) -> BatchFeature:
        """Token ids with expanded image tokens; with pictures their tiles and sizes too.

        Args:
            images: one picture, all pictures of the batch in order, or one list a row.
            text: one text or one a row; None gives the pictures alone.
            return_mm_token_type_ids: add `mm_token_type_ids`, 1 for image tokens, else 0.
            return_text_replacement_offsets: add where the markers were and where their tokens are.
            images_kwargs: arguments of the image processor's call.
            text_kwargs: further arguments of the tokenizer's call.

        Raises:
            ValueError: a row does not hold as many `<image>` markers as pictures, or was truncated
                inside its pictures.
        """
        for name in _NO_INPUT:
            if text_kwargs.pop(name, None) is not None:
                raise ValueError(f"{name}: this model reads pictures and text only")
        if text is None and images is None:
            raise ValueError("found neither images nor text; give at least one of them")
        text_kwargs |= text_kwargs.pop("text_kwargs", {})
        found: dict[str, Any] = {}
        sizes: list[Any] = []
        texts = [text] if isinstance(text, str) else list(text or [])
        pictures = flat_pictures(images) if text is None else self._match(texts, images)
        if pictures:
            found = dict(self.image_processor(pictures, return_tensors, **(images_kwargs or {})))
            found.pop("num_tiles")  # the model derives it from the sizes
            sizes = [tuple(int(side) for side in size) for size in found["image_sizes"]]
        if text is None:
            return BatchFeature(found)
        counts = iter([self.num_tokens(*size) for size in sizes])
        rows = [expand(one, self.image_token, counts) for one in texts]
        tokens = self.tokenizer(
            [row.text for row in rows],
            return_tensors=return_tensors,
            padding=padding,
            add_special_tokens=add_special_tokens,
            **text_kwargs,
        )
        tokens.pop("token_type_ids", None)
        ids = tokens.input_ids.tolist() if return_tensors else tokens.input_ids
        is_image = [[int(token == self.image_token_id) for token in row] for row in ids]
        self._check_whole(rows, is_image)
        if return_mm_token_type_ids:
            tokens["mm_token_type_ids"] = torch.tensor(is_image) if return_tensors else is_image
        if return_text_replacement_offsets:
            tokens["text_replacement_offsets"] = [row.replacements for row in rows]
        return BatchFeature({**tokens, **found})

    def apply_chat_template(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, conversation: Any, *args: Any, sanitize_control_tokens: bool = False, **kwargs: Any
    ) -> Any:
        """The conversation as text, or with `tokenize=True` and `return_dict=True` as model inputs.

        A message's content is a list of parts, {"type": "image", "image": picture, path or URL}
        and {"type": "text", "text": ...}, or a text.

        Args:
            sanitize_control_tokens: where a text holds a special token such as `<image>`, put a
                space behind its first character, so that it is read as text.

        Raises:
            ValueError: a text holds a special token (a picture is a part of its own).
        """
        # departs from transformers, which takes an `<image>` in a question for a picture
        specials = sorted({*self.tokenizer.all_special_tokens, self.image_token})
        single = bool(conversation) and isinstance(conversation[0], dict)
        conversations = [conversation] if single else conversation
        clean = [
            [
                _clean_message(message, f"conversation {row}, message {index}", specials)
                if not sanitize_control_tokens
                else _clean_message(message, None, specials)
                for index, message in enumerate(messages)
            ]
            for row, messages in enumerate(conversations)
        ]
        return super().apply_chat_template(clean[0] if single else clean, *args, **kwargs)

    def _match(self, texts: Sequence[str], images: Any) -> list[Any]:
        """All pictures in order, after each row was found to have one for each of its markers."""
        markers = [text.count(self.image_token) for text in texts]
        nested = isinstance(images, list | tuple) and any(
            isinstance(row, list | tuple) for row in images
        )
        if nested and len(images) != len(texts):
            raise ValueError(
                f"images: found {len(images)} lists for {len(texts)} rows of text; give one list "
                "a row, empty where a row has no picture"
            )
        pictures = [flat_pictures(row) for row in images] if nested else [flat_pictures(images)]
        left = len(pictures[0])
        for row, wanted in enumerate(markers):
            last = row == len(texts) - 1
            given = len(pictures[row]) if nested else left if last else min(left, wanted)
            if given != wanted:
                raise ValueError(
                    f"row {row}: {wanted} {self.image_token} markers for {given} pictures; write "
                    f"one marker for each picture (the batch has {sum(markers)} markers and "
                    f"{sum(map(len, pictures))} pictures)"
                )
            left -= wanted
        return [picture for row in pictures for picture in row]

    def _check_whole(self, rows: Sequence[Expanded], is_image: Sequence[Sequence[int]]) -> None:
        for row, (expanded, marks) in enumerate(zip(rows, is_image, strict=True)):
            wanted = expanded.text.count(self.image_token)
            if sum(marks) != wanted:
                raise ValueError(
                    f"row {row}: {sum(marks)} of {wanted} image tokens are left after tokenizing; "
                    "leave truncation out or raise max_length"
                )

    def _get_num_multimodal_tokens(
        self, image_sizes: Sequence[Sequence[int]] | None = None, **kwargs: Any
    ) -> MultiModalData:
        """Image tokens for each (height, width), under the name that vLLM asks for."""
        del kwargs
        if image_sizes is None:
            return MultiModalData()
        return MultiModalData(
            num_image_tokens=[self.num_tokens(*size) for size in image_sizes],
            num_image_patches=[1] * len(image_sizes),
        )


def expand(text: str, marker: str, counts: Iterator[int]) -> Expanded:
    """`text` with each marker repeated as often as the next of `counts` says."""
    first, *pieces = text.split(marker)
    expanded = [first]
    replacements: list[dict[str, Any]] = []
    old = new = len(first)
    for piece in pieces:
        tokens = marker * next(counts)
        replacements.append(
            {
                "type": "image",
                "span": (old, old + len(marker)),
                "new_span": (new, new + len(tokens)),
                "text": marker,
                "replacement": tokens,
            }
        )
        expanded += [tokens, piece]
        old += len(marker) + len(piece)
        new += len(tokens) + len(piece)
    return Expanded("".join(expanded), replacements)


def _clean_message(
    message: dict[str, Any], where: str | None, specials: Sequence[str]
) -> dict[str, Any]:
    """A copy whose texts hold no special token: refused with `where`, else (None) spaced."""
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": _clean_text(content, where, specials)}
    if not isinstance(content, list | tuple):
        return dict(message)
    parts = [
        {**part, "text": _clean_text(part["text"], where, specials)}
        if isinstance(part, dict) and isinstance(part.get("text"), str)
        else part
        for part in content
    ]
    return {**message, "content": parts}


def _clean_text(text: str, where: str | None, specials: Sequence[str]) -> str:
    for token in specials:
        if token not in text:
            continue
        if where is not None:
            raise ValueError(
                f"{where}: the text holds the special token {token!r}; give a picture as a part of "
                'its own, {"type": "image", "image": ...}, and pass sanitize_control_tokens=True '
                "if the token is meant as text"
            )
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def _tokens_of_tile(image_processor: MiniMaxVLImageProcessor) -> int:
    if image_processor.patch_size is None:
        raise ValueError(
            "num_image_tokens: unknown; give it, or give the image processor its patch_size"
        )
    return (image_processor.tile_px // image_processor.patch_size) ** 2


def _only_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """The id of a special token."""
    ids = tokenizer(token, add_special_tokens=False).input_ids
    if len(ids) != 1 or tokenizer.convert_ids_to_tokens(ids[0]) != token:
        raise ValueError(
            f"image_token: the tokenizer reads {token!r} as {len(ids)} tokens; name the token that "
            "stands for a picture, or add it to the tokenizer as a special token"
        )
    return ids[0]
