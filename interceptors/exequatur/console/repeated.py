"""What is looked at again and again in the background, so that nobody who asks waits for it.

Each look has a thread of its own: one that hangs, on a dead server or a locked file, holds up nothing else, and who
asks is told that it hangs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

logger = logging.getLogger("exequatur")

T = TypeVar("T")


@dataclass(frozen=True)
class Seen(Generic[T]):
    """What the last look showed.

    Args:
        value: What it gave; ``None`` where none has ended yet, or the last one failed.
        at: When it ended, in seconds since 1970; ``None`` where none has.
        age: Seconds since it began, whatever the clock has done meanwhile; ``None`` where none has ended.
        late: Seconds since the look began that is still under way.
    """

    value: T | None
    at: float | None
    age: float | None
    late: float


class Repeated(Generic[T]):
    """A look, repeated.

    Args:
        name: Of the thread.
        look: Looks once. It may block.
        every: Seconds between the end of one look and the next.
    """

    def __init__(self, name: str, look: Callable[[], T], every: float) -> None:
        self._name = name
        self._look = look
        self._every = every
        self._stop = threading.Event()
        self._begun: float | None = None
        self._last: tuple[T | None, float, float] | None = None
        """What it gave, when it ended, and when it began by the clock that never jumps."""

    def start(self) -> None:
        """Begin. The thread ends with the process: a look that hangs keeps nobody from leaving."""
        threading.Thread(target=self._run, name=f"exequatur-console-{self._name}", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()

    def seen(self) -> Seen[T]:
        """What the last look showed. Never waits."""
        begun, last, now = self._begun, self._last, time.monotonic()
        late = 0.0 if begun is None else now - begun
        return Seen(None, None, None, late) if last is None else Seen(last[0], last[1], now - last[2], late)

    def look(self) -> None:
        """Look once."""
        self._begun = begun = time.monotonic()
        value = None
        try:
            value = self._look()
        except Exception:  # whatever it is: the next look may be better
            logger.exception("The console could not look at %s", self._name)
        self._last = (value, time.time(), begun)
        self._begun = None

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(self._every)
