"""JWTs of an OpenID provider or OAuth 2.0 authorization server (RFC 7519, RFC 9068, OpenID Connect Core 1.0).

The checks are those that RFC 8725 asks for. Rules, numbered as the code marks them (R are those of
:mod:`exequatur.identity.tokens`, K those of :mod:`exequatur.identity.keyset`):

O1  Algorithms are those of the configuration, each asymmetric (K1). The token's header chooses among them, no more.
O2  The signature verifies by a key of the issuer (K2 to K6).
O3  ``typ`` is what is asked for, or else absent, ``JWT`` or ``at+jwt``: a logout token or a proof is no identity.
O4  ``iss`` is the issuer, to the letter.
O5  ``aud`` names this authority: one of the configured audiences, to the letter, is it or is in it.
O6  ``exp`` is there and has not passed; ``nbf`` and ``iat`` have. Clocks may differ by the leeway.
O7  It does not live longer than is allowed, from ``iat`` where there is one.
O8  ``sub`` is text that is not empty, and what is required besides is there.
O9  ``azp`` or ``client_id`` is one of the configured clients, where some are.
O10  A token that may be used once has an id (``jti``).
O11  A token that is bound to a key (``cnf``) is believed only where it is bound to a TLS client certificate (RFC 8705):
     then the connection must have that certificate. Other proofs cannot be checked here, and without its proof it
     would be a stolen token.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from exequatur.errors import ConfigurationError, IdentityError
from exequatur.identity.credential import ACCESS_TOKEN_TYPE, ID_TOKEN_TYPE, JWT_TYPE, Credential
from exequatur.identity.keyset import ALGORITHMS, KeySet
from exequatur.identity.tokens import Signed, read
from exequatur.identity.verifier import Claims

DEFAULT_ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519")
TOKEN_TYPES = {"jwt": JWT_TYPE, "access_token": ACCESS_TOKEN_TYPE, "id_token": ID_TOKEN_TYPE}
_PLAIN_TYPES = ("jwt", "at+jwt")
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_LATEST = 253_402_300_799
"""The last second of the year 9999."""


class Keys(Protocol):
    """The issuer's keys, wherever they come from."""

    def for_token(self, token: Signed) -> KeySet:
        """The keys that are there now, fetched again if the one that the token names is missed.

        Raises:
            IdentityUnavailableError: They cannot be had now.
        """
        ...


@dataclass(frozen=True)
class OidcVerifier:
    """Believes the tokens of one issuer.

    Args:
        name: As the configuration calls it.
        issuer: ``iss``.
        audiences: Names of this authority; tokens for others are refused.
        keys: The issuer's.
        algorithms: Those that it signs with.
        leeway: Seconds that clocks may differ.
        max_lifetime: Seconds that a token may live; ``None`` for any.
        required: Claims that have to be there.
        type: ``typ`` that is asked for, such as ``at+jwt``; ``None`` for an ordinary JWT.
        token_types: Token type URIs that it takes.
        clients: Client ids that a token may have been issued to; empty for any.
        once: Whether a token may be exchanged once only.

    Raises:
        ConfigurationError: O1, or there is no audience.
    """

    name: str
    issuer: str
    audiences: tuple[str, ...]
    keys: Keys
    algorithms: tuple[str, ...] = DEFAULT_ALGORITHMS
    leeway: float = 30.0
    max_lifetime: float | None = None
    required: tuple[str, ...] = ()
    type: str | None = None
    token_types: tuple[str, ...] = tuple(TOKEN_TYPES.values())
    clients: tuple[str, ...] = ()
    once: bool = False

    def __post_init__(self) -> None:
        check_algorithms(self.name, self.algorithms)
        if not self.audiences:
            raise ConfigurationError(f"Verifier {self.name!r} has no audience; name this authority as the issuer does")

    def accepts(self, credential: Credential) -> bool:
        if credential.type not in self.token_types:
            return False
        try:
            return bool(read(credential.token).claims.get("iss") == self.issuer)
        except IdentityError:
            return False

    def verify(self, credential: Credential, now: float) -> Claims:
        """Verify a token.

        Raises:
            IdentityError: R1 to R4, K1, K3 to K6, O3 to O11.
            IdentityUnavailableError: The issuer's keys cannot be had now.
        """
        token = read(credential.token)
        claims = token.claims
        self.keys.for_token(token).verify(token, self.algorithms)  # [O2]
        check_type(token, (self.type.lower(),) if self.type else _PLAIN_TYPES, required=self.type is not None)  # [O3]
        if claims.get("iss") != self.issuer:  # [O4]
            raise IdentityError("O4", "The token is of another issuer")
        check_audience(claims, self.audiences)  # [O5]
        expires = check_times(claims, now, self.leeway, self.max_lifetime)  # [O6]
        subject = claims.get("sub")
        if not isinstance(subject, str) or not subject:  # [O8]
            raise IdentityError("O8", "The token does not say about whom it is (sub)")
        missing = [name for name in self.required if claims.get(name) in (None, "", [], {})]
        if missing:  # [O8]
            raise IdentityError("O8", f"The token lacks a claim that is required: {', '.join(missing)}")
        if self.clients and claims.get("azp", claims.get("client_id")) not in self.clients:  # [O9]
            raise IdentityError("O9", "The token was issued to a client that is not configured (azp)")
        token_id = claims.get("jti")
        if token_id is not None and not (isinstance(token_id, str) and token_id):
            raise IdentityError("O10", "The token's id (jti) is not text")
        if self.once and token_id is None:  # [O10]
            raise IdentityError("O10", "A token of this issuer is used once, and this one has no id (jti)")
        return Claims(
            verifier=self.name,
            issuer=self.issuer,
            subject=subject,
            values=claims,
            expires=expires,
            token_id=token_id,
            certificate=bound_to(claims),
            once=self.once,
        )


