"""The keys of an authority: which there are in each role, and which of them signs now.

``keys/ring.json`` describes them. A role that it does not mention has one key, in the file named after the role; so a
folder without a ring needs none. A key is *waiting* until it is told when to sign, signs from then on until another
takes its place, and is *retired* when it is not to sign any more. Its public part is published as a trust anchor from
the day that it is made, so that everybody knows it before it signs. Rules, numbered as the code marks them (T1 to T10
are those of :mod:`exequatur.statements.trust`, :mod:`exequatur.statements.anchors` and
:mod:`exequatur.authority.keysource`):

T11  A ring is read as a whole or not at all. No key stands in it twice, nor in two roles, and each under its own name.
T12  A key signs from its time on, until it is retired; of several, the one whose time came last.
T13  A key signs only while its anchor is published and not retired: nobody would believe it.
T14  A running process takes over a changed ring that it can read and use, and otherwise keeps the one that it has.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exequatur.authority.keysource import MAX_BYTES, check_source, load, read_private
from exequatur.errors import ConfigurationError, SigningError
from exequatur.statements.encoding import strict_json
from exequatur.statements.keys import Signer, thumbprint
from exequatur.statements.models import Approval, Digest, Grant, Name, Permit, RevocationHead, Time, WorkloadCredential
from exequatur.statements.trust import TrustStore

logger = logging.getLogger("exequatur")

KeyRole = Literal["grant", "credential", "permit", "approval", "revocation"]
KEYS: Mapping[KeyRole, str] = {
    "grant": Grant.typ,
    "credential": WorkloadCredential.typ,
    "permit": Permit.typ,
    "approval": Approval.typ,
    "revocation": RevocationHead.typ,
}
RING = "ring.json"
MAX_KEYS = 120
"""Of a ring: a new key for each role every month for two years."""


class RingKey(BaseModel):
    """One key."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    role: KeyRole
    kid: Digest
    x: Digest
    """The public key."""
    source: Annotated[str, Field(max_length=500)]
    """As :mod:`exequatur.authority.keysource` has it."""
    passphrase: Annotated[str, Field(max_length=4000)] | None = None
    """Where the passphrase is: ``env:NAME`` or ``file:PATH``."""
    argument: Name | None = None
    """What a signer's function is given."""
    made: Time
    signs_from: Time | None = None
    """``None`` for a key that waits."""
    retired: Time | None = None
    """When its anchor ends. It does not sign any more even before."""
    revoked: bool = False


