"""What a process's gate has done, counted for its report: how often, how long, and what was refused."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from typing import get_args

from exequatur.release.traffic import BOUNDS, MINUTES, Kind, Minute, Traffic

_KINDS: tuple[Kind, ...] = get_args(Kind)
_PLACE = {kind: place for place, kind in enumerate(_KINDS)}
_OUTCOMES: dict[str, Kind] = {
    "allowed": "allowed",
    "observed": "observed",
    "AuthorizationDenied": "denied",
    "GrantRejected": "rejected",
    "AuthorizationChallenge": "challenged",
    "AuthorizationUnavailable": "unavailable",
    "AuthorizationRevoked": "revoked",
    "ReceiptRejected": "receipt",
}
_LATEST = 32_503_680_000.0


class Tally:
    """Counts for as long as the process lives.

    Counting takes no lock, because the gate waits for it: where two workers of a process count in the same instant, in
    threads of their own, one count may be lost. Nothing is decided by it.
    """

    def __init__(self) -> None:
        self._kinds = [0] * len(_KINDS)
        self._latency = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0
        self._lock = threading.Lock()
        self._since: float | None = None
        self._minute = 0
        self._before = (list(self._latency), list(self._kinds))
        """What was counted when the minute began."""
        self._over: deque[Minute] = deque(maxlen=MINUTES - 1)

    def decided(self, outcome: str, seconds: float) -> None:
        """Count a decision.

        Args:
            outcome: As the metrics call it.
            seconds: That it took.
        """
        self._latency[bisect_left(BOUNDS, seconds)] += 1
        self._seconds += seconds
        self._kinds[_PLACE[_OUTCOMES.get(outcome, "rejected")]] += 1

    def happened(self, kind: Kind) -> None:
        """Count what is no decision: what ended while it ran, a result or a message that was refused."""
        self._kinds[_PLACE[kind]] += 1

    def traffic(self, now: float) -> Traffic:
        """What was counted; ask often enough for the minutes to be told apart.

        Args:
            now: Seconds since 1970.
        """
        with self._lock:
            now = min(max(now, 0.0), _LATEST)
            minute = int(now // 60) * 60
            if self._since is None:
                self._since, self._minute = now, minute
            latency, kinds = list(self._latency), list(self._kinds)
            if minute != self._minute:
                self._over.append(self._lately(latency, kinds))
                self._minute, self._before = minute, (latency, kinds)
            return Traffic(
                since=self._since,
                seconds=round(max(self._seconds, 0.0), 6),
                latency=tuple(latency),
                kinds=_named(kinds),
                minutes=(*self._over, self._lately(latency, kinds)),
            )

    def _lately(self, latency: list[int], kinds: list[int]) -> Minute:
        before_latency, before_kinds = self._before
        return Minute(
            at=self._minute,
            latency=tuple(now - before for now, before in zip(latency, before_latency, strict=True)),
            kinds=_named([now - before for now, before in zip(kinds, before_kinds, strict=True)]),
        )


def _named(kinds: list[int]) -> dict[Kind, int]:
    return {kind: kinds[place] for kind, place in _PLACE.items() if kinds[place]}
