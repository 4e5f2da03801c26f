"""Rules S: may this run continue that one?"""

from typing import Any

import pytest

from exequatur.statements.encoding import digest
from exequatur.statements.jws import Token
from exequatur.statements.models import NextRun, Seal
from exequatur.statements.verification import verify_seal
from tests.simulator import Scene, Worker, bend, refused


def verify(scene: Scene, seal: str, task_queue: str | None = "orders") -> Token[Seal]:
    return verify_seal(seal, scene.credentials(), scene.chain(), workflow_type="Refund", task_queue=task_queue)


def test_an_honest_seal_is_believed(scene: Scene) -> None:
    assert verify(scene, scene.seal_under(scene.grant)).claims.seq == 1


@pytest.mark.rule("S1")
def test_a_seal_that_no_worker_signed_is_refused(scene: Scene) -> None:
    with refused("C4"):
        verify(scene, bend(scene.seal_under(scene.grant), scene.attacker))


@pytest.mark.rule("S1")
def test_a_seal_by_a_worker_that_may_not_seal_is_refused(scene: Scene) -> None:
    scene.workflows = Worker(scene.authority, "limited", roles=("request", "receipt", "delegate"))
    with refused("C5"):
        verify(scene, scene.seal_under(scene.grant))


@pytest.mark.rule("S2")
@pytest.mark.parametrize(
    "change",
    [
        {"grant": digest("another grant")},
        {"workflow_id": "refund-2"},
        {"outcome": "completed"},
        {"outcome": "failed"},
        {"outcome": "cancelled"},
    ],
    ids=str,
)
def test_the_seal_of_a_run_that_this_one_does_not_continue_is_refused(scene: Scene, change: dict[str, Any]) -> None:
    with refused("S2"):
        verify(scene, scene.seal_under(scene.grant, **change))


@pytest.mark.rule("S3")
@pytest.mark.parametrize(
    "following",
    [
        None,
        NextRun(workflow_type="Payout", task_queue="orders", input=digest("next input")),
        NextRun(workflow_type="Refund", task_queue="payouts", input=digest("next input")),
    ],
    ids=["none", "type", "queue"],
)
def test_a_seal_that_names_another_run_as_the_next_is_refused(scene: Scene, following: NextRun | None) -> None:
    with refused("S3"):
        verify(scene, scene.seal_under(scene.grant, next=following))


def test_a_seal_is_judged_without_its_queue_where_that_is_not_known(scene: Scene) -> None:
    following = NextRun(workflow_type="Refund", task_queue="payouts", input=digest("next input"))
    assert verify(scene, scene.seal_under(scene.grant, next=following), task_queue=None)
