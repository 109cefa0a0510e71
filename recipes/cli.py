"""The command `vl`: train, eval, predict, report, score, megabench, serve, data and model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from data_specs import DataSpecError

from . import (
    commands_data,
    commands_megabench,
    commands_model,
    commands_run,
    commands_score,
    commands_serve,
    commands_train,
)

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

EXTRA_OF = {
    **dict.fromkeys(("torch", "torchvision", "transformers", "tokenizers", "jaxtyping"), "train"),
    **dict.fromkeys(("pydantic", "jinja2", "safetensors", "accelerate", "tensorboard"), "train"),
    **dict.fromkeys(("fastapi", "starlette", "uvicorn", "httptools", "orjson"), "serve"),
    **dict.fromkeys(("datasets", "sympy", "antlr4", "jieba", "cv2", "unidecode"), "megabench"),
    "peft": "train",
}
"""Package -> the extra of this distribution that installs it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, 2 for bad input, 130 after Ctrl-C."""
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and not getattr(arguments, "takes_overrides", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.rest = rest
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt as stop:
        _say(str(stop) or "stopped")
        return EXIT_INTERRUPTED
    except (DataSpecError, ValueError, OSError, ImportError) as error:
        _say(f"vl {arguments.command}: {error}{_remedy(error)}", style="red")
        return EXIT_BAD_INPUT


def build_parser() -> argparse.ArgumentParser:
    """All commands with their help."""
    parser = argparse.ArgumentParser(
        prog="vl",
        description="Train vision-language models by RL on reasoning and perception together.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  vl train orsta_tiny --smoke --out runs/smoke\n"
        "  vl data build --out data\n"
        "  vl report runs/smoke\n\n"
        "vl COMMAND --help shows the options and examples of a command.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands_train.add_parser(commands)
    commands_run.add_parsers(commands)
    commands_score.add_parser(commands)
    commands_megabench.add_parser(commands)
    commands_serve.add_parser(commands)
    commands_data.add_parsers(commands)
    commands_model.add_parsers(commands)
    return parser


def _say(text: str, style: str | None = None) -> None:
    Console(stderr=True).print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _remedy(error: Exception) -> str:
    """Which extra to install, if a package of one is missing."""
    package = (error.name or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    extra = EXTRA_OF.get(package)
    return f"; install it: pip install 'vl-triune[{extra}]'" if extra else ""


if __name__ == "__main__":
    sys.exit(main())
