"""`vl serve`: a reward server on this machine."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Adds the command of this file."""
    serve = commands.add_parser(
        "serve",
        help="judge responses over HTTP, in processes that can be killed",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  vl serve --port 8000 --workers 8\n"
        "  vl serve --host 0.0.0.0 --token-file token.txt\n\n"
        "Stop it with Ctrl-C or SIGTERM: it finishes what is in flight. docs/verifiers/server.md\n"
        "shows requests and answers.",
    )
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default 127.0.0.1); any other than loopback needs a token",
    )
    serve.add_argument("--port", type=int, default=8000, help="0 takes a free one (default 8000)")
    serve.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes that judge (default: one for each core)",
    )
    serve.add_argument(
        "--token-file", type=Path, help="file with the bearer token that requests must carry"
    )
    serve.add_argument(
        "--time-limit-s", type=float, default=2.0, help="longest time of one response (default 2)"
    )
    serve.add_argument(
        "--memory-limit-mb",
        type=int,
        default=2048,
        help="most memory of one worker beside what it starts with (default 2048)",
    )
    serve.add_argument(
        "--body-limit-mb", type=float, default=64, help="largest request in MiB (default 64)"
    )
    serve.add_argument(
        "--items-max", type=int, default=4096, help="most items in one request (default 4096)"
    )
    serve.add_argument(
        "--grace-s",
        type=float,
        default=30.0,
        help="how long requests in flight may go on after a stop (default 30)",
    )
    serve.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    from verifiers.server_guard import read_token
    from verifiers.server_run import ServerConfig, serve
    from verifiers.server_service import ServerLimits

    from .progress import show

    token = None
    if arguments.token_file is not None:
        token = read_token(arguments.token_file)
        if arguments.token_file.stat().st_mode & 0o077:
            show(
                f"warning: others on this machine can read {arguments.token_file}; "
                f"chmod 600 {arguments.token_file}"
            )
    config = ServerConfig(
        host=arguments.host,
        port=arguments.port,
        workers=arguments.workers,
        time_limit_s=arguments.time_limit_s,
        memory_limit_mb=arguments.memory_limit_mb,
        token=token,
        limits=ServerLimits(
            body_bytes_max=int(arguments.body_limit_mb * 2**20), items_max=arguments.items_max
        ),
        grace_s=arguments.grace_s,
    )
    many = "" if config.workers == 1 else "es"
    serve(
        config,
        on_ready=lambda url: show(f"serving on {url}, judged by {config.workers} process{many}"),
    )
    show("stopped")
    return 0
