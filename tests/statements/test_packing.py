"""Rules K: packed tokens unpack to the very tokens that were packed, or not at all."""

import struct
import tracemalloc
import zlib
from contextlib import suppress

import pytest

from exequatur.errors import StatementError
from exequatur.statements.encoding import digest
from exequatur.statements.packing import _DICTIONARY, MAX_TOKENS, pack, unpack
from tests.simulator import Scene, forge, header_of, refused


def deflated(text: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY)
    return deflater.compress(text) + deflater.flush()


def framed(*bodies: bytes) -> bytes:
    return b"\x01" + b"".join(struct.pack(">H", len(body)) + body for body in bodies)


def body_of(stream: bytes, rest: bytes = bytes(64)) -> bytes:
    return struct.pack(">H", len(stream)) + stream + rest


def parts_of(token: str) -> tuple[bytes, bytes]:
    """The deflate stream and what follows it, as the token is packed."""
    body = pack([token])[3:]
    (size,) = struct.unpack_from(">H", body)
    return body[2 : 2 + size], body[2 + size :]


def test_the_format_is_that_of_the_description(scene: Scene) -> None:
    assert unpack(framed(body_of(*parts_of(scene.grant)))) == [scene.grant]
    assert unpack(framed(body_of(deflated(b'{}\x00{"a":"b"}'), b"signature"))) == ["e30.eyJhIjoiYiJ9.c2lnbmF0dXJl"]


def test_every_statement_comes_back_as_it_was_signed(scene: Scene) -> None:
    delegation = scene.delegation_under(scene.grant)
    seal = scene.seal_under(scene.grant)
    tokens = [scene.grant, delegation, scene.workflows.credential, seal, scene.receipt(), scene.mark(), scene.request]
    assert unpack(pack(tokens)) == tokens
    assert unpack(pack(tokens[3:], kept=tokens[:3])) == tokens
    assert len(pack(tokens)) < sum(map(len, tokens)) * 0.7


def test_a_large_token_comes_back(scene: Scene) -> None:
    # Over the size whose unpacked form is remembered.
    claims = {"note": "".join(chr(0x4E00 + n) for n in range(5000))}
    token = forge(header_of(scene.grant), claims, scene.attacker)
    assert unpack(pack([token])) == [token]


