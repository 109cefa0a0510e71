"""How hard rows are for a policy: its scored answers, kept in a file, and the band that is kept."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, NamedTuple, Protocol, cast

from data_specs import DataSpecError, Sample
from verifiers import Verdict

Outcome = Literal["kept", "too_easy", "too_hard", "unjudged"]

_INTERVAL = re.compile(
    r"(?P<open>[\[(])\s*(?P<low>[0-9.]+)\s*,\s*(?P<high>[0-9.]+)\s*(?P<close>[\])])"
    r"\s*/\s*(?P<num>[0-9]{1,4})"
)


@dataclass(frozen=True, kw_only=True)
class Band:
    """Which rows are kept: those whose sum of scores over `num_answers` lies in an interval."""

    low: float
    high: float
    num_answers: int
    """Answers a row is asked for, and needs scored to be judged; more are scaled to so many."""
    is_low_open: bool = False
    """True: `low` itself is too hard."""
    is_high_open: bool = False
    """True: `high` itself is too easy."""

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high or self.num_answers < 1:
            raise ValueError(f"band {self}; allowed: 0 <= low <= high, and at least one answer")

    def __str__(self) -> str:
        left, right = "[("[self.is_low_open], "])"[self.is_high_open]
        return f"{left}{self.low:g},{self.high:g}{right}/{self.num_answers}"

    def outcome(self, scores: Sequence[float]) -> Outcome:
        """What becomes of a row with these scores, unscored answers left out."""
        if len(scores) < self.num_answers:
            return "unjudged"
        total = sum(scores) * self.num_answers / len(scores)
        if total < self.low or (self.is_low_open and total == self.low):
            return "too_hard"
        if total > self.high or (self.is_high_open and total == self.high):
            return "too_easy"
        return "kept"


BOXED_BAND = Band(low=0, high=8, num_answers=8, is_high_open=True)
"""0 <= pass@8 < 1. Source: arXiv 2505.18129, section 3.3."""

BOXES_BAND = Band(low=2, high=10, num_answers=16)
"""2 <= sum of 16 IoU rewards <= 10. Source: arXiv 2505.18129, section 3.3."""

BANDS: Mapping[str, Band] = {"boxed": BOXED_BAND, "detection": BOXES_BAND}
"""By verifier; `boxed` is for all that are not named."""


def band_of(sample: Sample, bands: Mapping[str, Band]) -> Band:
    """The band that a row's verifier has."""
    return bands.get(sample.reward.verifier, bands["boxed"])


def read_bands(texts: Iterable[str]) -> dict[str, Band]:
    """`BANDS` with changes written `VERIFIER=[LOW,HIGH]/ANSWERS`, round brackets where open.

    Raises: ValueError for a text of another form.
    """
    bands = dict(BANDS)
    for text in texts:
        name, _, written = text.partition("=")
        found = _INTERVAL.fullmatch(written.strip())
        try:
            if not name or found is None:
                raise ValueError("not of that form")
            bands[name] = Band(
                low=float(found["low"]),
                high=float(found["high"]),
                num_answers=int(found["num"]),
                is_low_open=found["open"] == "(",
                is_high_open=found["close"] == ")",
            )
        except ValueError as error:
            raise ValueError(
                f"--band {text!r}: {error}; allowed: VERIFIER=[LOW,HIGH]/ANSWERS, a sum of scores: "
                "'boxed=[0,8)/8', 'detection=[2,10]/16'"
            ) from error
    return bands


class Ask(NamedTuple):
    """A row that a policy is to answer so many times."""

    sample: Sample
    num_answers: int


class Policy(Protocol):
    """Answers rows at temperature 1."""

    @property
    def name(self) -> str:
        """What scores are kept under: a file of scores has those of one policy."""
        ...

    @property
    def is_live(self) -> bool:
        """Whether answers cost time: a dry run does not ask."""
        ...

    def answers(self, asks: Iterable[Ask]) -> Iterator[tuple[Sample, list[str]]]:
        """The rows with their answers, in any order; fewer answers than asked for are allowed."""
        ...


