"""What a run is about to do, in a few lines, shown before its first step."""

from __future__ import annotations

from vl.algorithms import Algorithm, describe
from vl.sft import AlignConfig, SftConfig

from .prepare import Run
from .recipe import ModelConfig


def plan_lines(run: Run) -> list[str]:
    """Rows, model, steps, rollouts and answers of the run."""
    recipe, train, heldout = run.recipe, run.train, run.heldout
    num_weights = sum(weight.numel() for weight in run.policy.model.parameters())
    chosen = Algorithm(
        loss=recipe.rl.loss,
        advantage=recipe.rl.advantage,
        overlong=recipe.rl.overlong,
        dynamic_sampling=recipe.rl.dynamic_sampling,
    )
    rl, answers = recipe.rl, 1 + recipe.evaluation.num_samples
    is_new = isinstance(recipe.model, ModelConfig)
    first = f"; the first only {heldout.num_samples}" if is_new else ""
    rows_per_picture = train.num_samples / len(train.pictures)
    num_rollouts = round(rl.pictures_per_step * rows_per_picture) * rl.sampling.num_rollouts
    return [
        f"train on {train.num_samples} rows ({len(train.pictures)} pictures), held out "
        f"{heldout.num_samples} rows ({len(heldout.pictures)} pictures); model of "
        f"{num_weights / 1e6:.2f} M weights{_kernel(run)}",
        f"{_stage('align', recipe.align)}{_stage('sft', recipe.sft)}"
        f"rl {rl.num_steps} of {rl.pictures_per_step} (about {num_rollouts} rollouts a step, up to "
        f"{rl.sampling.max_new_tokens} tokens each)"
        + (", control for as many seconds as rl" if recipe.control else ""),
        *describe(chosen),
        f"each evaluation: {heldout.num_samples * answers} answers of up to "
        f"{recipe.evaluation.max_new_tokens} tokens ({answers} a row{first})",
    ]


def _kernel(run: Run) -> str:
    """What computes lightning attention, where the model has any."""
    text = getattr(run.policy.model.config, "text_config", None)
    kernel = getattr(text, "lightning_kernel", None)
    return f", lightning attention by {kernel}" if kernel else ""


def _stage(name: str, stage: AlignConfig | SftConfig | None) -> str:
    if stage is None:
        return ""
    return f"{name} {stage.num_steps} steps of {stage.pictures_per_step} pictures, "
