"""The messages that a run has handled: their head, and the permits that they used up.

Runs inside the workflow sandbox. A function of what was handled, in that order, so that a replay arrives at the same.
"""

from __future__ import annotations

from typing import Any

from exequatur.lineage.chain import fold_message
from exequatur.statements.models import short_digest
from exequatur.statements.used import MAX_CARRIED, Used

_MOST_NAMED = 256
"""Messages that one request or seal names; the head is over all of them."""


class Heard:
    """Of one run."""

    def __init__(self) -> None:
        self.used = Used()
        self.head: str | None = None
        self._since: list[str] = []

    def handled(self, item: str) -> None:
        """Fold a message, as :func:`exequatur.lineage.chain.handled_message` describes it."""
        self.head = fold_message(self.head, item)
        if len(self._since) < _MOST_NAMED:
            self._since.append(short_digest(item))

    def told(self) -> dict[str, Any]:
        """What the next request says."""
        return {"heard": tuple(self._since), "messages": self.head}

    def requested(self) -> None:
        """A request has said it."""
        self._since = []

    def sealed(self, now: float, *, continued: bool, room: int = MAX_CARRIED) -> dict[str, Any]:
        """What the seal says.

        Args:
            now: Seconds since 1970.
            continued: Whether a run comes after it.
            room: For how many messages and used permits there is room.
        """
        told: dict[str, Any] = {"heard": tuple(self._since[:room]), "messages": self.head}
        if continued:
            told["used"], told["used_until"] = self.used.carried(now, room)
        return told
