"""Documents that are fetched and kept for a while: key sets, trust bundles, discovery documents.

Rules, numbered as the code marks them:

D1  From the web only over ``https``, or from this very machine where the configuration says so. Redirects are not
    followed: who may answer is who was asked.
D2  No request lasts longer than :data:`DEADLINE`, and no document is larger than :data:`MAX_BYTES`. Nothing is
    decompressed.
D3  A document is used for ``lifetime``. When it cannot be fetched then, it goes on being used for ``stale``, and not a
    moment longer: after that nobody is identified by it.
D4  What a newer document does not have any more is gone at once.
D5  Where something is missed, such as a key that was just rotated in, it is fetched again, but not sooner than
    ``cooldown`` after the last time, so that forged tokens do not make us a nuisance to the issuer. After a failure the
    same holds.
D6  A file is read again when it changed. A symbolic link may be there, a device or pipe may not.
D7  What is missed and could not be fetched again just now may be there: that is uncertainty, and nobody is told that it
    is wrong. Otherwise whoever forges tokens would have those refused whose key was just rotated in.
D8  While one thread fetches what did not come last time, no other waits for it, so that an issuer that hangs does not
    hold up those who ask for something else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

from exequatur.errors import ConfigurationError, IdentityUnavailableError

DEADLINE = 5.0
"""Seconds for one request."""
MAX_BYTES = 1 << 20
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

logger = logging.getLogger("exequatur")

T = TypeVar("T")


class Source(Protocol):
    """Where a document comes from."""

    def changed(self) -> bool | None:
        """Whether it is another one than was read last; ``None`` where only reading it tells. Cheap."""
        ...

    def read(self) -> bytes:
        """Read it.

        Raises:
            IdentityUnavailableError: It cannot be read now.
        """
        ...


class FileSource:
    """A file.

    Args:
        path: The file.
        most: Bytes that it may have.
    """

    def __init__(self, path: Path, most: int = MAX_BYTES) -> None:
        self._path, self._most = path, most
        self._seen: tuple[int, int, int] | None = None

    def __str__(self) -> str:
        return str(self._path)

    def changed(self) -> bool:
        try:
            found = self._path.stat()
        except OSError:
            return self._seen is not None
        return self._seen != (found.st_mtime_ns, found.st_size, found.st_ino)

    def read(self) -> bytes:
        try:
            data, self._seen = read_bounded(self._path, self._most)
        except OSError as err:
            self._seen = None
            raise IdentityUnavailableError(f"{self._path}: {err.strerror or err}") from None
        return data


def read_bounded(path: Path, most: int) -> tuple[bytes, tuple[int, int, int]]:
    """Read a regular file that is not too large.

    Args:
        path: The file.
        most: Bytes.

    Returns:
        Its content, and what tells this version of it from another one.

    Raises:
        OSError: It cannot be read, is no regular file, or is too large.
    """
    # Without waiting for the other end of a pipe.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):  # [D6]
            raise OSError("it is not a regular file")
        data = stream.read(most + 1)
    if len(data) > most:  # [D2]
        raise OSError(f"it is larger than {most} bytes")
    return data, (found.st_mtime_ns, found.st_size, found.st_ino)


class WebSource:
    """A document on a web server.

    Args:
        url: ``https``.
        loopback: Whether ``http`` may be, if the host is this machine.

    Raises:
        ConfigurationError: D1.
    """

    def __init__(self, url: str, *, loopback: bool = False) -> None:
        check_url(url, loopback=loopback)
        self._url = url

    def __str__(self) -> str:
        return self._url

    def changed(self) -> None:
        return None

    def read(self) -> bytes:
        return _run(self._fetch)

    async def _fetch(self) -> bytes:
        try:
            import httpx
        except ImportError as err:  # pragma: no cover
            raise ConfigurationError("httpx is missing; run: pip install 'exequatur[identity]'") from err
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        received = bytearray()
        try:
            async with (
                asyncio.timeout(DEADLINE),  # [D2]
                httpx.AsyncClient(timeout=DEADLINE, follow_redirects=False, headers=headers) as client,
                client.stream("GET", self._url) as answer,
            ):
                if answer.status_code != 200:  # [D1]
                    raise IdentityUnavailableError(f"{self._url} answers {answer.status_code}")
                if answer.headers.get("content-encoding", "identity").lower() != "identity":  # [D2]
                    raise IdentityUnavailableError(f"{self._url} is sent compressed, which was not asked for")
                async for part in answer.aiter_raw():
                    received += part
                    if len(received) > MAX_BYTES:  # [D2]
                        raise IdentityUnavailableError(f"{self._url} is larger than {MAX_BYTES} bytes")
        except TimeoutError:
            raise IdentityUnavailableError(f"{self._url} does not answer within {DEADLINE:.0f} s") from None
        except (httpx.InvalidURL, httpx.HTTPError, OSError, ValueError) as err:
            raise IdentityUnavailableError(f"{self._url} cannot be reached ({type(err).__name__})") from None
        return bytes(received)


def check_url(url: str, *, loopback: bool) -> None:
    """D1.

    Raises:
        ConfigurationError: The URL is not one that may be asked.
    """
    try:
        parsed = urlsplit(url)
        host = parsed.hostname
    except ValueError:
        parsed, host = urlsplit(""), None
    if host is None or parsed.username is not None or parsed.password is not None or parsed.fragment:
        raise ConfigurationError("A URL of the identity configuration cannot be read; write it as https://HOST/PATH")
    if parsed.scheme != "https" and not (loopback and parsed.scheme == "http" and host in _LOOPBACK):  # [D1]
        raise ConfigurationError(f"{url} is not https; only for this machine, and with loopback = true, may it be http")


def _run(fetch: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
    """Run to its end what is asynchronous, also when this thread already runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        # Not asyncio.run: it would wait for the thread that looks up the host's name, however long that takes.
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(fetch())  # D2
        finally:
            loop.close()
    with ThreadPoolExecutor(1) as elsewhere:
        return elsewhere.submit(_run, fetch).result()


