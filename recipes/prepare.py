"""The fixed parts of a run, made before its first step: rows, model, logs, picture orders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from data_specs import Sample
from tasks.captions import caption
from tasks.mixture import ImageKey, group_by_image, image_stream
from tasks.prompts import POOL, pose, question
from vl.align import DenseHead, annotated_objects, dense_labels
from vl.checkpoint import CheckpointStore
from vl.corpus import Corpus, build_corpus
from vl.models.minimax_policy import MiniMaxPolicy
from vl.models.minimax_vl import (
    MiniMaxVLConfig,
    MiniMaxVLForConditionalGeneration,
    MiniMaxVLImageProcessor,
    MiniMaxVLProcessor,
    MiniMaxVLTextConfig,
    MiniMaxVLVisionConfig,
    build_tokenizer,
)
from vl.parallel import Shards
from vl.policy import Policy
from vl.processes import ALONE, Processes
from vl.runlog import RunLog
from vl.seeds import derive_seed
from vl.sft import Draw

from .data import Dataset
from .load import load_policy
from .progress import Progress
from .recipe import ModelConfig, Recipe, SavedModelConfig
from .stages import StageCache


class Stream:
    """Pictures in the order of `tasks.mixture`, resumable at any position."""

    def __init__(
        self, corpus: Corpus, keys: Sequence[ImageKey], seed: int, weights: Mapping[str, float]
    ) -> None:
        self._pictures = dict(zip(keys, corpus.pictures, strict=True))
        self._seed, self._weights = seed, weights
        self._position = -1
        self._draws: Iterator[tuple[int, ImageKey]] = iter(())

    def __call__(self, start: int) -> Iterator[Draw]:
        """Draws from position `start` on; going on where the last call stopped costs nothing."""
        if start != self._position:
            self._draws = image_stream(
                list(self._pictures), seed=self._seed, start=start, weights=self._weights
            )
            self._position = start
        for epoch, key in self._draws:
            self._position += 1
            yield Draw(epoch, self._pictures[key])


@dataclass
class Run:
    """A run's fixed parts, made before the first step."""

    recipe: Recipe
    dataset: Dataset
    train: Corpus
    train_keys: tuple[ImageKey, ...]
    heldout: Corpus
    policy: Policy
    head: DenseHead | None
    """Of new models, for stage 1 and its loss in stage 2."""
    log: RunLog
    cache: StageCache
    checkpoints: CheckpointStore
    progress: Progress
    shards: Shards
    processes: Processes

    def stream(self, name: str, weights: Mapping[str, float]) -> Stream:
        """The picture order of one stage."""
        seed = derive_seed(self.recipe.seed, f"order/{name}", 0)
        known = {key.source for key in self.train_keys}
        used = {source: weight for source, weight in weights.items() if source in known}
        return Stream(self.train, self.train_keys, seed, used)

    @property
    def unannotated(self) -> dict[str, float]:
        """Weight 0 for every source with a picture that says nothing of what is in it."""
        pictures = self.train.pictures
        return {p.source: 0.0 for p in pictures if not annotated_objects(p)}

    def pose(self, sample: Sample, epoch: int) -> str:
        """Training text of a row in an epoch."""
        return pose(sample, seed=self.recipe.seed, epoch=epoch, heldout=False)


def prepare(
    recipe: Recipe,
    dataset: Dataset,
    log: RunLog,
    cache: StageCache,
    checkpoints: CheckpointStore,
    progress: Progress,
    *,
    processes: Processes = ALONE,
) -> Run:
    """Reads the rows and builds a new model, or loads the one to go on from.

    Raises:
        DataSpecError: a row that cannot be read.
        ValueError: a row that the embedded trainer cannot take.
    """
    with progress.task("reading rows", 2) as advance:
        train_groups = group_by_image(dataset.train())
        train = build_corpus(train_groups.values())
        advance(1)
        heldout = build_corpus(group_by_image(dataset.heldout()).values())
        advance(1)
    torch.manual_seed(derive_seed(recipe.seed, "init", 0))
    head = None
    if isinstance(recipe.model, SavedModelConfig):
        policy = load_policy(
            Path(recipe.model.path),
            dtype=recipe.model.dtype,
            lora=recipe.model.lora,
            gradient_checkpointing=recipe.model.gradient_checkpointing,
            autocast=recipe.model.autocast,
        )
    else:
        policy = build_policy(recipe.model, train)
        head = DenseHead(policy.model.config, dense_labels(train.pictures))
    processes.broadcast(policy.model.state_dict().values())
    keys = tuple(train_groups)
    return Run(
        recipe,
        dataset,
        train,
        keys,
        heldout,
        policy,
        head,
        log,
        cache,
        checkpoints,
        progress,
        Shards(recipe.num_shards, processes),
        processes,
    )


def build_policy(model: ModelConfig, train: Corpus) -> MiniMaxPolicy:
    """A new model whose tokenizer knows the words of the training rows."""
    texts: set[str] = {f" {wording}" for wording in POOL}
    for picture in train.pictures:
        for sample in picture.samples:
            texts |= {question(sample), sample.reward.ground_truth}
        texts |= set(caption(picture.samples[0]) or ())
    tokenizer = build_tokenizer(texts, coordinate_bins=model.coordinate_bins)
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    assert isinstance(image_token, int)
    config = MiniMaxVLConfig(
        text_config=MiniMaxVLTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=model.hidden_size,
            intermediate_size=model.intermediate_size,
            num_hidden_layers=model.num_hidden_layers,
            attn_type_list=list(model.attn_type_list),
            num_local_experts=model.num_local_experts,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        vision_config=MiniMaxVLVisionConfig(
            # departs from MiniMax-VL-01: convolutional stem (Xiao et al., arXiv 2106.14881) and
            # merged patches; a plain patch embedding learns too little in the minutes of a laptop
            stem_channels=[32, 64, 128],
            num_hidden_layers=model.num_vision_layers,
            image_size=model.image_size_px,
        ),
        image_token_index=image_token,
        spatial_merge_size=model.spatial_merge_size,
        eos_token_id=tokenizer.eos_token_id,
    )
    processor = MiniMaxVLProcessor(
        MiniMaxVLImageProcessor(size=model.image_size_px),
        tokenizer,
        num_image_tokens=config.num_image_tokens,
        chat_template=cast("str", tokenizer.chat_template),
    )
    return MiniMaxPolicy.build(MiniMaxVLForConditionalGeneration(config), processor)
