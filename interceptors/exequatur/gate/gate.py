"""What the interceptors of one plugin share: policy in force, revocations, trust, identity, journal and settings."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from exequatur.errors import ExequaturError, JournalError, PolicyError
from exequatur.gate.metrics import Metrics
from exequatur.identity.workload import Workload
from exequatur.integrity.facts import of_process
from exequatur.integrity.guard import Guard, Told
from exequatur.lineage.journal import Journal
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.conformance import unfit
from exequatur.policy.offer import Provenance
from exequatur.revocation.entry import Revocation, Subject
from exequatur.revocation.revocations import Revocations
from exequatur.settings import Settings
from exequatur.statements.anchors import Anchors
from exequatur.statements.encoding import compact_json
from exequatur.statements.trust import TrustStore

if TYPE_CHECKING:
    from exequatur.gate.counting import Counting
    from exequatur.gate.issuing import Authority
    from exequatur.gate.running import Running
    from exequatur.gate.shadow import Shadow

logger = logging.getLogger("exequatur")

EARLIEST = 1_767_225_600
"""2026-01-01. A clock that shows less is wrong."""
LATEST = 4_102_444_800
"""2100-01-01. A clock that shows more is wrong."""


_SHOWN = 5
"""Differences between policies and code that one error names."""


@dataclass(frozen=True)
class InForce:
    """A policy bundle.

    Args:
        bundle: The bundle.
        sequence: How many were in force before it in this process, plus one.
        since: Seconds since 1970.
        provenance: Who released it.
        awaited: Why there are no policies yet; the bundle is then an empty one, which decides nothing.
    """

    bundle: PolicyBundle
    sequence: int
    since: float
    provenance: Provenance | None = None
    awaited: str | None = None

    @property
    def expires(self) -> float:
        """When its release ends, in seconds since 1970."""
        expires = None if self.provenance is None else self.provenance.expires
        return math.inf if expires is None else expires

    def ended(self, now: float) -> str | None:
        """Why it may not decide any more, or ``None`` while it may.

        Args:
            now: Seconds since 1970.
        """
        if self.awaited is not None:
            return f"there are no policies yet: {self.awaited}"
        if now < self.expires:
            return None
        ago = now - self.expires
        return f"the release of policy bundle {self.bundle.digest} ended {ago:.0f} s ago; release it again"


class Gate:
    """Everything that decides, and whether it can decide at all.

    ``epoch`` grows with every change that could turn an allow into a deny: another bundle, another revocation. An
    authorization made in one epoch is looked at again in the next.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        trust: TrustStore,
        workload: Workload,
        bundle: PolicyBundle,
        revocations: Callable[[Callable[[], None]], Revocations],
        clock: Callable[[], float] = time.time,
        provenance: Provenance | None = None,
        awaited: str | None = None,
    ) -> None:
        self.settings = settings
        self.trust = trust
        self.workload = workload
        self.clock = clock
        self.authority: Authority | None = None
        """Who renews grants; the plugin sets it."""
        self.anchors: Anchors | None = None
        """What the trust store learns from; the plugin sets it."""
        self.metrics = Metrics()
        self.journal: Journal | None = None
        self.policy = self._placed = InForce(bundle, 1, clock(), provenance, awaited)
        self.epoch = 1
        self.running: set[Running] = set()
        self.counting: Counting | None = None
        """What is shared with other hosts and counted of the past."""
        self.shadow: Shadow | None = None
        """Candidate policies that are compared with those in force."""
        self.guard: Guard | None = None
        """Verifies this process against its signed manifest, where there is one."""
        self._lock = threading.Lock()
        self._admitting = threading.Lock()
        self._activities: list[Mapping[str, Callable[..., Any]]] = []
        """Those of each running worker, by type."""
        self._archiving = threading.Lock()
        self._archived = 0
        """How many revocations the journal holds."""
        self.revocations = revocations(self._changed)
        self.revocations.clock = self._now

    def _now(self) -> float:
        return self.clock()  # it may be replaced

    def _changed(self) -> None:
        self.archive_revocations()
        with self._lock:
            self.epoch += 1
        self._look_again()

    def _look_again(self) -> None:
        with self._lock:
            running = list(self.running)
        for each in running:
            each.look_again_soon()

    def put_in_force(
        self,
        bundle: PolicyBundle,
        provenance: Provenance | None = None,
        *,
        remember: Callable[[], None] = lambda: None,
        first: bool = False,
    ) -> None:
        """Swap the policy bundle. Running activities are judged by it at once.

        Args:
            bundle: The bundle.
            provenance: Who released it.
            remember: Called once it is certain to fit, before it decides; when it raises, what was in force stays.
            first: Nothing was decided yet by what is in force.

        Raises:
            PolicyError: It does not fit the activities of the running workers; what was in force stays.
        """
        with self._admitting:
            self.admit(bundle, first=first)
            remember()
            self.archive(bundle)
            before = self.policy
            with self._lock:  # together, and before anything that can block or raise
                self.policy = self._placed = InForce(bundle, before.sequence + 1, self.clock(), provenance)
                self.epoch += 1
        self._look_again()
        logger.info(
            "Policy bundle %s is in force",
            bundle.digest,
            extra={"bundle": bundle.digest, "sequence": before.sequence + 1},
        )
        if bundle.digest != before.bundle.digest:
            for warning in bundle.warnings:
                logger.warning("Policy bundle %s: %s", bundle.digest, warning, extra={"bundle": bundle.digest})
        self.metrics.policy_reloaded(refused=False)
        self.metrics.policy_in_force(bundle.digest, provenance)

    def policy_is_placed(self) -> bool:
        """Whether what is in force was put there by this gate."""
        with self._lock:
            return self.policy is self._placed

    def admit(
        self, bundle: PolicyBundle, starting: Mapping[str, Callable[..., Any]] | None = None, *, first: bool = False
    ) -> None:
        """Refuse a bundle that does not fit the activities of the running workers, before it is put in force.

        Args:
            bundle: The bundle.
            starting: The activities of a worker that is about to run, by type.
            first: Nothing was decided yet by what is in force.

        Raises:
            PolicyError: It is not fit to decide, its schema cannot be read, it lacks an activity, or it declares other
                arguments than the code has.
        """
        if self.policy.bundle.source.schema and not bundle.source.schema and not first:
            raise PolicyError(
                "These policies have no schema and those in force have one; without it nothing says whether they fit "
                "the code. Add it: exequatur policy schema --from MODULE"
            )
        check_decidable(bundle)
        for activities in (*self._activities, starting or {}):
            _fit(bundle, activities, "The policies do not fit the activities of a worker in this process")

    @contextmanager
    def judging(self, activities: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
        """For as long as this lasts, no bundle is put in force that does not fit these activities.

        Args:
            activities: By activity type; dynamic ones are not among them.

        Raises:
            PolicyError: The bundle in force does not fit them.
        """
        with self._admitting:
            _fit(self.policy.bundle, activities, "The policies do not fit the worker's activities")
            self._activities.append(activities)
        try:
            yield
        finally:
            with self._admitting:
                self._activities = [each for each in self._activities if each is not activities]

    def archive(self, bundle: PolicyBundle) -> None:
        """Put a bundle into the evidence, before the first decision that it makes."""
        self._keep("bundle", bundle.source.archive)

    def archive_revocations(self) -> None:
        """Put what has become known to be revoked into the evidence, before the first decision that knows it."""
        with self._archiving:
            if self.journal is None:
                return
            for entry in self.revocations.entries[self._archived :]:
                self._keep("revocation", compact_json(entry.model_dump(exclude_defaults=True)))
                self._archived += 1

    def _keep(self, kind: str, body: bytes) -> None:
        """Never raises: what is put in force or revoked must take effect all the same."""
        try:
            if self.journal is not None:
                self.journal.enqueue(kind, body)
        except (JournalError, ValueError):
            logger.exception("A %s is not in the evidence", kind)

    def begin_evidence(self, journal: Journal | None) -> None:
        """Put the evidence into another journal; what decisions in it stand on comes first."""
        with self._archiving:
            self.journal, self._archived = journal, 0
        if journal is not None:
            if self.policy.awaited is None:
                self.archive(self.policy.bundle)
            self.archive_revocations()

    def await_policies(self, error: PolicyError) -> None:
        """Say why there are still no policies."""
        with self._lock:
            if self.policy.awaited is not None:
                self.policy = self._placed = replace(self.policy, awaited=str(error))
        logger.error("There are no policies yet, so nothing is authorized: %s", error)

    def refuse_bundle(self, error: PolicyError) -> None:
        """Say that changed policies were refused and that the old ones stay."""
        if self.policy.awaited is not None:
            self.await_policies(error)
            return
        self.metrics.policy_reloaded(refused=True)
        logger.error(
            "The changed policies were refused and bundle %s stays in force: %s",
            self.policy.bundle.digest,
            error,
            extra={"bundle": self.policy.bundle.digest, "sequence": self.policy.sequence},
        )

    def enter(self, running: Running) -> None:
        with self._lock:
            self.running.add(running)

    def leave(self, running: Running) -> None:
        with self._lock:
            self.running.discard(running)

    def unavailable(self) -> str | None:
        """Why nothing can be authorized now, or ``None`` when it can.

        Each cause is uncertainty, and uncertainty never allows; U5 and U7 also end what runs:

        U1  The clock is in the wrong century.
        U2  The evidence journal cannot be written.
        U3  The revocation feed cannot be read, or was not read for too long.
        U4  This worker's own credential has ended.
        U5  The release of the policies in force has ended, or there are none yet.
        U6  This worker is not what its signed manifest says, or that is not known now. A violation ends what runs, and
            its workflows ask for nothing more; the credential is not renewed.
        U7  This worker's credential is about to end and the authority, which is elsewhere, has not renewed it: what
            runs on could not be proven.
        U8  This worker, its key or code, or the bundle in force is revoked. What runs ends, and nothing else begins.
        U9  What is shared with other hosts cannot be known.
        """
        now = self.clock()
        if not EARLIEST <= now <= LATEST:  # [U1]
            return f"the clock shows {now:.0f} seconds since 1970; set it"
        if self.journal is None or not self.journal.healthy:  # [U2]
            return "the evidence journal cannot be written"
        if doubt := self.revocations.doubt():  # [U3]
            return f"it is not known what is revoked: {doubt}"
        if not self.workload.valid(now):  # [U4]
            return self.workload.lack()
        if self.guard is not None and (altered := self.guard.unavailable()):  # [U6]
            return altered
        if revoked := self.revoked({}):  # [U8]
            # The kill switch is for all, whoever looks: what asks meanwhile is refused instead of waiting.
            return None if revoked.everything else f"this worker has been revoked: {revoked.reason}"
        if self.counting is not None and self.counting.shared and self.counting.problem:  # [U9]
            return self.counting.problem
        return self.policy.ended(now) or self.workload.cut_off(now)  # [U5] [U7]

    def revoked(self, subject: Subject) -> Revocation | None:
        """What ends what the subject is doing here, by this worker and the policies in force.

        Args:
            subject: Who is about to act, by the names of :data:`exequatur.revocation.entry.NAMES`.
        """
        if not self.revocations.version:
            return None
        told = self._itself()
        for name, value in subject.items():
            told[name] = told.get(name, frozenset()) | (value if isinstance(value, frozenset) else {value})
        return self.revocations.find(told)

    def _itself(self) -> dict[str, frozenset[str]]:
        """This process, by what may be revoked of it."""
        itself = {"bundle": frozenset({self.policy.bundle.digest}), "key": frozenset({self.workload.kid})}
        with contextlib.suppress(ExequaturError):  # without a credential it is nobody yet
            held, facts = self.workload.credential, self.worker_facts()
            itself["worker"] = frozenset({held.claims.sub})
            itself["key"] |= {held.kid}
            told = (held.claims.code.digest if held.claims.code else None, facts.get("code"))
            itself["code"] = frozenset(each for each in told if each is not None)
        return itself

    def worker_facts(self) -> dict[str, str]:
        """What policies are told as ``context.worker``."""
        return {"id": self.workload.id, **of_process(self.settings, self.guard, self.workload.credential.claims)}

    def _own_id(self) -> str | None:
        try:
            return self.workload.id
        except ExequaturError:
            return None

    def verify_integrity(self) -> None:
        """Measure this process before its first worker polls.

        Raises:
            IntegrityError: It is not what its manifest says.
        """
        if self.guard is not None:
            self.guard.begin()

    def integrity_changed(self, told: Told) -> None:
        """Write down what was found about this process, and end what runs if it is not what it must be."""
        self._keep("integrity", told.record(self._own_id()))
        if told.state == "violated":
            with self._lock:
                self.epoch += 1
            self._look_again()

    def ready_to_sign(self, *, closing: bool = False) -> str | None:
        """Why a workflow can sign nothing now, or ``None`` when it can. Never waits for an authority elsewhere.

        Args:
            closing: Its run ends with it, which an altered worker may still tell.

        Raises:
            ConfigurationError: This worker can never be credentialed as it is.
        """
        if self.guard is not None and self.guard.violation is not None and not closing:  # [U6]
            return self.guard.violation
        if self.workload.far:
            return self.workload.cut_off(self.clock())
        # A process that was asleep for long would sign with a credential that has ended.
        self.renew_credential()
        if self.guard is not None and not self.workload.valid(self.clock()):  # [U6]
            return self.guard.unavailable()
        return None

    def renew_credential(self) -> None:
        """Renew this worker's credential if it is time, and only by a clock that can be right.

        A credential that is dated in the wrong century would spoil every request that is signed under it.

        Raises:
            ConfigurationError: This worker can never be credentialed as it is.
        """
        now = self.clock()
        if self.guard is not None and self.guard.unavailable() is not None:  # [U6]
            return
        if EARLIEST <= now <= LATEST:
            with contextlib.suppress(ExequaturError):
                kid = self.workload.credential.kid
                revoked = self.revocations.find({"key": kid})
                self.workload.revoked_key = kid if revoked is not None and revoked.key == kid else None
            self.workload.renew_if_due(now)

    async def learn_keys(self) -> None:
        """Read the published trust anchors if it is time, in a process where no worker's thread does."""
        if self.anchors is not None and self.anchors.due:
            await asyncio.to_thread(self.anchors.refresh_if_due)

    def require_journal(self) -> Journal:
        """The evidence journal.

        Raises:
            JournalError: No worker of this plugin is running.
        """
        if self.journal is None:
            raise JournalError("The evidence journal is open only while a worker runs")
        return self.journal


def check_decidable(bundle: PolicyBundle) -> None:
    """Refuse a bundle that no worker could use, whatever its activities.

    Raises:
        PolicyError: It is not fit to decide, or its schema cannot be read.
    """
    if bundle.fault:
        raise PolicyError(f"The policies are not fit to decide: {bundle.fault}")
    _fit(bundle, {}, "The policies do not fit the gate")


def _fit(bundle: PolicyBundle, activities: Mapping[str, Callable[..., Any]], sentence: str) -> None:
    problems = unfit(bundle, activities)
    if problems:
        more = f" ({len(problems) - _SHOWN} more)" if len(problems) > _SHOWN else ""
        raise PolicyError(f"{sentence}: {'. '.join(problems[:_SHOWN])}{more}.")
