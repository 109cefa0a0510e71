"""Load on two reward servers: ours and V-Triune's, one answer a request from kept connections."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from reward_cases import BOMBS, Case, box_cases, math_cases

from data_specs import sample_to_row

CLIENTS = 32
WORKERS = 2
WARM_S = 2.0
BOMBS_PER_S = 2.0

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


class Load(NamedTuple):
    """What the clients saw."""

    answers_per_s: float
    latencies_s: list[float]
    """Of ordinary answers, sorted."""
    num_failed: int
    """Answers with another status than 200."""

    def at(self, share: float) -> float:
        """Milliseconds within which that share of the ordinary answers came."""
        return 1e3 * self.latencies_s[int(share * (len(self.latencies_s) - 1))]


def compare(folder: Path, seed: int, seconds: float) -> None:
    """Both servers under mathematics, boxes, and mathematics with bombs beside it."""
    loads: list[tuple[str, list[Case], list[Case]]] = [
        ("http math", math_cases(300, seed), []),
        ("http boxes", box_cases(192, seed), []),
        ("http math with bombs", math_cases(300, seed), _bombs()),
    ]
    for name, cases, bombs in loads:
        found: list[Load] = []
        for start, encode, path in (
            (_start_theirs, _their_body, "/judge"),
            (_start_ours, _our_body, "/score"),
        ):
            process, url = start(folder)
            try:
                bodies, hot = [encode(c) for c in cases], [encode(c) for c in bombs]
                asyncio.run(_drive(url, path, bodies, [], WARM_S))
                found.append(asyncio.run(_drive(url, path, bodies, hot, seconds)))
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
        theirs, ours = found
        print(
            f"{name:26} {theirs.answers_per_s:10.0f}/s {ours.answers_per_s:10.0f}/s   "
            f"x{ours.answers_per_s / theirs.answers_per_s:.1f}   p50 {theirs.at(0.5):.0f} / "
            f"{ours.at(0.5):.0f} ms, p99 {theirs.at(0.99):.0f} / {ours.at(0.99):.0f} ms, "
            f"failed {theirs.num_failed} / {ours.num_failed}",
            flush=True,
        )


def cpu_of_children(pid: int) -> float:
    """CPU seconds of a process's descendants, those that ended and were waited for included."""
    ticks = os.sysconf("SC_CLK_TCK")
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1])
        used[int(folder.name)] = sum(map(int, fields[11:15])) / ticks
    total, waiting = 0.0, [child for child, parent in parents.items() if parent == pid]
    while waiting:
        one = waiting.pop()
        total += used[one]
        waiting += [child for child, parent in parents.items() if parent == one]
    own_ended = os.times()
    return total + own_ended.children_user + own_ended.children_system


def _bombs() -> list[Case]:
    return [Case("mathverify", rf"\boxed{{{bomb}}}", r"\boxed{7}", {}) for bomb in BOMBS]


async def _drive(
    url: str, path: str, bodies: Sequence[bytes], bombs: Sequence[bytes], seconds: float
) -> Load:
    """Every client asks again as soon as it has its answer; bombs go in at a fixed rate beside."""
    place = urlsplit(url)
    assert place.hostname and place.port
    requests = [_framed(place.netloc, path, body) for body in bodies]
    hot = [_framed(place.netloc, path, body) for body in bombs]
    latencies: list[float] = []
    failed = 0
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=2**22)
        order = random.Random(number)
        while time.perf_counter() < end:
            started = time.perf_counter()
            status = await _ask(reader, writer, order.choice(requests))
            failed += status != 200  # apart from the await, which lets others count meanwhile
            latencies.append(time.perf_counter() - started)
        writer.close()

    async def bomb(request: bytes) -> None:
        reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=2**22)
        await _ask(reader, writer, request)
        writer.close()

    async def bomber() -> None:
        thrown: list[asyncio.Task[None]] = []
        while hot and time.perf_counter() < end:
            thrown.append(asyncio.create_task(bomb(hot[len(thrown) % len(hot)])))
            await asyncio.sleep(1 / BOMBS_PER_S)
        await asyncio.gather(*thrown, return_exceptions=True)

    started = time.perf_counter()
    bombing = asyncio.create_task(bomber())
    await asyncio.gather(*map(client, range(CLIENTS)))
    wall = time.perf_counter() - started
    bombing.cancel()
    return Load(len(latencies) / wall, sorted(latencies), failed)


def _framed(host: str, path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    assert length
    await reader.readexactly(int(length.group(1)))
    return int(head[9:12])


def _our_body(case: Case) -> bytes:
    row = sample_to_row(case.sample())
    return json.dumps({"items": [{"row": row, "response": case.response}]}).encode()


def _their_body(case: Case) -> bytes:
    params: dict[str, object] = {"is_training": True, "step": 8, "total_steps": 100}
    if case.ratio:
        params |= {"det_verifier_normalized": False, "det_reward_ratio": case.ratio}
    content = {
        "response": case.response,
        "prompt": "",
        "answer": "",
        "solution": case.solution,
        "data_source": "bench",
        "reward_verifier": case.verifier,
        "reward_verifier_parm": json.dumps(params),
        "format_ratio": 0.1,
        "accuracy_ratio": 0.9,
    }
    return json.dumps(content).encode()


def _start_ours(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    del folder
    port = _free_port()
    vl = str(Path(sys.executable).parent / "vl")
    command = [vl, "serve", "--port", str(port), "--workers", str(WORKERS)]
    return _started(command, None, f"http://127.0.0.1:{port}", "/health")


def _start_theirs(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    port = _free_port()
    command = [sys.executable, "-m", "uvicorn", "reward_serving_fastapi:app", "--port", str(port)]
    command += ["--workers", str(WORKERS), "--log-level", "warning", "--no-access-log"]
    return _started(command, folder, f"http://127.0.0.1:{port}", "/")


def _started(
    command: list[str], folder: Path | None, url: str, probe: str
) -> tuple[subprocess.Popen[bytes], str]:
    quiet = subprocess.DEVNULL
    environment = os.environ | {"DET_IOU_THRESHOLD": "dynamic"}
    process = subprocess.Popen(command, cwd=folder, stdout=quiet, stderr=quiet, env=environment)
    for _ in range(600):
        try:
            with urllib.request.urlopen(url + probe, timeout=1):
                return process, url
        except OSError:
            time.sleep(0.1)
    process.kill()
    raise SystemExit(f"{' '.join(command)}: did not answer within 60 s")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
