"""What runs beside a worker: the journal, the feeds that are followed, and the watchdog."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from exequatur.errors import ExequaturError, PolicyError
from exequatur.gate.counting import Counting
from exequatur.gate.gate import Gate, check_decidable
from exequatur.integrity.guard import Guard
from exequatur.lineage.journal import Journal
from exequatur.lineage.shipper import Shipper
from exequatur.policy.folder import PolicyWatch
from exequatur.policy.offer import Offer, PolicySource
from exequatur.release.report import Integrity, Standing, remove_report, report_of, write_report

_SETTLE = 0.05
"""Seconds in which a folder that is being edited has to look the same."""
_PATIENCE = 2.0
"""Seconds that a workflow's start waits for a place that is slow to say whether the policies have changed."""
_FIRST_WAIT = 0.5
_LAST_WAIT = 10.0
"""Seconds after which an authority that did not answer is asked again: more each time, up to the last."""
_SENTENCE = 2_000
"""Characters of one sentence in a report."""
_REPORT_EVERY = 10.0
"""Seconds after which a report is written again although nothing has changed, so that a stale one shows."""

logger = logging.getLogger("exequatur")


class Serving:
    """Started with the first worker of a plugin, stopped with the last.

    Args:
        gate: What it keeps up to date.
        journal: The folder of the evidence journal.
        policies: What is watched.
        state_dir: Where it is told what is in force.
    """

    def __init__(self, gate: Gate, journal: Path, policies: PolicySource, state_dir: Path) -> None:
        self._gate = gate
        self._journal = journal
        self._policies = policies
        self._state_dir = state_dir
        self._lock = threading.Lock()
        self._workers = 0
        self._stop = threading.Event()
        self._watch = PolicyWatch(
            policies,
            gate.settings.policy_poll_interval.total_seconds(),
            on_change=self._adopt,
            on_refused=gate.refuse_bundle,
            current=None if gate.policy.awaited else Offer(gate.policy.bundle, gate.policy.provenance),
            fits=gate.admit,
        )
        self._adopted = False
        """Whether the source remembers what was put in force."""
        self._refreshed = None if gate.policy.awaited else policies.state()
        self._refresher = ThreadPoolExecutor(1, thread_name_prefix="exequatur-refresh")
        self._refreshing: Future[None] | None = None
        self._thread: threading.Thread | None = None
        self._reported: Standing | None = None
        self._state_since: tuple[bool, float] | None = None
        """Whether it can authorize, and since when that is so."""
        self._refused: str | None = None
        """Why this worker was given no credential, as it was last said."""
        gate.counting = self._counting = Counting(gate.settings, state_dir)
        self._shipper: Shipper | None = None
        if store := gate.settings.evidence_store:
            self._shipper = Shipper(journal, store, gate.settings.ship_interval.total_seconds())

    async def refresh(self) -> None:
        """Bring the policies up to date in a process that runs no worker and so does not watch them.

        Raises:
            PolicyError: What this process started with cannot be remembered, and so must not decide.
        """
        if self._workers == 0:
            await self._gate.learn_keys()
            if self._gate.workload.far:  # an authority elsewhere has policies of its own
                return
            await asyncio.to_thread(self.adopt)
            # In a thread, because the place may be slow; it goes on there when nobody waits any more. All who come
            # while it is asked share the next look, which has not begun and so sees what they have changed.
            if self._refreshing is None or self._refreshing.running() or self._refreshing.done():
                self._refreshing = self._refresher.submit(self._refresh)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._refreshing)), _PATIENCE)

    def _refresh(self) -> None:
        if self._policies.state() != self._refreshed or self._watch.overdue():
            # Two looks, because editors write in pieces.
            self._watch.scan()
            time.sleep(_SETTLE)
            self._watch.scan()
            self._refreshed = self._policies.state()

    def _adopt(self, offer: Offer) -> None:
        """Put an offer in force.

        Raises:
            PolicyError: It is refused.
        """
        self._gate.put_in_force(offer.bundle, offer.provenance, remember=lambda: self._policies.accept(offer))
        self._report()

    def adopt(self) -> None:
        """Remember what this process started with, once it is known to fit and before it decides.

        Raises:
            PolicyError: It cannot be remembered.
        """
        if not self._adopted:
            with self._watch.asking:
                if not self._adopted and self._watch.current is not None:
                    self._policies.accept(self._watch.current)
                    self._adopted = True

    def first_policies(self) -> None:
        """Put the first policies in force before a worker runs; if there are none to be had, it waits for them.

        Raises:
            PolicyError: They do not fit the other workers of this process.
        """
        with self._watch.asking:
            if self._gate.policy.awaited is None:
                return
            try:
                offer = self._policies.offer(None, check_decidable)
            except PolicyError as error:
                self._gate.await_policies(error)
                return
            if offer is not None:
                remember = functools.partial(self._policies.accept, offer)
                self._gate.put_in_force(offer.bundle, offer.provenance, remember=remember, first=True)
                self._watch.current, self._adopted = offer, True

    def replace_unfit(self, activities: Mapping[str, Callable[..., Any]], error: PolicyError) -> None:
        """Put in force what fits a worker that is about to run, where what is in force does not.

        That is the stable bundle beside a canary, or what was adopted before. It is asked for only where bundles are
        released, because a folder that is being edited may be half written.

        Args:
            activities: The worker's, by type.
            error: What does not fit.

        Raises:
            PolicyError: Nothing does.
        """
        first, released = not self._adopted, self._gate.policy.provenance
        if released is None or released.key is None:
            raise error
        with self._watch.asking:
            try:
                offer = self._policies.offer(None, lambda bundle: self._gate.admit(bundle, activities, first=first))
            except PolicyError as other:
                raise error from other
            if offer is None:
                raise error
            self._gate.put_in_force(
                offer.bundle, offer.provenance, remember=lambda: self._policies.accept(offer), first=first
            )
            self._watch.current, self._adopted = offer, True
        logger.error("%s Bundle %s, which does, is in force instead", error, offer.bundle.digest)
        self._report()

    def _report(self) -> None:
        """Tell what is in force, and whether this process can authorize, while it serves workers."""
        if self._workers:
            policy, self._reported = self._gate.policy, self._standing()
            report = report_of(policy.bundle.digest, policy.provenance, policy.since, self._reported)
            write_report(self._state_dir, report)

    def _report_again(self) -> None:
        """Tell it once more when it has changed, or after a while."""
        now, last = self._standing(), self._reported
        passing = {"at": now.at, "revocations_age": now.revocations_age, "traffic": now.traffic}
        if last is None or abs(now.at - last.at) > _REPORT_EVERY or now != last.model_copy(update=passing):
            self._report()

    def _standing(self) -> Standing:
        said = standing_of(self._gate)
        can = said.unavailable is None
        if self._state_since is None or self._state_since[0] != can:
            self._state_since = (can, said.at)
        beside = {
            "state_since": self._state_since[1],
            "refused": _cut(self._watch.refused),
            "unshipped": _cut(self._shipper.problem if self._shipper else None),
        }
        return said.model_copy(update=beside)

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        """Serve one worker.

        Raises:
            JournalError: The evidence journal cannot be opened.
            ConfigurationError: The worker can never be credentialed as it is.
            IntegrityError: It is not what its signed manifest says.
        """
        with self._shared():
            await asyncio.to_thread(self._gate.verify_integrity)  # U6, before anything is asked for
            # Before the worker polls: what it does is to be covered by the credential.
            await asyncio.to_thread(self._ask_authority)
            self._report()
            watchdog = asyncio.ensure_future(self._watchdog())
            try:
                yield
            finally:
                watchdog.cancel()

    @contextmanager
    def _shared(self) -> Iterator[None]:
        with self._lock:
            if self._workers == 0:
                self._start()
            self._workers += 1
            self._report()
        try:
            yield
        finally:
            with self._lock:
                self._workers -= 1
                if self._workers == 0:
                    self._end()

    def _start(self) -> None:
        gate = self._gate
        if gate.guard:
            gate.guard.arm()
        journal = Journal.open(self._journal)
        gate.begin_evidence(journal)
        self._counting.start(journal)
        gate.revocations.tend()
        self._watch.start()
        if gate.shadow:
            gate.shadow.start()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._follow, args=(self._stop,), name="exequatur-revocations", daemon=True
        )
        self._thread.start()
        if gate.workload.far:
            threading.Thread(
                target=self._follow_authority, args=(self._stop,), name="exequatur-credential", daemon=True
            ).start()
        if self._shipper:
            self._shipper.start()

    def _end(self) -> None:
        self._stop.set()
        self._watch.stop()
        if self._gate.guard:
            self._gate.guard.end()
        if self._thread:
            self._thread.join(timeout=5)
        self._gate.revocations.close()
        if self._gate.shadow:
            self._gate.shadow.stop()
        self._counting.stop()  # before the journal, which has what is counted
        if journal := self._gate.journal:
            self._gate.begin_evidence(None)
            journal.close()
        if self._shipper:
            self._shipper.stop()
        remove_report(self._state_dir)

    def _follow(self, stop: threading.Event) -> None:
        """Follow the revocation feed and keep the credential fresh, apart from the event loop."""
        interval = self._gate.settings.policy_poll_interval.total_seconds()
        while not stop.wait(min(interval, 1.0)):
            try:
                self._gate.revocations.tend()
                self._gate.metrics.feed_known(self._gate.revocations.version, self._gate.revocations.age())
                if not self._gate.workload.far:
                    self._ask_authority()
                self._report_again()
            except Exception:  # this thread must not end
                logger.exception("Following the revocation feed failed; it is tried again")

    def _ask_authority(self) -> None:
        """Learn its keys, and renew the credential, if it is time.

        Raises:
            ConfigurationError: This worker can never be credentialed as it is.
        """
        if self._gate.anchors:
            self._gate.anchors.refresh_if_due()
        self._gate.renew_credential()
        if (problem := self._gate.workload.problem) != self._refused:  # each is said once, however often it is asked
            self._refused = problem
            if problem is not None:
                logger.warning("This worker got no new credential, and goes on asking: %s", problem)
            else:
                logger.info("This worker has a new credential")

    def _follow_authority(self, stop: threading.Event) -> None:
        """Ask an authority elsewhere, in a thread of its own: its answer may take longer than the feed may wait."""
        interval = min(self._gate.settings.policy_poll_interval.total_seconds(), 1.0)
        wait = interval
        while not stop.wait(wait):
            try:
                self._ask_authority()
            except Exception as err:  # this thread must not end
                logger.error("Asking the authority failed; it is tried again: %s", err)
                failed = True
            else:
                failed = self._gate.workload.problem is not None
            # All workers of an authority that was away ask again, and not all at once.
            wait = min(max(wait, _FIRST_WAIT) * random.uniform(1.0, 2.0), _LAST_WAIT) if failed else interval  # noqa: S311

    async def _watchdog(self) -> None:
        """Look again at what runs on this loop and does not heartbeat: an expired grant, a passed ``@ttl``."""
        loop, interval = asyncio.get_running_loop(), self._gate.settings.watchdog_interval.total_seconds()
        while True:
            await asyncio.sleep(interval)
            for running in list(self._gate.running):
                if running.loop is loop:
                    running.look_again()


def standing_of(gate: Gate) -> Standing:
    """What this process says about itself beside what is in force."""
    known = {"revocations": gate.revocations.version, "revocations_age": min(gate.revocations.age(), 1e9)}
    namespaces, queues = gate.workload.places
    place = {"namespaces": namespaces, "task_queues": queues}
    now, guard = gate.clock(), gate.guard
    said = {
        "at": now,
        "unavailable": _cut(gate.unavailable()),
        "integrity": None if guard is None else _integrity(guard),
        "traffic": gate.metrics.tally.traffic(now),
        **known,
        **place,
    }
    try:
        claims = gate.workload.credential.claims
    except ExequaturError:
        return Standing.model_validate(said)
    return Standing.model_validate({**said, "worker": claims.sub, "credential_expires": claims.exp})


def _integrity(guard: Guard) -> Integrity:
    state = "unknown" if guard.unknown() else "verified"
    return Integrity.model_validate(
        {"state": "violated" if guard.violation else state, "manifest": guard.manifest.digest}
    )


def _cut(text: str | None) -> str | None:
    """A sentence that fits a report."""
    return None if text is None else text[:_SENTENCE]
