"""A MiniMax-VL of a few thousand weights, pictures of noise and rows about them, for tests."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from data_specs import ImageRef, Message, RewardSpec, Sample
from verifiers import Verdict
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
from vl.policy import Question
from vl.sft import Draw
from vl.sight import Sight

SIZE_PX = 32
TEXTS = ("how many dots are there?", "where is the red dog?", "read the word", "the cat")


def tiny_policy(seed: int = 0, **text_overrides) -> MiniMaxPolicy:
    """Three layers (lightning, softmax, lightning), four experts, four image tokens a picture."""
    tokenizer = build_tokenizer(TEXTS, coordinate_bins=8)
    torch.manual_seed(seed)
    config = MiniMaxVLConfig(
        text_config=MiniMaxVLTextConfig(
            **{
                "vocab_size": len(tokenizer),
                "hidden_size": 32,
                "intermediate_size": 16,
                "num_hidden_layers": 3,
                "attn_type_list": [0, 1, 0],
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 8,
                "rotary_dim": 4,
                "lightning_block_tokens": 4,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
                **text_overrides,
            }
        ),
        vision_config=MiniMaxVLVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=SIZE_PX,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        spatial_merge_size=2,
        eos_token_id=tokenizer.eos_token_id,
    )
    processor = MiniMaxVLProcessor(
        MiniMaxVLImageProcessor(size=SIZE_PX),
        tokenizer,
        num_image_tokens=config.num_image_tokens,
        chat_template=tokenizer.chat_template,
    )
    return MiniMaxPolicy.build(MiniMaxVLForConditionalGeneration(config).eval(), processor)


def picture_of_noise(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def sample(picture: int, row: int, *, source="dots", truth="\\boxed{3}", objects=None) -> Sample:
    data = io.BytesIO()
    picture_of_noise(picture).save(data, format="PNG")
    extra = {"image_id": f"p{picture}"} | ({"objects": objects} if objects else {})
    return Sample(
        id=f"{source}-{picture}-{row}",
        source=source,
        task="counting",
        messages=(Message(role="user", content=f"<image>{TEXTS[row % len(TEXTS)]}"),),
        images=(ImageRef(data=data.getvalue()),),
        reward=RewardSpec(verifier="number", answer="3", ground_truth=truth),
        extra=extra,
        where=f"made row {row}",
    )


def corpus_of(*rows_per_picture: int, **options) -> Corpus:
    """Pictures with the given numbers of rows; every second picture is of another source."""
    groups = [
        [
            sample(picture, row, source=("dots", "words")[picture % 2], **options)
            for row in range(count)
        ]
        for picture, count in enumerate(rows_per_picture)
    ]
    return build_corpus(groups)


def features_of(policy: MiniMaxPolicy, corpus: Corpus) -> list:
    """What the policy sees of each picture of a corpus."""
    return Sight(policy, corpus).features(range(len(corpus.pictures)))


def questions_of(corpus: Corpus) -> list[Question]:
    """Every row's question, as it stands."""
    return [
        Question(owner=picture.index, text=pose(sample))
        for picture in corpus.pictures
        for sample in picture.samples
    ]


def pose(sample: Sample, epoch: int = 0) -> str:
    """The question as it stands."""
    del epoch
    return sample.question


def stream_of(corpus: Corpus):
    """The pictures in turn, epoch after epoch, from any position."""

    def stream(start: int):
        length = len(corpus.pictures)
        position = start
        while True:
            yield Draw(position // length, corpus.pictures[position % length])
            position += 1

    return stream


def judge_by_length(scoring, items, context):
    """A verdict without meaning but with spread: even lengths 1, odd 0."""
    del scoring, context
    verdicts = [Verdict.scored(float(len(response) % 2 == 0)) for _, response in items]
    return [replace(verdict, reward=verdict.score) for verdict in verdicts]
