"""How statements travel: one short byte string for a list of compact tokens.

A compact JWS is base64url of JSON, which is a third larger than it needs to be, and the JSON repeats its member names in
each token. Packed, each segment is decoded and deflated against a fixed dictionary of those names. Unpacking gives back
the very token that was signed, because only canonical base64url is accepted.

Format: ``0x01``, then for each token ``u32be length`` and a raw deflate stream (RFC 1951) of
``u16be len(header) header u32be len(claims) claims signature``.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from functools import lru_cache

from exequatur.errors import StatementError
from exequatur.statements.encoding import from_base64url, to_base64url

MAX_TOKENS = 64
"""A grant, then a delegation and a credential for each level of delegation, then a request and its credential."""
MAX_TOKEN_BYTES = 40_000
"""Inflated; more than the largest statement."""

_VERSION = b"\x01"
_KEPT_BYTES = 2048
# Bounds what hostile tokens can make us remember: 512 of at most 40 kB.

# A part of format version 1: it must never change.
_DICTIONARY = (
    b'{"digest":"","assurance":"attested"}{"alg":"EdDSA","kid":"","typ":"exequatur-delegation+jwt"}'
    b'"},"activities":["*"],"continues_as":[],"depth":1,"parent_run_id":"","parent":""'
    b'{"alg":"EdDSA","kid":"","typ":"exequatur-heartbeat+jwt"}{"iss":"","iat":,"request":"","run_id":"","attempt":1,'
    b'"details":""}{"alg":"EdDSA","kid":"","typ":"exequatur-seal+jwt"}"head":"","outcome":"continued","next":{'
    b'"outcome":"denied","outcome":"failed","outcome":"cancelled","outcome":"rejected","outcome":"revoked",'
    b'"decision":"deny","reason":"","core":{"grant":"{"alg":"EdDSA","kid":"","typ":"exequatur-workload+jwt"}'
    b'{"iss":"","sub":"spiffe:///worker/","aud":"","iat":1,"nbf":1,"exp":1,"jti":"","cnf":{"jwk":{"kty":"OKP",'
    b'"crv":"Ed25519","x":""}},"roles":["request","receipt","delegate","seal"],"namespaces":["default"],'
    b'"task_queues":["*"],"activities":["*"],"code":{"digest":"","assurance":"self-asserted"}}'
    b'{"alg":"EdDSA","kid":"","typ":"exequatur-grant+jwt"}{"ver":1,"iss":"dev:","sub":"Agent::\\"","aud":"'
    b'exequatur.local/default/default","iat":1,"nbf":1,"exp":1,"start_by":1,"jti":"","attributes":{},"parents":[],'
    b'"authorization_details":[{"type":"temporal_workflow","workflow_type":"","workflow_id":"","task_queue":"",'
    b'"activities":["*"],"continues_as":[],"input":"","reuse":"once"}],"bundle":"","policies":[""],"mode":"enforce",'
    b'"recorded_queues":[]}{"alg":"EdDSA","kid":"","typ":"exequatur-receipt+jwt"}{"iss":"spiffe:///worker/","iat":17,'
    b'"request":"","request_digest":"","activity_id":"1","activity_type":"","workflow_id":"","run_id":"","attempt":1,'
    b'"decision":"allow","enforced":true,"policies":[""],"bundle":"","bundle_sequence":1,"revocations":{"version":0,'
    b'"age":0.},"facts":"","rechecks":0,"started":17,"outcome":"completed","result":"","log":{"id":"","index":,'
    b'"head":""}}{"alg":"EdDSA","kid":"","typ":"exequatur-request+jwt"}{"grant":"","workflow_id":"",'
    b'"original_run_id":"","seq":1,"activity_type":"","prev":"","iss":"spiffe:///worker/","jti":"","iat":17,'
    b'"namespace":"default","workflow_type":"","run_id":"","first_run_id":"","task_queue":"","args":"","seen":[],'
    b'"local":false}'
)


def _deflate(token: str) -> bytes:
    header, claims, signature = (from_base64url(part) for part in token.split("."))
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY)
    raw = struct.pack(">H", len(header)) + header + struct.pack(">I", len(claims)) + claims + signature
    body = deflater.compress(raw) + deflater.flush()
    return struct.pack(">I", len(body)) + body


_deflate_kept = lru_cache(maxsize=4096)(_deflate)


def pack(fresh: Iterable[str], kept: Iterable[str] = ()) -> bytes:
    """Pack compact tokens.

    Args:
        fresh: Tokens that are packed once.
        kept: Tokens that many packs share, such as the run's grant: their packed form is remembered. They come first.

    Raises:
        ValueError: A token is not a compact JWS.
    """
    return b"".join((_VERSION, *map(_deflate_kept, kept), *map(_deflate, fresh)))


def _inflate(body: bytes) -> str:
    inflater = zlib.decompressobj(-15, zdict=_DICTIONARY)
    try:
        raw = inflater.decompress(body, MAX_TOKEN_BYTES)
        if not inflater.eof or inflater.unused_data or inflater.unconsumed_tail:
            raise StatementError("K3", "A packed statement is truncated, too large or has bytes left over")
        (header_size,) = struct.unpack_from(">H", raw)
        claims_at = 2 + header_size
        (claims_size,) = struct.unpack_from(">I", raw, claims_at)
        signature_at = claims_at + 4 + claims_size
        if signature_at > len(raw):
            raise StatementError("K4", "A packed statement's lengths do not add up")
    except (zlib.error, struct.error) as err:
        raise StatementError("K2", "A packed statement is damaged") from err
    return ".".join(map(to_base64url, (raw[2:claims_at], raw[claims_at + 4 : signature_at], raw[signature_at:])))


_inflate_kept = lru_cache(maxsize=512)(_inflate)


def unpack(data: bytes) -> list[str]:
    """Give back the compact tokens that were packed.

    Raises:
        StatementError: K1 unknown format or too many tokens, K2 damaged, K3 truncated or too large, K4 bad lengths.
    """
    if data[:1] != _VERSION:
        raise StatementError("K1", "This is not a packed statement of format 1")
    tokens: list[str] = []
    at = 1
    while at < len(data):
        if at + 4 > len(data) or len(tokens) >= MAX_TOKENS:
            raise StatementError("K1", "A packed statement is truncated or holds too many tokens")
        (size,) = struct.unpack_from(">I", data, at)
        body = data[at + 4 : at + 4 + size]
        if len(body) != size:
            raise StatementError("K2", "A packed statement is damaged")
        tokens.append(_inflate_kept(body) if size <= _KEPT_BYTES else _inflate(body))
        at += 4 + size
    return tokens
