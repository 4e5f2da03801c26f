"""Development: a name is believed because it is said.

Rules, numbered as the code marks them:

L1  Only an authority whose configuration has a verifier of kind ``local`` believes a name, and it says so loudly.
L2  A name is ``Type::"id"``, or a JSON object with ``principal``, ``attributes`` and ``parents`` and nothing else.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from exequatur.errors import IdentityError
from exequatur.identity.credential import LOCAL_TYPE, Credential
from exequatur.identity.principal import Principal
from exequatur.identity.verifier import Claims
from exequatur.statements.encoding import strict_json

LASTS = 3600.0
"""Seconds that such a credential is taken to last."""
_MEMBERS = {"principal", "attributes", "parents"}

logger = logging.getLogger("exequatur")


@dataclass(frozen=True)
class LocalVerifier:
    """Believes names.

    Args:
        name: As the configuration calls it.
    """

    name: str

    def __post_init__(self) -> None:
        logger.warning(  # [L1]
            "The verifier %r believes whatever name it is told: for development only, never where others can connect",
            self.name,
        )

    def accepts(self, credential: Credential) -> bool:
        return credential.type == LOCAL_TYPE

    def verify(self, credential: Credential, now: float) -> Claims:
        """Read a name.

        Raises:
            IdentityError: L2.
        """
        text = credential.token.strip()
        try:
            principal = _described(text) if text.startswith("{") else Principal.parse(text)
        except (ValueError, TypeError):  # [L2]
            raise IdentityError("L2", 'A local credential is Type::"id", or a JSON object with principal') from None
        return Claims(
            verifier=self.name,
            issuer="local",
            subject=str(principal),
            values={"sub": str(principal)},
            expires=now + LASTS,
            principal=principal,
        )


def _described(text: str) -> Principal:
    """A principal with attributes and parents.

    Raises:
        ValueError: L2.
        TypeError: The same.
    """
    document = strict_json(text)
    if set(document) - _MEMBERS or not isinstance(document.get("principal"), str):  # [L2]
        raise ValueError("it has other members")
    attributes, parents = document.get("attributes", {}), document.get("parents", [])
    if not isinstance(attributes, dict) or not isinstance(parents, list):
        raise ValueError("attributes are an object, parents a list")
    named = Principal.parse(document["principal"])
    return Principal(named.type, named.id, attributes, parents)
