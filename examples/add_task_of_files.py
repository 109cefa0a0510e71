"""A task whose rows come from files of one's own: click the named object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from data_specs import ImageRef, Message, RewardSpec, Sample
from tasks import Task

FOLDER = Path(__file__).with_name("clicks")
"""train.jsonl and test.jsonl: {"image": "1.png", "size": [w, h], "name": "dog", "box": [...]}."""


def read_clicks(split: str) -> Iterator[Sample]:
    """One row a line; boxes are in pixels."""
    for number, line in enumerate((FOLDER / f"{split}.jsonl").read_text().splitlines()):
        item = json.loads(line)
        width, height = item["size"]
        truth = f"<answer>{item['box']}</answer>"
        yield Sample(
            id=f"clicks-{split}-{number}",
            source="clicks",
            task="pointing",
            messages=(Message(role="user", content=f"<image>{item['name']}"),),
            images=(ImageRef(data=(FOLDER / item["image"]).read_bytes()),),
            reward=RewardSpec(verifier="point", answer=str(item["box"]), ground_truth=truth),
            extra={"coordinate_space": "pixel", "image_width": width, "image_height": height},
        )


TASK = Task(
    name="pointing",
    verifiers=("point",),
    judged_by="the point lies within the box",
    readers={"clicks": read_clicks},
    pose=lambda sample: f"click the {sample.question}.",
)
