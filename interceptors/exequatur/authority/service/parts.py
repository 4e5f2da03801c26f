"""What the service is made of."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from exequatur.authority.asking import Asking
from exequatur.authority.embedded import EmbeddedAuthority
from exequatur.authority.service.bundles import Bundles
from exequatur.authority.service.callers import Callers
from exequatur.authority.service.config import AuthorityConfig
from exequatur.authority.service.health import Health
from exequatur.authority.service.limits import Buckets
from exequatur.authority.service.offload import Offload
from exequatur.authority.service.once import Once
from exequatur.gate.gate import Gate
from exequatur.settings import Settings


@dataclass(frozen=True)
class Service:
    """Everything that answers.

    Args:
        config: As configured.
        settings: Of the authority.
        gate: Its policies, revocations and clock.
        authority: Issues what is signed.
        asking: Asks Cedar and keeps the evidence.
        callers: Finds out who asks.
        once: Remembers what may be used once.
        bundles: What is handed to workers.
        health: Whether it can decide.
        offload: Where it decides.
        buckets: How often each principal has asked.
        polls: Who waits for the revocation feed.
    """

    config: AuthorityConfig
    settings: Settings
    gate: Gate
    authority: EmbeddedAuthority
    asking: Asking
    callers: Callers
    once: Once
    bundles: Bundles
    health: Health
    offload: Offload
    buckets: Buckets
    polls: asyncio.Semaphore = field(repr=False)

    @property
    def url(self) -> str:
        """What others reach it by."""
        scheme = "http" if self.config.tls is None else "https"
        return (self.config.url or f"{scheme}://{self.config.listen}").rstrip("/")
