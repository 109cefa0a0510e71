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
from .optim import MuonConfig, OptimizerConfig, Optimizers, Schedule
from .parallel import Shards
from .policy import Policy


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
    """Token ids of prompts and answers, and which picture of the batch each asks about."""

    prompts: list[list[int]]
    answers: list[list[int]]
    owners: list[int]


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
        head: DenseHead,
        trained: nn.Module,
        config: AlignConfig | SftConfig,
        shards: Shards,
    ) -> None:
        self.policy, self.head = policy, head
        self.config = config
        self.shards = shards
        self.optimizers = Optimizers(trained, config.optimizer)
        self.num_steps = config.num_steps

    def draw(self, stream: PictureStream, step: int) -> list[list[Draw]]:
        """The step's pictures from the stream, in shards."""
        draws = stream(step * self.config.pictures_per_step)
        return self.shards.split([next(draws) for _ in range(self.config.pictures_per_step)])

    def update(self, step: int, losses: Sequence[Callable[[], Tensor]]) -> dict[str, float]:
        """Backward over all shards and one optimizer step; the numbers every stage logs."""
        factor = self.config.schedule.factor(step / self.num_steps, step)
        lr = self.optimizers.set_factor(factor)
        self.shards.backward(self.optimizers.params, losses)
        norm = self.optimizers.step(self.config.max_grad_norm)
        return {"lr": lr, "grad_norm": norm}

    def state_dict(self) -> dict[str, Any]:
        """Weights, dense head and optimizer."""
        return {
            "model": self.policy.model.state_dict(),
            "head": self.head.state_dict(),
            "optimizers": self.optimizers.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self.policy.model.load_state_dict(state["model"])
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
        policy: Policy,
        head: DenseHead,
        corpus: Corpus,
        stream: PictureStream,
        config: AlignConfig,
        shards: Shards,
    ) -> None:
        model = policy.model
        trained = nn.ModuleDict({"vision_tower": model.vision_tower, "head": head})
        super().__init__(policy, head, trained, config, shards)
        self.corpus, self.stream = corpus, stream
        self.targets = DenseTargetCache(head)

    def run_step(self, step: int) -> dict[str, float]:
        """One step on the next pictures of the stream, which must all be annotated."""
        parts = self.draw(self.stream, step)
        found = [0.0] * len(parts)  # by shard: threads end in any order, sums keep theirs

        def share(shard: int, draws: list[Draw]) -> Callable[[], Tensor]:
            pictures = [draw.picture for draw in draws]
            pixels = self.corpus.pixels[[picture.index for picture in pictures]]
            targets = self.targets(pictures)
            weight = len(pictures) / self.config.pictures_per_step

            def loss() -> Tensor:
                value = weight * self.head.loss(self.policy.patches(pixels), targets)
                found[shard] = value.item()
                return value

            return loss

        numbers = self.update(step, [share(*part) for part in enumerate(parts)])
        return {"loss": sum(found), **numbers}


class SftStage(_Stepper):
    """Stage 2, and under the name `control` its continuation for comparison with RL."""

    def __init__(
        self,
        policy: Policy,
        head: DenseHead,
        corpus: Corpus,
        stream: PictureStream,
        pose: Pose,
        caption: Captioner,
        config: SftConfig,
        shards: Shards,
        *,
        name: str = "sft",
    ) -> None:
        both = nn.ModuleDict({"model": policy.model, "head": head})
        super().__init__(policy, head, both, config, shards)
        self.name = name
        self.sft = config
        self.corpus, self.stream = corpus, stream
        self.pose, self.caption = pose, caption
        self.targets = DenseTargetCache(head)

    def run_step(self, step: int) -> dict[str, float]:
        """One step on the next pictures of the stream and all their questions."""
        shards = self.draw(self.stream, step)
        rows = [self._rows(draws, step) for draws in shards]
        tokens = sum(len(answer) for shard in rows for answer in shard.answers)
        answer_losses, dense_losses = [0.0] * len(shards), [0.0] * len(shards)

        def share(index: int, draws: list[Draw], shard: TrainingRows) -> Callable[[], Tensor]:
            pictures = [draw.picture for draw in draws]
            pixels = self.corpus.pixels[[picture.index for picture in pictures]]
            annotated = [row for row, p in enumerate(pictures) if annotated_objects(p)]
            dense_weight = self.sft.dense_weight if annotated else 0.0
            targets = self.targets([pictures[row] for row in annotated]) if dense_weight else None
            share_frac = len(pictures) / self.sft.pictures_per_step

            def loss() -> Tensor:
                patches = self.policy.patches(pixels)
                features = self.policy.model.multi_modal_projector(patches)
                value = self.policy.sft_loss(features, *shard, tokens_in_step=tokens)
                answer_losses[index] = value.item()
                if targets is None:
                    return value
                dense = share_frac * self.head.loss(patches[annotated], targets)
                dense_losses[index] = dense.item()
                return value + dense_weight * dense

            return loss

        losses = [share(i, *part) for i, part in enumerate(zip(shards, rows, strict=True))]
        numbers = self.update(step, losses)
        values = {"loss": sum(answer_losses)}
        if any(dense_losses):
            values["dense_loss"] = sum(dense_losses)
        return {**values, **numbers}

    def _rows(self, batch: Sequence[Draw], step: int) -> TrainingRows:
        """Questions of all pictures, and captions while they last."""
        text = self.policy.text
        captioned = step < self.sft.caption_frac * self.num_steps
        rows = TrainingRows([], [], [])
        for owner, (epoch, picture) in enumerate(batch):
            pairs = [(self.pose(s, epoch), s.reward.ground_truth) for s in picture.samples]
            caption = self.caption(picture.samples[0]) if captioned else None
            for prompt, answer in [*pairs, caption] if caption else pairs:
                rows.prompts.append(text.prompt(prompt))
                rows.answers.append(text.answer(answer))
                rows.owners.append(owner)
        return rows
