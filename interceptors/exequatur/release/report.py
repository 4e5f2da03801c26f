"""What is in force in each process, in files that anyone with the state folder can read: ``in-force/HOST-PID.json``.

They are for people and their monitoring. Nothing is decided by them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from exequatur.errors import PolicyError
from exequatur.files import write_whole
from exequatur.policy.offer import Channel, Provenance
from exequatur.release.traffic import Traffic
from exequatur.revocation.store import regular_content
from exequatur.statements.models import Part

logger = logging.getLogger("exequatur")

FOLDER = "in-force"
_MAX_BYTES = 65_536
_MOST = 1_000
"""Files that are looked at."""
HOST = re.sub("[^A-Za-z0-9._-]", "-", socket.gethostname())[:64] or "host"


Instant = Annotated[float, Field(allow_inf_nan=False)]
Said = Annotated[str, Field(max_length=16_384)]
Number = Annotated[int, Field(ge=0, le=2**53 - 1)]


class Integrity(Part):
    """What a process is, against its signed manifest."""

    state: Literal["verified", "violated", "unknown"]
    manifest: Annotated[str, Field(max_length=100)]
    """Its digest."""


class Standing(Part):
    """Whether a process can authorize, and where it works."""

    at: Instant
    """When this was written, in seconds since 1970; it is written again every few seconds."""
    worker: Said | None = None
    """Its SPIFFE id."""
    namespaces: tuple[str, ...] = ()
    task_queues: tuple[str, ...] = ()
    credential_expires: Instant | None = None
    unavailable: Said | None = None
    """Why it can authorize nothing now."""
    state_since: Instant | None = None
    """Since when it can, or cannot, authorize."""
    revocations: Number = 0
    """Version of the revocation feed that it knows."""
    revocations_age: Instant = 0.0
    """Seconds since it last knew that nothing was missing there."""
    refused: Said | None = None
    """Why changed policies were refused, while those before stay in force."""
    integrity: Integrity | None = None
    """``None`` where there is no manifest."""
    unshipped: Said | None = None
    """Why its evidence does not reach the store."""
    traffic: Traffic | None = None


class InForceReport(Part):
    """The bundle in force in one process."""

    host: str
    pid: Annotated[int, Field(ge=1)]
    since: Instant
    """Seconds since 1970."""
    digest: str
    name: str | None = None
    version: str | None = None
    author: str | None = None
    address: str | None = None
    channel: Channel = "stable"
    sequence: Number | None = None
    expires: Instant | None = None
    key: str | None = None
    standing: Standing | None = None


def report_of(
    digest: str, provenance: Provenance | None, since: float, standing: Standing | None = None
) -> InForceReport:
    """What this process reports.

    Args:
        digest: Of the bundle in force.
        provenance: Who released it.
        since: When it came in force, in seconds since 1970.
        standing: Whether this process can authorize.
    """
    said = {} if provenance is None else {field: getattr(provenance, field) for field in provenance.__slots__}
    return InForceReport(host=HOST, pid=os.getpid(), since=since, digest=digest, standing=standing, **said)


def write_report(state_dir: Path, report: InForceReport) -> None:
    """Write this process's report. Never raises: what is in force is in force all the same."""
    path = _path(state_dir, report.host, report.pid)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_whole(path, report.model_dump_json(exclude_none=True).encode())
    except OSError as error:
        logger.warning("What is in force cannot be written to %s: %s", path, error.strerror)


def remove_report(state_dir: Path) -> None:
    """Take this process's report away: it serves no worker any more."""
    with contextlib.suppress(OSError):
        _path(state_dir, HOST, os.getpid()).unlink()


def read_reports(state_dir: Path) -> tuple[list[InForceReport], list[str]]:
    """The reports of all processes that still run, as far as that can be told from here.

    Returns:
        The reports, and what is wrong with files that are none.

    Raises:
        PolicyError: The folder cannot be read.
    """
    running, _, problems = read_all_reports(state_dir)
    return running, problems


def read_all_reports(state_dir: Path) -> tuple[list[InForceReport], list[InForceReport], list[str]]:
    """The same, and what processes left behind that ended without taking their report away.

    Returns:
        The reports of those that run and of those that have ended, and what is wrong with files that are none.

    Raises:
        PolicyError: The folder cannot be read.
    """
    folder = state_dir / FOLDER
    try:
        names = sorted(each.name for each in os.scandir(folder) if not each.name.startswith("."))
    except FileNotFoundError:
        return [], [], []
    except OSError as error:
        raise PolicyError(f"{folder} cannot be read: {error.strerror}. Run it as the worker's user.") from None
    running: list[InForceReport] = []
    ended: list[InForceReport] = []
    problems = []
    if len(names) > _MOST:
        problems.append(
            f"{folder} holds {len(names):,} files, of which {_MOST:,} are looked at. Remove those of others."
        )
    for name in names[:_MOST]:
        try:
            report = _read(folder / name)
        except PolicyError as error:
            problems.append(str(error))
        else:
            if report is not None:
                (ended if _gone(report) else running).append(report)
    return running, ended, problems


def _path(state_dir: Path, host: str, pid: int) -> Path:
    return state_dir / FOLDER / f"{host}-{pid}.json"


def _read(path: Path) -> InForceReport | None:
    try:
        content = regular_content(path, _MAX_BYTES)
        if content is None:  # it ended meanwhile
            return None
        report = InForceReport.model_validate_json(content)
    except OSError as error:
        why = error.strerror or str(error)
        raise PolicyError(f"{path} cannot be read: {why}. Run it as the worker's user.") from None
    except ValidationError:
        raise PolicyError(f"{path} is not a worker's report. Remove it.") from None
    if path.name != f"{report.host}-{report.pid}.json":
        raise PolicyError(f"{path} is the report of another process. Remove it.")
    return report


def _gone(report: InForceReport) -> bool:
    """Whether the process was on this machine and has ended without taking its report away."""
    if report.host != HOST:
        return False
    try:
        os.kill(report.pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # another user's
        return False
    return False