def check_algorithms(name: str, algorithms: Sequence[str]) -> None:
    """O1, when the configuration is read.

    Raises:
        ConfigurationError: One of them is not asymmetric, or not known.
    """
    wrong = [each for each in algorithms if each not in ALGORITHMS]
    if wrong or not algorithms:  # [O1]
        named = ", ".join(wrong) or "no algorithm"
        raise ConfigurationError(f"Verifier {name!r}: {named} cannot be used; choose among {', '.join(ALGORITHMS)}")


def check_type(token: Signed, allowed: Sequence[str], *, required: bool) -> None:
    """O3: the media type may be written with or without ``application/`` (RFC 7515, section 4.1.9).

    Raises:
        IdentityError: O3.
    """
    given = token.header.get("typ")
    if given is None and not required:
        return
    if not isinstance(given, str) or given.lower().removeprefix("application/") not in allowed:  # [O3]
        raise IdentityError("O3", f"The token is of another type than {' or '.join(allowed)} (typ)")


def check_audience(claims: dict[str, Any], audiences: Sequence[str]) -> None:
    """O5.

    Raises:
        IdentityError: It is for somebody else.
    """
    given = claims.get("aud")
    named = [given] if isinstance(given, str) else given
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        raise IdentityError("O5", "The token does not say for whom it is (aud)")
    if not set(named) & set(audiences):  # [O5]
        raise IdentityError("O5", "The token is for another audience than this authority (aud)")


def check_times(claims: dict[str, Any], now: float, leeway: float, max_lifetime: float | None) -> float:
    """O6 and O7.

    Args:
        claims: Of the token.
        now: Seconds since 1970.
        leeway: Seconds that clocks may differ.
        max_lifetime: Seconds that it may live.

    Returns:
        When it ends.

    Raises:
        IdentityError: O6, O7.
    """
    times = {name: _time(claims, name) for name in ("exp", "nbf", "iat")}
    expires, issued = times["exp"], times["iat"]
    if expires is None:  # [O6]
        raise IdentityError("O6", "The token has no end (exp)")
    if now >= expires + leeway:  # [O6]
        raise IdentityError("O6", f"The token ended {now - expires:.0f} s ago; get a new one")
    for name in ("nbf", "iat"):
        begins = times[name]
        if begins is not None and now + leeway < begins:  # [O6]
            raise IdentityError("O6", f"The token begins {begins - now:.0f} s from now ({name}); check the clocks")
    if max_lifetime is not None:
        # Without a time of issue it may have been issued just now.
        lives = expires - issued if issued is not None else expires - now
        if lives > max_lifetime + leeway:  # [O7]
            raise IdentityError("O7", f"The token lives {lives:.0f} s; {max_lifetime:.0f} s is the most")
    return expires


def _time(claims: dict[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519, section 2)."""
    given = claims.get(name)
    if given is None:
        if name in claims:
            raise IdentityError("O6", f"The token's {name} is not a time")
        return None
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise IdentityError("O6", f"The token's {name} is not a time")
    # The comparison first: an integer may be too large for a float.
    if not 0 <= given <= _LATEST or not math.isfinite(given):
        raise IdentityError("O6", f"The token's {name} is not a time")
    return float(given)


def bound_to(claims: dict[str, Any]) -> str | None:
    """O11: the thumbprint of the certificate that a token is bound to.

    Raises:
        IdentityError: It is bound to something else.
    """
    if "cnf" not in claims:
        return None
    confirmation = claims["cnf"]
    known = isinstance(confirmation, dict) and list(confirmation) == ["x5t#S256"]
    thumbprint = confirmation["x5t#S256"] if known else None
    if not isinstance(thumbprint, str) or not _THUMBPRINT.match(thumbprint):  # [O11]
        raise IdentityError("O11", "The token is bound to a key in a way that cannot be checked here (cnf)")
    return thumbprint
