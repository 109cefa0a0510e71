"""`vl data build`, `vl data check` and `vl score`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_RAW = argparse.RawDescriptionHelpFormatter


def add_parsers(commands: Any) -> None:
    """Adds the commands of this file."""
    data = commands.add_parser("data", help="draw and check rows")
    verbs = data.add_subparsers(dest="verb", required=True, metavar="VERB")

    build = verbs.add_parser(
        "build",
        help="draw the embedded data from real icons, digits, fonts and tables",
        formatter_class=_RAW,
        epilog="examples:\n"
        "  vl data build --out data\n"
        "  vl data build --out unseen --seed 7 --icons unseen --splits test",
    )
    build.add_argument("--out", type=Path, required=True)
    build.add_argument("--seed", type=int, default=0)
    build.add_argument("--train-images", type=int, default=1500, help="pictures a source")
    build.add_argument("--heldout-images", type=int, default=100, help="pictures a source")
    build.add_argument(
        "--icons", choices=("seen", "unseen"), default="seen", help="unseen: drawings never trained"
    )
    build.add_argument("--splits", nargs="+", choices=("train", "test"), default=["train", "test"])
    build.add_argument("--sources", nargs="+", help="only these")
    build.set_defaults(run=_build)

    check = verbs.add_parser(
        "check",
        help="check every row; exit code 2 and a list if one is bad",
        formatter_class=_RAW,
        epilog="example:\n  vl data check data/train/*.parquet",
    )
    check.add_argument("files", nargs="+", type=Path)
    check.set_defaults(run=_check)


def _build(arguments: argparse.Namespace) -> int:
    from tasks.build import build

    from .progress import Progress

    progress = Progress()
    with progress.task("drawing data", 1) as advance:
        report = build(
            arguments.out,
            seed=arguments.seed,
            num_train_images=arguments.train_images,
            num_heldout_images=arguments.heldout_images,
            icons=arguments.icons,
            splits=arguments.splits,
            sources=arguments.sources,
            progress=lambda _name, done, total: advance(done / total),
        )
    progress.note(f"{report.num_rows} rows in {len(report.files)} files under {report.out}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from tasks.check import check_files

    from .progress import Progress

    report = check_files(arguments.files)
    report.raise_if_bad()
    progress = Progress()
    for key, count in sorted(report.counts.items()):
        progress.note(f"{count:8d}  {' / '.join(key)}")
    progress.note(f"{sum(report.counts.values()):8d}  rows, all good")
    return 0
