"""DSSE envelopes with Ed25519: signing, and the checks that need no knowledge of what is signed.

Source: https://github.com/secure-systems-lab/dsse (protocol 1.0.2).

Rules, numbered as the code marks them:

E1  An envelope is no longer than its cap. Checked before anything is decoded.
E2  It is a JSON object with exactly ``payload``, ``payloadType`` and ``signatures``, without duplicates.
E3  ``payloadType`` is the one that is expected here.
E4  The payload is canonical base64.
E5  One of its signatures, over the pre-authentication encoding, is by a key that is trusted now.
E6  It has no more signatures than a person would collect, so that nobody makes us verify for long.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, ValidationError

from exequatur.errors import StatementError
from exequatur.integrity.keys import ManifestKeys
from exequatur.statements.encoding import strict_json
from exequatur.statements.keys import Signer, verify_signature
from exequatur.statements.models import Part

MAX_BYTES = 8 * 1024 * 1024
"""Some fifty thousand source files."""
MAX_SIGNATURES = 16


class Signature(Part):
    """One signature of an envelope."""

    keyid: Annotated[str, Field(max_length=200)] = ""
    sig: Annotated[str, Field(max_length=200)]


class Envelope(Part):
    """A payload and who signed it."""

    payload: str
    payloadType: str  # noqa: N815 (DSSE names it so)
    signatures: tuple[Signature, ...]


def encoded(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding, which is what gets signed (DSSE protocol, "Signature Definition")."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload_type: str, payload: bytes, signers: Iterable[Signer]) -> str:
    """Make an envelope, as JSON.

    Args:
        payload_type: Media type of the payload.
        payload: What is signed.
        signers: Who signs.

    Raises:
        ValueError: It would be longer than an envelope may be.
    """
    data = encoded(payload_type, payload)
    envelope = Envelope(
        payload=base64.b64encode(payload).decode(),
        payloadType=payload_type,
        signatures=tuple(Signature(keyid=each.kid, sig=base64.b64encode(each.sign(data)).decode()) for each in signers),
    )
    text = envelope.model_dump_json()
    if len(text) > MAX_BYTES:
        raise ValueError(f"it has {len(text)} bytes, more than {MAX_BYTES >> 20} MiB")
    return text


def opened(text: str | bytes, payload_type: str, keys: ManifestKeys, now: float) -> tuple[bytes, str]:
    """Verify an envelope.

    Args:
        text: The envelope, as JSON.
        payload_type: What is expected.
        keys: Who may sign it.
        now: Seconds since 1970.

    Returns:
        The payload, and the id of the key that signed it.

    Raises:
        StatementError: E1 to E6.
    """
    if len(text) > MAX_BYTES:  # [E1]
        raise StatementError("E1", f"The envelope has more than {MAX_BYTES >> 20} MiB")
    try:
        envelope = Envelope.model_validate_json(_checked(text))
    except ValidationError as err:
        field = ".".join(map(str, err.errors(include_input=False)[0]["loc"]))[:100]
        raise StatementError("E2", f"The envelope has a missing, unknown or ill-typed field: {field}") from err
    except ValueError as err:
        raise StatementError("E2", "The envelope is not well-formed JSON without duplicates") from err
    if envelope.payloadType != payload_type:
        raise StatementError("E3", f"The envelope holds another type of payload than {payload_type}")
    if len(envelope.signatures) > MAX_SIGNATURES:
        raise StatementError("E6", f"The envelope has more than {MAX_SIGNATURES} signatures")
    payload = _decoded(envelope.payload)
    if payload is None:
        raise StatementError("E4", "The payload of the envelope is not canonical base64")
    data = encoded(envelope.payloadType, payload)
    for each in envelope.signatures:
        key, signature = keys.find(each.keyid, now), _decoded(each.sig)
        if key is not None and signature is not None and verify_signature(key.x, signature, data):
            return payload, key.kid
    raise StatementError("E5", "No key that is trusted for manifests now has signed the envelope")


def _checked(text: str | bytes) -> str | bytes:
    strict_json(text)
    return text


def _decoded(text: str) -> bytes | None:
    """The bytes of canonical base64, or ``None``."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data).decode() == text else None
