"""`vl megabench`: ask a model, score responses, compare and tabulate, check the gold answers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_specs.megabench import Config
    from verifiers.megabench.registry import Judge
    from verifiers.megabench.score_file import ScoreOptions

_RAW = argparse.RawDescriptionHelpFormatter
_CONFIGS = ("core", "open", "core_single_image", "open_single_image")  # data_specs.megabench's
_HUB_ID = "TIGER-Lab/MEGA-Bench"
_MAX_NEW_TOKENS = 8192


def add_parser(commands: Any) -> None:
    """Adds the command of this file."""
    parent = commands.add_parser(
        "megabench",
        help="MEGA-Bench: ask a model, score responses, compare, tabulate",
        formatter_class=_RAW,
        description="Scores that agree with MEGA-Bench's own evaluation; its files are read and "
        "written.",
        epilog="examples:\n"
        "  vl megabench run --model M --endpoint http://host:8000/v1 --media data/mb --out runs/m\n"
        "  vl megabench score runs/m/all_query_responses.json\n"
        "  vl megabench table base=runs/a tuned=runs/b\n"
        "  vl megabench compare runs/a runs/b\n"
        "  vl megabench sanity\n\n"
        "vl megabench VERB --help shows the options of a verb.",
    )
    verbs = parent.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_run(verbs)
    _add_score(verbs)
    _add_compare(verbs)
    _add_table(verbs)
    _add_sanity(verbs)


def _add_run(verbs: Any) -> None:
    run = verbs.add_parser(
        "run",
        help="ask a model every query, then score the responses",
        formatter_class=_RAW,
        description="Asks greedily and writes all_query_responses.json in the official layout. "
        "Stopped at\nany moment, the same command goes on where it was.",
        epilog="examples:\n"
        "  vl megabench run --model runs/a/final --media data/mb --out runs/m --tasks waldo\n"
        "  vl megabench run --model M --endpoint http://host:8000/v1 --config core --out runs/m",
    )
    run.add_argument("--model", required=True, help="folder of a saved model, or a served name")
    run.add_argument("--endpoint", metavar="URL", help="OpenAI-compatible address, .../v1")
    run.add_argument("--api-key-file", type=Path, help="file whose text is the endpoint's key")
    run.add_argument("--concurrency", type=int, default=8, help="requests at a time (default 8)")
    run.add_argument("--max-new-tokens", type=int, default=_MAX_NEW_TOKENS)
    run.add_argument("--tasks", nargs="+", metavar="NAME", help="ask these tasks only")
    run.add_argument(
        "--max-images", type=int, default=64, help="images of a query (default 64; 0 = no limit)"
    )
    run.add_argument(
        "--demo-frames", type=int, default=8, help="frames, or images, of the example (default 8)"
    )
    run.add_argument(
        "--video-sampling",
        choices=("fps", "max"),
        default="fps",
        help="at most a frame a second, or as many as fit",
    )
    run.add_argument(
        "--keep-refusals",
        action="store_true",
        help="a query that the endpoint refuses gets the empty response",
    )
    run.add_argument("--no-score", action="store_true", help="only ask")
    _add_data(run, default=("core",))
    _add_scoring(run)
    run.add_argument("--out", type=Path, required=True, help="folder for responses and scores")
    run.set_defaults(run=_run)


def _add_score(verbs: Any) -> None:
    score = verbs.add_parser(
        "score",
        help="score a response file, ours or upstream's",
        formatter_class=_RAW,
        description="Writes data_with_scores.json, analysis/ and report.html. What cannot be "
        "judged is unscored\nand in no mean; a second call with a judge fills it in.",
        epilog="examples:\n"
        "  vl megabench score runs/m/all_query_responses.json\n"
        "  vl megabench score FILE --data path/of/dataset --mode sound --out sound\n"
        "  vl megabench score FILE --judge-model gpt-4o-2024-08-06 "
        "--judge-endpoint https://api.openai.com/v1 --judge-key-file key",
    )
    score.add_argument("responses", type=Path, help="all_query_responses.json, or a scored file")
    _add_data(score, default=("core", "open"))
    _add_scoring(score)
    score.add_argument("--out", type=Path, help="folder (default: that of the responses)")
    score.set_defaults(run=_score)


def _add_compare(verbs: Any) -> None:
    compare = verbs.add_parser(
        "compare",
        help="two scored runs, query by query, with 95 %% intervals",
        formatter_class=_RAW,
        epilog="example:\n  vl megabench compare runs/base runs/tuned --out difference.json",
    )
    compare.add_argument("first", type=Path, help="data_with_scores.json, or its folder")
    compare.add_argument("second", type=Path)
    compare.add_argument("--out", type=Path, metavar="FILE", help="write the differences there")
    compare.add_argument("--seed", type=int, default=0, help="of the resamples (default 0)")
    compare.set_defaults(run=_compare)


def _add_table(verbs: Any) -> None:
    table = verbs.add_parser(
        "table",
        help="scored runs in the columns of the paper's table",
        formatter_class=_RAW,
        epilog="example:\n  vl megabench table base=runs/base tuned=runs/tuned --format md",
    )
    table.add_argument(
        "runs",
        nargs="+",
        metavar="[NAME=]PATH",
        help="data_with_scores.json, task_results.json, or a folder of scored files",
    )
    table.add_argument(
        "--tasks",
        choices=("core", "open", "all"),
        default="core",
        help="which tasks the means are over (default core)",
    )
    table.add_argument("--format", choices=("text", "md", "csv", "latex"), default="text")
    table.set_defaults(run=_table)


def _add_sanity(verbs: Any) -> None:
    sanity = verbs.add_parser(
        "sanity",
        help="score the gold answers and list every task that does not give 1",
        formatter_class=_RAW,
        description="Program tasks and empty references have no gold answer and are passed over; "
        "open tasks need a\njudge and are left out.",
        epilog="example:\n  vl megabench sanity --data path/of/dataset",
    )
    _add_data(sanity, default=("core",))
    sanity.add_argument("--mode", choices=("compat", "sound"), default="compat")
    sanity.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    sanity.set_defaults(run=_sanity)


def _add_data(parser: argparse.ArgumentParser, default: tuple[str, ...]) -> None:
    parser.add_argument(
        "--data",
        default=_HUB_ID,
        metavar="SOURCE",
        help=f"folder of the downloaded dataset, a parquet file, or a Hub id (default {_HUB_ID})",
    )
    parser.add_argument(
        "--config",
        nargs="+",
        choices=_CONFIGS,
        default=list(default),
        help=f"configurations (default {' '.join(default)})",
    )


def _add_scoring(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--media", type=Path, default=Path(), help="folder that holds data/ (default here)"
    )
    parser.add_argument(
        "--mode",
        choices=("compat", "sound"),
        default="compat",
        help="upstream's scores (default), or those with its oddities corrected",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that score (default 2)")
    parser.add_argument("--judge-endpoint", metavar="URL", help="OpenAI-compatible address")
    parser.add_argument("--judge-model", help="model that judges open tasks")
    parser.add_argument("--judge-key-file", type=Path, help="file whose text is the judge's key")
    parser.add_argument(
        "--judge-cache", type=Path, help="folder of the judge's replies (default OUT/judge)"
    )


def _run(arguments: argparse.Namespace) -> int:
    from tasks.megabench import Budget

    from .megabench_ask import Asker, EndpointAsker, ModelAsker
    from .megabench_run import RESPONSES, RunPlan, num_unanswered, run_queries
    from .megabench_score import read_dataset, score_file
    from .progress import Progress

    judge, options = _judge(arguments, arguments.out), _options(arguments)
    tasks = read_dataset(arguments.data, _configs(arguments))
    only = _only(arguments.tasks, [task.name for task in tasks])
    budget = Budget(
        max_images=arguments.max_images,
        max_demo_frames=arguments.demo_frames,
        video_sampling=arguments.video_sampling,
    )
    plan = RunPlan(
        tasks=tasks,
        only=only,
        media=arguments.media,
        out=arguments.out,
        budget=budget,
        keep_refusals=arguments.keep_refusals,
    )
    progress = Progress()
    num_queries = num_unanswered(plan)
    asked = [task for task in tasks if only is None or task.name in only]
    in_all = sum(len(task.queries) for task in asked)
    progress.note(f"{len(asked)} tasks, {in_all} queries, {num_queries} of them to ask")
    asker: Asker
    if arguments.endpoint:
        asker = EndpointAsker(_endpoint(arguments), budget)
    else:
        asker = ModelAsker.load(Path(arguments.model), budget, arguments.max_new_tokens)
    with progress.task("asking", num_queries) as advance:
        result = run_queries(plan, asker, on_answer=advance)
    progress.note(f"asked {result.num_asked}, had {result.num_kept}")
    if result.refused:
        progress.note(
            f"{len(result.refused)} queries were refused, such as {result.refused[0]}; give "
            "--keep-refusals to score them as empty responses"
        )
    if not arguments.no_score:
        path = arguments.out / RESPONSES
        score_file(path, asked, arguments.out, judge=judge, options=options)
    return 0


def _score(arguments: argparse.Namespace) -> int:
    from .megabench_score import read_dataset, score_file

    if not arguments.responses.exists():
        raise FileNotFoundError(f"{arguments.responses}: does not exist; give a response file")
    out = arguments.out or arguments.responses.parent
    judge, options = _judge(arguments, out), _options(arguments)
    tasks = read_dataset(arguments.data, _configs(arguments))
    score_file(arguments.responses, tasks, out, judge=judge, options=options)
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from .megabench_score import compare_files

    compare_files(arguments.first, arguments.second, out=arguments.out, seed=arguments.seed)
    return 0


def _table(arguments: argparse.Namespace) -> int:
    from .megabench_score import show_table

    models: dict[str, Path] = {}
    for given in arguments.runs:
        name, equals, path = given.rpartition("=")
        name = name if equals else _name_of(Path(path))
        if name in models:
            raise ValueError(f"{given}: {name!r} is there twice; give names, as in NAME=PATH")
        models[name] = Path(path)
    show_table(models, arguments.tasks, arguments.format)
    return 0


def _sanity(arguments: argparse.Namespace) -> int:
    from verifiers.megabench.gold import check_gold

    from .megabench_score import read_dataset
    from .megabench_table import sanity_table
    from .progress import Progress, show

    tasks = read_dataset(arguments.data, _configs(arguments))
    num_queries = sum(len(task.queries) for task in tasks)
    with Progress().task("scoring gold answers", num_queries) as advance:
        found = check_gold(tasks, mode=arguments.mode, workers=arguments.workers, on_query=advance)
    names = {imperfect.task for imperfect in found}
    show(f"{len(names)} of {len(tasks)} tasks do not give their gold answers 1")
    if found:
        show(sanity_table(found, tasks))
    return 0


def _configs(arguments: argparse.Namespace) -> list[Config]:
    return arguments.config


def _options(arguments: argparse.Namespace) -> ScoreOptions:
    from verifiers.megabench.score_file import ScoreOptions

    if arguments.workers < 1:
        raise ValueError(f"--workers is {arguments.workers}; allowed: at least 1")
    return ScoreOptions(mode=arguments.mode, workers=arguments.workers, media=arguments.media)


def _judge(arguments: argparse.Namespace, out: Path) -> Judge | None:
    given = arguments.judge_endpoint, arguments.judge_model
    if given == (None, None):
        return None
    if None in given:
        raise ValueError("--judge-endpoint and --judge-model: give both, or neither")
    from verifiers.megabench.judge import EndpointJudge

    return EndpointJudge(
        url=arguments.judge_endpoint,
        model=arguments.judge_model,
        api_key=_key(arguments.judge_key_file),
        cache=arguments.judge_cache or out / "judge",
    )


def _endpoint(arguments: argparse.Namespace) -> Any:
    from .curate_endpoint import EndpointPolicy

    return EndpointPolicy(
        url=arguments.endpoint,
        model=arguments.model,
        concurrency=arguments.concurrency,
        max_tokens=arguments.max_new_tokens,
        api_key=_key(arguments.api_key_file),
    )


def _key(path: Path | None) -> str | None:
    return None if path is None else path.read_text(encoding="utf-8").strip()


def _only(names: list[str] | None, known: list[str]) -> frozenset[str] | None:
    """The tasks to ask; a name that is none is shown with its likeness."""
    if names is None:
        return None
    from difflib import get_close_matches

    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=3)
            hint = f" (did you mean {', '.join(near)}?)" if near else ""
            raise ValueError(f"--tasks: {name!r} is no task of these configurations{hint}")
    return frozenset(names)


def _name_of(path: Path) -> str:
    """A run's name: its folder's."""
    folder = path if path.is_dir() else path.resolve().parent
    return folder.parent.name if folder.name == "analysis" else folder.name
