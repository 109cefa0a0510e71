"""MiniMax-VL as a policy: a picture is read once for its questions, a question for its rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from data_specs import IMAGE_MARKER
from vl.policy import AnswerScores, Question
from vl.precision import in_compute_type
from vl.saving import save_weights
from vl.text import Padded, TextEncoder, pad_right

from .minimax_vl import (
    MiniMaxVLCache,
    MiniMaxVLForConditionalGeneration,
    MiniMaxVLProcessor,
    placeholder_ids,
)

_PARTS = {
    "vit": ("vision_tower.",),
    "connector": ("multi_modal_projector.", "image_newline"),
    "llm": ("language_model.",),
}
_NUM_BUCKETS = 4
"""Rows are read in so many groups of similar length, which halves the padding."""


class Seen(NamedTuple):
    """What the decoder reads of one entry."""

    tokens: Float[Tensor, "token hidden"]
    """Of all its pictures, one after the other."""
    lengths: tuple[int, ...]
    """Tokens of each picture."""


class Tiles(NamedTuple):
    """One entry's pictures as the image processor gives them."""

    pixels: Tensor
    """uint8 (picture, height, width, 3) if one tile each, else float (tile, 3, height, width)."""
    sizes: Int[Tensor, "picture 2"] | None
    """Height and width of each picture before tiling; None for one-tile models."""


