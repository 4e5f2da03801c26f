"""Rules R: does what came along authorize this very activity task?"""

from typing import Any

import pytest

from exequatur.statements.encoding import digest
from exequatur.statements.models import Restriction
from exequatur.statements.requests import Held, split
from tests.simulator import NOW, Scene, Worker, authorize, bend, refused


def test_an_honest_request_authorizes_its_task(scene: Scene) -> None:
    authorized = scene.authorized()
    assert authorized.request.text == scene.request
    assert not authorized.after_reset


def test_an_honest_request_of_a_child_authorizes_its_task(scene: Scene) -> None:
    delegation = scene.delegation_under(scene.grant)
    tokens = scene.header(between=[delegation], request=scene.request_under(delegation))
    assert scene.authorized(tokens).chain.leaf.text == delegation


@pytest.mark.rule("R1")
def test_a_header_without_grant_or_request_is_refused(scene: Scene) -> None:
    grant, credential, request = scene.header()
    for tokens in ([request], [grant], [credential, request], [grant, credential], [request, credential, grant]):
        with refused("R1"):
            scene.authorized(tokens)


@pytest.mark.rule("R1")
def test_an_empty_header_is_refused() -> None:
    with refused("R1"):
        split([])


@pytest.mark.rule("R1")
def test_a_header_with_a_statement_that_does_not_belong_there_is_refused(scene: Scene) -> None:
    for foreign in (scene.seal_under(scene.grant), scene.receipt(), scene.request, scene.grant, scene.mark()):
        with refused("R1"):
            scene.authorized(scene.header(between=[foreign]))


@pytest.mark.rule("R2")
def test_a_request_under_the_grant_of_another_namespace_is_refused(scene: Scene) -> None:
    grant = scene.authority.grant(aud="example.org/main/other")
    with refused("G2"):
        scene.authorized(scene.header(grant=grant, request=scene.request_under(grant)))


@pytest.mark.rule("R3")
def test_a_request_that_no_worker_signed_is_refused(scene: Scene) -> None:
    with refused("C4"):
        scene.authorized(scene.header(request=bend(scene.request, scene.attacker)))


@pytest.mark.rule("R3")
def test_a_request_by_a_worker_that_may_not_request_is_refused(scene: Scene) -> None:
    scene.workflows = Worker(scene.authority, "limited", roles=("receipt", "delegate", "seal"))
    with refused("C5"):
        scene.authorized(scene.header(request=scene.request_under(scene.grant)))


@pytest.mark.rule("R3")
def test_a_request_by_a_worker_of_another_namespace_is_refused(scene: Scene) -> None:
    scene.workflows = Worker(scene.authority, "elsewhere", namespaces=("other",))
    with refused("C6"):
        scene.authorized(scene.header(request=scene.request_under(scene.grant)))


@pytest.mark.rule("R4")
def test_a_request_whose_id_is_not_the_hash_of_its_core_is_refused(scene: Scene) -> None:
    request = scene.request_under(scene.grant, jti=digest("an id that was not used yet"))
    with refused("R4"):
        scene.authorized(scene.header(request=request))


@pytest.mark.rule("R4")
@pytest.mark.parametrize(
    "change",
    [{"seq": 2}, {"prev": digest("another head")}, {"original_run_id": "run-2"}],
    ids=str,
)
def test_the_id_of_a_request_covers_its_core(scene: Scene, change: dict[str, Any]) -> None:
    with refused("R4"):
        scene.authorized(scene.header(request=bend(scene.request, scene.workflows.key, **change)))


@pytest.mark.rule("R5")
def test_a_request_under_another_grant_than_came_along_is_refused(scene: Scene) -> None:
    with refused("R5"):
        scene.authorized(scene.header(grant=scene.authority.grant(jti="grant-2")))


@pytest.mark.rule("R5")
def test_a_child_that_requests_under_its_parents_grant_is_refused(scene: Scene) -> None:
    with refused("R5"):
        scene.authorized(scene.header(between=[scene.delegation_under(scene.grant)]))


@pytest.mark.rule("R6")
@pytest.mark.parametrize(
    "change",
    [
        {"namespace": "other"},
        {"workflow_id": "refund-2"},
        {"workflow_type": "Payout"},
        {"activity_type": "delete"},
    ],
    ids=str,
)
def test_a_request_for_another_task_is_refused(scene: Scene, change: dict[str, Any]) -> None:
    with refused("R6"):
        scene.authorized(scene.header(request=scene.request_under(scene.grant, **change)))


@pytest.mark.rule("R7")
@pytest.mark.parametrize("change", [{"workflow_id": "refund-2"}, {"workflow_type": "Payout"}], ids=str)
def test_the_grant_of_another_workflow_is_refused(scene: Scene, change: dict[str, Any]) -> None:
    grant = scene.authority.grant(authorization=authorize(**change))
    with refused("R7"):
        scene.authorized(scene.header(grant=grant, request=scene.request_under(grant)))


def test_a_run_may_continue_as_a_type_that_its_grant_names(scene: Scene) -> None:
    grant = scene.authority.grant(authorization=authorize(workflow_type="Order", continues_as=("Refund",)))
    assert scene.authorized(scene.header(grant=grant, request=scene.request_under(grant)))


@pytest.mark.rule("R7")
def test_a_parents_header_copied_to_another_workflow_is_refused(scene: Scene) -> None:
    delegation = scene.delegation_under(scene.grant, authorization_details=(authorize(workflow_id="child-1"),))
    tokens = scene.header(between=[delegation], request=scene.request_under(delegation))
    with refused("R7"):
        scene.authorized(tokens)


