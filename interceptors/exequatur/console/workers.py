"""The workers, as their reports tell of them.

Reports are hostile input. Rules, numbered as the code marks them:

W1  A worker is well only as long as its report is of now: one that is old, or from the future, says nothing of now.
W2  How many places a report can name is bounded, and how long its names and sentences are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from exequatur.console.latency import KINDS, Latency, added, latency_of
from exequatur.doctor.causes import CLOCK, REVOKED
from exequatur.integrity.guard import ALTERED
from exequatur.release.report import InForceReport, Standing
from exequatur.release.traffic import BOUNDS

WorkerState = Literal["violated", "revoked", "unavailable", "ended", "silent", "ready"]
WORKER_STATES: tuple[WorkerState, ...] = ("violated", "revoked", "unavailable", "ended", "silent", "ready")
"""In order of weight."""
SILENT = 30.0
"""Seconds; a worker writes its report every ten."""
LATELY = 300.0
"""Seconds over which latency is told."""
_REMEMBERED = 24 * 3600.0
"""Seconds for which a worker that ended without a word is shown."""
_MOST_PLACES = 20
_SENTENCE = 1_000
_NAME = 200
"""Characters of what a report says that are told."""


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """One worker's process.

    Args:
        worker: Host and process id.
        identity: Its SPIFFE id, once it has a credential.
        state: What it can do.
        why: Why it can do nothing.
        since: Since when it is in this state, in seconds since 1970 like the other times.
        at: When it reported last.
        namespaces: Where it works.
        queues: Task queues that it serves.
        credential_expires: When its credential ends.
        integrity: What it is against its signed manifest; ``unmeasured`` where there is none.
        manifest: Digest of the manifest.
        digest: Of the bundle in force.
        name: Of the bundle's release, like the three after it.
        version: See there.
        channel: See there.
        sequence: See there.
        expires: When the release ends.
        bundle_since: Since when it is in force.
        refused: Why changed policies were refused.
        revocations: Version of the revocation feed that it knows.
        revocations_age: Seconds since it knew that nothing was missing there; ``None`` where it never has.
        unshipped: Why its evidence does not reach the store.
        kinds: What happened since it began to count.
        buckets: How often the gate took how long, since then.
        seconds: That the gate took, together.
        latency: How long it took in the last minutes.
    """

    worker: str
    identity: str | None
    state: WorkerState
    why: str | None
    since: float | None
    at: float
    namespaces: tuple[str, ...]
    queues: tuple[str, ...]
    credential_expires: float | None
    integrity: Literal["verified", "violated", "unknown", "unmeasured"]
    manifest: str | None
    digest: str
    name: str | None
    version: str | None
    channel: str
    sequence: int | None
    expires: float | None
    bundle_since: float
    refused: str | None
    revocations: int
    revocations_age: float | None
    unshipped: str | None
    kinds: dict[str, int]
    buckets: tuple[int, ...]
    seconds: float
    latency: Latency


@dataclass(frozen=True, slots=True)
class Reports:
    """What was found in the folder of reports.

    Args:
        running: Of processes that run, as far as can be told.
        ended: Of those that ended without taking it away.
        problems: What is wrong with files that are none.
        unread: Why the folder cannot be read, or not now.
        age: Seconds since it was read; ``None`` where it never was.
    """

    running: tuple[InForceReport, ...] = ()
    ended: tuple[InForceReport, ...] = ()
    problems: tuple[str, ...] = ()
    unread: str | None = None
    age: float | None = None


def workers_of(reports: Reports, now: float) -> list[WorkerHealth]:
    """The workers that reports tell of, the gravest first.

    Args:
        reports: As they were read.
        now: Seconds since 1970.
    """
    found = [_worker(each, now, ended=False) for each in reports.running]
    found += [_worker(each, now, ended=True) for each in reports.ended if now - _at(each) < _REMEMBERED]
    return sorted(found, key=lambda each: (WORKER_STATES.index(each.state), each.worker))


def _worker(report: InForceReport, now: float, *, ended: bool) -> WorkerHealth:
    said = report.standing or Standing(at=report.since)
    state = _state(said, now, ended=ended)
    traffic = said.traffic
    kinds = {} if traffic is None else traffic.kinds
    lately = [] if traffic is None else [each for each in traffic.minutes if now - each.at < LATELY]
    age = max(0.0, said.revocations_age) + max(0.0, now - said.at)
    return WorkerHealth(
        worker=f"{report.host} {report.pid}",
        identity=_cut(said.worker),
        state=state,
        why=_cut(said.unavailable, _SENTENCE),
        since=_since(said, state, now),
        at=said.at,
        namespaces=tuple(each[:_NAME] for each in said.namespaces[:_MOST_PLACES]),  # W2
        queues=tuple(each[:_NAME] for each in said.task_queues[:_MOST_PLACES]),  # W2
        credential_expires=said.credential_expires,
        integrity="unmeasured" if said.integrity is None else said.integrity.state,
        manifest=None if said.integrity is None else said.integrity.manifest,
        digest=report.digest[:_NAME],
        name=_cut(report.name),
        version=_cut(report.version),
        channel=report.channel,
        sequence=report.sequence,
        expires=report.expires,
        bundle_since=report.since,
        refused=_cut(said.refused, _SENTENCE),
        revocations=said.revocations,
        revocations_age=age if said.revocations_age < 1e9 else None,
        unshipped=_cut(said.unshipped, _SENTENCE),
        kinds={kind: kinds.get(kind, 0) for kind in KINDS},
        buckets=(0,) * (len(BOUNDS) + 1) if traffic is None else traffic.latency,
        seconds=0.0 if traffic is None else traffic.seconds,
        latency=latency_of(added(each.latency for each in lately)),
    )


def _cut(text: str | None, longest: int = _NAME) -> str | None:
    return None if text is None else text[:longest]  # W2


def _at(report: InForceReport) -> float:
    return report.since if report.standing is None else report.standing.at


def _state(said: Standing, now: float, *, ended: bool) -> WorkerState:
    if ended:
        return "ended"
    if now - said.at > SILENT and not (said.unavailable or "").startswith(CLOCK):  # [W1]
        return "silent"
    if said.unavailable is None:
        # A report from the future would stay fresh after its worker is gone.
        return "silent" if said.at - now > SILENT else "ready"  # W1
    if said.unavailable.startswith(ALTERED):
        return "violated"
    return "revoked" if said.unavailable.startswith(REVOKED) else "unavailable"


def _since(said: Standing, state: WorkerState, now: float) -> float | None:
    """Since when it is in its state, unless only a clock that is wrong says so."""
    if state == "ended" or (state == "silent" and said.at <= now):
        return said.at
    return said.state_since if abs(now - said.at) <= SILENT else None
