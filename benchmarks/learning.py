"""What RL learns from one SFT start under different algorithms, rewards, mixtures and frozen parts.

    vl train orsta_tiny --out runs/start --align.num_steps 400 --sft.num_steps 900 \
        --rl.num_steps 1 --control false --evaluation.num_samples 0
    python benchmarks/learning.py run runs/.cache/sft-* --out runs/learning [--part 0/2]
    python benchmarks/learning.py table runs/learning

Every arm starts from the same weights and sees the same rows for the same number of steps. An arm's
number is the macro average over the eight tasks of the held-out rows; the interval of a difference
is Student's over the seeds, each seed of one arm paired with the same seed of the other.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from recipes.data import prepare_data
from recipes.load import load_policy
from recipes.orsta_tiny import TINY_IOU
from recipes.prepare import Stream
from recipes.progress import Progress, show
from recipes.recipe import DataConfig
from tasks.mixture import group_by_image
from tasks.prompts import pose
from verifiers import FixedIou
from vl.corpus import build_corpus
from vl.evaluate import EvalConfig, evaluate
from vl.losses import CispoConfig, dapo_config, grpo_config
from vl.optim import AdamWConfig, MuonConfig, Schedule
from vl.parallel import Shards
from vl.rl import RlConfig, RlStage
from vl.rollout import SamplingConfig
from vl.seeds import derive_seed
from vl.summary import summarise_phase

SEEDS = (0, 1, 2)
PERCEPTION = {"counting", "detection", "grounding", "ocr"}
T_TWO_DEGREES = 4.303  # Student's 97.5 % quantile for three seeds

ON_POLICY = RlConfig(
    num_steps=60,
    pictures_per_step=16,
    sampling=SamplingConfig(num_rollouts=8, max_new_tokens=40),
    iou_rule=TINY_IOU,
    optimizer=MuonConfig(lr=4e-3, adamw_lr=4e-4),
    schedule=Schedule(warmup_steps=5, decay_frac=0.8),
)
OFF_POLICY = replace(
    ON_POLICY,
    num_steps=25,
    updates_per_rollout=16,
    optimizer=AdamWConfig(lr=1.5e-4),
    schedule=Schedule(warmup_steps=2, decay_frac=0.0),
)
"""MiniMax-M1's setting: 16 updates on each batch of rollouts."""

