"""Whether a run would go well, told before its first step: `vl train RECIPE --check`.

Everything up to the first step is done as the run would do it, then one step of every stage is
measured on a model that nobody keeps. Nothing is written but the cache of drawn data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast

import torch

from data_specs import Problem, Sample, read_rows
from tasks.check import check_files
from tasks.check_report import PROBLEMS_SHOWN, CheckReport
from vl.align import DenseHead, dense_labels
from vl.checkpoint import CheckpointStore
from vl.models.minimax_policy import MiniMaxPolicy
from vl.rl import TooManyUnscored
from vl.runlog import RunLog

from .data import Dataset, prepare_data
from .load import load_policy
from .preflight_cost import measure_cost
from .preflight_findings import Finding, judge_cost, judge_spread, judge_tokens
from .preflight_spread import SourceSpread, sample_spread
from .preflight_tokens import Lengths, TokenCounts, count_tokens
from .prepare import prepare
from .progress import Progress, quiet_transformers, show
from .recipe import ModelConfig, Recipe
from .stages import StageCache

if TYPE_CHECKING:
    from vl.models.minimax_vl import MiniMaxVLConfig

EXIT_WRONG = 2

_BETWEEN_ROWS = frozenset({"overlap", "duplicate_id", "contradiction", "bad_reference"})
"""Faults that leave a row readable: the rest of the check goes on."""
_UNSOUND = frozenset(
    {
        "unknown_verifier",
        "bad_parameter",
        "empty_reference",
        "bad_reference",
        "slow_reference",
        "coordinate_space",
        "box_outside",
        "box_inverted",
        "box_empty",
        "box_space",
    }
)
"""Faults of a row's reference; a reference whose boxes are wrong is named by the boxes."""


def check_recipe(
    recipe: Recipe,
    *,
    cache_dir: Path,
    model: Path | None,
    report: CheckReport | None,
    progress: Progress,
) -> int:
    """Prints the table by source and a line a finding; 0 if nothing is wrong, else 2.

    Args:
        model: folder of weights to draw answers with; None = a new, untrained model.
        report: of the rows, if they have been checked already.

    Raises:
        FileNotFoundError: `model` holds no weights.
        DataSpecError: a folder of rows is empty or absent.
    """
    torch.set_num_threads(1)  # as the run does
    quiet_transformers()
    dataset = prepare_data(recipe.data, cache_dir=cache_dir, progress=progress, checked=True)
    if report is None:
        progress.note("checking rows")
        report = check_files(dataset.train_files, heldout=dataset.heldout_files)
    findings = [_rows(report)]
    if {problem.kind for problem in report.problems} <= _BETWEEN_ROWS:
        try:
            findings.extend(_measure(recipe, dataset, report, model, progress))
        except (ValueError, TooManyUnscored) as error:  # the run would stop with it; tell the rest
            findings.append(_refusal(error))
    else:
        text = "the rest was not looked at: it needs rows that can be read"
        findings.append(Finding(name="stopped", text=text))
    for finding in findings:
        show(str(finding))
    problems = [problem for finding in findings for problem in finding.problems]
    if not problems:
        return 0
    progress.note(f"{len(problems)} problems:")
    for line in CheckReport(problems=tuple(problems), num_rows=0).lines(PROBLEMS_SHOWN):
        progress.note(line)
    return EXIT_WRONG


def _measure(
    recipe: Recipe,
    dataset: Dataset,
    report: CheckReport,
    model: Path | None,
    progress: Progress,
) -> Iterator[Finding]:
    """Findings as they are made, so that those before an error are kept; prints the table."""
    if not isinstance(recipe.model, ModelConfig) or recipe.sft is None:
        raise ValueError(
            f"--check: found {recipe.name}, which goes on from a saved model; beyond its rows, "
            "only runs of new models with an SFT can be checked. Start it with --smoke instead"
        )
    policy = load_policy(model) if model else None
    if policy is not None and not isinstance(policy, MiniMaxPolicy):
        raise ValueError(
            f"--model: {model} holds a {type(policy.model).__name__}; a run of a new MiniMax-VL is "
            "checked with weights of one"
        )
    if policy:
        size = policy.model.config.vision_config.image_size
        recipe = replace(recipe, model=replace(recipe.model, image_size_px=size))
    with TemporaryDirectory() as folder, RunLog(Path(folder) / "run", make_writer=None) as log:
        scratch = Path(folder)
        parts = (log, StageCache(scratch / "cache"), CheckpointStore(scratch / "checkpoints"))
        run = prepare(recipe, dataset, *parts, progress)
        if policy:
            run.policy = policy
            run.head = DenseHead(
                cast("MiniMaxVLConfig", policy.model.config), dense_labels(run.train.pictures)
            )
        progress.note("counting tokens")
        counts = count_tokens(run)
        yield from judge_tokens(run, counts)
        progress.note("drawing answers to a few rows of each source")
        spread = sample_spread(run)
        for line in _table(report, counts, spread):
            show(line)
        yield judge_spread(run, spread, is_trained=policy is not None)
        progress.note("measuring a step of each stage")
        yield from judge_cost(measure_cost(run))


def _refusal(error: Exception) -> Finding:
    problem = Problem(
        file="run",
        row=None,
        id="",
        field="start",
        value="refused",
        allowed="a run that reaches its first step",
        remedy=str(error),
    )
    return Finding(name="refused", text=str(error), problems=(problem,))


def _rows(report: CheckReport) -> Finding:
    held = sum(file.num_rows for file in report.files if file.is_heldout)
    tasks = ", ".join(f"{task} {count}" for task, count in report.rows_by_task.items())
    text = (
        f"{report.num_rows} ({held} held out) with {report.num_images} different images, "
        f"{report.num_bad_rows} of them bad; by task: {tasks}"
    )
    return Finding(name="rows", text=text, problems=report.problems)


def unsound_references(report: CheckReport) -> dict[str, int]:
    """Readable rows of each source whose reference does not score 1 or has wrong boxes."""
    bad = {(p.file, p.row) for p in report.problems if p.kind in _UNSOUND}
    found: Counter[str] = Counter()
    for file in report.files:
        numbers = {row for name, row in bad if name == file.name}
        if numbers:
            rows = enumerate(read_rows(file.path))
            found.update(
                row.source for number, row in rows if number in numbers and isinstance(row, Sample)
            )
    return dict(found)


def _table(
    report: CheckReport, counts: TokenCounts, spread: Mapping[str, SourceSpread]
) -> Iterator[str]:
    """A line a source."""
    unsound = unsound_references(report)
    yield (
        f"{'source':<20}{'rows':>7} {'gold 1':>7} |{'prompt tokens':^17}|{'answer tokens':^17}|"
        f"{'cut':>6} | {'score':>6} {'spread':>7}"
    )
    percentiles = f"{'p50':>5}{'p95':>6}{'max':>6}"
    yield f"{'':<36}|{percentiles}|{percentiles}|"
    for source, rows in report.rows_by_source.items():
        sound = 1.0 - unsound.get(source, 0) / rows
        cut, drawn = counts.cut.get(source), spread.get(source)
        yield (
            f"{source:<20}{rows:>7} {sound:>7.1%} |{_lengths(counts.prompts[source])}"
            f"|{_lengths(counts.answers[source])}|"
            f"{'-' if cut is None else f'{cut:.0%}':>6} | "
            + (f"{drawn.score:>6.3f} {drawn.spread_frac:>7.0%}" if drawn else f"{'-':>6} {'-':>7}")
        )


def _lengths(lengths: Lengths) -> str:
    return f"{lengths.p50:>5}{lengths.p95:>6}{lengths.max:>6}"
