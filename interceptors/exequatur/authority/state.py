"""The state folder of an authority: its keys, its trust anchors, revocations and evidence.

Whoever can read this folder *is* the authority. So it and its key files are for their owner only, and a key file that
others can read is refused instead of used.

==================  =============================================================
``issuer``          the authority's name, made once; it begins with ``dev:`` but for a service that knows its callers
``keys/ring.json``  which keys there are, if more than the next line's
``keys/*.pem``      one key each for grants, credentials, permits, approvals and the revocation feed (PKCS #8)
``trust.jwks``      the public keys that verify what they sign; only ever added to
``revocations``     what was revoked, one JSON line each
``journal/``        evidence, one SQLite file for each process
==================  =============================================================
"""

from __future__ import annotations

import asyncio
import secrets
import stat
import time
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from exequatur.authority.keyring import KEYS, KeyRing, KeyRole, Ring, read_ring
from exequatur.authority.keysource import load
from exequatur.errors import ConfigurationError, SigningError
from exequatur.failures import AuthorizationUnavailable
from exequatur.files import locked, write_whole
from exequatur.statements.anchors import BETWEEN, Anchors
from exequatur.statements.jws import Token, sign
from exequatur.statements.keys import Signer, SigningKey
from exequatur.statements.models import Statement
from exequatur.statements.trust import Anchor, TrustStore

S = TypeVar("S", bound=Statement)

TRUST = "trust.jwks"
BACKDATED = 3600.0
"""Seconds that an anchor begins before its key was made, because a credential is backdated too."""
_MAX_TRUST_BYTES = 1024 * 1024
"""Some thousand anchors."""
_SIGNED_WITHIN = 10.0
"""Seconds that a key which is elsewhere has to sign."""


@dataclass(frozen=True)
class State:
    """What a state folder holds."""

    path: Path
    issuer: str
    ring: KeyRing
    trust: TrustStore
    anchors: Anchors
    """Learns keys that other processes put into the folder, and their ring."""

    def signer(self, role: KeyRole) -> Signer:
        """The key that signs in a role now.

        Raises:
            SigningError: There is none.
        """
        self._look_again()
        return self.ring.signer(role)

    def signer_among(self, role: KeyRole, kids: Container[str]) -> Signer | None:
        """The key that signs for those who know only these keys; ``None`` where there is none."""
        self._look_again()
        return self.ring.signer_among(role, kids)

    async def sign(self, role: KeyRole, claims: S, among: Container[str] | None = None) -> Token[S]:
        """Sign with the key of a role, without blocking the event loop where that key is elsewhere.

        Args:
            role: Whose key.
            claims: What is signed.
            among: The keys that whoever verifies it knows; ``None`` where that is each.

        Raises:
            AuthorizationUnavailable: No key can sign now.
            ValueError: It cannot be signed as it is.
        """
        try:
            signer = self.signer(role) if among is None else self.signer_among(role, among)
            if signer is None:
                raise SigningError(f"No key for {role} that is asked for may sign any more")
            if isinstance(signer, SigningKey):
                return sign(claims, signer)
            return await asyncio.wait_for(asyncio.to_thread(sign, claims, signer), _SIGNED_WITHIN)
        except SigningError as err:
            raise AuthorizationUnavailable(f"It could not be signed: {err}") from err
        except TimeoutError as err:
            raise AuthorizationUnavailable(f"It could not be signed within {_SIGNED_WITHIN:.0f} s") from err

    @property
    def problem(self) -> str | None:
        """Why this process does not know what is in the folder now."""
        return self.ring.problem or self.anchors.problem

    @property
    def journal(self) -> Path:
        return self.path / "journal"

    @property
    def revocations(self) -> Path:
        return self.path / "revocations"

    def _look_again(self) -> None:
        """Sign by the ring that is on disk: with no key that `exequatur keys` has said signs no more."""
        if self.ring.changed:
            self.anchors.refresh()


def open_state(path: Path) -> State:
    """Open a state folder, and make what is missing in it.

    Raises:
        ConfigurationError: The folder or a file in it cannot be used; the message names it and the next step.
    """
    try:
        folder = make_folder(path)
        with locked(path):
            issuer = read_issuer(path)
            ring = read_ring(folder) or Ring()
            keys = {role: own_key(folder, role) for role in KEYS if not ring.of(role)}
            now = time.time()
            trust = publish(
                path,
                [anchor_of(role, key.kid, key.x, issuer, now) for role, key in keys.items()]
                + [anchor_of(key.role, key.kid, key.x, issuer, key.made, key.retired) for key in ring.keys],
            )
            held = KeyRing(folder, keys, trust)
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigurationError(f"The state folder {path} cannot be used: {err}. Name another with state_dir") from err
    published = _Published(path / TRUST, held)
    return State(path, issuer, held, trust, Anchors(trust, published.read, every=BETWEEN, source=str(path / TRUST)))


