"""State folders: who may read them, what they hold, and whether several of them belong together."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from shutil import disk_usage

from exequatur.doctor.finding import Finding, fine, problem, warning
from exequatur.doctor.keys import examine_keys
from exequatur.errors import ConfigurationError, ExequaturError
from exequatur.revocation.feed import Feed
from exequatur.revocation.head import HEAD, HeadFile, check_contains
from exequatur.revocation.store import ENTRIES, FolderStore, regular_content
from exequatur.settings import Settings
from exequatur.statements.trust import Anchor, TrustStore

_MAX_BYTES = 1024 * 1024
_FULL, _NEARLY_FULL = 64 * 1024**2, 1024**3
"""Bytes left on the journal's disk. A decision takes about two KiB, and none is made that cannot be written."""


def examine_folders(states: Sequence[Path], settings: Settings, now: float) -> Iterator[Finding]:
    """Look at each state folder and compare them.

    Args:
        states: The folders.
        settings: They say whether the revocation feed is in a shared database instead.
        now: Seconds since 1970.
    """
    if not states:
        text = "no state folder is named, and there is no .exequatur here: the workers themselves are not looked at"
        yield warning("state", text, "Give --state: the state_dir of the plugin.")
    trusted = {}
    for path in states:
        if not path.is_dir():
            yield problem("state", f"{path} is no folder", "Start a worker with this state_dir, or name its folder.")
            continue
        yield from _modes(path)
        anchors = None
        for found in _anchors(path):
            if isinstance(found, TrustStore):
                anchors = found
            else:
                yield found
        if anchors is not None:
            trusted[path] = anchors
            yield from examine_keys(path, anchors)
            yield from _feed(path, anchors, settings, now)
        yield from _disk(path)
    yield from _together(trusted)


def read_anchors(path: Path) -> TrustStore | None:
    """The trust anchors of a state folder, or ``None`` when they cannot be read."""
    return next((found for found in _anchors(path) if isinstance(found, TrustStore)), None)


def _modes(path: Path) -> Iterator[Finding]:
    open_to_others = []
    foreign = []
    try:
        inside = sorted((path / "keys").iterdir()) if (path / "keys").is_dir() else []
        for each in (path, path / "keys", path / "trust.jwks", *inside):
            if not each.exists():
                continue
            seen = each.lstat()
            if stat.S_IMODE(seen.st_mode) & 0o077 and not each.is_symlink():
                open_to_others.append(f"{each} (mode {stat.S_IMODE(seen.st_mode):o})")
            if seen.st_uid != os.geteuid():
                foreign.append(str(each))
    except OSError as error:
        yield problem("state", f"{path} cannot be read: {error.strerror}", "Run this as the user of the workers.")
        return
    if open_to_others:
        step = f"Run: chmod -R go-rwx {path}. Then exchange the keys: somebody may have read them."
        yield problem("state", f"open to others: {', '.join(open_to_others[:5])}", step)
    elif foreign:
        yield warning("state", f"{foreign[0]} belongs to another user", "Run this, and the workers, as one user.")
    else:
        yield fine("state", f"{path} is for its owner only")


def _anchors(path: Path) -> Iterator[Finding | TrustStore]:
    file = path / "trust.jwks"
    try:
        data = regular_content(file, _MAX_BYTES)
        if data is None:
            yield problem("trust", f"{file} is missing", "Put it back, or name the folder that the workers use.")
        else:
            yield TrustStore.from_jwks(data, str(file))
    except OSError as error:
        yield problem("trust", f"{file} cannot be read: {error.strerror or error}", "Run this as the workers' user.")
    except ConfigurationError as error:
        yield problem("trust", str(error), f"Put the right {file} back; it is only ever added to.")


def _feed(path: Path, trust: TrustStore, settings: Settings, now: float) -> Iterator[Finding]:
    """The revocation feed, where this folder keeps it."""
    if not (path / "keys").is_dir():
        return
    if (settings.shared_state or "").startswith("postgres"):
        yield fine("feed", f"{path}: its revocations are in the shared database; see: exequatur revoke --list")
        return
    try:
        head = HeadFile(path / HEAD, trust).read()
        feed = FolderStore(path).read(Feed())
        if head is not None:
            check_contains(feed, head, path / ENTRIES)
    except ExequaturError as error:
        text = str(error)
        yield problem("feed", text, "Put the newest copy back; nothing is authorized until it can be read.")
        return
    standing = list(feed.standing(now))
    stopped = next((number for number, entry in standing if entry.everything), None)
    if stopped is not None:
        text = f"{path}: everything is revoked, by entry {stopped}"
        yield warning("feed", text, f"If that is over: exequatur revoke --lift {stopped} --reason ...")
    else:
        yield fine("feed", f"{path}: version {feed.version}, {len(standing)} revocations stand")


def _disk(path: Path) -> Iterator[Finding]:
    journal = path / "journal"
    where = journal if journal.is_dir() else path
    free = disk_usage(where).free
    said = f"{free / 1024**2:,.0f} MiB are left for {where}"
    if free < _FULL:
        yield problem("disk", said, "Make room: what cannot be journaled is not authorized, and work stops.")
    elif free < _NEARLY_FULL:
        yield warning("disk", said, "Make room, or ship the journal (evidence_store) and prune it.")
    else:
        yield fine("disk", said)


def _together(trusted: Mapping[Path, TrustStore]) -> Iterator[Finding]:
    """Whether what one folder's authority signs is believed where another folder is used."""
    for first, second in combinations(trusted, 2):
        ours, theirs = _current(trusted[first]), _current(trusted[second])
        missing = [
            (anchor, there, here)
            for there, anchors, here, known in ((first, ours, second, theirs), (second, theirs, first, ours))
            for kid, anchor in anchors.items()
            if kid not in known
        ]
        # A folder without keys learns new ones, and their ends, from its authority; one with keys learns nothing.
        kept = [each for each in missing if (each[2] / "keys").is_dir() and each[0].kid not in _kids(trusted[each[2]])]
        if not missing:
            yield fine("state-match", f"{first} and {second} trust the same keys")
        elif not ours.keys() & theirs.keys():
            text = (
                f"{first} and {second} trust no key in common: what starts with one is refused by workers of the other"
            )
            yield problem("state-match", text, "Give all clients and workers one state folder, or one authority.")
        elif kept:
            anchor, there, here = kept[0]
            text = f"{here} does not trust key {anchor.kid} ({anchor.typ[0]}), which {there} trusts"
            yield problem("state-match", text, "Copy the missing anchors into its trust.jwks, or restart its workers.")
        else:
            anchor, there, here = missing[0]
            text = f"{here} does not trust key {anchor.kid} ({anchor.typ[0]}), which {there} trusts"
            step = "After a rotation its workers learn the keys within a minute; if not, see whether they reach it."
            yield warning("state-match", text, step)


def _kids(trust: TrustStore) -> set[str]:
    return {anchor.kid for anchor in trust}


def _current(trust: TrustStore) -> dict[str, Anchor]:
    return {anchor.kid: anchor for anchor in trust if anchor.exp is None}
