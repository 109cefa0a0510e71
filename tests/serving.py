"""Reward servers for tests: real ones as subprocesses, and one that misbehaves as it is told."""

import asyncio
import json
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import NamedTuple

from verifiers.scoring import score_many
from verifiers.server_request import read_request
from verifiers.wire import encode_answer

ROW = {
    "data_source": "made",
    "ability": "math",
    "reward_model": {"verifier": "mathverify", "ground_truth": "\\boxed{7}"},
}


class ServerProcess(NamedTuple):
    url: str
    process: subprocess.Popen


@contextmanager
def vl_serve(*options, env=None):
    """`vl serve` on a free port, answering; killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "recipes.cli", "serve", "--port", "0", *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    with process:
        try:
            for line in process.stdout:
                found = re.search(r"serving on (\S+),", line)
                if found:
                    yield ServerProcess(found.group(1), process)
                    break
            else:
                raise AssertionError(f"vl serve did not start: {process.stderr.read()}")
        finally:
            process.kill()


class Reply(NamedTuple):
    status: int
    body: bytes


DROP = Reply(0, b"")
"""Close the connection instead of answering."""


def judged(request):
    """The true answer to a request's JSON."""
    batch = read_request(json.dumps(request).encode(), items_max=10_000)
    verdicts = score_many(batch.items, batch.context)
    return Reply(200, encode_answer(verdicts, batch.request_id, "0"))


class FakeServer:
    """A server whose answer to each request is what `behave` says, a Reply or a coroutine's.

    Use it as a context manager.
    """

    def __init__(self, behave=judged):
        self._behave = behave
        self.requests = []
        """The JSON of every request, in order."""
        self.headers = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(5)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self):
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self):
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=2**26)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _connection(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(re.search(rb"(?i)content-length: (\d+)", head).group(1))
                request = json.loads(await reader.readexactly(length))
                self.requests.append(request)
                self.headers.append(head.decode())
                reply = self._behave(request)
                if asyncio.iscoroutine(reply):
                    reply = await reply
                if reply is DROP:
                    break
                head = f"HTTP/1.1 {reply.status} X\r\ncontent-length: {len(reply.body)}\r\n\r\n"
                writer.write(head.encode() + reply.body)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()


_SAMPLE = re.compile(
    r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\.)*",?)*)\})? (\S+)'
)


def read_metrics(text):
    """(name, labels as a frozenset of pairs) -> value, by the grammar of Prometheus' text format.

    Also that every family has its HELP and TYPE before its samples, once, and no sample twice.
    """
    assert text.endswith("\n")
    families, samples = {}, {}
    for line in text.splitlines():
        if line.startswith("# "):
            _, word, name, rest = line.split(" ", 3)
            assert word in ("HELP", "TYPE") and rest
            assert word not in families.setdefault(name, {}), f"second {word} of {name}"
            families[name][word] = rest
            continue
        name, labels, value = _SAMPLE.fullmatch(line).groups()
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        kind = families.get(name, families.get(family))["TYPE"]
        assert (kind == "counter") == name.endswith("_total")
        pairs = frozenset(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or ""))
        assert (name, pairs) not in samples
        samples[name, pairs] = float(value)
    return samples
