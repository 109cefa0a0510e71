"""The pool's processes as their owner sees them: one zygote, and the workers it forks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from time import monotonic

from verifiers.pool_job import Piece
from verifiers.pool_wire import FrameReader
from verifiers.pool_zygote import FORK, KILL, REQUEST, YIELD

# The path is the owner's, so that the same packages are found; its main module is not run again.
_BOOT = (
    "import json, sys; settings = json.loads(sys.argv[1]); sys.path[:] = settings.pop('path'); "
    "from verifiers.pool_zygote import serve; serve(**settings)"
)
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_ENDING_S = 5.0
_SHOWN_CHARS_MAX = 2000


class Worker:
    """One worker: its two channels, the piece it has, and since when."""

    def __init__(self, number: int, commands: socket.socket, records: int) -> None:
        self.number = number
        self.commands = commands
        self.records = records
        self.command_reader = FrameReader(commands.fileno())
        self.record_reader = FrameReader(records)
        self.unsent = memoryview(b"")
        self.is_born = False
        self.piece: Piece | None = None
        self.slow_s = 0.0
        """How long an item of the piece may take before it is slow."""
        self.begun_at: float | None = None
        """When it took up its piece; None if it has not yet."""
        self.started = 0.0
        """When it began the item it is on, or was sent the piece; seconds of `monotonic`."""
        self.check_at = 0.0
        """When to look whether that item takes too long."""
        self.is_slow = False
        """On one item for so long that others must not wait for it."""
        self._waited_before_s = 0.0
        self._schedule: int | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it can be given a piece."""
        return self.is_born and self.piece is None

    def born(self, pid: int) -> None:
        """It runs now, and has this process id."""
        self.is_born = True
        with contextlib.suppress(OSError):  # Linux only
            self._schedule = os.open(f"/proc/{pid}/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def begin(self, piece: Piece, slow_s: float) -> None:
        """Its next piece; `send` sends it."""
        self.piece = piece
        self.unsent = memoryview(piece.message(slow_s))
        self.slow_s = slow_s
        self.begun_at = None
        self.started = monotonic()
        self.check_at = self.started + slow_s
        self._waited_before_s = self._waited_s()

    def own_s(self, now: float) -> float:
        """Seconds spent on the item so far, without those in which no processor was free."""
        return self._own(now - self.started)

    def piece_own_s(self) -> float:
        """Seconds spent on what it has judged of its piece, without those of the same kind."""
        return 0.0 if self.begun_at is None else self._own(self.started - self.begun_at)

    def _own(self, seconds: float) -> float:
        return max(0.0, seconds - max(0.0, self._waited_s() - self._waited_before_s))

    def _waited_s(self) -> float:
        """Time in which the process could run and was not let; 0 where that is not told."""
        if self._schedule is None:
            return 0.0
        try:
            return int(os.pread(self._schedule, 96, 0).split()[1]) / 1e9
        except (OSError, IndexError):
            return 0.0

    def send(self) -> bool:
        """Send what the channel takes now; True if that was all."""
        try:
            while self.unsent:
                self.unsent = self.unsent[self.commands.send(self.unsent) :]
        except BlockingIOError:
            return False
        except OSError:  # it died, which the zygote reports
            self.unsent = memoryview(b"")
        return True

    def close(self) -> None:
        """Close the channels: an idle worker ends, as nobody can ask it any more."""
        self.commands.close()
        os.close(self.records)
        if self._schedule is not None:
            os.close(self._schedule)


class Zygote:
    """The process that forks workers, by request over a socket."""

    def __init__(self, preload: tuple[str, ...], memory_limit_mb: int) -> None:
        """Start it. The thread that does must live as long as the zygote is to live."""
        self.control, theirs = socket.socketpair()
        self.reader = FrameReader(self.control.fileno())
        self.is_ready = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        settings = {
            "path": [entry for entry in sys.path if isinstance(entry, str)],  # pyright: ignore[reportUnnecessaryIsInstance]
            "fd": theirs.fileno(),
            "parent": os.getpid(),
            "preload": preload,
            "memory_limit_mb": memory_limit_mb,
        }
        self.control.setblocking(False)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=(theirs.fileno(),),
                env=os.environ | _ONE_THREAD,
                start_new_session=True,  # Ctrl-C in a terminal is its owner's business
            )
        except OSError:
            self.control.close()
            self._errors.close()
            raise
        finally:
            theirs.close()

    def fork(self, number: int) -> Worker:
        """A worker that is on its way; `born` will say that it is there."""
        ours, theirs = socket.socketpair()
        records, theirs_records = os.pipe()
        ours.setblocking(False)
        os.set_blocking(records, False)
        with theirs:
            self._ask(FORK, number, [theirs.fileno(), theirs_records])
        os.close(theirs_records)
        return Worker(number, ours, records)

    def kill(self, number: int) -> None:
        """End a worker and what it has started, whatever it does. `died` will follow."""
        self._ask(KILL, number, [])

    def let_yield(self, number: int) -> None:
        """From now on a worker gets out of the way of others that want a processor."""
        self._ask(YIELD, number, [])

    def _ask(self, what: bytes, number: int, fds: list[int]) -> None:
        try:
            socket.send_fds(self.control, [REQUEST.pack(what, number)], fds)
        except OSError:  # it is gone, or no longer listens; its end is seen at its socket
            self._process.kill()

    def close(self) -> str:
        """End it, and with it all workers; what it wrote to stderr while it started."""
        self.control.close()
        if not self.is_ready:
            self._process.kill()
        try:
            self._process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with self._errors:
            self._errors.seek(0)
            text = self._errors.read().decode(errors="replace")
        return text.strip()[-_SHOWN_CHARS_MAX:] or f"it ended with {exit_text(self.exit_code)}"

    @property
    def exit_code(self) -> int:
        """As subprocess has it; 0 while it runs."""
        return self._process.returncode or 0

    def abandon(self) -> None:
        """Forget it in a forked copy of its owner: it is not that process's child."""
        self.control.close()
        self._errors.close()
        self._process.returncode = 0


def exit_text(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"signal {-status}"
