"""Files that are written whole or not at all, and who may read them."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OWNER_ONLY = 0o600
PUBLIC = 0o644


def write_whole(path: Path, data: bytes, mode: int = OWNER_ONLY) -> None:
    """Write a file so that a reader, or a crash, meets the old content or the new one.

    Args:
        path: The file; it is replaced.
        data: All of its content.
        mode: Permissions, as far as the process's umask leaves them.

    Raises:
        OSError: It cannot be written; the file is as it was.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Put on disk which files a folder holds."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a folder, against other processes and threads.

    Args:
        path: The folder; the lock is the file ``.lock`` in it.
    """
    descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, OWNER_ONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
