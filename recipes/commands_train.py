"""`vl train`: a recipe or a stored run, with fields set by name, checked before torch is loaded."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.check_report import CheckReport

    from .recipe import Recipe

_RAW = argparse.RawDescriptionHelpFormatter


def add_parser(commands: Any) -> None:
    """Adds the command of this file."""
    train = commands.add_parser(
        "train",
        help="run a recipe from its data to its report",
        usage="vl train RECIPE [--out DIR] [--smoke] [--FIELD VALUE ...]\n"
        "       vl train RECIPE --check [--model DIR] [--smoke] [--FIELD VALUE ...]\n"
        "       vl train --out DIR --resume",
        allow_abbrev=False,
        formatter_class=_RAW,
        description="RECIPE is orsta_tiny, or the config.json of a run to repeat.",
        epilog="examples:\n"
        "  vl train orsta_tiny --out runs/orsta_tiny\n"
        "  vl train orsta_tiny --smoke --out runs/smoke\n"
        "  vl train orsta_tiny --out runs/dapo --algorithm dapo --rl.num_steps 200\n"
        "  vl train orsta_tiny --out runs/mine --data.train_files data/train/*.parquet \\\n"
        "      --data.heldout_files data/test/*.parquet\n"
        "  vl train orsta_tiny --out runs/served --scorers http://127.0.0.1:8000,http://127.0.0.1:8001\n"
        "  vl train orsta_tiny --check\n"
        "  vl train --out runs/orsta_tiny --resume\n\n"
        "--scorers N judges in N killable processes (default 1), --scorers URL,URL by servers;\n"
        "any field of the recipe can be set: --seed 1, --rl.optimizer.lr 1e-4, ... (config.json\n"
        "of a run shows them all)",
    )
    # RECIPE is found among the words that are left: as a positional, argparse would take the
    # value of an unknown --FIELD for it
    train.add_argument("--out", type=Path, help="run directory (default runs/RECIPE)")
    train.add_argument("--smoke", action="store_true", help="every stage in under a minute")
    train.add_argument("--resume", action="store_true", help="continue a stopped run")
    train.add_argument(
        "--check",
        action="store_true",
        help="do all up to the first step, measure one, train nothing; exit code 2 if it would "
        "go wrong",
    )
    train.add_argument(
        "--model", type=Path, metavar="DIR", help="with --check: weights to draw answers with"
    )
    train.add_argument(
        "--cache", type=Path, help="finished stages and data (default OUT/../.cache)"
    )
    train.set_defaults(run=_train, takes_overrides=True)


def _train(arguments: argparse.Namespace) -> int:
    # a waiting OpenMP thread must not spin: with another busy process it costs 5 to 17 times
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    name, changes = split_words(arguments.rest)
    out = _out_dir(arguments, name, changes)
    cache = arguments.cache or out.parent / ".cache"
    content = _stored_recipe(arguments, name, out)
    rows = _check_rows(content, changes)  # before torch is loaded
    if arguments.check:
        from .preflight import check_recipe
        from .progress import Progress

        recipe = _recipe(name, content, changes, smoke=arguments.smoke)
        return check_recipe(
            recipe, cache_dir=cache, model=arguments.model, report=rows, progress=Progress()
        )
    if rows is not None:
        rows.raise_if_bad()

    from vl.processes import launched_processes
    from vl.rl import TooManyUnscored
    from vl.stage import EarlyStop, Interrupted

    from .data import prepare_data
    from .pipeline import run_recipe
    from .progress import Progress

    recipe = _recipe(name, content, changes, smoke=arguments.smoke)
    processes = launched_processes()
    progress = Progress(quiet=not processes.is_main)
    try:
        if not processes.is_main:
            processes.wait()  # until the first has the data
        dataset = prepare_data(
            recipe.data, cache_dir=cache, progress=progress, checked=rows is not None
        )
        if processes.is_main:
            processes.wait()
        report = run_recipe(
            recipe,
            out,
            dataset,
            cache_dir=cache,
            resume=arguments.resume,
            progress=progress,
            processes=processes,
        )
        processes.wait()
    except (Interrupted, KeyboardInterrupt) as stop:
        raise KeyboardInterrupt(_how_to_go_on(str(stop), out, arguments.cache)) from None
    except (EarlyStop, TooManyUnscored) as error:
        raise ValueError(str(error)) from error
    finally:
        processes.leave()
    progress.note(f"report: {report}")
    return 0


def split_words(words: list[str]) -> tuple[str | None, dict[str, str]]:
    """The recipe's name, if the words start with one, and the fields to set."""
    name = words[0] if words and not words[0].startswith("--") else None
    values: dict[str, list[str]] = {}
    field = ""
    for word in words[1:] if name else words:
        if word.startswith("--"):
            field, equals, value = word[2:].partition("=")
            values[field] = [value] if equals else []
        else:
            values.setdefault(field, []).append(word)
    if "" in values:
        raise ValueError(f"{values[''][0]!r}: fields are set as --field VALUE")
    for field, found in values.items():
        if not found:
            raise ValueError(f"--{field}: a value is missing; write --{field} VALUE")
    return name, {
        field: found[0] if len(found) == 1 else json.dumps(found) for field, found in values.items()
    }


