"""Who has a session: opened by the link that was printed at the start, or by a login. Sessions live in memory only.

Rules, numbered as the code marks them:

S1  The start token is 256 random bits, is compared in constant time, opens one session, and ends after
    :data:`START_WITHIN`. It is used by the first browser that comes back with the cookie that it got for it, and
    forgotten that moment. A program that only looks at the link, as mail and chat do, does not use it up.
S2  A session is found by a cookie of 256 random bits, of which only the digest is kept here.
S3  A session ends :data:`IDLE` after it was last used, and :data:`LONGEST` after it was opened. Ended is forgotten.
S4  There are at most :data:`MOST` sessions; the one that was quiet the longest makes room.
S5  Each session has a CSRF token of its own, which is not the cookie and tells nothing of it.
S6  The cookie is not for scripts (HttpOnly), not sent from other sites (SameSite=Strict), for this host and path only,
    and under TLS only over TLS (``__Host-``, RFC 6265bis).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from starlette.responses import Response

from exequatur.console.cookies import cookie_name
from exequatur.console.viewer import Viewer
from exequatur.identity.principal import Principal

START_WITHIN = 3600.0
"""Seconds for which the link that is printed at the start opens a session."""
IDLE = 2 * 3600.0
"""Seconds after which a session that nobody used ends."""
LONGEST = 12 * 3600.0
"""Seconds after which a session ends in any case."""
MOST = 1000
_WAITING = 16
"""Browsers that got a cookie for the start token and did not come back yet."""


@dataclass
class _Start:
    token: str
    """Its digest."""
    principal: Principal
    ends: float
    waiting: deque[str] = field(default_factory=lambda: deque(maxlen=_WAITING))
    """Digests of cookies."""


@dataclass
class _Session:
    viewer: Viewer
    ends: float
    used: float


class Sessions:
    """The sessions of one console.

    Args:
        port: That browsers reach it by (:meth:`reached_by`).
        secure: Whether browsers reach it over TLS.
        clock: Seconds since 1970; a machine that slept has its sessions ended, too.
    """

    def __init__(self, port: int, *, secure: bool = False, clock: Callable[[], float] = time.time) -> None:
        self._secure = secure
        self.reached_by(port)
        self._clock = clock
        self._lock = threading.Lock()
        self._held: OrderedDict[str, _Session] = OrderedDict()
        """By the digest of the cookie; the quietest first."""
        self._start: _Start | None = None

    def __len__(self) -> int:
        return len(self._held)

    def reached_by(self, port: int) -> None:
        """Take another port, where it was not known before."""
        self.cookie = cookie_name("console", port, secure=self._secure)  # [S6]

    def offer(self, principal: Principal) -> str:
        """A token that opens one session for a principal; the one before it opens none any more."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._start = _Start(_digest(token), principal, self._clock() + START_WITHIN)
        return token

    def begin(self, token: str) -> str | None:
        """A cookie that opens a session by the start token, if it is the first to come back.

        Returns:
            The cookie's value; ``None`` if the token opens none.
        """
        value = secrets.token_urlsafe(32)
        with self._lock:
            start = self._start
            if start is None or self._clock() >= start.ends:  # [S1]
                return None
            if not hmac.compare_digest(_digest(token), start.token):  # [S1]
                return None
            start.waiting.append(_digest(value))
        return value

    def open(self, principal: Principal) -> str:
        """Open a session for somebody who has logged in; gives the cookie's value."""
        value = secrets.token_urlsafe(32)
        with self._lock:
            self._open(_digest(value), principal, "login")
        return value

    def _open(self, name: str, principal: Principal, kind: Literal["local", "login"]) -> None:
        now = self._clock()
        self._held[name] = _Session(Viewer(principal, kind, secrets.token_urlsafe(32)), now + LONGEST, now)  # [S5]
        while len(self._held) > MOST:  # [S4]
            self._held.popitem(last=False)

    def find(self, value: str) -> Viewer | None:
        """Whose session a cookie is of."""
        name = _digest(value)  # S2
        with self._lock:
            start = self._start
            if start is not None and name in start.waiting and self._clock() < start.ends:  # [S1]
                self._start = None  # [S1]
                self._open(name, start.principal, "local")
            found = self._held.get(name)
            if found is None:
                return None
            now = self._clock()
            if now >= found.ends or now - found.used >= IDLE:  # [S3]
                del self._held[name]
                return None
            found.used = now
            self._held.move_to_end(name)
            return found.viewer

    def alive(self, value: str) -> bool:
        """Whether a cookie's session goes on; looking at it does not count as using it (S3)."""
        with self._lock:
            found = self._held.get(_digest(value))
            now = self._clock()
            return found is not None and now < found.ends and now - found.used < IDLE

    def close(self, value: str) -> None:
        """End a session."""
        with self._lock:
            self._held.pop(_digest(value), None)

    def give(self, response: Response, value: str) -> None:
        """Set the cookie."""
        response.set_cookie(  # [S6]
            self.cookie, value, path="/", httponly=True, samesite="strict", secure=self._secure, max_age=int(LONGEST)
        )

    def take(self, response: Response) -> None:
        """Have the browser forget the cookie."""
        response.delete_cookie(self.cookie, path="/", httponly=True, samesite="strict", secure=self._secure)


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
