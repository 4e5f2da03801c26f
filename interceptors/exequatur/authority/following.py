"""Follows the trust anchors of an authority service, and keeps them for a start while it is away.

Rules, numbered as the code marks them (T5 to T7 are those of :mod:`exequatur.statements.trust` and
:mod:`exequatur.statements.anchors`):

N6  What was learned once stays: a set that lacks, changes or revives an anchor is refused as a whole (T5), also after a
    restart, because what was learned is kept on disk. A file that is there and cannot be read is not taken for "nothing
    was learned yet".
N7  An answer that is no set of anchors changes nothing.
"""

from __future__ import annotations

import logging
import math
import stat
from pathlib import Path

from exequatur.authority.api import TRUST_PATH
from exequatur.authority.connection import MAX_ANSWER, Connection, UnreachableError
from exequatur.errors import ConfigurationError
from exequatur.files import locked, write_whole
from exequatur.statements.anchors import Anchors
from exequatur.statements.trust import Anchor, TrustStore

logger = logging.getLogger("exequatur")

TRUST_NAME = "trust.jwks"
_JWKS = ("application/jwk-set+json", "application/json")


class FollowedAnchors(Anchors):
    """The trust anchors of an authority service.

    Args:
        connection: To the service.
        folder: Where they are kept.
        every: Seconds between two looks when nobody asks for a key.

    Raises:
        ConfigurationError: N6, the file that keeps them cannot be used.
    """

    def __init__(self, connection: Connection, folder: Path, *, every: float) -> None:
        self._connection = connection
        self._file = folder / TRUST_NAME
        self._kept: list[Anchor] = []
        super().__init__(read_anchors(self._file), self._fetch, every=every, source=connection.url(TRUST_PATH))
        self._begun = -math.inf  # nobody has looked yet

    def refresh_if_due(self) -> None:
        super().refresh_if_due()
        known = list(self.trust)
        if known and known != self._kept:
            self._keep()
            self._kept = list(self.trust)

    def _fetch(self) -> bytes:
        """Read the published anchors.

        Raises:
            UnreachableError: N7.
        """
        answer = self._connection.ask_now("GET", TRUST_PATH)
        if answer.status != 200 or answer.type not in _JWKS:  # [N7]
            raise UnreachableError(f"{self._connection.url(TRUST_PATH)} answers {answer.status} and no trust anchors")
        return answer.body

    def _keep(self) -> None:
        """Put on disk what is known, with what another process of this folder has learned meanwhile."""
        try:
            with locked(self._file.parent):
                for anchor in read_anchors(self._file):
                    known = self.trust.get(anchor.kid)
                    if known is None or known.identity != anchor.identity or ends_before(anchor, known):
                        self.trust.add(anchor)
                write_whole(self._file, self.trust.to_jwks())  # [N6]
        except (OSError, ConfigurationError) as err:
            logger.error("The trust anchors are known but not kept for a restart: %s", err)


def open_folder(path: Path) -> Path:
    """Open the state folder of a process whose authority is elsewhere; it is made when it is missing.

    Raises:
        ConfigurationError: It cannot be used, is open to others, or holds keys.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(path.stat().st_mode)
        keys = (path / "keys").exists()
    except OSError as err:
        raise ConfigurationError(
            f"The state folder {path} cannot be used: {err.strerror or err}. Name another with state_dir"
        ) from None
    if mode & 0o077:
        raise ConfigurationError(
            f"{path} is open to others (mode {mode:o}); whoever writes there says whom this process believes. "
            f"Run: chmod go-rwx {path}"
        )
    if keys:
        raise ConfigurationError(
            f"{path} holds the keys of an authority, and this process has one elsewhere; give it a folder of its own "
            "with state_dir"
        )
    return path


def ends_before(one: Anchor, other: Anchor) -> bool:
    """Whether an anchor is retired earlier than the same one elsewhere."""
    return one.exp is not None and (other.exp is None or one.exp < other.exp)


def read_anchors(path: Path) -> TrustStore:
    """The anchors that were kept; none if there is no file.

    Raises:
        ConfigurationError: N6.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_ANSWER + 1)
    except FileNotFoundError:
        return TrustStore()
    except OSError as err:
        raise ConfigurationError(f"{path} cannot be read: {err.strerror}; check its owner and mode") from None
    if len(data) > MAX_ANSWER:
        raise ConfigurationError(f"{path} is larger than {MAX_ANSWER >> 20} MiB; put the right file back")
    return TrustStore.from_jwks(data, str(path))  # [N6]
