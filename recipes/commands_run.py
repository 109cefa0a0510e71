"""`vl train`, `vl eval`, `vl predict` and `vl report`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .recipe import Recipe

_RAW = argparse.RawDescriptionHelpFormatter


def add_parsers(commands: Any) -> None:
    """Adds the commands of this file."""
    train = commands.add_parser(
        "train",
        help="run a recipe from its data to its report",
        formatter_class=_RAW,
        epilog="examples:\n"
        "  vl train orsta_tiny --out runs/orsta_tiny\n"
        "  vl train orsta_tiny --smoke --out runs/smoke\n"
        "  vl train orsta_tiny --out runs/dapo --algorithm dapo --rl.num_steps 200\n"
        "  vl train --out runs/orsta_tiny --resume\n\n"
        "any field of the recipe can be set: --seed 1, --rl.optimizer.lr 1e-4, ...",
    )
    train.add_argument("recipe", nargs="?", help="name of a recipe, or a config.json of a run")
    train.add_argument("--out", type=Path, help="run directory (default runs/RECIPE)")
    train.add_argument("--smoke", action="store_true", help="every stage in under a minute")
    train.add_argument("--resume", action="store_true", help="continue a stopped run")
    train.add_argument(
        "--cache", type=Path, help="finished stages and data (default OUT/../.cache)"
    )
    train.set_defaults(run=_train, takes_overrides=True)

    evaluate = commands.add_parser(
        "eval",
        help="answer and judge held-out rows with a model",
        formatter_class=_RAW,
        epilog="examples:\n"
        "  vl eval --model runs/orsta_tiny/final --out runs/other --seed 7 FILE.parquet ...",
    )
    evaluate.add_argument("files", nargs="+", type=Path, help="V-Triune parquet files")
    evaluate.add_argument("--model", type=Path, required=True, help="folder of a saved model")
    evaluate.add_argument("--out", type=Path, required=True, help="where the evaluation is written")
    evaluate.add_argument("--samples", type=int, default=8, help="samples a row beside greedy")
    evaluate.add_argument("--seed", type=int, default=0)
    evaluate.set_defaults(run=_evaluate)

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

    report = commands.add_parser("report", help="render report.html of run directories")
    report.add_argument("runs", nargs="+", type=Path)
    report.set_defaults(run=_report)


def _train(arguments: argparse.Namespace) -> int:
    # a waiting OpenMP thread must not spin: with another busy process it costs 5 to 17 times
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from vl.stage import Interrupted

    from .data import prepare_data
    from .pipeline import run_recipe
    from .progress import Progress

    recipe, out = _resolve(arguments)
    cache = arguments.cache or out.parent / ".cache"
    progress = Progress()
    _check_out(out, resume=arguments.resume)
    try:
        dataset = prepare_data(recipe.data, cache_dir=cache, progress=progress)
        report = run_recipe(
            recipe, out, dataset, cache_dir=cache, resume=arguments.resume, progress=progress
        )
    except (Interrupted, KeyboardInterrupt) as stop:
        again = (
            f"vl train --out {out} --resume" if (out / "config.json").exists() else "the command"
        )
        raise KeyboardInterrupt(f"{stop or 'stopped'}; continue with: {again}") from None
    progress.note(f"report: {report}")
    return 0


def _check_out(out: Path, *, resume: bool) -> None:
    """Refuses an unusable --out before the data are drawn."""
    from vl.rundir import RunDirError

    if not resume and out.exists() and any(out.iterdir()):
        raise RunDirError(
            f"{out}: not empty; a new run needs an empty or absent directory. Choose another "
            "--out, continue this run with --resume, or delete it"
        )


def _resolve(arguments: argparse.Namespace) -> tuple[Recipe, Path]:
    import json

    from . import RECIPES
    from .recipe import RecipeError, override, recipe_from_json

    name: str | None = arguments.recipe
    if arguments.resume:
        out = arguments.out or (Path("runs") / name if name else None)
        if out is None:
            raise RecipeError("--resume needs --out, the directory of the run to continue")
        if arguments.rest:
            raise RecipeError(
                f"--resume: found overrides {' '.join(arguments.rest)!r}; a resumed run keeps its "
                "config.json. Start a new run to change fields"
            )
        name = str(out / "config.json")
    elif name is None:
        raise RecipeError(f"which recipe? known: {', '.join(RECIPES)}, or a config.json")
    else:
        out = arguments.out or Path("runs") / Path(name).stem
    if name in RECIPES:
        recipe = RECIPES[name](smoke=arguments.smoke)
    elif Path(name).is_file():
        content = json.loads(Path(name).read_text(encoding="utf-8"))
        content.pop("files", None)
        recipe = recipe_from_json(content)
    else:
        raise RecipeError(
            f"recipe {name!r}: neither a recipe ({', '.join(RECIPES)}) nor a config.json file"
        )
    return override(recipe, _overrides(arguments.rest)), out


def _overrides(rest: list[str]) -> dict[str, str]:
    from .recipe import RecipeError

    changes: dict[str, str] = {}
    words = iter(rest)
    for word in words:
        if not word.startswith("--"):
            raise RecipeError(f"{word!r}: fields are set as --field VALUE")
        name, equals, value = word[2:].partition("=")
        if not equals:
            value = next(words, "")
            if not value:
                raise RecipeError(f"--{name}: a value is missing; write --{name} VALUE")
        changes[name] = value
    return changes


def _evaluate(arguments: argparse.Namespace) -> int:
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
        Progress().note(f"report: {render_report(run)}")
    return 0
