"""Files, read so that what they held and what they looked like belong together.

Rules, numbered as the code marks them:

F1  Only a regular file is read; a pipe or device would block the reader, or give something else each time.
F2  A digest is of one state of the file: who writes while it is read makes it unreadable for now.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from exequatur.errors import UnreadableError

Stamp = tuple[int, int, int, int, int, int]
"""What changes when a file does. The last is the time of the change, which nobody can set back."""

_TRIES = 3
_SLICE = 0.005
"""Seconds of work between two pauses."""
_REST = 0.25
"""Seconds of a long pause after which something else gets its turn."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as it was seen.

    Args:
        stamp: What it looked like.
        digest: SHA-256 in hex.
    """

    stamp: Stamp
    digest: str


def stamp_of(path: str | Path) -> Stamp:
    """What a file looks like, links followed.

    Raises:
        OSError: It is not there, or cannot be looked at.
    """
    return _stamp(os.stat(path))  # noqa: PTH116 (of thousands of files, each time; a Path costs more)


def _stamp(found: os.stat_result) -> Stamp:
    return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode, found.st_dev, found.st_ctime_ns)


class Reader:
    """Reads files and remembers what it saw.

    Args:
        share: Of one processor, at most; 1 for as fast as it goes.
        stop: Ends what takes long.
        meanwhile: Called again and again during the pauses.
    """

    def __init__(
        self,
        share: float = 1.0,
        stop: threading.Event | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        self._share = share
        self._stop = stop or threading.Event()
        self.meanwhile = meanwhile
        self._since = time.perf_counter()
        self.seen: dict[str, Seen] = {}
        """By path."""

    def digest(self, path: Path) -> str:
        """SHA-256 of a file, in hex. It is read once.

        Raises:
            FileNotFoundError: It is not there.
            UnreadableError: It cannot be read now.
        """
        name = str(path)
        known = self.seen.get(name)
        if known is None:
            known = self.seen[name] = read(path)
            self.pause()
        return known.digest

    def pause(self) -> None:
        """Give way if it is time.

        Raises:
            UnreadableError: It was told to stop.
        """
        busy = time.perf_counter() - self._since
        if self._share >= 1.0 or busy < _SLICE:
            return
        until = time.perf_counter() + busy * (1 / self._share - 1)
        while (rest := until - time.perf_counter()) > 0:
            if self._stop.wait(min(rest, _REST)):
                raise UnreadableError("the measurement was stopped")
            self.meanwhile()
        self._since = time.perf_counter()


def read(path: Path) -> Seen:
    """Read a file.

    Raises:
        FileNotFoundError: It is not there.
        UnreadableError: F1, F2, or it cannot be read.
    """
    try:
        for _ in range(_TRIES):
            if not stat.S_ISREG(path.stat().st_mode):  # [F1]
                raise UnreadableError(f"{path} is not a regular file")
            with path.open("rb") as stream:
                before = _stamp(os.fstat(stream.fileno()))
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
                after = _stamp(os.fstat(stream.fileno()))
            if before == after == stamp_of(path):  # [F2]
                return Seen(after, digest)
    except (FileNotFoundError, NotADirectoryError) as err:
        raise FileNotFoundError(str(path)) from err
    except (OSError, ValueError) as err:
        raise UnreadableError(f"{path} cannot be read: {getattr(err, 'strerror', None) or err}") from err
    raise UnreadableError(f"{path} is being written")
