"""Judges boxes: IoU where it reaches the rule's threshold, fewer points for boxes too many.

Source: arXiv 2505.18129, section 3, and the weights (`det_reward_ratio`) of its public code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from data_specs import Box, Sample, convert, iou
from verifiers.answer import extract_tag, reference_text
from verifiers.box_text import ReadBoxes, read_boxes
from verifiers.iou_rule import FixedIou, ScoreContext
from verifiers.matching import (
    MAP_THRESHOLDS,
    Match,
    Matrix,
    average_precisions,
    fold_label,
    iou_matrix,
    match_by_iou,
    match_by_label,
    same_label,
)
from verifiers.params import ParamError, flag, number_in, reject_unknown
from verifiers.verdict import Verdict

VERSION = "1"

SIZE_PENALTY = 0.6
"""Factor for each box by which the numbers of boxes differ."""

REPORTED = (0.5, 0.75, 0.95, 0.99)
"""Thresholds at which the thresholded IoU is among the parts."""

_WEIGHT_NAMES = ("iou_max_label_first", "iou_max_iou_first", "map", "map50", "map75")


@dataclass(frozen=True, kw_only=True)
class RewardRatio:
    """Upstream's `det_reward_ratio`: how the score mixes its parts; weights are relative."""

    iou_max_label_first: float = 0.0
    iou_max_iou_first: float = 0.0
    map: float = 0.0
    map50: float = 0.0
    map75: float = 0.0
    iou_completeness: float = 0.0
    """Share, in [0, 1], of completeness within both IoU parts."""


def check_params(params: Mapping[str, object]) -> None:
    """Raise ParamError if a parameter is wrong."""
    reject_unknown(
        params, ("det_verifier_normalized", "det_reward_ratio", "iou_threshold", "image_grid_thw")
    )
    flag(params, "det_verifier_normalized", False)
    _ratio(params)
    _thresholds(params, ScoreContext())


def judge(sample: Sample, response: str, context: ScoreContext) -> Verdict:
    """The thresholded IoU of the listed boxes, averaged over the reference's boxes."""
    spec = sample.reward
    ratio = _ratio(spec.params)
    thresholds = _thresholds(spec.params, context)
    references = _references(spec.ground_truth)
    if references is None:
        return Verdict.unscored(
            f"reference {spec.ground_truth[:80]!r} is no list of boxes", status="bad_reference"
        )
    answer = extract_tag(response)
    if answer.text is None:
        return _nothing(answer.reason, "no_answer" if answer.status == "no_answer" else "")
    read = read_boxes(answer.text, "per_mille")
    if read.is_too_many:
        return _nothing("more boxes than are read")
    if not read.is_list or (read.num_malformed and not read.boxes):
        return _nothing(f"{answer.text[:80]!r} is no list of boxes")
    if flag(spec.params, "det_verifier_normalized", False):
        size = _resized_size(sample)
        if size is None:
            return Verdict.unscored(
                "det_verifier_normalized needs the size the model saw: extra resized_width and "
                "resized_height, or image_width and image_height",
                status="bad_reference",
            )
        read = read._replace(boxes=tuple(_from_resized(box, size) for box in read.boxes))
    if not references or not read.boxes:
        return _empty(references, read)
    if len(references) == len(read.boxes) == 1:
        pairing = _pair_one(references[0], read.boxes[0])
    else:
        pairing = _pair_many(references, read.boxes)
    return _verdict(pairing, thresholds, ratio)


class _Pairing(NamedTuple):
    """References against predictions."""

    ious: Matrix
    same: NDArray[np.bool_]
    precisions: NDArray[np.float64]
    """Average precision at each of MAP_THRESHOLDS."""


_ONE_SAME = np.ones((1, 1), dtype=np.bool_)
_ONE_OTHER = np.zeros((1, 1), dtype=np.bool_)
_NO_PRECISION = np.zeros(len(MAP_THRESHOLDS))
_MAP_THRESHOLDS = np.array(MAP_THRESHOLDS)


def _pair_one(reference: Box, box: Box) -> _Pairing:
    value = iou(reference, box)
    same = fold_label(reference.label) == fold_label(box.label)
    precisions = (value >= _MAP_THRESHOLDS).astype(np.float64) if same else _NO_PRECISION
    return _Pairing(np.array([[value]]), _ONE_SAME if same else _ONE_OTHER, precisions)


