"""Writes the data set: parquet files of every source, a data card, and a manifest.

Every image derives from (seed, source, split, index) alone, so the number of processes, the
order of sources and the other counts never change a row.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from data_specs import ImageRef, Message, RewardSpec, Sample, write_samples
from tasks import installed_tasks
from tasks.card import LICENCES, data_card, package_versions
from tasks.task import (
    SIZE_PX,
    Maker,
    Pixels,
    Scene,
    Split,
    SplitName,
    Task,
    per_mille,
)

Icons = Literal["seen", "unseen"]
Progress = Callable[[str, int, int], None]
"""Called after each finished file with (file name, files done, files in all)."""

MANIFEST = "data.json"
CARD = "DATA_CARD.md"


@dataclass(frozen=True, kw_only=True)
class BuiltFile:
    """One parquet file that was written."""

    path: str
    """Relative to the folder, with forward slashes."""
    task: str
    source: str
    split: str
    num_images: int
    num_rows: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build wrote."""

    out: Path
    seed: int
    files: tuple[BuiltFile, ...]

    @property
    def num_rows(self) -> int:
        """Rows over all files."""
        return sum(file.num_rows for file in self.files)


class _Job(NamedTuple):
    out: Path
    seed: int
    task: str
    source: str
    split: SplitName
    icons: Icons
    num_images: int


def build(
    out: Path,
    *,
    seed: int,
    num_train_images: int,
    num_heldout_images: int,
    icons: Icons = "seen",
    splits: Sequence[SplitName] = ("train", "test"),
    sources: Sequence[str] | None = None,
    processes: int = 2,
    progress: Progress | None = None,
) -> BuildReport:
    """Write `num_..._images` images, four rows each, of every source into `out`.

    A source with a reader gives as many images, or all that it has, with its own rows.

    Args:
        icons: `unseen` draws the icons that neither training nor the standard test shows.
        sources: only these; None for all of `TASKS`.
        processes: 1 draws in this process.

    Raises:
        ValueError: an unknown source, a count below 1, or a reader without rows.
        MissingDataError: a package of the extra `data` is absent.
    """
    tasks = installed_tasks()
    _check(tasks, sources, num_train_images, num_heldout_images)
    jobs = [
        _Job(
            out,
            seed,
            task.name,
            source,
            split,
            icons,
            num_train_images if split == "train" else num_heldout_images,
        )
        for split in splits
        for task in tasks.values()
        for source in task.source_names
        if sources is None or source in sources
    ]
    for split in splits:
        (out / split).mkdir(parents=True, exist_ok=True)
    files: list[BuiltFile] = []
    for file in _run(jobs, processes):
        files.append(file)
        if progress is not None:
            progress(file.path, len(files), len(jobs))
    report = BuildReport(out=out, seed=seed, files=tuple(files))
    _write_manifest(report, icons)
    return report


def draw_scene(
    source: str, *, seed: int, split: SplitName, index: int, icons: Icons = "seen"
) -> Scene:
    """The scene number `index` of a source; `icons` changes drawings, not the random stream."""
    digest = hashlib.sha256(f"{seed}/{source}/{split}/{index}".encode()).digest()
    rng = np.random.default_rng(np.random.SeedSequence(int.from_bytes(digest[:16], "big")))
    return _makers()[source](rng, Split(name=split, icons=icons, index=index))


def _makers() -> dict[str, Maker]:
    return {s: make for task in installed_tasks().values() for s, make in task.sources.items()}


