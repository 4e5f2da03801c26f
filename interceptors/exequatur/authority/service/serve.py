"""Runs the service: sockets, TLS, and an orderly end.

Rules, numbered as the code marks them:

H25  A client certificate counts only as the TLS layer verified it, on this very connection. No header stands for one.
H26  When it is told to stop, it says at once that it is not ready and takes on nothing new; what runs is finished.
H27  Whoever is slow to say what it wants, or takes nothing of the answer, is not waited for. Where there are as many
     connections as may be, one on which nothing is asked makes room, so that silence locks nobody out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TextIO

import h11
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from exequatur.authority.service.access_log import AccessLog
from exequatur.authority.service.app import create_app
from exequatur.authority.service.bounded import Bounded
from exequatur.authority.service.config import Limits, Tls
from exequatur.authority.service.parts import Service
from exequatur.errors import ConfigurationError
from exequatur.gate.serving import Serving

logger = logging.getLogger("exequatur")

STOPPING = 0.3
"""Seconds between saying that it is not ready and closing the sockets."""
HEAD_WITHIN = 10.0
"""Seconds in which the head of a request has to arrive."""
TAKEN_WITHIN = 10.0
"""Seconds in which some of an answer has to be taken."""
_LONGEST_HEAD = 64 * 1024
"""Bytes."""
_RELOAD = 10.0
"""Seconds between two looks at the certificate's file."""


class Listener(Protocol):
    """What says where a service listens: the configuration of an authority, or of a console."""

    @property
    def listen(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def tls(self) -> Tls | None: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def grace(self) -> timedelta: ...
    @property
    def access_log(self) -> Path | None: ...


class _Protocol(H11Protocol):
    """HTTP on one connection, with the client certificate in the scope of each request (ASGI TLS extension)."""

    _late: asyncio.TimerHandle | None = None
    _untaken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=1, low=0)  # to be told of anything that is not taken
        tls = transport.get_extra_info("ssl_object")
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        app = self.app

        async def with_certificate(scope: Scope, receive: Receive, send: Send) -> None:
            scope["extensions"] = {**scope.get("extensions", {}), "tls": {"client_cert_der": der}}  # [H25]
            await app(scope, receive, send)

        self.app = with_certificate
        self._wait_for_head()
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            others = (each for each in self.connections if isinstance(each, _Protocol) and each is not self)
            if silent := next((each for each in others if each.silent), None):
                silent.transport.abort()  # [H27]

    @property
    def silent(self) -> bool:
        """Whether nothing is asked on it, and nothing left to be answered."""
        return self.conn.their_state is h11.IDLE and not self.transport.get_write_buffer_size()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        self._taken()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_taking()

    def resume_writing(self) -> None:
        self._taken()
        super().resume_writing()

    def _wait_for_taking(self) -> None:
        left = self.transport.get_write_buffer_size()

        def look() -> None:
            if self.transport.get_write_buffer_size() < left:
                self._wait_for_taking()
            else:
                self.transport.abort()  # [H27]

        self._untaken = self.loop.call_later(TAKEN_WITHIN, look)

    def _taken(self) -> None:
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None

    def _wait_for_head(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._wait_no_more()
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_WITHIN, self.transport.close)  # H27

    def _wait_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class _Server(uvicorn.Server):
    """Stops in two steps (H26), and ends with exit code 0 when it was told to."""

    def __init__(self, config: uvicorn.Config, told: Callable[[], None], leaving: Callable[[], None]) -> None:
        super().__init__(config)
        self._told = told
        self._leaving = leaving

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._told()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._leaving()  # H26
        await asyncio.sleep(STOPPING)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handled = (signal.SIGINT, signal.SIGTERM)
        for each in handled:
            with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread
                loop.add_signal_handler(each, self.handle_exit, each, None)
        try:
            yield
        finally:
            for each in handled:
                with contextlib.suppress(ValueError, RuntimeError):
                    loop.remove_signal_handler(each)


async def serve(
    service: Service, serving: Serving, told: Callable[[str], None], stop: asyncio.Event | None = None
) -> None:
    """Serve until the process is told to stop.

    Args:
        service: What answers.
        serving: What runs beside it: the evidence journal, and the policies and revocations that are followed.
        told: Called with the URL once it is reachable.
        stop: Tells it to stop, where signals do not.

    Raises:
        ConfigurationError: It cannot listen there, or certificate and key cannot be used.
        JournalError: The evidence journal cannot be opened.
        PolicyError: The policies cannot be put in force.
    """
    config = service.config

    def leaving() -> None:
        service.health.stopping = True

    with contextlib.ExitStack() as closing:
        closing.callback(service.once.close)
        closing.callback(service.offload.close)  # before: what still runs uses it
        log = closing.enter_context(access_log(config))
        app = AccessLog(Bounded(create_app(service), config.limits), log)
        site = closing.enter_context(opened(app, config, told, leaving))
        await asyncio.to_thread(serving.adopt)
        async with serving.worker():
            await site.run(stop)


