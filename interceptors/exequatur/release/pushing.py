"""What may take the place of what: the rules of pushing a bundle file somewhere.

J51  A release never takes the place of a newer one, nor of another content with the same sequence.
J52  What is not signed never takes the place of a release.
J53  What is there and is not a bundle file is not overwritten: somebody else's file has that name.

What is there is not verified for this: a server that lies about it could as well refuse the file.
"""

from __future__ import annotations

from exequatur.errors import PolicyError, StatementError
from exequatur.policy.offer import Channel
from exequatur.release.file import BundleFile
from exequatur.release.verify import channel_of
from exequatur.statements.jws import parse
from exequatur.statements.models import Release


def releases_of(file: BundleFile) -> list[Release]:
    """What the releases in a file say, newest first; they are not verified, and what is none is left out."""
    found = []
    for text in file.releases:
        try:
            release = parse(text, Release).claims
        except StatementError:
            continue
        if release.bundle == file.address:
            found.append(release)
    return sorted(found, key=lambda release: release.sequence, reverse=True)


def newest_release(file: BundleFile, channel: Channel | None = None) -> Release | None:
    """What the newest release in a file says, or the newest one for a channel; it is not verified."""
    return next((each for each in releases_of(file) if channel in (None, channel_of(each))), None)


def check_push(file: BundleFile, there: bytes | None, channel: Channel, place: str) -> bool:
    """Check that a file may be pushed to a channel.

    Args:
        file: What is to be pushed.
        there: What is there.
        channel: The channel.
        place: What messages call the place.

    Returns:
        Whether anything would change.

    Raises:
        PolicyError: J51 to J53.
    """
    if there is None:
        return True
    try:
        other = BundleFile.read(there, place)
    except PolicyError:  # [J53]
        raise PolicyError(
            f"What is at {place} is not a bundle file and is not overwritten. Remove it, or name another place. [J53]"
        ) from None
    if file == other:
        return False
    mine, theirs = newest_release(file, channel), newest_release(other, channel)
    if theirs is None:
        return True
    if mine is None:  # [J52]
        raise PolicyError(f"{place} holds release {theirs.sequence}, and this file is not signed. Sign it first. [J52]")
    if mine.sequence < theirs.sequence or (mine.sequence == theirs.sequence and mine.bundle != theirs.bundle):  # [J51]
        raise PolicyError(
            f"{place} holds release {theirs.sequence} already, and this is release {mine.sequence}. To roll back, sign "
            "this file again. [J51]"
        )
    return True
