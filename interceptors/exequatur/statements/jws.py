"""Compact JWS with Ed25519 (RFC 7515, RFC 8037): signing, and the checks that need no knowledge of the claims.

Rules, numbered as the code marks them:

V1  A token is no longer than its statement's cap. Checked before anything is decoded.
V2  It is three segments of canonical base64url.
V3  Its header is a JSON object with exactly ``alg``, ``kid`` (a thumbprint) and ``typ``, each once. So a ``crit``,
    ``jwk`` or ``x5u`` header is refused, known or not.
V4  ``alg`` is on the allow-list. ``none`` and HMAC can never be on it.
V5  ``typ`` is that of the statement that is expected here.
V6  The claims are a JSON object without duplicates and with exactly the fields of the statement.
V7  The signature is by the key that the caller found for ``kid``.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from exequatur.errors import StatementError
from exequatur.statements.encoding import compact_json, digest, from_base64url, strict_json, to_base64url
from exequatur.statements.keys import Signer, verify_signature
from exequatur.statements.models import Statement, claims_json
from exequatur.statements.recent import Recent

S = TypeVar("S", bound=Statement)

ALGORITHMS = frozenset({"EdDSA"})
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}\Z")


@dataclass(frozen=True)
class Token(Generic[S]):
    """A compact token and what it says. Whether that is to be believed is for the verifier to say."""

    text: str
    digest: str
    """SHA-256 of ``text``."""
    kid: str
    claims: S


_LONGEST_KEPT = 4096
"""Characters. Bounds what hostile tokens can make us remember."""
_read: Recent[str, Token[Any]] = Recent(2048)
"""Tokens that were read or signed here lately. Reading is a function of the text, so it need not be done again."""
_known_good: Recent[bytes, bool] = Recent(16_384)
"""Signatures found good before, so that a grant or a replayed receipt costs one verification a process. The key is the
SHA-256 of public key and whole token, signature included: a hit says no more than that these very bytes verified."""


def _fingerprint(x: str, token: str) -> bytes:
    return hashlib.sha256(f"{x} {token}".encode()).digest()


def _keep(token: Token[S]) -> Token[S]:
    if len(token.text) <= _LONGEST_KEPT:
        _read.put(token.text, token)
    return token


@lru_cache(maxsize=256)
def _signed_header(kid: str, typ: str) -> str:
    return to_base64url(compact_json({"alg": "EdDSA", "kid": kid, "typ": typ}))


def sign(statement: S, signer: Signer) -> Token[S]:
    """Sign a statement.

    Raises:
        ValueError: The token would be longer than its statement's cap.
    """
    signing_input = f"{_signed_header(signer.kid, statement.typ)}.{to_base64url(claims_json(statement))}"
    text = f"{signing_input}.{to_base64url(signer.sign(signing_input.encode()))}"
    if len(text) > statement.max_bytes:
        raise ValueError(f"{type(statement).__name__} has {len(text)} bytes, more than its {statement.max_bytes}")
    _known_good.put(_fingerprint(signer.x, text), True)
    return _keep(Token(text, digest(text), signer.kid, statement))


@lru_cache(maxsize=1024)
def _header(segment: str) -> dict[str, str]:
    """The header of a token.

    Raises:
        StatementError: V2, V3.
    """
    try:
        raw = from_base64url(segment)
    except ValueError as err:
        raise StatementError("V2", f"A statement's header is {err}") from err
    try:
        header = strict_json(raw)
    except ValueError as err:
        raise StatementError("V3", "A statement's header is not well-formed JSON without duplicates") from err
    if (
        not isinstance(header, dict)
        or set(header) != {"alg", "kid", "typ"}
        or not all(isinstance(v, str) for v in header.values())
        or not _THUMBPRINT.match(header["kid"])
    ):
        raise StatementError("V3", "A statement's header must hold exactly alg, kid (a thumbprint) and typ")
    return header


def type_of(text: str) -> str:
    """The ``typ`` that a token claims, to find out which statement to expect.

    Raises:
        StatementError: V2, V3.
    """
    return _header(_segments(text)[0])["typ"]


def kid_of(text: str) -> str:
    """The key that a token names, believed by nobody yet.

    Raises:
        StatementError: V2, V3.
    """
    return _header(_segments(text)[0])["kid"]


def _segments(text: str) -> tuple[str, str, str]:
    match text.split(".", 3):
        case [header, claims, signature] if len(header) <= 512 and text.isascii():
            return header, claims, signature
    raise StatementError("V2", "A statement is not a compact JWS of three segments")


def parse(text: str, kind: type[S]) -> Token[S]:
    """Read a token without believing it; V7 is left to :func:`check_signature`.

    Raises:
        StatementError: V1 to V6.
    """
    known = _read.get(text)
    if known is not None and type(known.claims) is kind:
        return known
    return _keep(_parse(text, kind))


def _parse(text: str, kind: type[S]) -> Token[S]:
    name = kind.__name__
    if len(text) > kind.max_bytes:
        raise StatementError("V1", f"{name} has {len(text)} bytes, more than {kind.max_bytes}")
    header_segment, claims_segment, signature_segment = _segments(text)
    header = _header(header_segment)
    if header["alg"] not in ALGORITHMS:
        raise StatementError("V4", f"{name} is signed with an algorithm that is not allowed")
    if header["typ"] != kind.typ:
        raise StatementError("V5", f"A statement of another type stands where {name} is expected")
    try:
        from_base64url(signature_segment)
        raw = from_base64url(claims_segment)
    except ValueError as err:
        raise StatementError("V2", f"{name} is {err}") from err
    try:
        strict_json(raw)
        claims = kind.model_validate_json(raw)
    except ValidationError as err:
        field = ".".join(map(str, err.errors(include_input=False)[0]["loc"]))[:200] or "claims"
        raise StatementError("V6", f"{name} has a missing, unknown or ill-typed field: {field}") from err
    except ValueError as err:
        raise StatementError("V6", f"The claims of {name} are not well-formed JSON without duplicates") from err
    return Token(text, digest(text), header["kid"], claims)


def check_signature(token: Token[S], x: str) -> None:
    """Check a token's signature.

    Args:
        token: What :func:`parse` gave.
        x: The public key for ``token.kid``, base64url.

    Raises:
        StatementError: V7.
    """
    key = _fingerprint(x, token.text)
    if _known_good.get(key):
        return
    signing_input, _, signature = token.text.rpartition(".")
    if not verify_signature(x, from_base64url(signature), signing_input.encode()):
        raise StatementError("V7", f"The signature of {type(token.claims).__name__} is wrong")
    _known_good.put(key, True)
