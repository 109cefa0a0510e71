"""A submitted batch, and the pieces of it that workers take."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from data_specs import Sample, shorten
from verifiers.iou_rule import ScoreContext
from verifiers.pool_wire import frame, pack_row
from verifiers.verdict import Verdict

_SMALL_CHARS_MAX = 16_000  # of row and response: boxes of this size are judged in milliseconds
_PIECE_CHARS_MAX = 1_000_000  # of responses, beyond which a piece takes no further item


class Job:
    """One batch: what is asked, which verdicts are there, which items nobody works on."""

    def __init__(self, items: Sequence[tuple[Sample, str]], context: ScoreContext) -> None:
        self.context = pickle.dumps(context)
        self.names: list[str] = []
        self.rows: list[bytes] = []
        self.row_numbers: list[int] = []
        self.responses: list[str] = []
        # Rows are told apart by identity, so they are kept here until the last one is seen.
        numbers: dict[int, tuple[int, Sample]] = {}
        for index, (sample, response) in enumerate(items):
            if id(sample) not in numbers:
                numbers[id(sample)] = len(self.rows), sample
                self.rows.append(pack_row(sample))
            self.names.append(sample.reward.verifier)
            self.row_numbers.append(numbers[id(sample)][0])
            self.responses.append(_plain_text(response, index))
        self.distinct_names = frozenset(self.names)
        self.future: Future[list[Verdict]] = Future()
        self.verdicts: list[Verdict | None] = [None] * len(self.names)
        self.num_missing = len(self.names)
        self.together: deque[int] = deque()
        self.singles: deque[int] = deque()
        self.is_over = False
        self._suspicions: dict[int, float] = {}

    def sort(self, known: Mapping[str, tuple[str, bool]]) -> None:
        """Queue every item: small ones whose verifier judges many at once together."""
        many = {name for name in self.distinct_names if known.get(name, ("", False))[1]}
        for index, name in enumerate(self.names):
            size = len(self.responses[index]) + len(self.rows[self.row_numbers[index]])
            is_together = name in many and size <= _SMALL_CHARS_MAX
            (self.together if is_together else self.singles).append(index)

    @property
    def num_queued(self) -> int:
        """Items that no worker has."""
        return len(self.together) + len(self.singles)

    @property
    def is_next_together(self) -> bool:
        """Whether the next piece is judged in one go; items judged one by one come first."""
        return not self.singles

    def take(self, num_items: int) -> Piece:
        """The next items in the queue."""
        is_together = self.is_next_together
        queue = self.together if is_together else self.singles
        indices: list[int] = []
        num_chars = 0
        while queue and len(indices) < num_items and num_chars < _PIECE_CHARS_MAX:
            indices.append(queue.popleft())
            num_chars += len(self.responses[indices[-1]])
        return Piece(job=self, indices=indices, is_together=is_together)

    def put_back(self, indices: Iterable[int]) -> None:
        """Queue items again, in front, each to be judged by itself."""
        self.singles.extendleft(reversed(list(indices)))

    def suspect(self, index: int, weight: float) -> float:
        """How much speaks for it that the item kills workers, this death included."""
        self._suspicions[index] = self._suspicions.get(index, 0.0) + weight
        return self._suspicions[index]

    def give(self, index: int, verdict: Verdict) -> bool:
        """Keep the verdict unless there is one; False if there is."""
        if self.verdicts[index] is not None:
            return False
        self.verdicts[index] = verdict
        self.num_missing -= 1
        return True

    def end(self, error: Exception | None = None) -> None:
        """Hand the verdicts, or the error, to whoever waits; only the first call counts."""
        if self.is_over:
            return
        self.is_over = True
        self.together.clear()
        self.singles.clear()
        if not self.future.set_running_or_notify_cancel():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result([verdict for verdict in self.verdicts if verdict is not None])


def _plain_text(response: object, index: int) -> str:
    """The response without what a subclass of str may carry; this must not fail later."""
    if type(response) is str:
        return response
    if isinstance(response, str):
        return str.__str__(response)
    raise TypeError(f"response {index} is {shorten(response)}; allowed: a str")


@dataclass(slots=True, eq=False, kw_only=True)
class Piece:
    """Some items of one batch, as one worker holds them."""

    job: Job
    indices: list[int]
    is_together: bool
    """Judged in one go, without a clock for each; a piece that fails comes back as singles."""
    num_done: int = 0
    """Items judged; the worker is on the next one, as it keeps the order."""
    num_held: int = field(init=False)
    """Items that are this worker's business; the others were taken back."""

    def __post_init__(self) -> None:
        self.num_held = len(self.indices)

    def missing(self) -> list[int]:
        """The held items without a verdict, the one that is being judged first."""
        verdicts = self.job.verdicts
        return [index for index in self.indices[: self.num_held] if verdicts[index] is None]

    def take_back(self) -> list[int]:
        """Everything behind the item that is being judged; the piece no longer holds it."""
        start = self.num_done + 1
        verdicts = self.job.verdicts
        taken = [index for index in self.indices[start : self.num_held] if verdicts[index] is None]
        self.num_held = min(self.num_held, start)
        return taken

    def message(self, slow_s: float) -> bytes:
        """The piece as `worker.work` reads it; a row that several items share is sent once."""
        job = self.job
        places: dict[int, int] = {}
        items = [
            (places.setdefault(job.row_numbers[index], len(places)), job.responses[index])
            for index in self.indices
        ]
        rows = [job.rows[number] for number in places]
        return frame((job.context, self.is_together, slow_s, rows, items))
