"""Where statements travel in Temporal: header and metadata names, and payload digests (DESIGN section 2).

Rules for the headers that are read here:

H1  Of our own headers there is the one that belongs there, and no other. A start that signals carries both its grant
    and the signal's permit, and Temporal hands both headers to both.
H2  It is within its cap.
H3  A start header is a JSON string.
H4  A Nexus header is packed tokens in base64url; their name is not there in two spellings.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence

from temporalio.api.common.v1 import Payload

from exequatur.errors import StatementError
from exequatur.statements.encoding import from_base64url, strict_json, to_base64url
from exequatur.statements.packing import pack, unpack

PREFIX = "exequatur-"
START_HEADER = "exequatur-grant"
"""On a workflow start: the JSON string of compact tokens joined by ``~``, so that any client can write it."""
MESSAGE_HEADER = "exequatur-message"
"""On a signal, query or update: the JSON string of compact tokens joined by ``~``."""
ACTIVITY_HEADER = "exequatur-request"
"""On an activity: packed tokens."""
NEXUS_HEADER = "exequatur-nexus"
"""On a Nexus operation: packed tokens in base64url. Nexus headers are strings, and no codec encodes them."""
RECEIPT = "exequatur-receipt"
"""Metadata key on a result."""
HEARTBEAT = "exequatur-heartbeat"
"""Metadata key on the first heartbeat detail."""

MAX_HEADER_BYTES = 65_536
MAX_NEXUS_BYTES = 8192
"""Of all names and values together; the server takes no more (``component.nexusoperations.limit.header.size``)."""
_NAMED = 60
_DOES_NOT_FIT = "!"
"""Begins what stands in the place of statements that do not fit, followed by their size."""


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
    """What a start or message header holds."""
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
    if name == MESSAGE_HEADER and ours == {START_HEADER}:
        return None
    together = {START_HEADER, MESSAGE_HEADER}
    if ours != {name} and not (name in together and ours == together):
        raise StatementError("H1", f"Headers {_named(ours)} where only {name} belongs")
    payload = headers[name]
    if len(payload.data) > MAX_HEADER_BYTES:
        raise StatementError("H2", f"Header {name} is too large")
    return payload


def _named(headers: Iterable[str]) -> str:
    """As much of their names as a sentence holds: whoever sends them writes them, up to megabytes."""
    return ", ".join(each[:_NAMED] for each in sorted(headers)[:4])


def read_start_header(headers: Mapping[str, Payload]) -> list[str] | None:
    """The tokens of a workflow's start header, or ``None`` when it has none of ours.

    Raises:
        StatementError: H1, H2, H3 it is not a JSON string.
    """
    return _tokens(headers, START_HEADER)


def read_message_header(headers: Mapping[str, Payload]) -> list[str] | None:
    """The tokens of a signal's, query's or update's header, or ``None`` when it has none of ours.

    Raises:
        StatementError: H1, H2, H3 it is not a JSON string.
    """
    return _tokens(headers, MESSAGE_HEADER)


def _tokens(headers: Mapping[str, Payload], name: str) -> list[str] | None:
    payload = _only(headers, name)
    if payload is None:
        return None
    try:
        text = strict_json(payload.data)
    except ValueError:
        text = None
    if not isinstance(text, str):
        raise StatementError("H3", f"Header {name} is not a JSON string; is it encrypted with another codec?")
    return text.split("~")


def read_activity_header(headers: Mapping[str, Payload]) -> list[str] | None:
    """The tokens of an activity's header, or ``None`` when it has none of ours.

    Raises:
        StatementError: H1, H2, K1 to K4.
    """
    payload = _only(headers, ACTIVITY_HEADER)
    return None if payload is None else unpack(payload.data)


def nexus_headers(given: Mapping[str, str], fresh: Sequence[str], kept: Sequence[str] = ()) -> dict[str, str]:
    """Headers of a Nexus operation, with statements added to those that were given.

    What does not fit is left out and its size is said instead, so that whoever handles the operation can say why it is
    refused. Which statements there are is not recorded, so a caller cannot fail for it in the same way on replay.

    Args:
        given: The caller's own.
        fresh: Compact tokens, as :func:`exequatur.statements.packing.pack` takes them.
        kept: See there.
    """
    others = without_nexus(given)
    taken = sum(len(name.lower().encode()) + len(value.encode()) for name, value in others.items())
    try:
        text = to_base64url(pack(fresh, kept))
    except ValueError:
        return {**others, NEXUS_HEADER: _DOES_NOT_FIT}
    size = taken + len(NEXUS_HEADER) + len(text)
    return {**others, NEXUS_HEADER: text if size <= MAX_NEXUS_BYTES else f"{_DOES_NOT_FIT}{size}"}


def fits_nexus(headers: Mapping[str, str]) -> bool:
    """Whether the statements that :func:`nexus_headers` was to add are there."""
    return not headers[NEXUS_HEADER].startswith(_DOES_NOT_FIT)


def read_nexus_headers(headers: Mapping[str, str]) -> list[str] | None:
    """The tokens of a Nexus operation's headers, or ``None`` when there are none of ours.

    Raises:
        StatementError: H1, H2, H4, K1 to K4.
    """
    ours = [(name.lower(), value) for name, value in headers.items() if name.lower().startswith(PREFIX)]
    if not ours:
        return None
    name, text = ours[0]
    if len(ours) > 1 or name != NEXUS_HEADER:  # [H4]
        raise StatementError("H1", f"Headers {_named(each for each, _ in ours)} where one {NEXUS_HEADER} belongs")
    if len(text) > MAX_HEADER_BYTES:
        raise StatementError("H2", f"Header {name} is too large")
    if text.startswith(_DOES_NOT_FIT):
        raise StatementError(
            "H2",
            f"The caller's statements do not fit into the {MAX_NEXUS_BYTES} bytes that Nexus headers may have; shorten "
            "the delegation chain, the principal's attributes, the restrictions or the operation's own headers",
        )
    try:
        packed = from_base64url(text)
    except ValueError as err:
        raise StatementError("H4", f"Header {name} is {err}") from err
    return unpack(packed)


def without_nexus(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers as the caller's own code wrote them."""
    return {name: value for name, value in headers.items() if not name.lower().startswith(PREFIX)}
