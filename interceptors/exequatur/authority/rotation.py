"""Changes to the keys of a state folder: what ``exequatur keys`` does.

Running processes follow within a second or two. Rules, numbered as the code marks them (T8 to T14 are those of
:mod:`exequatur.authority.keysource` and :mod:`exequatur.authority.keyring`):

T15  A key is published before it signs, and a rotation waits for its overlap, so that everybody has learned the key.
T16  A key that signs now, or that alone could sign next, is not retired: something must be able to sign.
T17  A retired anchor ends no earlier than the last statement that the key may have signed.
T18  A key is revoked in the feed before anything else happens: whatever fails afterwards, nobody believes it any more.

What is changed is on disk when a function returns. A change that was interrupted is completed by making it again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from exequatur.authority.keyring import KEYS, MAX_KEYS, KeyRole, Ring, RingKey, full, read_ring, write_ring
from exequatur.authority.keysource import load, read_passphrase, read_private
from exequatur.authority.state import BACKDATED, TRUST, anchor_of, make_folder, publish, read_anchors, read_issuer
from exequatur.errors import ConfigurationError
from exequatur.files import locked, write_whole
from exequatur.statements.keys import Signer, SigningKey
from exequatur.statements.trust import TrustStore

SETTLED = 60.0
"""Seconds for which a key that is retired may still have signed: processes read the ring every second, and clocks
differ."""
LONGEST_OVERLAP = 90 * 86_400.0
"""Seconds."""
_SHORTEST_NAME = 6
"""Characters of a key's id that name it."""


@dataclass(frozen=True)
class Rotation:
    """A rotation that is on disk.

    Args:
        key: Signs from ``at`` on.
        before: Signs until then; ``None`` where no key did.
        at: Seconds since 1970.
    """

    key: RingKey
    before: RingKey | None
    at: float


@dataclass(frozen=True)
class Keys:
    """All that is known of the keys of a state folder.

    Args:
        issuer: The authority's name.
        ring: The keys that it describes, and those of the roles that no ring mentions.
        trust: The anchors; those of keys that the ring has forgotten are there, too.
    """

    issuer: str
    ring: Ring
    trust: TrustStore


def read_keys(path: Path) -> Keys:
    """Look at the keys of a state folder, and change nothing. Private keys that the ring describes are not read.

    Raises:
        ConfigurationError: It is none, or a file in it cannot be used.
        OSError: It cannot be read.
    """
    _check_is_authority(path)
    with locked(path):
        issuer, trust = read_issuer(path), read_anchors(path)
        return Keys(issuer, _described(path / "keys", trust), trust)


def generate(path: Path, role: KeyRole, *, passphrase: str | None = None) -> RingKey:
    """Make a key. It waits until it is told to sign, unless it is the first of its role.

    Args:
        path: The state folder; made when it is missing.
        role: What it is for.
        passphrase: Where the passphrase is that its file is encrypted with; ``None`` for a file that is not.

    Raises:
        ConfigurationError: It cannot be done; nothing was changed.
        OSError: It cannot be written.
    """
    with _changing(path) as change:
        key, source = change.new_key(role, passphrase)
        return change.added(role, key, source, passphrase=passphrase)


def take(
    path: Path,
    role: KeyRole,
    *,
    pem: Path | None = None,
    source: str | None = None,
    passphrase: str | None = None,
    argument: str | None = None,
) -> RingKey:
    """Import a key. It waits until it is told to sign, unless it is the first of its role.

    Args:
        path: The state folder; made when it is missing.
        role: What it is for.
        pem: A file with the key. It is copied as it is, so an encrypted one stays encrypted.
        source: Where the key stays, instead: ``env:NAME`` or ``signer:MODULE:FUNCTION``.
        passphrase: Where the passphrase of an encrypted key is.
        argument: What a signer's function is given.

    Raises:
        ConfigurationError: It cannot be done; nothing was changed.
        OSError: It cannot be written.
    """
    with _changing(path) as change:
        if pem is not None:
            key, source = change.copied(role, read_private(pem), pem, passphrase)
        elif source is not None:
            key = load(source, change.folder, kid=None, passphrase=passphrase, argument=argument)
        else:
            raise ConfigurationError("Name the key to import: a PEM file, an environment variable or a signer")
        return change.added(role, key, source, passphrase=passphrase, argument=argument)


