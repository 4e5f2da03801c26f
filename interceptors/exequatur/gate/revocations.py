"""What has been revoked: an append-only file that every process with the same state folder follows.

A line is one revocation as JSON. The number of lines is the feed's version. :meth:`Revocations.add` returns when the
line is on disk.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from exequatur.errors import ConfigurationError, ExequaturError
from exequatur.statements.encoding import compact_json, strict_json


class Revocation(BaseModel):
    """One revocation. It revokes what matches all the fields that are given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: float
    reason: str
    grant: str | None = None
    """``jti`` of a grant."""
    principal: str | None = None
    """``Type::"id"``."""
    workflow: str | None = None
    """Workflow id."""
    activity: str | None = None
    """Activity type."""
    everything: bool = False

    @model_validator(mode="after")
    def _names_something(self) -> Revocation:
        if self.everything == bool(self._named()):
            raise ValueError("name a grant, a principal, a workflow or an activity, or everything=True, but not both")
        return self

    def _named(self) -> dict[str, str]:
        return {
            name: value
            for name in ("grant", "principal", "workflow", "activity")
            if (value := getattr(self, name)) is not None
        }

    def revokes(self, subject: dict[str, str]) -> bool:
        """Whether this ends what the subject, given by the same names, is doing."""
        return self.everything or all(subject.get(name) == value for name, value in self._named().items())


class Revocations:
    """The revocation feed of a state folder.

    Args:
        path: The file; it need not exist yet.
        on_change: Called when there are new revocations, from whichever thread saw them.
    """

    def __init__(self, path: Path, on_change: Callable[[], None] = lambda: None) -> None:
        self._path = path
        self._on_change = on_change
        self._entries: tuple[Revocation, ...] = ()
        self._stamp: tuple[int, int, int] | None = None
        self._read_at = 0.0
        self._reading = threading.Lock()
        self.problem: str | None = "it has not been read yet"
        self.refresh()

    @property
    def version(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> tuple[Revocation, ...]:
        """All revocations, in the feed's order."""
        return self._entries

    def age(self) -> float:
        """Seconds since the feed was last read."""
        return max(0.0, time.monotonic() - self._read_at)

    def find(self, subject: dict[str, str]) -> Revocation | None:
        """The first revocation that ends what the subject is doing."""
        for entry in self._entries:
            if entry.revokes(subject):
                return entry
        return None

    def refresh(self) -> None:
        """Read what has been added. Never raises: a feed that cannot be read is named in ``problem``."""
        # One at a time: a reader that was overtaken would put an older feed in the place of a newer one.
        with self._reading:
            changed = self._read()
        if changed:
            self._on_change()

    def _read(self) -> bool:
        """Whether there are new revocations."""
        changed = False
        try:
            try:
                stat = self._path.stat()
                stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
                data = b"" if stamp == self._stamp else self._path.read_bytes()
            except FileNotFoundError:
                stamp, data = (0, 0, 0), b""
            if stamp != self._stamp:
                # What follows the last newline was never acknowledged.
                lines = data.split(b"\n")[:-1]
                entries = tuple(Revocation.model_validate(strict_json(line)) for line in lines)
                if entries[: len(self._entries)] != self._entries:
                    raise ValueError("entries have been changed or removed")
                changed = len(entries) > len(self._entries)
                self._entries, self._stamp = entries, stamp
        except (OSError, ValueError, ValidationError) as err:
            self.problem = f"{self._path} cannot be used: {err}"
            return False
        self.problem = None
        self._read_at = time.monotonic()
        return changed

    def add(self, revocation: Revocation) -> int:
        """Append a revocation and return the feed's new version once it is on disk.

        Raises:
            ExequaturError: It could not be written; nothing was revoked.
        """
        line = compact_json(revocation.model_dump(exclude_defaults=True)) + b"\n"
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                size = os.fstat(descriptor).st_size
                written = os.pread(descriptor, size, 0)
                end = written.rfind(b"\n") + 1
                os.ftruncate(descriptor, end)
                os.pwrite(descriptor, line, end)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as err:
            raise ExequaturError(f"{self._path}: the revocation was not written: {err}") from err
        self.refresh()
        if self.problem:
            raise ExequaturError(self.problem)
        return self.version


def revocation(
    *,
    grant: str | None,
    principal: str | None,
    workflow: str | None,
    activity: str | None,
    everything: bool,
    reason: str,
) -> Revocation:
    """A revocation as of now.

    Raises:
        ConfigurationError: It names nothing, or everything and something.
    """
    try:
        return Revocation(
            at=round(time.time(), 3),
            reason=reason,
            grant=grant,
            principal=principal,
            workflow=workflow,
            activity=activity,
            everything=everything,
        )
    except ValidationError as err:
        raise ConfigurationError(f"Nothing was revoked: {err.errors(include_input=False)[0]['msg']}") from err
