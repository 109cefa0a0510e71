"""The reward servers as a client sees them: who works on how much, and who had better rest."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import median
from time import monotonic

REST_MIN_S = 0.25
"""How long a server rests after its first failure; doubled with each one more in a row."""

REST_MAX_S = 10.0

HEDGE_MEDIANS = 4.0
"""A request that takes this many times the median goes to a second server too."""

HEDGE_AFTER_MIN_S = 3.0
"""But not before; a hanging response costs any server its time limit, 2 s by default."""

_TIMES_KEPT = 101
_TIMES_NEEDED = 10


@dataclass(eq=False)
class RewardServer:
    """One server."""

    url: str
    items_in_flight: int = 0
    """Items sent there and not yet answered."""
    num_requests: int = 0
    num_failed: int = 0
    last_error: str = ""
    rests_until: float = 0.0
    """On the monotonic clock, in seconds; in the past if it may be asked."""
    _failed_in_row: int = field(default=0, repr=False)

    def succeeded(self) -> None:
        """Note an answer."""
        self._failed_in_row, self.rests_until = 0, 0.0

    def failed(self, error: str, random: Random) -> None:
        """Note a failure, and let the server rest."""
        self.num_failed += 1
        self.last_error = error
        rest_s = min(REST_MAX_S, REST_MIN_S * 2.0 ** min(self._failed_in_row, 16))
        self._failed_in_row += 1
        self.rests_until = monotonic() + rest_s * random.uniform(0.5, 1.0)


class RewardServers:
    """All servers of a client; used by one thread."""

    def __init__(self, urls: Sequence[str], hedge_after_s: float | None) -> None:
        self.all = tuple(RewardServer(url) for url in urls)
        self._hedge_after_s = hedge_after_s
        self._times_s: deque[float] = deque(maxlen=_TIMES_KEPT)
        self._hedge_s = math.inf
        self._times_seen = 0

    def least_busy(self, avoid: Collection[RewardServer | None] = ()) -> RewardServer | None:
        """The server with the fewest items in flight; None if all rest or are to be avoided."""
        now = monotonic()
        able = [one for one in self.all if one.rests_until <= now and one not in avoid]
        return min(able, key=lambda one: (one.items_in_flight, one.num_requests), default=None)

    def rest_s(self) -> float:
        """How long until one of the servers may be asked; 0 if one may be now."""
        return max(0.0, min(one.rests_until for one in self.all) - monotonic())

    def took(self, seconds: float) -> None:
        """Note how long an answer took."""
        self._times_s.append(seconds)
        self._times_seen += 1
        if len(self._times_s) >= _TIMES_NEEDED and self._times_seen % _TIMES_NEEDED == 0:
            self._hedge_s = max(HEDGE_AFTER_MIN_S, HEDGE_MEDIANS * median(self._times_s))

    def hedge_after_s(self) -> float:
        """How long to wait for an answer before a second server is asked too."""
        return self._hedge_s if self._hedge_after_s is None else self._hedge_after_s
