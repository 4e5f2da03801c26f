"""Where a revocation feed is kept. This one is a file; :mod:`exequatur.revocation.database` has it in SQL.

Rules, numbered as the code marks them:

RS1  An entry counts, and is acknowledged, when all of it is on disk. What follows the last newline never was.
RS2  What was read once stays: a feed that lacks an entry or has another in its place cannot be used.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import Protocol

from exequatur.errors import ExequaturError, RevocationFeedError
from exequatur.files import locked, sync_folder
from exequatur.revocation.entry import Revocation, read_entry
from exequatur.revocation.feed import Feed

ENTRIES = "revocations"
MAX_FILE_BYTES = 256 * 1024 * 1024
"""About a million entries; a file that is longer is no feed."""


class RevocationStore(Protocol):
    """Keeps one feed. Its methods may block, and may be called from any thread."""

    slow: bool
    """Whether it is reached over a network."""

    def read(self, known: Feed) -> Feed:
        """All entries.

        Args:
            known: What was read before.

        Raises:
            ExequaturError: It cannot be read, or does not begin with what is known (RS2).
        """
        ...

    def add(self, entry: Revocation) -> int:
        """Add an entry.

        Returns:
            The version, once the entry can no longer be lost (RS1).

        Raises:
            ConfigurationError: It lifts what cannot be lifted.
            ExequaturError: It could not be written.
        """
        ...

    def close(self) -> None:
        """Let go of what is held open; it may be used again all the same."""
        ...


class FolderStore:
    """A feed in a folder: the file ``revocations``, one JSON line for each entry.

    Args:
        folder: The folder; the file need not exist yet.
    """

    slow = False

    def __init__(self, folder: Path) -> None:
        self.path = folder / ENTRIES
        self._data = b""
        """The lines of ``_feed``."""
        self._feed = Feed()
        self._stamp: tuple[int, int, int] | None = None
        self._reading = threading.Lock()

    def read(self, known: Feed) -> Feed:
        try:
            with self._reading:
                feed = self._read()
        except (OSError, ValueError) as err:
            raise RevocationFeedError(f"{self.path} cannot be used: {err}") from err
        if not feed.continues(known):  # [RS2]
            raise RevocationFeedError(f"{self.path} cannot be used: entries have been changed or removed")
        return feed

    def all_entries(self) -> tuple[Revocation, ...]:
        """The entries as they are on disk, whatever was read before.

        Raises:
            RevocationFeedError: They cannot be read.
        """
        return self.read(Feed()).entries

    def _read(self) -> Feed:
        """The entries; only those that are new are parsed."""
        stamp = _stamp(self.path)
        if stamp != self._stamp:
            data = regular_content(self.path, MAX_FILE_BYTES) or b""
            lines = data[: data.rfind(b"\n") + 1]
            goes_on = lines.startswith(self._data)
            before = self._feed if goes_on else Feed()
            added = lines[len(self._data) :] if goes_on else lines
            self._feed = before.extended(read_entry(line) for line in added.split(b"\n")[:-1])
            self._data, self._stamp = lines, stamp
        return self._feed

    def add(self, entry: Revocation) -> int:
        line = entry.line + b"\n"
        try:
            with locked(self.path.parent):
                feed = self.read(Feed())
                feed.admit(entry)
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o600)
                try:
                    there = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
                    end = there.rfind(b"\n") + 1
                    os.ftruncate(descriptor, end)
                    written = os.pwrite(descriptor, line, end)
                    if written < len(line):  # [RS1]
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(descriptor)  # RS1
                finally:
                    os.close(descriptor)
                sync_folder(self.path.parent)
        except (OSError, RevocationFeedError) as err:
            raise ExequaturError(f"{self.path}: the revocation was not written: {err}") from err
        return feed.version + 1

    def close(self) -> None:
        """Nothing is held open."""

    def __str__(self) -> str:
        return str(self.path)


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def regular_content(path: Path, longest: int) -> bytes | None:
    """A regular file's content, or ``None`` where there is none.

    Raises:
        OSError: It cannot be read, is longer, or is something else, such as a pipe that would be waited for.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path.name} is no regular file")
        if found.st_size > longest:
            raise OSError(f"{path.name} has more than {longest} bytes")
        return stream.read(longest)
