"""Which revocation feed a plugin goes by: the setting ``revocation_feed`` made into an object."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from exequatur.control.source import ControlSource
from exequatur.errors import ConfigurationError
from exequatur.revocation.following import FolderSource, FollowedRevocations, Source, Terms
from exequatur.revocation.head import KNOWN, HeadFile
from exequatur.settings import Settings
from exequatur.statements.trust import TrustStore

TEMPORAL = "temporal"


def source_of(settings: Settings, authority: str | None = None) -> Source | None:
    """Where a feed is followed, as the settings say.

    Args:
        settings: ``revocation_feed``.
        authority: URL of the plugin's authority service, if it has one.

    Returns:
        ``None`` for the plugin's own authority, in process or as a service.

    Raises:
        ConfigurationError: It names another authority, which this process could not identify itself to.
    """
    where = settings.revocation_feed
    if where == TEMPORAL:
        return ControlSource()
    if where is None or (authority is not None and where.rstrip("/") == authority.rstrip("/")):
        return None
    if "://" in where:
        raise ConfigurationError(
            f"revocation_feed = {where} is not the authority of this plugin; name a folder or `temporal`, or nothing "
            "to follow the authority itself"
        )
    return FolderSource(Path(where))


def followed(
    source: Source, folder: Path, trust: TrustStore, settings: Settings, on_change: Callable[[], None]
) -> FollowedRevocations:
    """What is revoked, as a feed elsewhere tells it.

    Args:
        source: Where.
        folder: State folder, which remembers the newest head.
        trust: The anchors.
        settings: Trust domain, cluster, and how old a head may be.
        on_change: Called when there are new revocations.
    """
    terms = Terms(
        trust,
        f"{settings.trust_domain}/{settings.cluster}",
        settings.revocation_freshness.total_seconds(),
        settings.clock_leeway.total_seconds(),
    )
    return FollowedRevocations(source, terms, HeadFile(folder / KNOWN, trust), on_change)
