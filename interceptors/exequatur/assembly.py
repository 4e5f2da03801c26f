"""Puts the parts of a plugin together."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exequatur.authority.embedded import EmbeddedAuthority
from exequatur.authority.state import open_state
from exequatur.errors import ConfigurationError, PolicyError
from exequatur.gate.gate import Gate, check_decidable
from exequatur.gate.issuing import Authority
from exequatur.gate.revocations import Revocations
from exequatur.gate.serving import Serving
from exequatur.gate.shadow import Shadow
from exequatur.identity.workload import Workload
from exequatur.policy.offer import Offer, PolicySource
from exequatur.release.opening import open_policies
from exequatur.release.report import HOST
from exequatur.settings import Settings

logger = logging.getLogger("exequatur")


@dataclass(frozen=True)
class Parts:
    """What a plugin is made of."""

    gate: Gate
    authority: Authority
    serving: Serving


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
    gate = Gate(
        settings=settings,
        trust=state.trust,
        workload=Workload(authority),
        bundle=offer.bundle,
        revocations=lambda changed: Revocations(state.revocations, changed),
        provenance=offer.provenance,
    )
    check_decidable(offer.bundle)
    authority.judge_by(gate)
    return _completed(gate, authority, Serving(gate, state.journal, source, state.path))


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
    if gate.settings.shadow_policies:
        gate.shadow = Shadow(gate, gate.settings.shadow_policies)
    return Parts(gate, authority, serving)
