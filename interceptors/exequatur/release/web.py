"""Bundle files on an HTTP server.

Rules for what a server may do to us, numbered as the code marks them:

J61  No request lasts longer than :data:`DEADLINE`, however slowly the server answers.
J62  No more than :data:`~exequatur.release.file.MAX_FILE_BYTES` are taken, and nothing is decompressed.
J63  A redirect leads to the same scheme, at most :data:`MAX_REDIRECTS` times, and a user's password goes to no other
    server.
J64  Only 404 and 410 say that there is no file. Any other answer says nothing about the file.
J65  A file is fetched again only when its ETag has changed. An ETag counts only for a file that arrived whole.
J66  A broken transfer is taken up where it broke, as long as the server has the same file (Range with If-Range).
J67  A file is put only where the one is that was looked at (If-Match, If-None-Match).

Nothing here is believed: what was fetched is verified like any other file.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import threading
from collections.abc import Callable, Coroutine, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, TypeVar

import httpx

from exequatur.errors import ConfigurationError, ExequaturError, PolicyError
from exequatur.policy.offer import Channel
from exequatur.release.directory import beside
from exequatur.release.file import MAX_FILE_BYTES, BundleFile

DEADLINE = 30.0
"""Seconds for one request. A larger file, or a slower server, is taken up where it was left."""
SILENCE = 10.0
"""Seconds without a byte."""
MAX_REDIRECTS = 5
_ATTEMPTS = 3
"""How often a transfer is taken up, or a put is tried against others who put."""

T = TypeVar("T")


class _BrokenError(Exception):
    """A request failed in a way that may not last; a sentence says how."""


@dataclass
class _Held:
    """What is known of one file."""

    url: httpx.URL
    data: bytes | None = None
    etag: str | None = None
    problem: str | None = None
    partial: bytearray = field(default_factory=bytearray)
    partial_etag: str | None = None

    @property
    def state(self) -> Hashable:
        if self.problem is not None:
            return self.problem
        return None if self.data is None else hashlib.sha256(self.data).hexdigest()


class WebPlace:
    """A bundle file on an HTTP server, and its canary beside it.

    Args:
        url: Of the stable file; a user name and password in it are sent to its server only.
        tls: Whom to believe to be that server; without it the system's authorities, and those of ``SSL_CERT_FILE``.
        headers: What shows that server who asks; it goes to no other (J63). May raise ExequaturError.

    Raises:
        ConfigurationError: It is no URL of a file.
    """

    remote = True

    def __init__(
        self,
        url: str,
        *,
        tls: ssl.SSLContext | None = None,
        headers: Callable[[], Mapping[str, str]] | None = None,
    ) -> None:
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, ValueError):
            # The error may quote a part of a password.
            raise ConfigurationError(
                "The URL of the bundle cannot be read; write it as https://HOST/policies.bundle, and characters like "
                "/ and @ in a user name or password as %2F and %40"
            ) from None
        if not parsed.host or not PurePosixPath(parsed.path).name:
            raise ConfigurationError(f"{_shown(parsed)}: name the bundle file too, as in https://HOST/policies.bundle")
        self._url = parsed
        self._files: dict[Channel, _Held] = {
            "stable": _Held(parsed),
            "canary": _Held(_beside(parsed, "canary")),
        }
        self._lock = threading.Lock()
        self._tls = tls or ssl.create_default_context()  # the system's authorities, and those of SSL_CERT_FILE
        self._headers = headers

    def __str__(self) -> str:
        return _shown(self._url)

    def look(self) -> Hashable:
        with self._lock:
            for held in self._files.values():
                try:
                    _run(self._fetch(held))
                    held.problem = None
                except _BrokenError as error:
                    held.problem = str(error)
            return tuple(held.state for held in self._files.values())

    def read(self, channel: Channel) -> bytes | None:
        held = self._files[channel]
        if held.problem is not None:
            raise PolicyError(f"{_shown(held.url)} {held.problem}.")
        return held.data

    def write(self, channel: Channel, data: bytes, check: Callable[[bytes | None], None]) -> None:
        held = self._files[channel]
        for _ in range(_ATTEMPTS):
            self.look()
            there = self.read(channel)
            check(there)
            if there is not None and (held.etag is None or held.etag.startswith("W/")):
                raise PolicyError(
                    f"{_shown(held.url)} comes without a strong ETag, so it cannot be replaced without the risk of "
                    "undoing what somebody else puts. Remove it there first."
                )
            condition = {"If-None-Match": "*"} if there is None else {"If-Match": held.etag or ""}  # [J67]
            status = self._sent("PUT", held, condition, data)
            if status in (200, 201, 202, 204):
                return
            if status != 412:
                raise PolicyError(f"{_shown(held.url)} {_meaning(status, 'takes no file')}.")
        raise PolicyError(f"{_shown(held.url)} is being changed by others. Look what is there, and push again.")

    def withdraw(self, channel: Channel) -> bool:
        held = self._files[channel]
        status = self._sent("DELETE", held, {}, None)
        if status in (404, 410):
            return False
        if status not in (200, 202, 204):
            raise PolicyError(f"{_shown(held.url)} {_meaning(status, 'removes no file')}.")
        return True

    def close(self) -> None:
        """No connection outlives its request."""

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=self._tls,
            timeout=SILENCE,
            follow_redirects=False,
            headers={"Accept-Encoding": "identity"},
            # A proxy would read what shows who asks.
            trust_env=self._headers is None or self._url.scheme == "https",
        )

    def _sent(self, method: str, held: _Held, headers: dict[str, str], data: bytes | None) -> int:
        async def send() -> int:
            async with self._client() as client:
                shown = {**headers, **self._shown()}
                answer = await client.request(method, held.url, content=data, headers=shown)
                return answer.status_code

        try:
            return _run(_within_deadline(send()))
        except _BrokenError as error:
            raise PolicyError(f"{_shown(held.url)} {error}.") from None

    def _shown(self) -> Mapping[str, str]:
        """What shows who asks.

        Raises:
            _BrokenError: This process cannot identify itself now.
        """
        try:
            return self._headers() if self._headers else {}
        except ExequaturError as error:
            raise _BrokenError(f"cannot be asked: {error}") from None

    async def _fetch(self, held: _Held) -> None:
        """Bring one file up to date.

        Raises:
            _BrokenError: It could not be found out what is there.
        """
        for attempt in range(_ATTEMPTS):
            before = len(held.partial)
            try:
                await _within_deadline(self._fetch_once(held))
            except _BrokenError:
                # Taken up at once only if it got any further, so that a server that is away is not asked again.
                if attempt + 1 == _ATTEMPTS or len(held.partial) <= before:
                    raise
            else:
                return

    async def _fetch_once(self, held: _Held) -> None:
        headers = {}
        if held.partial and held.partial_etag:  # [J66]
            headers = {"Range": f"bytes={len(held.partial)}-", "If-Range": held.partial_etag}
        elif held.data is not None and held.etag:  # [J65]
            headers = {"If-None-Match": held.etag}
        url, shown = held.url, self._shown()
        async with self._client() as client:
            for _ in range(MAX_REDIRECTS + 1):
                known = shown if _origin(url) == _origin(held.url) else {}  # [J63]
                async with client.stream("GET", url, headers={**headers, **known}) as answer:
                    if not answer.has_redirect_location:
                        await _take(held, answer)
                        return
                    url = _redirected(url, answer)
        raise _BrokenError("redirects without end")  # [J63]


def _redirected(url: httpx.URL, answer: httpx.Response) -> httpx.URL:
    """Where a redirect leads.

    Raises:
        _BrokenError: J63.
    """
    # httpx has refused what is no URL. User and password belong to the host: another one does not inherit them.
    target = url.join(answer.headers["location"])
    if target.scheme != url.scheme or not target.host:  # [J63]
        raise _BrokenError(f"redirects from {url.scheme} to {target.scheme}, which is not followed")
    return target


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


async def _take(held: _Held, answer: httpx.Response) -> None:
    """Take what a server answers.

    Raises:
        _BrokenError: It says nothing about the file, or broke off.
    """
    status, etag = answer.status_code, answer.headers.get("etag")
    if status in (404, 410):  # [J64]
        held.data = held.etag = None
        _forget(held)
        return
    if status == 304 and held.data is not None and held.etag:
        return
    if status == 206 and _continues(held, answer, etag):
        received = held.partial
    elif status == 200:
        _forget(held)
        received = held.partial
        held.partial_etag = etag if etag and not etag.startswith("W/") else None
    else:
        _forget(held)
        raise _BrokenError(_meaning(status, "cannot be fetched"))  # [J64]
    if answer.headers.get("content-encoding", "identity").lower() != "identity":  # [J62]
        _forget(held)
        raise _BrokenError("is sent compressed, which was not asked for")
    async for part in answer.aiter_raw():
        received += part
        if len(received) > MAX_FILE_BYTES:  # [J62]
            _forget(held)
            raise _BrokenError(f"is larger than {MAX_FILE_BYTES >> 20} MiB, which no bundle file is")
    held.data = bytes(received)
    _forget(held)
    try:
        BundleFile.read(held.data, "")
        held.etag = etag
    except PolicyError:  # [J65]
        held.etag = None


def _continues(held: _Held, answer: httpx.Response, etag: str | None) -> bool:
    """Whether a partial answer goes on where the transfer broke."""
    begins = answer.headers.get("content-range", "").startswith(f"bytes {len(held.partial)}-")
    return bool(held.partial) and begins and etag in (None, held.partial_etag)


def _forget(held: _Held) -> None:
    held.partial, held.partial_etag = bytearray(), None


async def _within_deadline(request: Coroutine[Any, Any, T]) -> T:
    """Await a request.

    Raises:
        _BrokenError: It failed or lasted too long.
    """
    try:
        async with asyncio.timeout(DEADLINE):  # [J61]
            return await request
    except TimeoutError:
        raise _BrokenError(f"does not answer within {DEADLINE:.0f} seconds") from None
    except httpx.TimeoutException:
        raise _BrokenError(f"is silent for {SILENCE:.0f} seconds") from None
    except (httpx.InvalidURL, httpx.HTTPError, OSError, ValueError, ImportError) as error:
        # The last two of a name that cannot be looked up, or of a proxy that this installation does not know.
        raise _BrokenError(f"cannot be reached ({_reason(error)})") from None


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run to its end what is asynchronous, also when this thread already runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as elsewhere:
        return elsewhere.submit(asyncio.run, work).result()


def _meaning(status: int, otherwise: str) -> str:
    match status:
        case 401 | 403:
            return f"answers {status}: it needs a user and password in its URL, or other ones"
        case 404 | 410:
            return f"answers {status}: there is no such file or folder"
        case 405 | 501:
            return f"answers {status}: its server {otherwise}"
        case 304 | 206:
            return f"answers {status}, which was not asked for"
    return f"answers {status}"


def _reason(error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__


def _beside(url: httpx.URL, channel: Channel) -> httpx.URL:
    path = PurePosixPath(url.path)
    return url.copy_with(path=str(path.with_name(beside(path.name, channel))))


def _shown(url: httpx.URL) -> str:
    """A URL for a person to read: without user, password and query, which may be a secret."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))
