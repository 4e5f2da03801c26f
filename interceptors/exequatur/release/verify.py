"""Whether a bundle file may be put in force: pure functions over bytes, keys, a time and what was adopted before.

Rules V are in :mod:`exequatur.statements.jws`, T in :mod:`exequatur.statements.trust`, J11 to J14 in
:mod:`exequatur.release.file`. Numbered as the code marks them:

J1  The file holds a release that is signed by a trusted policy key (V, T).
J2  The release is about the very bytes of the file's content.
J3  It is for the name that is followed, and for the channel: a canary names a share of the workers, a stable release
    does not.
J4  It is not dated in the future, and has not ended. Its sequence is not more than a day ahead of its date in seconds
    since 1970, which a sequence is unless given: one far ahead would shut out all releases to come.
J5  Of several that hold, the one with the highest sequence counts.
J6  Its sequence is not lower than one adopted before on the channel, and equal only for the same content. So an older
    bundle is not put back by restoring a file; rolling back is a release of the older content with a new sequence.
J7  Once parsed, content and policies are what the release says: the same name and the same digest.
J8  A canary counts only while it is newer than the stable release, and for the workers that are in its share.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

from exequatur.errors import PolicyError, StatementError, UnknownKeyError
from exequatur.policy.offer import Channel, Provenance
from exequatur.release.file import BundleFile, Contents
from exequatur.statements.jws import Token, parse
from exequatur.statements.models import Release
from exequatur.statements.trust import TrustStore

_AHEAD = 86_400


def newest_sequence(at: float) -> int:
    """The highest sequence that a release of this time may have (J4)."""
    return int(at) + _AHEAD


_TRUSTED = (
    "Sign with a key that is trusted, or make one that is: exequatur policy keygen FOLDER --keys FILE, where FILE "
    "holds the trusted keys"
)


@dataclass(frozen=True, slots=True)
class Mark:
    """The newest release that was adopted on a channel."""

    sequence: int
    bundle: str


def channel_of(release: Release) -> Channel:
    """Which channel a release is for."""
    return "stable" if release.share is None else "canary"


def verify(
    file: BundleFile, name: str, trust: TrustStore, *, follows: str, channel: Channel, now: float, leeway: float
) -> Token[Release]:
    """Find the release by which a bundle file may be put in force.

    Args:
        file: As it was read; none of its content is parsed.
        name: What messages call it.
        trust: The policy keys.
        follows: The name of the bundle that is wanted.
        channel: Where the file stood.
        now: Seconds since 1970.
        leeway: How far the clocks may differ, in seconds. It never prolongs.

    Raises:
        PolicyError: J1 to J4: none of its releases holds; the message says why, for the one that comes closest.
    """
    if not file.releases:
        raise PolicyError(f"{name} is not signed. Run: exequatur policy sign, with a policy key. [J1]")
    held: list[Token[Release]] = []
    problems: list[tuple[int, str]] = []
    for text in file.releases:
        try:
            token = _signed(text, trust)
            _check(token.claims, file.address, follows, channel, now, leeway)
        except StatementError as error:
            step = f". {_TRUSTED}" if isinstance(error, UnknownKeyError) else ""
            problems.append((int(error.rule[1:]) if error.rule.startswith("J") else 0, f"{error}{step}"))
        else:
            held.append(token)
    if not held:
        why = max(problems, key=lambda problem: problem[0])[1]
        raise PolicyError(f"{name} has no valid {channel} release: {why}")
    return max(held, key=lambda token: token.claims.sequence)  # [J5]


def _signed(text: str, trust: TrustStore) -> Token[Release]:
    token = parse(text, Release)
    trust.verify(token)  # [J1]
    return token


def _check(release: Release, address: str, follows: str, channel: Channel, now: float, leeway: float) -> None:
    if release.bundle != address:  # [J2]
        changed = "The release is about another content; the file was changed after it was signed. Sign it again"
        raise StatementError("J2", changed)
    if release.name != follows:  # [J3]
        raise StatementError(
            "J3",
            f"It is a release of {release.name}, and {follows} is followed. Name {release.name} with --name (a worker: "
            "with policy_name), or build the policies under the name that is followed",
        )
    if channel_of(release) != channel:  # [J3]
        step = "Give --canary" if channel == "stable" else "Leave --canary out"
        raise StatementError("J3", f"The release is for the {channel_of(release)} channel. {step}, or sign it anew")
    if now + leeway < release.iat:  # [J4]
        raise StatementError("J4", f"The release is dated {_moment(release.iat)}, which is to come; check the clocks")
    if release.sequence > newest_sequence(release.iat):  # [J4]
        raise StatementError(
            "J4",
            f"The release's sequence {release.sequence} is more than a day ahead of its date in seconds since 1970, "
            f"{int(release.iat)}; sign the bundle again without a sequence",
        )
    if release.exp is not None and now >= release.exp:  # [J4]
        raise StatementError("J4", f"The release ended at {_moment(release.exp)}; sign the bundle again")


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def check_order(release: Release, mark: Mark | None, name: str) -> None:
    """Check that a release does not take a channel back.

    Args:
        release: Verified.
        mark: What was adopted before; ``None`` on the first start.
        name: What messages call the file.

    Raises:
        PolicyError: J6.
    """
    if mark is None:
        return
    if release.sequence < mark.sequence:  # [J6]
        raise PolicyError(
            f"{name}: release {release.sequence} is older than release {mark.sequence}, which was adopted before. "
            "To roll back, sign the older bundle again. [J6]"
        )
    if release.sequence == mark.sequence and release.bundle != mark.bundle:  # [J6]
        raise PolicyError(
            f"{name}: release {release.sequence} was adopted before with another content. Sign it again with a new "
            "sequence. [J6]"
        )


def open_released(file: BundleFile, token: Token[Release], name: str) -> Contents:
    """Parse a verified file's content.

    Raises:
        PolicyError: J13, J14, J7.
    """
    contents = file.open(name)
    if contents.manifest.name != token.claims.name or contents.source.digest != token.claims.digest:  # [J7]
        raise PolicyError(f"{name}: the release says another name or digest than the content has. Sign it again. [J7]")
    return contents


def in_share(worker: str, release: Release) -> bool:
    """Whether a worker is among those that a canary is for (J8).

    By worker and content, so that the same workers go on when the same canary is released with a larger share, and
    others are chosen for another canary.

    Args:
        worker: What the worker is known by, the same after a restart.
        release: Of the canary.
    """
    bucket = int.from_bytes(hashlib.sha256(f"{worker}\n{release.bundle}".encode()).digest()[:8])
    return release.share is not None and bucket % 100 < release.share


def provenance_of(contents: Contents, file: BundleFile, token: Token[Release] | None = None) -> Provenance:
    """What is said of a bundle in force: by its manifest, and by its release when one was verified."""
    manifest = contents.manifest
    if token is None:
        return Provenance(manifest.name, manifest.version, manifest.author, file.address)
    release = token.claims
    return Provenance(
        manifest.name,
        manifest.version,
        manifest.author,
        file.address,
        channel=channel_of(release),
        sequence=release.sequence,
        expires=release.exp,
        key=token.kid,
    )
