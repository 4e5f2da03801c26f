"""Rules H: where statements travel in Temporal, and nothing else of ours beside them."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.api.common.v1 import Payload

from exequatur.errors import StatementError
from exequatur.gate.wire import (
    ACTIVITY_HEADER,
    MAX_HEADER_BYTES,
    PREFIX,
    RECEIPT,
    START_HEADER,
    activity_header,
    payload_hash,
    payloads_digest,
    read_activity_header,
    read_start_header,
    start_header,
    without_ours,
)
from tests.simulator import Scene, refused

FOREIGN = Payload(metadata={"encoding": b"json/plain"}, data=b'"of the application"')


def test_headers_come_back_as_they_were_written(scene: Scene) -> None:
    tokens = scene.header()
    assert read_start_header({"trace": FOREIGN, START_HEADER: start_header(tokens)}) == tokens
    assert read_activity_header({"trace": FOREIGN, ACTIVITY_HEADER: activity_header(tokens[2:], tokens[:2])}) == tokens


def test_headers_of_the_application_are_none_of_ours() -> None:
    assert read_start_header({"trace": FOREIGN}) is None
    assert read_activity_header({}) is None


@pytest.mark.rule("H1")
@pytest.mark.parametrize("other", [START_HEADER, RECEIPT, f"{PREFIX}else"])
def test_another_header_of_ours_beside_a_request_is_refused(scene: Scene, other: str) -> None:
    with refused("H1"):
        read_activity_header({ACTIVITY_HEADER: activity_header(scene.header(), []), other: FOREIGN})


@pytest.mark.rule("H1")
def test_another_header_of_ours_instead_of_the_one_that_belongs_there_is_refused(scene: Scene) -> None:
    with refused("H1"):
        read_activity_header({START_HEADER: start_header([scene.grant])})
    with refused("H1"):
        read_start_header({ACTIVITY_HEADER: activity_header(scene.header(), [])})


@pytest.mark.rule("H2")
def test_a_header_over_the_cap_is_refused(scene: Scene) -> None:
    tokens = [scene.grant] * (MAX_HEADER_BYTES // len(scene.grant) + 1)
    with refused("H2"):
        read_start_header({START_HEADER: start_header(tokens)})
    assert read_start_header({START_HEADER: start_header(tokens[:-1])})


@pytest.mark.rule("H3")
@pytest.mark.parametrize(
    "data", [b"", b"5", b"null", b"{", b'["a"]', b"\xff", b"[" * 60_000, b'"a" "b"'], ids=lambda data: repr(data[:9])
)
def test_a_start_header_that_is_no_json_string_is_refused(data: bytes) -> None:
    with refused("H3"):
        read_start_header({START_HEADER: Payload(data=data)})


# Payload digests.

METADATA = st.dictionaries(st.text(max_size=8).filter(lambda key: not key.startswith(PREFIX)), st.binary(max_size=8))
PAYLOADS = st.builds(lambda metadata, data: Payload(metadata=metadata, data=data), METADATA, st.binary(max_size=16))


@given(st.lists(PAYLOADS, max_size=3), st.lists(PAYLOADS, max_size=3))
def test_different_payloads_have_different_digests(one: list[Payload], other: list[Payload]) -> None:
    assert (payloads_digest(one) == payloads_digest(other)) == (one == other)


@given(PAYLOADS, st.binary())
def test_our_own_metadata_does_not_count(payload: Payload, receipt: bytes) -> None:
    marked = Payload(metadata={**payload.metadata, RECEIPT: receipt}, data=payload.data)
    assert payload_hash(marked) == payload_hash(payload)
    assert without_ours(marked) == payload


def test_a_byte_cannot_move_between_metadata_and_data() -> None:
    moved = [Payload(metadata={"a": b"bc"}), Payload(metadata={"ab": b"c"}), Payload(metadata={"a": b"b"}, data=b"c")]
    assert len({payload_hash(payload) for payload in moved}) == len(moved)


def test_the_digest_of_one_payload_is_that_of_the_description(scene: Scene) -> None:
    # u32be(len k) k u32be(len v) v for each metadata entry, then u64be(len data) data; a list hashes the hashes.
    by_hand = b"\x00\x00\x00\x08encoding\x00\x00\x00\x0ajson/plain" + b"\x00\x00\x00\x00\x00\x00\x00\x09" + b'"charged"'
    assert payload_hash(scene.result) == hashlib.sha256(by_hand).digest()
    assert json.loads(start_header(["a", "b"]).data) == "a~b"


def test_what_a_refusal_says_of_foreign_headers_is_short_however_long_their_names_are() -> None:
    headers = {f"{PREFIX}{letter}{'x' * 1_500_000}": FOREIGN for letter in "abcdefgh"}
    for read in (read_start_header, read_activity_header):
        with pytest.raises(StatementError, match="H1") as raised:
            read(headers)
        assert len(str(raised.value)) < 500
