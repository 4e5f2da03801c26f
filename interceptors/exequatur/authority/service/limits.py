"""How often one caller may ask: token buckets, of which only a bounded number is remembered.

Rules, numbered as the code marks them:

H3  Whoever asks more often than allowed is refused before anything is verified (address) or decided (principal), and is
    told when to come back.
H4  However many callers there are, or pretend to be, the memory is bounded. Who was quiet the longest is forgotten, and
    starts with a full bucket.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from exequatur.authority.service.answers import Refused

MAX_REMEMBERED = 20_000
"""Buckets of a hundred bytes."""


class Buckets:
    """One bucket for each name.

    Args:
        rate: Requests a second.
        burst: Seconds' worth of requests that may come at once.
        clock: Seconds; never goes back.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._full = max(1.0, rate * burst)
        self._clock = clock
        self._lock = threading.Lock()
        self._held: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """What is left, and when that was, by name; the quietest first."""

    def take(self, name: str) -> None:
        """Count one request.

        Raises:
            Refused: H3.
        """
        with self._lock:
            now = self._clock()
            left, then = self._held.pop(name, (self._full, now))
            left = min(self._full, left + (now - then) * self._rate)
            refused = left < 1
            self._held[name] = (left if refused else left - 1, now)
            if len(self._held) > MAX_REMEMBERED:  # [H4]
                self._held.popitem(last=False)
        if refused:  # [H3]
            wait = math.ceil((1 - left) / self._rate)
            raise Refused(
                429, "slow_down", f"Too many requests; ask again in {wait} s", headers={"Retry-After": str(wait)}
            )

    def __len__(self) -> int:
        return len(self._held)
