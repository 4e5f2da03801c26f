"""Proof that whoever asks for a workload credential holds its key (RFC 7800, section 3).

Rules, numbered as the code marks them:

B1  The proof is by the very key that is to be credentialed.
B2  It is for this authority's trust domain and cluster, and for this order: roles, places, manifest and identity
    document are what was signed.
B3  It was made just now by the clocks of both. Who keeps track of ``jti`` until then takes a proof only once.
"""

from __future__ import annotations

import secrets
from typing import ClassVar

from exequatur.authority.api import CredentialBody
from exequatur.errors import StatementError
from exequatur.statements.encoding import compact_json, digest
from exequatur.statements.jws import Token, check_signature, parse, sign
from exequatur.statements.keys import Signer
from exequatur.statements.models import Digest, Name, Statement, Time

FRESH = 120.0
"""Seconds that an order may be on its way."""
KEPT = 3600.0
"""Seconds for which a proof has to be remembered: far longer than any two clocks may make it valid."""


class Possession(Statement):
    """Whoever signs this orders a credential for the signing key."""

    typ: ClassVar[str] = "exequatur-possession+jwt"
    max_bytes: ClassVar[int] = 1000

    aud: Name
    """Trust domain and cluster, as ``domain/cluster``."""
    iat: Time
    jti: Name
    order: Digest
    """Of the body without the proof."""


def prove(order: CredentialBody, signer: Signer, *, site: str, now: float) -> CredentialBody:
    """Complete an order with the proof.

    Args:
        order: All of it; what it has as proof is replaced.
        signer: The key that is to be credentialed.
        site: Trust domain and cluster of the authority, as ``domain/cluster``.
        now: Seconds since 1970.
    """
    claims = Possession(aud=site, iat=round(now, 3), jti=secrets.token_urlsafe(16), order=_digest(order))
    return order.model_copy(update={"proof": sign(claims, signer).text})


def verify_possession(order: CredentialBody, *, site: str, now: float, leeway: float) -> Token[Possession]:
    """Check the proof of an order.

    Args:
        order: As it arrived.
        site: See :func:`prove`.
        now: Seconds since 1970.
        leeway: Seconds that the clocks may be apart.

    Raises:
        StatementError: B1 to B3.
    """
    proof = parse(order.proof, Possession)
    check_signature(proof, order.key.x)  # B1
    if proof.claims.aud != site:  # [B2]
        raise StatementError("B2", f"The proof is for {proof.claims.aud[:200]}, and this is {site}")
    if proof.claims.order != _digest(order):  # [B2]
        raise StatementError("B2", "The proof is for another order")
    if not now - FRESH - leeway <= proof.claims.iat <= now + leeway:  # [B3]
        raise StatementError("B3", "The proof was not made just now; check the clocks")
    return proof


def _digest(order: CredentialBody) -> str:
    return digest(compact_json(["exequatur credential order v1", order.model_dump(mode="json", exclude={"proof"})]))
