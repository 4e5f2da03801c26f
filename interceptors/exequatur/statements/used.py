"""Which permits a run has used: each is good once, also in the runs that continue it.

Pure, and a function of what was used and when, so that a replay arrives at the same. Rules:

M31  A permit that was used is not good again for as long as it lasts.
M32  What cannot be remembered counts as used: when there are too many, those that end first are forgotten, and from
     then on nothing is good that ends no later than they did.
M33  What a run remembers goes on into the run that continues it, in its seal.
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
_LENGTH = len(short_digest("x" * 43))


class Used:
    """The permits that a run used, by their short digests, each with its end in milliseconds.

    Not in seconds: what is forgotten takes with it what ends no later, and many permits end in the same second.
    """

    def __init__(self) -> None:
        self._ends: dict[str, int] = {}
        self._until = 0

    def take(self, digest: str, exp: float, now: float) -> None:
        """Use a permit.

        Args:
            digest: Of the token.
            exp: Its end, in seconds since 1970.
            now: Seconds since 1970.

        Raises:
            StatementError: M31, M32.
        """
        if short_digest(digest) in self._ends:  # [M31]
            raise StatementError("M31", "It was used before; send the message anew")
        if exp * 1000 <= self._until:  # [M32]
            raise StatementError("M32", "It may have been used before: too many were; send the message anew")
        self._ends[short_digest(digest)] = math.ceil(exp * 1000)
        if len(self._ends) > MAX_REMEMBERED:
            self._ends, self._until = self._kept(now, MAX_REMEMBERED // 2)

    def _kept(self, now: float, most: int) -> tuple[dict[str, int], int]:
        """At most so many of those that have not ended, and until when others are not good."""
        lasting = sorted((end, digest) for digest, end in self._ends.items() if end > now * 1000)
        forgotten = lasting[: max(0, len(lasting) - most)]
        until = max([self._until, *(end for end, _ in forgotten)])
        # Those that end together go together: they are no longer good.
        return {digest: end for end, digest in lasting if end > until}, until

    def carried(self, now: float, most: int = MAX_CARRIED) -> tuple[tuple[str, ...], float | None]:
        """What the next run has to remember (M33).

        Args:
            now: Seconds since 1970.
            most: How many there is room for.

        Returns:
            Those that have not ended, for :meth:`carry`, and until when others are not good, if there are such.
        """
        ends, until = self._kept(now, most)
        return tuple(f"{digest}{end}" for digest, end in ends.items()), until / 1000 if until > now * 1000 else None

    def carry(self, used: Iterable[str], until: float | None) -> None:
        """Begin with what the run before remembered (M33).

        Raises:
            StatementError: M33 an entry is not one of :meth:`carried`.
        """
        for entry in used:
            digest, end = entry[:_LENGTH], entry[_LENGTH:]
            if not (end.isascii() and end.isdigit() and len(end) <= 14):
                raise StatementError("M33", "The seal lists a used permit that is none")
            self._ends[digest] = int(end)
        self._until = max(self._until, round((until or 0) * 1000))
