"""A row about boxes, read once for all its answers: its reference, space, thresholds, weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from data_specs import Sample
from verifiers.answer import reference_text
from verifiers.box_text import ANYWHERE, Corners, Limits, read_boxes
from verifiers.boxes_frame import FRAME_PARAMS, Frame, check_frame_params, read_frame
from verifiers.iou_rule import AveragedIou, FixedIou, ScoreContext, StagedIou
from verifiers.matching import LEVELS, Matching
from verifiers.params import ParamError, number_in, one_of, reject_unknown

PARAMS = (*FRAME_PARAMS, "det_reward_ratio", "iou_threshold", "matching", "shaping")
"""Every parameter of the verifier `detection`."""

_MATCHINGS = ("optimal", "label_first", "reference_order")
_WEIGHT_NAMES = ("iou_max_label_first", "iou_max_iou_first", "map", "map50", "map75")
_PER_MILLE = Frame("per_mille", True, (1000.0, 1000.0), ANYWHERE).limits


class References(NamedTuple):
    """The boxes that a row asks for, each (box, label) once, sorted by their numbers."""

    corners: list[Corners]
    array: NDArray[np.float64]
    """The same corners, one row a box."""
    labels: list[str]
    """Folded; all empty if labels are not compared."""
    num_of: Mapping[str, int]
    """How many boxes have each label."""
    positions: list[int]
    """Where each box stood in the reference, from 0."""
    is_labelled: bool
    """Whether labels are compared."""
    is_per_mille: bool
    """Whether the numbers fit a per mille frame."""

    @property
    def only_label(self) -> str | None:
        """The label that all boxes have; None if there are several."""
        return self.labels[0] if len(self.num_of) == 1 else None


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

    @property
    def total(self) -> float:
        """What the weights are relative to."""
        return (
            self.iou_max_label_first + self.iou_max_iou_first + self.map + self.map50 + self.map75
        )


class Row(NamedTuple):
    """What judging an answer to a row needs."""

    references: References
    frame: Frame
    limits: Limits
    """Where the answer's numbers must lie, as they are written."""
    thresholds: tuple[float, ...]
    """The mean over these is paid."""
    levels: tuple[float, ...]
    """LEVELS, and behind them the thresholds that are none of them."""
    ratio: RewardRatio | None
    matching: Matching
    is_shaped: bool


def check_params(params: Mapping[str, object]) -> None:
    """Raise ParamError if a parameter of `detection` is wrong."""
    reject_unknown(params, PARAMS)
    check_frame_params(params)
    _settings(params, ScoreContext())


def read_row(sample: Sample, context: ScoreContext) -> Row | str:
    """The row as it is judged, or what is wrong with it.

    Raises: ParamError if a parameter is wrong.
    """
    frame = read_frame(sample)
    if isinstance(frame, str):
        return frame
    references = read_references(sample.reward.ground_truth, frame)
    if isinstance(references, str):
        return references
    thresholds, ratio, matching, is_shaped = _settings(sample.reward.params, context)
    is_sized = frame.size is not None and (frame.is_declared or references.is_per_mille)
    if is_shaped and not is_sized:
        return "shaping needs the picture's size: give extra image_width and image_height"
    extra = tuple(at for at in thresholds if at not in LEVELS)
    return Row(
        references,
        frame,
        answer_limits(frame, references),
        thresholds,
        LEVELS + extra if extra else LEVELS,
        ratio,
        matching,
        is_shaped,
    )


def answer_limits(frame: Frame, references: References) -> Limits:
    """Where an answer's numbers must lie.

    A row that declares no space is per mille, unless its own reference does not fit in: then
    nothing is known of the picture's size, and numbers are compared as they stand.
    """
    if frame.is_declared or references.is_per_mille or frame.predicted_size is not None:
        return frame.predicted
    return ANYWHERE


def read_references(ground_truth: str, frame: Frame) -> References | str:
    """The boxes of a ground truth, or why it cannot be met."""
    return _references(ground_truth, frame.limits if frame.is_declared else ANYWHERE)


@lru_cache(maxsize=16384)
def _references(ground_truth: str, limits: Limits) -> References | str:
    where = f"reference {ground_truth[:80]!r}"
    text = reference_text(ground_truth).text
    read = read_boxes(text, limits=limits) if text is not None else None
    if read is None or not read.is_list:
        return f"{where} is no list of boxes"
    if read.num_malformed:
        return (
            f"{where} has {read.num_malformed} entries that are no boxes within the picture; "
            "needed: x1 <= x2 and y1 <= y2 in the declared coordinate_space"
        )
    if not all((x2 - x1) * (y2 - y1) > 0.0 for x1, y1, x2, y2 in read.corners):
        return f"{where} has a box without area, which no answer can overlap"
    labels = [fold_label(label or "") for label in read.labels]
    if "" in labels and any(labels):
        return f"{where} has labels for some of its boxes; needed: for all or for none"
    unique = list(dict.fromkeys(zip(read.corners, labels, strict=True)))
    positions = sorted(range(len(unique)), key=unique.__getitem__)
    corners = [unique[position][0] for position in positions]
    array = np.array(corners, dtype=np.float64).reshape(-1, 4)
    array.setflags(write=False)
    x_min, y_min, x_max, y_max = _PER_MILLE
    return References(
        corners,
        array,
        [unique[position][1] for position in positions],
        Counter(label for _, label in unique),
        positions,
        any(labels),
        all(
            x_min <= x1 and y_min <= y1 and x2 <= x_max and y2 <= y_max
            for x1, y1, x2, y2 in corners
        ),
    )


def fold_label(label: str) -> str:
    """The label as it is compared: without letter case, spaces collapsed."""
    return _fold(label) if len(label) <= _KEPT_CHARS_MAX else _fold.__wrapped__(label)


_KEPT_CHARS_MAX = 64


@lru_cache(maxsize=4096)
def _fold(label: str) -> str:
    return " ".join(label.casefold().split())


def _settings(
    params: Mapping[str, object], context: ScoreContext
) -> tuple[tuple[float, ...], RewardRatio | None, Matching, bool]:
    """Thresholds, weights, matching, and whether near misses are paid."""
    ratio = _ratio(params)
    # departs from V-Triune: upstream goes through the references as they are written, so that
    # their order decides who goes without (`reference_order`). Taking pairs by falling IoU
    # (`label_first`) mends that, but a box that gets better can still cost another its match.
    matching = cast("Matching", one_of(params, "matching", _MATCHINGS, "optimal"))
    is_shaped = one_of(params, "shaping", ("none", "giou"), "none") == "giou"
    if is_shaped and (ratio is not None or matching != "optimal"):
        raise ParamError(
            "parameter shaping is 'giou' beside det_reward_ratio or another matching; "
            "allowed: alone, with matching 'optimal'"
        )
    return _thresholds(params, context), ratio, matching, is_shaped


def _thresholds(params: Mapping[str, object], context: ScoreContext) -> tuple[float, ...]:
    """The IoU thresholds that count: the row's own, or the context's rule."""
    own = params.get("iou_threshold")
    if own is None:
        return context.iou_rule.thresholds(context.progress)
    if isinstance(own, str):
        name = one_of(params, "iou_threshold", ("staged", "averaged"), "")
        rule = StagedIou() if name == "staged" else AveragedIou()
        return rule.thresholds(context.progress)
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
    ratio = RewardRatio(**weights)
    if ratio.total <= 0.0:
        raise ParamError(
            f"parameter det_reward_ratio is {value!r}: one of {', '.join(_WEIGHT_NAMES)} must be "
            "above 0"
        )
    return ratio
