"""The command `vl`: train, eval, predict, score, report, data build, data check."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, 2 for bad input, 130 after Ctrl-C."""
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and not getattr(arguments, "takes_overrides", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.rest = rest
    console = Console(stderr=True)
    from data_specs import DataSpecError

    try:
        return arguments.run(arguments)
    except KeyboardInterrupt as stop:
        text = str(stop) or "stopped"
        console.print(text, markup=False, highlight=False)
        return EXIT_INTERRUPTED
    except (DataSpecError, ValueError, FileNotFoundError, ImportError) as error:
        console.print(
            f"vl {arguments.command}: {error}", style="red", markup=False, highlight=False
        )
        return EXIT_BAD_INPUT


def build_parser() -> argparse.ArgumentParser:
    """All commands with their help."""
    parser = argparse.ArgumentParser(
        prog="vl",
        description="Train vision-language models by RL on reasoning and perception together.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    from . import commands_data, commands_run

    commands_run.add_parsers(commands)
    commands_data.add_parsers(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
