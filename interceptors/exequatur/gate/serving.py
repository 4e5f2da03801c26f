"""What runs beside a worker: the journal, the feeds that are followed, and the watchdog."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from exequatur.gate.gate import Gate
from exequatur.lineage.journal import Journal
from exequatur.lineage.shipper import Shipper
from exequatur.policy.folder import PolicyFolder, PolicyWatch

_SETTLE = 0.05
"""Seconds in which a folder that is being edited has to look the same."""

logger = logging.getLogger("exequatur")


class Serving:
    """Started with the first worker of a plugin, stopped with the last.

    Args:
        gate: What it keeps up to date.
        journal: The folder of the evidence journal.
        policies: The folder that is watched.
    """

    def __init__(self, gate: Gate, journal: Path, policies: PolicyFolder) -> None:
        self._gate = gate
        self._journal = journal
        self._policies = policies
        self._lock = threading.Lock()
        self._workers = 0
        self._stop = threading.Event()
        self._watch = PolicyWatch(
            policies,
            gate.settings.policy_poll_interval.total_seconds(),
            on_change=gate.put_in_force,
            on_refused=gate.refuse_bundle,
            current=gate.policy.bundle.digest,
        )
        self._refreshed = policies.state()
        self._thread: threading.Thread | None = None
        self._shipper: Shipper | None = None
        if store := gate.settings.evidence_store:
            self._shipper = Shipper(journal, store, gate.settings.ship_interval.total_seconds())

    async def refresh(self) -> None:
        """Bring the policies up to date in a process that runs no worker and so does not watch them."""
        if self._workers == 0 and self._policies.state() != self._refreshed:
            # Two looks, because editors write in pieces.
            self._watch.scan()
            await asyncio.sleep(_SETTLE)
            self._watch.scan()
            self._refreshed = self._policies.state()

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
        if journal := self._gate.journal:
            self._gate.begin_evidence(None)
            journal.close()
        if self._shipper:
            self._shipper.stop()

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
