"""A saved model of the embedded engine, as a policy that curation asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from data_specs import Sample
from tasks.curate_difficulty import Ask
from tasks.prompts import pose
from vl.corpus import build_corpus
from vl.rollout import SamplingConfig, sample_rollouts
from vl.seeds import generator_for

from .evaluation import load_policy


class ModelPolicy:
    """Draws answers at temperature 1, row by row, so that stopping changes no answer."""

    is_live = True

    def __init__(self, folder: Path, *, seed: int, max_new_tokens: int) -> None:
        """Loads the model.

        Raises: FileNotFoundError or ValueError if the folder has none that we run.
        """
        self.name = f"{folder}, seed {seed}, up to {max_new_tokens} tokens"
        self._policy = load_policy(folder)
        self._seed, self._max_new_tokens = seed, max_new_tokens
        self._picture: tuple[bytes, torch.Tensor] | None = None

    @torch.no_grad()
    def answers(self, asks: Iterable[Ask]) -> Iterator[tuple[Sample, list[str]]]:
        """Each row with its answers.

        Raises: ValueError for a row without picture, or with several.
        """
        text = self._policy.text
        for sample, num_answers in asks:
            config = SamplingConfig(num_rollouts=num_answers, max_new_tokens=self._max_new_tokens)
            random = generator_for(self._seed, f"curate/{sample.source}/{sample.id}", 0)
            question = pose(sample, seed=self._seed, epoch=0, heldout=True)
            prompts = [text.prompt(question)]
            (group,) = sample_rollouts(
                self._policy, self._features(sample), prompts, [0], config, random
            )
            yield sample, [rollout.text for rollout in group]

    def _features(self, sample: Sample) -> torch.Tensor:
        """Image tokens of the row's picture; rows that share one lie side by side."""
        encoded = sample.images[0].encoded() if sample.images else b""
        if self._picture is None or self._picture[0] != encoded:
            size = self._policy.model.config.vision_config.image_size
            corpus = build_corpus([(sample,)], size_px=size)
            self._picture = encoded, self._policy.features(corpus.pixels)
        return self._picture[1]
