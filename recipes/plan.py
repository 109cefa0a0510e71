"""What a run is about to do, in a few lines, shown before its first step."""

from __future__ import annotations

from vl.algorithms import Algorithm, describe

from .prepare import Run


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
    rows_per_picture = train.num_samples / len(train.pictures)
    num_rollouts = round(rl.pictures_per_step * rows_per_picture) * rl.sampling.num_rollouts
    return [
        f"train on {train.num_samples} rows ({len(train.pictures)} pictures), held out "
        f"{heldout.num_samples} rows ({len(heldout.pictures)} pictures); model of "
        f"{num_weights / 1e6:.2f} M weights, {len(run.policy.processor.tokenizer)} words",
        f"align {recipe.align.num_steps} steps of {recipe.align.pictures_per_step} pictures, "
        f"sft {recipe.sft.num_steps} of {recipe.sft.pictures_per_step}, "
        f"rl {rl.num_steps} of {rl.pictures_per_step} (about {num_rollouts} rollouts a step, up to "
        f"{rl.sampling.max_new_tokens} tokens each)"
        + (", control for as many seconds as rl" if recipe.control else ""),
        *describe(chosen),
        f"each evaluation: {heldout.num_samples * answers} answers of up to "
        f"{recipe.evaluation.max_new_tokens} tokens ({answers} a row; the first only "
        f"{heldout.num_samples})",
    ]
