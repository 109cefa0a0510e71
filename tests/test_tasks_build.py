"""The written data set: equal bytes on every run, readable rows, card and manifest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from data_specs import read_samples
from tasks import TASKS
from tasks.build import build, draw_scene, scene_samples
from verifiers import score

SOURCES = [source for task in TASKS.values() for source in task.sources]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data")
    seen: list[tuple[str, int, int]] = []
    report = build(
        out,
        seed=5,
        num_train_images=6,
        num_heldout_images=3,
        processes=1,
        progress=lambda name, done, total: seen.append((name, done, total)),
    )
    assert report.num_rows == 17 * 9 * 4
    assert [done for _, done, _ in seen] == list(range(1, 35)) and seen[0][2] == 34
    return out


def test_two_processes_and_fewer_sources_write_the_same_bytes(built: Path, tmp_path: Path) -> None:
    chosen = ["openmoji_count", "vega_bars"]
    report = build(
        tmp_path, seed=5, num_train_images=6, num_heldout_images=3, sources=chosen, processes=2
    )
    assert len(report.files) == 4
    for file in report.files:
        assert (tmp_path / file.path).read_bytes() == (built / file.path).read_bytes()


def test_files_are_named_as_upstream_names_them(built: Path) -> None:
    names = {path.relative_to(built).as_posix() for path in built.rglob("*.parquet")}
    assert "train/train_counting_openmoji_count_24.parquet" in names
    assert "test/test_ocr_font_words_12.parquet" in names
    assert len(names) == 34


def test_rows_read_back_as_they_were_drawn(built: Path) -> None:
    path = built / "train/train_detection_openmoji_detect_24.parquet"
    rows = list(read_samples([path]))
    scene = draw_scene("openmoji_detect", seed=5, split="train", index=1)
    assert [row.question for row in rows[4:8]] == [q.text for q in scene.questions]
    row = rows[5]
    assert row.id == "openmoji_detect-train-1-1" and row.task == "detection"
    assert row.extra["image_id"] == "openmoji_detect-train-1"
    assert row.extra["coordinate_space"] == "per_mille" and row.extra["split"] == "train"
    assert row.extra["licence"] == "CC-BY-SA-4.0"
    assert (row.reward.accuracy_ratio, row.reward.format_ratio) == pytest.approx((0.9, 0.1))
    objects = json.loads(str(row.extra["objects"]))
    assert len(objects) == len(scene.objects) and set(objects[0]) == {"bbox_2d", "label"}
    assert row.images[0].open().size == (64, 64)
    assert row.images[0].sha256() == rows[4].images[0].sha256()


def test_the_manifest_holds_the_hash_of_every_file(built: Path) -> None:
    manifest = json.loads((built / "data.json").read_text())
    assert manifest["seed"] == 5 and len(manifest["files"]) == 34
    for file in manifest["files"]:
        digest = hashlib.sha256((built / file["path"]).read_bytes()).hexdigest()
        assert digest == file["sha256"]


def test_the_card_credits_every_origin_and_lists_every_source(built: Path) -> None:
    card = (built / "DATA_CARD.md").read_text()
    for text in ("CC BY-SA 4.0", "designed by OpenMoji", "MNIST", "gapminder", "Lato", "Chollet"):
        assert text in card
    for source in SOURCES:
        assert f"| {source} | 6 | 24 |" in card
    assert "not installed" not in card and " |  |" not in card


def test_unknown_sources_and_empty_counts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'openmoji_counts'"):
        build(
            tmp_path, seed=0, num_train_images=1, num_heldout_images=1, sources=["openmoji_counts"]
        )
    with pytest.raises(ValueError, match="allowed 1 or more"):
        build(tmp_path, seed=0, num_train_images=0, num_heldout_images=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("source", SOURCES)
def test_the_gold_answer_of_every_source_scores_one(source: str) -> None:
    task = next(task for task in TASKS.values() if source in task.sources)
    for index in range(4):
        scene = draw_scene(source, seed=11, split="test", index=index)
        for row in scene_samples(scene, task=task.name, source=source, split="test", index=index):
            verdict = score(row, row.reward.ground_truth)
            assert verdict.score == 1.0, (row.question, row.reward, verdict)
            assert score(row, "").score == 0.0
