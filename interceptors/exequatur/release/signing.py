"""Releasing a bundle file, and verifying one by itself."""

from __future__ import annotations

from exequatur.errors import ConfigurationError, PolicyError, StatementError
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.offer import Channel, Provenance
from exequatur.release.file import MAX_RELEASES, BundleFile, Contents
from exequatur.release.pushing import newest_release
from exequatur.release.verify import channel_of, newest_sequence, open_released, provenance_of, verify
from exequatur.statements.jws import parse
from exequatur.statements.jws import sign as signed
from exequatur.statements.keys import Signer
from exequatur.statements.models import Release
from exequatur.statements.trust import TrustStore

_LEEWAY = 30.0
"""Seconds that the clocks of who signs and who verifies may differ, as in the settings' default."""


def sign_bundle(
    file: BundleFile,
    contents: Contents,
    signer: Signer,
    *,
    issuer: str,
    now: float,
    sequence: int | None = None,
    share: int | None = None,
    expires: float | None = None,
) -> tuple[BundleFile, Release]:
    """Release a bundle file.

    The release replaces one that the same key has made for the same channel.

    Args:
        file: The file.
        contents: Its content, parsed.
        signer: The policy key.
        issuer: Whose key it is, as the trusted keys say.
        now: Seconds since 1970.
        sequence: Higher than any before; the seconds since 1970 when left out.
        share: Per cent of the workers, for a canary.
        expires: Seconds since 1970.

    Returns:
        The file with the release, and the release.

    Raises:
        PolicyError: The policies do not parse or validate, the file has a release that is as new, or the sequence is
            one that no worker would take (J4).
        ConfigurationError: The issuer cannot be one.
    """
    PolicyBundle(contents.source)
    last = newest_release(file)
    if sequence is None:
        sequence = max(int(now), last.sequence + 1 if last else 1)
    if last is not None and sequence <= last.sequence:
        raise PolicyError(f"The bundle was released as {last.sequence} before. Give a higher --sequence, or none.")
    if sequence > newest_sequence(now):  # [J4]
        raise PolicyError(
            f"Sequence {sequence} is more than a day ahead of {int(now)}, the seconds since 1970; workers refuse it, "
            "because it would shut out the releases to come. Give a lower --sequence, or none; and if the bundle was "
            "released so high before, build it again."
        )
    try:
        release = Release(
            iss=issuer,
            iat=float(int(now)),
            exp=expires,
            name=contents.manifest.name,
            bundle=file.address,
            digest=contents.source.digest,
            sequence=sequence,
            share=share,
        )
        token = signed(release, signer)
    except ValueError as error:
        raise ConfigurationError(f"No release can be signed: {str(error).partition(chr(10))[0]}") from None
    kept = [text for text in file.releases if not _replaced(text, signer.kid, channel_of(release))]
    if len(kept) == MAX_RELEASES:
        raise PolicyError(f"The bundle holds {MAX_RELEASES} releases by other keys. Build it again, and sign that.")
    return BundleFile(file.content, (*kept, token.text)), release


def verify_bundle(
    data: bytes, name: str, trust: TrustStore, *, follows: str, channel: Channel, now: float, leeway: float = _LEEWAY
) -> tuple[PolicyBundle, Provenance]:
    """Verify a file as a worker does that has adopted nothing yet.

    Args:
        data: The file.
        name: What messages call it.
        trust: The policy keys.
        follows: The name of the bundle that is wanted.
        channel: For which channel.
        now: Seconds since 1970.
        leeway: How far the clocks may differ, in seconds.

    Returns:
        The bundle, and who released it.

    Raises:
        PolicyError: It does not verify, or its policies are not valid.
    """
    file = BundleFile.read(data, name)
    token = verify(file, name, trust, follows=follows, channel=channel, now=now, leeway=leeway)
    contents = open_released(file, token, name)
    return PolicyBundle(contents.source), provenance_of(contents, file, token)


def _replaced(text: str, kid: str, channel: Channel) -> bool:
    try:
        token = parse(text, Release)
    except StatementError:
        return True
    return token.kid == kid and channel_of(token.claims) == channel