class Kept(Generic[T]):
    """A document, as something was made of it.

    Args:
        source: Where it comes from.
        make: Makes something of it; raises ``ValueError`` where it cannot, and then the document counts as not there.
        lifetime: Seconds for which it is used (D3).
        stale: Seconds for which it is used beyond that while it cannot be fetched.
        cooldown: Seconds between two attempts (D5).
        clock: Seconds, steadily.
    """

    def __init__(
        self,
        source: Source,
        make: Callable[[bytes], T],
        *,
        lifetime: float = 300.0,
        stale: float = 3600.0,
        cooldown: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._make = make
        self._lifetime, self._stale, self._cooldown = lifetime, stale, cooldown
        self._clock = clock
        self._lock = threading.Lock()
        self._held: tuple[T, float] | None = None
        """What was made, and when it was fetched."""
        self._tried: float | None = None
        """When the last attempt was over."""
        self._problem: str | None = None
        """Why the last attempt brought nothing."""

    def get(self, has: Callable[[T], bool] = lambda _: True) -> T:
        """What is there now.

        Args:
            has: Whether what is looked for is in it; otherwise it may be fetched again.

        Raises:
            IdentityUnavailableError: There is none that may be used.
        """
        asked = self._clock()
        changed = self._source.changed()
        held = known = self._held
        if held is not None and not changed and self._fresh(held) and has(held[0]):
            return held[0]
        # Whoever can be answered with what is there does not wait for somebody else's fetch.
        usable = held is not None and self._usable(held) and has(held[0])
        if self._lock.acquire(blocking=not usable and self._problem is None):  # D8
            try:
                before, held = held, self._held
                fetched_meanwhile = held is not before and held is not None and self._fresh(held)
                if self._due(changed) and not (fetched_meanwhile and held is not None and has(held[0])):
                    self._fetch()
                    held = self._held
            finally:
                self._lock.release()
        if held is None or not self._usable(held):  # [D3]
            raise IdentityUnavailableError(f"{self._source} cannot be used: {self._problem}")
        fetched_since = held is not known and held[1] >= asked
        if changed is not False and not fetched_since and not has(held[0]):  # [D7]
            raise IdentityUnavailableError(f"{self._source} has not what is looked for, which may be a new one")
        return held[0]

    def _fresh(self, held: tuple[T, float]) -> bool:
        return self._clock() - held[1] < self._lifetime

    def _usable(self, held: tuple[T, float]) -> bool:
        return self._clock() - held[1] < self._lifetime + self._stale

    def _due(self, changed: bool | None) -> bool:
        """D5."""
        if changed:
            return True
        return self._tried is None or self._clock() - self._tried >= self._cooldown

    def _fetch(self) -> None:
        began = self._clock()
        try:
            made = self._make(self._source.read())
        except IdentityUnavailableError as err:
            self._problem = str(err)
        except ValueError as err:
            self._problem = f"{self._source}: {err}"
        else:
            self._held, self._problem = (made, began), None  # [D4]
            return
        finally:
            self._tried = self._clock()
        logger.warning("%s", self._problem)
