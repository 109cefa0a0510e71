"""`vl data`: build and show rows; each other verb has a file of its own."""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path
from typing import Any

from . import commands_check, commands_convert, commands_curate

_RAW = argparse.RawDescriptionHelpFormatter


def add_parsers(commands: Any) -> None:
    """Adds the commands of this file."""
    data = commands.add_parser(
        "data",
        help="draw, convert, check, curate and show rows",
        formatter_class=_RAW,
        epilog="examples:\n"
        "  vl data build --out data\n"
        "  vl data convert coco instances.json --images pictures --out coco.parquet\n"
        "  vl data check data/train data/test\n"
        "  vl data curate data/train --out curated\n"
        "  vl data show data/test --num 3",
    )
    verbs = data.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_build(verbs)

    commands_check.add_parser(verbs)
    commands_convert.add_parser(verbs)
    commands_curate.add_parser(verbs)

    show = verbs.add_parser(
        "show",
        help="print rows and keep their pictures",
        formatter_class=_RAW,
        epilog="example:\n  vl data show data/test --num 3 --save pictures",
    )
    show.add_argument("files", nargs="+", type=Path, help="parquet files, or folders of them")
    show.add_argument("--num", type=int, default=5, help="rows (default 5)")
    show.add_argument("--save", type=Path, help="folder for the rows' pictures")
    show.set_defaults(run=_show)


def _add_build(verbs: Any) -> None:
    build = verbs.add_parser(
        "build",
        help="draw the embedded data from real icons, digits, fonts and tables",
        formatter_class=_RAW,
        epilog="examples:\n"
        "  vl data build --out data\n"
        "  vl data build --out unseen --seed 7 --icons unseen --splits test",
    )
    build.add_argument("--out", type=Path, required=True, help="an empty or absent folder")
    build.add_argument("--seed", type=int, default=0)
    build.add_argument("--train-images", type=int, default=1500, help="pictures a source")
    build.add_argument("--heldout-images", type=int, default=100, help="pictures a source")
    build.add_argument(
        "--icons", choices=("seen", "unseen"), default="seen", help="unseen: drawings never trained"
    )
    build.add_argument("--splits", nargs="+", choices=("train", "test"), default=["train", "test"])
    build.add_argument("--sources", nargs="+", help="only these")
    build.set_defaults(run=_build)


def _build(arguments: argparse.Namespace) -> int:
    from tasks.build import build

    from .progress import Progress

    out: Path = arguments.out
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"--out: {out} is not empty; choose another folder, or delete it")
    progress = Progress()
    with progress.task("drawing data", 1) as advance:
        report = build(
            out,
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


def _show(arguments: argparse.Namespace) -> int:
    from data_specs import read_samples

    from .progress import show

    for sample in islice(read_samples(arguments.files), arguments.num):
        spec = sample.reward
        show(f"{sample.id}  {sample.source} / {sample.task}  ({sample.where})")
        show(f"  question      {sample.question}")
        show(f"  ground truth  {spec.ground_truth}")
        show(f"  verifier      {spec.verifier} {dict(spec.params)}")
        if arguments.save is None:
            continue
        arguments.save.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(sample.images):
            name = "".join(c if c.isalnum() or c in "-_." else "_" for c in sample.id)
            path = arguments.save / f"{name}_{index}.png"
            image.open().save(path)
            show(f"  image         {path}")
    return 0