@dataclass(frozen=True)
class MiniMaxPolicy:
    """Model, processor and text encoder that belong together."""

    model: MiniMaxVLForConditionalGeneration
    processor: MiniMaxVLProcessor
    text: TextEncoder
    forbidden: Bool[Tensor, " vocab"]
    """Token ids that sampling must never draw; log-probs are normalised without them."""
    autocast: bool = False
    """Layers multiply in bfloat16; weights and head stay as they are."""

    @classmethod
    def build(
        cls, model: MiniMaxVLForConditionalGeneration, processor: MiniMaxVLProcessor
    ) -> MiniMaxPolicy:
        """Wraps a loaded model and its processor.

        Raises:
            ValueError: the processor expands pictures to another number of tokens than the model.
        """
        one_tile = not processor.image_processor.image_grid_pinpoints
        if one_tile and processor.num_image_tokens != model.config.num_image_tokens:
            raise ValueError(
                f"processor says {processor.num_image_tokens} image tokens a picture, the model "
                f"makes {model.config.num_image_tokens}; load both from one checkpoint"
            )
        forbidden = torch.zeros(model.config.text_config.vocab_size, dtype=torch.bool)
        forbidden[placeholder_ids(processor.tokenizer)] = True
        text = TextEncoder(tokenizer=processor.tokenizer)
        _ = text.opening, text.header  # remembered now: threads then only read
        return cls(model, processor, text, forbidden)

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The processor's."""
        return self.processor.tokenizer

    @property
    def end_ids(self) -> frozenset[int]:
        """The end token."""
        return frozenset((self.text.end_id,))

    @property
    def parts(self) -> Mapping[str, tuple[str, ...]]:
        """Tower, projector (with the row-end token of tiled pictures), decoder with its head."""
        return _PARTS

    @property
    def forbidden_ids(self) -> tuple[int, ...]:
        """Picture and video placeholders, padding, turn starts."""
        return tuple(self.forbidden.nonzero()[:, 0].tolist())

    def encode(self, images: Sequence[Image.Image]) -> Tiles:
        """Pixels of an entry's pictures."""
        processor = self.processor.image_processor
        if not processor.image_grid_pinpoints:
            return Tiles(processor.pixels(list(images)), None)
        inputs = processor(list(images), return_tensors="pt")
        return Tiles(inputs["pixel_values"], inputs["image_sizes"])

    @in_compute_type
    def patches(self, entries: Sequence[Tiles]) -> Float[Tensor, "picture patch width"]:
        """The vision tower's features of one-tile pictures."""
        pixels = torch.cat([entry.pixels for entry in entries])
        normal = self.processor.image_processor.normalise(pixels)
        return self.model.vision_tower(normal.to(self.model.dtype))

    @in_compute_type
    def features(self, entries: Sequence[Tiles]) -> list[Seen]:
        """Image tokens of each entry."""
        if entries[0].sizes is None:
            counts = [len(entry.pixels) for entry in entries]
            return self.project(self.patches(entries), counts)
        sizes = torch.cat([cast("Tensor", entry.sizes) for entry in entries])
        pixels = torch.cat([entry.pixels for entry in entries])
        found = iter(self.model.get_image_features(pixels, sizes))
        seen: list[Seen] = []
        for entry in entries:
            tokens = [next(found) for _ in cast("Tensor", entry.sizes)]
            seen.append(Seen(torch.cat(tokens), tuple(len(one) for one in tokens)))
        return seen

    @in_compute_type
    def project(
        self, patches: Float[Tensor, "picture patch width"], counts: Sequence[int]
    ) -> list[Seen]:
        """Image tokens of each entry from the tower's features; `counts` pictures an entry."""
        tokens = self.model.multi_modal_projector(patches)
        each = tokens.shape[1]
        return [
            Seen(part.flatten(0, 1), (each,) * len(part)) for part in tokens.split(list(counts))
        ]

    @in_compute_type
    def read(self, features: Sequence[Seen], questions: Sequence[Question]) -> MiniMaxVLCache:
        """Memory after each question, without the assistant's header."""
        if any(IMAGE_MARKER in question.text for question in questions):
            return self._read_whole(features, questions)
        pictures = self._read_pictures(features)
        padded = pad_right([self.text.prompt(q.text) for q in questions], self.text.pad_id)
        cache = self._select(pictures, [question.owner for question in questions])
        return self.model.decode(self.model.embed(padded.ids), padded.valid, cache).cache

    @in_compute_type
    def _read_pictures(self, features: Sequence[Seen]) -> MiniMaxVLCache:
        """Memory after the turn's opening and each entry's pictures."""
        opening, image_id = self.text.opening, self.model.config.image_token_index
        rows = [[*opening, *[image_id] * len(seen.tokens)] for seen in features]
        padded = pad_right(rows, self.text.pad_id)
        tokens = torch.cat([seen.tokens for seen in features])
        embeds = self.model.embed(padded.ids, tokens[None])
        valid = None if bool(padded.valid.all()) else padded.valid
        return self.model.decode(embeds, valid).cache

    def _read_whole(
        self, features: Sequence[Seen], questions: Sequence[Question]
    ) -> MiniMaxVLCache:
        """The same where markers say where pictures stand: each question is read from its start."""
        image_id = self.model.config.image_token_index
        rows: list[list[int]] = []
        for question in questions:
            lengths = features[question.owner].lengths
            text = question.text
            if IMAGE_MARKER not in text:  # beside others that have markers
                text = IMAGE_MARKER * len(lengths) + text
            pieces = text.split(IMAGE_MARKER)
            if len(pieces) - 1 != len(lengths):
                raise ValueError(
                    f"the text {question.text[:80]!r} has {len(pieces) - 1} {IMAGE_MARKER} markers "
                    f"for {len(lengths)} pictures; write one for each, or none"
                )
            row = list(self.text.opening)
            for piece, length in zip(pieces, lengths, strict=False):
                row += [*self.text.encode(piece), *[image_id] * length]
            rows.append([*row, *self.text.prompt(pieces[-1])])
        padded = pad_right(rows, self.text.pad_id)
        tokens = torch.cat([features[question.owner].tokens for question in questions])
        return self.model.decode(self.model.embed(padded.ids, tokens[None]), padded.valid).cache

    def _select(self, cache: MiniMaxVLCache, rows: Sequence[int]) -> MiniMaxVLCache:
        num_rows = cache.valid.shape[0]
        copies = len(rows) // num_rows
        if list(rows) == [row for row in range(num_rows) for _ in range(copies)]:
            return cache.expand(copies)  # equal shares in order: the faster backward
        return cache.select(torch.tensor(rows))

    def branch(self, memory: MiniMaxVLCache, copies: int) -> MiniMaxBranches:
        """Answers that start with the assistant's header."""
        return MiniMaxBranches(self, memory.expand(copies))

    def score(
        self,
        memory: MiniMaxVLCache,
        owners: Sequence[int],
        answers: Sequence[Sequence[int]],
        *,
        temperature: float = 1.0,
    ) -> AnswerScores:
        """Log-probability and entropy of every token of each answer after its question's memory."""
        targets = pad_right(answers, self.text.pad_id)
        lengths = targets.valid.sum(1)
        logprobs = torch.zeros(targets.ids.shape)
        entropy = torch.zeros(targets.ids.shape)
        for part in lengths.argsort(stable=True).chunk(_NUM_BUCKETS):
            index = part.tolist()
            cache = self._select(memory, [owners[row] for row in index])
            found = self._score_part(cache, [answers[row] for row in index], temperature)
            width = found[0].shape[1]
            rows, columns = part[:, None], torch.arange(width)[None]
            logprobs = logprobs.index_put((rows, columns), found[0])
            entropy[part, :width] = found[1]
        return AnswerScores(logprobs, entropy, targets.valid)

    def _score_part(
        self, cache: MiniMaxVLCache, answers: Sequence[Sequence[int]], temperature: float
    ) -> tuple[Tensor, Tensor]:
        """(answer, token) log-probabilities and entropies; 0 at padding."""
        header = self.text.header
        ids, valid = pad_right(answers, self.text.pad_id)
        read = [[*header, *answer[:-1]] for answer in answers]
        hidden = self._read_after(cache, read)[:, len(header) - 1 :]
        found = self._logprobs(hidden[valid], ids[valid], temperature)
        zeros = torch.zeros(ids.shape)
        return zeros.masked_scatter(valid, found[0]), zeros.masked_scatter(valid, found[1])

    def score_alone(
        self,
        features: Sequence[Seen],
        questions: Sequence[Question],
        answers: Sequence[Sequence[int]],
        *,
        temperature: float = 1.0,
    ) -> AnswerScores:
        """The same with every picture and question read anew for each answer."""
        entries = [features[question.owner] for question in questions]
        alone = [Question(owner=row, text=q.text) for row, q in enumerate(questions)]
        memory = self.read(entries, alone)
        return self.score(memory, range(len(answers)), answers, temperature=temperature)

    @in_compute_type
    def _read_after(self, cache: MiniMaxVLCache, rows: Sequence[Sequence[int]]) -> Tensor:
        padded: Padded = pad_right(rows, self.text.pad_id)
        return self.model.decode(self.model.embed(padded.ids), padded.valid, cache).hidden

    def _logprobs(
        self, hidden: Tensor, targets: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        logits = self.masked_logits(hidden) / temperature
        every = F.log_softmax(logits, dim=-1)
        with torch.no_grad():
            entropy = -(every.exp() * every.masked_fill(self.forbidden, 0.0)).sum(-1)
        return every.gather(-1, targets[:, None])[:, 0], entropy

    def masked_logits(self, hidden: Float[Tensor, "... hidden"]) -> Float[Tensor, "... vocab"]:
        """Next-token logits with forbidden tokens at minus infinity."""
        return self.model.logits(hidden).masked_fill(self.forbidden, float("-inf"))

    def negative_log_likelihood(
        self,
        features: Sequence[Seen],
        questions: Sequence[Question],
        answers: Sequence[Sequence[int]],
    ) -> Float[Tensor, ""]:
        """Sum over all answer tokens, all questions of an entry branching from its pictures."""
        if any(IMAGE_MARKER in question.text for question in questions):
            scores = self.score_alone(features, questions, answers)
            return -scores.logprobs.sum()
        pictures = self._read_pictures(features)
        owner = torch.tensor([question.owner for question in questions])
        prompts = [self.text.prompt(question.text) for question in questions]
        lengths = torch.tensor([len(p) + len(a) for p, a in zip(prompts, answers, strict=True)])
        total = features[0].tokens.new_zeros(())
        for rows in lengths.argsort().chunk(_NUM_BUCKETS):
            index = rows.tolist()
            read = [[*prompts[i], *self.text.header, *answers[i][:-1]] for i in index]
            hidden = self._read_after(pictures.select(owner[rows]), read)
            skipped = [len(prompts[i]) + len(self.text.header) - 1 for i in index]
            starts = torch.tensor(skipped)[:, None]
            ends = starts + torch.tensor([len(answers[i]) for i in index])[:, None]
            position = torch.arange(hidden.shape[1])[None]
            trained = (position >= starts) & (position < ends)
            targets = torch.tensor([token for i in index for token in answers[i]])
            logits = self.masked_logits(hidden[trained])
            total = total + F.cross_entropy(logits, targets, reduction="sum")
        return total

    def decode(self, answers: Sequence[Sequence[int]]) -> list[str]:
        """Text of answers, without special tokens."""
        rows = [[token for token in row if token != self.text.end_id] for row in answers]
        return self.tokenizer.batch_decode(rows, skip_special_tokens=True)

    def encode_answer(self, text: str) -> list[int]:
        """Token ids of a complete answer, end token included."""
        return self.text.answer(text)

    def num_prompt_tokens(self, features: Seen, text: str) -> int:
        """Opening, pictures, text, assistant's header."""
        words = self.text.prompt(text.replace(IMAGE_MARKER, ""))
        around = len(self.text.opening) + len(self.text.header)
        return around + len(features.tokens) + len(words)

    def save(self, folder: Path) -> None:
        """Writes model, adapters added in, and processor in transformers' layout."""
        save_weights(self.model, folder)
        self.processor.save_pretrained(folder)


class MiniMaxBranches:
    """Answers in progress: a cache row each."""

    def __init__(self, policy: MiniMaxPolicy, cache: MiniMaxVLCache) -> None:
        self._policy, self._cache = policy, cache
        self.model, self.autocast = policy.model, policy.autocast
        header = torch.tensor(policy.text.header).expand(cache.valid.shape[0], -1)
        self._hidden = self._advance(header)

    def logits(self) -> Float[Tensor, "row vocab"]:
        """Next-token logits of every row."""
        return self._policy.masked_logits(self._hidden)

    def extend(self, tokens: Int[Tensor, " row"]) -> None:
        """Appends one token to every row."""
        self._hidden = self._advance(tokens[:, None])

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Drops all other rows."""
        self._cache, self._hidden = self._cache.select(rows), self._hidden[rows]

    @in_compute_type
    def _advance(self, tokens: Tensor) -> Tensor:
        model = self.model
        output = model.decode(model.embed(tokens), None, self._cache)
        self._cache = output.cache
        return output.hidden[:, -1]
