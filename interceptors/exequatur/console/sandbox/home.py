"""The folder with the sandboxes of one console: locked while it is used, and removed when it no longer is.

Rules, numbered as the code marks them:

D1  Only this user can read it. It is locked for as long as the console uses it; who is killed loses the lock.
D2  What consoles that were killed left behind, keys and all, is removed when the next one starts. A folder that is
    locked, of somebody else, or only a link is left alone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "exequatur-console-"


class SandboxFolder:
    """The folder; made and locked. Its methods block."""

    def __init__(self) -> None:
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))  # D1
            lock = _lock(self.path)
            if lock is not None:
                self._lock = lock
                return
            # Somebody who is clearing up was quicker, and removes it.

    def make(self) -> Path:
        """Make a folder in it, for one sandbox."""
        return Path(tempfile.mkdtemp(dir=self.path))

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def clear_up() -> None:
    """Remove what consoles of this user left behind when they were killed (D2)."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        lock = _lock(path)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _lock(path: Path) -> int | None:
    """Lock a folder of this user that is there and that nobody has locked."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # gone, a link, or not to be read
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # [D1]
        locked = os.fstat(descriptor)
        if locked.st_uid == os.geteuid() and os.path.samestat(locked, path.stat(follow_symlinks=False)):  # [D2]
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None