class RowScores(NamedTuple):
    """What is known of a row: one entry an answer."""

    scores: tuple[float | None, ...]
    statuses: tuple[str, ...]

    @property
    def scored(self) -> list[float]:
        """The scores there are."""
        return [score for score in self.scores if score is not None]

    @property
    def difficulty(self) -> float | None:
        """1 minus the mean score, in [0, 1]; None without a score."""
        scored = self.scored
        return 1.0 - sum(scored) / len(scored) if scored else None


class ScoreBook:
    """The scores of rows, each appended to a file as soon as it is there.

    A row is known by its source, id and content; a line that a kill cut short is not counted.
    """

    def __init__(self, path: Path, policy: str, *, is_kept: bool = True) -> None:
        """Reads what the file has; unless `is_kept`, nothing is added to it.

        Raises: ValueError if the file is damaged, or has the scores of another policy.
        """
        self._path, self._policy, self._is_kept = path, policy, is_kept
        self._file: IO[str] | None = None
        self._rows: dict[str, RowScores] = {}
        if path.exists():
            self._read(path)

    def __enter__(self) -> ScoreBook:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, sample: Sample) -> RowScores | None:
        """A row's scores, if it was asked."""
        return self._rows.get(row_key(sample))

    def add(self, sample: Sample, verdicts: Sequence[Verdict]) -> None:
        """Keeps what the verifier said of a row's answers."""
        scores = tuple(verdict.score for verdict in verdicts)
        found = RowScores(scores, tuple(verdict.status for verdict in verdicts))
        key = row_key(sample)
        self._rows[key] = found
        if not self._is_kept:
            return
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _cut_torn_line(self._path)
            self._file = self._path.open("a", encoding="utf-8")
        line = {
            "id": sample.id,
            "source": sample.source,
            "key": key,
            "policy": self._policy,
            "scores": [score if score is None else round(score, 6) for score in scores],
            "statuses": found.statuses,
        }
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def _read(self, path: Path) -> None:
        with path.open("rb") as lines:
            for number, raw in enumerate(lines, start=1):
                if not raw.endswith(b"\n"):
                    return
                where = f"{path} line {number}"
                line = _line(raw, where)
                if line["policy"] != self._policy:
                    raise ValueError(
                        f"{where}: has the scores of {line['policy']!r}; this is "
                        f"{self._policy!r}. Choose another --out, or delete the file"
                    )
                scores = tuple(cast("list[float | None]", line["scores"]))
                statuses = tuple(cast("list[str]", line["statuses"]))
                self._rows[str(line["key"])] = RowScores(scores, statuses)


def row_key(sample: Sample) -> str:
    """Hash of what a row's scores depend on: who it is, what it asks and shows, its judge."""
    spec = sample.reward
    digest = hashlib.blake2b(digest_size=12)
    said = [f"{item.role}\1{item.content}" for item in sample.messages]
    params = json.dumps(dict(spec.params), sort_keys=True, default=repr)
    parts = [sample.source, sample.id, *said, spec.verifier, spec.ground_truth, params]
    digest.update("\0".join(parts).encode("utf-8", "surrogatepass"))
    for image in sample.images:
        try:
            digest.update(image.encoded())
        except DataSpecError:
            digest.update(b"\0")
    return digest.hexdigest()


def _line(raw: bytes, where: str) -> dict[str, object]:
    """One line of the file, its fields looked at."""
    try:
        line: object = json.loads(raw)
    except ValueError:
        line = None
    if isinstance(line, dict):
        fields = cast("dict[str, object]", line)
        scores, statuses = fields.get("scores"), fields.get("statuses")
        if (
            isinstance(fields.get("key"), str)
            and isinstance(fields.get("policy"), str)
            and isinstance(scores, list)
            and isinstance(statuses, list)
            and all(isinstance(s, int | float | None) for s in cast("list[object]", scores))
        ):
            return fields
    raise ValueError(
        f"{where}: found {raw[:60]!r}; allowed: an object with key, policy, scores and statuses. "
        "Delete the line, or the file to ask every row again"
    )


def _cut_torn_line(path: Path) -> None:
    """Removes what follows the last whole line, which a kill left there."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
