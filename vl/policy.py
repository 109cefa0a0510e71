"""A model with its tokenizer, as the trainer sees it: prefixes, branches and answers' log-probs.

The computation is a tree: a picture is read once, its prompts branch from it, and the rollouts of
a prompt branch from the prompt. Gradients flow back through the shared prefixes, so the update
equals that of separate rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from .corpus import Padded, TextEncoder, pad_right
from .models.minimax_vl import (
    MiniMaxVLCache,
    MiniMaxVLForConditionalGeneration,
    MiniMaxVLProcessor,
    placeholder_ids,
)


class AnswerScores(NamedTuple):
    """Per answer token, padded on the right."""

    logprobs: Float[Tensor, "row token"]
    entropy: Float[Tensor, "row token"]
    valid: Bool[Tensor, "row token"]


@dataclass(frozen=True)
class Policy:
    """Model, processor and text encoder that belong together."""

    model: MiniMaxVLForConditionalGeneration
    processor: MiniMaxVLProcessor
    text: TextEncoder
    forbidden: Bool[Tensor, " vocab"]
    """Token ids that sampling must never draw; log-probs are normalised without them."""

    @classmethod
    def build(
        cls, model: MiniMaxVLForConditionalGeneration, processor: MiniMaxVLProcessor
    ) -> Policy:
        """Wraps a loaded model and its processor.

        Raises:
            ValueError: the processor expands pictures to another number of tokens than the model.
        """
        if processor.num_image_tokens != model.config.num_image_tokens:
            raise ValueError(
                f"processor says {processor.num_image_tokens} image tokens a picture, the model "
                f"makes {model.config.num_image_tokens}; load both from one checkpoint"
            )
        forbidden = torch.zeros(model.config.text_config.vocab_size, dtype=torch.bool)
        forbidden[placeholder_ids(processor.tokenizer)] = True
        text = TextEncoder(tokenizer=processor.tokenizer)
        _ = text.opening, text.header  # remembered now: threads then only read
        return cls(model, processor, text, forbidden)

    def patches(self, pixels: Int[Tensor, "picture height width 3"]) -> Tensor:
        """The vision tower's features (picture, patch, width) of uint8 pictures."""
        return self.model.vision_tower(self.processor.image_processor.normalise(pixels))

    def features(self, pixels: Int[Tensor, "picture height width 3"]) -> Tensor:
        """Image tokens (picture, token, hidden) of uint8 pictures."""
        return self.model.multi_modal_projector(self.patches(pixels))

    def read_pictures(self, features: Float[Tensor, "picture token hidden"]) -> MiniMaxVLCache:
        """Memory after the turn's opening and the picture."""
        opening = self.text.opening
        ids = opening + [self.model.config.image_token_index] * features.shape[1]
        batch = torch.tensor(ids)[None].expand(features.shape[0], -1)
        return self.model.decode(self.model.embed(batch, features)).cache

    def read_prompts(
        self, pictures: MiniMaxVLCache, prompts: Sequence[Sequence[int]], owners: Sequence[int]
    ) -> MiniMaxVLCache:
        """Memory after each prompt; `owners` says which row of `pictures` a prompt asks about."""
        padded = pad_right(prompts, self.text.pad_id)
        num_pictures = pictures.valid.shape[0]
        copies = len(prompts) // num_pictures
        if list(owners) == [row for row in range(num_pictures) for _ in range(copies)]:
            cache = pictures.expand(copies)  # equal shares in order: the faster backward
        else:
            cache = pictures.select(torch.tensor(owners))
        return self.model.decode(self.model.embed(padded.ids), padded.valid, cache).cache

    def score_answers(
        self,
        prompts: MiniMaxVLCache,
        answers: Sequence[Sequence[int]],
        *,
        temperature: float = 1.0,
    ) -> AnswerScores:
        """Log-probability and entropy of every token of each answer after its prompt's memory.

        Args:
            prompts: one row an answer (branch or select beforehand).
            answers: token ids, end token included where the answer ended.
        """
        header = self.text.header
        targets = pad_right(answers, self.text.pad_id)
        read = [[*header, *answer[:-1]] for answer in answers]
        hidden = self._read(prompts, read)[:, len(header) - 1 :]
        scores = self._logprobs(hidden[targets.valid], targets.ids[targets.valid], temperature)
        shape = targets.ids.shape
        logprobs = scores[0].new_zeros(shape).masked_scatter(targets.valid, scores[0])
        entropy = scores[1].new_zeros(shape).masked_scatter(targets.valid, scores[1])
        return AnswerScores(logprobs, entropy, targets.valid)

    def _read(self, cache: MiniMaxVLCache, rows: Sequence[Sequence[int]]) -> Tensor:
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

    def sft_loss(
        self,
        features: Float[Tensor, "picture token hidden"],
        prompts: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        owners: Sequence[int],
        *,
        tokens_in_step: int | None = None,
        num_buckets: int = 4,
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy per answer token, all questions of a picture packed on its prefix.

        `owners` says which picture a question asks about.
        Rows are read in `num_buckets` groups of similar length, which halves the padding.

        Args:
            tokens_in_step: answer tokens of the whole optimizer step; shares of its shards then
                add up. None = the tokens of this call.
        """
        pictures = self.read_pictures(features)
        owner = torch.tensor(owners)
        lengths = torch.tensor([len(p) + len(a) for p, a in zip(prompts, answers, strict=True)])
        order = lengths.argsort()
        total = features.new_zeros(())
        for rows in order.chunk(num_buckets):
            index = rows.tolist()
            cache = pictures.select(owner[rows])
            read = [[*prompts[i], *self.text.header, *answers[i][:-1]] for i in index]
            hidden = self._read(cache, read)
            skipped = [len(prompts[i]) + len(self.text.header) - 1 for i in index]
            starts = torch.tensor(skipped)[:, None]
            ends = starts + torch.tensor([len(answers[i]) for i in index])[:, None]
            position = torch.arange(hidden.shape[1])[None]
            trained = (position >= starts) & (position < ends)
            targets = torch.tensor([token for i in index for token in answers[i]])
            logits = self.masked_logits(hidden[trained])
            total = total + F.cross_entropy(logits, targets, reduction="sum")
        return total / (tokens_in_step or sum(len(answer) for answer in answers))
