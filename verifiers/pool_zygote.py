"""The process that workers are copies of: it loads the verifiers once and forks on request.

A fork of a training process is unsafe (threads, CUDA) and a fresh interpreter takes a second and
runs the user's script again. This process is neither: it starts by itself, stays
single-threaded, and a copy of it is ready, and warm, in milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import resource
import select
import signal
import socket
import struct
import sys
from types import FrameType

from data_specs import RewardSpec, Sample
from verifiers.pool_wire import frame
from verifiers.registry import find_verifier, verifier_names
from verifiers.scoring import score_many
from verifiers.worker import WorkerSettings, peak_mb, work

REQUEST = struct.Struct("<cQ")
"""A request to the zygote: FORK, KILL or YIELD, and the worker's number."""
FORK, KILL, YIELD = b"f", b"k", b"y"

_PR_SET_PDEATHSIG = 1
_MB = 1 << 20
_NICER_BY = 5  # a quarter of a processor that an ordinary process wants too
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)

_WARM_UP = (
    ("mathverify", r"\boxed{\sin^2(x)+\cos^2(x)}", r"\boxed{1}"),
    ("mathverify", r"\boxed{(x+1)^2}", r"\boxed{x^2+2x+1}"),
    ("mathverify", r"\boxed{\frac{\sqrt{8}}{y}}", r"\boxed{\frac{2\sqrt{2}}{y}}"),
    ("mathverify", r"\boxed{x \in [1, \pi)}", r"\boxed{[1, \pi)}"),
    ("number", r"\boxed{7}", r"\boxed{seven}"),
    ("choice", r"\boxed{B}", r"\boxed{(B)}"),
    ("text", r"\boxed{one two}", r"\boxed{one too}"),
)
"""(verifier, reference, response): what loads and fills whatever is made at first use."""
_WARM_UP_BOXES = (
    "<answer>[{'bbox_2d': [10, 10, 90, 90], 'label': 'a'},"
    " {'bbox_2d': [20, 30, 60, 50], 'label': 'b'}]</answer>"
)


def serve(fd: int, parent: int, preload: list[str], memory_limit_mb: int) -> None:
    """Fork and kill workers as the socket `fd` asks, until its other end is gone.

    What it says there: `ready` with the verifiers it knows, then `born`, `unborn` and `died`.

    Args:
        fd: descriptor of the control socket.
        parent: process id of the pool's owner; this process ends with it.
        preload: modules to import for all workers.
        memory_limit_mb: see WorkerSettings.
    """
    _end_with(parent)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    control = socket.socket(fileno=fd)
    for name in preload:
        importlib.import_module(name)
    known = _load()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)  # until here the owner reads it; nobody reads what verifiers print
    os.close(null)
    gc.collect()
    gc.freeze()  # what is shared now stays shared: the collector writes into what it visits
    control.sendall(frame(("ready", known)))
    settings = WorkerSettings(memory_limit_mb=memory_limit_mb)
    _Zygote(control, settings).serve()


def _load() -> dict[str, tuple[str, bool]]:
    """Version of every verifier, and whether it judges many at once; all libraries are loaded."""
    for library in ("math_verify", "rapidfuzz.distance", "scipy.optimize"):
        importlib.import_module(library)
    known: dict[str, tuple[str, bool]] = {}
    for name in verifier_names():
        known[name] = ("", False)
        # Another package's broken verifier stops nobody; it shows where its rows are judged.
        with contextlib.suppress(Exception):
            verifier = find_verifier(name)
            if verifier is not None:
                known[name] = (verifier.version, verifier.judge_batch is not None)
    boxes = [("detection", _WARM_UP_BOXES, _WARM_UP_BOXES)] * 2
    score_many([(_sample(name, gold), answer) for name, gold, answer in (*_WARM_UP, *boxes)])
    return known


def _sample(verifier: str, reference: str) -> Sample:
    reward = RewardSpec(
        verifier=verifier, answer=reference, ground_truth=reference, format_ratio=0.5
    )
    return Sample(id="", source="", task="", messages=(), images=(), reward=reward)


class _Zygote:
    def __init__(self, control: socket.socket, settings: WorkerSettings) -> None:
        self._control = control
        self._settings = settings
        self._pids: dict[int, int] = {}
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)

    def serve(self) -> None:
        signal.signal(signal.SIGCHLD, _ignore)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        while True:
            readable, _, _ = select.select([self._control, self._woken], (), ())
            if self._woken in readable:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
                self._report_ends()
            if self._control in readable:
                request, fds, _, _ = socket.recv_fds(self._control, REQUEST.size, 2, _CLOSE_ON_EXEC)
                if len(request) < REQUEST.size:
                    break
                self._answer(request, fds)
        for number, pid in self._pids.items():
            self._answer(REQUEST.pack(KILL, number), [])
            os.waitpid(pid, 0)
        os._exit(0)

    def _answer(self, request: bytes, fds: list[int]) -> None:
        what, number = REQUEST.unpack(request)
        if what != FORK:
            # Nobody else has this process id, as we have not reaped its worker.
            with contextlib.suppress(OSError):
                if (pid := self._pids.get(number)) is None:
                    return
                if what == KILL:
                    os.killpg(pid, signal.SIGKILL)
                else:
                    nice = os.getpriority(os.PRIO_PROCESS, 0)
                    os.setpriority(os.PRIO_PGRP, pid, nice + _NICER_BY)
            return
        zygote = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._say("unborn", number, str(error))
        else:
            if pid == 0:
                self._become_worker(zygote, *fds)
            with contextlib.suppress(OSError):  # it may have done so itself, or be gone
                os.setpgid(pid, pid)
            self._pids[number] = pid
            self._say("born", number, pid)
        for fd in fds:
            os.close(fd)

    def _become_worker(self, zygote: int, commands: int, records: int) -> None:
        """Never returns."""
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (self._control, self._woken, self._waker):
                end.close()
            os.setpgid(0, 0)
            _end_with(zygote)
            _limit_memory(self._settings.memory_limit_mb)
            work(socket.socket(fileno=commands), records, self._settings)
            os._exit(0)
        finally:
            os._exit(1)

    def _report_ends(self) -> None:
        while self._pids:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            grown_mb = peak_mb(usage) - peak_mb(resource.getrusage(resource.RUSAGE_SELF))
            for number, own in list(self._pids.items()):
                if own == pid:
                    del self._pids[number]
                    self._say("died", number, os.waitstatus_to_exitcode(status), grown_mb)

    def _say(self, *message: object) -> None:
        try:
            self._control.sendall(frame(message))
        except OSError:  # the pool is gone, which the next read shows
            return


def _ignore(number: int, frame: FrameType | None) -> None:
    """A handler, so that the signal wakes `select`; ignoring it would not."""


def _end_with(parent: int) -> None:
    """End this process when its parent ends, even if it is busy in C; Linux only.

    Elsewhere a process ends when it next looks at its socket.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _limit_memory(limit_mb: int) -> None:
    """Bound what this process may add to its memory, and let it be the first to go; Linux only."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = used + limit_mb * _MB
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