def _pair_many(references: tuple[Box, ...], boxes: tuple[Box, ...]) -> _Pairing:
    ious = iou_matrix(references, boxes)
    precisions = average_precisions(
        ious,
        [fold_label(box.label) for box in references],
        [fold_label(box.label) for box in boxes],
    )
    return _Pairing(ious, same_label(references, boxes), precisions)


def _verdict(
    pairing: _Pairing, thresholds: tuple[float, ...], ratio: RewardRatio | None
) -> Verdict:
    num_ref, num_pred = pairing.ious.shape
    if num_ref == num_pred == 1:
        value = float(pairing.ious[0, 0]) if pairing.same[0, 0] else 0.0
        parts = {"iou": value}
        parts |= {_iou_name(at): value if value >= at else 0.0 for at in REPORTED}
    else:
        parts = {"iou": _matched_iou(pairing, 0.0)}
        parts |= {_iou_name(at): _matched_iou(pairing, at) for at in REPORTED}
    parts["map"] = float(pairing.precisions.mean())
    parts["map50"] = float(pairing.precisions[0])
    parts["map75"] = float(pairing.precisions[5])
    parts["num_pred"] = float(num_pred)
    parts["num_ref"] = float(num_ref)
    parts["iou_threshold"] = thresholds[0] if len(thresholds) == 1 else 0.0
    if ratio is None:
        # departs from V-Triune's size penalty: boxes that are missing already cost their share
        # of the mean, so only boxes too many are penalised. Otherwise a wrong box more could
        # raise the score.
        penalty = SIZE_PENALTY ** max(0, num_pred - num_ref)
        score = sum(_thresholded(pairing, parts, at) for at in thresholds) / len(thresholds)
    else:
        penalty = SIZE_PENALTY ** abs(num_pred - num_ref)
        score = sum(_mixed(pairing, parts, at, ratio) for at in thresholds) / len(thresholds)
    score = min(1.0, score * penalty)
    reason = ""
    if score < 1.0:
        wanted = "/".join(f"{at:g}" for at in thresholds[:3])
        reason = f"{num_pred} of {num_ref} boxes, mean IoU {parts['iou']:.3f}, threshold {wanted}"
    return Verdict.scored(score, format=1.0, reason=reason, parts=parts)


def _iou_name(threshold: float) -> str:
    return f"iou_{round(threshold * 100)}"


def _matched_iou(pairing: _Pairing, threshold: float) -> float:
    """Sum of the matched IoUs at the threshold, per reference box."""
    matches = match_by_label(pairing.ious, pairing.same, threshold)
    return min(1.0, sum(match.iou for match in matches) / pairing.ious.shape[0])


def _thresholded(pairing: _Pairing, parts: Mapping[str, float], threshold: float) -> float:
    name = _iou_name(threshold)
    if threshold in REPORTED:
        return parts[name]
    if pairing.ious.size == 1:
        return parts["iou"] if parts["iou"] >= threshold else 0.0
    return _matched_iou(pairing, threshold)


def _mixed(
    pairing: _Pairing, parts: Mapping[str, float], threshold: float, ratio: RewardRatio
) -> float:
    """The weighted mean that upstream's `det_reward_ratio` asks for, before the size penalty."""
    total = ratio.map * parts["map"] + ratio.map50 * parts["map50"] + ratio.map75 * parts["map75"]
    if ratio.iou_max_label_first:
        matches = match_by_label(pairing.ious, pairing.same, threshold)
        total += ratio.iou_max_label_first * _completed(pairing, matches, ratio)
    if ratio.iou_max_iou_first:
        matches = match_by_iou(pairing.ious, pairing.same, threshold)
        total += ratio.iou_max_iou_first * _completed(pairing, matches, ratio)
    return total / sum(getattr(ratio, name) for name in _WEIGHT_NAMES)


def _completed(pairing: _Pairing, matches: list[Match], ratio: RewardRatio) -> float:
    """Mean IoU of the references, mixed with completeness 1 - (misses + false alarms) / 2."""
    num_ref, num_pred = pairing.ious.shape
    mean_iou = sum(match.iou for match in matches) / num_ref
    completeness = (len(matches) / num_ref + len(matches) / num_pred) / 2
    share = ratio.iou_completeness
    return (1.0 - share) * mean_iou + share * completeness


