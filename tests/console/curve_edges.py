"""Signatures at the edges of Ed25519, where libraries are known to differ.

Made after the classes of "Taming the Many EdDSAs" (Chalkias, Garillot, Nikolaenko, 2020): points of small order, keys
and first halves that have a part of small order, encodings that are not canonical, and scalars that are not reduced.
The curve is that of RFC 8032, section 5.1; nothing here is fast or hides a secret.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha512
from itertools import product

from exequatur.statements.encoding import to_base64url

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
Edge = tuple[str, str, bytes, bytes]
"""What it is, the public key, the signature and what is signed."""


def add(one: Point, other: Point) -> Point:
    (x1, y1), (x2, y2) = one, other
    both = D * x1 * x2 * y1 * y2
    return (x1 * y2 + x2 * y1) * pow(1 + both, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - both, -1, P) % P


def times(number: int, point: Point) -> Point:
    found: Point = (0, 1)
    while number:
        if number & 1:
            found = add(found, point)
        point, number = add(point, point), number >> 1
    return found


def on_curve(y: int) -> Point | None:
    """The point with this y and an even x, if there is one."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P:
        return None
    return (P - x if x & 1 else x, y)


def encoded(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def number(data: bytes) -> int:
    return int.from_bytes(data, "little")


BASE = on_curve(4 * pow(5, -1, P) % P) or (0, 1)
TORSION = next(
    found for y in range(2, 100) if (point := on_curve(y)) and times(4, found := times(ORDER, point)) != (0, 1)
)
"""A point of order eight."""
SMALL = tuple(times(each, TORSION) for each in range(8))


def encodings(point: Point) -> Iterator[bytes]:
    """Every encoding that a lenient decoder takes for a point."""
    x, y = point
    for written in (y, y + P):
        for sign in {x & 1, (x & 1) ^ (x == 0)}:
            if written < 2**255:
                yield (written | sign << 255).to_bytes(32, "little")


def edges() -> Iterator[Edge]:
    """Signatures that some libraries take and others do not."""
    message, secret, nonce = b"pay 5", 0x1234567, 0x7654321
    key, first = times(secret, BASE), times(nonce, BASE)

    def challenge(r: bytes, a: bytes, data: bytes) -> int:
        return number(sha512(r + a + data).digest()) % ORDER

    def signed(r: bytes, a: bytes, data: bytes = message, s_of: int = secret, r_of: int = nonce) -> bytes:
        return r + ((r_of + challenge(r, a, data) * s_of) % ORDER).to_bytes(32, "little")

    x, r = encoded(key), encoded(first)
    honest = signed(r, x)
    yield "honest", to_base64url(x), honest, message
    yield "of something else", to_base64url(x), honest, b"pay 6"
    for multiple in range(1, 16):
        s = number(honest[32:]) + multiple * ORDER
        if s < 2**256:
            yield (
                f"a scalar with the order added {multiple} times",
                to_base64url(x),
                r + s.to_bytes(32, "little"),
                message,
            )
    for length in (0, 1, 32, 63, 65, 128):
        yield f"{length} bytes", to_base64url(x), (honest * 2)[:length], message
    # A key of small order: one signature fits many messages.
    for at, data in product(range(8), (b"a", b"b", b"c", b"d")):
        for a in encodings(SMALL[at]):
            yield f"a key that is {at} eighths, {a.hex()[:4]}", to_base64url(a), signed(r, a, data, s_of=0), data
            for other in encodings(SMALL[-at % 8]):
                yield f"both halves of small order, {at}", to_base64url(a), other + bytes(32), data
    # A first half of small order.
    for at in range(8):
        for small in encodings(SMALL[at]):
            yield f"a first half that is {at} eighths", to_base64url(x), signed(small, x, r_of=0), message
    # Parts of small order in the key, in the first half, and in both: with and without the cofactor they differ.
    for one, other, data in product(range(8), range(8), (b"a", b"b", b"c")):
        a, mixed = encoded(add(key, SMALL[one])), encoded(add(first, SMALL[other]))
        yield f"{one} eighths in the key and {other} in the first half", to_base64url(a), signed(mixed, a, data), data
    # Encodings of points that nobody has made, and of none.
    for y in (*range(19), P - 1, P, P + 1, P + 3, 2**255 - 1):
        for sign in (0, 1):
            a = (y | sign << 255).to_bytes(32, "little")
            yield f"a key with y {y % P} and sign {sign}", to_base64url(a), signed(r, a, s_of=0), message
            yield f"a first half with y {y % P} and sign {sign}", to_base64url(x), signed(a, x, r_of=0), message
    for length in (0, 31, 33):
        yield f"a key of {length} bytes", to_base64url((x * 2)[:length]), honest, message
    yield "a key that is not canonical base64url", to_base64url(x)[:-1] + "B", honest, message
