"""The connection to an authority service.

Rules for what may be done to us by it, and by whoever stands between, numbered as the code marks them:

N1  Nothing goes over a connection that others can read: it is ``https`` to a server whose certificate verifies, or
    ``http`` to this very machine and then through no proxy.
N2  No question lasts longer than ``authority_timeout``, however slowly it is answered.
N3  No more than :data:`MAX_ANSWER` bytes are taken, and nothing is decompressed.
N4  A redirect is not followed: what identifies this process goes to its authority and nowhere else.
N5  What identifies this process stands in no message, log or traceback.

All questions are asked on a thread of the connection's own, so that any thread and any event loop may ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import re
import ssl
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from exequatur.errors import ConfigurationError, ExequaturError

logger = logging.getLogger("exequatur")

MAX_ANSWER = 1024 * 1024
"""Trust anchors are the longest answer: some 250 bytes a key."""
_KEPT_OPEN = 2.0
"""Seconds that a connection is kept for the next question. Less than servers keep theirs, so that none is used that
just ended."""
_MAX_URL = 2000
_HOST = re.compile(r"[A-Za-z0-9._:-]+")

T = TypeVar("T")
Certificate = Callable[[], tuple[str, str] | None]
"""Paths of this process's certificate chain and key in PEM, if it has any."""


class UnreachableError(ExequaturError):
    """The authority could not be asked, or what came was no answer. A sentence says why; of the question it says
    nothing."""


@dataclass(frozen=True)
class Answer:
    """What came back, whole.

    Args:
        status: HTTP status.
        headers: By lower-case name.
        body: As it was sent.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def type(self) -> str:
        """The media type, without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_json(self) -> bool:
        return self.type == "application/json"


