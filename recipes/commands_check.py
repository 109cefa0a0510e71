"""`vl data check` and `vl data schema`: what is wrong with rows, and what a row is."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from tasks.check_report import CheckReport

    from .progress import Progress

_RAW = argparse.RawDescriptionHelpFormatter
EXIT_BAD_ROWS = 2


def add_parser(verbs: Any) -> None:
    """Adds the verbs of this file to `vl data`."""
    check = verbs.add_parser(
        "check",
        help="check every row; exit code 2 and a list if one is bad",
        formatter_class=_RAW,
        description="Reads every row, its images' headers and its boxes, lets its own verifier\n"
        "judge its reference, and compares rows with one another. docs/data.md lists what is\n"
        "found.",
        epilog="examples:\n"
        "  vl data check data/train data/test\n"
        "  vl data check mine.parquet --heldout test.parquet --decode-images\n"
        "  vl data check data/train --fix data/clean --json problems.json\n\n"
        "exit code: 0 if every row is good, or --fix could write the good rows of every file; "
        "else 2",
    )
    check.add_argument("files", nargs="+", type=Path, help="parquet files, or folders of them")
    check.add_argument(
        "--heldout",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="files of held-out rows; FILES are then for training, whatever their names",
    )
    check.add_argument(
        "--decode-images", action="store_true", help="decode every image, not only its header"
    )
    check.add_argument(
        "--fix", type=Path, metavar="OUT", help="write the good rows and rejects.jsonl to OUT"
    )
    check.add_argument(
        "--max-problems", type=int, default=50, metavar="N", help="lines printed (default 50)"
    )
    check.add_argument("--json", type=Path, metavar="FILE", help="write the whole report as JSON")
    check.set_defaults(run=_check)

    schema = verbs.add_parser(
        "schema",
        help="print the JSON Schema of a row",
        formatter_class=_RAW,
        epilog="example:\n  vl data schema > row.schema.json",
    )
    schema.set_defaults(run=_schema)


def _check(arguments: argparse.Namespace) -> int:
    from tasks.check import check_files
    from tasks.check_fix import refuse_full

    from .progress import Progress, show

    if arguments.max_problems < 0:
        raise ValueError(f"--max-problems is {arguments.max_problems}; allowed: 0 or more")
    if arguments.fix:
        refuse_full(arguments.fix)  # before the rows are read
    progress = Progress()
    with progress.task("checking rows", 1) as advance:
        report = check_files(
            arguments.files,
            arguments.decode_images,
            heldout=arguments.heldout,
            progress=lambda done, total: advance(done / total),
        )
    for line in _counts(report):
        show(line)
    if report.problems:
        progress.note(f"{len(report.problems)} problems in {report.num_rows} rows:")
        for line in report.lines(arguments.max_problems):
            progress.note(line)
        progress.note("by kind:")
        for kind, count in report.problems_by_kind.items():
            progress.note(f"{count:8d}  {kind}")
    if arguments.json:
        _write_json(report, arguments.json)
    if arguments.fix:
        return _fix(report, arguments.fix, progress)
    return EXIT_BAD_ROWS if report.problems else 0


def _counts(report: CheckReport) -> list[str]:
    """Rows by source, by task and in all."""
    lines = [f"{count:8d}  {source}" for source, count in report.rows_by_source.items()]
    lines += [f"{count:8d}  task {task}" for task, count in report.rows_by_task.items()]
    held = sum(file.num_rows for file in report.files if file.is_heldout)
    what = "all good" if report.is_ok else f"{report.num_bad_rows} of them bad"
    lines.append(
        f"{report.num_rows:8d}  rows with {report.num_images} different images in "
        f"{len(report.files)} files ({held} rows in held-out files), {what}"
    )
    return lines


def _fix(report: CheckReport, out: Path, progress: Progress) -> int:
    from tasks.check_fix import REJECTS, write_good_rows

    fixed = write_good_rows(report, out)
    progress.note(
        f"{fixed.num_good} good rows under {out}; {fixed.num_rejected} rows left out, "
        f"listed in {out / REJECTS}"
    )
    for name in fixed.left_out:
        progress.note(f"{name}: not written, wrong as a whole or without a good row")
    return EXIT_BAD_ROWS if fixed.left_out else 0


def _write_json(report: CheckReport, path: Path) -> None:
    content = {
        "is_ok": report.is_ok,
        "num_rows": report.num_rows,
        "num_bad_rows": report.num_bad_rows,
        "num_images": report.num_images,
        "rows_by_source": report.rows_by_source,
        "rows_by_task": report.rows_by_task,
        "problems_by_kind": report.problems_by_kind,
        "files": [asdict(file) | {"path": str(file.path)} for file in report.files],
        "problems": [asdict(problem) for problem in report.problems],
    }
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _schema(arguments: argparse.Namespace) -> int:
    from data_specs.schema_text import json_schema

    print(json.dumps(json_schema(), indent=2))  # noqa: T201 - to be piped
    return 0
