"""Stage 1: the vision tower learns what is where, from dense annotations.

Every patch feature predicts the class of what covers the patch, whether an object's centre lies in
it, and where that object's four sides are. A model trained from
scratch needs this: without it, a fine-tuning of minutes stays at the answer marginals.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from .corpus import Picture
from .models.minimax_vl import MiniMaxVLConfig


class DenseTargets(NamedTuple):
    """What each patch should say; patches row-major over the picture."""

    label: Int[Tensor, "picture patch"]
    """0 = background."""
    centre: Bool[Tensor, "picture patch"]
    sides: Float[Tensor, "picture patch 4"]
    """Left, top, right, bottom of the covering object as shares of the picture's sides."""


class DenseHead(nn.Module):
    """A linear read-out of patch features into the dense targets; thrown away after training."""

    def __init__(self, config: MiniMaxVLConfig, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = {label: index + 1 for index, label in enumerate(labels)}
        self.side = config.vision_config.num_patches_per_side
        self.num_classes = 1 + len(labels)
        self.read_out = nn.Linear(config.vision_config.hidden_size, self.num_classes + 1 + 4)

    def loss(
        self, patches: Float[Tensor, "picture patch width"], targets: DenseTargets
    ) -> Float[Tensor, ""]:
        """Class cross-entropy (background x 0.3) + centre cross-entropy + 8 x the sides' L1."""
        classes, centre, sides = self.read_out(patches).split([self.num_classes, 1, 4], dim=-1)
        weight = torch.ones(self.num_classes)
        weight[0] = 0.3
        loss = F.cross_entropy(classes.flatten(0, 1), targets.label.flatten(), weight)
        loss = loss + F.binary_cross_entropy_with_logits(
            centre[..., 0], targets.centre.float(), pos_weight=torch.tensor(3.0)
        )
        covered = targets.label > 0
        if bool(covered.any()):
            loss = loss + 8.0 * F.l1_loss(sides[covered], targets.sides[covered])
        return loss


def dense_labels(pictures: Sequence[Picture]) -> list[str]:
    """All object labels of a corpus, sorted."""
    return sorted({label for picture in pictures for label, _ in annotated_objects(picture)})


def annotated_objects(picture: Picture) -> list[tuple[str, tuple[float, ...]]]:
    """(label, box per mille) of everything annotated in a picture; empty where nothing is."""
    raw = picture.samples[0].extra.get("objects")
    if not raw:
        return []
    return [(str(o["label"]), tuple(float(v) for v in o["bbox_2d"])) for o in json.loads(str(raw))]


def dense_targets(pictures: Sequence[Picture], head: DenseHead) -> DenseTargets:
    """Targets of a batch; where objects overlap, the smaller one wins a patch."""
    side = head.side
    label = torch.zeros(len(pictures), side * side, dtype=torch.long)
    centre = torch.zeros(len(pictures), side * side, dtype=torch.bool)
    sides = torch.zeros(len(pictures), side * side, 4)
    middle = (torch.arange(side) + 0.5) / side
    patch_x, patch_y = middle.repeat(side), middle.repeat_interleave(side)
    for row, picture in enumerate(pictures):
        objects = annotated_objects(picture)
        objects.sort(key=lambda item: -(item[1][2] - item[1][0]) * (item[1][3] - item[1][1]))
        for name, box in objects:
            x1, y1, x2, y2 = (value / 1000.0 for value in box)
            inside = (patch_x >= x1) & (patch_x < x2) & (patch_y >= y1) & (patch_y < y2)
            cell = int((y1 + y2) / 2 * side) * side + int((x1 + x2) / 2 * side)
            inside[min(cell, side * side - 1)] = True
            label[row, inside] = head.labels.get(name, 0)
            sides[row, inside] = torch.tensor([x1, y1, x2, y2])
            centre[row, min(cell, side * side - 1)] = True
    return DenseTargets(label, centre, sides)
