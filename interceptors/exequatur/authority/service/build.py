"""Puts the parts of the service together.

Rules, numbered as the code marks them:

H37  A service that believes names, for development (L1 of :mod:`exequatur.identity.local`), is reached from its own
     machine only.
"""

from __future__ import annotations

import asyncio

from exequatur.authority.asking import Asking
from exequatur.authority.embedded import EmbeddedAuthority
from exequatur.authority.service.bundles import Bundles
from exequatur.authority.service.callers import Callers
from exequatur.authority.service.config import AuthorityConfig, is_loopback
from exequatur.authority.service.health import Health
from exequatur.authority.service.limits import Buckets
from exequatur.authority.service.offload import Offload
from exequatur.authority.service.once import Once
from exequatur.authority.service.parts import Service
from exequatur.errors import ConfigurationError
from exequatur.gate.gate import Gate
from exequatur.gate.issuing import Authority
from exequatur.identity.callers import Identifies
from exequatur.settings import Settings


def build(
    config: AuthorityConfig, settings: Settings, gate: Gate, authority: Authority, identity: Identifies
) -> Service:
    """Build the service around an authority.

    Args:
        config: As configured.
        settings: Of the authority.
        gate: Its policies, revocations and clock.
        authority: The one that holds the keys.
        identity: Who is who.

    Raises:
        ConfigurationError: H37; the shared database cannot be used; or the authority is elsewhere.
        StoreUnavailableError: The shared database cannot be reached.
    """
    if not isinstance(authority, EmbeddedAuthority):
        raise ConfigurationError("An authority service needs the keys: name the state folder that holds them")
    if identity.believes_names and not is_loopback(config.host):  # [H37]
        raise ConfigurationError(
            f"listen: {config.host} is reached over a network, and the identity file has a verifier of kind local, "
            "which believes whoever it is told; take it out, or listen on 127.0.0.1"
        )
    once = Once(settings, config.state)
    return Service(
        config=config,
        settings=settings,
        gate=gate,
        authority=authority,
        asking=Asking(gate, authority.state.journal),
        callers=Callers(identity, once, settings.clock_leeway.total_seconds(), gate.clock),
        once=once,
        bundles=Bundles(config.bundles),
        health=Health(gate, once),
        offload=Offload(config.limits.threads),
        buckets=Buckets(config.limits.per_caller, config.limits.burst),
        polls=asyncio.Semaphore(config.limits.polls),
    )
