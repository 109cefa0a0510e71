"""What a model is shown of a MEGA-Bench query: order of parts, image budget, frames, pixels."""

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from data_specs.megabench import MegaQuery, MegaTask
from tasks.megabench import (
    VIDEO_END,
    VIDEO_START,
    Budget,
    ImageFile,
    MediaError,
    Video,
    VideoFrame,
    VideoReader,
    build_parts,
    check_query,
    encode,
    frame_stride,
    is_video,
    must_ask_again,
    plan_frames,
)

MEDIA = Path("media")
BUDGET = Budget()
INFO = {"field_score_function": {}, "aggregation": {}}


def task(query_media=("q.png",), *, text=None, demo=(), description="Look.", shown=(), example=""):
    text = "<image>" * len(query_media) + " What?" if text is None else text
    return MegaTask(
        name="t",
        description=description,
        global_media=tuple(shown),
        example_text=example or "Example:" + "<image>" * len(demo),
        example_media=tuple(demo),
        metric_info=INFO,
        queries=(MegaQuery(id="0", index=0, text=text, media=tuple(query_media), answer={}),),
    )


def parts(task, budget=BUDGET, videos=None):
    return build_parts(task, task.queries[0], MEDIA, budget, videos)


def clip(num_frames, fps=25.0):
    def frames(path, stride):
        assert path.name.endswith(".mp4")
        for number in range(0, num_frames, stride):
            yield Image.new("RGB", (8, 8), (number % 256, 0, 0))

    return VideoReader(probe=lambda path: Video(num_frames, fps), frames=frames)


@pytest.fixture
def videos_exist(monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda self: True)


def image(name):
    return ImageFile(MEDIA / name)


def test_texts_and_media_stand_in_the_order_of_their_markers():
    shown = task(
        ("q.png",),
        text="  Before <image> after.\n",
        description="One <image>\n\n<image> two",
        shown=("g1.png", "g2.png"),
        example="Example 1:\n<image>\nExample Response:\nAnswer: B",
        demo=("d.png",),
    )
    assert parts(shown) == [
        "One", image("g1.png"), image("g2.png"), "two",
        "Example 1:", image("d.png"), "Example Response:\nAnswer: B",
        "Before", image("q.png"), "after.",
    ]  # fmt: skip


def test_markers_are_case_sensitive_and_must_match_the_media():
    assert parts(task((), text="An <Image> tag.")) == ["Look.", "Example:", "An <Image> tag."]
    with pytest.raises(MediaError, match="task 't' query 0: 2 markers and 1 media"):
        parts(task(("q.png",), text="<image><video>"))


def test_only_the_first_images_of_the_example_are_shown():
    shown = parts(task(demo=[f"d{n}.png" for n in range(5)]), Budget(max_demo_frames=2))
    assert [part for part in shown if not isinstance(part, str)] == [
        image("d0.png"),
        image("d1.png"),
        image("q.png"),
    ]


def test_the_budget_is_shared_by_the_videos_after_all_images():
    # 64 in all: 3 images of query and description, 2 of the example, 4 frames for each of its
    # 2 videos; 51 are left for 2 videos
    shown = task(
        ("a.mp4", "b.mp4", "c.png"),
        shown=("g1.png", "g2.png"),
        description="<image><image>",
        demo=("d1.mp4", "d2.mp4", "e1.png", "e2.png"),
    )
    assert plan_frames(shown, shown.queries[0], Budget()) == (25, 4, True)
    # 3 demo videos share 8 frames: 3 each
    shown = task(("a.mp4",), demo=("1.mp4", "2.mp4", "3.mp4"))
    assert plan_frames(shown, shown.queries[0], Budget()) == (55, 3, True)
    with pytest.raises(MediaError, match=r"9 images leave no frame .*Raise --max-images"):
        plan_frames(shown, shown.queries[0], Budget(max_images=9))


def test_a_query_with_more_images_than_the_budget_is_not_asked():
    shown = task([f"{n}.png" for n in range(5)])
    assert parts(shown, Budget(max_images=4)) is None
    assert parts(shown, Budget(max_images=5)) is not None
    assert parts(shown, Budget(max_images=0)) is not None  # no limit


