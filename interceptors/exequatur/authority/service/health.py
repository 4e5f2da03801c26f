"""Whether the process runs, and whether it can decide."""

from __future__ import annotations

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

    def problem(self) -> str | None:
        """Why nothing can be decided now, or ``None`` when it can. May block."""
        if self.stopping:
            return "the authority is stopping"
        if why := self._gate.unavailable():
            return why
        try:
            self._once.check()
        except ExequaturError as err:
            return str(err)
        return None
