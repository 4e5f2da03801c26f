"""Bundles in the evidence store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

from exequatur.errors import ConfigurationError, EvidenceError, PolicyError
from exequatur.lineage.store_releases import ReleaseStore, Stored
from exequatur.policy.offer import Channel
from exequatur.release.file import MAX_FILE_BYTES, BundleFile
from exequatur.release.pushing import newest_release


class StorePlace:
    """The releases of one bundle in an evidence store, which is opened when it is first used.

    Args:
        where: URL, or path of a SQLite file.
        name: Of the bundle.
        create: Whether a SQLite file that does not exist is made.
    """

    remote = True

    def __init__(self, where: str, name: str, *, create: bool = False) -> None:
        self._where = where
        self._name = name
        self._create = create
        self._store: ReleaseStore | None = None
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return f"the evidence store, bundle {self._name}" if self._store is None else f"{self._store}, {self._name}"

    def look(self) -> Hashable:
        try:
            store = self._opened()
            return store.newest("stable"), store.newest("canary")
        except (PolicyError, EvidenceError) as error:
            return str(error)

    def read(self, channel: Channel) -> bytes | None:
        try:
            found = self._opened().read(channel, max_bytes=MAX_FILE_BYTES)
        except EvidenceError as error:
            raise PolicyError(f"{self} cannot be read: {error}.") from None
        return None if found is None else found.file

    def write(self, channel: Channel, data: bytes, check: Callable[[bytes | None], None]) -> None:
        file = BundleFile.read(data, self._name)
        release = newest_release(file, channel)
        if release is None:
            raise PolicyError(f"{self._name} is not signed, and the evidence store keeps only releases. Sign it first.")
        stored = Stored(release.sequence, file.address, data)
        try:
            self._opened().add(
                channel,
                stored,
                lambda there: check(None if there is None else there.file),
                max_bytes=MAX_FILE_BYTES,
            )
        except EvidenceError as error:
            raise PolicyError(f"{self} cannot be written: {error}.") from None

    def withdraw(self, channel: Channel) -> bool:
        try:
            return self._opened().clear(channel)
        except EvidenceError as error:
            raise PolicyError(f"{self} cannot be written: {error}.") from None

    def close(self) -> None:
        """Let go of the connections."""
        if self._store is not None:
            self._store.close()

    def _opened(self) -> ReleaseStore:
        with self._lock:
            if self._store is None:
                try:
                    self._store = ReleaseStore.open(self._where, self._name, create=self._create)
                except (EvidenceError, ConfigurationError) as error:
                    raise PolicyError(f"{error}.") from None
            return self._store
