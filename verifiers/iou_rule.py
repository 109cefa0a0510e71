"""Which IoU a box must reach to be paid: a fixed one, one that rises with progress, or several."""

from __future__ import annotations

from dataclasses import dataclass


def _check_threshold(value: float) -> None:
    if not 0.0 < value <= 1.0:
        raise ValueError(f"IoU threshold {value!r} is out of range; allowed: above 0, up to 1")


@dataclass(frozen=True)
class FixedIou:
    """One threshold for the whole run."""

    threshold: float
    """Smallest paid IoU, in (0, 1]."""

    def __post_init__(self) -> None:
        _check_threshold(self.threshold)

    def thresholds(self, progress: float) -> tuple[float, ...]:
        """The thresholds whose mean reward counts; here one."""
        return (self.threshold,)


@dataclass(frozen=True)
class StagedIou:
    """A threshold that changes with progress: V-Triune's Dynamic IoU.

    Source: arXiv 2505.18129; 0.85 up to 10 % of the steps, 0.95 up to 25 %, then 0.99.
    """

    stages: tuple[tuple[float, float], ...] = ((0.10, 0.85), (0.25, 0.95), (1.0, 0.99))
    """(until this progress, threshold), progress rising to 1."""

    def __post_init__(self) -> None:
        ends = [end for end, _ in self.stages]
        if not ends or ends != sorted(set(ends)) or ends[0] < 0 or ends[-1] != 1.0:
            raise ValueError(f"stage ends {ends} must rise and end at 1.0")
        for _, threshold in self.stages:
            _check_threshold(threshold)

    def thresholds(self, progress: float) -> tuple[float, ...]:
        """The threshold of the stage that `progress`, in [0, 1], lies in."""
        for end, threshold in self.stages:
            if progress <= end:
                return (threshold,)
        return (self.stages[-1][1],)


@dataclass(frozen=True)
class AveragedIou:
    """The mean over several thresholds, by default COCO's ten."""

    # departs from V-Triune's `average`: upstream mixes in 0.99, which is no COCO threshold
    values: tuple[float, ...] = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("AveragedIou needs at least one threshold")
        for value in self.values:
            _check_threshold(value)

    def thresholds(self, progress: float) -> tuple[float, ...]:
        """The thresholds whose mean reward counts."""
        return self.values


IouRule = FixedIou | StagedIou | AveragedIou


@dataclass(frozen=True, kw_only=True)
class ScoreContext:
    """What a verdict may depend on beside the row and the response."""

    progress: float = 1.0
    """Fraction of optimizer steps done, in [0, 1]; 1 when judging outside of training."""
    iou_rule: IouRule = StagedIou()

    def __post_init__(self) -> None:
        if not 0.0 <= self.progress <= 1.0:
            raise ValueError(f"progress {self.progress!r} is out of range; allowed: 0 to 1")
