"""What a pool and its processes say to each other: frames of plain values, rows and verdicts."""

from __future__ import annotations

import os
import pickle
import struct
from typing import Any, BinaryIO

from data_specs import ImageRef, Message, RewardSpec, Sample, shorten
from verifiers.verdict import Verdict

Record = tuple[Any, ...]
"""(position in its piece, time of `monotonic` at which it was done, the verdict's fields).

The first record of a piece says when it was begun: it has position -1 and no verdict.
"""

_LENGTH = struct.Struct("<Q")
_READ_BYTES = 1 << 18
_NO_IMAGES: tuple[ImageRef, ...] = ()


def frame(content: object) -> bytes:
    """The content as bytes that say their own length."""
    payload = pickle.dumps(content, protocol=5)
    return _LENGTH.pack(len(payload)) + payload


def read_frame(stream: BinaryIO) -> Any:
    """The next content of a blocking stream; None at its end."""
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    (size,) = _LENGTH.unpack(header)
    payload = stream.read(size)
    return pickle.loads(payload) if len(payload) == size else None


class FrameReader:
    """The frames that have arrived at a descriptor that does not block."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = bytearray()
        self.is_open = True

    def read(self) -> list[Any]:
        """Every content that is complete by now."""
        while self.is_open:
            try:
                data = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                break
            except ConnectionResetError:  # the peer died before it had read everything
                data = b""
            self.is_open = bool(data)
            self._buffer += data
            if len(data) < _READ_BYTES:
                break
        return self._complete() if self._buffer else []

    def _complete(self) -> list[Any]:
        contents: list[Any] = []
        start, end = 0, len(self._buffer)
        with memoryview(self._buffer) as view:
            while end - start >= _LENGTH.size:
                (size,) = _LENGTH.unpack_from(view, start)
                if end - start - _LENGTH.size < size:
                    break
                start += _LENGTH.size
                contents.append(pickle.loads(view[start : start + size]))
                start += size
        del self._buffer[:start]
        return contents


def pack_row(sample: Sample) -> bytes:
    """The row as a verifier needs it: without pictures, as responses are text.

    Raises: ValueError if it holds what cannot be sent to another process.
    """
    spec = sample.reward
    try:
        return pickle.dumps(
            (
                (sample.id, sample.source, sample.task, sample.where),
                [(message.role, message.content) for message in sample.messages],
                (spec.verifier, spec.answer, spec.ground_truth),
                (spec.accuracy_ratio, spec.format_ratio),
                dict(spec.params),
                dict(sample.extra),
            ),
            protocol=5,
        )
    except (pickle.PicklingError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{sample.where or 'sample'} (id {sample.id}): extra or params cannot be sent to a "
            f"worker ({error}); found {shorten(sample.extra)}; allowed: what pickle can send. "
            "Put plain values there, or judge in this process with workers=0"
        ) from error


def unpack_row(packed: bytes) -> Sample:
    """The row that `pack_row` packed."""
    names, messages, texts, ratios, params, extra = pickle.loads(packed)
    id_, source, task, where = names
    verifier, answer, ground_truth = texts
    return Sample(
        id=id_,
        source=source,
        task=task,
        messages=tuple(Message(role=role, content=content) for role, content in messages),
        images=_NO_IMAGES,
        reward=RewardSpec(
            verifier=verifier,
            answer=answer,
            ground_truth=ground_truth,
            accuracy_ratio=ratios[0],
            format_ratio=ratios[1],
            params=params,
        ),
        extra=extra,
        where=where,
    )


def begun(started: float) -> Record:
    """The first record of a piece."""
    return -1, started


def pack_verdict(position: int, ended: float, verdict: Verdict) -> Record:
    """The verdict as plain values, so that reading it back runs nobody's code.

    Raises: TypeError or ValueError if a verifier put something else into it.
    """
    return (
        position,
        ended,
        None if verdict.score is None else float(verdict.score),
        None if verdict.format is None else float(verdict.format),
        None if verdict.reward is None else float(verdict.reward),
        str(verdict.status),
        str(verdict.reason),
        {str(name): float(value) for name, value in verdict.parts.items()},
        float(verdict.seconds),
        str(verdict.verifier),
        str(verdict.version),
    )


def unpack_verdict(record: Record) -> Verdict:
    """The verdict that `pack_verdict` packed."""
    _, _, score, form, reward, status, reason, parts, seconds, verifier, version = record
    return Verdict(
        score=score,
        format=form,
        reward=reward,
        status=status,
        reason=reason,
        parts=parts,
        seconds=seconds,
        verifier=verifier,
        version=version,
    )