def rotate(
    path: Path, role: KeyRole, overlap: float, *, to: str | None = None, passphrase: str | None = None
) -> Rotation:
    """Let another key sign, after an overlap in which everybody learns it.

    Args:
        path: The state folder.
        role: Whose key.
        overlap: Seconds.
        to: The key that is to sign. Without it the newest that waits, or a new one.
        passphrase: Where the passphrase is that the file of a new one is encrypted with.

    Raises:
        ConfigurationError: It cannot be done; nothing was changed.
        OSError: It cannot be written.
    """
    if not 0 <= overlap <= LONGEST_OVERLAP:
        raise ConfigurationError(f"An overlap lasts between 0 s and {LONGEST_OVERLAP / 86_400:.0f} days")
    _check_is_authority(path)
    with _changing(path) as change:
        now, keys = time.time(), change.ring.of(role)
        before = change.ring.signing(role, now)
        if to is not None:
            key = change.named(to)
            if key.role != role or key.retired is not None:
                what = "is retired" if key.retired is not None else f"signs {key.role}s"
                raise ConfigurationError(f"Key {key.kid} {what}; name another, or none to have one made")
        else:
            coming = [each for each in keys if each.retired is None and (each.signs_from or 0.0) > now]
            if coming:
                raise ConfigurationError(
                    f"Key {coming[-1].kid} is already to sign {role}s soon; wait, or name it with --to to change when"
                )
            waiting = [each for each in keys if each.retired is None and each.signs_from is None]
            if waiting:
                key = waiting[-1]
            else:
                made, source = change.new_key(role, passphrase)
                key = change.added(role, made, source, passphrase=passphrase)
        at = float(int(now + overlap)) if overlap else round(now, 3)  # T15
        key = key.model_copy(update={"signs_from": at})
        change.put(key)
        return Rotation(key, before, at)


def retire(path: Path, kid: str) -> RingKey:
    """Let a key sign no more. What it signed goes on verifying.

    Args:
        path: The state folder.
        kid: The key, or how its id begins.

    Raises:
        ConfigurationError: T16, or it cannot be done.
        OSError: It cannot be written.
    """
    _check_is_authority(path)
    with _changing(path) as change:
        now, key = time.time(), change.named(kid)
        if key.retired is None:
            left = change.ring.without(key.kid).of(key.role)
            following = change.ring.signing(key.role, now)
            if following is not None and following.kid == key.kid:  # [T16]
                others = any(each.retired is None and each.signs_from is not None for each in left)
                step = "wait until the next one signs" if others else f"run: exequatur keys rotate {key.role}"
                raise ConfigurationError(f"Key {key.kid} signs {key.role}s now; {step}")
            key = key.model_copy(update={"retired": float(int(now + SETTLED) + 1)})  # T17
            change.put(key)
        change.published()
        return key


def revoke(
    path: Path, kid: str, revoked: Callable[[RingKey], int], *, last: bool = False
) -> tuple[RingKey, int, RingKey | None]:
    """Let a key sign no more, and nobody believe any more what it signed.

    Args:
        path: The state folder.
        kid: The key, or how its id begins.
        revoked: Puts the key into the revocation feed and gives the feed's version.
        last: It may be the only key that can sign in its role; then nothing does afterwards.

    Returns:
        The key, the version of the feed, and the key that signs in its place.

    Raises:
        ConfigurationError: It is the only one, or it cannot be done.
        ExequaturError: The feed could not be written; nothing was changed.
        OSError: The folder could not be written.
    """
    _check_is_authority(path)
    with _changing(path) as change:
        now, key = time.time(), change.named(kid)
        signs = change.ring.signing(key.role, now)
        after = change.ring.without(key.kid).signing(key.role, now)
        if signs is not None and signs.kid == key.kid and after is None and not last:  # [T16]
            raise ConfigurationError(stops(key))
    # Not under the folder's lock: the feed takes the same one.
    version = revoked(key)  # T18
    with _changing(path) as change:
        key = change.named(key.kid)
        ended = float(int(now) + 1)
        change.put(
            key.model_copy(update={"retired": key.retired if key.retired is not None else ended, "revoked": True})
        )
        change.published()
        return change.named(key.kid), version, change.ring.signing(key.role, now)


def stops(key: RingKey) -> str:
    """What no longer works without a role's only key, and how to go on."""
    what = {
        "grant": "no workflow can be started and no grant renewed, and runs with its grants end",
        "credential": "no worker is credentialed, and those that are stop",
        "permit": "no signal, query, update or lone activity is permitted",
        "approval": "no approval can be given, and those that were given do not count",
        "revocation": "workers that follow the feed stop when what they know of it is too old",
    }[key.role]
    return (
        f"Key {key.kid} is the only one that signs {key.role}s; without it {what}. Run `exequatur keys rotate "
        f"{key.role} --overlap 0s` first, or give --yes"
    )


