"""Which source of policies a worker follows, by what it was configured with.

J41  With policy keys, only what they released is followed: a folder of policies, which nobody has signed, is refused.
J42  Without policy keys, nothing is followed that comes over a network or out of a database.
"""

from __future__ import annotations

import os
from pathlib import Path

from exequatur.errors import ConfigurationError, PolicyError
from exequatur.policy.folder import PolicyFolder
from exequatur.policy.offer import PolicySource
from exequatur.release.directory import FilePlace
from exequatur.release.file import SUFFIX
from exequatur.release.keys import read_policy_keys
from exequatur.release.marks import Marks
from exequatur.release.places import Place, is_remote, place_of
from exequatur.release.source import ReleasedBundle
from exequatur.release.unsigned import UnverifiedBundle
from exequatur.settings import Settings

MARKS_NAME = "policy-marks.json"
CACHE_NAME = "policies"


def open_policies(
    where: str | Path, settings: Settings, *, state_dir: Path, worker: str, place: Place | None = None
) -> PolicySource:
    """The source of policies of a worker.

    Args:
        where: A folder, a bundle file, the URL of one, or ``store:`` and the evidence store's URL; ``store:`` alone
            means the store of the settings.
        settings: The policy keys, the name that is followed, how often to look.
        state_dir: Where to keep what was adopted.
        worker: What this worker is known by when a canary chooses.
        place: What keeps the file of that URL, where it takes more than the URL to read it.

    Raises:
        ConfigurationError: J42, or a setting cannot be used.
        PolicyError: J41.
    """
    text = os.fspath(where)
    if text == "store:":
        if settings.evidence_store is None:
            raise ConfigurationError("The policies are to come from the evidence store; name it with evidence_store")
        text += settings.evidence_store
    remote, name = is_remote(text), settings.policy_name
    if settings.policy_keys is None:
        if remote:  # [J42]
            raise ConfigurationError(
                "Policies from a server or a database must be signed; name the JWK set of the policy keys with "
                "policy_keys, or copy the bundle to a file with `exequatur policy pull`"
            )
        return _unsigned(Path(text), name)
    keys = Path(settings.policy_keys)
    read_policy_keys(keys)  # says at the start what is wrong with it
    path = Path(text)
    if not remote and path.is_dir() and not (path / f"{name}{SUFFIX}").exists():  # [J41]
        raise PolicyError(
            f"policy_keys is set, and nobody has signed the folder {path}. Run: exequatur policy build, then sign, and "
            "name the bundle file instead of the folder."
        )
    place = place or place_of(text, name)
    cache = FilePlace(state_dir / CACHE_NAME / f"{name}{SUFFIX}", private=True)
    return ReleasedBundle(
        place,
        name=name,
        keys=keys,
        marks=Marks(state_dir / MARKS_NAME),
        cache=cache if place.remote else None,
        worker=worker,
        interval=settings.policy_fetch_interval.total_seconds(),
        leeway=settings.clock_leeway.total_seconds(),
    )


def _unsigned(path: Path, name: str) -> PolicySource:
    if path.is_dir():
        bundle = path / f"{name}{SUFFIX}"
        return PolicyFolder(path) if any(path.glob("*.cedar")) or not bundle.exists() else _file(bundle)
    return _file(path) if path.is_file() or path.name.endswith(SUFFIX) else PolicyFolder(path)


def _file(path: Path) -> PolicySource:
    return UnverifiedBundle(FilePlace(path))
