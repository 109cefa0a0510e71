"""Which curves the report shows: by source over RL steps, losses, and the state of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vl.report.charts import LinePanel, line_panel
from vl.report.run_view import RunView, in_page_order
from vl.report.series import Point, window_of


class Quantity(NamedTuple):
    """How a metric is shown."""

    name: str
    unit: str
    factor: float = 1.0
    """Shown value = logged value times this."""
    y_range: tuple[float, float] | None = None
    """What the y axis holds at least, as shown; None fits the data."""


QUANTITIES: dict[str, Quantity] = {
    "reward": Quantity("Reward", "reward, 0 to 1", 1.0, (0.0, 1.0)),
    "score": Quantity("Score", "score, %", 100.0, (0.0, 100.0)),
    "response_length": Quantity("Response length", "tokens a response", 1.0, None),
    "format": Quantity("Format", "format score, %", 100.0, (0.0, 100.0)),
    "no_spread": Quantity("No spread", "groups with equal rewards, %", 100.0, (0.0, 100.0)),
    "unscored": Quantity("Unscored", "rollouts a step", 1.0, (0.0, 1.0)),
    "entropy": Quantity("Entropy", "nats a token", 1.0, None),
    "no_answer": Quantity("No answer", "rollouts without an answer, %", 100.0, (0.0, 100.0)),
    "truncated": Quantity("Cut off", "rollouts at the token limit, %", 100.0, (0.0, 100.0)),
    "pass_at_g": Quantity("Best of group", "groups with a right answer, %", 100.0, (0.0, 100.0)),
    "response_length_right": Quantity("Length if right", "tokens a right response", 1.0, None),
    "response_length_wrong": Quantity("Length if wrong", "tokens a wrong response", 1.0, None),
    "iou": Quantity("IoU", "mean IoU, 0 to 1", 1.0, (0.0, 1.0)),
    "iou_50": Quantity("IoU from 0.50", "IoU, 0 below 0.50", 1.0, (0.0, 1.0)),
    "iou_75": Quantity("IoU from 0.75", "IoU, 0 below 0.75", 1.0, (0.0, 1.0)),
    "iou_95": Quantity("IoU from 0.95", "IoU, 0 below 0.95", 1.0, (0.0, 1.0)),
    "iou_99": Quantity("IoU from 0.99", "IoU, 0 below 0.99", 1.0, (0.0, 1.0)),
    "map": Quantity("mAP", "mean AP, 0 to 1", 1.0, (0.0, 1.0)),
    "loss": Quantity("Loss", "loss", 1.0, None),
    "grad_norm": Quantity("Gradient norm", "L2 norm", 1.0, None),
    "lr": Quantity("Learning rate", "learning rate", 1.0, None),
    "clip_fraction": Quantity("Clipped weights", "tokens, %", 100.0, None),
    "tokens_per_s": Quantity("Speed", "tokens/s", 1.0, None),
}
"""Metrics that have a unit of their own; others are shown as they are logged."""

OVERALL = ("reward", "score", "entropy", "clip_fraction", "grad_norm", "tokens_per_s")
"""Metrics of the RL stage shown as one curve each."""

LOSS_STAGES = {
    "align": ("alignment", "sum of dense losses"),
    "sft": ("SFT", "nats a token"),
    "control": ("control", "nats a token"),
}
"""Stage -> how it is called and the unit of its loss."""


@dataclass(frozen=True, kw_only=True)
class CurveSet:
    """Small multiples of one metric: a panel a task, a line a source."""

    metric: str
    name: str
    unit: str
    panels: Sequence[LinePanel]


def source_curves(run: RunView) -> list[CurveSet]:
    """One set for each per-source metric of the RL stage, best known first."""
    lines = [line for line in run.metrics if line.get("stage") == "rl"]
    sources: dict[str, set[str]] = {}
    for line in lines:
        for key in line:
            parts = key.split("/")
            if len(parts) == 3 and parts[0] == "source":
                sources.setdefault(parts[2], set()).add(parts[1])
    order = [name for name in QUANTITIES if name in sources]
    order += sorted(set(sources) - set(order))
    return [_curve_set(run, lines, metric, sources[metric]) for metric in order]


def loss_panels(run: RunView) -> list[LinePanel]:
    """Loss of alignment, SFT and control over their own steps."""
    panels = [
        _panel(run, stage, "loss", f"Loss of {name}", unit)
        for stage, (name, unit) in LOSS_STAGES.items()
    ]
    return [panel for panel in panels if panel is not None]


def overall_panels(run: RunView) -> list[LinePanel]:
    """One panel for each overall metric of the RL stage."""
    panels = [
        _panel(run, "rl", metric, QUANTITIES[metric].name, QUANTITIES[metric].unit)
        for metric in OVERALL
    ]
    return [panel for panel in panels if panel is not None]


def smoothing_steps(run: RunView) -> int:
    """Width of the moving mean drawn over the RL curves, in steps."""
    return window_of(sum(line.get("stage") == "rl" for line in run.metrics))


def _panel(run: RunView, stage: str, metric: str, title: str, unit: str) -> LinePanel | None:
    lines = [line for line in run.metrics if line.get("stage") == stage]
    quantity = QUANTITIES[metric]
    points = _points(lines, metric, quantity.factor)
    if not points:
        return None
    return line_panel(title, unit, [(title, points)], y_range=quantity.y_range)


def _curve_set(
    run: RunView, lines: Sequence[Mapping[str, Any]], metric: str, sources: set[str]
) -> CurveSet:
    quantity = QUANTITIES.get(metric, Quantity(metric, metric))
    by_task: dict[str, list[str]] = {}
    for source in sorted(sources):
        by_task.setdefault(run.task_of_source.get(source, source), []).append(source)
    panels = [
        line_panel(
            task,
            quantity.unit,
            [
                (source, _points(lines, f"source/{source}/{metric}", quantity.factor))
                for source in by_task[task]
            ],
            y_range=quantity.y_range,
        )
        for task in in_page_order(by_task)
    ]
    return CurveSet(metric=metric, name=quantity.name, unit=quantity.unit, panels=panels)


def _points(lines: Sequence[Mapping[str, Any]], key: str, factor: float) -> list[Point]:
    return [Point(line["step"], line[key] * factor) for line in lines if key in line]
