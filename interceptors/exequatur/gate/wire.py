"""Where statements travel in Temporal: header and metadata names, and payload digests (DESIGN section 2).

Rules for the headers that are read here:

H1  Of our own headers there is the one that belongs there, and no other.
H2  It is within its cap.
H3  A start header is a JSON string.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence

from temporalio.api.common.v1 import Payload

from exequatur.errors import StatementError
from exequatur.statements.encoding import strict_json, to_base64url
from exequatur.statements.packing import pack, unpack

PREFIX = "exequatur-"
START_HEADER = "exequatur-grant"
"""On a workflow start: the JSON string of compact tokens joined by ``~``, so that any client can write it."""
ACTIVITY_HEADER = "exequatur-request"
"""On an activity: packed tokens."""
RECEIPT = "exequatur-receipt"
"""Metadata key on a result."""
HEARTBEAT = "exequatur-heartbeat"
"""Metadata key on the first heartbeat detail."""

MAX_HEADER_BYTES = 65_536


def payload_hash(payload: Payload) -> bytes:
    """SHA-256 of a payload's metadata, except our own, and its data."""
    hasher = hashlib.sha256()
    metadata = payload.metadata
    for key in sorted(metadata):
        if not key.startswith(PREFIX):
            name, value = key.encode(), metadata[key]
            hasher.update(struct.pack(">I", len(name)) + name + struct.pack(">I", len(value)) + value)
    data = payload.data
    hasher.update(struct.pack(">Q", len(data)))
    hasher.update(data)
    return hasher.digest()


def payloads_digest(payloads: Iterable[Payload]) -> str:
    """SHA-256 over the concatenated hashes, base64url."""
    return to_base64url(hashlib.sha256(b"".join(map(payload_hash, payloads))).digest())


def without_ours(payload: Payload) -> Payload:
    """The payload as user code wrote it."""
    return Payload(
        metadata={key: value for key, value in payload.metadata.items() if not key.startswith(PREFIX)},
        data=payload.data,
        external_payloads=payload.external_payloads,
    )


def start_header(tokens: Sequence[str]) -> Payload:
    return Payload(metadata={"encoding": b"json/plain"}, data=json.dumps("~".join(tokens)).encode())


def activity_header(fresh: Sequence[str], kept: Sequence[str]) -> Payload:
    return Payload(metadata={"encoding": b"binary/plain"}, data=pack(fresh, kept))


def _only(headers: Mapping[str, Payload], name: str) -> Payload | None:
    """Our one header.

    Raises:
        StatementError: H1 another header of ours is there, H2 it is too large.
    """
    ours = {key for key in headers if key.startswith(PREFIX)}
    if not ours:
        return None
    if ours != {name}:
        raise StatementError("H1", f"Headers {sorted(ours)} where only {name} belongs")
    payload = headers[name]
    if len(payload.data) > MAX_HEADER_BYTES:
        raise StatementError("H2", f"Header {name} is too large")
    return payload


def read_start_header(headers: Mapping[str, Payload]) -> list[str] | None:
    """The tokens of a workflow's start header, or ``None`` when it has none of ours.

    Raises:
        StatementError: H1, H2, H3 it is not a JSON string.
    """
    payload = _only(headers, START_HEADER)
    if payload is None:
        return None
    try:
        text = strict_json(payload.data)
    except ValueError:
        text = None
    if not isinstance(text, str):
        raise StatementError("H3", f"Header {START_HEADER} is not a JSON string; is it encrypted with another codec?")
    return text.split("~")


def read_activity_header(headers: Mapping[str, Payload]) -> list[str] | None:
    """The tokens of an activity's header, or ``None`` when it has none of ours.

    Raises:
        StatementError: H1, H2, K1 to K4.
    """
    payload = _only(headers, ACTIVITY_HEADER)
    return None if payload is None else unpack(payload.data)
