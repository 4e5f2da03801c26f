"""The state folder of an embedded authority: its keys, its trust anchors, revocations and evidence.

Whoever can read this folder *is* the authority. So it and its key files are for their owner only, and a key file that
others can read is refused instead of used.

==================  =============================================================
``issuer``          the authority's name, made once; it begins with ``dev:``
``keys/*.pem``      one key each for grants, credentials, permits, approvals and the revocation feed (PKCS #8)
``trust.jwks``      the public keys that verify what they sign; only ever added to
``revocations``     what was revoked, one JSON line each
``journal/``        evidence, one SQLite file for each process
==================  =============================================================
"""

from __future__ import annotations

import secrets
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from exequatur.errors import ConfigurationError
from exequatur.files import locked, write_whole
from exequatur.statements.keys import Signer, SigningKey
from exequatur.statements.models import Approval, Grant, Permit, RevocationHead, WorkloadCredential
from exequatur.statements.trust import Anchor, TrustStore

KeyRole = Literal["grant", "credential", "permit", "approval", "revocation"]
KEYS: Mapping[KeyRole, str] = {
    "grant": Grant.typ,
    "credential": WorkloadCredential.typ,
    "permit": Permit.typ,
    "approval": Approval.typ,
    "revocation": RevocationHead.typ,
}


@dataclass(frozen=True)
class State:
    """What a state folder holds."""

    path: Path
    issuer: str
    keys: Mapping[KeyRole, SigningKey]
    trust: TrustStore

    def signer(self, role: KeyRole) -> Signer:
        """The key that signs in a role now."""
        return self.keys[role]

    @property
    def journal(self) -> Path:
        return self.path / "journal"

    @property
    def revocations(self) -> Path:
        return self.path / "revocations"


def open_state(path: Path) -> State:
    """Open a state folder, and make what is missing in it.

    Raises:
        ConfigurationError: The folder or a file in it cannot be used; the message names it and the next step.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _owner_only(path)
        with locked(path):
            issuer = _made_once(path / "issuer", f"dev:{secrets.token_hex(8)}".encode).decode().strip()
            folder = path / "keys"
            folder.mkdir(mode=0o700, exist_ok=True)
            _owner_only(folder)
            keys: Mapping[KeyRole, SigningKey] = {role: _key(folder / f"{role}.pem") for role in KEYS}
            trust = _anchors(path / "trust.jwks", issuer, keys)
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigurationError(f"The state folder {path} cannot be used: {err}. Name another with state_dir") from err
    return State(path, issuer, keys, trust)


def _owner_only(path: Path) -> None:
    mode = path.stat().st_mode
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigurationError(
            f"{path} is open to others (mode {stat.S_IMODE(mode):o}); whoever reads it can issue grants. "
            f"Run: chmod go-rwx {path}"
        )


def _made_once(path: Path, make: Callable[[], bytes]) -> bytes:
    """The file's content; made, complete or not at all, when there is none."""
    if not path.exists():
        write_whole(path, make())
    _owner_only(path)
    return path.read_bytes()


def _key(path: Path) -> SigningKey:
    pem = _made_once(path, lambda: SigningKey.generate().to_pem())
    try:
        return SigningKey.from_pem(pem)
    except ValueError as err:
        raise ConfigurationError(
            f"{path} is {err}; put the right file back, or move it away to have a new key made"
        ) from err


def _anchors(path: Path, issuer: str, keys: Mapping[KeyRole, SigningKey]) -> TrustStore:
    """The trust anchors; a key that is new is added, and nothing is ever taken out."""
    trust = TrustStore.from_jwks(path.read_bytes(), str(path)) if path.exists() else TrustStore()
    if path.exists():
        _owner_only(path)
    known = {anchor.kid for anchor in trust}
    missing = [role for role, key in keys.items() if key.kid not in known]
    for role in missing:
        key = keys[role]
        # Backdated, because a credential is backdated too.
        trust.add(Anchor(kid=key.kid, x=key.x, typ=(KEYS[role],), iss=issuer, nbf=float(int(time.time()) - 3600)))
    if missing:
        write_whole(path, trust.to_jwks())
    return trust
