"""`vl data convert`: data sets of other forms to rows, and rows for other trainers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from data_specs.convert_log import ConvertLog

    from .progress import Progress

_RAW = argparse.RawDescriptionHelpFormatter


class _Format(NamedTuple):
    """One format's words for the command line."""

    help: str
    example: str
    add_options: Callable[[argparse.ArgumentParser], None]


def add_parser(verbs: Any) -> None:
    """Adds `vl data convert FORMAT`."""
    convert = verbs.add_parser(
        "convert",
        help="turn COCO, RefCOCO, VQA, chats, EasyR1, TRL or verl data into rows, and back",
        formatter_class=_RAW,
        description="Makes V-Triune's rows from other data sets, and TRL's or verl's from rows.\n"
        "What gives no row is counted, named and listed in OUT.problems.jsonl. docs/convert.md\n"
        "has every rule.",
        epilog="examples:\n"
        + "".join(f"  {item.example}\n" for item in _FORMATS.values())
        + "\nexit code: 0 if rows were made, else 2; with --strict, 2 for any problem",
    )
    formats = convert.add_subparsers(dest="format", required=True, metavar="FORMAT")
    for name, item in _FORMATS.items():
        parser = formats.add_parser(
            name,
            help=item.help,
            formatter_class=_RAW,
            description=f"{item.help[0].upper()}{item.help[1:]}.",
            epilog=f"example:\n  {item.example}",
        )
        _add_shared(parser)
        item.add_options(parser)
        parser.set_defaults(run=_convert, format=name)


def _add_shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="IN", help="input files")
    parser.add_argument("--out", type=Path, required=True, help="parquet file to write")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the images")
    parser.add_argument(
        "--link", action="store_true", help="keep paths, relative to OUT, instead of image bytes"
    )
    parser.add_argument(
        "--decode", action="store_true", help="decode every image, not only its header and end"
    )
    parser.add_argument("--source", default="", help="data_source of the rows")
    parser.add_argument("--task", default="", help="ability of the rows")
    parser.add_argument(
        "--split", default="", help="split of the rows; records that name another are left out"
    )
    parser.add_argument("--licence", default="", help="licence of the images")
    parser.add_argument("--limit", type=int, metavar="N", help="most rows")
    parser.add_argument(
        "--seed", type=int, help="draws negatives, and with --limit which records are taken"
    )
    parser.add_argument(
        "--strict", action="store_true", help="write nothing and end with 2 if anything is wrong"
    )
    parser.add_argument("--append", default="", metavar="TEXT", help="text behind every question")
    parser.add_argument(
        "--rename",
        nargs="+",
        default=[],
        metavar="THEIRS=OURS",
        help="keys of the records that have other names",
    )


def _add_boxes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--space",
        choices=("per_mille", "pixel"),
        default="per_mille",
        help="numbers of the rows' boxes (default per_mille: 0-1000)",
    )
    parser.add_argument(
        "--max-boxes-per-category",
        type=int,
        metavar="N",
        help="leave out what has more boxes in an image (the paper: 10)",
    )
    parser.add_argument(
        "--max-box-frac",
        type=float,
        metavar="F",
        help="leave out what has a box over this share of the image (the paper: 0.5)",
    )


def _add_answers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--verifier",
        default="",
        help="who judges (default: by the kind of answer); rows that name a verifier keep it",
    )
    parser.add_argument(
        "--params",
        type=_json_object,
        default={},
        metavar="JSON",
        help='parameters of --verifier, \'{"metric": "anls"}\'',
    )
    parser.add_argument(
        "--tolerance", type=float, metavar="F", help="relative tolerance of number answers"
    )


def _add_coco(parser: argparse.ArgumentParser) -> None:
    _add_boxes(parser)
    parser.add_argument(
        "--mode",
        choices=("single", "multi", "both"),
        default="single",
        help="a row for each category of an image, one for all of them, or both",
    )
    parser.add_argument(
        "--incomplete",
        choices=("keep", "drop"),
        default="keep",
        help="a category with a crowd or another unusable box: keep the other boxes, or drop it",
    )
    parser.add_argument(
        "--negatives",
        type=int,
        default=0,
        metavar="N",
        help="rows an image about categories that are not in it",
    )


def _add_refcoco(parser: argparse.ArgumentParser) -> None:
    _add_boxes(parser)
    parser.add_argument(
        "--box-layout",
        choices=("xywh", "xyxy"),
        help="x, y, width, height, or two corners; needed unless the file's form says it",
    )
    parser.add_argument(
        "--coordinates",
        choices=("pixel", "per_mille", "unit"),
        default="pixel",
        help="what the input's box numbers are (default pixel)",
    )