def test_frames_are_about_one_a_second_or_as_many_as_fit():
    fps, most = Budget(), Budget(video_sampling="max")
    minute = Video(num_frames=1799, fps=29.97)
    assert frame_stride(minute, 63, fps, is_demo=False) == 30  # one a second: 60 frames
    assert frame_stride(minute, 20, fps, is_demo=False) == 90  # 20 frames
    assert frame_stride(minute, 8, fps, is_demo=True) == 225  # 8 frames, whatever the rate
    assert frame_stride(minute, 1000, most, is_demo=False) == 6  # five a second
    assert frame_stride(Video(100, 8.0), 1000, most, is_demo=False) == 1  # slow: all
    assert frame_stride(Video(0, 0.0), 8, fps, is_demo=False) == 1


def test_a_video_becomes_its_frames_between_two_markers(videos_exist):
    shown = parts(task(("a.mp4",), text="<video>Q"), videos=clip(100))
    assert [part for part in shown if isinstance(part, str)] == [
        "Look.", "Example:", VIDEO_START, VIDEO_END, "Q",
    ]  # fmt: skip
    frames = [part for part in shown if isinstance(part, VideoFrame)]
    assert [frame.image.getpixel((0, 0))[0] for frame in frames] == [0, 25, 50, 75]


def test_whether_a_file_is_a_video_is_told_by_its_name_and_not_by_the_marker(videos_exist):
    assert is_video("x.MP4") and is_video("a/b.webm") and not is_video("x.gif")
    shown = parts(task(("a.mp4", "b.png"), text="<image><video>"), videos=clip(10))
    assert [type(part).__name__ for part in shown[2:]] == ["str", "VideoFrame", "str", "ImageFile"]


def test_missing_files_are_found_before_anything_is_asked(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "q.png")
    shown = task(("q.png",))
    check_query(shown, shown.queries[0], tmp_path, Budget())
    lacking = task(("no.png",))
    with pytest.raises(MediaError, match=r"no.png: missing; unpack the dataset's data.zip"):
        check_query(lacking, lacking.queries[0], tmp_path, Budget())
    with pytest.raises(MediaError, match=r"no.png: missing"):
        encode(ImageFile(tmp_path / "no.png"), Budget())


def opened(encoded):
    return Image.open(BytesIO(encoded.data))


def test_a_large_image_is_shrunk_and_keeps_its_format(tmp_path):
    Image.new("RGB", (3000, 1001)).save(tmp_path / "a.jpg")
    encoded = encode(ImageFile(tmp_path / "a.jpg"), Budget())
    assert encoded.mime == "image/jpeg"
    assert opened(encoded).format == "JPEG"
    assert opened(encoded).size == (1000, 333)  # 333.67 cut off
    small = encode(ImageFile(tmp_path / "a.jpg"), Budget(max_side_px=4000))
    assert opened(small).size == (3000, 1001)


def test_transparent_pixels_are_white(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a.png")
    encoded = encode(ImageFile(tmp_path / "a.png"), Budget())
    assert encoded.mime == "image/png"
    assert opened(encoded).mode == "RGB"
    assert opened(encoded).getpixel((0, 0)) == (255, 255, 255)


def test_a_torn_file_is_shown_as_far_as_it_goes_and_no_image_is_an_error(tmp_path):
    Image.effect_noise((200, 200), 90).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "torn.png").write_bytes(data[: len(data) // 2])
    assert opened(encode(ImageFile(tmp_path / "torn.png"), Budget())).size == (200, 200)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(MediaError, match=r"text.png: not an image that can be read"):
        encode(ImageFile(tmp_path / "text.png"), Budget())


def test_a_refusal_that_came_as_a_response_is_asked_again():
    assert must_ask_again("Error: API quota exceeded.")
    assert must_ask_again("Function call timed out")
    assert not must_ask_again("Answer: B")


def test_budgets_without_meaning_are_refused():
    with pytest.raises(ValueError, match="max_demo_frames 0"):
        Budget(max_demo_frames=0)
