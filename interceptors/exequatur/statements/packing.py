"""How statements travel: one short byte string for a list of compact tokens.

A compact JWS is base64url of JSON, which is a third larger than it needs to be; the JSON repeats its member names in
each token, and much of the rest is digests, which do not compress. Packed, each digest is 32 raw bytes and what is left
is deflated against a fixed dictionary and, from the second token on, the text of the first, which names the same
workflow. A digest that the tokens before it give, such as that of the grant on which a request stands, is not repeated
but referred to. Unpacking gives back the very token that was signed, because only canonical base64url is accepted.

Format: ``0x01``, then for each token ``u16be length`` and that many bytes:

* ``u16be length`` and a raw deflate stream (RFC 1951) of header, ``NUL``, claims, in which each JSON string that is the
  base64url of 32 bytes is the single character ``SOH`` instead, or ``STX`` and a printable ASCII character: the first
  digest that the tokens before give is space, the next ``!``, and so on. Each gives its own SHA-256, the digests that
  stand in it, and the thumbprints of the keys in it;
* the 32 bytes of each that is ``SOH``, in their order;
* the signature.

Rules for what is unpacked:

K1  It is of format 1, and of no more tokens than a header needs.
K2  Each token is as long as it says, and deflated.
K3  The stream ends where it should, and is not too large inflated.
K4  The parts of a token add up, and it refers to nothing but what the tokens before it give.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable
from functools import lru_cache

from exequatur.errors import StatementError
from exequatur.statements.encoding import digest, from_base64url, to_base64url
from exequatur.statements.keys import thumbprint
from exequatur.statements.recent import Recent

MAX_TOKENS = 64
"""A grant, then a delegation and a credential for each level of delegation, then a request and its credential."""
MAX_TOKEN_BYTES = 40_000
"""Header and claims inflated; more than the largest statement."""

_VERSION = b"\x01"
_NUL, _SOH, _STX = b"\x00", b"\x01", b"\x02"
# Neither can stand in JSON (RFC 8259, section 7).
_DIGEST = re.compile(rb'"([A-Za-z0-9_-]{42}[AEIMQUYcgkosw048])"')
_KEY = re.compile(rb'"x":"([A-Za-z0-9_-]{42}[AEIMQUYcgkosw048])"')
_PLACE = re.compile(rb"\x01|\x02([ -~])")
_DIGEST_BYTES = 32
_REFERENCES = 95
"""Printable ASCII characters."""
_KEPT_BYTES = 2048
_KEPT_BEFORE = 16_384
# Together they bound what hostile tokens can make us remember: 512 of at most 40 kB, and what came before each.

# A part of the format: it must never change without another version.
_DICTIONARY = (
    b'{"digest":\x01,"assurance":"attested"}{"alg":"EdDSA","kid":\x01,"typ":"exequatur-delegation+jwt"}'
    b'"},"activities":["*"],"continues_as":[],"depth":1,"parent_run_id":"","parent":\x01'
    b'{"alg":"EdDSA","kid":\x01,"typ":"exequatur-heartbeat+jwt"}\x00{"iss":"","iat":,"request":\x01,"run_id":"",'
    b'"attempt":1,"details":\x01}{"alg":"EdDSA","kid":\x01,"typ":"exequatur-seal+jwt"}\x00"head":\x01,"outcome":'
    b'"continued","next":{"outcome":"denied","outcome":"failed","outcome":"cancelled","outcome":"rejected",'
    b'"outcome":"revoked","decision":"deny","reason":"","core":{"grant":"'
    b'{"alg":"EdDSA","kid":\x01,"typ":"exequatur-workload+jwt"}\x00{"iss":"dev:","sub":"spiffe://exequatur.local/worker/'
    b'","aud":"exequatur.local/default","iat":17.0,"nbf":17.0,"exp":17.0,"jti":"","cnf":{"jwk":{"kty":"OKP","crv":'
    b'"Ed25519","x":\x01}},"roles":["request","receipt","delegate","seal"],"namespaces":["default"],"task_queues":["'
    b'"],"activities":["*"],"code":{"digest":\x01,"assurance":"self-asserted"}}'
    b'{"alg":"EdDSA","kid":\x01,"typ":"exequatur-grant+jwt"}\x00{"ver":1,"iss":"dev:","sub":"Agent::\\"","aud":"'
    b'exequatur.local/default/default","iat":17.0,"nbf":17.0,"exp":17.0,"start_by":17.0,"jti":"","attributes":{},'
    b'"parents":[],"authorization_details":[{"type":"temporal_workflow","workflow_type":"","workflow_id":"",'
    b'"task_queue":"","activities":["*"],"continues_as":[],"input":\x01,"reuse":"once"}],"bundle":\x01,"policies":["'
    b'"],"mode":"enforce","recorded_queues":[]}'
    b'{"alg":"EdDSA","kid":\x01,"typ":"exequatur-receipt+jwt"}\x00{"iss":"spiffe://exequatur.local/worker/","iat":17,'
    b'"request":\x01,"request_digest":\x01,"activity_id":"1","activity_type":"","workflow_id":"","run_id":"",'
    b'"attempt":1,"decision":"allow","enforced":true,"policies":["","bundle":\x01,"bundle_sequence":1,"revocations":{'
    b'"version":0,"age":0.},"facts":\x01,"rechecks":0,"started":17,"outcome":"completed","result":\x01,"log":{"id":"'
    b'","index":,"head":\x01}}{"alg":"EdDSA","kid":\x01,"typ":"exequatur-request+jwt"}\x00{"grant":\x01,"workflow_id":"'
    b'","original_run_id":"01a2","seq":1,"activity_type":"","prev":\x01,"iss":"spiffe://exequatur.local/worker/",'
    b'"jti":\x01,"iat":17,"namespace":"default","workflow_type":"","run_id":"","first_run_id":"","task_queue":"",'
    b'"args":\x01,"seen":[1],"local":false}'
)


def _text(token: str) -> bytes:
    """Header and claims with the digests taken out."""
    return _DIGEST.sub(_SOH, _raw_text(token))


def _raw_text(token: str) -> bytes:
    header, claims, _ = token.split(".")
    text = from_base64url(header) + _NUL + from_base64url(claims)
    if text.count(_NUL) != 1 or _SOH in text or _STX in text:
        raise ValueError("not JSON")
    return text


@lru_cache(maxsize=512)
def _gives(token: str) -> tuple[bytes, ...]:
    """The digests that tokens after this one may refer to, base64url."""
    text = _raw_text(token)
    keys = (thumbprint(x.decode()).encode() for x in _KEY.findall(text))
    return (digest(token).encode(), *_DIGEST.findall(text), *keys)


@lru_cache(maxsize=512)
def _references(before: tuple[str, ...]) -> dict[bytes, int]:
    """The digests that may be referred to and their numbers, in the order of these."""
    given = dict.fromkeys(given for token in before for given in _gives(token))
    return {given: number for number, given in zip(range(_REFERENCES), given, strict=False)}


def _shrink(token: str, before: tuple[str, ...]) -> bytes:
    digests: list[bytes] = []
    references = _references(before)

    def take(match: re.Match[bytes]) -> bytes:
        number = references.get(match[1])
        if number is not None:
            return _STX + bytes((ord(" ") + number,))
        digests.append(from_base64url(match[1].decode()))
        return _SOH

    text = _DIGEST.sub(take, _raw_text(token))
    dictionary = _dictionary(before[0] if before else None)
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, dictionary)
    deflated = deflater.compress(text) + deflater.flush()
    body = b"".join((struct.pack(">H", len(deflated)), deflated, *digests, from_base64url(token.rpartition(".")[2])))
    _remember(body, before, token)
    return struct.pack(">H", len(body)) + body


@lru_cache(maxsize=512)
def _dictionary(first: str | None) -> bytes:
    """What a token is deflated against."""
    return _DICTIONARY if first is None else _DICTIONARY + _text(first)


_shrink_kept = lru_cache(maxsize=4096)(_shrink)


def pack(fresh: Iterable[str], kept: Iterable[str] = ()) -> bytes:
    """Pack compact tokens.

    Args:
        fresh: Tokens that are packed once.
        kept: Tokens that many packs share, such as the run's grant: their packed form is remembered. They come first.

    Raises:
        ValueError: A token is not a compact JWS, or too long, or there is none.
    """
    kept, fresh = list(kept), list(fresh)
    if not kept and not fresh:
        raise ValueError("there is nothing to pack")
    before: tuple[str, ...] = ()
    parts: list[bytes] = []
    try:
        for shrink, tokens in ((_shrink_kept, kept), (_shrink, fresh)):
            for token in tokens:
                parts.append(shrink(token, before))
                before = (*before, token)
        return b"".join((_VERSION, *parts))
    except struct.error as err:
        raise ValueError("a statement is too long to be packed") from err


def _grow(body: bytes, before: tuple[str, ...]) -> str:
    inflater = zlib.decompressobj(-15, zdict=_dictionary(before[0] if before else None))
    try:
        (size,) = struct.unpack_from(">H", body)
        text = inflater.decompress(body[2 : 2 + size], MAX_TOKEN_BYTES)
    except (zlib.error, struct.error) as err:
        raise StatementError("K2", "A packed statement is damaged") from err
    if not inflater.eof or inflater.unused_data or 2 + size > len(body):
        raise StatementError("K3", "A packed statement is truncated, too large or has bytes left over")
    signature_at = 2 + size + _DIGEST_BYTES * text.count(_SOH)
    header, _, claims = text.partition(_NUL)
    if text.count(_NUL) != 1 or signature_at > len(body):
        raise StatementError("K4", "A packed statement's parts do not add up")
    at = 2 + size
    given = tuple(_references(before)) if _STX in text else ()

    def give(match: re.Match[bytes]) -> bytes:
        nonlocal at
        if match[1] is not None:
            number = match[1][0] - ord(" ")
            if number >= len(given):
                raise StatementError("K4", "A packed statement refers to a digest that no statement before it gives")
            return b'"' + given[number] + b'"'
        at += _DIGEST_BYTES
        return b'"' + to_base64url(body[at - _DIGEST_BYTES : at]).encode() + b'"'

    header, claims = _PLACE.sub(give, header), _PLACE.sub(give, claims)
    if _STX in header + claims:
        raise StatementError("K4", "A packed statement has a reference that is none")
    return ".".join(map(to_base64url, (header, claims, body[signature_at:])))


_grown: Recent[tuple[bytes, tuple[str, ...]], str] = Recent(512)


def _remember(body: bytes, before: tuple[str, ...], token: str) -> str:
    if len(body) <= _KEPT_BYTES and sum(map(len, before)) <= _KEPT_BEFORE:
        _grown.put((body, before), token)
    return token


def unpack(data: bytes) -> list[str]:
    """Give back the compact tokens that were packed.

    Raises:
        StatementError: K1 to K4.
    """
    if data[:1] != _VERSION:
        raise StatementError("K1", "This is not a packed statement of format 1")
    tokens: list[str] = []
    at = 1
    while at < len(data):
        if at + 2 > len(data) or len(tokens) >= MAX_TOKENS:
            raise StatementError("K1", "A packed statement is truncated or holds too many tokens")
        (size,) = struct.unpack_from(">H", data, at)
        body = data[at + 2 : at + 2 + size]
        if len(body) != size:
            raise StatementError("K2", "A packed statement is damaged")
        before = tuple(tokens)
        tokens.append(_grown.get((body, before)) or _remember(body, before, _grow(body, before)))
        at += 2 + size
    return tokens
