"""Settings of the whole test set, and the one finished run that several tests look at."""

import os
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # a name that is no folder is refused at once, not after retries

torch.set_num_threads(1)


class FinishedRun(NamedTuple):
    out: Path
    cache: Path


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory) -> FinishedRun:
    """`vl train orsta_tiny --smoke`, run once; look, do not write."""
    from smoke import train

    folder = tmp_path_factory.mktemp("smoke")
    run = FinishedRun(folder / "run", folder / "cache")
    assert train(run.out, run.cache) == 0
    return run
