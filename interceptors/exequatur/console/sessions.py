"""Who has a session: opened by the link that was printed at the start, or by a login. Sessions live in memory only.

Rules, numbered as the code marks them:

S1  The start token is 256 random bits, is compared in constant time, opens one session, and ends after
    :data:`START_WITHIN`. It is forgotten the moment it was used.
S2  A session is found by a cookie of 256 random bits, of which only the digest is kept here.
S3  A session ends :data:`IDLE` after it was last used, :data:`LONGEST` after it was opened, and when its person's
    credential does. Ended is forgotten.
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
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.responses import Response

from exequatur.console.viewer import Viewer
from exequatur.identity.principal import Principal

START_WITHIN = 3600.0
"""Seconds for which the link that is printed at the start opens a session."""
IDLE = 2 * 3600.0
"""Seconds after which a session that nobody used ends."""
LONGEST = 12 * 3600.0
"""Seconds after which a session ends in any case."""
MOST = 1000


@dataclass
class _Session:
    viewer: Viewer
    ends: float
    used: float


class Sessions:
    """The sessions of one console.

    Args:
        port: Of the console. Cookies are for all ports of a host, so its name tells two consoles apart.
        secure: Whether browsers reach it over TLS.
        clock: Seconds; never goes back.
    """

    def __init__(self, port: int, *, secure: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.cookie = "__Host-exequatur-console" if secure else f"exequatur-console-{port}"
        self._secure = secure
        self._clock = clock
        self._lock = threading.Lock()
        self._held: OrderedDict[str, _Session] = OrderedDict()
        """By the digest of the cookie; the quietest first."""
        self._start: tuple[str, Principal, float] | None = None

    def __len__(self) -> int:
        return len(self._held)

    def offer(self, principal: Principal) -> str:
        """A token that opens one session for a principal; the one before it opens none any more."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._start = (_digest(token), principal, self._clock() + START_WITHIN)
        return token

    def begin(self, token: str) -> str | None:
        """Open a session by the start token.

        Returns:
            The cookie's value; ``None`` if the token opens none.
        """
        with self._lock:
            start = self._start
            if start is None or self._clock() >= start[2]:  # [S1]
                return None
            if not hmac.compare_digest(_digest(token), start[0]):  # [S1]
                return None
            self._start = None  # [S1]
        return self.open(start[1], "local")

    def open(self, principal: Principal, kind: str, lasts: float = LONGEST) -> str:
        """Open a session for somebody who is known.

        Args:
            principal: Who it is.
            kind: ``local`` or ``login``.
            lasts: Seconds after which the person's credential ends.

        Returns:
            The cookie's value.
        """
        value, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(32)  # [S5]
        viewer = Viewer(principal, "local" if kind == "local" else "login", csrf)
        now = self._clock()
        with self._lock:
            self._held[_digest(value)] = _Session(viewer, now + min(lasts, LONGEST), now)
            while len(self._held) > MOST:  # [S4]
                self._held.popitem(last=False)
        return value

    def find(self, value: str) -> Viewer | None:
        """Whose session a cookie is of."""
        name = _digest(value)  # S2
        with self._lock:
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
