"""The embedded recipe: a tiny MiniMax-VL from nothing to V-Triune RL on a laptop, in half an hour.

Stages: align (dense annotations) -> SFT -> RL with CISPO and Dynamic IoU. SFT is stopped while
its learning rate is still high, so that RL has something to do: from an SFT that was let down to
rate zero, RL gained half as much in samples and next to nothing greedily. Part of RL's gain is
therefore that its small rate settles the weights. The control beside it, RL's CPU seconds of more
SFT, is let down as well and shows how much.
"""

from __future__ import annotations

from verifiers import StagedIou
from vl.evaluate import EvalConfig
from vl.optim import MuonConfig, Schedule
from vl.rl import RlConfig
from vl.rollout import SamplingConfig
from vl.sft import AlignConfig, SftConfig

from .recipe import DataConfig, ModelConfig, Recipe

# departs from V-Triune: its stages 0.85 / 0.95 / 0.99 are for a 7B model that boxes well before RL;
# ours starts at a mean IoU below 0.5, where they would pay nothing.
TINY_IOU = StagedIou(((0.25, 0.4), (0.6, 0.5), (1.0, 0.6)))


def orsta_tiny() -> Recipe:
    """About 3 M parameters, 17 sources, 64 x 64 pictures."""
    return Recipe(
        name="orsta_tiny",
        data=DataConfig(rl_weights={"easy_vqa": 0.0}),
        align=AlignConfig(num_steps=600),
        sft=SftConfig(
            num_steps=1700,
            caption_frac=0.4,
            schedule=Schedule(warmup_steps=30, decay_frac=0.0),
        ),
        rl=RlConfig(
            num_steps=500,
            pictures_per_step=16,
            sampling=SamplingConfig(num_rollouts=8, temperature=1.0, max_new_tokens=40),
            iou_rule=TINY_IOU,
            # departs from MiniMax-M1: Muon for the matrices instead of AdamW, which gained a
            # quarter less (greedy: half as much) from the same start in the same steps
            optimizer=MuonConfig(lr=4e-3, adamw_lr=4e-4),
            schedule=Schedule(warmup_steps=10, decay_frac=0.8),
        ),
    )


def orsta_tiny_smoke() -> Recipe:
    """Every stage of `orsta_tiny` in seconds; SFT just long enough that RL sees some rewards."""
    return Recipe(
        name="orsta_tiny",
        data=DataConfig(num_train_images=12, num_heldout_images=4, rl_weights={"easy_vqa": 0.0}),
        model=ModelConfig(
            hidden_size=64,
            num_hidden_layers=3,
            attn_type_list=(0, 0, 1),
            num_local_experts=4,
            intermediate_size=64,
            num_vision_layers=1,
        ),
        align=AlignConfig(num_steps=3, pictures_per_step=8),
        sft=SftConfig(
            num_steps=40,
            pictures_per_step=8,
            caption_frac=0.1,
            optimizer=MuonConfig(lr=0.02),
            schedule=Schedule(warmup_steps=3, decay_frac=0.3),
        ),
        rl=RlConfig(
            num_steps=6,
            pictures_per_step=16,
            sampling=SamplingConfig(num_rollouts=4, max_new_tokens=24),
            iou_rule=TINY_IOU,
        ),
        evaluation=EvalConfig(num_samples=2, max_new_tokens=16),
    )
