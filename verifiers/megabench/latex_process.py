"""Compares LaTeX through sympy in a process that is killed when one comparison takes too long."""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from functools import lru_cache
from typing import Literal, cast

from verifiers.megabench.registry import Unscored

Outcome = Literal["equal", "different", "unread", "failed"]
"""`unread`: sympy cannot read or compare one of the two, or takes too long. `failed`: sympy breaks
down in another way, which upstream scores 0."""

CPU_LIMIT_S = 10
"""Processor time of one comparison, after which it is unread; upstream: 15 s by the clock."""
_WALL_LIMIT_S = 120.0
_START_LIMIT_S = 120.0

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from verifiers.megabench.latex_worker import serve; serve(int(sys.argv[2]))"
)


@lru_cache(maxsize=4096)
def compare_latex(first: str, second: str, *, strict: bool = False) -> Outcome:
    """What sympy says of two expressions.

    Args:
        first: the one whose `equals` is asked.
        second: the other.
        strict: whether the whole text has to be an expression; else a start of it is enough.

    Raises: Unscored if sympy's LaTeX reader cannot be used here.
    """
    with _lock:
        return _process().ask(first, second, strict)


class _Process:
    """One warm reader; started when it is first asked, and again after it had to be killed."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.popen: subprocess.Popen[bytes] | None = None
        atexit.register(self.stop)

    def ask(self, first: str, second: str, strict: bool) -> Outcome:
        popen = self.popen or self._start()
        assert popen.stdin is not None
        try:
            popen.stdin.write(json.dumps([first, second, strict]).encode() + b"\n")
            popen.stdin.flush()
        except BrokenPipeError:
            self.stop()
            raise Unscored("the LaTeX reader ended before it was asked") from None
        answer = self._read(popen, _WALL_LIMIT_S)
        if answer is None:
            self.stop()
            return "unread"
        return cast(Outcome, answer)

    def stop(self) -> None:
        """End the process; a fork of this one leaves it alone."""
        if self.popen is not None and self.pid == os.getpid():
            self.popen.kill()
            self.popen.communicate()
        self.popen = None

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _PROGRAM, json.dumps(sys.path), str(CPU_LIMIT_S)]
        self.popen = popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        ready = self._read(popen, _START_LIMIT_S)
        if ready != "ready":
            self.stop()
            raise Unscored(
                f"sympy's LaTeX reader does not work here: {ready or 'it ended at once'}; "
                "install sympy and antlr4-python3-runtime 4.10 or newer"
            )
        return popen

    def _read(self, popen: subprocess.Popen[bytes], limit_s: float) -> str | None:
        """The next answer; None if the process died or the limit passed."""
        assert popen.stdout is not None
        ends = time.monotonic() + limit_s
        line = b""
        while not line.endswith(b"\n"):
            left = ends - time.monotonic()
            if left <= 0 or not select.select([popen.stdout], [], [], left)[0]:
                return None
            piece = os.read(popen.stdout.fileno(), 65536)
            if not piece:
                return None
            line += piece
        return json.loads(line)


_lock = threading.Lock()


@lru_cache(maxsize=2)
def _process_of(pid: int) -> _Process:
    del pid
    return _Process()


def _process() -> _Process:
    return _process_of(os.getpid())
