"""`vl score`: stored answers of an evaluation judged again, and what has moved."""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from data_specs import Sample
    from verifiers import ScoreContext
    from vl.rundir import Answer

NUM_CHANGES_SHOWN = 10


def add_parser(commands: Any) -> None:
    """Adds the command of this file."""
    score = commands.add_parser(
        "score",
        help="judge the stored answers of an evaluation again and show what moved",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  vl score runs/orsta_tiny/eval/rl/rollouts.jsonl\n"
        "  vl score runs/orsta_tiny/eval/rl/rollouts.jsonl --iou-threshold 0.7\n"
        "  vl score FILE --rows data/test",
    )
    score.add_argument("file", type=Path, help="rollouts.jsonl of an evaluation")
    score.add_argument(
        "--rows",
        nargs="+",
        type=Path,
        help="parquet files with the rows (default: those named by the run's config.json)",
    )
    score.add_argument(
        "--iou-threshold", type=float, help="judge boxes at this IoU, not at the evaluation's"
    )
    score.add_argument("--workers", type=int, default=1, help="processes that judge (default 1)")
    score.set_defaults(run=_score)


class _Pair(NamedTuple):
    """A stored answer and the row it answers."""

    sample: Sample
    answer: Answer


def _score(arguments: argparse.Namespace) -> int:
    from verifiers import score_batch
    from vl.rundir import read_config

    from .progress import Progress, show

    path: Path = arguments.file
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give an evaluation's rollouts.jsonl")
    config = read_config(path.resolve().parents[2]) or {}
    pairs = _pairs(path, _row_files(arguments.rows, config, path))
    context = _context(arguments.iou_threshold, config)
    progress = Progress()
    with progress.task(f"judging {len(pairs)} answers", 1):
        items = [(pair.sample, pair.answer["response"]) for pair in pairs]
        verdicts = score_batch(items, context, workers=arguments.workers)
    moves: dict[str, Counter[str]] = defaultdict(Counter)
    old: dict[str, list[float]] = defaultdict(list)
    new: dict[str, list[float]] = defaultdict(list)
    changes: list[str] = []
    for (sample, answer), verdict in zip(pairs, verdicts, strict=True):
        for means, value in ((old, answer["score"]), (new, verdict.score)):
            if value is not None:
                means[sample.source].append(value)
        if (answer["status"], answer["score"]) == (verdict.status, verdict.score):
            continue
        moves[sample.source][f"{answer['status']} -> {verdict.status}"] += 1
        changes.append(
            f"{sample.source} {sample.id}: {answer['score']} ({answer['status']}) -> "
            f"{verdict.score} ({verdict.status}: {verdict.reason})  {answer['response'][:60]!r}"
        )
    counts = Counter(pair.sample.source for pair in pairs)
    show(f"{'source':<20} {'answers':>8} {'stored':>8} {'now':>8} {'moved':>7}  status")
    for source, count in sorted(counts.items()):
        by_status = ", ".join(f"{move} {n}" for move, n in sorted(moves[source].items()))
        show(
            f"{source:<20} {count:8d} {_mean(old[source]):>8} {_mean(new[source]):>8} "
            f"{sum(moves[source].values()):7d}  {by_status}"
        )
    for change in changes[:NUM_CHANGES_SHOWN]:
        show(change)
    show(f"{len(changes)} of {len(pairs)} verdicts moved; rule for boxes {context.iou_rule}")
    return 0


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.4f}" if values else "-"


def _row_files(given: list[Path] | None, config: dict[str, Any], path: Path) -> list[Path]:
    if given:
        return given
    files = config.get("files")
    heldout = files.get("heldout") if isinstance(files, dict) else None
    if not heldout:
        raise ValueError(
            f"{path}: found no config.json of a run two folders up that names its held-out rows; "
            "give them with --rows FILE ..."
        )
    return [Path(name) for name in heldout]


def _context(threshold: float | None, config: dict[str, Any]) -> ScoreContext:
    """The given threshold, else the rule of the evaluation, which `config.json` holds."""
    from verifiers import FixedIou, IouRule, ScoreContext

    if threshold is not None:
        return ScoreContext(iou_rule=FixedIou(threshold))
    rule = config.get("evaluation", {}).get("iou_rule")
    if rule is None:
        return ScoreContext(iou_rule=FixedIou(0.5))
    from pydantic import TypeAdapter

    adapter: TypeAdapter[IouRule] = TypeAdapter(IouRule)
    return ScoreContext(iou_rule=adapter.validate_python(rule))


def _pairs(path: Path, files: list[Path]) -> list[_Pair]:
    """Every stored answer with its row, greedy and samples alike."""
    from data_specs import read_samples
    from vl.rundir import read_lines

    rows = {(sample.source, sample.id): sample for sample in read_samples(files)}
    pairs: list[_Pair] = []
    for number, (_, line) in enumerate(read_lines(path), start=1):
        if "greedy" not in line:
            raise ValueError(
                f"{path} line {number}: not an evaluation's line, it has no 'greedy'; "
                "give eval/<phase>/rollouts.jsonl"
            )
        sample = rows.get((line["source"], line["id"]))
        if sample is None:
            raise ValueError(
                f"{path} line {number}: row {line['id']!r} of {line['source']!r} is not in "
                f"{', '.join(map(str, files[:3]))}{' ...' if len(files) > 3 else ''}; "
                "give the files that were evaluated with --rows"
            )
        pairs += [_Pair(sample, answer) for answer in (line["greedy"], *line["samples"])]
    return pairs