def make_folder(path: Path) -> Path:
    """Make a state folder, if it is missing, and give its folder of keys.

    Raises:
        ConfigurationError: It is open to others.
        OSError: It cannot be made.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    _owner_only(path)
    folder = path / "keys"
    folder.mkdir(mode=0o700, exist_ok=True)
    _owner_only(folder)
    return folder


def name_service(path: Path) -> None:
    """Give a new state folder the name of a service, which does not run in the processes that it vouches for.

    A folder that has a name keeps it.

    Raises:
        ConfigurationError: The folder cannot be used.
    """
    try:
        make_folder(path)
        with locked(path):
            read_issuer(path, "authority")
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigurationError(f"The state folder {path} cannot be used: {err}. Name another with state") from err


def read_issuer(path: Path, kind: str = "dev") -> str:
    """The authority's name; made when there is none, and begins with what kind of authority it is."""
    file = path / "issuer"
    if not file.exists():
        write_whole(file, f"{kind}:{secrets.token_hex(8)}".encode())
    _owner_only(file)
    return file.read_bytes().decode().strip()


def read_anchors(path: Path) -> TrustStore:
    """The anchors of a state folder; none where it has none yet.

    Raises:
        ConfigurationError: They cannot be read as anchors.
        OSError: They cannot be read.
    """
    data = _anchors_in(path / TRUST)
    return TrustStore() if data is None else TrustStore.from_jwks(data, str(path / TRUST))


def own_key(folder: Path, role: KeyRole) -> Signer:
    """The key of a role that the ring does not mention; made when there is none.

    Raises:
        ConfigurationError: T8, or it cannot be used.
        OSError: It cannot be made.
    """
    path = folder / f"{role}.pem"
    if not path.exists() and not path.is_symlink():
        write_whole(path, SigningKey.generate().to_pem())
    return load(f"file:{path.name}", folder, kid=None)


def anchor_of(role: KeyRole, kid: str, x: str, issuer: str, made: float, retired: float | None = None) -> Anchor:
    """What says that a key may sign in a role.

    Args:
        role: The role.
        kid: The key.
        x: Its public part.
        issuer: The authority's name.
        made: When the key was made, in seconds since 1970.
        retired: When it ends; ``None`` while it may sign.
    """
    return Anchor(kid=kid, x=x, typ=(KEYS[role],), iss=issuer, nbf=float(int(made)) - BACKDATED, exp=retired)


def publish(path: Path, anchors: Iterable[Anchor]) -> TrustStore:
    """Add anchors to the folder's, and retire those that are. Nothing is ever taken out.

    Args:
        path: The state folder, which the caller has locked.
        anchors: What is to be there. One that is there begins when it began.

    Raises:
        ConfigurationError: The file cannot be read, or an anchor is there for another role or issuer.
        OSError: It cannot be written.
    """
    file, trust, changed = path / TRUST, read_anchors(path), False
    for anchor in anchors:
        known = trust.get(anchor.kid)
        if known is None:
            trust.add(anchor)
            changed = True
        elif (known.typ, known.iss) != (anchor.typ, anchor.iss):
            raise ConfigurationError(
                f"{file}: key {anchor.kid} may sign {known.typ[0]} for {known.iss}, and nothing else; "
                f"put the files {path / 'issuer'} and {path / 'keys'} back as they were"
            )
        elif anchor.exp is not None and known.exp is None:
            trust.add(known.model_copy(update={"exp": anchor.exp}))
            changed = True
    if changed:
        write_whole(file, trust.to_jwks())
    return trust


class _Published:
    """Reads what is published in a state folder, and has the ring read that may rest on it."""

    def __init__(self, file: Path, ring: KeyRing) -> None:
        self._file = file
        self._ring = ring

    def read(self) -> bytes | None:
        """The anchors.

        Raises:
            ConfigurationError: They are gone, open to others, or too large.
            OSError: They cannot be read.
        """
        self._ring.refresh()
        data = _anchors_in(self._file)
        if data is None:
            raise ConfigurationError(f"{self._file} has gone; put it back")
        return data


def _anchors_in(file: Path) -> bytes | None:
    if not file.exists():
        return None
    _owner_only(file)
    with file.open("rb") as stream:
        data = stream.read(_MAX_TRUST_BYTES + 1)
    if len(data) > _MAX_TRUST_BYTES:
        raise ConfigurationError(f"{file}: larger than {_MAX_TRUST_BYTES >> 20} MiB, which no file of keys is")
    return data


def _owner_only(path: Path) -> None:
    mode = path.stat().st_mode
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigurationError(
            f"{path} is open to others (mode {stat.S_IMODE(mode):o}); whoever reads it can issue grants. "
            f"Run: chmod go-rwx {path}"
        )
