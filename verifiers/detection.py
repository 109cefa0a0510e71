"""Judges boxes: IoU where it reaches the rule's threshold, fewer points for boxes too many.

Source: arXiv 2505.18129, section 3, and the weights (`det_reward_ratio`) of its public code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_specs import Sample
from verifiers.answer import extract_tag
from verifiers.box_text import Corners, ReadBoxes, read_boxes
from verifiers.boxes_giou import nearness, shaped
from verifiers.boxes_map import average_precisions
from verifiers.boxes_overlap import Overlap, Scene, iou_arrays, overlaps
from verifiers.boxes_row import References, Row, check_params, fold_label, read_row
from verifiers.iou_rule import ScoreContext
from verifiers.matching import (
    LEVELS,
    Found,
    match_best,
    match_by_iou,
    match_by_label,
    match_in_order,
)
from verifiers.params import ParamError
from verifiers.verdict import Verdict

__all__ = ["PART_NAMES", "VERSION", "check_params", "judge", "judge_batch"]

VERSION = "2"

SIZE_PENALTY = 0.6
"""Factor for each box by which the numbers of boxes differ."""

_PERCENT = tuple(round(100 * level) for level in LEVELS[1:])
PART_NAMES = (
    "iou",
    *(f"iou_{at}" for at in _PERCENT),
    *(f"iou_first_{at}" for at in _PERCENT),
    "precision_50",
    "recall_50",
    "map",
    "map50",
    "map75",
    "num_pred",
    "num_ref",
    "size_penalty",
    "iou_threshold",
)
"""The parts of every scored verdict."""


class _Listed(NamedTuple):
    """The boxes of an answer, each (box, label) once, sorted by their numbers."""

    corners: list[Corners]
    labels: list[str]
    """Folded."""
    positions: list[int]
    """Where each box stood in the answer, from 0."""
    num_malformed: int


class _Open(NamedTuple):
    """An answer with boxes to a row with boxes."""

    place: int
    """Position in the batch."""
    row: Row
    listed: _Listed


def judge(sample: Sample, response: str, context: ScoreContext) -> Verdict:
    """The thresholded IoU of the listed boxes, averaged over the reference's boxes."""
    return judge_batch([(sample, response)], context)[0]


def judge_batch(items: Sequence[tuple[Sample, str]], context: ScoreContext) -> list[Verdict]:
    """The same verdicts as `judge`, one for each item, with the overlaps computed together."""
    rows: dict[int, Row | str] = {}
    verdicts: list[Verdict | None] = [None] * len(items)
    opened: list[_Open] = []
    for index, (sample, response) in enumerate(items):
        row = rows.get(id(sample))
        if row is None:
            row = rows[id(sample)] = _row(sample, context)
        if isinstance(row, str):
            verdicts[index] = Verdict.unscored(row, status="bad_reference")
            continue
        listed = _listed(response, row)
        if isinstance(listed, Verdict):
            verdicts[index] = listed
        elif not listed.corners or not row.references.corners:
            verdicts[index] = _empty(row, listed)
        else:
            opened.append(_Open(index, row, listed))
    for answer, overlap in zip(opened, _overlaps(opened), strict=True):
        verdicts[answer.place] = _verdict(answer.row, answer.listed, overlap)
    return [verdict for verdict in verdicts if verdict is not None]


def _row(sample: Sample, context: ScoreContext) -> Row | str:
    try:
        return read_row(sample, context)
    except ParamError as error:
        return str(error)


def _listed(response: str, row: Row) -> _Listed | Verdict:
    """The boxes of a response in the reference's space, or the verdict on one without."""
    answer = extract_tag(response)
    if answer.text is None:
        return _nothing(row, answer.reason, "no_answer" if answer.status == "no_answer" else "")
    read = read_boxes(answer.text, limits=row.limits)
    if read.is_too_many:
        return _nothing(row, "more boxes than are read")
    offered = _labels(read, row.references)
    corners, labels = read.corners, [label for label in offered if label is not None]
    if len(labels) < len(offered):
        corners = [box for box, label in zip(corners, offered, strict=True) if label is not None]
    num_malformed = read.num_malformed + len(offered) - len(labels)
    if not read.is_list or (num_malformed and not corners):
        return _nothing(row, f"{answer.text[:80]!r} is no list of boxes")
    # departs from V-Triune: upstream drops a box that comes twice even if the labels differ.
    unique = [*dict.fromkeys(zip(row.frame.bring(corners), labels, strict=True))]
    positions = sorted(range(len(unique)), key=unique.__getitem__)
    boxes = [unique[position] for position in positions]
    return _Listed(
        [corners for corners, _ in boxes], [label for _, label in boxes], positions, num_malformed
    )


def _labels(read: ReadBoxes, references: References) -> list[str | None]:
    """The label that each box is compared by; None makes it no box."""
    if not references.is_labelled:
        return [""] * len(read.labels)
    only = references.only_label
    return [only if label is None else fold_label(label) or None for label in read.labels]


def _overlaps(opened: Sequence[_Open]) -> list[Overlap]:
    if not opened:
        return []
    lowest = min(min(answer.row.levels[1:]) for answer in opened)
    scenes = [
        Scene(
            answer.row.references.array,
            answer.row.references.labels,
            answer.listed.corners,
            answer.listed.labels,
        )
        for answer in opened
    ]
    # Upstream's order takes pairs that no matching by IoU would.
    is_thinned = all(answer.row.matching != "reference_order" for answer in opened)
    return overlaps(scenes, lowest, is_thinned=is_thinned)


