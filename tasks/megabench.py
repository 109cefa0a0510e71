"""MEGA-Bench's queries as a model is asked them: one user turn of texts, images and video frames.

Description, one-shot example and query follow each other; media stand where their markers do. All
instructions are in the dataset. Which frames of a video are shown depends on the image budget.

Source: TIGER-AI-Lab/MEGA-Bench, megabench/models/base_model.py and openai.py, by behaviour.
"""

from __future__ import annotations

import io
import math
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from mimetypes import guess_type
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from data_specs.megabench import MegaQuery, MegaTask

if TYPE_CHECKING:
    from PIL import Image

VIDEO_START, VIDEO_END = "<video frames start>", "<video frames end>"

TOO_MANY_IMAGES = "Exceed the specified max number of images, skip..."
"""The response to a query that does not fit the budget; it is scored like any other."""

RETRY_PHRASES = (
    "api quota exceeded",
    "rate limit exceeded",
    "quota exceeded",
    "api limit reached",
    "function call timed out",
)
"""A response that holds one of these, in any case, is asked again."""

_pillow = threading.Lock()  # its setting for torn files is global
_MARKER = re.compile("(<image>|<video>)")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How many images a query may show, and how videos are sampled."""

    max_images: int = 64
    """Images of a query in all, frames included; 0 = no limit, and videos whole at their rate."""
    max_demo_frames: int = 8
    """Frames that the example's videos share; also the most images that the example shows."""
    video_sampling: Literal["fps", "max"] = "fps"
    """`fps`: at most one frame a second. `max`: as many as fit, at most five a second."""
    max_side_px: int = 1000
    """A larger image is shrunk until its longer side is this."""

    def __post_init__(self) -> None:
        if self.max_images < 0 or self.max_demo_frames < 1 or self.max_side_px < 1:
            raise ValueError(
                f"max_images is {self.max_images}, max_demo_frames {self.max_demo_frames}, "
                f"max_side_px {self.max_side_px}; allowed: at least 0, 1 and 1"
            )


class FramePlan(NamedTuple):
    """Frames for each video of one query."""

    per_query_video: int | None
    """None: without limit."""
    per_demo_video: int | None
    fits: bool
    """Whether the query keeps to the budget."""


class ImageFile(NamedTuple):
    """An image of the dataset."""

    path: Path


class VideoFrame(NamedTuple):
    """A frame that was taken from a video."""

    image: Image.Image


Part = str | ImageFile | VideoFrame


class Video(NamedTuple):
    """What is known of a video before its frames are read."""

    num_frames: int
    """As its header says."""
    fps: float


class VideoReader(NamedTuple):
    """How videos are read: anything that can open them."""

    probe: Callable[[Path], Video]
    frames: Callable[[Path, int], Iterator[Image.Image]]
    """Frames 0, n, 2 n ... of a file."""


class MediaError(ValueError):
    """Media that cannot be shown as the dataset asks; the message says where and what to do."""


def build_parts(
    task: MegaTask,
    query: MegaQuery,
    media: Path,
    budget: Budget,
    videos: VideoReader | None = None,
) -> list[Part] | None:
    """The user turn of a query; None if it has more images than the budget allows.

    Args:
        media: the folder that holds `data/`.
        videos: how to read videos (default: OpenCV, which must be installed then).

    Raises: MediaError for a missing file, a video without room for a frame, or markers that do not
    fit the media.
    """
    plan = plan_frames(task, query, budget)
    if not plan.fits:
        return None
    where = f"task {task.name!r} query {query.index}"
    # upstream makes the first two parts once a task, by the frames that its first query leaves
    first = plan if not task.queries else plan_frames(task, task.queries[0], budget)
    show = _Shower(media, budget, first, videos, where)
    return [
        *show(task.description, task.global_media),
        *show(task.example_text, task.example_media, is_demo=True),
        *_Shower(media, budget, plan, videos, where)(query.text, query.media),
    ]


def check_query(task: MegaTask, query: MegaQuery, media: Path, budget: Budget) -> None:
    """Finds what would stop `build_parts`, without opening a file.

    Raises: MediaError
    """
    where = f"task {task.name!r} query {query.index}"
    plan_frames(task, query, budget)
    for text, paths in (
        (task.description, task.global_media),
        (task.example_text, task.example_media),
        (query.text, query.media),
    ):
        _split(where, text, paths)
        for path in paths:
            if not (media / path).exists():
                raise _missing(media / path)


def plan_frames(task: MegaTask, query: MegaQuery, budget: Budget) -> FramePlan:
    """How the images of the budget are shared out; media of the description count as the query's.

    Raises: MediaError if the query shows a video and no image of the budget is left for it.
    """
    if budget.max_images == 0:
        return FramePlan(per_query_video=None, per_demo_video=None, fits=True)
    shown = [*task.global_media, *query.media]
    num_videos = sum(map(is_video, shown))
    num_images = len(shown) - num_videos
    num_demo_videos = sum(map(is_video, task.example_media))
    num_demo_images = min(budget.max_demo_frames, len(task.example_media) - num_demo_videos)
    per_demo = math.ceil(budget.max_demo_frames / num_demo_videos) if num_demo_videos else 0
    taken = num_images + num_demo_images + per_demo * num_demo_videos
    per_query = 0
    if num_videos:
        left = budget.max_images - taken
        if left <= 0:
            raise MediaError(
                f"task {task.name!r} query {query.index}: {taken} images leave no frame for its "
                f"video; allowed: {budget.max_images} in all. Raise --max-images"
            )
        per_query = left // num_videos
    fits = taken + per_query * num_videos <= budget.max_images
    return FramePlan(per_query_video=per_query, per_demo_video=per_demo, fits=fits)


