"""Where verdicts are made: in killable processes of this machine, or by reward servers."""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_specs import Sample
from verifiers.iou_rule import ScoreContext
from verifiers.pool import score_batch
from verifiers.verdict import Verdict

if TYPE_CHECKING:
    from verifiers.client import RewardClient


@dataclass(frozen=True, kw_only=True)
class PoolScoring:
    """Score in processes of this machine."""

    workers: int = 1
    """Killable processes; 0 = in this process, where nothing bounds the time of an answer."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"scoring workers {self.workers!r}; allowed: 0 or more")


@dataclass(frozen=True, kw_only=True)
class ServerScoring:
    """Score by servers that `vl serve` started."""

    urls: tuple[str, ...]
    """Base addresses, `http://host:8000`; work goes to the least busy."""
    token_file: str | None = None
    """File that holds the servers' bearer token; None = they need none."""
    deadline_s: float = 60.0
    """Longest time a batch may take, all retries included."""

    def __post_init__(self) -> None:
        bad = [url for url in self.urls if not url.startswith(("http://", "https://"))]
        if bad or not self.urls:
            raise ValueError(
                f"scoring urls {self.urls!r}; allowed: one or more http:// or https:// addresses"
            )


Scoring = PoolScoring | ServerScoring


def read_scoring(text: str) -> Scoring:
    """What a command line names: a number of worker processes, or servers with commas between.

    Raises: ValueError if it is neither.
    """
    if text.isdecimal():
        return PoolScoring(workers=int(text))
    return ServerScoring(urls=tuple(part.strip() for part in text.split(",")))


def score_with(
    scoring: Scoring, items: Sequence[tuple[Sample, str]], context: ScoreContext
) -> list[Verdict]:
    """One verdict per (sample, response), in order. Workers and connections stay for the next call.

    Raises: RewardServiceError if there are servers and none of them could score anything.
    """
    if isinstance(scoring, PoolScoring):
        return score_batch(items, context, workers=scoring.workers)
    return _client(scoring).score_batch(items, context)


_clients: dict[tuple[int, ServerScoring], RewardClient] = {}


def _client(scoring: ServerScoring) -> RewardClient:
    """The connections to these servers; a forked process makes its own."""
    from verifiers.client import RewardClient

    key = os.getpid(), scoring
    if key not in _clients:
        token = None
        if scoring.token_file is not None:
            token = Path(scoring.token_file).read_text(encoding="utf-8").strip()
        _clients[key] = client = RewardClient(
            scoring.urls, token=token, deadline_s=scoring.deadline_s
        )
        atexit.register(client.close)
    return _clients[key]
