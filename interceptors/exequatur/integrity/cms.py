"""Signed messages as clouds hand them out: CMS SignedData with its content inside (RFC 5652), read and verified.

``cryptography`` writes such messages and does not verify them. What is needed is little: one signer, RSA with SHA-256,
and a certificate that was configured, so no chain is built. The encoding is BER, because signers stream.

Rules, numbered as the code marks them:

C1  It is BER with bounded nesting, nothing behind it, and tags and lengths in their short, certain forms.
C2  It is SignedData that holds plain data, and has exactly one signer.
C3  The digest is SHA-256, the signature RSA PKCS #1 v1.5.
C4  Where attributes are signed instead of the content, they are signed once each, and name the content's digest and
    type.
C5  The signature is by the key of a configured certificate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from exequatur.errors import StatementError

_DEPTH = 16
_SIGNED_DATA = bytes.fromhex("2a864886f70d010702")
_DATA = bytes.fromhex("2a864886f70d010701")
_CONTENT_TYPE = bytes.fromhex("2a864886f70d010903")
_MESSAGE_DIGEST = bytes.fromhex("2a864886f70d010904")
_SHA256 = bytes.fromhex("608648016503040201")
_RSA = frozenset({bytes.fromhex("2a864886f70d010101"), bytes.fromhex("2a864886f70d01010b")})
_INTEGER, _OCTETS, _OID, _SEQUENCE, _SET, _TAG_0 = 0x02, 0x04, 0x06, 0x30, 0x31, 0xA0
_CONSTRUCTED = 0x20
_OCTETS_IN_PARTS = _OCTETS | _CONSTRUCTED


@dataclass(frozen=True)
class _Element:
    tag: int
    body: bytes
    parts: tuple[_Element, ...]
    raw: bytes
    definite: bool


def signed_content(data: bytes, keys: Iterable[RSAPublicKey]) -> bytes:
    """The content of a signed message, once its signature is verified.

    Args:
        data: The message.
        keys: Of the configured certificates.

    Raises:
        StatementError: C1 to C5.
    """
    message, end = _read(data, 0, len(data), 0)
    if end != len(data):  # [C1]
        raise StatementError("C1", "Something follows the signed message")
    kind, wrapped = _expect(message, _SEQUENCE, _OID, _TAG_0)
    if kind.body != _SIGNED_DATA or len(wrapped.parts) != 1:  # [C2]
        raise StatementError("C2", "It is no signed message")
    fields = wrapped.parts[0].parts
    if len(fields) < 4 or fields[0].tag != _INTEGER or fields[-1].tag != _SET or len(fields[-1].parts) != 1:
        raise StatementError("C2", "The signed message does not have exactly one signer")
    inner, holder = _expect(fields[2], _SEQUENCE, _OID, _TAG_0)
    if inner.body != _DATA or len(holder.parts) != 1:
        raise StatementError("C2", "The signed message does not hold plain data")
    content = _octets(holder.parts[0])
    signed, signature = _signer(fields[-1].parts[0], content)
    for key in keys:
        try:
            key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            continue
        return content
    raise StatementError("C5", "No configured certificate's key has signed the message")


def _signer(signer: _Element, content: bytes) -> tuple[bytes, bytes]:
    """What was signed, and the signature."""
    fields = [each for each in signer.parts if each.tag != _TAG_0]
    attributes = [each for each in signer.parts if each.tag == _TAG_0]
    if signer.tag != _SEQUENCE or len(fields) < 5 or fields[4].tag != _OCTETS or len(attributes) > 1:
        raise StatementError("C2", "The signed message's signer cannot be read")
    hashing, signing = fields[2].parts, fields[3].parts
    if not hashing or not signing or hashing[0].body != _SHA256 or signing[0].body not in _RSA:
        raise StatementError("C3", "The message is not signed with RSA and SHA-256")
    if not attributes:
        return content, fields[4].body
    if not attributes[0].definite:
        raise StatementError("C4", "The signed attributes are not in their certain form")
    found: dict[bytes, list[_Element]] = {_MESSAGE_DIGEST: [], _CONTENT_TYPE: []}
    for each in attributes[0].parts:
        name, values = _expect(each, _SEQUENCE, _OID, _SET)
        found.setdefault(name.body, []).extend(values.parts)
    told = [each.body for each in found[_MESSAGE_DIGEST]], [each.body for each in found[_CONTENT_TYPE]]
    if told != ([hashlib.sha256(content).digest()], [_DATA]):
        raise StatementError("C4", "The signed attributes are not about the content")
    # They are signed as the set that they are, whatever tag they travel under (RFC 5652, section 5.4).
    return bytes([_SET]) + attributes[0].raw[1:], fields[4].body


def _expect(element: _Element, tag: int, *tags: int) -> tuple[_Element, ...]:
    if element.tag != tag or tuple(each.tag for each in element.parts) != tags:
        raise StatementError("C2", "The signed message is not laid out as one")
    return element.parts


def _octets(element: _Element) -> bytes:
    if element.tag == _OCTETS:
        return element.body
    if element.tag == _OCTETS_IN_PARTS and all(each.tag == _OCTETS for each in element.parts):
        return b"".join(each.body for each in element.parts)
    raise StatementError("C2", "The content of the signed message cannot be read")


def _read(data: bytes, at: int, limit: int, depth: int) -> tuple[_Element, int]:
    """C1: the element that begins at a place, and where it ends."""
    begin = at
    if at + 2 > limit:
        raise StatementError("C1", "The signed message breaks off")
    tag, length = data[at], data[at + 1]
    at += 2
    if tag & 0x1F == 0x1F or depth > _DEPTH:
        raise StatementError("C1", "The signed message is no BER that a signer writes")
    if length == 0x80 and tag & _CONSTRUCTED:
        parts = []
        while at + 2 > limit or data[at : at + 2] != b"\0\0":
            part, at = _read(data, at, limit, depth + 1)
            parts.append(part)
        return _Element(tag, b"", tuple(parts), data[begin : at + 2], definite=False), at + 2
    if length >= 0x80:
        size = length & 0x7F
        length = int.from_bytes(data[at : at + size], "big")
        if not 1 <= size <= 4 or length < 0x80:
            raise StatementError("C1", "A length in the signed message is not in its short form")
        at += size
    end = at + length
    if end > limit:
        raise StatementError("C1", "The signed message breaks off")
    body, inside = data[at:end], []
    while tag & _CONSTRUCTED and at < end:
        part, at = _read(data, at, end, depth + 1)
        inside.append(part)
    return _Element(tag, body, tuple(inside), data[begin:end], definite=True), end