def _out_dir(arguments: argparse.Namespace, name: str | None, changes: dict[str, str]) -> Path:
    """The run directory, refused where it cannot be used."""
    from . import RECIPES

    out: Path | None = arguments.out
    if arguments.check and arguments.resume:
        raise ValueError("--check looks at a run before it starts; leave --resume out")
    if arguments.model and not arguments.check:
        raise ValueError(
            f"--model: found {arguments.model} without --check; a run trains its own model from "
            "new weights. Leave it out"
        )
    is_named = out is not None
    if out is None and name is not None:
        out = Path("runs") / Path(name).stem
    if arguments.resume:
        if out is None:
            raise ValueError("--resume needs --out, the directory of the run to continue")
        if changes or arguments.smoke:
            raise ValueError(
                f"--resume: found {' '.join(['--' + c for c in changes] or ['--smoke'])}; a "
                "resumed run keeps its config.json. Start a new run to change fields"
            )
    elif name is None or out is None:
        raise ValueError(
            f"which recipe? Name it first: vl train RECIPE ...; known: {', '.join(RECIPES)}, "
            "or a config.json"
        )
    elif (is_named or not arguments.check) and out.exists() and any(out.iterdir()):
        raise ValueError(
            f"{out}: not empty; a new run needs an empty or absent directory. Choose another "
            "--out, continue this run with --resume, or delete it"
        )
    return out


def _stored_recipe(
    arguments: argparse.Namespace, name: str | None, out: Path
) -> dict[str, Any] | None:
    """The content of the config.json to repeat or continue; None for a recipe by name."""
    from vl.rundir import read_json

    from . import RECIPES

    path = out / "config.json" if arguments.resume else Path(name or "")
    if not arguments.resume and name in RECIPES:
        return None
    if not path.is_file():
        wanted = "nothing to resume" if arguments.resume else f"recipe {name!r}"
        raise FileNotFoundError(
            f"{wanted}: found no file {path}; known recipes: {', '.join(RECIPES)}, or give the "
            "config.json of a run"
        )
    if arguments.smoke:
        raise ValueError("--smoke: a config.json already says how long it runs; leave it out")
    content = read_json(path) or {}
    content.pop("files", None)
    return content


def _check_rows(content: dict[str, Any] | None, changes: dict[str, str]) -> CheckReport | None:
    """What is wrong with a person's own rows; None if the run names none."""
    from .overrides import as_list

    stored = (content or {}).get("data", {})

    def files(field: str) -> list[str]:
        given = changes.get(f"data.{field}", changes.get(field))
        return list(stored.get(field, ())) if given is None else as_list(given)

    train, heldout = files("train_files"), files("heldout_files")
    if not train and not heldout:
        return None
    from tasks.check import check_files

    return check_files(train, heldout=heldout)


def _recipe(
    name: str | None, content: dict[str, Any] | None, changes: dict[str, str], *, smoke: bool
) -> Recipe:
    from . import RECIPES
    from .overrides import override
    from .recipe import recipe_from_json

    recipe = RECIPES[str(name)](smoke=smoke) if content is None else recipe_from_json(content)
    recipe = override(recipe, changes)
    train, heldout = (
        tuple(os.path.abspath(file) for file in files)  # so that config.json holds from anywhere
        for files in (recipe.data.train_files, recipe.data.heldout_files)
    )
    return replace(recipe, data=replace(recipe.data, train_files=train, heldout_files=heldout))


def _how_to_go_on(stop: str, out: Path, cache: Path | None) -> str:
    if not (out / "config.json").exists():
        return "stopped before the first step; nothing is lost, give the same command again"
    words = ["vl", "train", "--out", str(out), *(["--cache", str(cache)] if cache else [])]
    return f"{stop or 'stopped'}; continue with: {shlex.join([*words, '--resume'])}"
