"""Whether the process runs, and whether it can decide."""

from __future__ import annotations

import asyncio

from exequatur.authority.service.offload import Offload
from exequatur.authority.service.once import Once
from exequatur.errors import ExequaturError
from exequatur.gate.gate import Gate


class Health:
    """What an orchestrator asks for.

    Args:
        gate: Decides.
        once: Remembers.
    """

    def __init__(self, gate: Gate, once: Once) -> None:
        self._gate = gate
        self._once = once
        self.stopping = False
        """Whether it was told to stop, and takes on nothing new."""
        self._looking: asyncio.Future[str | None] | None = None

    async def look(self, offload: Offload) -> str | None:
        """Why nothing can be decided now, or ``None`` when it can.

        Everybody may ask, as often as they like, so one thread looks for all who ask at the same time.

        Raises:
            Refused: Too much is being decided already, or it takes too long.
        """
        if self.stopping:  # H26
            return "the authority is stopping"
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(offload(self._look))
        return await asyncio.shield(self._looking)

    async def _look(self) -> str | None:
        if why := self._gate.unavailable():
            return why
        try:
            self._once.check()
        except ExequaturError as err:
            return str(err)
        return None
