"""Manifest keys: making a pair, and the file of those that are trusted.

The file is a JWK set (RFC 7517, section 5) like that of trust anchors, but for what signs DSSE envelopes instead of
tokens; so it is a file of its own, and a key that signs tokens never counts as one that signs manifests.
"""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from exequatur.errors import ConfigurationError
from exequatur.files import PUBLIC, write_whole
from exequatur.statements.encoding import strict_json
from exequatur.statements.keys import SigningKey, thumbprint
from exequatur.statements.trust import Anchor

KEY_NAME = "manifest-key.pem"
KEYS_NAME = "manifest-keys.jwks"
TYP = "exequatur-manifest+dsse"
"""What such a key may sign."""
_MAX_BYTES = 1024 * 1024
_BACKDATED = 3600
"""Seconds. The clock of who signs first may be behind the clock of who made the key."""


@dataclass(frozen=True)
class ManifestKeys:
    """The keys that may sign manifests, by id."""

    anchors: Mapping[str, Anchor]

    def find(self, kid: str, now: float) -> Anchor | None:
        """The key of an id, if it may sign at this time. A retired key vouches for nothing that runs now.

        Args:
            kid: As the envelope names it.
            now: Seconds since 1970.
        """
        anchor = self.anchors.get(kid)
        if anchor is None or now < anchor.nbf or (anchor.exp is not None and now >= anchor.exp):
            return None
        return anchor


def read_manifest_keys(path: Path) -> ManifestKeys:
    """Read the keys that may sign manifests.

    Raises:
        ConfigurationError: The file cannot be read or is no such set.
    """
    data = read_small(path, _MAX_BYTES, "no file of keys")
    if b"PRIVATE KEY" in data:
        raise ConfigurationError(f"{path} is the secret key, which only signs; name {KEYS_NAME}, the file of trusted")
    try:
        document = strict_json(data)
        if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
            raise ValueError("it has no list of keys")
        anchors = [Anchor.model_validate_json(json.dumps(entry)) for entry in document["keys"]]
    except ValidationError as err:
        field = ".".join(map(str, err.errors(include_input=False)[0]["loc"]))
        raise ConfigurationError(f"{path}: a key has a missing, unknown or ill-typed member: {field}") from None
    except ValueError as err:
        raise ConfigurationError(f"{path} is not a JWK set: {err}") from None
    for anchor in anchors:
        if anchor.kid != thumbprint(anchor.x) or anchor.typ != (TYP,):
            raise ConfigurationError(
                f"{path}: key {anchor.kid} is no manifest key; its kid must be its thumbprint and its typ [{TYP!r}]. "
                "Make one with `exequatur integrity keygen`"
            )
    if not anchors or len({anchor.kid for anchor in anchors}) != len(anchors):
        raise ConfigurationError(f"{path} holds no manifest key, or one twice; run `exequatur integrity keygen`")
    return ManifestKeys({anchor.kid: anchor for anchor in anchors})


def make_manifest_key(folder: Path, keys: Path, issuer: str) -> SigningKey:
    """Make a manifest key, and add its public part to a file of trusted keys.

    Args:
        folder: Where the private key goes, readable by its owner only; made when it is missing.
        keys: The JWK set; made when it is missing, and only ever added to.
        issuer: Whose key it is.

    Raises:
        ConfigurationError: There is a key already, or a file cannot be used.
    """
    path = folder / KEY_NAME
    if path.exists() or path.is_symlink():
        raise ConfigurationError(f"{path}: there is a key already; name another folder")
    if not 0 < len(issuer) <= 1000:
        raise ConfigurationError("The issuer must be 1 to 1000 characters long")
    known = read_manifest_keys(keys).anchors if keys.exists() else {}
    key = SigningKey.generate()
    anchor = Anchor(kid=key.kid, x=key.x, typ=(TYP,), iss=issuer, nbf=float(int(time.time()) - _BACKDATED))
    listed = [each.model_dump(mode="json", exclude_none=True) for each in (*known.values(), anchor)]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, key.to_pem())
        write_whole(keys, json.dumps({"keys": listed}, indent=2).encode() + b"\n", PUBLIC)
    except OSError as err:
        raise ConfigurationError(
            f"{err.filename or folder}: {err.strerror}; name a folder that this user can write"
        ) from None
    return key


def read_manifest_key(path: Path) -> SigningKey:
    """Read the private part of a manifest key.

    Raises:
        ConfigurationError: It cannot be read, is no Ed25519 key, or others can read it.
    """
    data = read_small(path, _MAX_BYTES, "no private key")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigurationError(
            f"{path} is open to others (mode {mode:o}); who reads it can sign manifests. Run: chmod go-rwx {path}"
        )
    try:
        return SigningKey.from_pem(data)
    except ValueError as err:
        raise ConfigurationError(f"{path} is {err}; make one with `exequatur integrity keygen`") from None


def read_small(path: Path, longest: int, what: str) -> bytes:
    """Read a file that ought to be small.

    Args:
        path: A regular file; a pipe would block the reader for ever.
        longest: Bytes.
        what: What a longer one cannot be.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigurationError(f"{path} is not a regular file")
        with path.open("rb") as stream:
            data = stream.read(longest + 1)
    except OSError as err:
        raise ConfigurationError(f"{path} cannot be read: {err.strerror or err}; name the right file") from None
    except ValueError as err:  # a null byte in the name
        raise ConfigurationError(f"{str(path)!r} is no file name: {err}") from None
    if len(data) > longest:
        raise ConfigurationError(f"{path} is larger than {longest >> 20} MiB, so it is {what}")
    return data
