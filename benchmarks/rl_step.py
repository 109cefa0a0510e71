"""One RL step and sampling beside TRL and transformers: CPU seconds and peak memory.

python benchmarks/rl_step.py [--setting small|long] [--rounds 3]      our step beside TRL's
python benchmarks/rl_step.py --sampling [--rounds 7]                  our sampling beside generate()

The same tiny Qwen2.5-VL (1,246,656 parameters, float32), 8 prompts x 8 answers of 64 tokens, CISPO,
AdamW, one update. Each side runs in a process of its own, in turn.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

PROMPTS, ANSWERS, NEW_TOKENS = 8, 8, 64
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Setting:
    side_px: int
    micro_batch: int
    """Of TRL; ours takes `micro_prompts` prompts with all their answers."""
    micro_prompts: int
    warm_up: int
    steps: int


SETTINGS = {"small": Setting(224, 64, 8, 1, 3), "long": Setting(896, 8, 1, 0, 1)}


def build() -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor]:
    torch.manual_seed(0)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({b: i for i, b in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, padding_side="left", eos_token="<|im_end|>", pad_token="<pad>"
    )
    marks = ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    ids = {mark: tokenizer.convert_tokens_to_ids(mark) for mark in marks}
    special = {
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 128,
            "intermediate_size": 344,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 1024,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": False,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6]},
            **special,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "out_hidden_size": 128,
            "window_size": 112,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
        **special,
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    num_params = sum(param.numel() for param in model.parameters())
    assert num_params == 1_246_656, num_params
    pixels = {"min_pixels": 28 * 28, "max_pixels": 896 * 896}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(patch_size=14, **pixels),
        tokenizer,
        Qwen2VLVideoProcessor(),
        chat_template=TEMPLATE,
    )
    return model, processor


def pictures(side_px: int) -> list[Image.Image]:
    draw = np.random.default_rng(0)
    shape = (PROMPTS, side_px, side_px, 3)
    return [Image.fromarray(one) for one in draw.integers(0, 256, shape, dtype=np.uint8)]


def questions() -> list[str]:
    """11 bytes each: with picture marks and chat turns 32 tokens beside the image tokens."""
    return [f"question {row:02d}" for row in range(PROMPTS)]


def reward(answer: str) -> float:
    """Something that differs between answers."""
    return len(set(answer)) / 64


def run_trl(setting: Setting) -> dict[str, Any]:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    model, processor = build()
    rows = {
        "prompt": [[{"role": "user", "content": text}] for text in questions()],
        "image": pictures(setting.side_px),
    }
    seconds: list[float] = []
    start = [0.0]

    class Clock(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            start[0] = time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seconds.append(time.process_time() - start[0])

    def rewards(completions: list[Any], **_: Any) -> list[float]:
        return [reward(turns[0]["content"]) for turns in completions]

    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=setting.micro_batch,
            gradient_accumulation_steps=PROMPTS * ANSWERS // setting.micro_batch,
            num_generations=ANSWERS,
            max_completion_length=NEW_TOKENS,
            generation_kwargs={"min_new_tokens": NEW_TOKENS},
            temperature=1.0,
            loss_type="cispo",
            epsilon_high=5.0,
            beta=0.0,
            learning_rate=1e-5,
            max_steps=setting.warm_up + setting.steps,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=rewards,
            args=config,
            train_dataset=Dataset.from_dict(rows),
            processing_class=processor,
            callbacks=[Clock()],
        )
        trainer.train()
    tokens = [log["completions/mean_length"] for log in trainer.state.log_history[:-1]]
    assert set(tokens) == {NEW_TOKENS}, tokens
    return {"seconds": seconds[setting.warm_up :], "peak_mb": peak_mb()}


def run_ours(setting: Setting) -> dict[str, Any]:
    from data_specs import ImageRef, Message, RewardSpec, Sample
    from verifiers import Verdict
    from vl import groups as judging
    from vl.corpus import build_corpus
    from vl.losses import CispoConfig
    from vl.models.hf import HfPolicy
    from vl.optim import AdamWConfig
    from vl.parallel import Shards
    from vl.rl import RlConfig, RlStage
    from vl.rollout import SamplingConfig
    from vl.sft import Draw

    def sample(image: Image.Image, text: str) -> Sample:
        data = io.BytesIO()
        image.save(data, format="PNG")
        return Sample(
            id=text,
            source="made",
            task="counting",
            messages=(Message(role="user", content=f"<image>{text}"),),
            images=(ImageRef(data=data.getvalue()),),
            reward=RewardSpec(verifier="number", answer="3", ground_truth="3"),
            extra={"image_id": text},
            where=text,
        )

    def judge(_: Any, items: list[tuple[Sample, str]], __: Any) -> list[Verdict]:
        scored = [Verdict.scored(reward(answer)) for _, answer in items]
        return [replace(verdict, reward=verdict.score) for verdict in scored]

    judging.score_with = judge  # rewards are no part of the comparison
    rows = zip(pictures(setting.side_px), questions(), strict=True)
    corpus = build_corpus([[sample(image, text)] for image, text in rows])
    model, processor = build()
    stage = RlStage(
        replace(HfPolicy.load(model, processor), end_ids=frozenset()),  # 64 tokens, no end
        corpus,
        lambda start: (Draw(0, corpus.pictures[row % PROMPTS]) for row in itertools.count(start)),
        lambda sample, epoch: sample.question,
        RlConfig(
            num_steps=setting.warm_up + setting.steps,
            pictures_per_step=PROMPTS,
            sampling=SamplingConfig(num_rollouts=ANSWERS, max_new_tokens=NEW_TOKENS),
            loss=CispoConfig(),
            pictures_per_micro_batch=setting.micro_prompts,
            frozen_parts=(),
            optimizer=AdamWConfig(lr=1e-5),
        ),
        Shards(1),
        seed=0,
    )
    seconds: list[float] = []
    values: list[dict[str, float]] = []
    for step in range(setting.warm_up + setting.steps):
        start = time.process_time()
        values.append(stage.run_step(step))
        seconds.append(time.process_time() - start)
        answers = [answer for group in stage.last_groups for answer in group.rollouts]
        assert [len(answer.token_ids) for answer in answers] == [NEW_TOKENS] * PROMPTS * ANSWERS
    timed = values[setting.warm_up :]
    names = ("seconds/rollout", "seconds/score", "seconds/update")
    return {
        "seconds": seconds[setting.warm_up :],
        "peak_mb": peak_mb(),
        "parts": {name: statistics.median(each[name] for each in timed) for name in names},
    }


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compare_steps(name: str, rounds: int) -> None:
    found: dict[str, list[dict[str, Any]]] = {"trl": [], "ours": []}
    for _ in range(rounds):
        for side, results in found.items():
            command = [sys.executable, __file__, "--side", side, "--setting", name]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results.append(json.loads(out.strip().splitlines()[-1]))
            print(side, results[-1])
    per_round = {
        side: [statistics.median(result["seconds"]) for result in results]
        for side, results in found.items()
    }
    ratios = [a / b for a, b in zip(per_round["trl"], per_round["ours"], strict=True)]
    for side, results in found.items():
        peak = statistics.median(result["peak_mb"] for result in results)
        print(f"{side}: {statistics.median(per_round[side]):.2f} CPU s a step, peak {peak:.0f} MB")
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def compare_sampling(rounds: int) -> None:
    """Tokens a CPU second from 64 rows, pictures included, and whether greedy tokens agree."""
    from vl.models.hf import HfPolicy
    from vl.policy import Question
    from vl.rollout import SamplingConfig, sample_rollouts

    torch.set_num_threads(1)
    model, processor = build()
    images, texts = pictures(224), questions()
    chats = [
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
        for text in texts
    ]
    rendered = [processor.apply_chat_template(chat, add_generation_prompt=True) for chat in chats]
    rows = [row for row in range(PROMPTS) for _ in range(ANSWERS)]
    batch = processor(
        text=[rendered[row] for row in rows],
        images=[[images[row]] for row in rows],
        return_tensors="pt",
    )
    model.eval()
    policy = replace(HfPolicy.load(model, processor), end_ids=frozenset())
    entries = [policy.encode([image]) for image in images]
    asked = [Question(owner=row, text=text) for row, text in enumerate(texts)]
    lengths = {"min_new_tokens": NEW_TOKENS, "max_new_tokens": NEW_TOKENS}
    forbidden = {"suppress_tokens": list(policy.forbidden)}
    generator = torch.Generator().manual_seed(0)
    sampling = SamplingConfig(num_rollouts=ANSWERS, max_new_tokens=NEW_TOKENS)

    @torch.no_grad()
    def theirs() -> None:
        model.generate(**batch, do_sample=True, temperature=1.0, top_k=0, **lengths, **forbidden)

    @torch.no_grad()
    def ours() -> None:
        sample_rollouts(policy, policy.features(entries), asked, sampling, generator)

    def rate(run: Any) -> float:
        start = time.process_time()
        run()
        return PROMPTS * ANSWERS * NEW_TOKENS / (time.process_time() - start)

    rate(theirs), rate(ours)
    pairs = [(rate(theirs), rate(ours)) for _ in range(rounds)]
    ratios = [b / a for a, b in pairs]
    for side, name in enumerate(("generate()", "ours")):
        print(f"{name}: {statistics.median(pair[side] for pair in pairs):,.0f} tokens a CPU second")
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--setting", choices=sorted(SETTINGS), default="small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sampling", action="store_true")
    parser.add_argument("--side", choices=("trl", "ours"), help="run one side here, print JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.side:
        run = run_trl if options.side == "trl" else run_ours
        print(json.dumps(run(SETTINGS[options.setting])))
    elif options.sampling:
        compare_sampling(options.rounds)
    else:
        compare_steps(options.setting, options.rounds)


if __name__ == "__main__":
    main()