class Ring(BaseModel):
    """All keys that are described, oldest first."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1] = 1
    keys: Annotated[tuple[RingKey, ...], Field(max_length=MAX_KEYS)] = ()

    def of(self, role: KeyRole) -> tuple[RingKey, ...]:
        return tuple(key for key in self.keys if key.role == role)

    def without(self, kid: str) -> Ring:
        return Ring(keys=tuple(key for key in self.keys if key.kid != kid))

    def signing(self, role: KeyRole, now: float) -> RingKey | None:
        """The key that signs in a role, as far as the ring says.

        Args:
            role: The role.
            now: Seconds since 1970.
        """
        return next(iter(_in_turn(self.of(role), now)), None)


def read_ring(folder: Path) -> Ring | None:
    """Read the ring of a folder of keys; ``None`` where there is none.

    Raises:
        ConfigurationError: T8, T11.
    """
    path = folder / RING
    if not path.exists() and not path.is_symlink():
        return None
    data = read_private(path)
    try:
        strict_json(data)
        ring = Ring.model_validate_json(data)
    except ValidationError as err:
        field = ".".join(map(str, err.errors(include_input=False)[0]["loc"]))[:200]
        raise ConfigurationError(f"{path}: a missing, unknown or ill-typed member: {field}; put it back") from err
    except ValueError as err:
        raise ConfigurationError(f"{path} is not the ring of keys: {err}; put it back") from err
    seen: set[str] = set()
    for key in ring.keys:
        try:
            check_source(key.source)
        except ConfigurationError as err:
            raise ConfigurationError(f"{path}: {err}") from err
        if key.kid in seen:  # [T11]
            raise ConfigurationError(f"{path}: key {key.kid} stands there twice; a key has one role. Put it back")
        if key.kid != thumbprint(key.x):  # [T11]
            raise ConfigurationError(f"{path}: {key.kid} is not the thumbprint of the key beside it; put it back")
        seen.add(key.kid)
    return ring


def write_ring(folder: Path, ring: Ring, write: Callable[[Path, bytes], None]) -> None:
    """Write the ring of a folder of keys.

    Raises:
        ConfigurationError: It has become too large.
        OSError: It cannot be written.
    """
    data = ring.model_dump_json(indent=2, exclude_none=True).encode() + b"\n"
    if len(data) > MAX_BYTES:
        raise full(folder)
    write(folder / RING, data)


def full(folder: Path) -> ConfigurationError:
    """What to do when no key fits into the ring any more."""
    return ConfigurationError(
        f"{folder / RING} is full; take retired keys out of it by hand. Their anchors stay in trust.jwks"
    )


class KeyRing:
    """The keys of a running process.

    Args:
        folder: The folder ``keys``.
        given: The keys of roles that the ring does not mention.
        trust: The anchors.
        clock: Gives the seconds since 1970.

    Raises:
        ConfigurationError: The ring cannot be read, or a key in it cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        given: Mapping[KeyRole, Signer],
        trust: TrustStore,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._given = given
        self._trust = trust
        self._clock = clock
        self._reading = threading.Lock()
        self._stamp = self._seen = self._look()
        self._held = self._load()
        self.problem: str | None = None
        """Why a changed ring was not taken over."""

    def signer(self, role: KeyRole) -> Signer:
        """The key that signs in a role now.

        Raises:
            SigningError: There is none.
        """
        for signer in self._turns(role):
            return signer
        raise SigningError(f"There is no key that may sign a {role}; run: exequatur keys rotate {role} --overlap 0s")

    def signer_among(self, role: KeyRole, kids: Container[str]) -> Signer | None:
        """The key that signs in a role for those who know only these keys; ``None`` where there is none."""
        return next((signer for signer in self._turns(role) if signer.kid in kids), None)

    def _turns(self, role: KeyRole) -> Iterable[Signer]:
        """The keys that may sign in a role, the one whose turn it is first."""
        now = self._clock()
        keys, signers = self._held
        turns = [signers[key.kid] for key in _in_turn(keys.get(role, ()), now)] if role in keys else [self._given[role]]
        return (signer for signer in turns if self._believed(signer.kid, now))  # T13

    def _believed(self, kid: str, now: float) -> bool:
        anchor = self._trust.get(kid)
        return anchor is not None and (anchor.exp is None or now <= anchor.exp)

    @property
    def changed(self) -> bool:
        """Whether the ring on disk is another than the one that was last looked at."""
        return self._look() != self._seen

    def refresh(self) -> None:
        """Take over a ring that has changed. Never raises: one that cannot be used is named in ``problem``."""
        with self._reading:
            stamp = self._seen = self._look()
            if stamp == self._stamp and self.problem is None:
                return
            try:
                self._held = self._load()
            except ConfigurationError as err:  # [T14]
                if str(err) != self.problem:
                    logger.error("The changed ring of keys was not taken over: %s", err)
                self.problem = str(err)
            else:
                self.problem, self._stamp = None, stamp
                logger.info("The ring of keys was read again")

    def _look(self) -> tuple[int, int, int] | None:
        try:
            status = (self._folder / RING).stat()
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_size, status.st_ino)

    def _load(self) -> tuple[dict[KeyRole, tuple[RingKey, ...]], dict[str, Signer]]:
        """The keys that may sign now or later, by role, and what signs with each.

        Raises:
            ConfigurationError: T8 to T11.
        """
        ring = read_ring(self._folder) or Ring()
        unmentioned = [role for role in KEYS if not ring.of(role) and role not in self._given]
        if unmentioned:
            raise ConfigurationError(
                f"{self._folder / RING} has lost the keys for {', '.join(unmentioned)}; put it back"
            )
        keys: dict[KeyRole, tuple[RingKey, ...]] = {}
        signers: dict[str, Signer] = {}
        for role in KEYS:
            if known := ring.of(role):
                keys[role] = tuple(key for key in known if key.retired is None and key.signs_from is not None)
                for key in keys[role]:
                    signers[key.kid] = load(
                        key.source,
                        self._folder,
                        kid=key.kid,
                        passphrase=key.passphrase,
                        argument=key.argument,
                    )
        return keys, signers


def _in_turn(keys: Iterable[RingKey], now: float) -> list[RingKey]:
    """T12: the keys that may sign, the one whose turn it is first."""
    begun = [key for key in keys if key.retired is None and key.signs_from is not None and key.signs_from <= now]
    return sorted(begun, key=lambda key: key.signs_from or 0.0)[::-1]
