"""The evaluations of a run, and `eval.json` from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tasks.prompts import pose
from vl.corpus import Corpus, Picture
from vl.evaluate import evaluate
from vl.rundir import PHASES, EvalLine, read_eval_rollouts
from vl.runlog import RunLog
from vl.stage import StageSeconds
from vl.summary import summarise_difference, summarise_phase

from .prepare import Run
from .recipe import ModelConfig

DIFFERENCES = (
    ("sft", "init"),
    ("rl", "sft"),
    ("control", "sft"),
    ("rl", "control"),
)


def evaluate_phase(run: Run, phase: str) -> None:
    """Answers and judges all held-out rows with the present weights, unless that is done."""
    is_done = bool(read_eval_rollouts(run.log.run_dir, phase))
    if run.processes.gather([is_done])[0]:  # as the first process, which keeps them, says
        return
    seed, config = run.recipe.seed, run.recipe.evaluation
    # a new model knows no answer's form: its samples would all run to the token limit
    if phase == "init" and isinstance(run.recipe.model, ModelConfig):
        config = replace(config, num_samples=0)
    num_pictures = len(run.heldout.pictures)
    with run.progress.task(f"evaluating {phase}", num_pictures) as advance:
        lines = evaluate(
            run.policy,
            run.heldout,
            lambda sample: pose(sample, seed=seed, epoch=0, heldout=True),
            config,
            phase=phase,
            seed=seed,
            shards=run.shards,
            on_batch=advance,
        )
    write_images(run.log, run.heldout)
    run.log.write_eval_rollouts(phase, lines)


def write_images(log: RunLog, corpus: Corpus) -> None:
    """The pictures that held-out rows refer to by `image_id`."""
    for picture in corpus.pictures:
        image_id = picture.samples[0].extra.get("image_id")
        if image_id is not None:
            log.write_eval_image(str(image_id), picture.images[0].open())


def write_summary(run: Run, seconds: Mapping[str, StageSeconds]) -> None:
    """`eval.json` of all phases that were evaluated."""
    lines: dict[str, list[EvalLine]] = {
        phase: found for phase in PHASES if (found := read_eval_rollouts(run.log.run_dir, phase))
    }
    evaluation = {
        "recipe": run.recipe.name,
        "seed": run.recipe.seed,
        "phases": {phase: summarise_phase(found) for phase, found in lines.items()},
        "differences": {
            f"{later} - {earlier}": summarise_difference(lines[later], lines[earlier])
            for later, earlier in _differences(run)
            if later in lines and earlier in lines
        },
        "seconds": {
            stage: {"cpu_s": spent.cpu_s, "wall_s": spent.wall_s}
            for stage, spent in seconds.items()
        },
        "notes": _notes(run),
    }
    run.log.write_eval(evaluation)


def _differences(run: Run) -> tuple[tuple[str, str], ...]:
    """Which phases are compared: RL with what it started from."""
    return DIFFERENCES if run.recipe.sft is not None else (("rl", "init"),)


def online_scores(run: Run) -> dict[str, float]:
    """Mean greedy score of some held-out rows of each source: `eval/score` and by source.

    Draws nothing and keeps no gradient, so that training goes on as if it had not been asked.
    """
    of_source: dict[str, list[Picture]] = {}
    for picture in run.heldout.pictures:
        of_source.setdefault(picture.source, []).append(picture)
    limit = run.recipe.online_pictures_per_source
    some = tuple(picture for found in of_source.values() for picture in found[:limit])
    config = replace(run.recipe.evaluation, num_samples=0)
    lines = evaluate(
        run.policy,
        run.heldout,
        lambda sample: pose(sample, seed=run.recipe.seed, epoch=0, heldout=True),
        config,
        phase="rl",
        seed=run.recipe.seed,
        shards=run.shards,
        pictures=some,
    )
    scores: dict[str, list[float]] = {}
    for line in lines:
        score = line["greedy"]["score"]
        if score is not None:
            scores.setdefault("eval/score", []).append(score)
            scores.setdefault(f"source/{line['source']}/eval/score", []).append(score)
    return {name: sum(found) / len(found) for name, found in scores.items()}


def _notes(run: Run) -> list[str]:
    rule = run.recipe.evaluation.iou_rule
    notes = [
        f"Box rows score by {rule} in every phase; training's rule is {run.recipe.rl.iou_rule}.",
        "Intervals are 95 % normal intervals over pictures (rows that share a picture are one "
        "cluster); differences are paired by row.",
    ]
    if run.recipe.control:
        notes.append(
            "The control starts from the SFT weights and spends RL's CPU seconds on more SFT."
        )
    if any(picture.source == "easy_vqa" for picture in run.heldout.pictures):
        sft_only = run.recipe.sft is not None and run.recipe.data.rl_weights.get("easy_vqa") == 0.0
        use = "is trained on in SFT only and " if sft_only else ""
        notes.append(f"easy_vqa (task vqa) {use}stands outside the macro average.")
    return notes
