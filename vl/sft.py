"""Stages 1 and 2: dense alignment of the vision tower, then fine-tuning on rendered answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from data_specs import Sample

from .align import DenseHead, DenseTargets, annotated_objects, dense_targets
from .corpus import Corpus, Picture, Pose
from .models.minimax_policy import MiniMaxPolicy
from .optim import MuonConfig, OptimizerConfig, Optimizers, Schedule
from .parallel import Shards
from .policy import Policy, Question
from .sight import Sight


class Draw(NamedTuple):
    """One picture of a training stream and the epoch it is drawn in."""

    epoch: int
    picture: Picture


class PictureStream(Protocol):
    """An endless, resumable order of pictures."""

    def __call__(self, start: int) -> Iterator[Draw]:
        """Pictures from position `start` on."""
        ...


Captioner = Callable[[Sample], tuple[str, str] | None]
"""A sample to a (prompt, answer) that says all that is annotated in its picture; None without."""


class TrainingRows(NamedTuple):
    """Questions, each with the picture of the batch it asks about, and answers as token ids."""

    questions: list[Question]
    answers: list[list[int]]


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """Stage 1: the vision tower against dense annotations."""

    num_steps: int = 300
    pictures_per_step: int = 32
    optimizer: OptimizerConfig = MuonConfig()
    schedule: Schedule = Schedule(warmup_steps=30, decay_frac=0.0)
    max_grad_norm: float = 1.0


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """Stage 2: all parts on the rows' ground truths, all questions of a picture packed."""

    num_steps: int = 1500
    pictures_per_step: int = 32
    dense_weight: float = 0.3
    """Weight of stage 1's loss, kept beside the answers' cross-entropy; 0 = dropped."""
    caption_frac: float = 1.0
    """Share of this stage, from its start, in which each annotated picture also carries a caption
    (all objects with their boxes) as one more row; 0 = none."""
    optimizer: OptimizerConfig = MuonConfig()
    schedule: Schedule = Schedule(warmup_steps=30, decay_frac=0.4)
    max_grad_norm: float = 1.0


