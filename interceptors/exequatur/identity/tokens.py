"""Reads compact JWTs without believing them (RFC 7515, RFC 7519).

Rules, numbered as the code marks them:

R1  A token is no longer than :data:`~exequatur.identity.credential.MAX_TOKEN`. Checked before anything is decoded.
R2  It is three segments of canonical base64url, with a header and a signature.
R3  Header and claims are JSON objects in which no member appears twice.
R4  ``crit`` is refused, for no extension is understood here; and ``b64``, which would change what was signed (RFC
    7797). ``jku``, ``x5u``, ``jwk`` and ``x5c`` are never looked at: a token does not say by which key it is verified.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from exequatur.errors import IdentityError
from exequatur.identity.credential import MAX_TOKEN
from exequatur.statements.encoding import from_base64url, strict_json


@dataclass(frozen=True)
class Signed:
    """A compact JWS in its parts.

    Args:
        header: JOSE header.
        payload: What is signed besides.
        signed: What the signature is over.
        signature: The signature.
    """

    header: dict[str, Any] = field(repr=False)
    payload: bytes = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


@dataclass(frozen=True)
class Unverified(Signed):
    """A token, and what it says of itself.

    Args:
        claims: The payload.
    """

    claims: dict[str, Any] = field(repr=False)


def read(token: str) -> Unverified:
    """Read a token.

    Raises:
        IdentityError: R1 to R4.
    """
    parts = read_signed(token)
    claims = _object(parts.payload, "claims")
    return Unverified(parts.header, parts.payload, parts.signed, parts.signature, claims)


def read_signed(token: str) -> Signed:
    """Read a compact JWS, whatever it is about.

    Raises:
        IdentityError: R1, R2, R4, and R3 of its header.
    """
    if len(token) > MAX_TOKEN:  # [R1]
        raise IdentityError("R1", f"The token has {len(token)} characters, more than {MAX_TOKEN}")
    segments = token.split(".", 3)
    if len(segments) != 3 or not segments[0] or not segments[2]:  # [R2]
        raise IdentityError("R2", "The token is not a compact JWS of three segments")
    header, payload, signature = (_decoded(each) for each in segments)
    signed = token.rpartition(".")[0].encode("ascii")
    return Signed(_checked(_object(header, "header")), payload, signed, signature)


def _decoded(segment: str) -> bytes:
    try:
        return from_base64url(segment)
    except ValueError as err:  # [R2]
        raise IdentityError("R2", f"A segment of the token is {err}") from None


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        found = strict_json(data)
    except ValueError:  # [R3]
        raise IdentityError("R3", f"The token's {what} is not well-formed JSON without duplicates") from None
    if not isinstance(found, dict):  # [R3]
        raise IdentityError("R3", f"The token's {what} is not a JSON object")
    return found


def _checked(header: dict[str, Any]) -> dict[str, Any]:
    if "crit" in header or "b64" in header:  # [R4]
        raise IdentityError("R4", "The token's header asks for an extension (crit), and none is understood")
    return header