ARMS: Mapping[str, tuple[RlConfig, str]] = {
    "off_cispo": (replace(OFF_POLICY, loss=CispoConfig()), "all"),
    "off_grpo": (replace(OFF_POLICY, loss=grpo_config()), "all"),
    "off_dapo": (replace(OFF_POLICY, loss=dapo_config()), "all"),
    "base": (ON_POLICY, "all"),
    "iou_0.5": (replace(ON_POLICY, iou_rule=FixedIou(0.5)), "all"),
    "iou_0.99": (replace(ON_POLICY, iou_rule=FixedIou(0.99)), "all"),
    "reasoning": (ON_POLICY, "reasoning"),
    "perception": (ON_POLICY, "perception"),
    "joint_vit": (replace(ON_POLICY, frozen_parts=()), "all"),
}
QUESTIONS = (
    ("CISPO or GRPO, 16 updates a batch", "off_cispo", "off_grpo"),
    ("CISPO or DAPO, 16 updates a batch", "off_cispo", "off_dapo"),
    ("Dynamic IoU or fixed 0.5", "base", "iou_0.5"),
    ("Dynamic IoU or fixed 0.99", "base", "iou_0.99"),
    ("both kinds of tasks or reasoning alone", "base", "reasoning"),
    ("both kinds of tasks or perception alone", "base", "perception"),
    ("ViT and connector frozen or trained", "base", "joint_vit"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("run", help="train and evaluate every arm that is not done")
    command.add_argument("start", type=Path, help="folder of the SFT model")
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--part", default="0/1", help="0/2 and 1/2 share the work")
    command.set_defaults(run=run)
    command = commands.add_parser("table", help="print what the finished arms show")
    command.add_argument("out", type=Path)
    command.set_defaults(run=table)
    options = parser.parse_args()
    options.run(options)


def run(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    part, parts = map(int, options.part.split("/"))
    options.out.mkdir(parents=True, exist_ok=True)
    data = DataConfig(rl_weights={"easy_vqa": 0.0})
    dataset = prepare_data(data, cache_dir=options.out.parent / ".cache", progress=Progress())
    groups = group_by_image(dataset.train())
    train, keys = build_corpus(groups.values()), tuple(groups)
    held = group_by_image(dataset.heldout())
    kept = [
        rows
        for index, (key, rows) in enumerate(held.items())
        if key.source != "easy_vqa" and index % 2 == 0
    ]
    heldout = build_corpus(kept)
    task_of = {picture.source: picture.samples[0].task for picture in train.pictures}
    names = ["start", *(f"{arm}-{seed}" for seed in SEEDS for arm in ARMS)]
    for name in names[part::parts]:
        path = options.out / f"{name}.json"
        if path.exists():
            continue
        policy = load_policy(options.start)
        arm, _, seed = name.partition("-")
        lines: list[dict[str, float]] = []
        if arm != "start":
            config, kinds = ARMS[arm]
            weights = {
                source: float(kinds == "all" or (task in PERCEPTION) == (kinds == "perception"))
                for source, task in task_of.items()
            } | {"easy_vqa": 0.0}
            order = Stream(train, keys, derive_seed(int(seed), "order/rl", 0), weights)

            def pose_row(sample: Any, epoch: int, seed: int = int(seed or 0)) -> str:
                return pose(sample, seed=seed, epoch=epoch, heldout=False)

            stage = RlStage(policy, train, order, pose_row, config, Shards(1), seed=int(seed))
            lines = [stage.run_step(step) for step in range(config.num_steps)]
        answers = evaluate(
            policy,
            heldout,
            lambda sample: pose(sample, seed=0, epoch=0, heldout=True),
            EvalConfig(num_samples=4),
            phase="rl",
            seed=int(seed or 0),
            shards=Shards(1),
        )
        wanted = ("reward", "entropy", "clip_fraction", "grad_norm", "rollout_match/correlation")
        curve = [{key: line[key] for key in wanted if key in line} for line in lines]
        path.write_text(json.dumps({"summary": summarise_phase(answers), "curve": curve}))
        macro = summarise_phase(answers)["macro"]
        show(f"{name}: {json.dumps(macro)}")


def table(options: argparse.Namespace) -> None:
    start = json.loads((options.out / "start.json").read_text())["summary"]
    levels = [f"{name} {_percent(start, name):.1f}" for name in ("greedy", "avg@4", "pass@4")]
    show(f"start: {', '.join(levels)}; held-out rows: {start['macro']['greedy']['n']}\n")
    show("| arm | greedy, by seed | mean of 4, by seed | pass@4 |\n| --- | --- | --- | --- |")
    found = {arm: _of_arm(options.out, arm) for arm in ARMS}
    for arm, seeds in found.items():
        cells = [
            " ".join(f"{_percent(summary, measure):.1f}" for summary in seeds)
            for measure in ("greedy", "avg@4", "pass@4")
        ]
        show(f"| {arm} | {' | '.join(cells)} |")
    show("\n| question | greedy | mean of 4 |\n| --- | --- | --- |")
    for question, first, second in QUESTIONS:
        cells = [_difference(found[first], found[second], m) for m in ("greedy", "avg@4")]
        show(f"| {question} ({first} - {second}) | {' | '.join(cells)} |")


def _of_arm(folder: Path, arm: str) -> list[dict[str, Any]]:
    paths = [folder / f"{arm}-{seed}.json" for seed in SEEDS]
    return [json.loads(path.read_text())["summary"] for path in paths if path.exists()]


def _percent(summary: Mapping[str, Any], measure: str) -> float:
    return 100.0 * summary["macro"][measure]["mean"]


def _difference(first: list[dict[str, Any]], second: list[dict[str, Any]], measure: str) -> str:
    if len(first) != len(SEEDS) or len(second) != len(SEEDS):
        return f"not run ({len(first)}, {len(second)} seeds)"
    gaps = [_percent(a, measure) - _percent(b, measure) for a, b in zip(first, second, strict=True)]
    mean = statistics.mean(gaps)
    half = T_TWO_DEGREES * statistics.stdev(gaps) / math.sqrt(len(gaps))
    return f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]"


if __name__ == "__main__":
    main()