class _Line:
    """The thread and the HTTP client of a connection in one process."""

    def __init__(self, opened: Callable[[], httpx.AsyncClient]) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self.client = opened()
        threading.Thread(target=_run, args=(self.loop, self.client), name="exequatur-authority", daemon=True).start()

    def end(self) -> None:
        """Hang up; nobody can ask any more."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self.loop.call_soon_threadsafe(self.loop.stop)


def _run(loop: asyncio.AbstractEventLoop, client: httpx.AsyncClient) -> None:
    try:
        loop.run_forever()
        loop.run_until_complete(client.aclose())
    finally:
        loop.close()


class Connection:
    """Asks one authority service.

    Args:
        url: Of the service: ``https://host``, with a port or a path before the paths of its API if it has one.
        timeout: Seconds that a question may last.
        ca: PEM file of certificate authorities; without it, the system's.
        certificate: This process's own, for TLS; read anew when its file has changed.

    Raises:
        ConfigurationError: N1, or a file cannot be used.
    """

    def __init__(
        self, url: str, *, timeout: float, ca: str | None = None, certificate: Certificate = lambda: None
    ) -> None:
        self._base = _base(url)
        self._timeout = timeout
        self._certificate = certificate
        self._presented: object = None
        self.tls = _context(ca)
        self._present()
        self._lock = threading.Lock()
        self._line: _Line | None = None

    def __str__(self) -> str:
        return str(self._base)

    def url(self, path: str) -> str:
        """The URL of a path of the API."""
        return str(self._base.copy_with(path=self._base.path.rstrip("/") + path))

    async def ask(self, method: str, path: str, **request: Any) -> Answer:
        """Ask, from any event loop.

        Args:
            method: HTTP method.
            path: Of the API.
            request: As httpx takes it: ``headers``, ``content``, ``data``, ``params``.

        Raises:
            UnreachableError: N2 to N4, or there was no answer.
        """
        return await asyncio.wrap_future(self._submit(lambda line: self._asked(line, method, path, request)))

    def ask_now(self, method: str, path: str, **request: Any) -> Answer:
        """The same for a thread, which waits.

        Raises:
            UnreachableError: N2 to N4, or there was no answer.
        """
        return self._submit(lambda line: self._asked(line, method, path, request)).result()

    def _submit(self, work: Callable[[_Line], Coroutine[Any, Any, T]]) -> Future[T]:
        with self._lock:
            if self._line is None or self._line.pid != os.getpid():  # a forked child has none of its parent's threads
                self._line = _Line(self._opened)
                weakref.finalize(self, self._line.end)
            line = self._line
        return asyncio.run_coroutine_threadsafe(work(line), line.loop)

    def _opened(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=self.tls,
            trust_env=self._base.scheme == "https",  # [N1]
            timeout=self._timeout,
            follow_redirects=False,  # [N4]
            headers={"Accept-Encoding": "identity"},
            limits=httpx.Limits(max_connections=64, keepalive_expiry=_KEPT_OPEN),
        )

    async def _asked(self, line: _Line, method: str, path: str, request: dict[str, Any]) -> Answer:
        try:
            async with asyncio.timeout(self._timeout):  # [N2]
                return await self._once(line.client, method, path, request)
        except TimeoutError:
            why = f"does not answer within {self._timeout:g} s"
        except UnreachableError:
            raise
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ImportError) as err:
            # The last two of a name that cannot be looked up, or of a proxy that this installation does not know.
            why = f"cannot be reached ({reason_of(err)})"
        raise UnreachableError(f"The authority {self} {why}") from None  # [N5]

    async def _once(self, client: httpx.AsyncClient, method: str, path: str, request: dict[str, Any]) -> Answer:
        self._present()
        async with client.stream(method, self.url(path), **request) as answer:
            if 300 <= answer.status_code < 400 and answer.status_code != 304:  # [N4]
                raise UnreachableError(
                    f"The authority {self} redirects elsewhere, which is not followed; name its own URL"
                )
            if answer.headers.get("content-encoding", "identity").lower() != "identity":  # [N3]
                raise UnreachableError(f"The authority {self} answers compressed, which was not asked for")
            body = bytearray()
            async for part in answer.aiter_raw():
                body += part
                if len(body) > MAX_ANSWER:  # [N3]
                    raise UnreachableError(f"The authority {self} answers with more than {MAX_ANSWER >> 20} MiB")
            return Answer(answer.status_code, dict(answer.headers), bytes(body))

    def _present(self) -> None:
        """Use the certificate that is there now; a new one that cannot be used leaves the one before.

        Raises:
            ConfigurationError: The first one cannot be used.
        """
        try:
            files = self._certificate()
            if files is None:
                return
            stamp = (files, *(_stamp(Path(file)) for file in files))
            if stamp == self._presented:
                return
            self.tls.load_cert_chain(*files, password=_no_password)
        except (OSError, ValueError) as err:
            sentence = f"The client certificate cannot be used: {reason_of(err)}"
            if self._presented is None:
                raise ConfigurationError(f"{sentence}; name a readable PEM certificate and its key") from None
            logger.error("%s; the one before is used", sentence)
        else:
            self._presented = stamp


def _base(url: str) -> httpx.URL:
    """The URL of an authority.

    Raises:
        ConfigurationError: N1, or it is none.
    """
    try:
        parsed = httpx.URL(url if len(url) <= _MAX_URL else "")
    except (httpx.InvalidURL, ValueError, TypeError):
        parsed = httpx.URL("")
    if parsed.scheme not in ("https", "http") or not _HOST.fullmatch(parsed.raw_host.decode("ascii", "replace")):
        raise ConfigurationError("authority is not a URL; write it as https://HOST or https://HOST:PORT")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ConfigurationError("authority must not hold a user, password, query or fragment; give identity= instead")
    if parsed.scheme == "http" and not _is_here(parsed.host):  # [N1]
        raise ConfigurationError(
            f"authority is http://{parsed.host}: others could read what is asked; use https, or a loopback address"
        )
    return parsed


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _context(ca: str | None) -> ssl.SSLContext:
    """Raises ConfigurationError: The file cannot be used."""
    try:
        return ssl.create_default_context(cafile=ca)  # [N1] the system's, and those of SSL_CERT_FILE
    except (OSError, ValueError) as err:
        raise ConfigurationError(f"authority_ca {ca} cannot be used: {reason_of(err)}; name a PEM file") from None


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _no_password() -> str:
    """Instead of OpenSSL's question at the terminal."""
    raise ValueError("its key is encrypted")


def reason_of(error: BaseException) -> str:
    """Why a connection failed, without what was sent."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return getattr(cause, "verify_message", None) or cause.reason or "TLS failed"
        if isinstance(cause, OSError) and cause.strerror:
            return os.strerror(cause.errno) if cause.errno and cause.errno > 0 else cause.strerror
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
