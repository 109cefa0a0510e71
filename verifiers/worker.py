"""What a scoring worker does: read a piece of work, judge it, report every verdict as it comes.

A worker judges the items of a piece in order and writes each verdict into a pipe before it begins
the next item. Whoever kills it therefore knows exactly which item it was on, and loses nothing.
Nobody waits at the pipe: the socket says when a piece is done, so plain answers cost one wake-up
a piece and not one each.
"""

from __future__ import annotations

import os
import pickle
import resource
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from time import monotonic

from data_specs import Sample
from verifiers.iou_rule import ScoreContext
from verifiers.pool_wire import Record, begun, frame, pack_verdict, read_frame, unpack_row
from verifiers.scoring import score_many
from verifiers.verdict import Verdict

_PIPE_BYTES_MAX = 32_768  # half of what a pipe holds, so that writing to it never waits
_GROWN_FRAC_MAX = 0.5  # of the memory limit


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What the zygote tells its workers."""

    memory_limit_mb: int
    """Memory a worker may take beside what it started with, MB."""


def work(commands: socket.socket, records: int, settings: WorkerSettings) -> None:
    """Judge what comes until the socket closes, or until too much memory has gathered.

    Args:
        commands: pieces come here, the word that one is done goes back.
        records: descriptor for the verdicts of a piece that is under way.
        settings: see there.
    """
    reader = commands.makefile("rb")
    first_peak_mb = peak_mb(resource.getrusage(resource.RUSAGE_SELF))
    while (piece := read_frame(reader)) is not None:
        kind, content = _judge_piece(piece, commands, records, settings)
        grown_mb = peak_mb(resource.getrusage(resource.RUSAGE_SELF)) - first_peak_mb
        if kind == "done" and grown_mb > _GROWN_FRAC_MAX * settings.memory_limit_mb:
            commands.sendall(frame(("leaving", content)))
            return
        commands.sendall(frame((kind, content)))


def _judge_piece(
    piece: tuple[bytes, bool, float, list[bytes], list[tuple[int, str]]],
    commands: socket.socket,
    records: int,
    settings: WorkerSettings,
) -> tuple[str, list[Record] | str]:
    """What the socket says at the end of a piece: that it is done, and the last records."""
    packed_context, is_together, slow_s, rows, items = piece
    started = monotonic()
    os.write(records, frame(begun(started)))
    try:
        context = _context(packed_context)
        samples = [unpack_row(row) for row in rows]
    except Exception as error:  # noqa: BLE001 - process boundary: a row's own classes raise here
        return "unreadable", f"{type(error).__name__}: {error}"
    pairs = [(samples[row], response) for row, response in items]
    if is_together:
        return "done", _judge_together(pairs, context, settings)
    written = 0
    for position, pair in enumerate(pairs):
        record = _judge(position, pair, context, settings)
        if position == len(pairs) - 1:
            return "done", [record]
        framed = frame(record)
        written += len(framed)
        if written <= _PIPE_BYTES_MAX:
            os.write(records, framed)
        else:
            commands.sendall(frame(("records", [record])))
        # Asked when the record is out: who finds none there, so long after the item was begun,
        # knows that this loop ends with it, and may give the other items to another worker.
        if monotonic() - started > slow_s:
            break
        started = record[1]
    return "done", []


def _judge(
    position: int, pair: tuple[Sample, str], context: ScoreContext, settings: WorkerSettings
) -> Record:
    name = pair[0].reward.verifier
    try:
        (verdict,) = score_many([pair], context)
        if verdict.status == "fault" and "MemoryError" in verdict.reason:
            verdict = replace(verdict, reason=_too_much(settings))
        return pack_verdict(position, monotonic(), verdict)
    except MemoryError:
        reason = _too_much(settings)
    except Exception as error:  # noqa: BLE001 - scoring boundary: a fault of ours is unscored
        reason = f"verifier failed: {type(error).__name__}: {error}"
    verdict = Verdict(score=None, status="fault", reason=reason, verifier=name)
    return pack_verdict(position, monotonic(), verdict)


def _judge_together(
    pairs: Sequence[tuple[Sample, str]], context: ScoreContext, settings: WorkerSettings
) -> list[Record]:
    """Records of those that went well; the others come again, one by one."""
    try:
        verdicts = score_many(pairs, context)
        ended = monotonic()
        return [
            pack_verdict(position, ended, verdict)
            for position, verdict in enumerate(verdicts)
            if verdict.status != "fault"
        ]
    except Exception:  # noqa: BLE001 - scoring boundary: who failed is found one by one
        return []


def _too_much(settings: WorkerSettings) -> str:
    return f"needs more memory than memory_limit_mb={settings.memory_limit_mb} allows"


@lru_cache(maxsize=8)
def _context(packed: bytes) -> ScoreContext:
    return pickle.loads(packed)


def peak_mb(usage: resource.struct_rusage) -> float:
    """Most memory a process ever had in use, MB."""
    return usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