def _nothing(reason: str, status: str = "") -> Verdict:
    """The verdict on a response without readable boxes."""
    if status == "no_answer":
        return Verdict.scored(0.0, format=0.0, reason=reason, status="no_answer")
    return Verdict.scored(0.0, format=0.0, reason=reason, status="unparseable")


def _empty(references: tuple[Box, ...], read: ReadBoxes) -> Verdict:
    """The verdict if there is nothing to find, or nothing was listed: right only if both."""
    right = not references and not read.boxes and not read.num_malformed
    score = float(right)
    names = ["iou", *map(_iou_name, REPORTED), "map", "map50", "map75"]
    parts = dict.fromkeys(names, score)
    parts |= {"num_pred": float(len(read.boxes)), "num_ref": float(len(references))}
    reason = "" if right else f"{len(read.boxes)} boxes listed, {len(references)} in the reference"
    # Upstream calls an empty list ill-formed; it is the right form where nothing is to be found.
    form = 1.0 if right or read.boxes else 0.0
    return Verdict.scored(score, format=form, reason=reason, parts=parts)


@lru_cache(maxsize=16384)
def _references(ground_truth: str) -> tuple[Box, ...] | None:
    """The reference's boxes; None if any of them is malformed."""
    text = reference_text(ground_truth).text
    if text is None:
        return None
    read = read_boxes(text, "per_mille")
    usable = read.is_list and not read.num_malformed and not read.is_too_many
    return read.boxes if usable else None


def _resized_size(sample: Sample) -> tuple[int, int] | None:
    """Width and height, px, that the predicted numbers refer to."""
    grid = sample.reward.params.get("image_grid_thw")  # upstream's name; holds pixels, (1, h, w)
    if isinstance(grid, list) and grid:
        first = cast("list[list[object]]", grid)[0]
        if len(first) == 3 and isinstance(first[1], int) and isinstance(first[2], int):
            return first[2], first[1]
    for prefix in ("resized", "image"):
        width, height = (sample.extra.get(f"{prefix}_{side}") for side in ("width", "height"))
        if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
            return width, height
    return None


def _from_resized(box: Box, size: tuple[int, int]) -> Box:
    """A box in pixels of what the model saw, in whole per mille, cut off as upstream does."""
    seen = Box(*box.corners, box.label, "resized")
    x1, y1, x2, y2 = convert(seen, "per_mille", resized_size=size).corners
    return Box(int(x1), int(y1), int(x2), int(y2), box.label, "per_mille")


def _thresholds(params: Mapping[str, object], context: ScoreContext) -> tuple[float, ...]:
    """The IoU thresholds that count: the row's own, or the context's rule."""
    own = params.get("iou_threshold")
    if own is None:
        return context.iou_rule.thresholds(context.progress)
    value = number_in(own, "parameter iou_threshold", 1.0)
    if value == 0.0:
        raise ParamError("parameter iou_threshold is 0; allowed: above 0, up to 1")
    return FixedIou(value).thresholds(context.progress)


def _ratio(params: Mapping[str, object]) -> RewardRatio | None:
    """The row's `det_reward_ratio`; None if it has none."""
    value = params.get("det_reward_ratio")
    if value is None or value == {}:
        return None
    if not isinstance(value, dict):
        raise ParamError(f"parameter det_reward_ratio is {value!r}; allowed: a mapping of weights")
    given = cast("dict[str, object]", value)
    reject_unknown(given, (*_WEIGHT_NAMES, "iou_completeness"))
    weights = {
        name: number_in(
            item,
            f"parameter det_reward_ratio.{name}",
            1.0 if name == "iou_completeness" else 1e6,
        )
        for name, item in given.items()
    }
    if sum(weights.get(name, 0.0) for name in _WEIGHT_NAMES) <= 0.0:
        raise ParamError(
            f"parameter det_reward_ratio is {value!r}: one of {', '.join(_WEIGHT_NAMES)} must be "
            "above 0"
        )
    return RewardRatio(**weights)
