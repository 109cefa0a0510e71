"""A saved model on rows or on one picture: `vl eval` and `vl predict`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from pydantic import TypeAdapter

from data_specs import parquet_files, read_samples
from tasks.mixture import group_by_image
from tasks.prompts import pose
from verifiers import parse_boxes
from vl.corpus import build_corpus
from vl.draw import draw_boxes
from vl.evaluate import EvalConfig, evaluate
from vl.parallel import Shards
from vl.policy import Question
from vl.report import render_report
from vl.rollout import SamplingConfig, sample_rollouts
from vl.runlog import RunLog
from vl.summary import summarise_phase

from .load import load_policy
from .phases import write_images
from .progress import Progress, show


def evaluate_files(
    files: Sequence[Path], *, model: Path, out: Path, num_samples: int, seed: int
) -> None:
    """Writes `eval.json`, the answered rows and a report into `out`; the rows must be checked.

    Raises:
        RunDirError: `out` is in use.
    """
    progress = Progress()
    policy = load_policy(model)
    corpus = build_corpus(group_by_image(read_samples(files)).values())
    with RunLog(out, make_writer=None) as log:
        config = EvalConfig(num_samples=num_samples)
        rows = {"heldout": [str(path.resolve()) for path in parquet_files(files)]}
        judged = {"evaluation": TypeAdapter(EvalConfig).dump_python(config, mode="json")}
        log.write_config(
            {"name": "eval", "model": str(model), "seed": seed, **judged, "files": rows}
        )
        with progress.task("evaluating", len(corpus.pictures)) as advance:
            lines = evaluate(
                policy,
                corpus,
                lambda sample: pose(sample, seed=seed, epoch=0, heldout=True),
                config,
                phase="rl",
                seed=seed,
                shards=Shards(2),  # batches have streams of their own: any number answers alike
                on_batch=advance,
            )
        write_images(log, corpus)
        log.write_eval_rollouts("rl", lines)
        summary = summarise_phase(lines)
        log.write_eval({"recipe": "eval", "seed": seed, "phases": {"rl": summary}})
    tasks = summary["task"]
    assert isinstance(tasks, dict)
    for name, measures in {"macro": summary["macro"], **tasks}.items():
        shown = "  ".join(
            f"{key} {value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
            for key, value in measures.items()
            if isinstance(value, dict)
        )
        show(f"{name:>10}  {shown}")
    progress.note(f"report: {render_report(out)}")


def predict(model: Path, image: Path, prompt: str, out: Path | None) -> None:
    """Prints the greedy answer; where it holds boxes, draws them beside the picture's file.

    Raises:
        FileNotFoundError: no such picture.
        ValueError: the file is not a picture, or the prompt holds an image marker.
    """
    if "<image>" in prompt:
        raise ValueError(f"--prompt: found {prompt!r}; leave <image> out, the picture is added")
    if not image.exists():
        raise FileNotFoundError(f"--image: {image} does not exist; give the path of a picture")
    try:
        picture = Image.open(image).convert("RGB")
    except OSError as error:
        raise ValueError(f"--image: {image} is not a picture that can be read ({error})") from error
    policy = load_policy(model)
    with torch.no_grad():
        features = policy.features([policy.encode([picture])])
    config = SamplingConfig(num_rollouts=1, temperature=0.0)
    answers = sample_rollouts(
        policy, features, [Question(owner=0, text=prompt)], config, torch.Generator()
    )
    text = answers[0][0].text
    show(text)
    boxes = parse_boxes(text)
    if boxes:
        path = out or image.with_name(f"{image.stem}_boxes.png")
        draw_boxes(picture, boxes).save(path)
        show(f"boxes drawn in {path}")
