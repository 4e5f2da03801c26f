"""Whose turn it is: heavy work for many viewers, so that none of them keeps the others waiting.

Rules, numbered as the code marks them:

T1  So many things are done at a time, and of one viewer one.
T2  Only so many are done or wait, and fewer of one viewer; who asks for more is refused.
T3  What several viewers wait for is done when it is the turn of any of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from exequatur.console.errors import ProblemError


@dataclass(eq=False)
class Turn:
    """A place in the queue.

    Args:
        whose: Who waits for it; the first asked for it.
        given: Done when it may begin.
        charged: For whom it is done.
    """

    whose: list[str]
    given: asyncio.Future[None] = field(repr=False)
    charged: str | None = None


class Turns:
    """A queue; used on one event loop.

    Args:
        at_once: How many are done at a time.
        most: How many are done or wait.
        each: How many of those one viewer has asked for.
    """

    def __init__(self, at_once: int, most: int, each: int) -> None:
        self._at_once = at_once
        self._most = most
        self._each = each
        self._queue: list[Turn] = []

    def of(self, who: str) -> int:
        """How many a viewer has asked for."""
        return sum(turn.whose[0] == who for turn in self._queue)

    def ask(self, who: str) -> Turn:
        """Ask for a turn, which :meth:`taken` has to take.

        Raises:
            ProblemError: T2.
        """
        if len(self._queue) >= self._most:  # [T2]
            raise _refused(f"{self._most} audits and exports are under way.")
        if self.of(who) >= self._each:  # [T2]
            raise _refused(f"{self._each} audits and exports of yours are under way.")
        turn = Turn([who], asyncio.get_running_loop().create_future())
        self._queue.append(turn)
        return turn

    def join(self, turn: Turn, who: str) -> None:
        """Wait for it, too."""
        if who not in turn.whose:
            turn.whose.append(who)  # [T3]
            self._go_on()

    @asynccontextmanager
    async def taken(self, turn: Turn) -> AsyncIterator[None]:
        """Wait until it is its turn, and have it until the end of the block."""
        try:
            self._go_on()
            await turn.given
            yield
        finally:
            self.drop(turn)

    def drop(self, turn: Turn) -> None:
        """Leave the queue, also before it was the turn."""
        if turn in self._queue:
            self._queue.remove(turn)
            self._go_on()

    def _go_on(self) -> None:
        busy = [turn.charged for turn in self._queue if turn.charged is not None]
        for turn in self._queue:
            if len(busy) >= self._at_once:  # [T1]
                return
            free = next((who for who in turn.whose if who not in busy), None)  # T1
            if turn.charged is None and free is not None and not turn.given.done():
                turn.charged = free
                turn.given.set_result(None)
                busy.append(free)


def _refused(why: str) -> ProblemError:
    return ProblemError(
        429, "Too much is audited already", why, "Wait for one of them, or stop it.", {"Retry-After": "5"}
    )