def encode_png(image: Pixels) -> bytes:
    """The image as a PNG, compressed lightly."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=2)
    return buffer.getvalue()


def scene_samples(
    scene: Scene, *, task: str, source: str, split: str, index: int, licence: str = ""
) -> Iterator[Sample]:
    """The scene's rows: one per question, all with the same image."""
    image = ImageRef(data=encode_png(scene.image))
    image_id = f"{source}-{split}-{index}"
    objects = json.dumps(
        [{"bbox_2d": list(per_mille(item.box)), "label": item.label} for item in scene.objects],
        separators=(",", ":"),
    )
    for number, question in enumerate(scene.questions):
        yield Sample(
            id=f"{image_id}-{number}",
            source=source,
            task=task,
            messages=(Message(role="user", content=f"<image>{question.text}"),),
            images=(image,),
            reward=RewardSpec(
                verifier=question.verifier,
                answer=question.answer,
                ground_truth=question.ground_truth,
                accuracy_ratio=question.accuracy_ratio,
                format_ratio=question.format_ratio,
                params=question.params,
            ),
            extra={
                "split": split,
                "image_id": image_id,
                "coordinate_space": "per_mille",
                "image_width": SIZE_PX,
                "image_height": SIZE_PX,
                "objects": objects,
                "question_type": question.kind,
                "licence": licence,
            },
        )


def _check(tasks: Mapping[str, Task], sources: Sequence[str] | None, *counts: int) -> None:
    known = [source for task in tasks.values() for source in task.source_names]
    unknown = sorted(set(sources or ()) - set(known))
    if unknown:
        raise ValueError(f"build, sources: found {unknown!r}, allowed {known!r}; check the names")
    if min(counts) < 1:
        raise ValueError(f"build, image counts: found {counts!r}, allowed 1 or more; raise them")


def _run(jobs: Sequence[_Job], processes: int) -> Iterator[BuiltFile]:
    if processes == 1:
        yield from map(_write_source, jobs)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(_write_source, jobs)


def _write_source(job: _Job) -> BuiltFile:
    """The file appears under its name, which tells its rows, when they have been counted."""
    licence = LICENCES.get(job.source) or installed_tasks()[job.task].licence
    images: set[str] = set()
    unnamed = job.out / job.split / f".{job.task}_{job.source}.parquet"
    num_rows = write_samples(_rows(job, licence, images), unnamed)
    if not num_rows:
        unnamed.unlink()
        raise ValueError(
            f"build, source {job.source!r}: found no rows for split {job.split!r}, allowed: at "
            "least one; correct its reader, or leave the source or the split out"
        )
    name = f"{job.split}/{job.split}_{job.task}_{job.source}_{num_rows}.parquet"
    path = job.out / name
    os.replace(unnamed, path)
    return BuiltFile(
        path=name,
        task=job.task,
        source=job.source,
        split=job.split,
        num_images=len(images),
        num_rows=num_rows,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def _rows(job: _Job, licence: str, images: set[str]) -> Iterator[Sample]:
    """Rows until there are `num_images` images; `images` gets their names."""
    reader = installed_tasks()[job.task].readers.get(job.source)
    read = _drawn(job, licence) if reader is None else reader(job.split)
    for sample in read:
        image_id = str(sample.extra.get("image_id") or sample.id)
        if image_id not in images and len(images) == job.num_images:
            return
        images.add(image_id)
        extra = {"licence": licence, **sample.extra, "split": job.split}
        yield replace(sample, source=job.source, task=job.task, extra=extra)


def _drawn(job: _Job, licence: str) -> Iterator[Sample]:
    for index in range(job.num_images):
        scene = draw_scene(job.source, seed=job.seed, split=job.split, index=index, icons=job.icons)
        yield from scene_samples(
            scene,
            task=job.task,
            source=job.source,
            split=job.split,
            index=index,
            licence=licence,
        )


def _write_manifest(report: BuildReport, icons: str) -> None:
    manifest = {
        "seed": report.seed,
        "icons": icons,
        "num_rows": report.num_rows,
        "versions": package_versions(),
        "files": [vars(file) for file in report.files],
    }
    (report.out / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    sizes = [(f.split, f.task, f.source, f.num_images, f.num_rows) for f in report.files]
    card = data_card(sizes, seed=report.seed, icons=icons)
    (report.out / CARD).write_text(card, encoding="utf-8")
