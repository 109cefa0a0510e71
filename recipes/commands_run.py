"""`vl eval`, `vl predict` and `vl report`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_RAW = argparse.RawDescriptionHelpFormatter


def add_parsers(commands: Any) -> None:
    """Adds the commands of this file."""
    _add_eval(commands)

    predict = commands.add_parser(
        "predict",
        help="ask one question about one picture; draws boxes",
        formatter_class=_RAW,
        epilog="example:\n"
        "  vl predict --model runs/orsta_tiny/final --image X.png --prompt 'box every dog.'",
    )
    predict.add_argument("--model", type=Path, required=True, help="folder of a saved model")
    predict.add_argument("--image", type=Path, required=True)
    predict.add_argument("--prompt", required=True)
    predict.add_argument("--out", type=Path, help="drawn picture (default IMAGE_boxes.png)")
    predict.set_defaults(run=_predict)

    report = commands.add_parser(
        "report",
        help="render report.html of run directories, finished or in progress",
        formatter_class=_RAW,
        epilog="example:\n  vl report runs/orsta_tiny",
    )
    report.add_argument("runs", nargs="+", type=Path, help="run directories")
    report.set_defaults(run=_report)


def _add_eval(commands: Any) -> None:
    evaluate = commands.add_parser(
        "eval",
        help="answer and judge held-out rows with a model",
        formatter_class=_RAW,
        epilog="example:\n  vl eval data/test --model runs/orsta_tiny/final --out runs/unseen",
    )
    evaluate.add_argument("files", nargs="+", type=Path, help="parquet files, or folders of them")
    evaluate.add_argument("--model", type=Path, required=True, help="folder of a saved model")
    evaluate.add_argument("--out", type=Path, required=True, help="where the evaluation is written")
    evaluate.add_argument("--samples", type=int, default=8, help="samples a row beside greedy")
    evaluate.add_argument("--seed", type=int, default=0)
    evaluate.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    from tasks.check import check_files

    check_files(arguments.files).raise_if_bad()  # before torch is loaded
    from .evaluation import evaluate_files

    evaluate_files(
        arguments.files,
        model=arguments.model,
        out=arguments.out,
        num_samples=arguments.samples,
        seed=arguments.seed,
    )
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    from .evaluation import predict

    predict(arguments.model, arguments.image, arguments.prompt, arguments.out)
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from vl.report import render_report

    from .progress import Progress

    for run in arguments.runs:
        if not (run / "config.json").is_file():
            raise FileNotFoundError(f"{run}: found no config.json, so no run; give a run directory")
        Progress().note(f"report: {render_report(run)}")
    return 0
