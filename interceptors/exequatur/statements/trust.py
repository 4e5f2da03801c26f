"""The trust store: which keys may sign which statements, and when.

Anchors are only ever added. A key that is no longer used is *retired*: it still verifies what it signed while it was
valid, so that old histories stay provable. The file format is a JWK set (RFC 7517, section 5) with the members ``typ``
(the statements that the key may sign), ``iss``, ``nbf`` and, once retired, ``exp``.

A running process learns new anchors with :meth:`TrustStore.learn`. Looking up a key does no I/O and takes no lock, so
that it may be done inside a workflow.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationError

from exequatur.errors import ConfigurationError, StatementError, UnknownKeyError
from exequatur.statements.encoding import strict_json
from exequatur.statements.jws import Token, check_signature
from exequatur.statements.keys import thumbprint
from exequatur.statements.models import (
    Approval,
    Delegation,
    Digest,
    Grant,
    Name,
    Part,
    Permit,
    Release,
    RevocationHead,
    Time,
    WorkloadCredential,
)

AUTHORITY_TYPES = frozenset(
    {Grant.typ, WorkloadCredential.typ, Release.typ, Permit.typ, Approval.typ, RevocationHead.typ}
)
"""The statements that an anchor can be trusted for. Workload keys are vouched for by credentials, never by anchors."""


AnchoredT = TypeVar("AnchoredT", Grant, WorkloadCredential, Release, Permit, Approval, RevocationHead)


class Anchor(Part):
    """One authority key."""

    kty: Literal["OKP"] = "OKP"
    crv: Literal["Ed25519"] = "Ed25519"
    kid: Digest
    x: Digest
    typ: Annotated[tuple[str, ...], Field(min_length=1)]
    iss: Name
    nbf: Time
    exp: Time | None = None

    @property
    def identity(self) -> tuple[str, tuple[str, ...], str, float]:
        """What may never change about an anchor."""
        return (self.x, self.typ, self.iss, self.nbf)


class TrustStore:
    """Anchors by key id.

    Rules, numbered as the code marks them:

    T1  A key is found by ``kid``; one that is not there is *unknown*, which is not a verdict yet. ``on_unknown`` hears
        of it.
    T2  It may sign statements of this ``typ``.
    T3  The statement says it was issued while the key was valid.
    T4  The statement's ``iss`` is the key's issuer.
    T5  What is learned is taken as a whole or not at all: a set that changes an anchor, puts a retired one back, or
        lacks one that is known, is an older set or another's.
    """

    def __init__(self, anchors: Iterable[Anchor] = ()) -> None:
        self._anchors: dict[str, Anchor] = {}
        """Never changed but replaced, so that readers need no lock."""
        self._adding = threading.RLock()
        self.on_unknown: Callable[[str], bool] | None = None
        """Told of a key that was looked up and is not there; says whether it may yet become known (T1).

        It is called from any thread, also inside a workflow: it must return at once and do no I/O.
        """
        for anchor in anchors:
            self.add(anchor)

    @classmethod
    def from_jwks(cls, data: bytes, source: str = "the trust file") -> TrustStore:
        """Read a JWK set.

        Raises:
            ConfigurationError: It is not one, or an anchor in it cannot be trusted as written.
        """
        try:
            document = strict_json(data)
            if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
                raise ValueError("it has no list of keys")
            anchors = [Anchor.model_validate_json(json.dumps(entry)) for entry in document["keys"]]
        except ValidationError as err:
            field = ".".join(map(str, err.errors(include_input=False)[0]["loc"]))
            raise ConfigurationError(f"{source}: a key has a missing, unknown or ill-typed member: {field}") from err
        except ValueError as err:
            raise ConfigurationError(f"{source} is not a JWK set: {err}") from err
        return cls(anchors)

    def to_jwks(self) -> bytes:
        keys = [anchor.model_dump(mode="json", exclude_none=True) for anchor in self._anchors.values()]
        return json.dumps({"keys": keys}, indent=2).encode() + b"\n"

    def add(self, anchor: Anchor) -> None:
        """Add an anchor, or retire the one that is there.

        Raises:
            ConfigurationError: ``kid`` is not the key's thumbprint, the key may sign what no anchor may, one key would
                have two roles, or a known anchor would change in anything but its retirement.
        """
        if anchor.kid != thumbprint(anchor.x):
            raise ConfigurationError(f"Key {anchor.kid}: the kid must be the key's RFC 7638 thumbprint")
        if not set(anchor.typ) <= AUTHORITY_TYPES or len(anchor.typ) != 1:
            raise ConfigurationError(
                f"Key {anchor.kid}: typ must name exactly one of {', '.join(sorted(AUTHORITY_TYPES))}; "
                f"{Delegation.typ} and the others are signed with workload keys"
            )
        with self._adding:
            known = self._anchors.get(anchor.kid)
            if known and known.identity != anchor.identity:
                raise ConfigurationError(f"Key {anchor.kid}: an anchor may be retired but not changed")
            if known and known.exp is not None and (anchor.exp is None or anchor.exp > known.exp):
                raise ConfigurationError(f"Key {anchor.kid}: a retired anchor may not be put back")
            self._anchors = {**self._anchors, anchor.kid: anchor}

    def learn(self, jwks: bytes, source: str = "the trust file") -> bool:
        """Take over new anchors and retirements. May be called from any thread.

        Args:
            jwks: A JWK set with all anchors of the authority, retired ones among them.
            source: Where it is from, for messages.

        Returns:
            Whether anything was new.

        Raises:
            ConfigurationError: T5, or it is no JWK set of anchors. What was known stays as it was.
        """
        given = TrustStore.from_jwks(jwks, source)
        with self._adding:
            missing = set(self._anchors) - set(given._anchors)
            if missing:  # [T5]
                raise ConfigurationError(
                    f"{source} lacks key {min(missing)}, which is known here; it is an older set or another authority's"
                )
            both = TrustStore(self._anchors.values())
            try:
                for anchor in given:
                    both.add(anchor)
            except ConfigurationError as err:
                raise ConfigurationError(f"{source}: {err}") from err
            new = both._anchors != self._anchors
            self._anchors = both._anchors
        return new

    def get(self, kid: str) -> Anchor | None:
        """The anchor of a key, retired or not."""
        return self._anchors.get(kid)

    def __iter__(self) -> Iterator[Anchor]:
        return iter(self._anchors.values())

    def resolve(self, kid: str, *, typ: str, iss: str, at: float) -> Anchor:
        """Find the key that may have signed a statement.

        Args:
            kid: From the token's header.
            typ: Of the statement.
            iss: Of the statement.
            at: When the statement says it was issued, in seconds since 1970.

        Raises:
            UnknownKeyError: T1.
            StatementError: T2 to T4.
        """
        anchor = self._anchors.get(kid)
        if anchor is None:
            pending = self.on_unknown is not None and self.on_unknown(kid)
            raise UnknownKeyError("T1", f"The trust store has no key {kid}", pending=pending)
        if typ not in anchor.typ:
            raise StatementError("T2", f"Key {kid} may not sign {typ}")
        if at < anchor.nbf or (anchor.exp is not None and at > anchor.exp):
            raise StatementError("T3", f"Key {kid} was not valid when the statement was issued")
        if iss != anchor.iss:
            raise StatementError("T4", f"Key {kid} does not belong to the statement's issuer")
        return anchor

    def verify(self, token: Token[AnchoredT]) -> None:
        """Check that a key that may has signed a statement.

        Args:
            token: As it was read.

        Raises:
            UnknownKeyError: T1.
            StatementError: T2 to T4, V7.
        """
        claims = token.claims
        check_signature(token, self.resolve(token.kid, typ=claims.typ, iss=claims.iss, at=claims.iat).x)
