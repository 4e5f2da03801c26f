"""This process's own identity: a key that never leaves memory, and the credential that an authority issued for it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from exequatur.errors import ConfigurationError, ExequaturError
from exequatur.statements.jws import Token, parse, sign
from exequatur.statements.keys import Signer, SigningKey
from exequatur.statements.models import PublicKey, Role, Statement, WorkloadCredential

S = TypeVar("S", bound=Statement)

_Places = tuple[frozenset[str], frozenset[str], frozenset[str]]
"""Namespaces, task queues and activity types."""

_MARGIN = 5.0
"""Seconds before its end in which a credential from far away signs nothing that would be looked at after it."""

ROLES: tuple[Role, ...] = ("request", "receipt", "delegate", "seal")


@dataclass(frozen=True)
class CredentialOrder:
    """What a worker asks to be credentialed for."""

    key: PublicKey
    roles: tuple[Role, ...]
    namespaces: tuple[str, ...]
    task_queues: tuple[str, ...]
    activities: tuple[str, ...]
    signer: Signer | None = field(default=None, repr=False, compare=False)
    """Proves that the key is held; it does not leave the process."""
    manifest: str | None = None
    """The signed manifest that the worker verified itself against, as a DSSE envelope."""
    instance: str | None = None
    """The signed identity document of its machine."""


class CredentialIssuer(Protocol):
    """What can credential a worker: an authority, in process or far away."""

    far: bool
    """Whether it takes as long as a network does."""

    def issue_credential(self, order: CredentialOrder) -> str:
        """Issue a workload credential.

        Raises:
            ExequaturError: It will not, or cannot now.
        """
        ...


class Workload:
    """Signs on behalf of this process.

    The credential is renewed at half its life. One that cannot be renewed is used until it ends and not a moment
    longer. Nothing but a renewal ever waits for the issuer.

    Attributes:
        wanted: Set while somebody waits for a credential that is not at hand.
        manifest: The signed manifest that this process was verified against; it goes with every order.
        instance: The signed identity document of its machine; the same.
    """

    def __init__(self, issuer: CredentialIssuer) -> None:
        self._issuer = issuer
        self._key = SigningKey.generate()
        self._lock = threading.Lock()
        self._renewing = threading.Lock()
        self.manifest: str | None = None
        self.instance: str | None = None
        self._workers: list[_Places] = []
        self._places: _Places = (frozenset(), frozenset(), frozenset())
        self._credential: Token[WorkloadCredential] | None = None
        self._covers = self._places
        self.revoked_key: str | None = None
        """The authority's key that has been revoked: a credential that it signed is worth nothing any more."""
        self.problem: str | None = "it has not been issued yet"
        """Why the credential could not be renewed, last time it was tried."""

    @contextmanager
    def covering(self, namespace: str, task_queue: str, activities: Iterable[str]) -> Iterator[None]:
        """Ask for a worker's place with every credential that is issued while it runs.

        The one at hand goes on signing for what runs already; nothing new is authorized until it is renewed. The place
        of a worker that has ended is not asked for again, so that a process with many short-lived workers does not
        outgrow what a credential can name.
        """
        place = (frozenset({namespace}), frozenset({task_queue}), frozenset(activities))
        with self._lock:
            self._workers.append(place)
            self._places = _union(self._workers)
        try:
            yield
        finally:
            with self._lock:
                self._workers.remove(place)
                self._places = _union(self._workers)

    def renew_if_due(self, now: float) -> None:
        """Renew the credential when half of its life is over, or when it does not cover all places or is worth nothing.

        Args:
            now: Seconds since 1970.

        Raises:
            ConfigurationError: This worker can never be credentialed as it is.
        """
        if not self.due(now):
            return
        with self._renewing:
            if not self.due(now):  # whoever held the lock has renewed it
                return
            with self._lock:
                namespaces, queues, types = places = self._places
            order = CredentialOrder(
                self._key.public,
                ROLES,
                tuple(sorted(namespaces)),
                tuple(sorted(queues)),
                tuple(sorted(types)),
                signer=self._key,
                manifest=self.manifest,
                instance=self.instance,
            )
            try:
                self._credential = parse(self._issuer.issue_credential(order), WorkloadCredential)
            except ConfigurationError as err:
                self.problem = str(err)
                raise
            except ExequaturError as err:
                self.problem = str(err)
            else:
                self.problem = None
                self._covers = places

    def due(self, now: float) -> bool:
        """Whether it is time to renew the credential."""
        held = self._credential
        if held is None or not self.valid(now) or held.kid == self.revoked_key:
            return True
        return now >= held.claims.iat + (held.claims.exp - held.claims.iat) / 2

    def cut_off(self, now: float) -> str | None:
        """Why nothing that is signed now would be believed; ``None`` while it would, or where the issuer is near.

        Unlike :meth:`valid`, this does not ask whether the credential covers the place of a worker that has just begun.
        """
        if now < self.holds_until and (self._credential is None or self._credential.claims.nbf <= now):
            return None
        return self.lack()

    def lack(self) -> str:
        """Why there is no valid credential, as a clause."""
        said = "this worker has no credential" if self._credential is None else "this worker's credential has ended"
        return f"{said}: {self.problem or 'it is about to be renewed'}"

    @property
    def holds_until(self) -> float:
        """Until when what is signed is believed, in seconds since 1970; for ever where the issuer is near, which renews
        at once."""
        if not self._issuer.far:
            return float("inf")
        return float("-inf") if self._credential is None else self._credential.claims.exp - _MARGIN

    @property
    def kid(self) -> str:
        """Thumbprint of this process's key."""
        return self._key.kid

    @property
    def places(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Namespaces and task queues of the workers that run, with a credential or without."""
        namespaces, queues, _ = self._places
        return tuple(sorted(namespaces)), tuple(sorted(queues))

    @property
    def far(self) -> bool:
        """Whether its issuer takes as long as a network does."""
        return self._issuer.far

    def valid(self, now: float) -> bool:
        """Whether there is a credential for all places, and ``now`` lies within it."""
        held = self._credential
        covered = all(asked <= given for asked, given in zip(self._places, self._covers, strict=True))
        return held is not None and covered and held.claims.nbf <= now < held.claims.exp

    @property
    def credential(self) -> Token[WorkloadCredential]:
        """The credential at hand, valid or not.

        Raises:
            ExequaturError: There is none.
        """
        held = self._credential
        if held is None:
            raise ExequaturError(f"This worker has no credential: {self.problem}")
        return held

    @property
    def id(self) -> str:
        return self.credential.claims.sub

    def sign(self, statement: S) -> Token[S]:
        """Sign with this process's key."""
        return sign(statement, self._key)


def _union(workers: Sequence[_Places]) -> _Places:
    """The places of all workers together."""
    return (
        frozenset().union(*(namespaces for namespaces, _, _ in workers)),
        frozenset().union(*(queues for _, queues, _ in workers)),
        frozenset().union(*(types for _, _, types in workers)),
    )
