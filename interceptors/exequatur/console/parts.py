"""What the console is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from starlette.requests import HTTPConnection

from exequatur.authority.service.offload import Offload
from exequatur.console.asking import Governing
from exequatur.console.config import ConsoleConfig
from exequatur.console.evidence import Decisions
from exequatur.console.login import LoginFlow
from exequatur.console.runs import Runs
from exequatur.console.sandbox.sandboxes import Sandboxes
from exequatur.console.server import Temporal
from exequatur.console.sessions import Sessions
from exequatur.console.streams import Streams
from exequatur.console.viewer import Viewer
from exequatur.console.watch import Watch
from exequatur.settings import Settings
from exequatur.statements.trust import TrustStore


@dataclass
class Standing:
    """What changes while the console runs."""

    origin: str = ""
    """Scheme, host and port that it is reached by."""
    port: int = 0
    """That browsers reach it by."""
    stopping: bool = False


@dataclass(frozen=True)
class Console:
    """Everything that a page has.

    Args:
        config: As configured.
        settings: Of the authority whose state folder this is.
        governing: Asks Cedar what a viewer may see and do, and does it.
        decisions: What was decided lately.
        temporal: Clients of the Temporal server, for reading.
        runs: Audits of single runs.
        watch: What is known of the workers and of what they stand on.
        sessions: Who is known.
        trust: Anchors that everything is verified with.
        offload: Threads for what blocks.
        login: Where people log in with an OpenID provider.
        monitoring: A token by which metrics and health are read.
        streams: Who follows a page as it changes.
        demo: Sandboxes of the demo page, where one is named.
        clock: Seconds since 1970.
        standing: What changes.
    """

    config: ConsoleConfig
    settings: Settings
    governing: Governing
    decisions: Decisions
    temporal: Temporal
    runs: Runs
    watch: Watch
    sessions: Sessions
    trust: TrustStore
    offload: Offload
    clock: Callable[[], float]
    login: LoginFlow | None = None
    monitoring: str | None = field(default=None, repr=False)
    streams: Streams = field(default_factory=Streams, repr=False)
    demo: Sandboxes | None = None
    standing: Standing = field(default_factory=Standing)


def console_of(request: HTTPConnection) -> Console:
    """The console that a request came to."""
    return cast(Console, request.app.state.console)


def viewer_of(request: HTTPConnection) -> Viewer:
    """Who looks, as the guard found out."""
    return cast(Viewer, request.scope["state"]["viewer"])


def address_of(request: HTTPConnection) -> str:
    """Where a request comes from, as far as it is known (:mod:`exequatur.console.forwarded`)."""
    return request.client.host if request.client else ""
