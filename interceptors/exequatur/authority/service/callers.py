"""Who asks, and on whose behalf.

Rules, numbered as the code marks them (C are those of :mod:`exequatur.identity.callers`):

H7   Who asks is whom the identity configuration makes of the credentials that came (C1 to C6): never a body, a query or
     another header.
H8   A second credential in the same place makes a request ambiguous, and it is refused. So is the type of one that is
     not there: who lost it on the way did not ask on its own behalf.
H9   A token that may be used once is used once, by all processes of the authority together. It is remembered until it
     has ended itself. Who asked too often (H3) has not used it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from exequatur.authority.api import (
    CERTIFICATE,
    SUBJECT_HEADER,
    SUBJECT_TYPE_HEADER,
    TYPE_HEADER,
    credential_from,
)
from exequatur.authority.service.answers import Refused
from exequatur.authority.service.once import Once
from exequatur.errors import IdentityError
from exequatur.identity.callers import Identified, Identifies
from exequatur.identity.credential import MAX_TOKEN, Credential

KEPT = 3600.0
"""Seconds beyond its end for which a used token is remembered, whatever leeway its verifier gives it."""


@dataclass(frozen=True)
class Shown:
    """What came with a request.

    Args:
        asks: The credential of whoever asks; ``None`` for the connection's certificate.
        subject: On whose behalf, where it is shown besides.
        certificate: DER of the connection's client certificate.
    """

    asks: Credential | None
    subject: Credential | None = None
    certificate: bytes | None = None


def shown_in(headers: Mapping[str, list[str]], certificate: bytes | None) -> Shown:
    """Read the credentials of a request that is no token exchange.

    Args:
        headers: By name in lower case, each as often as it came.
        certificate: DER of the connection's client certificate.

    Raises:
        Refused: H8.
    """
    values = {}
    for name in ("Authorization", TYPE_HEADER, SUBJECT_HEADER, SUBJECT_TYPE_HEADER):
        given = headers.get(name.lower(), [])
        if len(given) > 1:  # [H8]
            raise Refused(400, "invalid_request", f"The header {name} comes twice")
        values[name] = given[0] if given else None
    bearer, subject = values["Authorization"], values[SUBJECT_HEADER]
    for type, token in ((TYPE_HEADER, "Authorization"), (SUBJECT_TYPE_HEADER, SUBJECT_HEADER)):
        if values[type] is not None and values[token] is None:  # [H8]
            raise Refused(400, "invalid_request", f"The header {type} came without {token}")
    asks = None
    if bearer is not None:
        scheme, _, token = bearer.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise _challenge("The header Authorization holds no bearer token")
        asks = _read(token.strip(), values[TYPE_HEADER])
    return Shown(asks, None if subject is None else _read(subject, values[SUBJECT_TYPE_HEADER]), certificate)


def _read(token: str, type: str | None) -> Credential:
    if len(token) > MAX_TOKEN:
        raise _challenge(f"A credential has {len(token)} characters, more than {MAX_TOKEN}")
    try:
        return credential_from(token, type)
    except ValueError:
        raise _challenge("A credential cannot be read") from None


def _challenge(description: str) -> Refused:
    return Refused(401, "invalid_token", description, headers={"WWW-Authenticate": "Bearer"})


class Callers:
    """Finds out who asks.

    Args:
        identity: The identity configuration.
        once: Remembers what may be used once.
        leeway: Seconds that the clocks may be apart.
        clock: Seconds since 1970.
    """

    def __init__(self, identity: Identifies, once: Once, leeway: float, clock: Callable[[], float]) -> None:
        self._identity = identity
        self._once = once
        self._leeway = leeway
        self._clock = clock

    def find(self, shown: Shown) -> Identified:
        """Find out who asks. May block.

        Raises:
            IdentityError: H7.
            IdentityUnavailableError: It cannot be found out now.
        """
        subject, actor = shown.asks, None
        if shown.subject is not None:
            subject, actor = shown.subject, shown.asks or CERTIFICATE
        return self._identity.identify(subject, self._clock(), actor=actor, certificate=shown.certificate)  # H7

    def use_up(self, found: Identified) -> None:
        """Take the tokens that may be used once. May block.

        Raises:
            IdentityError: H9.
            StoreUnavailableError: H9 cannot be kept now.
        """
        for each in found.once:
            if not self._once.first(each.name, until=each.ends + self._leeway + KEPT):  # [H9]
                raise IdentityError("H9", "The token was used before, and may be used once only")
