"""The revocation feed of a state folder, for those who hold its keys: read where it is kept, and signed for others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from exequatur.authority.state import State
from exequatur.revocation.head import HEAD, HeadFile
from exequatur.revocation.publishing import Publisher
from exequatur.revocation.revocations import OwnRevocations
from exequatur.revocation.store import FolderStore, RevocationStore
from exequatur.settings import Settings


def own_store(folder: Path, settings: Settings) -> RevocationStore:
    """Where the feed is kept: in the PostgreSQL database that authority processes share, or else in the folder.

    A SQLite file is shared by the processes of one host only, and so is the folder.

    Args:
        folder: The state folder.
        settings: Name the shared database.

    Raises:
        ConfigurationError: The folder has revocations that the database lacks.
        EvidenceError: The database cannot be used.
    """
    if (settings.shared_state or "").startswith("postgres"):
        from exequatur.revocation.database import DatabaseStore

        return DatabaseStore.open(settings.shared_state or "", first=FolderStore(folder))
    return FolderStore(folder)


def own_revocations(state: State, settings: Settings, on_change: Callable[[], None] = lambda: None) -> OwnRevocations:
    """What is revoked by the authority of a state folder.

    Args:
        state: The open state folder.
        settings: Trust domain, cluster and shared database.
        on_change: Called when there are new revocations.

    Raises:
        ConfigurationError: The folder has revocations that the shared database lacks.
        EvidenceError: The shared database cannot be used.
    """
    file = HeadFile(state.path / HEAD, state.trust)
    revocations = OwnRevocations(own_store(state.path, settings), on_change, head=file)
    revocations.publisher = Publisher(
        revocations,
        lambda: state.signer("revocation"),
        iss=state.issuer,
        aud=f"{settings.trust_domain}/{settings.cluster}",
        file=file,
    )
    return revocations
