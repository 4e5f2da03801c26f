"""Verifiers of credentials, and how several of them stand together.

A verifier knows one issuer and says what a credential of it claims. Which principal that is, the mapping says
(:mod:`exequatur.identity.mapping`). Rules, numbered as the code marks them:

V1  A credential is for exactly one verifier, by its type and by the issuer that it names. If none or several accept it,
    it is refused: the first one that happens to verify must not decide whose word counts.
V2  What a verifier raises unforeseen refuses the credential.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from exequatur.errors import ConfigurationError, ExequaturError, IdentityError
from exequatur.identity.credential import MAX_TOKEN, Credential
from exequatur.identity.principal import Principal

logger = logging.getLogger("exequatur")

V = TypeVar("V", bound="_Named")


@dataclass(frozen=True)
class Claims:
    """What a verified credential says.

    Args:
        verifier: Name of the verifier.
        issuer: Who says it.
        subject: About whom.
        values: All claims, as JSON.
        expires: Seconds since 1970.
        token_id: ``jti``, if there is one.
        certificate: Thumbprint of the TLS client certificate that the token is bound to (RFC 8705, section 3.1).
        once: Whether the token may be exchanged once only.
        principal: Whom it stands for, where the verifier itself says so.
        workload: Path of the SPIFFE id that was verified.
    """

    verifier: str
    issuer: str
    subject: str
    values: Mapping[str, Any] = field(repr=False)
    expires: float
    token_id: str | None = None
    certificate: str | None = None
    once: bool = False
    principal: Principal | None = None
    workload: str | None = None


class _Named(Protocol):
    @property
    def name(self) -> str:
        """As the configuration calls it."""
        ...


class Verifier(_Named, Protocol):
    """Believes the tokens of one issuer."""

    def accepts(self, credential: Credential) -> bool:
        """Whether the credential says that it is of this verifier's issuer. Cheap, proves nothing, never raises."""
        ...

    def verify(self, credential: Credential, now: float) -> Claims:
        """Verify a credential; may fetch keys, so call it from a thread that may wait.

        Args:
            credential: One that it accepts.
            now: Seconds since 1970.

        Raises:
            IdentityError: It is refused.
            IdentityUnavailableError: It cannot be found out now.
        """
        ...


class CertificateVerifier(_Named, Protocol):
    """Believes the client certificates of one CA."""

    def accepts_certificate(self, certificate: bytes) -> bool:
        """Whether a certificate, as DER, looks like one of this verifier's. Cheap, proves nothing, never raises."""
        ...

    def verify_certificate(self, certificate: bytes, now: float) -> Claims:
        """Verify the client certificate of a TLS connection.

        Args:
            certificate: DER. That the other side holds its key, the TLS handshake has shown.
            now: Seconds since 1970.

        Raises:
            IdentityError: It is refused.
            IdentityUnavailableError: It cannot be found out now.
        """
        ...


class Verifiers:
    """All of an authority's.

    Args:
        tokens: Of tokens.
        certificates: Of TLS client certificates.

    Raises:
        ConfigurationError: Two have one name.
    """

    def __init__(self, tokens: Sequence[Verifier], certificates: Sequence[CertificateVerifier] = ()) -> None:
        self._tokens = tuple(tokens)
        self._certificates = tuple(certificates)
        self.names = (*(each.name for each in self._tokens), *(each.name for each in self._certificates))
        for name in self.names:
            if self.names.count(name) > 1:
                raise ConfigurationError(f"Two verifiers are called {name!r}; give each a name of its own")

    def verify(self, credential: Credential, now: float) -> Claims:
        """Verify a token.

        Args:
            credential: The token and its type.
            now: Seconds since 1970.

        Raises:
            IdentityError: V1, or a rule of the verifier.
            IdentityUnavailableError: It cannot be found out now.
        """
        if len(credential.token) > MAX_TOKEN:
            raise IdentityError("V1", f"The credential has {len(credential.token)} characters, more than {MAX_TOKEN}")
        found = _only([each for each in self._tokens if each.accepts(credential)], "credential")
        return _guarded(lambda: found.verify(credential, now))

    def verify_certificate(self, certificate: bytes, now: float) -> Claims:
        """Verify the client certificate of a TLS connection.

        Args:
            certificate: DER.
            now: Seconds since 1970.

        Raises:
            IdentityError: V1, or a rule of the verifier.
            IdentityUnavailableError: It cannot be found out now.
        """
        accepting = [each for each in self._certificates if each.accepts_certificate(certificate)]
        found = _only(accepting, "client certificate")
        return _guarded(lambda: found.verify_certificate(certificate, now))


def _only(accepting: list[V], what: str) -> V:
    if not accepting:  # [V1]
        raise IdentityError("V1", f"No verifier is for such a {what}: check its type and issuer, and the configuration")
    if len(accepting) > 1:  # [V1]
        names = ", ".join(each.name for each in accepting)
        raise IdentityError("V1", f"Several verifiers are for this {what} ({names}); only one may be")
    return accepting[0]


def _guarded(verify: Callable[[], Claims]) -> Claims:
    try:
        return verify()
    except ExequaturError:
        raise
    except Exception as err:  # [V2]
        # Without the traceback: its frames may show the token.
        logger.error("A verifier failed with %s; the credential is refused", type(err).__name__)
        raise IdentityError("V2", "The credential cannot be verified: it is not what its verifier can read") from None
