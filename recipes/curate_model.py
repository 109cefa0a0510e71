"""A saved model of the embedded engine, as a policy that curation asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from data_specs import Sample
from tasks.curate_difficulty import Ask
from tasks.prompts import pose
from vl.policy import Question
from vl.rollout import SamplingConfig, sample_rollouts
from vl.seeds import generator_for

from .load import load_policy


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
        self._picture: tuple[bytes, list[Any]] | None = None

    @torch.no_grad()
    def answers(self, asks: Iterable[Ask]) -> Iterator[tuple[Sample, list[str]]]:
        """Each row with its answers.

        Raises: ValueError for a row without picture.
        """
        for sample, num_answers in asks:
            config = SamplingConfig(num_rollouts=num_answers, max_new_tokens=self._max_new_tokens)
            random = generator_for(self._seed, f"curate/{sample.source}/{sample.id}", 0)
            text = pose(sample, seed=self._seed, epoch=0, heldout=True)
            questions = [Question(owner=0, text=text)]
            features = self._features(sample)
            (group,) = sample_rollouts(self._policy, features, questions, config, random)
            yield sample, [rollout.text for rollout in group]

    def _features(self, sample: Sample) -> list[Any]:
        """Image tokens of the row's picture; rows that share one lie side by side."""
        if not sample.images:
            raise ValueError(f"{sample.where} (id {sample.id}): images: found none; leave it out")
        encoded = b"".join(image.encoded() for image in sample.images)
        if self._picture is None or self._picture[0] != encoded:
            entry = self._policy.encode([image.open() for image in sample.images])
            self._picture = encoded, self._policy.features([entry])
        return self._picture[1]
