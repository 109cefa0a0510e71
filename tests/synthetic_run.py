"""Fabricates a run directory with plausible numbers, for tests of what reads one."""

import random
import statistics

from PIL import Image, ImageDraw

from vl.rundir import PHASES
from vl.runlog import RunLog

SOURCES = {
    "math": ("digit_sums", "number_lines"),
    "puzzle": ("icon_patterns", "grid_rules"),
    "chart": ("bar_charts", "line_charts"),
    "science": ("periodic_table", "instruments"),
    "grounding": ("icon_grounding", "digit_grounding"),
    "detection": ("icon_scenes", "shape_scenes"),
    "counting": ("icon_counting", "digit_counting"),
    "ocr": ("printed_words", "handwritten_digits"),
    "vqa": ("easy_vqa",),
}
BOX_TASKS = ("grounding", "detection")
SKILL = {"init": 0.04, "sft": 0.45, "rl": 0.58, "control": 0.49}
SAMPLES = 8


def make_run(run_dir, *, rows=6, steps=12, phases=PHASES, seed=0):
    """A whole run; fewer phases make one that is still going on."""
    rng = random.Random(seed)
    stages = ["align", *(phase for phase in phases if phase != "init")]
    with RunLog(run_dir, make_writer=None) as log:
        log.write_config({"recipe": "orsta_tiny", "seed": seed, "rl": {"num_rollouts": 8}})
        for stage in stages:
            log_stage(log, stage, steps, rng)
        evaluate(log, rows, phases, rng)
    return log.run_dir


def log_stage(log, stage, steps, rng):
    for step in range(1, steps + 1):
        done = step / steps
        values = {"time_s": 1.5 * step, "cpu_s": 2.9 * step, "lr": 1e-4, "grad_norm": 0.4 + done}
        if stage == "rl":
            values |= rl_values(done, rng)
        else:
            values["loss"] = 2.0 - 1.4 * done + rng.gauss(0, 0.05)
        log.log_metrics(stage=stage, step=step, num_steps=steps, values=values)


def rl_values(done, rng):
    values = {"entropy": 0.7 - 0.4 * done, "clip_fraction": 0.01, "tokens_per_s": 900 + 50 * done}
    values |= {"seconds/rollout": 1.1, "seconds/score": 0.2, "seconds/update": 0.9}
    for task, sources in SOURCES.items():
        for index, source in enumerate(sources if task != "vqa" else ()):
            score = 0.42 + 0.2 * done * (1 + index) / 2 + rng.gauss(0, 0.06)
            values[f"source/{source}/score"] = min(1.0, max(0.0, score))
            values[f"source/{source}/reward"] = min(1.0, max(0.0, 0.9 * score + 0.1))
            values[f"source/{source}/response_length"] = 12 + 9 * index + 4 * done + rng.gauss(0, 1)
            values[f"source/{source}/no_spread"] = 0.3
            values[f"source/{source}/unscored"] = 1 if source == "grid_rules" else 0
    values["reward"] = statistics.fmean(v for k, v in values.items() if k.endswith("/reward"))
    values["score"] = statistics.fmean(v for k, v in values.items() if k.endswith("/score"))
    return values


def evaluate(log, rows, phases, rng):
    """Rows, images and answers of each phase, and an eval.json that agrees with them."""
    questions = [
        make_row(log, task, source, index, rng)
        for task, sources in SOURCES.items()
        for source in sources
        for index in range(rows)
    ]
    lines = {}
    for phase in phases:
        lines[phase] = [answered(row, phase, rng) for row in questions]
        log.write_eval_rollouts(phase, lines[phase])
    scored = {phase: summarise(lines[phase]) for phase in phases}
    pairs = [("rl", "sft"), ("rl", "control"), ("control", "sft"), ("sft", "init")]
    log.write_eval(
        {
            "recipe": "orsta_tiny",
            "seed": 0,
            "phases": scored,
            "differences": {
                f"{after} - {before}": subtract(scored[after], scored[before])
                for after, before in pairs
                if after in scored and before in scored
            },
            "seconds": {phase: {"cpu_s": 612.5, "wall_s": 341.25} for phase in phases},
            "notes": [],
        }
    )


