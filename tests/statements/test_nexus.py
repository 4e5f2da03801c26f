"""Rules N21 to N31: does what came along authorize this Nexus operation, and does it fit into headers?"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exequatur.errors import StatementError
from exequatur.gate.wire import (
    MAX_HEADER_BYTES,
    MAX_NEXUS_BYTES,
    NEXUS_HEADER,
    fits_nexus,
    nexus_headers,
    read_nexus_headers,
    without_nexus,
)
from exequatur.statements.encoding import digest
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Restriction
from exequatur.statements.nexus import Called, Operation, Origin, Start, check_times, verify_operation
from exequatur.statements.requests import Held
from tests.simulator import NOW, SITE, Scene, Worker, authorize, bend, refused, wrongly_signed

FORBID = "forbid(principal, action, resource);"
FROM_RUN = Origin("default", workflow_id="refund-1", operation_id=None, run_id="run-1")
ALONE = Origin("default", workflow_id=None, operation_id="pay-7", run_id="run-7")
START = Start(args=digest("args"), origins=(FROM_RUN,))
ASKED = Operation(endpoint="bank", service="payments.v1", operation="transfer", start=START)
ASKED_ALONE = replace(ASKED, start=replace(START, origins=(ALONE,)))


def header(
    scene: Scene, *, grant: str | None = None, call: str | None = None, between: tuple[str, ...] = ()
) -> list[str]:
    grant = grant or scene.grant
    return [grant, *between, scene.workflows.credential, call or scene.call_under(grant)]


def permitted(scene: Scene, **changes: Any) -> str:
    claims = {"kind": "nexus", "target": "pay-7", "name": "transfer", "service": "payments.v1", "endpoint": "bank"}
    return scene.authority.permit(**claims | changes)


def verify(scene: Scene, tokens: list[str] | None = None, asked: Operation = ASKED, site: str = SITE) -> Called:
    return verify_operation(header(scene) if tokens is None else tokens, asked, scene.trust, site=site, max_depth=8)


def starting(**changes: Any) -> Operation:
    return replace(ASKED, start=replace(START, **changes))


def test_an_honest_call_authorizes_its_operation(scene: Scene) -> None:
    called = verify(scene)
    assert (called.namespace, called.workflow_id, called.workflow_type) == ("default", "refund-1", "Refund")
    assert (called.resource_id, called.run_id, called.held) == ("refund-1", "run-1", None)
    assert called.vouched.sub == 'Agent::"ops-bot"'


def test_an_honest_permit_authorizes_its_operation(scene: Scene) -> None:
    called = verify(scene, [permitted(scene)], ASKED_ALONE)
    assert (called.workflow_id, called.resource_id, called.run_id) == ("", "standalone/pay-7", "")
    assert called.vouched.sub == 'User::"dana"'


def test_a_child_calls_under_its_delegation(scene: Scene) -> None:
    delegation = scene.delegation_under(scene.grant, authorization_details=(authorize(forbid=(FORBID,)),))
    called = verify(scene, header(scene, call=scene.call_under(delegation), between=(delegation,)))
    assert called.held == Held(None, None, (FORBID,))


def test_what_a_run_asks_to_be_held_to_is_told(scene: Scene) -> None:
    call = scene.call_under(scene.grant, restriction=Restriction(activities=("charge",), until=NOW + 5))
    assert verify(scene, header(scene, call=call)).held == Held(("charge",), NOW + 5)


@pytest.mark.rule("N21")
def test_anything_else_than_a_permit_or_a_chain_and_a_call_is_refused(scene: Scene) -> None:
    grant, credential, call = header(scene)
    permit = permitted(scene)
    for tokens in (
        [],
        [call],
        [grant],
        [call, credential, grant],
        [grant, credential, call, call],
        [permit, permit],
        [grant, permit, credential, call],
        [grant, scene.request, credential, call],
        [grant, credential, scene.request],
        [permit, call],
    ):
        with refused("N21"):
            verify(scene, tokens)


@pytest.mark.rule("N22")
def test_a_grant_or_permit_of_another_site_is_refused(scene: Scene) -> None:
    with refused("N22"):
        verify(scene, site="example.org/other")
    with refused("N22"):
        verify(scene, [permitted(scene)], ASKED_ALONE, site="example.org/other")
    for aud in (SITE, f"{SITE}/default/more"):
        with refused("N22"):
            verify(scene, [permitted(scene, aud=aud)], ASKED_ALONE)


@pytest.mark.rule("N22")
def test_a_grant_of_another_namespace_calls_from_there(scene: Scene) -> None:
    grant = scene.authority.grant(aud=f"{SITE}/far")
    worker = Worker(scene.authority, "far", namespaces=("far",))
    tokens = [grant, worker.credential, scene.call_under(grant, by=worker, namespace="far")]
    called = verify(scene, tokens, starting(origins=(replace(FROM_RUN, namespace="far"),)))
    assert called.namespace == "far"


@pytest.mark.rule("N22")
def test_what_the_authority_did_not_sign_is_refused(scene: Scene) -> None:
    with refused("V7"):
        verify(scene, header(scene, grant=wrongly_signed(scene.grant, scene.attacker)))
    with refused("T1"):
        verify(scene, header(scene, grant=bend(scene.grant, scene.attacker)))
    with refused("V7"):
        verify(scene, [wrongly_signed(permitted(scene), scene.attacker)], ASKED_ALONE)
    with refused("T2"):
        verify(scene, [bend(permitted(scene), scene.authority.grant_key)], ASKED_ALONE)


@pytest.mark.rule("N22")
def test_a_chain_that_is_too_deep_or_broken_is_refused(scene: Scene) -> None:
    first = scene.delegation_under(scene.grant)
    second = scene.delegation_under(first, depth=2)
    with refused("D2"):
        verify(scene, header(scene, call=scene.call_under(second), between=(second,)))
    tokens = header(scene, call=scene.call_under(second), between=(first, second))
    with refused("D3"):
        verify_operation(tokens, ASKED, scene.trust, site=SITE, max_depth=1)


@pytest.mark.rule("N23")
def test_a_call_that_no_workflow_worker_signed_is_refused(scene: Scene) -> None:
    call = scene.call_under(scene.grant)
    with refused("V7"):
        verify(scene, header(scene, call=wrongly_signed(call, scene.attacker)))
    with refused("C4"):
        verify(scene, header(scene, call=bend(call, SigningKey.generate())))
    for changes, rule in (
        ({"roles": ("receipt",)}, "C5"),
        ({"namespaces": ("other",)}, "C6"),
        ({"aud": "example.org/other"}, "C2"),
        ({"exp": NOW - 1}, "C3"),
    ):
        worker = Worker(scene.authority, "another", **changes)
        with refused(rule):
            verify(scene, [scene.grant, worker.credential, scene.call_under(scene.grant, by=worker)])


@pytest.mark.rule("N24")
def test_a_call_that_stands_on_another_grant_is_refused(scene: Scene) -> None:
    with refused("N24"):
        verify(scene, header(scene, grant=scene.authority.grant(jti="grant-2"), call=scene.call_under(scene.grant)))


@pytest.mark.rule("N25")
@pytest.mark.parametrize(
    "changes", [{"workflow_id": "refund-2"}, {"workflow_type": "Payout"}, {"namespace": "other"}], ids=str
)
def test_a_call_of_another_run_than_the_grants_is_refused(scene: Scene, changes: Mapping[str, Any]) -> None:
    with refused("N25"):
        verify(scene, header(scene, call=scene.call_under(scene.grant, **changes)))


@pytest.mark.rule("N25")
def test_what_a_schedule_started_calls_under_the_schedules_grant(scene: Scene) -> None:
    grant = scene.authority.grant(authorization=authorize(reuse="schedule", schedule="nightly"))
    due = "refund-1-2026-11-23T03:00:00Z"
    asked = starting(origins=(replace(FROM_RUN, workflow_id=due),))
    assert (
        verify(scene, header(scene, grant=grant, call=scene.call_under(grant, workflow_id=due)), asked).workflow_id
        == due
    )
    with refused("N25"):
        verify(scene, header(scene, grant=grant))


@pytest.mark.rule("N26")
@pytest.mark.parametrize("name", ["endpoint", "service", "operation"])
def test_a_call_or_permit_for_another_operation_is_refused(scene: Scene, name: str) -> None:
    for start in (START, None):
        asked = replace(ASKED, start=start, **{name: "another"})
        with refused("N26"):
            verify(scene, asked=asked)
        with refused("N26"):
            verify(scene, [permitted(scene)], asked)


@pytest.mark.rule("N26")
@pytest.mark.parametrize("kind", ["signal", "query", "update", "activity"])
def test_a_permit_for_something_else_is_refused(scene: Scene, kind: str) -> None:
    with refused("N26"):
        verify(scene, [permitted(scene, kind=kind)], ASKED_ALONE)


@pytest.mark.rule("N27")
def test_another_input_than_the_signed_one_is_refused(scene: Scene) -> None:
    with refused("N27"):
        verify(scene, asked=starting(args=digest("other")))
    with refused("N27"):
        verify(scene, [permitted(scene)], starting(args=digest("other"), origins=(ALONE,)))


@pytest.mark.rule("N28")
@pytest.mark.parametrize(
    "origins",
    [
        (),
        (ALONE,),
        (replace(FROM_RUN, workflow_id="refund-2"),),
        (replace(FROM_RUN, run_id="run-2"),),
        (replace(FROM_RUN, namespace="other"),),
        (FROM_RUN, replace(FROM_RUN, run_id="run-2")),
    ],
    ids=str,
)
def test_a_call_that_comes_from_somewhere_else_is_refused(scene: Scene, origins: tuple[Origin, ...]) -> None:
    with refused("N28"):
        verify(scene, asked=starting(origins=origins))


@pytest.mark.rule("N28")
@pytest.mark.parametrize(
    "origins",
    [(), (FROM_RUN,), (replace(ALONE, operation_id="pay-8"),), (replace(ALONE, namespace="other"),)],
    ids=str,
)
def test_a_permit_that_comes_from_somewhere_else_is_refused(scene: Scene, origins: tuple[Origin, ...]) -> None:
    with refused("N28"):
        verify(scene, [permitted(scene)], starting(origins=origins))


@pytest.mark.rule("N29")
def test_a_run_whose_start_is_not_covered_calls_nothing(scene: Scene) -> None:
    with refused("N29"):
        verify(scene, header(scene, call=scene.call_under(scene.grant, start_fault="its input is another")))


@pytest.mark.rule("N30")
@pytest.mark.parametrize(
    ("activities", "allowed"),
    [
        (("*",), True),
        (("nexus:payments.v1/transfer",), True),
        (("nexus:payments.v1/*",), True),
        (("charge",), False),
        (("transfer",), False),
        (("nexus:payments.v1/refund",), False),
        ((), False),
    ],
)
def test_a_grant_names_operations_among_its_activities(
    scene: Scene, activities: tuple[str, ...], allowed: bool
) -> None:
    grant = scene.authority.grant(authorization=authorize(activities=activities))
    if allowed:
        verify(scene, header(scene, grant=grant))
    else:
        with refused("N30"):
            verify(scene, header(scene, grant=grant))


def test_a_cancel_needs_neither_input_nor_origin_and_all_the_rest(scene: Scene) -> None:
    asked = replace(ASKED, start=None)
    verify(scene, asked=asked)
    verify(scene, [permitted(scene)], asked)
    with refused("N25"):
        verify(scene, header(scene, call=scene.call_under(scene.grant, workflow_id="refund-2")), asked)


@pytest.mark.rule("N31")
@pytest.mark.parametrize(
    ("changes", "at", "starts", "stands"),
    [
        ({}, NOW, True, True),
        ({}, NOW + 60, True, False),  # the call's own end
        ({}, NOW + 60, False, True),
        ({"exp": NOW + 9000}, NOW + 3600, True, False),  # the grant's
        ({}, NOW + 3600, False, False),
        ({}, NOW - 31, True, False),
        ({}, NOW - 29, True, True),
    ],
)
def test_a_call_lasts_no_longer_than_its_grant(
    scene: Scene, changes: Mapping[str, Any], at: float, starts: bool, stands: bool
) -> None:
    called = verify(scene, header(scene, call=scene.call_under(scene.grant, **changes)))
    if stands:
        check_times(called, at, 30, starts=starts)
    else:
        with refused("N31"):
            check_times(called, at, 30, starts=starts)


@pytest.mark.rule("N31")
def test_what_was_started_may_be_cancelled_as_long_as_the_grant_could_be_renewed(scene: Scene) -> None:
    called = verify(scene, header(scene, grant=scene.authority.grant(renew_until=NOW + 9000)))
    check_times(called, NOW + 8999, 30, starts=False)
    for at, starts in ((NOW + 8999, True), (NOW + 9000, False)):
        with refused("N31"):
            check_times(called, at, 30, starts=starts)


@pytest.mark.rule("N31")
def test_a_permit_bounds_the_start(scene: Scene) -> None:
    called = verify(scene, [permitted(scene)], ASKED_ALONE)
    check_times(called, NOW + 3599, 30, starts=True)
    check_times(called, NOW + 3600, 30, starts=False)
    with refused("N31"):
        check_times(called, NOW + 3600, 30, starts=True)


# Headers.


def test_headers_give_back_what_was_put_in(scene: Scene) -> None:
    tokens = header(scene)
    headers = nexus_headers({"X-Own": "mine"}, [tokens[-1]], tokens[:-1])
    assert read_nexus_headers(headers) == tokens
    assert without_nexus(headers) == {"X-Own": "mine"}
    assert fits_nexus(headers)


def test_our_name_in_another_spelling_is_not_sent_beside_ours(scene: Scene) -> None:
    headers = nexus_headers({"Exequatur-Nexus": "theirs", "EXEQUATUR-other": "x"}, header(scene))
    assert list(headers) == [NEXUS_HEADER]


@pytest.mark.rule("H1")
@pytest.mark.parametrize(
    "headers",
    [
        {"exequatur-other": "x"},
        {NEXUS_HEADER: "x", "Exequatur-Nexus": "y"},
        {NEXUS_HEADER: "x", "exequatur-grant": "y"},
    ],
    ids=str,
)
def test_other_headers_of_ours_are_refused(headers: Mapping[str, str]) -> None:
    with refused("H1"):
        read_nexus_headers(headers)


def test_headers_without_ours_hold_nothing() -> None:
    assert read_nexus_headers({"x-own": "mine", "traceparent": "00"}) is None


@pytest.mark.rule("H2")
def test_what_does_not_fit_is_left_out_and_said(scene: Scene) -> None:
    room = MAX_NEXUS_BYTES - sum(map(len, nexus_headers({}, header(scene)).popitem())) - len("x-own")
    assert fits_nexus(nexus_headers({"X-Own": "a" * room}, header(scene)))
    headers = nexus_headers({"X-Own": "a" * (room + 1)}, header(scene))
    assert not fits_nexus(headers)
    with refused("H2"):
        read_nexus_headers(headers)
    assert not fits_nexus(nexus_headers({}, ["no token"]))
    with refused("H2"):
        read_nexus_headers({NEXUS_HEADER: "A" * (MAX_HEADER_BYTES + 1)})


@pytest.mark.rule("H4")
def test_a_header_in_no_canonical_base64url_is_refused() -> None:
    for text in ("no base64url", "AB", "AA==", "\udcff"):
        with refused("H4"):
            read_nexus_headers({NEXUS_HEADER: text})


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.hex()))
def test_no_header_crashes(text: str) -> None:
    with suppress(StatementError):
        read_nexus_headers({NEXUS_HEADER: text})