def _add_vqa(parser: argparse.ArgumentParser) -> None:
    _add_answers(parser)
    parser.add_argument(
        "--min-votes",
        type=int,
        default=3,
        metavar="N",
        help="annotators that make an answer right, where each gave one (default 3)",
    )
    parser.add_argument(
        "--image-pattern",
        default="",
        metavar="NAME",
        help="file name with {image_id}, 'COCO_val2014_{image_id:0>12}.jpg'",
    )


def _add_chat(parser: argparse.ArgumentParser) -> None:
    _add_answers(parser)
    _add_boxes(parser)


def _add_nothing(parser: argparse.ArgumentParser) -> None:
    del parser


_FORMATS: Mapping[str, _Format] = {
    "coco": _Format(
        "COCO instances JSON to detection rows, or to counting rows with --task counting",
        "vl data convert coco instances_val2017.json --images val2017 --out coco.parquet",
        _add_coco,
    ),
    "refcoco": _Format(
        "phrases with boxes (RefCOCO/+/g, D3, OmniLabel) to grounding rows",
        "vl data convert refcoco refs.json --box-layout xywh --images train2014 --out ref.parquet",
        _add_refcoco,
    ),
    "vqa": _Format(
        "questions with answers (VQAv2's two files, or records) to rows",
        "vl data convert vqa questions.json annotations.json --images val2014 --out vqa.parquet",
        _add_vqa,
    ),
    "chartqa": _Format(
        "ChartQA's records to rows, numbers within 5 %%",
        "vl data convert chartqa train_human.json --images png --out chartqa.parquet",
        _add_vqa,
    ),
    "llava": _Format(
        "chats with images (LLaVA, ms-swift) to rows; the last answer is the reference",
        "vl data convert llava chat.jsonl --images pictures --out chat.parquet",
        _add_chat,
    ),
    "easyr1": _Format(
        "EasyR1's images, problem and answer to rows",
        "vl data convert easyr1 geometry3k.parquet --source geometry3k --out geo.parquet",
        _add_answers,
    ),
    "trl": _Format(
        "TRL's prompt and completion, or solution, to rows",
        "vl data convert trl trl.parquet --out rows.parquet",
        _add_answers,
    ),
    "verl": _Format(
        "verl's rows to V-Triune's",
        "vl data convert verl verl.parquet --out rows.parquet",
        _add_answers,
    ),
    "to-trl": _Format(
        "rows to TRL's columns",
        "vl data convert to-trl rows.parquet --out trl.parquet",
        _add_nothing,
    ),
    "to-verl": _Format(
        "rows to verl's columns",
        "vl data convert to-verl rows.parquet --out verl.parquet",
        _add_nothing,
    ),
}


def _convert(arguments: argparse.Namespace) -> int:
    from data_specs.convert_log import ConvertLog

    from .conversion import Gold, read_options, run
    from .progress import Progress, show

    out: Path = arguments.out
    if out.suffix != ".parquet":
        raise ValueError(f"--out is {out}; allowed: a name that ends in .parquet")
    if out.resolve() in [path.resolve() for path in arguments.files]:
        raise ValueError(f"--out is {out}, which is read as well; choose another name")
    out.parent.mkdir(parents=True, exist_ok=True)
    list_path = out.with_name(f"{out.stem}.problems.jsonl")
    progress = Progress()
    log = ConvertLog(list_path)
    try:
        with log, progress.task("converting", 1) as advance, Gold() as gold:
            options = read_options(
                arguments, gold, lambda done, total: advance(done / max(1, total))
            )
            report = run(arguments, options, log)
    finally:
        _tell(log, list_path, progress)
    for task, count in report.rows_by_task.items():
        show(f"{count:8d}  {task}")
    verifiers = ", ".join(f"{name} {count}" for name, count in report.rows_by_verifier.items())
    if len(report.rows_by_split) > 1:
        named = ", ".join(f"{name} {count}" for name, count in report.rows_by_split.items())
        progress.note(f"rows of several splits ({named}): --split NAME makes a file of one")
    show(f"{report.num_rows:8d}  rows in {report.out} (verifiers: {verifiers})")
    return 0


def _tell(log: ConvertLog, list_path: Path, progress: Progress) -> None:
    """Counts of everything that is not in the rows as it was in the input."""
    for head, counts in (
        ("problems", log.faults),
        ("left out by rule", log.by_rule),
        ("changed", log.changes),
    ):
        if counts:
            named = ", ".join(f"{kind} {count}" for kind, count in counts.most_common())
            progress.note(f"{head}: {named}")
    for problem in log.shown:
        progress.note(str(problem))
    more = log.num_faults - len(log.shown)
    if more:
        progress.note(f"... and {more} more")
    if list_path.exists():
        progress.note(f"everything left out is listed in {list_path}")


def _json_object(text: str) -> dict[str, object]:
    """An option's JSON object."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object")
    return value
