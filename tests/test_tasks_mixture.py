"""The training order: uniform, weighted, and the same from any position."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.build import draw_scene, scene_samples
from tasks.mixture import ImageKey, group_by_image, image_order, image_stream

IMAGES = [ImageKey(source, f"{source}-{i}") for source in ("a", "b", "c") for i in range(20)]


def test_an_epoch_holds_every_image_once_in_another_order_each_time() -> None:
    first, second = (image_order(IMAGES, seed=0, epoch=epoch) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == sorted(IMAGES)
    assert first != second and first != IMAGES
    assert first == image_order(reversed(IMAGES), seed=0, epoch=0)


def test_sources_are_mixed_through_the_whole_epoch() -> None:
    order = image_order(IMAGES, seed=0, epoch=0)
    counts = Counter(image.source for image in order[:30])
    assert min(counts.values()) >= 5


def test_weights_are_uses_per_image() -> None:
    order = image_order(IMAGES, seed=0, epoch=0, weights={"a": 2.5, "b": 0.0, "c": 0.25})
    assert Counter(image.source for image in order) == {"a": 50, "c": 5}
    assert set(Counter(i for i in order if i.source == "a").values()) == {2, 3}


@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 200), seed=st.integers(0, 5))
def test_a_stream_resumed_anywhere_goes_on_as_if_never_stopped(start: int, seed: int) -> None:
    whole = list(islice(image_stream(IMAGES, seed=seed), start + 70))
    assert list(islice(image_stream(IMAGES, seed=seed, start=start), 70)) == whole[start:]
    assert whole[-1][0] == (start + 69) // 60


def test_wrong_weights_and_empty_mixtures_are_refused() -> None:
    with pytest.raises(ValueError, match="'d': 1"):
        image_order(IMAGES, seed=0, epoch=0, weights={"d": 1.0})
    with pytest.raises(ValueError, match="-1"):
        image_order(IMAGES, seed=0, epoch=0, weights={"a": -1.0})
    with pytest.raises(ValueError, match="no image"):
        next(image_stream(IMAGES, seed=0, weights={"a": 0, "b": 0, "c": 0}))


def test_rows_are_grouped_by_their_image() -> None:
    rows = [
        row
        for index in range(2)
        for row in scene_samples(
            draw_scene("mnist_sum", seed=0, split="train", index=index),
            task="math", source="mnist_sum", split="train", index=index,
        )
    ]  # fmt: skip
    groups = group_by_image(rows)
    assert list(groups) == [ImageKey("mnist_sum", f"mnist_sum-train-{i}") for i in range(2)]
    assert [len(group) for group in groups.values()] == [4, 4]
