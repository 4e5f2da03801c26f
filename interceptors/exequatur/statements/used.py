"""Which permits a run has used: each is good once, also in the runs that continue it.

Pure, and a function of what was used and when, so that a replay arrives at the same. Rules:

M31  A permit that was used is not good again.
M32  What cannot be remembered counts as used: when there are too many, those that were issued first are forgotten, and
     from then on nothing is good that was issued no later than they were.
M33  What a run remembers goes on into the run that continues it, in its seal. What was issued more than
     :data:`BEFORE` seconds before a run began is not good for it anyway, and need not go on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from exequatur.errors import StatementError
from exequatur.statements.models import short_digest

MAX_REMEMBERED = 16_384
"""More than Temporal lets one run have: 10,000 signals and 2,000 updates, unless its server is configured otherwise."""
MAX_CARRIED = 256
"""As many as a seal has room for."""
BEFORE = 60.0
"""Seconds that a message may have been signed before its run began; the clocks of its sender and the server differ."""
_LENGTH = len(short_digest("x" * 43))


class Used:
    """The permits that a run used, by their short digests, each with when it was issued in milliseconds.

    Not in seconds: what is forgotten takes with it what was issued no later, and many are issued in the same second.
    """

    def __init__(self) -> None:
        self._issued: dict[str, int] = {}
        self._until = 0

    def take(self, digest: str, iat: float) -> None:
        """Use a permit.

        Args:
            digest: Of the token.
            iat: When it was issued, in seconds since 1970.

        Raises:
            StatementError: M31, M32.
        """
        if short_digest(digest) in self._issued:  # [M31]
            raise StatementError("M31", "It was used before; send the message anew")
        if iat * 1000 <= self._until:  # [M32]
            raise StatementError("M32", "It may have been used before: too many were; send the message anew")
        self._issued[short_digest(digest)] = math.ceil(iat * 1000)
        if len(self._issued) > MAX_REMEMBERED:
            self._issued, self._until = self._kept(0.0, MAX_REMEMBERED // 2)

    def _kept(self, since: float, most: int) -> tuple[dict[str, int], int]:
        """At most so many of those that were issued since, and until when others are not good."""
        recent = sorted((issued, digest) for digest, issued in self._issued.items() if issued > since * 1000)
        forgotten = recent[: max(0, len(recent) - most)]
        until = max([self._until, *(issued for issued, _ in forgotten)])
        # Those that were issued together go together: they are no longer good.
        return {digest: issued for issued, digest in recent if issued > until}, until

    def carried(self, now: float, most: int = MAX_CARRIED) -> tuple[tuple[str, ...], float | None]:
        """What the next run has to remember (M33).

        Args:
            now: When it begins, in seconds since 1970.
            most: How many there is room for.

        Returns:
            Those that could be good again, for :meth:`carry`, and until when issued ones are not good, if there are
            such.
        """
        since = now - 2 * BEFORE  # twice, because the run may begin a little earlier by the server's clock
        issued, until = self._kept(since, most)
        return tuple(f"{digest}{at}" for digest, at in issued.items()), until / 1000 if until > since * 1000 else None

    def carry(self, used: Iterable[str], until: float | None) -> None:
        """Begin with what the run before remembered (M33).

        Raises:
            StatementError: M33 an entry is not one of :meth:`carried`.
        """
        for entry in used:
            digest, issued = entry[:_LENGTH], entry[_LENGTH:]
            if not (issued.isascii() and issued.isdigit() and len(issued) <= 14):
                raise StatementError("M33", "The seal lists a used permit that is none")
            self._issued[digest] = int(issued)
        self._until = max(self._until, round((until or 0) * 1000))
