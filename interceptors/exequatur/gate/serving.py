"""What runs beside a worker: the journal, the feeds that are followed, and the watchdog."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from exequatur.errors import PolicyError
from exequatur.gate.gate import Gate
from exequatur.lineage.journal import Journal
from exequatur.lineage.shipper import Shipper
from exequatur.policy.folder import PolicyWatch
from exequatur.policy.offer import Offer, PolicySource
from exequatur.release.report import remove_report, report_of, write_report

_SETTLE = 0.05
"""Seconds in which a folder that is being edited has to look the same."""
_PATIENCE = 2.0
"""Seconds that a workflow's start waits for a place that is slow to say whether the policies have changed."""

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
            current=Offer(gate.policy.bundle, gate.policy.provenance),
            fits=gate.admit,
        )
        self._adopted = False
        """Whether the source remembers what was put in force."""
        self._refreshed = policies.state()
        self._refresher = ThreadPoolExecutor(1, thread_name_prefix="exequatur-refresh")
        self._refreshing: Future[None] | None = None
        self._thread: threading.Thread | None = None
        self._shipper: Shipper | None = None
        if store := gate.settings.evidence_store:
            self._shipper = Shipper(journal, store, gate.settings.ship_interval.total_seconds())

    async def refresh(self) -> None:
        """Bring the policies up to date in a process that runs no worker and so does not watch them.

        Raises:
            PolicyError: What this process started with cannot be remembered, and so must not decide.
        """
        if self._workers == 0:
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
        """Tell what is in force while this process serves workers."""
        if self._workers:
            policy = self._gate.policy
            write_report(self._state_dir, report_of(policy.bundle.digest, policy.provenance, policy.since))

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        """Serve one worker.

        Raises:
            JournalError: The evidence journal cannot be opened.
            ConfigurationError: The worker can never be credentialed as it is.
        """
        with self._shared():
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
            # Before the worker polls: what it does is to be covered by the credential.
            self._gate.renew_credential()
            yield
        finally:
            with self._lock:
                self._workers -= 1
                if self._workers == 0:
                    self._end()

    def _start(self) -> None:
        gate = self._gate
        gate.begin_evidence(Journal.open(self._journal))
        gate.revocations.refresh()
        self._watch.start()
        if gate.shadow:
            gate.shadow.start()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._follow, args=(self._stop,), name="exequatur-revocations", daemon=True
        )
        self._thread.start()
        if self._shipper:
            self._shipper.start()

    def _end(self) -> None:
        self._stop.set()
        self._watch.stop()
        if self._thread:
            self._thread.join(timeout=5)
        if self._gate.shadow:
            self._gate.shadow.stop()
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
                self._gate.revocations.refresh()
                self._gate.renew_credential()
            except Exception:  # this thread must not end
                logger.exception("Following the revocation feed failed; it is tried again")

    async def _watchdog(self) -> None:
        """Look again at what runs on this loop and does not heartbeat: an expired grant, a passed ``@ttl``."""
        loop, interval = asyncio.get_running_loop(), self._gate.settings.watchdog_interval.total_seconds()
        while True:
            await asyncio.sleep(interval)
            for running in list(self._gate.running):
                if running.loop is loop:
                    running.look_again()
