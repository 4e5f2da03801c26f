"""The keys of an issuer: a JWK set by URL, from a file, or found by OpenID discovery.

Rules, numbered as the code marks them (D are those of :mod:`exequatur.identity.documents`):

W1  A key that a token names and that is not there is looked for once more at the issuer (D5, D7).
W2  Discovery is believed only if the document names the very issuer (OpenID Connect Discovery 1.0, section 4.3), and
    its ``jwks_uri`` is one that may be asked (D1).
W3  A set without a single usable key is not taken for the issuer's: the one before it stays, as when it is away.
"""

from __future__ import annotations

from dataclasses import dataclass

from exequatur.errors import ConfigurationError
from exequatur.identity.documents import Kept, WebSource, check_url
from exequatur.identity.keyset import KeySet
from exequatur.identity.tokens import Signed
from exequatur.statements.encoding import strict_json


@dataclass(frozen=True)
class IssuerKeys:
    """Keys that are kept for a while.

    Args:
        kept: The key set.
    """

    kept: Kept[KeySet]

    def for_token(self, token: Signed) -> KeySet:
        return self.kept.get(lambda keys: keys.knows(token))  # W1


def keys_in(data: bytes, use: str = "sig") -> KeySet:
    """Read a JWK set.

    Raises:
        ValueError: It is none, or W3.
    """
    try:
        keys = KeySet.of(strict_json(data), use=use)
    except ValueError as err:
        raise ValueError(f"the key set cannot be read: {err}") from None
    if not keys.keys:  # [W3]
        raise ValueError("the key set has no key that verifies tokens")
    return keys


class DiscoveredSource:
    """The JWK set that an issuer's discovery document names.

    Args:
        issuer: ``https``.
        loopback: Whether ``http`` may be, if the host is this machine.

    Raises:
        ConfigurationError: The issuer is no URL that may be asked.
    """

    def __init__(self, issuer: str, *, loopback: bool = False) -> None:
        self._issuer, self._loopback = issuer, loopback
        self._document = WebSource(f"{issuer.rstrip('/')}/.well-known/openid-configuration", loopback=loopback)

    def __str__(self) -> str:
        return str(self._document)

    def changed(self) -> None:
        return None

    def read(self) -> bytes:
        """Read the document, and then the keys.

        Raises:
            IdentityUnavailableError: One of them cannot be fetched.
            ValueError: W2.
        """
        document = strict_json(self._document.read())
        if not isinstance(document, dict) or document.get("issuer") != self._issuer:  # [W2]
            raise ValueError("the discovery document is not the issuer's")
        url = document.get("jwks_uri")
        try:
            check_url(url if isinstance(url, str) else "", loopback=self._loopback)  # [W2]
        except ConfigurationError:
            raise ValueError("the discovery document names no URL of keys that may be asked") from None
        return WebSource(str(url), loopback=self._loopback).read()
