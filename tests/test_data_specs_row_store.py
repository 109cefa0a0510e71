"""Rows in any order: equal to the files' rows, in little memory, built once."""

import random
import tracemalloc
from datetime import date
from itertools import islice

import pytest

from data_specs import (
    DataSpecError,
    ImageRef,
    Message,
    RewardSpec,
    Sample,
    read_samples,
    write_samples,
)
from data_specs.row_store import open_store
from tasks.mixture import RowMixture, group_by_image, image_stream


def rows(source, count, **extra):
    """Two rows a picture."""
    return [
        Sample(
            id=f"{source}-{n}",
            source=source,
            task="math",
            messages=(Message(role="user", content="<image> How many?"),),
            images=(ImageRef(data=bytes([n // 2]) * 50, path=f"{n // 2}.png"),),
            reward=RewardSpec(verifier="number", answer=str(n), ground_truth=rf"\boxed{{{n}}}"),
            extra={"image_id": f"p{n // 2}", **extra},
        )
        for n in range(count)
    ]


@pytest.fixture
def files(tmp_path):
    write_samples(rows("a", 6), tmp_path / "train_math_a_6.parquet")
    write_samples(rows("b", 4), tmp_path / "train_math_b_4_x2.parquet")
    return sorted(tmp_path.glob("*.parquet"))


def test_a_row_of_the_store_is_the_row_of_the_file(files, tmp_path):
    store = open_store(files, tmp_path / "cache")
    assert [store.read(number) for number in range(len(store))] == list(read_samples(files))
    assert store.place(7) == ("b", "p0") and (store.uses(0), store.uses(9)) == (1, 2)


def test_a_shared_picture_lies_in_the_store_once(files, tmp_path):
    store = open_store(files, tmp_path / "cache")
    content = (store.folder / "rows.bin").read_bytes()
    assert [content.count(bytes([n]) * 50) for n in (0, 1, 2)] == [2, 2, 1]  # 2: in a and in b


def test_a_store_is_kept_until_a_file_changes(files, tmp_path):
    first = open_store(files, tmp_path / "cache")
    stamp = (first.folder / "rows.bin").stat().st_mtime_ns
    again = open_store(files, tmp_path / "cache")
    assert again.folder == first.folder
    assert (again.folder / "rows.bin").stat().st_mtime_ns == stamp
    write_samples(rows("a", 8), files[0])
    assert len(open_store(files, tmp_path / "cache")) == 12


def test_a_bad_row_leaves_no_store(tmp_path):
    write_samples(rows("a", 2, taken=date(2024, 2, 29)), tmp_path / "odd.parquet")
    with pytest.raises(DataSpecError, match=r"odd.parquet row 0: extra_info .* Convert it"):
        open_store(tmp_path / "odd.parquet", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_mixture_draws_what_the_order_of_pictures_says_and_goes_on_anywhere(files, tmp_path):
    mixture = RowMixture(open_store(files, tmp_path / "cache"), seed=3, weights={"a": 0.5})
    drawn = list(islice(mixture(), 40))
    groups = group_by_image(read_samples(files))
    order = islice(image_stream(mixture.images, seed=3, weights={"a": 0.5}), 40)
    assert drawn == [(epoch, groups[key]) for epoch, key in order]
    epoch = [key for number, key in image_stream_epoch(mixture)]
    assert sorted(k.source for k in epoch) == ["a", "a", "b", "b", "b", "b"]  # 3 / 2, and 2 x 2
    for start in (1, 6, 17):
        assert list(islice(mixture(start), 20)) == drawn[start : start + 20]


def image_stream_epoch(mixture):
    return islice(image_stream(mixture.images, seed=3, weights={"a": 0.5}), 6)


def test_processes_share_an_order_without_gap_or_repeat(files, tmp_path):
    store = open_store(files, tmp_path / "cache")
    whole = list(islice(RowMixture(store, seed=1)(4), 21))
    parts = [list(islice(RowMixture(store, seed=1, shard=(r, 3))(4), 7)) for r in range(3)]
    in_turn = [parts[(4 + position) % 3][position // 3] for position in range(21)]
    assert in_turn == whole
    with pytest.raises(ValueError, match=r"shard: found \(3, 3\)"):
        next(RowMixture(store, seed=1, shard=(3, 3))())


def test_memory_does_not_grow_with_the_pictures(tmp_path):
    """60 MB of pictures are drawn; at most 3 MB are in memory at a time."""
    noise = random.Random(0)

    def big():
        for n in range(600):
            row = rows("a", 1, number=n)[0]
            image = ImageRef(data=noise.randbytes(100_000))
            extra = {"image_id": str(n), "number": n}
            yield Sample(
                **{f: getattr(row, f) for f in ("source", "task", "messages", "reward")},
                id=str(n),
                images=(image,),
                extra=extra,
            )

    write_samples(big(), tmp_path / "big.parquet")
    mixture = RowMixture(open_store(tmp_path / "big.parquet", tmp_path / "cache"), seed=0)
    tracemalloc.start()
    size = sum(len(sample.images[0].data) for _, some in islice(mixture(), 600) for sample in some)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == 60_000_000
    assert peak < 3_000_000
