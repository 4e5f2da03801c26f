"""Puts the parts of the console together, and serves it."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import io
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from exequatur.assembly import embedded
from exequatur.audit.codec import converter_of
from exequatur.authority.service.offload import Offload
from exequatur.authority.service.serve import access_log, opened
from exequatur.console.app import create_app, guarded
from exequatur.console.asking import Governing
from exequatur.console.config import ConsoleConfig, port_of
from exequatur.console.decoding import Decoder
from exequatur.console.evidence import Decisions
from exequatur.console.examining import TRUST, Examiner
from exequatur.console.login import LoginFlow
from exequatur.console.parts import Console
from exequatur.console.probes import probes_of
from exequatur.console.runs import Runs
from exequatur.console.sandbox.application import application_of
from exequatur.console.sandbox.sandboxes import Sandboxes
from exequatur.console.server import Connect, Temporal
from exequatur.console.sessions import Sessions
from exequatur.console.watch import Watch
from exequatur.errors import ConfigurationError
from exequatur.identity.config import read_identity
from exequatur.identity.principal import Principal
from exequatur.settings import Settings
from exequatur.statements.trust import TrustStore

_THREADS = 4


class _Nowhere(io.TextIOBase):
    """Where the access log goes that nobody keeps."""

    def write(self, text: str) -> int:
        return len(text)


def build(config: ConsoleConfig, connect: Connect, settings: Settings) -> Console:
    """Build the console.

    Args:
        config: As configured.
        connect: Connects a client without the plugin to a namespace.
        settings: Of the authority.

    Raises:
        ConfigurationError: The state folder is not that of an authority, or something that is configured cannot be
            used.
        PolicyError: The policies cannot be used.
    """
    if not (config.state / "issuer").is_file():
        raise ConfigurationError(
            f"{config.state} is no state folder of an authority; name that of the workers with --state. "
            "The first worker to start makes it."
        )
    viewer_named(config.principal)  # before anything is opened
    parts = embedded(config.state, config.policies, settings)
    login = None
    if config.login is not None and config.identity is not None:
        login = LoginFlow(config.login, config.secret(), read_identity(config.identity), parts.gate.clock)
    trust = parts.gate.trust if config.trust is None else _trust(config.trust)
    decoder = None if config.converter is None else Decoder(converter_of(config.converter), config.converter)
    temporal = Temporal(connect, config.address, config.namespaces, decoder)
    sources: list[str | Path] = [config.state, *config.evidence]
    examiner = Examiner(sources, config.trust or config.state / TRUST, parts.gate.clock)
    return Console(
        config=config,
        settings=settings,
        governing=Governing(parts),
        decisions=Decisions(sources),
        temporal=temporal,
        runs=Runs(temporal, examiner, decoder, parts.gate.clock),
        watch=Watch(config.folders, probes_of(config, settings, connect)),
        sessions=Sessions(config.port, secure=config.secure, clock=parts.gate.clock),
        trust=trust,
        offload=Offload(_THREADS),
        clock=parts.gate.clock,
        login=login,
        monitoring=config.monitoring(),
        demo=None
        if config.demo is None
        else Sandboxes(application_of(config.demo), temporal.plain, config.demo_limits),
    )


async def serve(console: Console, told: Callable[[str], None], stop: asyncio.Event | None = None) -> None:
    """Serve until the process is told to stop.

    Args:
        console: What answers.
        told: Called with the address to open once it is reachable: with a token, where people do not log in.
        stop: Tells it to stop, where signals do not.

    Raises:
        ConfigurationError: It cannot listen there, or certificate and key cannot be used.
    """
    config, standing = console.config, console.standing

    def reachable(url: str) -> None:
        standing.origin = url
        shown = (config.url or url).rstrip("/")
        standing.port = port_of(shown)
        console.sessions.reached_by(standing.port)
        if console.login is None and not config.public:
            shown += f"/start?token={console.sessions.offer(viewer_named(config.principal))}"
        told(shown)

    def leaving() -> None:
        standing.stopping = True

    with contextlib.ExitStack() as closing:
        closing.callback(console.offload.close)
        closing.callback(console.runs.close)
        if console.login is not None:
            closing.callback(console.login.close)
        log: TextIO = _Nowhere()  # type: ignore[assignment]
        if config.access_log is not None:
            log = closing.enter_context(access_log(config))
        site = closing.enter_context(opened(guarded(create_app(console), console, log), config, reachable, leaving))
        closing.callback(console.decisions.close)
        closing.callback(console.watch.close)
        console.watch.start()
        await asyncio.to_thread(console.decisions.start)
        try:
            await site.run(stop)
        finally:
            if console.demo is not None:
                await console.demo.aclose()


def viewer_named(name: str | None) -> Principal:
    """Who looks where people do not log in: the one that is named, or whoever runs the console.

    Raises:
        ConfigurationError: It is not written as a principal.
    """
    try:
        return Principal("User", getpass.getuser()) if name is None else Principal.parse(name)
    except (ValueError, OSError, KeyError) as error:
        step = "" if name is None else f'; write it as User::"{name if name.isidentifier() else "kim"}"'
        raise ConfigurationError(f"--as: {str(error).partition(';')[0]}{step}") from None


def _trust(path: Path) -> TrustStore:
    try:
        return TrustStore.from_jwks(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error
