"""Rules M: may this attempt believe the heartbeat details that an earlier one left?"""

from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload

from exequatur.gate.heartbeat import verify_details
from exequatur.statements.encoding import digest
from tests.simulator import NOW, SITE, Scene, Worker, bend, refused


def verify(scene: Scene, details: list[Payload], **info: Any) -> bool:
    """Whether the details are of a later attempt; the attempt that gets them was scheduled a minute before the mark."""
    scheduled = {"current_attempt_scheduled_time": datetime.fromtimestamp(NOW - 60, UTC)}
    request = scene.authorized().request.claims.jti
    return verify_details(details, scene.info(**scheduled | info), scene.trust, request=request, site=SITE, leeway=5.0)


def test_honest_details_are_believed(scene: Scene) -> None:
    assert not verify(scene, scene.marked(scene.activities.credential, scene.mark()))


@pytest.mark.rule("M3")
@pytest.mark.parametrize("attempt", [2, 7])
def test_the_details_of_a_later_attempt_are_those_of_a_reset_if_they_are_older(scene: Scene, attempt: int) -> None:
    later = {"current_attempt_scheduled_time": datetime.fromtimestamp(NOW + 60, UTC)}
    marked = scene.marked(scene.activities.credential, scene.mark(attempt=attempt))
    assert verify(scene, marked, attempt=2, **later)


@pytest.mark.rule("M1")
def test_details_without_a_mark_are_refused(scene: Scene) -> None:
    with refused("M1"):
        verify(scene, [scene.details])


@pytest.mark.rule("M1")
def test_details_with_more_or_less_than_a_mark_and_its_credential_are_refused(scene: Scene) -> None:
    credential, mark = scene.activities.credential, scene.mark()
    for tokens in ((), (credential,), (mark,), (credential, mark, mark)):
        with refused("M1"):
            verify(scene, scene.marked(*tokens))


@pytest.mark.rule("M2")
def test_details_that_no_worker_marked_are_refused(scene: Scene) -> None:
    with refused("C4"):
        verify(scene, scene.marked(scene.activities.credential, bend(scene.mark(), scene.attacker)))


@pytest.mark.rule("M2")
@pytest.mark.parametrize(
    ("limit", "rule"),
    [
        ({"roles": ("request",)}, "C5"),
        ({"namespaces": ("other",)}, "C6"),
        ({"task_queues": ("payouts",)}, "C6"),
        ({"activities": ("refund",)}, "C6"),
        ({"aud": "example.org/other"}, "C2"),
    ],
    ids=str,
)
def test_details_marked_by_a_worker_that_may_not_are_refused(scene: Scene, limit: dict[str, Any], rule: str) -> None:
    worker = Worker(scene.authority, "limited", **limit)
    with refused(rule):
        verify(scene, scene.marked(worker.credential, scene.mark(by=worker)))


@pytest.mark.rule("M3")
def test_the_details_of_another_request_are_refused(scene: Scene) -> None:
    with refused("M3"):
        verify(scene, scene.marked(scene.activities.credential, scene.mark(request=digest("another request"))))


@pytest.mark.rule("M3")
@pytest.mark.parametrize("attempt", [2, 3])
def test_the_details_of_no_earlier_attempt_are_refused(scene: Scene, attempt: int) -> None:
    with refused("M3"):
        verify(scene, scene.marked(scene.activities.credential, scene.mark(attempt=attempt)), attempt=2)


@pytest.mark.rule("M4")
def test_details_that_were_changed_are_refused(scene: Scene) -> None:
    [details] = scene.marked(scene.activities.credential, scene.mark())
    details.data = b"1700"
    with refused("M4"):
        verify(scene, [details])


@pytest.mark.rule("M4")
def test_details_that_were_added_to_are_refused(scene: Scene) -> None:
    with refused("M4"):
        verify(scene, [*scene.marked(scene.activities.credential, scene.mark()), scene.details])
