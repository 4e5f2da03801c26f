"""The keys of an authority's state folder: whether each can sign, and whether anybody believes what it signs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

from exequatur.authority.keyring import KEYS, KeyRole, Ring, read_ring
from exequatur.authority.keysource import load
from exequatur.doctor.finding import Finding, fine, problem
from exequatur.errors import ConfigurationError
from exequatur.statements.keys import Signer
from exequatur.statements.trust import TrustStore


def examine_keys(path: Path, trust: TrustStore) -> Iterator[Finding]:
    """Look at the keys of a state folder.

    Args:
        path: The state folder.
        trust: Its anchors.
    """
    folder = path / "keys"
    if not folder.is_dir():
        yield fine("keys", f"{path} holds no authority key, as it should be where the authority is a service")
        return
    try:
        ring = read_ring(folder) or Ring()
    except ConfigurationError as error:
        yield _unusable(str(error))
        return
    keys: dict[KeyRole, Signer] = {}
    found: list[Finding] = []
    for role in KEYS:
        try:
            key = _signing(folder, ring, role)
        except ConfigurationError as error:
            found.append(_unusable(str(error)))
        except OSError as error:
            found.append(_unusable(f"the {role} key of {path} cannot be read: {error.strerror}"))
        else:
            if key is None:
                step = f"Run: exequatur keys rotate {role} --overlap 0s"
                found.append(problem("keys", f"{path} has no key that signs a {role} now", step))
            else:
                keys[role] = key
    found += [*_shared(keys), *_unbelieved(path, keys, trust)]
    yield from found
    if not found:
        yield fine("keys", f"{path} holds a key for each of {len(keys)} roles: who reads them can issue grants")


def _signing(folder: Path, ring: Ring, role: KeyRole) -> Signer | None:
    """The key that signs in a role now.

    Raises:
        ConfigurationError: It cannot be used.
    """
    if not ring.of(role):
        return load(f"file:{role}.pem", folder, kid=None)
    key = ring.signing(role, time.time())
    if key is None:
        return None
    return load(key.source, folder, kid=key.kid, passphrase=key.passphrase, argument=key.argument)


def _shared(keys: Mapping[KeyRole, Signer]) -> Iterator[Finding]:
    for first, second in combinations(keys, 2):
        if keys[first].kid == keys[second].kid:
            step = f"Make another one for {second}: exequatur keys rotate {second}"
            yield problem("keys", f"one key is used for {first} and {second}", step)


def _unbelieved(path: Path, keys: Mapping[KeyRole, Signer], trust: TrustStore) -> Iterator[Finding]:
    anchors = {anchor.kid: anchor for anchor in trust}
    for role, key in keys.items():
        anchor = anchors.get(key.kid)
        if anchor is None or KEYS[role] not in anchor.typ:
            text = f"nobody trusts the {role} key of {path}: trust.jwks does not have it"
            yield problem("keys", text, "Start the authority once; it adds the anchor. Then restart the workers.")
        elif anchor.exp is not None and anchor.exp <= time.time():
            step = f"Run: exequatur keys rotate {role}"
            yield problem("keys", f"the {role} key of {path} is retired, so nothing that it signs is believed", step)


def _unusable(text: str) -> Finding:
    said, _, step = text.rpartition("; ")
    return problem("keys", said or text, f"{step[:1].upper()}{step[1:]}." if said else "Put the right file back.")
