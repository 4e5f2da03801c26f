"""Whatever arrives: it is refused with a sentence, or it is the very thing that was signed. It never crashes."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from temporalio.api.common.v1 import Payload

from exequatur.errors import StatementError
from exequatur.gate.heartbeat import verify_details
from exequatur.gate.wire import (
    ACTIVITY_HEADER,
    HEARTBEAT,
    START_HEADER,
    payloads_digest,
    read_activity_header,
    read_start_header,
)
from exequatur.statements.encoding import from_base64url, strict_json, to_base64url
from exequatur.statements.jws import check_signature, parse, type_of
from exequatur.statements.models import (
    ALL,
    Approval,
    Challenge,
    Delegation,
    Grant,
    HeartbeatMark,
    Message,
    NexusCall,
    Permit,
    Receipt,
    Release,
    Request,
    RevocationHead,
    Seal,
    Statement,
    WorkloadCredential,
)
from exequatur.statements.packing import pack, unpack
from exequatur.statements.receipts import verify_receipt
from exequatur.statements.verification import Credentials, Scope
from tests.simulator import SITE, Scene, bend, claims_of, forge, header_of

SCENE = Scene()
HONEST: dict[type[Statement], tuple[str, str]] = {
    WorkloadCredential: (SCENE.workflows.credential, SCENE.authority.credential_key.x),
    Grant: (SCENE.grant, SCENE.authority.grant_key.x),
    Delegation: (SCENE.delegation_under(SCENE.grant), SCENE.workflows.key.x),
    Request: (SCENE.request, SCENE.workflows.key.x),
    Receipt: (SCENE.receipt(), SCENE.activities.key.x),
    Seal: (SCENE.seal_under(SCENE.grant), SCENE.workflows.key.x),
    HeartbeatMark: (SCENE.mark(), SCENE.activities.key.x),
    Release: (SCENE.authority.release(), SCENE.authority.policy_key.x),
    Permit: (SCENE.authority.permit(), SCENE.authority.permit_key.x),
    Message: (SCENE.message_under(SCENE.grant), SCENE.workflows.key.x),
    NexusCall: (SCENE.call_under(SCENE.grant), SCENE.workflows.key.x),
    Challenge: (SCENE.challenge(), SCENE.activities.key.x),
    Approval: (SCENE.authority.approval(SCENE.challenge()), SCENE.authority.approval_key.x),
    RevocationHead: (SCENE.authority.revocation_head(), SCENE.authority.revocation_key.x),
}
"""A token of each kind, and the public key that verifies it."""
KINDS = st.sampled_from(ALL)
TEXT = st.text(alphabet=st.characters(), max_size=80)
"""With lone surrogates, which a header may bring as a JSON escape."""
SEGMENT = st.one_of(TEXT, st.binary(max_size=80).map(to_base64url))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def test_there_is_an_honest_token_of_each_kind() -> None:
    assert set(HONEST) == set(ALL)
    for kind, (token, x) in HONEST.items():
        check_signature(parse(token, kind), x)


@given(st.one_of(TEXT, st.lists(SEGMENT, max_size=5).map(".".join)), KINDS)
def test_no_text_crashes_or_is_a_statement(text: str, kind: type[Statement]) -> None:
    with pytest.raises(StatementError):
        parse(text, kind)
    with suppress(StatementError):
        type_of(text)


@given(KINDS, st.binary(max_size=200), st.booleans())
def test_no_bytes_under_a_good_signature_crash(kind: type[Statement], data: bytes, in_header: bool) -> None:
    token = HONEST[kind][0]
    header, claims = (data, claims_of(token)) if in_header else (header_of(token), data)
    with pytest.raises(StatementError):
        parse(forge(header, claims, SCENE.attacker), kind)


@given(KINDS, st.data(), JSON)
def test_no_json_in_a_claim_crashes(kind: type[Statement], data: st.DataObject, value: Any) -> None:
    token = HONEST[kind][0]
    name = data.draw(st.sampled_from(sorted(claims_of(token))) | TEXT)
    changed = forge(header_of(token), claims_of(token) | {name: value}, SCENE.attacker)
    with suppress(StatementError):
        # What can be read says what was signed, to the letter.
        read = strict_json(parse(changed, kind).claims.model_dump_json().encode())
        assert read[name] == value or (isinstance(value, int) and float(value) == read[name])


@given(KINDS, st.data(), JSON)
def test_no_json_in_a_header_crashes(kind: type[Statement], data: st.DataObject, value: Any) -> None:
    token = HONEST[kind][0]
    name = data.draw(st.sampled_from(["alg", "kid", "typ"]) | TEXT)
    changed = forge(header_of(token) | {name: value}, claims_of(token), SCENE.attacker)
    with suppress(StatementError):
        parsed = parse(changed, kind)
        assert name == "kid"
        # It ends up in messages and records.
        assert len(parsed.kid.encode()) == 43


@settings(max_examples=300)
@given(KINDS, st.data())
def test_no_token_verifies_after_one_character_was_changed(kind: type[Statement], data: st.DataObject) -> None:
    token, x = HONEST[kind]
    at = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.characters() | st.sampled_from("ABCDEabcde0189-_.=~"))
    changed = token[:at] + character + token[at + 1 :]
    if changed != token:
        with pytest.raises(StatementError):
            check_signature(parse(changed, kind), x)


@given(KINDS, st.data())
def test_no_token_verifies_after_it_was_cut_or_added_to(kind: type[Statement], data: st.DataObject) -> None:
    token, x = HONEST[kind]
    end = data.draw(st.integers(0, len(token) - 1))
    more = data.draw(st.text("AB-_.= \n", min_size=1, max_size=4))
    for changed in (token[:end], token[end + 1 :], token + more, more + token):
        with pytest.raises(StatementError):
            check_signature(parse(changed, kind), x)


@given(KINDS, KINDS)
def test_no_statement_verifies_as_one_of_another_kind(one: type[Statement], other: type[Statement]) -> None:
    if one is not other:
        with pytest.raises(StatementError):
            parse(HONEST[one][0], other)
        with pytest.raises(StatementError):
            parse(forge(header_of(HONEST[other][0]), claims_of(HONEST[one][0]), SCENE.attacker), other)


PACKED = pack([token for token, _ in HONEST.values()])


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda data: b"\x01" + data)))
def test_no_bytes_crash_the_unpacking(data: bytes) -> None:
    with suppress(StatementError):
        for token in unpack(data):
            assert unpack(pack([token])) == [token]


@settings(max_examples=300)
@given(st.integers(0, len(PACKED) * 8 - 1))
def test_a_flipped_bit_is_refused_or_gives_another_token_that_does_not_verify(bit: int) -> None:
    data = bytearray(PACKED)
    data[bit // 8] ^= 1 << bit % 8
    with suppress(StatementError):
        for got, (kind, (token, x)) in zip(unpack(bytes(data)), HONEST.items(), strict=False):
            # Some bits of a deflate stream stand for nothing; then it is what was packed.
            if got != token:
                with pytest.raises(StatementError):
                    check_signature(parse(got, kind), x)


@given(
    st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()),
    st.sampled_from([START_HEADER, ACTIVITY_HEADER]),
)
def test_no_header_crashes(data: bytes, name: str) -> None:
    headers = {name: Payload(data=data)}
    for read in (read_start_header, read_activity_header):
        with suppress(StatementError):
            for token in read(headers) or []:
                type_of(token)


@given(st.lists(st.sampled_from([token for token, _ in HONEST.values()]) | SEGMENT, max_size=6))
def test_no_set_of_tokens_passes_for_the_header_of_an_activity(tokens: list[str]) -> None:
    honest = {SCENE.grant, SCENE.workflows.credential, SCENE.request}
    try:
        authorized = SCENE.authorized(tokens or [""])
    except StatementError:
        return
    assert authorized.request.text == SCENE.request
    assert tokens[0] == SCENE.grant
    assert set(tokens) == honest


@given(st.lists(st.sampled_from([token for token, _ in HONEST.values()]), max_size=3), st.binary(max_size=40))
def test_no_set_of_tokens_passes_for_a_receipt(tokens: list[str], tail: bytes) -> None:
    packed = (pack(tokens) if tokens else b"\x01") + tail
    with pytest.raises(StatementError):
        # None of these is the activity worker's credential.
        verify_receipt(
            packed, SCENE.core(), payloads_digest([SCENE.result]), Credentials(SCENE.trust), Scope(SITE, "default")
        )


@given(st.binary(max_size=100) | st.just(PACKED))
def test_no_bytes_pass_for_the_mark_of_heartbeat_details(data: bytes) -> None:
    details = [Payload(metadata={HEARTBEAT: data}, data=b"17")]
    with pytest.raises(StatementError):
        verify_details(details, SCENE.info(), SCENE.trust, request=SCENE.core().hash(), site=SITE, leeway=5.0)


@given(st.binary(max_size=100))
def test_base64url_gives_back_every_byte(data: bytes) -> None:
    assert from_base64url(to_base64url(data)) == data


@given(TEXT)
def test_base64url_takes_no_second_text_for_a_value(text: str) -> None:
    try:
        data = from_base64url(text)
    except ValueError:
        return
    assert to_base64url(data) == text


@given(st.binary(max_size=100) | TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_strict_json_refuses_with_a_value_error_only(data: bytes) -> None:
    with suppress(ValueError):
        strict_json(data)


@given(JSON)
def test_bent_attributes_never_crash_a_grant(value: Any) -> None:
    with suppress(StatementError):
        parse(bend(SCENE.grant, SCENE.attacker, attributes={"x": value}), Grant)