def frame_stride(video: Video, num_frames: int | None, budget: Budget, *, is_demo: bool) -> int:
    """Every how many frames one is shown, at least 1.

    Args:
        num_frames: share of the budget; None or 0: no limit.
    """
    fitting = math.ceil(video.num_frames / num_frames) if num_frames else 1
    if budget.video_sampling == "max":
        return max(1, math.ceil(video.fps / 5) if video.fps >= 10 else 1, fitting)
    if is_demo and num_frames:
        return max(1, fitting)
    return max(1, math.ceil(video.fps), fitting)


class Encoded(NamedTuple):
    """An image as it is sent: its type, such as `image/png`, and its bytes."""

    mime: str
    data: bytes


def encode(part: ImageFile | VideoFrame, budget: Budget) -> Encoded:
    """The image in the format of its file, RGB, its longer side cut to the limit.

    Also what needs no change is encoded anew, JPEG at Pillow's quality of 75: these are the pixels
    that official runs have seen.

    Raises: MediaError if the file is missing or no image.
    """
    if isinstance(part, VideoFrame):
        image, mime = part.image, "image/jpeg"
    else:
        image = _load(part.path, budget.max_side_px)
        mime = guess_type(part.path)[0] or "image/jpeg"
    buffer = io.BytesIO()
    try:
        image.save(buffer, mime.split("/")[-1].upper())
    except KeyError:  # a type that Pillow does not write
        buffer, mime = io.BytesIO(), "image/png"
        image.save(buffer, "PNG")
    return Encoded(mime, buffer.getvalue())


def is_video(path: str) -> bool:
    """Whether the file's name is that of a video."""
    kind, _ = guess_type(path)
    return kind is not None and kind.startswith("video")


def must_ask_again(response: str) -> bool:
    """Whether the response is an endpoint's refusal rather than an answer."""
    lowered = response.lower()
    return any(phrase in lowered for phrase in RETRY_PHRASES)


def opencv_reader() -> VideoReader:
    """Videos through OpenCV, as upstream reads them.

    Raises: ModuleNotFoundError if it is not installed.
    """
    from tasks.megabench_video import frames, probe

    return VideoReader(probe=probe, frames=frames)


@dataclass(frozen=True)
class _Shower:
    """Texts with their media, for one query."""

    media: Path
    budget: Budget
    plan: FramePlan
    videos: VideoReader | None
    where: str

    def __call__(self, text: str, paths: Sequence[str], *, is_demo: bool = False) -> Iterator[Part]:
        chunks = _split(self.where, text, paths)
        rest = iter(paths)
        num_images = 0
        for position, chunk in enumerate(chunks):
            if position % 2 == 0:
                if chunk.strip():
                    yield chunk.strip()
                continue
            path = next(rest)
            if is_video(path):
                yield from self._video(self.media / path, is_demo=is_demo)
                continue
            num_images += 1
            if not is_demo or num_images <= self.budget.max_demo_frames:
                yield ImageFile(self.media / path)

    def _video(self, path: Path, *, is_demo: bool) -> Iterator[Part]:
        if not path.exists():
            raise _missing(path)
        reader = self.videos or opencv_reader()
        limit = self.plan.per_demo_video if is_demo else self.plan.per_query_video
        stride = frame_stride(reader.probe(path), limit, self.budget, is_demo=is_demo)
        images = [_prepare(image, self.budget.max_side_px) for image in reader.frames(path, stride)]
        if not images:
            raise MediaError(f"{path}: found no frame; unpack the dataset's data.zip anew")
        yield VIDEO_START
        yield from map(VideoFrame, images)
        yield VIDEO_END


def _split(where: str, text: str, paths: Sequence[str]) -> list[str]:
    """Texts and markers in turn."""
    chunks = _MARKER.split(text)
    num_markers = len(chunks) // 2
    if num_markers != len(paths):
        raise MediaError(
            f"{where}: {num_markers} markers and {len(paths)} media ({text[:80]!r}); "
            "allowed: one marker for each. Load the dataset anew"
        )
    return chunks


def _missing(path: Path) -> MediaError:
    return MediaError(
        f"{path}: missing; unpack the dataset's data.zip, and give the folder that holds data/ as "
        "--media"
    )


def _load(path: Path, max_side_px: int) -> Image.Image:
    from PIL import Image, ImageFile

    try:
        with _pillow, Image.open(path) as image:
            # a file with a torn end is shown as far as it goes, as upstream does
            before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
            try:
                image.load()
            finally:
                ImageFile.LOAD_TRUNCATED_IMAGES = before
        return _prepare(image, max_side_px)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise MediaError(f"{path}: not an image that can be read ({error})") from error


def _prepare(image: Image.Image, max_side_px: int) -> Image.Image:
    from PIL import Image

    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    if max(image.size) > max_side_px:
        scale = max_side_px / max(image.size)
        image = image.resize((max(1, int(image.width * scale)), max(1, int(image.height * scale))))
    return image.convert("RGB")