class _Change:
    """A state folder that is locked and about to be changed."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder
        self.issuer = read_issuer(path)
        self.trust = read_anchors(path)
        self.ring = _described(folder, self.trust)

    def new_key(self, role: KeyRole, passphrase: str | None) -> tuple[Signer, str]:
        """A new key in a file of its own, and its source."""
        key = SigningKey.generate()
        self.check_new(key)
        pem = key.to_pem(None if passphrase is None else read_passphrase(passphrase))
        return self._written(role, key, pem)

    def copied(self, role: KeyRole, pem: bytes, file: Path, passphrase: str | None) -> tuple[Signer, str]:
        """A key from elsewhere in a file of its own, and its source."""
        try:
            key = SigningKey.from_pem(pem, None if passphrase is None else read_passphrase(passphrase))
        except ValueError as err:
            raise ConfigurationError(f"{file} is {err}; name an Ed25519 key and its passphrase") from err
        self.check_new(key)
        return self._written(role, key, pem)

    def _written(self, role: KeyRole, key: SigningKey, pem: bytes) -> tuple[Signer, str]:
        name = f"{role}-{key.kid[:8]}-{secrets.token_hex(2)}.pem".replace("_", "-")
        write_whole(self.folder / name, pem)
        return key, f"file:{name}"

    def check_new(self, key: Signer) -> None:
        """T11 and that there is room, before anything is written."""
        if len(self.ring.keys) >= MAX_KEYS:
            raise full(self.folder)
        if self.trust.get(key.kid) is not None or any(each.kid == key.kid for each in self.ring.keys):  # [T11]
            raise ConfigurationError(f"Key {key.kid} is there already; a key has one role and is imported once")

    def added(
        self, role: KeyRole, key: Signer, source: str, *, passphrase: str | None = None, argument: str | None = None
    ) -> RingKey:
        """Describe a key and publish it."""
        self.check_new(key)
        now = round(time.time(), 3)
        first = not any(each.signs_from is not None for each in self.ring.of(role))
        described = RingKey(
            role=role,
            kid=key.kid,
            x=key.x,
            source=source,
            passphrase=passphrase,
            argument=argument,
            made=now,
            signs_from=now if first else None,
        )
        self.published(described)  # [T15]
        self.put(described)
        return described

    def put(self, key: RingKey) -> None:
        """Describe a key, or describe it anew."""
        keys = [key if each.kid == key.kid else each for each in self.ring.keys]
        if key not in keys:
            keys.append(key)
        self.ring = Ring(keys=tuple(keys))
        write_ring(self.folder, self.ring, write_whole)

    def published(self, *more: RingKey) -> None:
        """Have the anchors of all keys published, and end those of the retired."""
        self.trust = publish(
            self.path,
            [anchor_of(each.role, each.kid, each.x, self.issuer, each.made, each.retired) for each in self.ring.keys]
            + [anchor_of(each.role, each.kid, each.x, self.issuer, each.made) for each in more],
        )

    def named(self, kid: str) -> RingKey:
        """The key whose id begins so.

        Raises:
            ConfigurationError: None does, or several do.
        """
        found = [key for key in self.ring.keys if key.kid.startswith(kid)] if len(kid) >= _SHORTEST_NAME else []
        if len(found) != 1:
            what = "several keys begin" if found else "no key begins"
            raise ConfigurationError(f"{what} with {kid[:100]!r}; name one of `exequatur keys list`")
        return found[0]


@contextmanager
def _changing(path: Path) -> Iterator[_Change]:
    folder = make_folder(path)
    with locked(path):
        yield _Change(path, folder)


def _described(folder: Path, trust: TrustStore) -> Ring:
    """The ring, with the keys of roles that it does not mention as far as there are files of them."""
    ring = read_ring(folder) or Ring()
    own = []
    for role in KEYS:
        file = folder / f"{role}.pem"
        if not ring.of(role) and (file.exists() or file.is_symlink()):
            key = load(f"file:{file.name}", folder, kid=None)
            anchor = trust.get(key.kid)
            made = anchor.nbf + BACKDATED if anchor is not None else file.stat().st_mtime
            retired = None if anchor is None else anchor.exp
            own.append(
                RingKey(
                    role=role,
                    kid=key.kid,
                    x=key.x,
                    source=f"file:{file.name}",
                    made=made,
                    signs_from=made,
                    retired=retired,
                )
            )
    return Ring(keys=(*own, *ring.keys))


def _check_is_authority(path: Path) -> None:
    if not (path / TRUST).is_file():
        # One that is made now would be believed by nobody.
        raise ConfigurationError(f"{path}: not the state folder of an authority; name it with --state")