@pytest.mark.parametrize("text", ["", "a", "a.b", "a.b.c.d", "é.a.a", "AA==.AA.AA", "AA.AA.AA", "e30.AQ.AA"])
def test_what_is_no_token_cannot_be_packed(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        pack([text])


@pytest.mark.rule("K1")
def test_another_format_is_refused(scene: Scene) -> None:
    for packed in (b"", b"\x00", b"\x02" + pack([scene.grant])[1:], scene.grant.encode()):
        with refused("K1"):
            unpack(packed)


@pytest.mark.rule("K1")
def test_a_length_that_is_cut_off_is_refused(scene: Scene) -> None:
    with refused("K1"):
        unpack(pack([scene.grant]) + b"\x00")


@pytest.mark.rule("K1")
def test_more_tokens_than_a_header_can_hold_are_refused(scene: Scene) -> None:
    assert len(unpack(pack([scene.mark()] * MAX_TOKENS))) == MAX_TOKENS
    with refused("K1"):
        unpack(pack([scene.mark()] * (MAX_TOKENS + 1)))


@pytest.mark.rule("K2")
def test_a_token_that_is_cut_off_is_refused(scene: Scene) -> None:
    # The length says more than there is, and the whole token is in what there is.
    packed = pack([scene.grant])
    with refused("K2"):
        unpack(packed[:1] + struct.pack(">H", len(packed) - 2) + packed[3:])


@pytest.mark.rule("K2")
def test_bytes_that_are_not_deflated_are_refused() -> None:
    for stream in (b"\xff" * 20, b"\x06", b"\x01\x05\x00\x00\x00hello"):
        with refused("K2"):
            unpack(framed(body_of(stream)))


@pytest.mark.rule("K2")
def test_a_token_too_short_for_its_own_length_is_refused() -> None:
    for body in (b"", b"\x00"):
        with refused("K2"):
            unpack(framed(body))


@pytest.mark.rule("K3")
def test_a_stream_that_does_not_end_is_refused(scene: Scene) -> None:
    stream, rest = parts_of(scene.grant)
    for missing in (1, 2, 8):
        with refused("K3"):
            unpack(framed(body_of(stream[:-missing], rest)))


@pytest.mark.rule("K3")
def test_bytes_after_the_end_of_a_stream_are_refused(scene: Scene) -> None:
    stream, rest = parts_of(scene.grant)
    with refused("K3"):
        unpack(framed(body_of(stream + b"\x00", rest)))


@pytest.mark.rule("K3")
def test_a_stream_that_is_shorter_than_its_length_is_refused() -> None:
    stream = deflated(b"{}\x00{}")
    with refused("K3"):
        unpack(framed(struct.pack(">H", len(stream) + 1) + stream))


@pytest.mark.rule("K3")
def test_a_small_stream_that_inflates_without_bound_is_refused_in_little_memory() -> None:
    bomb = framed(body_of(deflated(bytes(50_000_000))))
    assert len(bomb) < 65_536
    tracemalloc.start()
    try:
        with refused("K3"):
            unpack(bomb)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.rule("K4")
def test_a_text_without_two_parts_is_refused() -> None:
    for text in (b"", b"{}", b"{}{}"):
        with refused("K4"):
            unpack(framed(body_of(deflated(text))))


@pytest.mark.rule("K4")
def test_fewer_digests_than_the_text_has_places_for_are_refused() -> None:
    text = b'{"kid":\x01}\x00{"jti":\x01}'
    assert unpack(framed(body_of(deflated(text), bytes(64))))
    with refused("K4"):
        unpack(framed(body_of(deflated(text), bytes(63))))


@pytest.mark.parametrize(
    "first", [b"{}\x00{}\x00{}", b"\x00", b"\x01\x00\x01", b'{"a":\x01\x01}\x00', b"\xff\x00\xff"], ids=repr
)
def test_a_first_token_that_nobody_signed_does_not_upset_the_second(scene: Scene, first: bytes) -> None:
    # What is deflated in a second token refers to the first.
    with suppress(StatementError):
        unpack(framed(body_of(deflated(first)), body_of(deflated(b"{}\x00{}"))))


def test_what_the_tokens_before_give_is_referred_to(scene: Scene) -> None:
    tokens = [scene.grant, scene.workflows.credential, scene.request]
    # The request names the grant's digest, and its kid is the thumbprint of the credential's key.
    alone = sum(len(pack([token])) - 1 for token in tokens)
    assert alone - len(pack(tokens)) > 2 * 30
    assert unpack(pack(tokens)) == tokens
    assert unpack(pack(tokens[1:], kept=tokens[:1])) == tokens


def test_only_so_many_digests_are_referred_to(scene: Scene) -> None:
    header = header_of(scene.grant)
    digests = [digest(str(number)) for number in range(200)]
    tokens = [forge(header, {"all": each}, scene.attacker) for each in (digests, digests[::-1])]
    assert unpack(pack(tokens)) == tokens


@pytest.mark.rule("K4")
@pytest.mark.parametrize("reference", [b"\x02~", b'\x02"', b"\x02\x10", b"\x02\xff", b"\x02"])
def test_a_reference_to_what_is_not_there_is_refused(scene: Scene, reference: bytes) -> None:
    first, second = deflated(b"{}\x00{}"), b'{"kid":%s}\x00{}' % reference
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY + b"{}\x00{}")
    stream = deflater.compress(second) + deflater.flush()
    with refused("K4"):
        unpack(framed(body_of(first), body_of(stream), body_of(stream)))


@pytest.mark.rule("K4")
def test_the_first_token_has_nothing_to_refer_to(scene: Scene) -> None:
    with refused("K4"):
        unpack(framed(body_of(deflated(b'{"kid":\x02 }\x00{}'))))
