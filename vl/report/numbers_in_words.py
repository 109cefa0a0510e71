"""Numbers as the page writes them, and the verdict on the run in sentences."""

from __future__ import annotations

from vl.report.run_view import Evaluation, Interval, RunView
from vl.rundir import MACRO_TASKS


def measure_name(measure: str) -> str:
    """'mean of 8 samples' for `avg@8`; a measure that is not known keeps its name."""
    kind, _, k = measure.partition("@")
    names = {
        "greedy": "greedy decoding",
        "avg": f"mean of {k} samples",
        "pass": f"best of {k} samples",
    }
    return names.get(kind, measure)


def percent(value: float) -> str:
    """0.4512 -> '45.1'; the unit stands in the heading."""
    return f"{100 * value:.1f}".replace("-", "−")


def signed_percent(value: float) -> str:
    """0.112 -> '+11.2', -0.004 -> '−0.4'."""
    return f"{100 * value:+.1f}".replace("-", "−")


def between(interval: Interval) -> str:
    """'43.0 to 47.2'."""
    return f"{percent(interval.low)} to {percent(interval.high)}"


def duration(seconds: float) -> str:
    """'48 s', '12 min 05 s' or '2 h 03 min'."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def headline_measure(evaluation: Evaluation) -> str | None:
    """The mean over samples where measured, else the first measure; None if there is none."""
    measures = evaluation.measures
    averages = [measure for measure in measures if measure.startswith("avg@")]
    return next(iter([*averages, *measures]), None)


def verdict(run: RunView) -> list[str]:
    """What the run did, in sentences; the first is the headline."""
    evaluation = run.evaluation
    measure = None if evaluation is None else headline_measure(evaluation)
    if evaluation is None or measure is None:
        return [_progress(run)]
    start = "SFT" if evaluation.rl_difference == "rl - sft" else "the start"
    sentences = [
        sentence
        for sentence in (
            _change(evaluation, measure, evaluation.rl_difference, "RL", start),
            _control(evaluation, measure),
            _tasks(evaluation, measure),
            _others(evaluation, measure),
        )
        if sentence
    ]
    if "rl" not in evaluation.phases:
        warm_up = _change(evaluation, measure, "sft - init", "SFT", "the untrained model")
        sentences = [_progress(run), *([warm_up] if warm_up else []), *sentences]
    return sentences or [_level(evaluation, measure)]


def _level(evaluation: Evaluation, measure: str) -> str:
    """Where a model stands that was evaluated alone."""
    phase = list(evaluation.phases.values())[-1]
    found = phase.macro.by_measure.get(measure)
    if found is None:
        return "None of the tasks of the macro average was evaluated."
    return (
        f"The model's macro average is {percent(found.mean)} (95 % interval {between(found)}; "
        f"{measure_name(measure)})."
    )


def _progress(run: RunView) -> str:
    if not run.metrics:
        return "The run has not finished a step yet."
    last = run.metrics[-1]
    return (
        f"In progress: {last['stage']} step {last['step']} of {last.get('num_steps', '?')}. "
        "RL has not been evaluated yet."
    )


def _change(
    evaluation: Evaluation, measure: str, name: str, after_name: str, before_name: str
) -> str | None:
    """'RL raised the macro average from 45.1 to 56.3 (...)'; None if not evaluated."""
    difference = evaluation.differences.get(name)
    after_phase, before_phase = name.split(" - ")
    change = difference.macro.by_measure.get(measure) if difference else None
    before = evaluation.phases.get(before_phase)
    after = evaluation.phases.get(after_phase)
    if change is None or before is None or after is None:
        return None
    start, end = (phase.macro.by_measure[measure] for phase in (before, after))
    numbers = (
        f"from {percent(start.mean)} to {percent(end.mean)} ({signed_percent(change.mean)}, "
        f"95 % interval {between(change)}; {measure_name(measure)})"
    )
    if not change.is_clear:
        return (
            f"{after_name} made no clear difference to the macro average after {before_name}: "
            f"{numbers}."
        )
    verb = "raised" if change.mean > 0 else "lowered"
    return f"{after_name} {verb} the macro average {numbers}."


def _control(evaluation: Evaluation, measure: str) -> str | None:
    difference = evaluation.differences.get("rl - control")
    control = evaluation.phases.get("control")
    gap = difference.macro.by_measure.get(measure) if difference else None
    if gap is None or control is None or measure not in control.macro.by_measure:
        return None
    reached = percent(control.macro.by_measure[measure].mean)
    where = "above" if gap.mean >= 0 else "below"
    clear = "" if gap.is_clear else ", not clear of zero"
    return (
        f"The same seconds spent on more SFT reached {reached}; RL stands "
        f"{percent(abs(gap.mean))} points {where} that "
        f"(95 % interval of the difference {between(gap)}{clear})."
    )


def _tasks(evaluation: Evaluation, measure: str) -> str | None:
    difference = evaluation.differences.get(evaluation.rl_difference)
    if difference is None:
        return None
    changes = {
        task: scores.by_measure[measure]
        for task, scores in difference.tasks.items()
        if task in MACRO_TASKS and measure in scores.by_measure
    }
    if not changes:
        return None
    higher = [task for task, change in changes.items() if change.low > 0]
    lower = [task for task, change in changes.items() if change.high < 0]
    fallen = f"clearly lower: {', '.join(lower)}" if lower else "none is clearly lower"
    return f"{len(higher)} of {len(changes)} tasks are clearly higher after RL; {fallen}."


def _others(evaluation: Evaluation, measure: str) -> str | None:
    difference = evaluation.differences.get(evaluation.rl_difference)
    if difference is None:
        return None
    parts = [
        f"{measure_name(name)} {signed_percent(change.mean)} ({between(change)})"
        for name, change in difference.macro.by_measure.items()
        if name != measure
    ]
    return f"By other measures: {'; '.join(parts)}." if parts else None
