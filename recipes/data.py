"""The rows of a run: embedded data drawn once and kept, or a person's own files; always checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import tasks
from data_specs import Sample, parquet_files, read_samples
from tasks.build import CARD, MANIFEST, build
from tasks.check import check_files

from .progress import Progress
from .recipe import DataConfig
from .stages import content_key


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Checked parquet files."""

    train_files: tuple[Path, ...]
    heldout_files: tuple[Path, ...]
    key: str
    """Changes with the content of the training files."""

    def train(self) -> Iterator[Sample]:
        """Training rows."""
        return read_samples(self.train_files)

    def heldout(self) -> Iterator[Sample]:
        """Held-out rows."""
        return read_samples(self.heldout_files)

    def as_json(self) -> dict[str, list[str]]:
        """The files, for `config.json`."""
        return {
            "train": [str(path) for path in self.train_files],
            "heldout": [str(path) for path in self.heldout_files],
        }


def prepare_data(
    config: DataConfig, *, cache_dir: Path, progress: Progress, checked: bool = False
) -> Dataset:
    """Builds the embedded data if they are not kept yet, and checks every row before any compute.

    Args:
        checked: the person's own files have been checked already.

    Raises:
        DataSpecError: rows that cannot be trained on, by file, row, field, value and remedy.
    """
    if config.train_files:
        train = tuple(parquet_files(config.train_files))
        heldout = tuple(parquet_files(config.heldout_files))
    else:
        folder = _embedded(config, cache_dir, progress)
        train = tuple(sorted((folder / "train").glob("*.parquet")))
        heldout = tuple(sorted((folder / "test").glob("*.parquet")))
    if not checked:
        progress.note(f"checking {len(train)} training and {len(heldout)} held-out files")
        check_files(train, heldout=heldout).raise_if_bad()
    return Dataset(train_files=train, heldout_files=heldout, key=_content_key(train))


def _embedded(config: DataConfig, cache_dir: Path, progress: Progress) -> Path:
    fields = {k: v for k, v in asdict(config).items() if k.startswith(("seed", "num_"))}
    folder = cache_dir / f"data-{content_key(fields, _maker_key())}"
    if (folder / MANIFEST).exists() and (folder / CARD).exists():
        progress.note(f"data: kept in {folder}")
        return folder
    with progress.task("drawing data", 1) as advance:
        build(
            folder,
            seed=config.seed,
            num_train_images=config.num_train_images,
            num_heldout_images=config.num_heldout_images,
            # not those of installed packages: a recipe means the same on every machine
            sources=[source for task in tasks.TASKS.values() for source in task.source_names],
            progress=lambda _name, done, total: advance(done / total),
        )
    return folder


def _maker_key() -> str:
    """Changes with the code that draws: kept rows must be those that it would draw now."""
    package = Path(tasks.__file__).parent
    sources = [path.read_bytes() for path in sorted(package.glob("*.py"))]
    return hashlib.sha256(b"\0".join(sources)).hexdigest()


def _content_key(files: tuple[Path, ...]) -> str:
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16]
