"""Puts the parts of a plugin together."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exequatur.authority.api import BUNDLES_PATH
from exequatur.authority.embedded import EmbeddedAuthority
from exequatur.authority.feed import own_revocations
from exequatur.authority.state import open_state
from exequatur.control.feeds import followed, source_of
from exequatur.control.source import ControlSource
from exequatur.errors import ConfigurationError, PolicyError
from exequatur.gate.gate import Gate, check_decidable
from exequatur.gate.issuing import Authority
from exequatur.gate.serving import Serving
from exequatur.gate.shadow import Shadow
from exequatur.identity.principal import UNAUTHENTICATED, Principal
from exequatur.identity.sources import Identity, LocalIdentity
from exequatur.identity.workload import Workload
from exequatur.integrity.guard import Guard
from exequatur.integrity.instance import read_instance
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.offer import Fits, Offer, PolicySource, anything
from exequatur.release.file import SUFFIX
from exequatur.release.opening import open_policies
from exequatur.release.report import HOST
from exequatur.revocation.following import FollowedRevocations
from exequatur.settings import Settings

logger = logging.getLogger("exequatur")


@dataclass(frozen=True)
class Parts:
    """What a plugin is made of."""

    gate: Gate
    authority: Authority
    serving: Serving
    control: ControlSource | None = None
    """Follows the revocation feed of a namespace, once it is told which."""


def given(settings: Settings | None, options: Mapping[str, Any]) -> Settings:
    """The settings that were given, or those of the options, the environment and the file.

    Raises:
        ConfigurationError: Both were given, or an option cannot be used.
    """
    if settings is not None and options:
        raise ConfigurationError("Give settings or single options, not both")
    return settings or Settings.load(**options)


def embedded(state_dir: Path, policies: str | Path, settings: Settings) -> Parts:
    """A plugin that is its own authority.

    Args:
        state_dir: Keys, revocations and evidence.
        policies: Folder, bundle file or URL.
        settings: What can be configured.

    Raises:
        ConfigurationError: A setting, the state folder or a key file cannot be used.
        PolicyError: The policies cannot be used.
    """
    state = open_state(state_dir)
    source, offer = _first_offer(policies, settings, state.path, f"{HOST}/{state.issuer}")
    authority = EmbeddedAuthority(state, settings)
    feed = source_of(settings)
    gate = Gate(
        settings=settings,
        trust=state.trust,
        workload=Workload(authority),
        bundle=offer.bundle,
        revocations=lambda changed: (
            own_revocations(state, settings, changed)
            if feed is None
            else followed(feed, state.path, state.trust, settings, changed)
        ),
        provenance=offer.provenance,
    )
    check_decidable(offer.bundle)
    gate.anchors = state.anchors
    authority.judge_by(gate)
    return _completed(gate, authority, Serving(gate, state.journal, source, state.path))


def remote(
    url: str,
    identity: Identity | None,
    principal: Principal | None,
    state_dir: Path,
    policies: str | Path | None,
    settings: Settings,
) -> Parts:
    """A plugin whose authority is a service elsewhere. Nothing is asked of it yet.

    Args:
        url: Of the service.
        identity: How this process identifies itself.
        principal: A name instead, for an authority that believes names.
        state_dir: Trust anchors that were learned, evidence, and what was in force; no key of the authority.
        policies: Where they come from, if not from the authority.
        settings: What can be configured.

    Raises:
        ConfigurationError: The URL, a setting, the identity or the state folder cannot be used.
        PolicyError: The policies that were named cannot be used.
    """
    try:
        from exequatur.authority.connection import Connection
        from exequatur.authority.feed_source import AuthoritySource
        from exequatur.authority.following import FollowedAnchors, open_folder
        from exequatur.authority.remote import RemoteAuthority
        from exequatur.release.web import WebPlace
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{error}; run: pip install 'exequatur[identity]'") from None
    if (identity is None) == (principal is None):
        raise ConfigurationError(
            "Say how this process identifies itself to the authority: identity=TokenFile(...), or "
            "principal=Principal(...) where the authority is for development; not both"
        )
    who = identity or LocalIdentity(principal or UNAUTHENTICATED)
    connection = Connection(
        url,
        timeout=settings.authority_timeout.total_seconds(),
        ca=settings.authority_ca,
        certificate=lambda: who.certificate,
    )
    folder = open_folder(state_dir)
    anchors = FollowedAnchors(connection, folder, every=settings.policy_fetch_interval.total_seconds())
    authority = RemoteAuthority(connection, who, anchors, settings)
    feed = source_of(settings, url) or AuthoritySource(
        connection, authority.headers, timeout=settings.authority_timeout.total_seconds()
    )
    worker = f"{HOST}/{folder.resolve()}"
    source: PolicySource
    first: Offer | None = None
    if policies is not None:
        source, first = _first_offer(policies, settings, folder, worker)
    elif settings.policy_keys is None:
        source = _NoPolicies()
    else:
        file = connection.url(f"{BUNDLES_PATH}/{settings.policy_name}{SUFFIX}")
        place = WebPlace(file, tls=connection.tls, headers=authority.headers)
        source = open_policies(file, settings, state_dir=folder, worker=worker, place=place)
    gate = Gate(
        settings=settings,
        trust=anchors.trust,
        workload=Workload(authority),
        bundle=first.bundle if first else PolicyBundle.from_parts("", strict=True),
        revocations=lambda changed: followed(feed, folder, anchors.trust, settings, changed),
        provenance=first.provenance if first else None,
        awaited=None if first else "no worker has run yet",
    )
    gate.anchors = anchors
    return _completed(gate, authority, Serving(gate, folder / "journal", source, folder))


class _NoPolicies:
    """The policies of a process that runs no worker, and so decides nothing."""

    def state(self) -> Hashable:
        return None

    def offer(self, current: Offer | None, fits: Fits = anything) -> Offer | None:
        raise ConfigurationError(
            "A worker needs policies. Name the JWK set of the policy keys with policy_keys, and they are followed from "
            "the authority; or give policies="
        )

    def accept(self, offer: Offer) -> None:
        """There is none."""


def _first_offer(policies: str | Path, settings: Settings, state_dir: Path, worker: str) -> tuple[PolicySource, Offer]:
    source = open_policies(policies, settings, state_dir=state_dir, worker=worker)
    offer = source.offer(None, check_decidable)
    if offer is None:
        raise PolicyError(f"{source} offers no policies")
    for warning in offer.bundle.warnings:
        logger.warning("%s: %s", source, warning, extra={"bundle": offer.bundle.digest})
    return source, offer


def _completed(gate: Gate, authority: Authority, serving: Serving) -> Parts:
    """What every plugin has, whoever its authority is."""
    gate.authority = authority
    gate.guard = Guard.open(gate.settings, gate.integrity_changed)
    if gate.guard is not None:
        gate.workload.manifest = gate.guard.manifest.envelope
    if gate.settings.instance_document is not None:
        gate.workload.instance = read_instance(Path(gate.settings.instance_document))
    if gate.settings.shadow_policies:
        gate.shadow = Shadow(gate, gate.settings.shadow_policies)
    source = gate.revocations.source if isinstance(gate.revocations, FollowedRevocations) else None
    return Parts(gate, authority, serving, source if isinstance(source, ControlSource) else None)
