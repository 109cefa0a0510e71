"""A server's counts and times as Prometheus text; every label has a bounded set of values."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from verifiers.registry import verifier_names
from verifiers.verdict import UNSCORED, Verdict

SECONDS_BOUNDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Upper bounds of the histograms' buckets, in seconds; the last bucket has none."""

_ABOUT = {
    "requests_in_flight": "Requests not yet answered.",
    "items_in_flight": "Items accepted and not yet judged.",
    "queue_items": "Items that no worker has yet.",
    "pool_workers": "Worker processes.",
    "pool_workers_busy": "Worker processes with something to judge.",
    "pool_restarts_total": "Workers that were killed or died.",
    "pool_timeouts_total": "Responses that exceeded the time limit.",
}
_OTHER = "other"
_PREFIX = "vl_reward_"


@dataclass
class Histogram:
    """How often a time fell into each bucket."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS_BOUNDS) + 1))
    total_s: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one time."""
        self.counts[bisect_left(SECONDS_BOUNDS, seconds)] += 1
        self.total_s += seconds


class Metrics:
    """What a server has done since it started."""

    def __init__(self, endpoints: Iterable[str]) -> None:
        self._endpoints = frozenset(endpoints)
        self._verifiers = frozenset(verifier_names())
        self._requests: Counter[tuple[str, int]] = Counter()
        self._items: Counter[tuple[str, str]] = Counter()
        self._verdict_s: dict[str, Histogram] = {}
        self._request_s = Histogram()
        self.replays = 0
        """Requests answered from the store, or by waiting for their first sending."""

    def count_request(self, path: str, code: int) -> None:
        """Count one answer."""
        self._requests[path if path in self._endpoints else _OTHER, code] += 1

    def count_verdicts(self, verdicts: Sequence[Verdict], seconds: float) -> None:
        """Count one batch that took `seconds`."""
        self._request_s.observe(seconds)
        for verdict in verdicts:
            name = verdict.verifier if verdict.verifier in self._verifiers else _OTHER
            self._items[name, verdict.status] += 1
            histogram = self._verdict_s.get(name)
            if histogram is None:
                histogram = self._verdict_s[name] = Histogram()
            histogram.observe(verdict.seconds)

    def text(self, gauges: Mapping[str, float], counters: Mapping[str, float], version: str) -> str:
        """Everything in Prometheus' text format 0.0.4.

        Args:
            gauges: name -> value of what is true now.
            counters: name -> value of what others count.
            version: of the package.
        """
        unscored = Counter(dict.fromkeys(sorted(UNSCORED), 0))
        for (_, status), count in self._items.items():
            if status in UNSCORED:
                unscored[status] += count
        lines = [
            *_family("info", "gauge", "Version of the package.", [({"version": version}, 1)]),
            *_family(
                "requests_total",
                "counter",
                "Answers by endpoint and HTTP status.",
                [({"path": p, "code": str(c)}, n) for (p, c), n in sorted(self._requests.items())],
            ),
            *_family(
                "items_total",
                "counter",
                "Verdicts by verifier and status; a repeated request counts once.",
                [({"verifier": v, "status": s}, n) for (v, s), n in sorted(self._items.items())],
            ),
            *_family(
                "unscored_total",
                "counter",
                "Verdicts without a score, by status.",
                [({"status": status}, count) for status, count in unscored.items()],
            ),
            *_family("replays_total", "counter", "Repeated requests.", [({}, self.replays)]),
            *_histograms(
                "verdict_seconds",
                "Time of a verdict.",
                [({"verifier": name}, one) for name, one in sorted(self._verdict_s.items())],
            ),
            *_histograms(
                "request_seconds", "Time of a batch, waiting included.", [({}, self._request_s)]
            ),
        ]
        for kind, values in (("counter", counters), ("gauge", gauges)):
            for name, value in values.items():
                lines += _family(name, kind, _ABOUT[name], [({}, value)])
        return "\n".join(lines) + "\n"


def _family(
    name: str, kind: str, about: str, values: Iterable[tuple[Mapping[str, str], float]]
) -> Iterator[str]:
    yield f"# HELP {_PREFIX}{name} {about}"
    yield f"# TYPE {_PREFIX}{name} {kind}"
    for labels, value in values:
        yield f"{_PREFIX}{name}{_labels(labels)} {value:.17g}"


def _histograms(
    name: str, about: str, histograms: Iterable[tuple[Mapping[str, str], Histogram]]
) -> Iterator[str]:
    yield f"# HELP {_PREFIX}{name} {about}"
    yield f"# TYPE {_PREFIX}{name} histogram"
    for labels, histogram in histograms:
        below = 0
        for bound, count in zip((*SECONDS_BOUNDS, None), histogram.counts, strict=True):
            below += count
            edge = "+Inf" if bound is None else f"{bound:g}"
            yield f"{_PREFIX}{name}_bucket{_labels({**labels, 'le': edge})} {below}"
        yield f"{_PREFIX}{name}_sum{_labels(labels)} {histogram.total_s:.17g}"
        yield f"{_PREFIX}{name}_count{_labels(labels)} {below}"


def _labels(labels: Mapping[str, str]) -> str:
    """The labels in braces, escaped; empty if there are none."""
    if not labels:
        return ""
    escaped = {
        name: value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        for name, value in labels.items()
    }
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"
