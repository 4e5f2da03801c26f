"""A bundle file on disk, with the canary beside it: ``NAME.bundle`` and ``NAME.canary.bundle``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from exequatur.errors import PolicyError
from exequatur.files import OWNER_ONLY, PUBLIC, write_whole
from exequatur.policy.offer import Channel
from exequatur.release.file import MAX_FILE_BYTES, SUFFIX

_PATIENCE = 10.0
"""Seconds to wait for another process that writes in the same folder."""


def beside(name: str, channel: Channel) -> str:
    """The name under which a channel's file stands beside the stable one."""
    if channel == "stable":
        return name
    return f"{name.removesuffix(SUFFIX)}.{channel}{SUFFIX if name.endswith(SUFFIX) else ''}"


class FilePlace:
    """A bundle file and its canary in one folder.

    Args:
        path: The stable file.
        private: Whether only this user may read what is written.
    """

    remote = False

    def __init__(self, path: Path, *, private: bool = False) -> None:
        self.path = path
        self._mode = OWNER_ONLY if private else PUBLIC

    def __str__(self) -> str:
        return str(self.path)

    def look(self) -> Hashable:
        return tuple(map(_state, (self._file("stable"), self._file("canary"))))

    def read(self, channel: Channel) -> bytes | None:
        path = self._file(channel)
        try:
            return read_file(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PolicyError(f"{path} cannot be read: {error.strerror}. Check its owner and mode.") from None

    def write(self, channel: Channel, data: bytes, check: Callable[[bytes | None], None]) -> None:
        path = self._file(channel)
        try:
            with _locked(path.parent):
                check(self.read(channel))
                write_whole(path, data, self._mode)
        except OSError as error:
            raise PolicyError(
                f"{path} cannot be written: {error.strerror}. Name a folder that exists and that this user can write."
            ) from None

    def withdraw(self, channel: Channel) -> bool:
        path = self._file(channel)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise PolicyError(f"{path} cannot be removed: {error.strerror}. Check its folder's mode.") from None
        return True

    def close(self) -> None:
        """Nothing is held open."""

    def _file(self, channel: Channel) -> Path:
        return self.path.with_name(beside(self.path.name, channel))


def read_file(path: Path) -> bytes:
    """Read a bundle file.

    Raises:
        OSError: It cannot be read.
        PolicyError: It is no regular file, or too large.
    """
    status = path.stat()
    if not path.is_file():
        # A pipe would block the reader for ever.
        raise PolicyError(f"{path} is not a regular file. Name a bundle file.")
    if status.st_size > MAX_FILE_BYTES:
        raise PolicyError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB, which no bundle file is.")
    with path.open("rb") as stream:
        return stream.read(MAX_FILE_BYTES + 1)


def _state(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError as error:
        return (error.errno or -1,)
    return status.st_mtime_ns, status.st_size, status.st_ino


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder itself is the lock, so that nothing but bundle files need lie in it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        give_up = time.monotonic() + _PATIENCE
        while True:
            try:
                flock(descriptor, LOCK_EX | LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up:
                    raise PolicyError(
                        f"{folder} is locked by another process, which is writing there. Try again when it has ended."
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)