@pytest.mark.rule("R8")
@pytest.mark.parametrize("activities", [(), ("refund",), ("charge?", "Charge")], ids=str)
def test_an_activity_that_the_grant_does_not_allow_is_refused(scene: Scene, activities: tuple[str, ...]) -> None:
    grant = scene.authority.grant(authorization=authorize(activities=activities))
    with refused("R8"):
        scene.authorized(scene.header(grant=grant, request=scene.request_under(grant)))


@pytest.mark.rule("R9")
def test_other_arguments_than_were_requested_are_refused(scene: Scene) -> None:
    with refused("R9"):
        scene.authorized(args=digest("other args"))


@pytest.mark.rule("R10")
def test_a_task_on_another_queue_than_was_requested_is_refused(scene: Scene) -> None:
    with refused("R10"):
        scene.authorized(task_queue="payouts")


@pytest.mark.rule("R11")
def test_a_task_with_another_activity_id_than_the_workflow_set_is_refused(scene: Scene) -> None:
    request = scene.request_under(scene.grant, activity_id="charge-once")
    assert scene.authorized(scene.header(request=request), activity_id="charge-once")
    with refused("R11"):
        scene.authorized(scene.header(request=request), activity_id="2")


@pytest.mark.rule("R12")
@pytest.mark.parametrize("local", [True, False])
def test_a_request_for_a_local_activity_authorizes_no_other_nor_the_other_way_round(scene: Scene, local: bool) -> None:
    request = scene.request_under(scene.grant, local=local)
    assert scene.authorized(scene.header(request=request), local=local)
    with refused("R12"):
        scene.authorized(scene.header(request=request), local=not local)


@pytest.mark.rule("R13")
@pytest.mark.parametrize("seconds", [-61, 61])
def test_a_task_that_was_scheduled_at_another_time_than_it_was_requested_is_refused(scene: Scene, seconds: int) -> None:
    with refused("R13"):
        scene.authorized(scheduled=NOW + seconds)


@pytest.mark.rule("R13")
def test_a_request_for_a_local_activity_may_be_made_anew_when_the_workflow_is_replayed(scene: Scene) -> None:
    header = scene.header(request=scene.request_under(scene.grant, local=True))
    assert scene.authorized(header, local=True, scheduled=NOW - 3600)
    with refused("R13"):
        scene.authorized(header, local=True, scheduled=NOW + 61)


@pytest.mark.rule("R14")
def test_a_request_of_a_run_whose_start_its_grant_does_not_cover_is_refused(scene: Scene) -> None:
    with refused("R14"):
        scene.authorized(scene.header(request=scene.request_under(scene.grant, start_fault="it started too late")))


@pytest.mark.rule("R15")
def test_a_request_from_before_a_reset_is_told_apart(scene: Scene) -> None:
    assert scene.authorized(run_id="run-2").after_reset


NO = 'forbid(principal, action == Action::"delete", resource);'
OTHER = 'forbid(principal, action == Action::"refund", resource);'


def test_a_request_that_nothing_restricts_is_held_to_nothing(scene: Scene) -> None:
    assert scene.authorized().held is None
    request = scene.request_under(scene.grant, restriction=Restriction())
    assert scene.authorized(scene.header(request=request)).held is None


@pytest.mark.rule("R16")
def test_a_request_is_held_to_its_own_restriction_and_to_its_leafs(scene: Scene) -> None:
    grant = scene.authority.grant(authorization=authorize(forbid=(NO,), until=NOW + 60))
    own = Restriction(activities=("charge",), until=NOW + 30, forbid=(OTHER, NO))
    held = scene.authorized(scene.header(grant=grant, request=scene.request_under(grant, restriction=own))).held
    assert held == Held(("charge",), NOW + 30, (NO, OTHER))
    later = own.model_copy(update={"until": NOW + 90})
    held = scene.authorized(scene.header(grant=grant, request=scene.request_under(grant, restriction=later))).held
    assert held == Held(("charge",), NOW + 60, (NO, OTHER))
    held = scene.authorized(scene.header(grant=grant, request=scene.request_under(grant))).held
    assert held == Held(None, NOW + 60, (NO,))


@pytest.mark.rule("R16")
def test_a_request_may_hold_as_much_as_request_and_leaf_hold_together(scene: Scene) -> None:
    texts = tuple(f"// {n}\n{NO}" for n in range(32))
    grant = scene.authority.grant(authorization=authorize(forbid=texts[:16]))
    request = scene.request_under(grant, restriction=Restriction(forbid=texts[16:]))
    held = scene.authorized(scene.header(grant=grant, request=request)).held
    assert held is not None
    assert held.forbid == texts


@pytest.mark.rule("R3")
def test_a_request_whose_restriction_was_taken_out_is_refused(scene: Scene) -> None:
    request = scene.request_under(scene.grant, restriction=Restriction(forbid=(NO,)))
    with refused("C4"):
        scene.authorized(scene.header(request=bend(request, scene.attacker, restriction=None)))


@pytest.mark.rule("V6")
@pytest.mark.parametrize(
    "restriction",
    [[], "x", {"permit": ["x"]}, {"forbid": "x"}, {"forbid": ["x" * 2001]}, {"forbid": ["x"] * 17}, {"until": "soon"}],
    ids=str,
)
def test_a_restriction_that_is_none_makes_the_request_unreadable(scene: Scene, restriction: Any) -> None:
    with refused("V6"):
        scene.authorized(scene.header(request=bend(scene.request, scene.workflows.key, restriction=restriction)))
