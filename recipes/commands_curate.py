"""`vl data curate`: the rows worth training on, by rules and by how hard they are for a policy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.curate_difficulty import Policy

_RAW = argparse.RawDescriptionHelpFormatter


def add_parser(verbs: Any) -> None:
    """Adds the verb of this file to `vl data`."""
    curate = verbs.add_parser(
        "curate",
        help="keep the rows worth training on, by rules and by difficulty",
        formatter_class=_RAW,
        description="First rules, each with a name and its own numbers; then, with a policy, how\n"
        "often it is right. Writes OUT/{split}_{task}_{source}_{num}.parquet, what each rule did\n"
        "in OUT/curation.json, and scores in OUT/difficulty.jsonl. docs/curate.md has the rules.",
        epilog="examples:\n"
        "  vl data curate --list\n"
        "  vl data curate data/train --out data/curated\n"
        "  vl data curate data/train --out c --skip single_multi --set answer_length.max_chars=30\n"
        "  vl data curate data/train --out c --only choice true_false --rewrite-choices --dry-run\n"
        "  vl data curate data/train --out c --against data/test\n"
        "  vl data curate data/train --out c --endpoint http://host:8000/v1 --model NAME\n"
        "  vl data curate data/train --out c --rollouts run/rollouts.jsonl --band 'boxed=[1,7]/8'"
        "\n\nA stopped run goes on where it was: give the same command again.",
    )
    curate.add_argument("files", nargs="*", type=Path, help="parquet files, or folders of them")
    curate.add_argument("--out", type=Path, help="an empty or absent folder")
    curate.add_argument("--list", action="store_true", help="print the rules and their numbers")
    curate.add_argument(
        "--dry-run", action="store_true", help="print the table; write nothing, ask no live policy"
    )
    curate.add_argument("--seed", type=int, default=0, help="of what balances draw (default 0)")
    _add_rules(curate.add_argument_group("rules"))
    _add_policies(curate.add_argument_group("difficulty (at most one policy)"))
    curate.set_defaults(run=_curate)


def _add_rules(group: Any) -> None:
    group.add_argument("--only", nargs="+", metavar="NAME", help="run only these rules")
    group.add_argument("--rules", nargs="+", metavar="NAME", dest="only", help="same as --only")
    group.add_argument(
        "--skip", nargs="+", action="extend", default=[], metavar="NAME", help="leave out rules"
    )
    group.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME.PARAM=VALUE",
        help="another number for a rule",
    )
    group.add_argument(
        "--rewrite-choices",
        action="store_true",
        help="ask choice questions openly where an option makes an answer; choice.rewrite=1",
    )
    group.add_argument(
        "--against",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="evaluation rows (.parquet, folders) or questions (.txt, .jsonl) not to train on",
    )


def _add_policies(group: Any) -> None:
    group.add_argument(
        "--rollouts", nargs="+", type=Path, metavar="FILE", help="answers that a run has stored"
    )
    group.add_argument("--endpoint", metavar="URL", help="OpenAI-compatible, http://host:8000/v1")
    group.add_argument("--model", metavar="NAME", help="what the endpoint calls the model")
    group.add_argument("--api-key-file", type=Path, metavar="FILE", help="the endpoint's key")
    group.add_argument("--concurrency", type=int, default=8, help="rows asked at once (8)")
    group.add_argument("--retries", type=int, default=5, help="tries after a failed one (5)")
    group.add_argument("--model-dir", type=Path, metavar="DIR", help="a model that vl has saved")
    group.add_argument("--max-tokens", type=int, help="of an answer (2048; with --model-dir 48)")
    group.add_argument(
        "--band",
        nargs="+",
        action="extend",
        default=[],
        metavar="VERIFIER=[LOW,HIGH]/N",
        help="sum of scores of N answers that is kept, round brackets: the end is not; "
        "boxed is for verifiers without their own (boxed=[0,8)/8 detection=[2,10]/16)",
    )
    group.add_argument(
        "--iou-threshold", type=float, default=0.5, help="least IoU that a box scores (0.5)"
    )


def _curate(arguments: argparse.Namespace) -> int:
    from tasks.curate import CurateConfig, curate
    from tasks.curate_difficulty import read_bands
    from tasks.curate_rules import chosen_rules

    from .progress import Progress, show

    settings = list(arguments.set)
    if arguments.rewrite_choices:
        settings.append("choice.rewrite=1")
    rules = chosen_rules(arguments.only, arguments.skip, settings)
    if arguments.list:
        for line in _rule_lines():
            show(line)
        return 0
    if not arguments.files or not arguments.out:
        missing = "--out FOLDER" if arguments.files else "the files to curate"
        raise ValueError(f"{missing} is missing; vl data curate IN... --out FOLDER")
    config = CurateConfig(
        rules=rules,
        against=tuple(arguments.against),
        bands=read_bands(arguments.band),
        iou_threshold=arguments.iou_threshold,
        seed=arguments.seed,
    )
    policy = _policy(arguments)
    total = _num_rows(arguments.files)
    progress = Progress()
    with progress.task("curating", total) as advance:
        report = curate(
            arguments.files,
            arguments.out,
            config,
            policy=policy,
            dry_run=arguments.dry_run,
            progress=lambda _what, done: advance(done),
        )
    for line in report.lines():
        show(line)
    if report.num_not_asked:
        progress.note(f"{report.num_not_asked} rows would be asked; a dry run does not")
    what = "would be kept" if arguments.dry_run else f"kept, under {arguments.out}"
    progress.note(f"{report.num_kept} of {report.num_rows} rows {what}")
    return 0


def _rule_lines() -> list[str]:
    from tasks.curate_rules import RULES

    lines: list[str] = []
    for name, rule in RULES.items():
        tasks = "all tasks" if rule.tasks is None else ", ".join(sorted(rule.tasks))
        params = ", ".join(f"{param}={value:g}" for param, value in rule.params.items())
        lines.append(f"{name:<20}{rule.about} [{tasks}]{f'; {params}' if params else ''}")
        lines.append(f"{'':<20}source: {rule.source}")
    return lines


def _num_rows(files: Sequence[Path]) -> int:
    from data_specs import count_rows, parquet_files

    return sum(map(count_rows, parquet_files(files)))


def _policy(arguments: argparse.Namespace) -> Policy | None:
    """The policy that is asked how hard rows are; None without one."""
    named = [
        flag
        for flag in ("--rollouts", "--endpoint", "--model-dir")
        if getattr(arguments, flag[2:].replace("-", "_"))
    ]
    if len(named) > 1:
        raise ValueError(f"{' and '.join(named)} are given; allowed: one of them")
    if arguments.rollouts:
        from .curate_stored import StoredPolicy

        return StoredPolicy(arguments.rollouts)
    if arguments.endpoint:
        from .curate_endpoint import EndpointPolicy

        if not arguments.model:
            raise ValueError("--endpoint without --model; give the name that the endpoint knows")
        key = arguments.api_key_file
        return EndpointPolicy(
            url=arguments.endpoint,
            model=arguments.model,
            concurrency=arguments.concurrency,
            retries=arguments.retries,
            max_tokens=2048 if arguments.max_tokens is None else arguments.max_tokens,
            api_key=key.read_text(encoding="utf-8").strip() if key else None,
        )
    if arguments.model_dir:
        from .curate_model import ModelPolicy

        most = 48 if arguments.max_tokens is None else arguments.max_tokens
        return ModelPolicy(arguments.model_dir, seed=arguments.seed, max_new_tokens=most)
    return None
