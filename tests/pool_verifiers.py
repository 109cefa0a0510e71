"""Verifiers with every way to fail; pools of the tests load this module into their workers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from verifiers import VERIFIERS, Verdict, Verifier


def hang(detail):
    time.sleep(3600)


def burn(detail):
    """Compute in C, so that nothing of Python's runs meanwhile."""
    return 9**9 ** int(detail)


def crash(detail):
    os.kill(os.getpid(), signal.SIGSEGV)


def crash_once(detail):
    marker = Path(detail)
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def fail(detail):
    raise RuntimeError("broken verifier")


def eat(detail):
    return len(bytearray(int(detail) << 20))


def say(detail):
    sys.stdout.write("a verifier prints\n")
    sys.stdout.flush()
    sys.stderr.write("a verifier prints\n")


def start(detail):
    Path(detail).write_text(str(subprocess.Popen(["sleep", "3600"]).pid))
    time.sleep(3600)


ACTIONS = {
    "hang": hang,
    "burn": burn,
    "exit": lambda detail: os._exit(3),
    "crash": crash,
    "crash_once": crash_once,
    "raise": fail,
    "eat": eat,
    "say": say,
    "start": start,
}


def judge(sample, response, context):
    """1 for any response, after what its first word asks for."""
    what, _, detail = response.partition(" ")
    ACTIONS.get(what, str)(detail)
    if what == "strange":
        return Verdict(score=1.0, parts={"x": object()})
    reason = "x" * int(detail) if what == "long" else ""
    parts = {"pid": os.getpid(), "parent": os.getppid()}
    return Verdict.scored(1, reason=reason, parts=parts)


def judge_batch(items, context):
    return [judge(sample, response, context) for sample, response in items]


VERIFIERS["bad"] = Verifier(judge=judge, check_params=lambda params: None, version="7")
VERIFIERS["bad_many"] = Verifier(
    judge=judge, check_params=lambda params: None, version="8", judge_batch=judge_batch
)