class _Stepper:
    """Position in a stream, and weights, head and optimizer as one state."""

    def __init__(
        self,
        policy: Policy,
        head: DenseHead | None,
        corpus: Corpus,
        trained: nn.Module,
        config: AlignConfig | SftConfig,
        shards: Shards,
    ) -> None:
        self.policy, self.head = policy, head
        self.config = config
        self.sight = Sight(policy, corpus)
        self.shards = shards
        self.optimizers = Optimizers(trained, config.optimizer)
        self.num_steps = config.num_steps

    def draw(self, stream: PictureStream, step: int) -> list[list[Draw]]:
        """The step's pictures from the stream, in shards, ready to be looked at."""
        stream_from = stream(step * self.config.pictures_per_step)
        draws = [next(stream_from) for _ in range(self.config.pictures_per_step)]
        self.sight.prepare([draw.picture.index for draw in draws])
        return self.shards.split(draws)

    def update(self, step: int, losses: Sequence[Callable[[], Tensor]]) -> dict[str, float]:
        """Backward over all shards and one optimizer step; the numbers every stage logs."""
        factor = self.config.schedule.factor(step / self.num_steps, step)
        lr = self.optimizers.set_factor(factor)
        self.shards.backward(self.optimizers.params, losses)
        norm = self.optimizers.step(self.config.max_grad_norm)
        return {"lr": lr, "grad_norm": norm}

    def state_dict(self) -> dict[str, Any]:
        """Weights, dense head and optimizer."""
        head = {} if self.head is None else {"head": self.head.state_dict()}
        return {
            "model": self.policy.model.state_dict(),
            "optimizers": self.optimizers.state_dict(),
            **head,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self.policy.model.load_state_dict(state["model"])
        if self.head is not None:
            self.head.load_state_dict(state["head"])
        self.optimizers.load_state_dict(state["optimizers"])


class DenseTargetCache:
    """Dense targets of each picture, computed once."""

    def __init__(self, head: DenseHead) -> None:
        self.head = head
        self._memory: dict[int, DenseTargets] = {}

    def __call__(self, pictures: list[Picture]) -> DenseTargets:
        """Targets of a batch."""
        for picture in pictures:
            if picture.index not in self._memory:
                self._memory[picture.index] = dense_targets([picture], self.head)
        rows = [self._memory[picture.index] for picture in pictures]
        return DenseTargets(*(torch.cat(field) for field in zip(*rows, strict=True)))


class AlignStage(_Stepper):
    """Stage 1."""

    name = "align"

    def __init__(
        self,
        policy: MiniMaxPolicy,
        head: DenseHead,
        corpus: Corpus,
        stream: PictureStream,
        config: AlignConfig,
        shards: Shards,
    ) -> None:
        model = policy.model
        trained = nn.ModuleDict({"vision_tower": model.vision_tower, "head": head})
        super().__init__(policy, head, corpus, trained, config, shards)
        self.tower_policy, self.dense_head = policy, head
        self.stream = stream
        self.targets = DenseTargetCache(head)

    def run_step(self, step: int) -> dict[str, float]:
        """One step on the next pictures of the stream, which must all be annotated."""
        parts = self.draw(self.stream, step)
        found: dict[int, float] = {}  # by shard: threads end in any order, sums keep theirs

        def share(shard: int, draws: list[Draw]) -> Callable[[], Tensor]:
            pictures = [draw.picture for draw in draws]
            pixels = self.sight.pixels([picture.index for picture in pictures])
            targets = self.targets(pictures)
            weight = len(pictures) / self.config.pictures_per_step

            def loss() -> Tensor:
                patches = self.tower_policy.patches(pixels)
                value = weight * self.dense_head.loss(patches, targets)
                found[shard] = value.item()
                return value

            return loss

        numbers = self.update(step, [share(*part) for part in enumerate(parts)])
        return {"loss": sum(self.shards.collect(found)), **numbers}


class SftStage(_Stepper):
    """Stage 2, and under the name `control` its continuation for comparison with RL."""

    def __init__(
        self,
        policy: Policy,
        head: DenseHead | None,
        corpus: Corpus,
        stream: PictureStream,
        pose: Pose,
        caption: Captioner,
        config: SftConfig,
        shards: Shards,
        *,
        name: str = "sft",
    ) -> None:
        """Args: head: of stage 1, for its loss beside the answers'; None = answers only."""
        trained = nn.ModuleDict({"model": policy.model} | ({"head": head} if head else {}))
        super().__init__(policy, head, corpus, trained, config, shards)
        self.name = name
        self.sft = config
        self.stream, self.pose, self.caption = stream, pose, caption
        self.targets = DenseTargetCache(head) if head else None

    def run_step(self, step: int) -> dict[str, float]:
        """One step on the next pictures of the stream and all their questions."""
        shards = self.draw(self.stream, step)
        rows = [self._rows(draws, step) for draws in shards]
        tokens = sum(len(answer) for shard in rows for answer in shard.answers)
        answer_losses: dict[int, float] = {}
        dense_losses: dict[int, float] = {}

        def share(index: int, draws: list[Draw], shard: TrainingRows) -> Callable[[], Tensor]:
            pictures = [draw.picture for draw in draws]

            def loss() -> Tensor:
                features, dense = self._see(pictures)
                nll = self.policy.negative_log_likelihood(features, *shard)
                answer_losses[index] = nll.item() / tokens
                if dense is None:
                    return nll / tokens
                dense_losses[index] = dense.item()
                return nll / tokens + self.sft.dense_weight * dense

            return loss

        losses = [share(i, *part) for i, part in enumerate(zip(shards, rows, strict=True))]
        numbers = self.update(step, losses)
        values = {"loss": sum(self.shards.collect(answer_losses))}
        if dense := self.shards.collect(dense_losses):
            values["dense_loss"] = sum(dense)
        return {**values, **numbers}

    def _see(self, pictures: Sequence[Picture]) -> tuple[list[Any], Tensor | None]:
        """Features, and this share's part of the dense loss where there is one."""
        indices = [picture.index for picture in pictures]
        policy, head = self.policy, self.head
        if head is None or self.targets is None or not isinstance(policy, MiniMaxPolicy):
            return self.sight.features(indices), None
        patches = policy.patches(self.sight.pixels(indices))
        features = policy.project(patches, [1] * len(pictures))
        annotated = [row for row, p in enumerate(pictures) if annotated_objects(p)]
        if not annotated or not self.sft.dense_weight:
            return features, None
        targets = self.targets([pictures[row] for row in annotated])
        share_frac = len(pictures) / self.sft.pictures_per_step
        return features, share_frac * head.loss(patches[annotated], targets)

    def _rows(self, batch: Sequence[Draw], step: int) -> TrainingRows:
        """Questions of all pictures, and captions while they last."""
        captioned = step < self.sft.caption_frac * self.num_steps
        rows = TrainingRows([], [])
        for owner, (epoch, picture) in enumerate(batch):
            pairs = [(self.pose(s, epoch), s.reward.ground_truth) for s in picture.samples]
            caption = self.caption(picture.samples[0]) if captioned else None
            for text, answer in [*pairs, caption] if caption else pairs:
                rows.questions.append(Question(owner=owner, text=text))
                rows.answers.append(self.policy.encode_answer(answer))
        return rows
