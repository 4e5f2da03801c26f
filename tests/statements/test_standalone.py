"""Rules Y: does a permit authorize an activity that no workflow scheduled, and may its client believe the result?"""

from dataclasses import replace
from typing import Any

import pytest

from exequatur.gate.wire import payloads_digest
from exequatur.statements.encoding import digest
from exequatur.statements.jws import parse
from exequatur.statements.models import Receipt
from exequatur.statements.packing import pack
from exequatur.statements.standalone import Lone, verify_lone_receipt, verify_standalone
from exequatur.statements.trust import TrustStore
from exequatur.statements.verification import Scope
from tests.simulator import AUD, NOW, SITE, Scene, Worker, bend, refused, wrongly_signed

LONE = Lone(activity_id="pay-7", activity_type="charge", task_queue="orders", scheduled=NOW, args=digest("args"))


def permitted(scene: Scene, **changes: Any) -> str:
    claims = {"kind": "activity", "target": "pay-7", "name": "charge", "task_queue": "orders", "args": digest("args")}
    return scene.authority.permit(**claims | changes)


def verify(scene: Scene, *tokens: str, task: Lone = LONE, aud: str = AUD, trust: TrustStore | None = None) -> None:
    verify_standalone(tokens, task, trust or scene.trust, aud=aud, leeway=5.0)


def test_an_honest_permit_authorizes_its_activity(scene: Scene) -> None:
    verify(scene, permitted(scene))


@pytest.mark.rule("Y1")
def test_a_header_of_anything_but_one_permit_is_refused(scene: Scene) -> None:
    permit = permitted(scene)
    for tokens in ((), (permit, permit), (scene.grant,), (scene.grant, scene.request), (permit, scene.grant)):
        with refused("Y1"):
            verify(scene, *tokens)


@pytest.mark.rule("Y2")
def test_a_permit_that_the_authority_did_not_sign_is_refused(scene: Scene) -> None:
    with refused("V7"):
        verify(scene, wrongly_signed(permitted(scene), scene.attacker))
    with refused("T1"):
        verify(scene, bend(permitted(scene), scene.attacker))
    with refused("T2"):
        verify(scene, bend(permitted(scene), scene.authority.grant_key))


@pytest.mark.rule("Y3")
def test_a_permit_for_another_place_is_refused(scene: Scene) -> None:
    with refused("Y3"):
        verify(scene, permitted(scene, aud=f"{SITE}/other"))


@pytest.mark.rule("Y4")
@pytest.mark.parametrize(
    "changes", [{"kind": "signal"}, {"kind": "nexus"}, {"target": "pay-8"}, {"name": "refund"}], ids=str
)
def test_a_permit_for_something_else_is_refused(scene: Scene, changes: dict[str, Any]) -> None:
    with refused("Y4"):
        verify(scene, permitted(scene, **changes))


@pytest.mark.rule("Y5")
@pytest.mark.parametrize("queue", ["payouts", None])
def test_a_permit_for_another_task_queue_is_refused(scene: Scene, queue: str | None) -> None:
    with refused("Y5"):
        verify(scene, permitted(scene, task_queue=queue))


@pytest.mark.rule("Y6")
def test_a_permit_for_other_arguments_is_refused(scene: Scene) -> None:
    with refused("Y6"):
        verify(scene, permitted(scene, args=digest("other")))


@pytest.mark.rule("Y7")
def test_an_activity_that_was_not_scheduled_while_its_permit_lasted_is_refused(scene: Scene) -> None:
    permit = permitted(scene, iat=NOW - 60, exp=NOW + 60)
    for scheduled in (NOW - 64, NOW + 64):
        verify(scene, permit, task=replace(LONE, scheduled=scheduled))
    for scheduled in (NOW - 66, NOW + 66, float("nan")):
        with refused("Y7"):
            verify(scene, permit, task=replace(LONE, scheduled=scheduled))


# What comes back.

RUN = "run-of-pay-7"


def receipt(scene: Scene, by: Worker | None = None, **changes: Any) -> str:
    by = by or scene.activities
    claims = parse(scene.receipt(), Receipt).claims
    about = {"request": digest("permit"), "request_digest": digest("permit"), "activity_id": "pay-7", "run_id": RUN}
    return by.sign(claims.model_copy(update={"iss": by.id} | about | changes))


def believe(scene: Scene, *tokens: str, packed: bytes | None = None, **changes: Any) -> None:
    expected: dict[str, Any] = {"activity_id": "pay-7", "run_id": RUN, "permit": digest("permit")}
    verify_lone_receipt(
        pack(tokens) if tokens else packed,
        payloads_digest([scene.result]),
        scene.trust,
        Scope(SITE, "default", "orders", "charge"),
        **expected | changes,
    )


def test_an_honest_result_is_believed(scene: Scene) -> None:
    believe(scene, scene.activities.credential, receipt(scene))


def test_the_result_of_a_run_that_was_there_is_believed_without_its_permit(scene: Scene) -> None:
    believe(scene, scene.activities.credential, receipt(scene, request=digest("another's")), permit=None)


@pytest.mark.rule("P1")
def test_a_result_without_receipt_and_credential_is_refused(scene: Scene) -> None:
    with refused("P1"):
        believe(scene)
    with refused("P1"):
        believe(scene, packed=b"\x01" * 20_000)
    with refused("P1"):
        believe(scene, scene.activities.credential, receipt(scene), receipt(scene))
    with refused("C4"):
        believe(scene, receipt(scene))


@pytest.mark.rule("P2")
def test_a_receipt_of_a_worker_that_may_not_is_refused(scene: Scene) -> None:
    with refused("C4"):
        believe(scene, scene.activities.credential, bend(receipt(scene), scene.attacker))
    limits: list[tuple[dict[str, Any], str]] = [
        ({"roles": ("request",)}, "C5"),
        ({"task_queues": ("payouts",)}, "C6"),
        ({"activities": ("refund",)}, "C6"),
        ({"namespaces": ("other",)}, "C6"),
        ({"aud": "example.org/other"}, "C2"),
    ]
    for limit, rule in limits:
        worker = Worker(scene.authority, "limited", **limit)
        with refused(rule):
            believe(scene, worker.credential, receipt(scene, by=worker))


@pytest.mark.rule("Y9")
@pytest.mark.parametrize(
    "changes",
    [{"activity_id": "pay-8"}, {"activity_type": "refund"}, {"run_id": "an older run"}, {"request": digest("other")}],
    ids=str,
)
def test_a_receipt_of_something_else_is_refused(scene: Scene, changes: dict[str, Any]) -> None:
    with refused("Y9"):
        believe(scene, scene.activities.credential, receipt(scene, **changes))


@pytest.mark.rule("P4", "P5")
@pytest.mark.parametrize(
    ("changes", "rule"),
    [({"decision": "deny"}, "P4"), ({"outcome": "failed"}, "P5"), ({"outcome": "async"}, "P5")],
    ids=str,
)
def test_a_receipt_that_says_no_is_refused(scene: Scene, changes: dict[str, Any], rule: str) -> None:
    with refused(rule):
        believe(scene, scene.activities.credential, receipt(scene, **changes))


@pytest.mark.rule("P6")
def test_a_receipt_for_another_result_is_refused(scene: Scene) -> None:
    with refused("P6"):
        believe(scene, scene.activities.credential, receipt(scene, result=digest("another")))