class Site:
    """An application behind an open socket; made by :func:`opened`."""

    def __init__(self, server: _Server, listening: socket.socket, tls: Tls | None) -> None:
        self._server = server
        self._listening = listening
        self._tls = tls

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Answer until the process is told to stop.

        Args:
            stop: Tells it to stop, where signals do not.
        """
        server, beside = self._server, []
        if self._tls is not None and server.config.ssl is not None:
            beside.append(asyncio.ensure_future(_reload(server.config.ssl, self._tls)))
        if stop is not None:
            beside.append(asyncio.ensure_future(_stopped(server, stop)))
        try:
            await server.serve(sockets=[self._listening])
        finally:
            for each in beside:
                each.cancel()


@contextlib.contextmanager
def opened(app: ASGIApp, config: Listener, told: Callable[[str], None], leaving: Callable[[], None]) -> Iterator[Site]:
    """Open the socket of an application.

    Args:
        app: What answers.
        config: Where it listens.
        told: Called with the URL once it is reachable.
        leaving: Called when it is told to stop, before it takes on nothing new.

    Raises:
        ConfigurationError: It cannot listen there, or certificate and key cannot be used.
    """
    with _listening(config) as listening:
        server = _Server(_uvicorn(app, config), lambda: told(_url(config, listening)), leaving)
        yield Site(server, listening, config.tls)


def _uvicorn(app: Any, config: Listener) -> uvicorn.Config:
    tls = config.tls
    options: dict[str, Any] = {}
    if tls is not None:
        options = {
            "ssl_certfile": tls.cert,
            "ssl_keyfile": tls.key,
            "ssl_ca_certs": str(tls.client_ca) if tls.client_ca else None,
            "ssl_cert_reqs": ssl.CERT_NONE
            if tls.client_ca is None
            else ssl.CERT_REQUIRED
            if tls.client_required
            else ssl.CERT_OPTIONAL,
        }
    made = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whoever can set a header must not choose an address
        limit_concurrency=config.limits.connections,
        timeout_graceful_shutdown=max(1, round(config.grace.total_seconds())),
        h11_max_incomplete_event_size=_LONGEST_HEAD,
        **options,
    )
    try:
        made.load()
    except (OSError, ValueError) as err:  # ssl.SSLError is an OSError
        raise ConfigurationError(f"[tls]: certificate and key cannot be used: {err}") from err
    return made


@contextlib.contextmanager
def _listening(config: Listener) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        listening = socket.create_server((config.host, config.port), family=family, backlog=1024)
    except OSError as err:
        # What Python puts behind it repeats the address.
        why = (err.strerror or str(err)).partition(" (while ")[0]
        step = "listen on another HOST:PORT; port 0 takes a free one"
        raise ConfigurationError(f"listen: {config.listen}: {why}; {step}") from err
    with listening:
        # Inherited by connections. Without it, each answer waits for a delayed acknowledgement.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listening


def _url(config: Listener, listening: socket.socket) -> str:
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"{'http' if config.tls is None else 'https'}://{host}:{listening.getsockname()[1]}"


@contextlib.contextmanager
def access_log(config: Listener) -> Iterator[TextIO]:
    """Where the access log goes: a file, or standard output.

    Raises:
        ConfigurationError: The file cannot be opened.
    """
    if config.access_log is None:
        yield sys.stdout
        return
    try:
        stream = config.access_log.open("a", encoding="utf-8")
    except OSError as err:
        raise ConfigurationError(f"access_log: {config.access_log}: {err.strerror or err}") from err
    try:
        yield stream
    finally:
        try:
            stream.close()
        except OSError as err:  # what was not written has been logged
            logger.error("access_log: %s: %s", config.access_log, err.strerror or err)


async def _reload(context: ssl.SSLContext, tls: Tls) -> None:
    """Take a renewed certificate for connections to come."""
    known = await asyncio.to_thread(_stamps, tls)
    while True:
        await asyncio.sleep(_RELOAD)
        found = await asyncio.to_thread(_stamps, tls)
        if found != known:
            try:
                await asyncio.to_thread(context.load_cert_chain, tls.cert, tls.key)
                known = found
                logger.warning("The renewed certificate %s is used from now on", tls.cert)
            except OSError as err:
                logger.error("The certificate %s was renewed and cannot be used: %s", tls.cert, err)


def _stamps(tls: Tls) -> tuple[tuple[int, int] | None, ...]:
    def stamp(path: Any) -> tuple[int, int] | None:
        try:
            found = path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino

    return stamp(tls.cert), stamp(tls.key)


async def _stopped(server: uvicorn.Server, stop: asyncio.Event) -> None:
    await stop.wait()
    server.should_exit = True