def _verdict(row: Row, listed: _Listed, overlap: Overlap) -> Verdict:
    """The verdict on an answer with boxes."""
    num_ref, num_pred = overlap.worth.shape
    references, levels = row.references, row.levels
    if row.matching == "reference_order":
        label = match_in_order(overlap.pairs, references.positions, listed.positions, levels)
    elif row.matching == "label_first":
        label = match_by_label(overlap.pairs, levels)
    else:
        label = match_best(overlap.pairs, overlap.worth, levels)
    first = match_by_iou(overlap.pairs, levels)
    precisions = average_precisions(
        overlap.close, references.num_of, listed.labels, references.positions, listed.positions
    )
    maps = sum(precisions) / len(precisions), precisions[0], precisions[5]

    near = 0.0
    if row.ratio is None:
        # departs from V-Triune's size penalty: boxes that are missing already cost their share
        # of the mean, so only boxes too many are penalised. Otherwise a wrong box more could
        # raise the score.
        penalty = SIZE_PENALTY ** max(0, num_pred - num_ref)
        if row.is_shaped:
            total, near = _shaped(row, listed)
        else:
            total = sum(label.totals[levels.index(at)] for at in row.thresholds)
        score = total / num_ref / len(row.thresholds)
    else:
        penalty = SIZE_PENALTY ** abs(num_pred - num_ref)
        score = _mixed(row, label, first, maps, num_pred)
    score = min(1.0, score * penalty)

    values = (
        *[total / num_ref for total in label.totals[: len(LEVELS)]],
        *[total / num_ref for total in first.totals[1 : len(LEVELS)]],
        label.nums[1] / num_pred,
        label.nums[1] / num_ref,
        *maps,
        float(num_pred),
        float(num_ref),
        penalty,
        _shown_threshold(row),
    )
    parts = dict(zip(PART_NAMES, values, strict=True))
    if row.is_shaped:
        parts["near"] = near
    reason = "" if score == 1.0 else _reason(row, listed, parts["iou"])
    return Verdict.scored(score, format=1.0, reason=reason, parts=parts)


def _mixed(
    row: Row,
    label: Found,
    first: Found,
    maps: tuple[float, float, float],
    num_pred: int,
) -> float:
    """The weighted mean that upstream's `det_reward_ratio` asks for, before the size penalty."""
    ratio = row.ratio
    assert ratio is not None
    num_ref = len(row.references.corners)
    total = ratio.map * maps[0] + ratio.map50 * maps[1] + ratio.map75 * maps[2]
    for weight, found in ((ratio.iou_max_label_first, label), (ratio.iou_max_iou_first, first)):
        if not weight:
            continue
        for at in row.thresholds:
            level = row.levels.index(at)
            mean_iou, num = found.totals[level] / num_ref, found.nums[level]
            completeness = (num / num_ref + num / num_pred) / 2
            share = ratio.iou_completeness
            mixed = (1.0 - share) * mean_iou + share * completeness
            total += weight * mixed / len(row.thresholds)
    return total / ratio.total


def _shaped(row: Row, listed: _Listed) -> tuple[float, float]:
    """The sum over the thresholds of what pairs earn; the mean share of it for near misses."""
    assert row.frame.size is not None
    references, predicted = row.references.array, np.array(listed.corners, dtype=np.float64)
    ious = iou_arrays(references.T[:, :, None], predicted.T[:, None, :])
    same = np.array(row.references.labels)[:, None] == np.array(listed.labels)[None]
    near = nearness(references, predicted, row.frame.size[0] * row.frame.size[1])
    found = [shaped(ious, same, near, at) for at in row.thresholds]
    count = len(found) * len(references)
    return sum(one.total for one in found), sum(one.near for one in found) / count


def _nothing(row: Row, reason: str, status: str = "") -> Verdict:
    """The verdict on a response without readable boxes."""
    parts = _flat_parts(row, 0.0, 0)
    if status == "no_answer":
        return Verdict.scored(0.0, format=0.0, reason=reason, status="no_answer", parts=parts)
    return Verdict.scored(0.0, format=0.0, reason=reason, status="unparseable", parts=parts)


def _empty(row: Row, listed: _Listed) -> Verdict:
    """The verdict if there is nothing to find, or nothing was listed: right only if both."""
    num_pred = len(listed.corners)
    right = not row.references.corners and not num_pred
    parts = _flat_parts(row, float(right), num_pred)
    reason = "" if right else _reason(row, listed, 0.0)
    # departs from V-Triune: upstream pays nothing and calls an empty list ill-formed, even where
    # nothing is to be found.
    form = 1.0 if right or num_pred else 0.0
    return Verdict.scored(float(right), format=form, reason=reason, parts=parts)


def _flat_parts(row: Row, value: float, num_pred: int) -> dict[str, float]:
    """Parts that are all `value`, beside the counts."""
    return dict.fromkeys(PART_NAMES, value) | {
        "num_pred": float(num_pred),
        "num_ref": float(len(row.references.corners)),
        "iou_threshold": _shown_threshold(row),
    }


def _shown_threshold(row: Row) -> float:
    """The threshold, 0 if several are averaged."""
    return row.thresholds[0] if len(row.thresholds) == 1 else 0.0


def _reason(row: Row, listed: _Listed, mean_iou: float) -> str:
    wanted = "/".join(f"{at:g}" for at in row.thresholds[:3])
    count = f"{len(listed.corners)} of {len(row.references.corners)} boxes"
    broken = f", {listed.num_malformed} entries are no boxes" if listed.num_malformed else ""
    return f"{count}{broken}, mean IoU {mean_iou:.3f}, threshold {wanted}"
