"""This process's own identity: a key that never leaves memory, and the credential that an authority issued for it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from exequatur.errors import ExequaturError
from exequatur.statements.jws import Token, parse, sign
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import PublicKey, Role, Statement, WorkloadCredential

S = TypeVar("S", bound=Statement)

ROLES: tuple[Role, ...] = ("request", "receipt", "delegate", "seal")


@dataclass(frozen=True)
class CredentialOrder:
    """What a worker asks to be credentialed for."""

    key: PublicKey
    roles: tuple[Role, ...]
    namespaces: tuple[str, ...]
    task_queues: tuple[str, ...]
    activities: tuple[str, ...]


class CredentialIssuer(Protocol):
    """What can credential a worker: an authority, in process or far away."""

    def issue_credential(self, order: CredentialOrder) -> str:
        """Issue a workload credential.

        Raises:
            ExequaturError: It will not, or cannot now.
        """
        ...


class Workload:
    """Signs on behalf of this process.

    The credential is renewed at half its life. One that cannot be renewed is used until it ends and not a moment longer.
    """

    def __init__(self, issuer: CredentialIssuer) -> None:
        self._issuer = issuer
        self._key = SigningKey.generate()
        self._lock = threading.Lock()
        self._places: tuple[frozenset[str], frozenset[str], frozenset[str]] = (frozenset(), frozenset(), frozenset())
        self._credential: Token[WorkloadCredential] | None = None
        self._covers = self._places
        self.problem: str | None = "it has not been issued yet"
        """Why the credential could not be renewed, last time it was tried."""

    def cover(self, namespace: str, task_queue: str, activities: Iterable[str]) -> None:
        """Ask for a further place with the next credential.

        The one at hand goes on signing for what runs already; nothing new is authorized until it is renewed.
        """
        with self._lock:
            namespaces, queues, types = self._places
            self._places = (namespaces | {namespace}, queues | {task_queue}, types | set(activities))

    def renew_if_due(self, now: float) -> None:
        """Renew the credential when half of its life is over, or when it does not cover all places.

        Args:
            now: Seconds since 1970.
        """
        held = self._credential
        if self.valid(now) and held and now < held.claims.iat + (held.claims.exp - held.claims.iat) / 2:
            return
        with self._lock:
            namespaces, queues, types = places = self._places
            order = CredentialOrder(
                self._key.public, ROLES, tuple(sorted(namespaces)), tuple(sorted(queues)), tuple(sorted(types))
            )
            try:
                self._credential = parse(self._issuer.issue_credential(order), WorkloadCredential)
            except ExequaturError as err:
                self.problem = str(err)
            else:
                self.problem = None
                self._covers = places

    def valid(self, now: float) -> bool:
        """Whether there is a credential for all places, and ``now`` lies within it."""
        held = self._credential
        return held is not None and self._covers == self._places and held.claims.nbf <= now < held.claims.exp

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
