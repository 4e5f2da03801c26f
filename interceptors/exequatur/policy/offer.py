"""What a source of policies offers: a bundle, and who released it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Literal, Protocol

from exequatur.policy.bundle import PolicyBundle

Channel = Literal["stable", "canary"]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a bundle comes from; that it was released is known only when there is a ``key``.

    Args:
        name: The name that the bundle is released under.
        version: As its author gave it.
        author: As its author gave it.
        address: Digest of the bundle file's content.
        channel: ``stable``, or ``canary`` for a share of the workers.
        sequence: Of the release; it grows with each.
        expires: When the release ends, in seconds since 1970.
        key: Thumbprint of the policy key that signed the release.
    """

    name: str
    version: str
    author: str
    address: str
    channel: Channel = "stable"
    sequence: int | None = None
    expires: float | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """A bundle to put in force."""

    bundle: PolicyBundle
    provenance: Provenance | None = None


Fits = Callable[[PolicyBundle], None]
"""Raises ``PolicyError`` when a bundle cannot be used here."""


def anything(_: PolicyBundle) -> None:
    """Every bundle fits."""


class PolicySource(Protocol):
    """A place that policies come from. Its methods may block for as long as the place does."""

    def state(self) -> Hashable:
        """What the place looks like; another value means that it has changed. Never raises."""
        ...

    def offer(self, current: Offer | None, fits: Fits = anything) -> Offer | None:
        """Read, verify, parse and validate what is there.

        Args:
            current: What is in force.
            fits: What is offered fits, unless it is in force.

        Returns:
            What is to be put in force, or ``None`` when that is in force already.

        Raises:
            PolicyError: It is refused; the message names the place, the reason and the next step.
        """
        ...

    def accept(self, offer: Offer) -> None:
        """Remember that an offer is about to be put in force.

        Raises:
            PolicyError: It cannot be remembered, and so must not be put in force.
        """
        ...
