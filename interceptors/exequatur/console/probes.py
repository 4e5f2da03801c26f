"""What the workers stand on: authority, databases, state folder, Temporal server. The doctor looks, in background."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.client import Client
from temporalio.service import RPCError

from exequatur.console.config import ConsoleConfig
from exequatur.console.errors import plainly
from exequatur.console.repeated import Repeated
from exequatur.console.server import Connect
from exequatur.console.tails import place_of
from exequatur.doctor.deployment import Deployment
from exequatur.doctor.finding import Finding, fine, problem
from exequatur.doctor.folders import examine_folders
from exequatur.doctor.server import examine_namespace
from exequatur.doctor.service import examine_authority
from exequatur.doctor.stores import examine_stores
from exequatur.errors import ExequaturError
from exequatur.settings import Settings

logger = logging.getLogger("exequatur")

ServiceState = Literal["up", "warning", "down", "unknown"]
ServiceName = Literal["authority", "state", "store", "shared-state", "temporal"]
WITHIN = 5.0
"""Seconds within which a look has to end; what takes longer is said not to answer."""
EVERY = 5.0
_SELDOM = 15.0
"""Seconds between two looks at what changes little, or costs more."""
_UNSEEN: tuple[ServiceState, str, str] = ("unknown", "It has not been looked at yet.", "")
_FAILED: tuple[ServiceState, str, str] = ("warning", "It could not be looked at.", "The console's log says why.")
_SENTENCES = 3
_LONGEST = 1_000
_STATES: dict[str, ServiceState] = {"ok": "up", "warning": "warning", "problem": "down"}
_WEIGHT = ("problem", "warning", "ok")
_HANGS = "See whether it runs, whether something locks it, and whether the network reaches it."


@dataclass(frozen=True, slots=True)
class Service:
    """One of the things that workers stand on.

    Args:
        service: Which.
        where: Its address.
        state: ``unknown`` until it was looked at once.
        text: What was found.
        advice: What to do next; empty for what is fine.
        since: Since when it is so, in seconds since 1970, as far as this console knows.
        looked: When it was looked at last.
        age: Seconds since that look began; ``None`` where none has ended.
    """

    service: ServiceName
    where: str
    state: ServiceState
    text: str
    advice: str
    since: float | None
    looked: float | None
    age: float | None = None


class Probe:
    """Looks at one of them.

    Args:
        name: Which.
        where: Its address.
        look: Gives what was found. It may block.
        every: Seconds between two looks.
    """

    def __init__(self, name: ServiceName, where: str, look: Callable[[], Iterable[Finding]], every: float) -> None:
        self._name: ServiceName = name
        self._where = where
        self._look = look
        self._since: tuple[ServiceState, float] = ("unknown", 0.0)
        """Its state after the last look, and when the look began that found it so first."""
        self.repeated = Repeated(name, self._found, every)

    def service(self) -> Service:
        """What is known now. Never waits."""
        seen, (before, since) = self.repeated.seen(), self._since
        state, text, advice = seen.value or _UNSEEN
        if seen.late > WITHIN:
            state, text, advice = "down", f"no answer within {WITHIN:.0f} s", _HANGS
            if before != "down":
                since = time.time() - seen.late
        known = None if state == "unknown" else since
        return Service(self._name, self._where, state, text, advice, known, seen.at, seen.age)

    def _found(self) -> tuple[ServiceState, str, str]:
        """Look once, and note when what is found began: nobody may ask meanwhile."""
        begun = time.time()
        try:
            found = _summary(list(self._look()))
        except Exception:  # whatever it is: the next look may be better
            logger.exception("The console could not look at %s", self._name)
            found = _FAILED
        if self._since[0] != found[0]:
            self._since = (found[0], begun)
        return found


def probes_of(config: ConsoleConfig, settings: Settings, connect: Connect) -> tuple[Probe, ...]:
    """The probes of what is configured.

    Args:
        config: Of the console.
        settings: Of the authority; they name the databases.
        connect: Connects a client to a namespace.
    """
    state = config.state
    made = [Probe("state", str(state), lambda: _folder(state, settings), _SELDOM)]
    if (url := config.authority) is not None:
        asked = Deployment(settings, states=(state,), authority=url)
        made.append(Probe("authority", url, lambda: examine_authority(asked, url), 2 * EVERY))
    named = next((each for each in config.evidence if "://" in each), None)
    if store := settings.evidence_store or named:
        alone = settings.model_copy(update={"shared_state": None})
        made.append(Probe("store", place_of(store), lambda: examine_stores(Deployment(alone, store=store)), EVERY))
    if shared := settings.shared_state:
        only = settings.model_copy(update={"evidence_store": None})
        made.append(Probe("shared-state", place_of(shared), lambda: examine_stores(Deployment(only)), EVERY))
    made.append(Probe("temporal", config.address, _Server(config, connect).look, EVERY))
    return tuple(made)


def _folder(state: Path, settings: Settings) -> list[Finding]:
    """The folder; that everything is revoked is said by whoever has the feed in memory."""
    found = examine_folders((state,), settings, time.time())
    return [each for each in found if (each.check, each.level) != ("feed", "warning")]


class _Server:
    """Looks at the Temporal server, in a thread with an event loop of its own."""

    def __init__(self, config: ConsoleConfig, connect: Connect) -> None:
        self._config = config
        self._connect = connect
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Client | None = None

    def look(self) -> list[Finding]:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            weakref.finalize(self, self._loop.close)
        try:
            return self._loop.run_until_complete(asyncio.wait_for(self._look(), WITHIN))
        except TimeoutError:
            why = f"no answer within {WITHIN:.0f} s"
        except (ExequaturError, RPCError, RuntimeError, OSError) as error:
            why = plainly(str(error).removeprefix(f"{self._config.address}: ")) or type(error).__name__
        return [problem("server", why, "Start the server, or check --address, --namespace and TLS.")]

    async def _look(self) -> list[Finding]:
        if self._client is None:
            self._client = await self._connect(self._config.namespaces[0])
        patience = timedelta(seconds=WITHIN)
        about = await self._client.workflow_service.get_system_info(GetSystemInfoRequest(), timeout=patience)
        found = [fine("server", f"version {about.server_version or 'unknown'}")]
        for namespace in self._config.namespaces:
            found += await examine_namespace(self._client, namespace)
        return found


def _summary(findings: Sequence[Finding]) -> tuple[ServiceState, str, str]:
    """State, text and next step, of the gravest of what was found."""
    for level in _WEIGHT:
        of_it = [each for each in findings if each.level == level]
        if of_it:
            text = "; ".join(each.text for each in of_it[:_SENTENCES])
            return _STATES[level], text[:_LONGEST], (of_it[0].step or "")[:_LONGEST]
    return "up", "", ""
