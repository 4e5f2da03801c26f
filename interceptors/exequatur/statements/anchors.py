"""Keeps the trust anchors of a running process up to date with where they are published.

:class:`Anchors` says what was asked and when to look; whoever made it says how to read. Reading happens only in
:meth:`Anchors.refresh_if_due`, which a thread of the plugin calls every second. Rules, numbered as the code marks them:

T6  A key that is not known is worth one look at the published anchors. An activity or operation that stands on it is
    neither refused nor run before that look has succeeded: where they cannot be read, it is not known whether the key
    is good.
T7  Looks are at least a second apart, whoever asks: keys that somebody made up cause no flood.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from exequatur.errors import ExequaturError
from exequatur.statements.trust import TrustStore

logger = logging.getLogger("exequatur")

BETWEEN = 1.0
"""Seconds between two looks at least."""
_ASKED = 1024
"""Unknown keys that are remembered. What comes beyond that while a look is due has to come again."""
_FORGET = 60.0
"""Seconds after which an unknown key is worth another look."""


class Anchors:
    """What a process knows of an authority's keys, and whether it may know more soon.

    Args:
        trust: What learns.
        read: Reads the published JWK set, or gives ``None`` where that has not changed. It may take its time, and raise
            ExequaturError or OSError.
        every: Seconds between two looks when nobody asks.
        source: Where they are published, for messages.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        trust: TrustStore,
        read: Callable[[], bytes | None],
        *,
        every: float,
        source: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.trust = trust
        self._read = read
        self._every = every
        self._source = source
        self._clock = clock
        self._looking = threading.Lock()
        self._lock = threading.Lock()
        self._asked: dict[str, tuple[float, bool]] = {}
        """By key: when it was first asked for, and whether a look that began afterwards has succeeded."""
        self._begun = clock()
        self._learned = b""
        self.problem: str | None = None
        """Why the published anchors could not be read, last time it was tried; those known stay."""
        trust.on_unknown = self.asked

    def asked(self, kid: str) -> bool:
        """Note that a key was looked up and is not there. Returns at once, from any thread.

        Returns:
            Whether a look is still to come that may make it known.
        """
        now = self._clock()
        with self._lock:
            at, settled = self._asked.get(kid, (now, False))
            if settled and now - at > _FORGET:
                at, settled = now, False
            if kid not in self._asked and len(self._asked) >= _ASKED:
                self._asked = {each: known for each, known in self._asked.items() if not known[1]}
                if len(self._asked) >= _ASKED:
                    return True
            self._asked[kid] = (at, settled)
        return not settled

    @property
    def due(self) -> bool:
        """Whether it is time to read the published anchors: at an interval, or because a key was asked for."""
        with self._lock:
            wanted = any(not settled for _, settled in self._asked.values())
        return self._clock() - self._begun >= (BETWEEN if wanted else self._every)  # T7

    def refresh_if_due(self) -> None:
        """Read the published anchors if it is time. Never raises what reading them raises."""
        with self._looking:
            if self.due:
                self._look()

    def refresh(self) -> None:
        """Read the published anchors now: they are known to have changed. Never raises what reading them raises."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        now = self._begun = self._clock()
        try:
            jwks = self._read()
            if jwks is not None and jwks != self._learned:
                if self.trust.learn(jwks, self._source):
                    logger.info("New trust anchors were learned from %s", self._source)
                self._learned = jwks
        except (ExequaturError, OSError) as err:
            if str(err) != self.problem:
                logger.error("The trust anchors stay as they are: %s", err)
            self.problem = str(err)
            return
        self.problem = None
        with self._lock:
            # What was asked while this look went on may have been published after it.
            self._asked = {kid: (at, settled or at <= now) for kid, (at, settled) in self._asked.items()}  # T6
