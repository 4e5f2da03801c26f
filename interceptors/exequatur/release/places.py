"""Where bundle files are kept: a file or folder, an HTTP server, the evidence store.

A place has two channels: the stable bundle and, beside it, the canary. Nothing that a place says is believed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Protocol

from exequatur.errors import ConfigurationError, PolicyError
from exequatur.policy.offer import Channel
from exequatur.release.directory import FilePlace
from exequatur.release.file import SUFFIX

CHANNELS: tuple[Channel, ...] = ("stable", "canary")
_WEB = ("http://", "https://")
_STORE = "store:"
_DATABASES = ("postgresql://", "postgres://", "postgresql+pg8000://", "sqlite://")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SQLITE_MAGIC = b"SQLite format 3\0"


class Place(Protocol):
    """Somewhere that a bundle is kept."""

    remote: bool
    """Whether looking costs a request, so that it is done rarely, and what was adopted is kept besides."""

    def look(self) -> Hashable:
        """Look what is there; another value means that something has changed. Never raises."""
        ...

    def read(self, channel: Channel) -> bytes | None:
        """What stood on a channel when :meth:`look` looked.

        Returns:
            The file, or ``None`` when the place says that there is none.

        Raises:
            PolicyError: It could not be found out.
        """
        ...

    def write(self, channel: Channel, data: bytes, check: Callable[[bytes | None], None]) -> None:
        """Put a file on a channel, whole or not at all.

        Args:
            channel: The channel.
            data: The file.
            check: Is given what is there, and raises when the file must not take its place.

        Raises:
            PolicyError: It was refused or could not be written; nothing has changed.
        """
        ...

    def withdraw(self, channel: Channel) -> bool:
        """Take away what is on a channel; tells whether there was anything.

        Raises:
            PolicyError: It could not be taken away.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def is_remote(where: str) -> bool:
    """Whether a name is that of a server or a database, by its form."""
    return where.startswith((*_WEB, _STORE, *_DATABASES))


def place_of(where: str, name: str, *, create: bool = False) -> Place:
    """The place that a person means.

    Args:
        where: A URL (``http``, ``https``, ``postgresql``, ``sqlite``), ``store:`` and a URL or the path of a SQLite
            file, the path of an evidence store, of a bundle file, or of a folder for ``NAME.bundle``.
        name: Of the bundle.
        create: Whether a SQLite file that does not exist is made.

    Raises:
        ConfigurationError: The extra that is needed is not installed, or the URL is not one of these.
        PolicyError: The store cannot be opened.
    """
    if where.startswith(_WEB):
        return _web(where, name)
    if where.startswith((_STORE, *_DATABASES)) or _is_database(Path(where)):
        return _store(where.removeprefix(_STORE), name, create=create)
    unknown = _SCHEME.match(where)
    if unknown is not None:
        raise ConfigurationError(
            f"{unknown.group()[:40]} is not supported; give a folder, a file, http(s)://, postgresql:// or store:FILE"
        )
    path = Path(where)
    return FilePlace(path / f"{name}{SUFFIX}" if path.is_dir() else path)


def _web(where: str, name: str) -> Place:
    try:
        from exequatur.release.web import WebPlace
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{error}; run: pip install 'exequatur[http]'") from None
    return WebPlace(where + f"{name}{SUFFIX}" if where.endswith("/") else where)


def _store(where: str, name: str, *, create: bool) -> Place:
    if not where:
        raise ConfigurationError("store: names no evidence store; write store: and its URL or path")
    try:
        from exequatur.release.stored import StorePlace
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{error}; run: pip install 'exequatur[store]'") from None
    return StorePlace(where, name, create=create)


def _is_database(path: Path) -> bool:
    with contextlib.suppress(OSError):
        if path.is_file():
            with path.open("rb") as stream:
                return stream.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC
    return False


def found(place: Place, channel: Channel) -> bytes:
    """What is on a channel.

    Raises:
        PolicyError: Nothing, or it could not be found out.
    """
    data = place.read(channel)
    if data is None:
        raise PolicyError(f"{place} holds no {channel} bundle. Put one there with `exequatur policy push`.")
    return data
