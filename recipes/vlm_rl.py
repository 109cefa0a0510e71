r"""V-Triune RL of a saved vision-language model on your rows: any that transformers loads.

    vl train vlm_rl --model.path Qwen/Qwen2.5-VL-3B-Instruct \
        --data.train_files rows/train --data.heldout_files rows/test --out runs/mine

Source: V-Triune (arXiv 2505.18129), sections 3.4 and 5.1, for bounds, rate, frozen parts, warm-up
and Dynamic IoU.
"""

from __future__ import annotations

from dataclasses import replace

from verifiers import StagedIou
from vl.evaluate import EvalConfig
from vl.losses import dapo_config
from vl.optim import AdamWConfig, Schedule
from vl.rl import RlConfig
from vl.rollout import SamplingConfig

from .recipe import Recipe, SavedModelConfig


def vlm_rl() -> Recipe:
    """On-policy, vision tower and connector frozen."""
    return Recipe(
        name="vlm_rl",
        num_shards=1,
        model=SavedModelConfig(path=""),
        align=None,
        sft=None,
        control=False,
        rl=RlConfig(
            num_steps=200,
            # departs from V-Triune: 1,024 rows a step are for 64 GPUs
            pictures_per_step=32,
            pictures_per_micro_batch=4,
            sampling=SamplingConfig(num_rollouts=8, temperature=1.0, max_new_tokens=2048),
            loss=dapo_config(),
            iou_rule=StagedIou(),
            optimizer=AdamWConfig(lr=1e-6),
            schedule=Schedule(warmup_steps=10, decay_frac=0.0),
        ),
        evaluation=EvalConfig(num_samples=0, max_new_tokens=2048, pictures_per_batch=16),
        evaluate_every=20,
    )


def vlm_rl_smoke() -> Recipe:
    """Two steps of short answers."""
    whole = vlm_rl()
    return replace(
        whole,
        rl=replace(
            whole.rl,
            num_steps=2,
            pictures_per_step=2,
            pictures_per_micro_batch=1,
            sampling=SamplingConfig(num_rollouts=4, max_new_tokens=12),
        ),
        evaluation=EvalConfig(num_samples=0, max_new_tokens=12, pictures_per_batch=4),
        evaluate_every=1,
        online_pictures_per_source=1,
    )
