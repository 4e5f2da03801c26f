"""What a doctor is asked to look at."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exequatur.settings import Settings

if TYPE_CHECKING:
    from temporalio.client import Client
    from temporalio.converter import DataConverter


@dataclass(frozen=True)
class Deployment:
    """The parts of a deployment; those that are not given are not looked at.

    Args:
        settings: Of this process.
        states: State folders; all of them should belong together.
        address: Of the Temporal server.
        namespace: Of the workers.
        connect: Connects to the server.
        authority: URL of the authority service.
        authority_ca: File with the certificates that vouch for its own.
        activities: By activity type, as the code has them.
        policies: Folder, bundle file or URL.
        store: Evidence store.
        converter: The workers' data converter.
        task_queues: Queues to look at besides those that workers tell of.
        clock: Seconds since 1970, by this machine.
    """

    settings: Settings
    states: tuple[Path, ...] = ()
    address: str = "localhost:7233"
    namespace: str = "default"
    connect: Callable[[], Awaitable[Client]] | None = None
    authority: str | None = None
    authority_ca: Path | None = None
    activities: Mapping[str, Callable[..., Any]] | None = None
    policies: str | None = None
    store: str | None = None
    converter: DataConverter | None = None
    task_queues: tuple[str, ...] = ()
    clock: Callable[[], float] = field(default=time.time)
