"""Frames of a video file through OpenCV (`pip install opencv-python-headless`)."""

# OpenCV's types are incomplete, and it is not installed with this package.
# pyright: reportMissingImports=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
from PIL import Image

from tasks.megabench import Video


def probe(path: Path) -> Video:
    """Frame count and rate, as the header says."""
    capture = cv2.VideoCapture(str(path))
    try:
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        return Video(num_frames=count, fps=float(capture.get(cv2.CAP_PROP_FPS)))
    finally:
        capture.release()


def frames(path: Path, stride: int) -> Iterator[Image.Image]:
    """Frames 0, stride, 2 stride ... as RGB, to the end of the file."""
    capture = cv2.VideoCapture(str(path))
    try:
        number = 0
        while capture.grab():
            if number % stride == 0:
                found, frame = capture.retrieve()
                if not found:
                    break
                yield Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            number += 1
    finally:
        capture.release()
