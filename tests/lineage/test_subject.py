"""Which run a record is about: found in every honest body, and in a hostile one at worst nowhere."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exequatur.lineage.subject import Subject, subject_of
from exequatur.statements.encoding import digest, to_base64url
from exequatur.statements.jws import parse
from exequatur.statements.models import Receipt, Seal
from tests.lineage.chained import decision, receipt
from tests.simulator import Scene

KINDS = ("decision", "receipt", "seal", "message", "authority", "bundle", "", "another")


def test_a_decision_names_its_run_its_request_and_its_bundle() -> None:
    kind, body = decision("refund-1", "run-1", bundle=digest("bundle"))
    assert subject_of(kind, body) == Subject("refund-1", "run-1", digest("request"), digest("bundle"))


def test_a_decision_without_a_request_names_its_run_all_the_same() -> None:
    assert subject_of(*decision(request=None)) == Subject("refund-1", "run-1")


def test_a_receipt_is_about_its_run_and_request() -> None:
    text = Scene().receipt()
    claims = parse(text, Receipt).claims
    assert subject_of("receipt", text.encode()) == Subject(
        claims.workflow_id, claims.run_id, claims.request, claims.bundle
    )
    assert claims.run_id
    assert claims.request


def test_a_seal_is_about_its_run() -> None:
    scene = Scene()
    text = scene.seal_under(scene.grant)
    claims = parse(text, Seal).claims
    assert subject_of("seal", text.encode()) == Subject(claims.workflow_id, claims.run_id)


@pytest.mark.parametrize("kind", ["message", "authority"])
def test_a_message_and_what_an_authority_decided_are_about_their_workflow(kind: str) -> None:
    body = {"workflow_id": "refund-1", "run_id": "run-1", "kind": "signal", "bundle": digest("bundle")}
    assert subject_of(kind, json.dumps(body).encode()) == Subject("refund-1", "run-1", None, digest("bundle"))
    del body["run_id"]
    assert subject_of(kind, json.dumps(body).encode()).run_id is None


def test_a_receipt_of_a_later_version_is_still_found() -> None:
    assert subject_of(*receipt(run_id="run-1", what="nobody knows yet")) == Subject(run_id="run-1")


def test_a_policy_bundle_is_about_no_run() -> None:
    assert subject_of("bundle", decision()[1]) == Subject()


@pytest.mark.parametrize("name", [None, 7, "", "x" * 2049, "ü" * 1025, "\ud800", ["refund-1"], {"a": 1}, True])
def test_what_cannot_be_a_name_is_none(name: object) -> None:
    assert subject_of(*decision(name, name, request=name, bundle=name)) == Subject()


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b'{"run_id":"a","run_id":"b"}', b'{"run_id":"\xff"}', b"[" * 100_000, b"1" * 10_000, b"NaN"],
)
def test_a_body_that_is_no_statement_is_about_no_run(body: bytes) -> None:
    assert subject_of("decision", body) == Subject()
    assert subject_of("receipt", b"e30." + to_base64url(body).encode() + b".AAAA") == Subject()
    assert subject_of("receipt", body) == Subject()


@given(st.sampled_from(KINDS), st.binary(max_size=200))
def test_no_bytes_are_an_error(kind: str, body: bytes) -> None:
    subject_of(kind, body)
    subject_of(kind, b"e30." + to_base64url(body).encode() + b".AAAA")


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(["workflow_id", "run_id", "request", "bundle", "other"]), _JSON))
def test_whatever_the_claims_are_a_subject_is_text_that_can_be_stored(claims: dict[str, object]) -> None:
    found = subject_of("decision", json.dumps(claims).encode())
    for value in (found.workflow_id, found.run_id, found.request, found.bundle):
        assert value is None or len(value.encode()) <= 2048
