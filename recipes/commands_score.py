"""`vl score`: stored answers of a run judged again, and what has moved."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .rescoring import Pair
    from .stored_answers import StoredFile

NUM_CHANGES_SHOWN = 10
NUM_REASONS_SHOWN = 20


def add_parser(commands: Any) -> None:
    """Adds the command of this file."""
    score = commands.add_parser(
        "score",
        help="judge the stored answers of a run again and show what moved",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Judges the stored answers of an evaluation (eval/<phase>/rollouts.jsonl) or "
        "of training\n(rollouts.jsonl) again, and shows by source and by reason what has moved.",
        epilog="examples:\n"
        "  vl score runs/orsta_tiny/eval/rl/rollouts.jsonl\n"
        "  vl score runs/orsta_tiny/rollouts.jsonl --iou-threshold 0.7\n"
        "  vl score FILE --rows data/test --out verdicts.jsonl\n"
        "  vl score FILE --source mnist_count --param 'shaping=\"relative\"'\n"
        "  vl score FILE --source font_words --verifier text --param 'metric=\"cer\"'",
    )
    score.add_argument("file", type=Path, help="rollouts.jsonl of an evaluation or of a run")
    score.add_argument(
        "--rows",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="parquet files with the rows (default: those named by the run's config.json)",
    )
    score.add_argument("--source", nargs="+", metavar="NAME", help="judge these sources only")
    score.add_argument(
        "--verifier", metavar="NAME", help="judge by this verifier, not by the one each row names"
    )
    score.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NAME=JSON",
        help="set a parameter of the verifier, null takes one away; may be given several times",
    )
    score.add_argument(
        "--iou-threshold", type=float, help="judge boxes at this IoU, not at the run's"
    )
    score.add_argument("--workers", type=int, default=1, help="processes that judge (default 1)")
    score.add_argument("--out", type=Path, metavar="FILE", help="write the new verdicts there")
    score.set_defaults(run=_score)


def _score(arguments: argparse.Namespace) -> int:
    from verifiers import FixedIou

    from .progress import Progress, show
    from .rescoring import Change, read_param, rescore, table_by_reason, table_by_source
    from .stored_answers import read_context, read_rows, read_stored

    out: Path | None = arguments.out
    if arguments.workers < 1:
        raise ValueError(f"--workers is {arguments.workers}; allowed: at least 1")
    if out is not None and out.exists():
        raise FileExistsError(f"--out: {out} exists; choose another file, or delete it")
    threshold: float | None = arguments.iou_threshold
    rule = None if threshold is None else FixedIou(threshold)
    params = dict(map(read_param, arguments.param))
    change = Change(verifier=arguments.verifier, params=params, iou_rule=rule)
    stored = _of_sources(read_stored(arguments.file), arguments.source)
    rows = read_rows(stored, arguments.rows)
    progress = Progress()
    total = len(stored.answers)
    with progress.task(f"judging {total} answers", total) as advance:
        pairs = rescore(stored, rows, change, arguments.workers, advance)
    if out is not None:
        _write(out, pairs)
    for line in table_by_source(pairs):
        show(line)
    reasons = table_by_reason(pairs)
    for line in reasons[: NUM_REASONS_SHOWN + 1]:
        show(line)
    if len(reasons) > NUM_REASONS_SHOWN + 1:
        show(f"... and {len(reasons) - NUM_REASONS_SHOWN - 1} more reasons")
    moved = [pair for pair in pairs if pair.has_moved]
    for pair in moved[:NUM_CHANGES_SHOWN]:
        show(_change(pair))
    rule = rule or read_context(stored, stored.answers[0]).iou_rule
    show(f"{len(moved)} of {total} verdicts moved; rule for boxes {rule}")
    if out is not None:
        show(f"{total} verdicts in {out}")
    return 0


def _of_sources(stored: StoredFile, sources: list[str] | None) -> StoredFile:
    """The answers of these sources; all if none is named."""
    if sources is None:
        return stored
    found = {answer.source for answer in stored.answers}
    unknown = sorted(set(sources) - found)
    if unknown:
        raise ValueError(
            f"--source {unknown[0]!r} is not in {stored.path}; there are {', '.join(sorted(found))}"
        )
    return stored._replace(
        answers=[answer for answer in stored.answers if answer.source in sources]
    )


def _change(pair: Pair) -> str:
    stored, verdict = pair
    return (
        f"{stored.source} {stored.id}: {stored.score} ({stored.status}) -> "
        f"{verdict.score} ({verdict.status}: {verdict.reason})  {stored.response[:60]!r}"
    )


def _write(out: Path, pairs: list[Pair]) -> None:
    from .rescoring import to_line

    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("x", encoding="utf-8") as file:
        for pair in pairs:
            file.write(json.dumps(to_line(pair)) + "\n")
