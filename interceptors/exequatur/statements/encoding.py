"""Encodings that every statement shares: strict base64url, SHA-256 digests and JSON without duplicates.

A lenient decoder would let two different texts stand for one statement, so each decoder here accepts exactly one text
for one value.
"""

import binascii
import hashlib
import json
import re
from typing import Any, NoReturn

from pydantic_core import to_json

_BASE64URL = re.compile(r"(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-][AQgw]|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048])?\Z")
"""Whole groups, and a last one whose unused bits are zero (RFC 4648, section 3.5)."""
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_", b"+/")


def to_base64url(data: bytes) -> str:
    """Encode without padding (RFC 7515, section 2)."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=").decode("ascii")


def from_base64url(text: str) -> bytes:
    """Decode what :func:`to_base64url` can produce.

    Raises:
        ValueError: ``text`` has padding, a foreign character, or unused bits that are not zero.
    """
    if not _BASE64URL.match(text):
        raise ValueError("not canonical base64url")
    return binascii.a2b_base64(text.encode("ascii").translate(_FROM_URL) + b"=" * (-len(text) % 4))


def digest(data: bytes | str) -> str:
    """SHA-256, base64url."""
    return to_base64url(hashlib.sha256(data.encode() if isinstance(data, str) else data).digest())


def compact_json(value: Any) -> bytes:
    """JSON without white space, members in the order given, non-ASCII characters as UTF-8.

    Raises:
        ValueError: ``value`` has a part that is not JSON, or text that is not UTF-8.
    """
    return to_json(value)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a member appears twice")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


MAX_DEPTH = 200
"""Levels of arrays and objects. Without a number of our own, what is read would depend on the interpreter's stack."""


_DECODER = json.JSONDecoder(object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant)


def strict_json(data: bytes | str) -> Any:
    """Parse RFC 8259 JSON; a member that appears twice is an error.

    Raises:
        ValueError: ``data`` is not UTF-8, not JSON (with its position), nested too deeply, or has a duplicate member.
    """
    text = data if isinstance(data, str) else data.decode("utf-8")
    try:
        value = _DECODER.decode(text)
    except RecursionError as err:
        raise ValueError("nested too deeply") from err
    # Only what has so many brackets can have so many levels, and counting them costs next to nothing.
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise ValueError("nested too deeply")
    return value


def _depth(value: Any) -> int:
    depth = 0
    level = [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [child for each in level for child in (each.values() if isinstance(each, dict) else each)]
    return depth
