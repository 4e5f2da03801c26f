"""Where requests are decided: threads beside the one that talks HTTP, so that a slow disk holds up no health check."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from exequatur.authority.service.answers import unavailable

DEADLINE = 20.0
"""Seconds after which nobody waits any more for a decision."""
_QUEUED = 16
"""Requests for each thread that may wait for it."""

T = TypeVar("T")


class Offload:
    """Threads that each have an event loop of their own.

    Args:
        threads: How many.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="exequatur-authority")
        self._here = threading.local()
        self._loops: list[asyncio.AbstractEventLoop] = []
        self._most = threads * (_QUEUED + 1)
        self._busy = 0

    async def __call__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run something to its end that may block.

        Raises:
            Refused: Too much is being decided already, or it takes too long.
        """
        if self._busy >= self._most:
            raise unavailable("too many requests wait for a decision")
        self._busy += 1
        running = asyncio.get_running_loop().run_in_executor(self._pool, self._run, work)
        running.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.shield(running), DEADLINE)
        except TimeoutError:
            raise unavailable(f"no decision within {DEADLINE:.0f} seconds") from None

    def _run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        loop: asyncio.AbstractEventLoop | None = getattr(self._here, "loop", None)
        if loop is None:
            loop = self._here.loop = asyncio.new_event_loop()
            self._loops.append(loop)
        return loop.run_until_complete(work())

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._busy -= 1
        if not future.cancelled():
            future.exception()  # nobody waits for it any more where it came too late

    def close(self) -> None:
        """Wait for what runs."""
        self._pool.shutdown()
        for loop in self._loops:
            loop.close()