def make_row(log, task, source, index, rng):
    image_id = f"{source}_{index // 2}"
    cells = random.Random(image_id).sample(range(9), 3)  # rows that share an image share its boxes
    boxes = [
        (4 + 20 * (c % 3), 4 + 20 * (c // 3), 18 + 20 * (c % 3), 18 + 20 * (c // 3)) for c in cells
    ]
    image = Image.new("RGB", (64, 64), (244, 240, 228))
    for corners, fill in zip(boxes, ("#c33", "#3a7", "#36c"), strict=True):
        ImageDraw.Draw(image).ellipse(corners, fill=fill)
    log.write_eval_image(image_id, image)
    row = {
        "id": f"{source}_{index:04d}",
        "source": source,
        "task": task,
        "image_id": image_id,
        "question": f"What is shown in place {index}?",
        "prompt": f"<image>\nWhat is shown in place {index}? Think step by step.",
        "reference": str(10 + index),
        "ground_truth": f"\\boxed{{{10 + index}}}",
    }
    if task in BOX_TASKS:
        found = boxes[: 1 + (task == "detection")]
        row |= {"question": "Find each ball.", "ground_truth": box_answer(found)}
        row |= {"reference": row["ground_truth"]}
    return row


def box_answer(boxes):
    corners = [[round(value * 1000 / 64) for value in box] for box in boxes]
    items = [f"{{'bbox_2d': {four}, 'label': 'ball'}}" for four in corners]
    return f"<answer>[{', '.join(items)}]</answer>"


def answered(row, phase, rng):
    return {
        "phase": phase,
        "greedy": answer(row, phase, rng),
        "samples": [answer(row, phase, rng) for _ in range(SAMPLES)],
        **row,
    }


def answer(row, phase, rng):
    right = rng.random() < SKILL[phase]
    score, reason = float(right), "equal to the reference" if right else "not the reference"
    response = row["ground_truth"] if right else f"\\boxed{{{rng.randrange(10, 99)}}}"
    if row["task"] in BOX_TASKS and not right:
        corners = [4 * rng.randrange(8), 4 * rng.randrange(8)]
        response = box_answer([(*corners, corners[0] + 16, corners[1] + 18)])
        score, reason = 0.0, "best IoU 0.21, below 0.50"
    return {
        "response": response,
        "score": score,
        "format": 1.0,
        "reward": score,
        "status": "ok",
        "reason": reason,
        "parts": {},
        "num_tokens": len(response) // 2,
    }


def summarise(lines):
    tasks = {name: scores_of([li for li in lines if li["task"] == name]) for name in SOURCES}
    sources = {
        name: scores_of([line for line in lines if line["source"] == name])
        for names in SOURCES.values()
        for name in names
    }
    macro = [scores for name, scores in tasks.items() if name != "vqa"]
    return {"macro": average(macro), "task": tasks, "source": sources}


def scores_of(lines):
    sampled = [[sample["score"] for sample in line["samples"]] for line in lines]
    return {
        "greedy": interval([line["greedy"]["score"] for line in lines]),
        "avg@8": interval([statistics.fmean(scores) for scores in sampled]),
        "pass@8": interval([max(scores) for scores in sampled]),
        "unscored": 0,
    }


def interval(values):
    mean = statistics.fmean(values)
    half = 1.96 * (statistics.pstdev(values) or 0.1) / len(values) ** 0.5
    return {
        "mean": mean,
        "low": max(0.0, mean - half),
        "high": min(1.0, mean + half),
        "n": len(values),
    }


def average(parts):
    result = {}
    for measure in ("greedy", "avg@8", "pass@8"):
        means = [part[measure]["mean"] for part in parts]
        half = (
            sum((p[measure]["high"] - p[measure]["low"]) ** 2 for p in parts) ** 0.5
            / 2
            / len(parts)
        )
        mean = statistics.fmean(means)
        n = sum(part[measure]["n"] for part in parts)
        result[measure] = {"mean": mean, "low": mean - half, "high": mean + half, "n": n}
    return result


def subtract(after, before):
    def minus(a, b):
        mean = a["mean"] - b["mean"]
        half = ((a["high"] - a["low"]) ** 2 + (b["high"] - b["low"]) ** 2) ** 0.5 / 2
        return {"mean": mean, "low": mean - half, "high": mean + half, "n": a["n"]}

    def scores(a, b):
        return {name: minus(a[name], b[name]) for name in ("greedy", "avg@8", "pass@8")}

    return {
        "macro": scores(after["macro"], before["macro"]),
        "task": {name: scores(after["task"][name], before["task"][name]) for name in after["task"]},
    }
