"""How many tokens pictures, prompts and references take, counted on every row of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from tasks.prompts import pose
from vl.corpus import Corpus
from vl.models.minimax_policy import MiniMaxPolicy
from vl.sight import Sight

from .prepare import Run


class Lengths(NamedTuple):
    """Of the rows of one source, in tokens."""

    p50: int
    p95: int
    max: int


@dataclass(frozen=True, kw_only=True)
class TokenCounts:
    """What the model reads and is to write."""

    written_image_tokens: tuple[int, ...]
    """`<image>` tokens that the processor writes, for each picture tried."""
    given_image_tokens: int
    """Features that the vision tower and projector give for a picture."""
    prompts: dict[str, Lengths]
    """By source, training and held out: turn's opening, picture, text, assistant's header."""
    answers: dict[str, Lengths]
    """By source, training and held out: the reference with its end token."""
    cut: dict[str, float]
    """Share of a source's training references longer than a rollout; sources that RL takes."""
    cut_heldout: dict[str, float]
    """Share of a source's held-out references longer than an answer in the evaluation."""
    unknown_words: list[str] | None
    """Words of held-out prompts; None for a tokenizer without unknown token."""

    @property
    def num_pictures_tried(self) -> int:
        """Pictures given to the processor: the first of each source."""
        return len(self.written_image_tokens)


def count_tokens(run: Run) -> TokenCounts:
    """Lengths of all rows as the trainer reads them, and image tokens of a picture a source."""
    policy, recipe = run.policy, run.recipe
    assert isinstance(policy, MiniMaxPolicy)  # of a new model
    written, given = _image_tokens(policy, run.train)
    around = len(policy.text.opening) + given + len(policy.text.header)
    prompts: dict[str, list[int]] = defaultdict(list)
    trained: dict[str, list[int]] = defaultdict(list)
    heldout: dict[str, list[int]] = defaultdict(list)
    texts: list[str] = []
    for corpus, answers in ((run.train, trained), (run.heldout, heldout)):
        for picture in corpus.pictures:
            for sample in picture.samples:
                held = corpus is run.heldout
                text = pose(sample, seed=recipe.seed, epoch=0, heldout=held)
                if held:
                    texts.append(text)
                prompts[sample.source].append(around + len(policy.text.prompt(text)))
                answers[sample.source].append(len(policy.text.answer(sample.reward.ground_truth)))
    used = {k: v for k, v in trained.items() if recipe.data.rl_weights.get(k, 1.0) > 0.0}
    return TokenCounts(
        written_image_tokens=tuple(written),
        given_image_tokens=given,
        prompts={source: _lengths(found) for source, found in prompts.items()},
        answers={source: _lengths(trained[source] + heldout[source]) for source in prompts},
        cut=_over(used, recipe.rl.sampling.max_new_tokens),
        cut_heldout=_over(heldout, recipe.evaluation.max_new_tokens),
        unknown_words=unknown_words(policy.processor.tokenizer, texts),
    )


def unknown_words(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> list[str] | None:
    """Words that the tokenizer turns into its unknown token, sorted; None if it has no such."""
    unknown = tokenizer.unk_token_id
    if unknown is None:
        return None
    words = {word for text in texts for word in text.split()}
    found = {word: tokenizer(word, add_special_tokens=False).input_ids for word in words}
    return sorted(word for word, ids in found.items() if unknown in ids)


@torch.no_grad()
def _image_tokens(policy: MiniMaxPolicy, corpus: Corpus) -> tuple[list[int], int]:
    """(`<image>` tokens written for the first picture of each source, features of a picture)."""
    first = {picture.source: picture for picture in reversed(corpus.pictures)}
    image_id = policy.model.config.image_token_index
    written: list[int] = []
    for picture in first.values():
        shown = picture.images[0].open()
        ids = policy.processor(images=[shown], text="<image>")["input_ids"]
        written.append(int((cast("torch.Tensor", ids) == image_id).sum()))
    (seen, *_) = Sight(policy, corpus).features([next(iter(first.values())).index])
    return written, seen.lengths[0]


def _lengths(tokens: Sequence[int]) -> Lengths:
    p50, p95 = np.percentile(tokens, [50, 95], method="higher")
    return Lengths(int(p50), int(p95), max(tokens))


def _over(lengths: dict[str, list[int]], limit: int) -> dict[str, float]:
    return {
        source: sum(length > limit for length in found) / len(found)
        for source, found in lengths.items()
    }
