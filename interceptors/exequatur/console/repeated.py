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
        late: Seconds since the look began that is still under way.
    """

    value: T | None
    at: float | None
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
        self._value: T | None = None
        self._at: float | None = None

    def start(self) -> None:
        """Begin. The thread ends with the process: a look that hangs keeps nobody from leaving."""
        threading.Thread(target=self._run, name=f"exequatur-console-{self._name}", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()

    def seen(self) -> Seen[T]:
        """What the last look showed. Never waits."""
        begun = self._begun
        return Seen(self._value, self._at, 0.0 if begun is None else time.monotonic() - begun)

    def look(self) -> None:
        """Look once."""
        self._begun = time.monotonic()
        try:
            self._value = self._look()
        except Exception:  # whatever it is: the next look may be better
            logger.exception("The console could not look at %s", self._name)
            self._value = None
        self._at = time.time()
        self._begun = None

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(self._every)
