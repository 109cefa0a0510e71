"""A saved model on rows or on one picture: `vl eval` and `vl predict`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from transformers import AutoModelForImageTextToText, AutoProcessor

from data_specs import read_samples
from tasks.check import check_files
from tasks.mixture import group_by_image
from tasks.prompts import pose
from verifiers import parse_boxes
from vl.corpus import build_corpus
from vl.draw import draw_boxes
from vl.evaluate import EvalConfig, evaluate
from vl.models import minimax_vl  # noqa: F401  registers the model with transformers
from vl.policy import Policy
from vl.rollout import SamplingConfig, sample_rollouts
from vl.runlog import RunLog
from vl.summary import summarise_phase

from .progress import Progress


def load_policy(folder: Path) -> Policy:
    """Model and processor of a saved folder.

    Raises:
        FileNotFoundError: there is no model in the folder.
    """
    if not (folder / "config.json").exists():
        raise FileNotFoundError(
            f"{folder}: found no config.json, so no saved model; give a run's folder final/"
        )
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    return Policy.build(model, AutoProcessor.from_pretrained(folder))


def evaluate_files(
    files: Sequence[Path], *, model: Path, out: Path, num_samples: int, seed: int
) -> None:
    """Writes `eval.json` and the answered rows into `out`; rows are checked first."""
    progress = Progress()
    check_files(files).raise_if_bad()
    policy = load_policy(model)
    size = policy.model.config.vision_config.image_size
    corpus = build_corpus(group_by_image(read_samples(files)).values(), size_px=size)
    with RunLog(out, make_writer=None) as log:
        config = EvalConfig(num_samples=num_samples)
        content = {"model": str(model), "files": [str(f) for f in files], "seed": seed}
        log.write_config({"name": "eval", **content})
        with progress.task("evaluating", len(corpus.pictures)) as advance:
            lines = evaluate(
                policy,
                corpus,
                lambda sample: pose(sample, seed=seed, epoch=0, heldout=True),
                config,
                phase="rl",
                seed=seed,
                on_batch=advance,
            )
        for picture in corpus.pictures:
            image_id = picture.samples[0].extra.get("image_id")
            if image_id is not None:
                pixels = corpus.pixels[picture.index].numpy()
                log.write_eval_image(str(image_id), Image.fromarray(pixels))
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
        progress.note(f"{name:>10}  {shown}")


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
    size = policy.model.config.vision_config.image_size
    pixels = policy.processor.image_processor.pixels([picture])
    assert pixels.shape[1:3] == (size, size)
    with torch.no_grad():
        features = policy.features(pixels)
    config = SamplingConfig(num_rollouts=1, temperature=0.0)
    answers = sample_rollouts(
        policy, features, [policy.text.prompt(prompt)], [0], config, torch.Generator()
    )
    text = answers[0][0].text
    console = Console()
    console.print(text, markup=False, highlight=False)
    boxes = parse_boxes(text)
    if boxes:
        path = out or image.with_name(f"{image.stem}_boxes.png")
        draw_boxes(picture, boxes).save(path)
        console.print(f"boxes drawn in {path}", markup=False, highlight=False)
