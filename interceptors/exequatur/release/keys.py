"""Policy keys: making a pair, signing with the private part, and the file of those that are trusted."""

from __future__ import annotations

import stat
import time
from pathlib import Path

from exequatur.errors import ConfigurationError
from exequatur.files import PUBLIC, write_whole
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Release
from exequatur.statements.trust import Anchor, TrustStore

KEY_NAME = "policy-key.pem"
KEYS_NAME = "policy-keys.jwks"
DEFAULT_ISSUER = "policy"
_MAX_BYTES = 1024 * 1024
"""Some thousand keys."""
_BACKDATED = 3600
"""Seconds. The clock of who signs first may be behind the clock of who made the key."""


def make_key(folder: Path, keys: Path, issuer: str) -> SigningKey:
    """Make a policy key, and add its public part to a file of trusted keys.

    Args:
        folder: Where the private key goes, readable by its owner only; made when it is missing.
        keys: The JWK set; made when it is missing, and only ever added to.
        issuer: Who signs with the key; releases name it.

    Raises:
        ConfigurationError: There is a key already, or a file cannot be used.
    """
    path = folder / KEY_NAME
    if path.exists() or path.is_symlink():
        raise ConfigurationError(f"{path}: there is a key already; name another folder")
    try:
        trust = TrustStore.from_jwks(_read(keys), str(keys)) if keys.exists() else TrustStore()
        key = SigningKey.generate()
        since = float(int(time.time()) - _BACKDATED)
        trust.add(Anchor(kid=key.kid, x=key.x, typ=(Release.typ,), iss=issuer, nbf=since))
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, key.to_pem())
        write_whole(keys, trust.to_jwks(), PUBLIC)
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename or folder}: {error.strerror}; name a folder that this user can write"
        ) from None
    except ValueError:
        raise ConfigurationError("The issuer must be 1 to 1000 characters long") from None
    return key


def read_signing_key(path: Path) -> SigningKey:
    """Read a policy key's private part.

    Raises:
        ConfigurationError: It cannot be read, is no Ed25519 key, or others can read it.
    """
    try:
        data = _read(path)
        if b"PRIVATE KEY" not in data:
            raise ConfigurationError(f"{path} is no private key; name the file {KEY_NAME} of a policy key")
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise ConfigurationError(
                f"{path} is open to others (mode {mode:o}); who reads it can release policies. Run: chmod go-rwx {path}"
            )
        return SigningKey.from_pem(data)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; name the file {KEY_NAME} of a policy key") from None
    except ValueError as error:
        raise ConfigurationError(f"{path} is {error}; make one with `exequatur policy keygen`") from None


def read_policy_keys(path: Path) -> TrustStore:
    """Read the keys that may release policies.

    Args:
        path: A JWK set; keys of other roles in it do not count.

    Raises:
        ConfigurationError: It cannot be read, or holds no policy key.
    """
    try:
        data = _read(path)
        if b"PRIVATE KEY" in data:
            raise ConfigurationError(
                f"{path} is the secret key, which only signs; name {KEYS_NAME}, the file of those that are trusted"
            )
        trust = TrustStore.from_jwks(data, str(path))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; name the JWK set of the policy keys") from None
    if not any(Release.typ in anchor.typ for anchor in trust):
        raise ConfigurationError(f"{path} holds no policy key; make one with `exequatur policy keygen`")
    return trust


def _read(path: Path) -> bytes:
    if not path.is_file():
        # A pipe would block the reader for ever.
        path.stat()
        raise ConfigurationError(f"{path} is not a regular file")
    with path.open("rb") as stream:
        data = stream.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ConfigurationError(f"{path}: larger than {_MAX_BYTES >> 20} MiB, which no file of keys is")
    return data
