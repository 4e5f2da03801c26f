"""Rules C: is the worker that signed this one that the authority vouches for, for this?"""

from typing import Any

import pytest

from exequatur.statements.jws import Token, parse
from exequatur.statements.models import Receipt, Role
from exequatur.statements.verification import Scope
from tests.simulator import NOW, SITE, Scene, Worker, bend, refused, wrongly_signed

HERE = Scope(SITE, "default", "orders", "charge")


def verify(scene: Scene, worker: Worker, receipt: str | None = None, role: Role = "receipt") -> Token[Receipt]:
    token = parse(receipt or scene.receipt(by=worker), Receipt)
    return scene.credentials(worker.credential).verify(token, role, HERE)


def test_an_honest_worker_is_believed(scene: Scene) -> None:
    assert verify(scene, scene.activities).claims.iss == scene.activities.id


@pytest.mark.rule("C1")
def test_a_credential_that_the_authority_did_not_sign_is_refused(scene: Scene) -> None:
    with refused("V7"):
        scene.credentials(wrongly_signed(scene.activities.credential, scene.attacker))


@pytest.mark.rule("C2")
@pytest.mark.parametrize("aud", ["example.org/other", "other.org/main", "example.org", "*"])
def test_a_credential_for_another_cluster_is_refused(scene: Scene, aud: str) -> None:
    with refused("C2"):
        verify(scene, Worker(scene.authority, "elsewhere", aud=aud))


@pytest.mark.rule("C3")
@pytest.mark.parametrize("times", [{"nbf": NOW + 2}, {"exp": NOW}], ids=str)
def test_a_statement_from_outside_its_credentials_life_is_refused(scene: Scene, times: dict[str, Any]) -> None:
    with refused("C3"):
        verify(scene, Worker(scene.authority, "early-or-late", **times))


@pytest.mark.rule("C3")
@pytest.mark.parametrize("renewed_first", [True, False])
def test_a_credential_that_was_renewed_since_still_vouches_for_its_own_time(scene: Scene, renewed_first: bool) -> None:
    worker = scene.activities
    later = scene.authority.credential(worker.key, worker.id, iat=NOW + 1800, nbf=NOW + 1740, exp=NOW + 5400)
    both = [later, worker.credential] if renewed_first else [worker.credential, later]
    credentials = scene.credentials(*both)
    assert credentials.verify(parse(scene.receipt(by=worker), Receipt), "receipt", HERE)
    assert credentials.verify(parse(scene.receipt(by=worker, iat=NOW + 4000), Receipt), "receipt", HERE)
    with refused("C3"):
        credentials.verify(parse(scene.receipt(by=worker, iat=NOW + 5401), Receipt), "receipt", HERE)


@pytest.mark.rule("C4")
def test_a_statement_without_a_credential_for_its_key_is_refused(scene: Scene) -> None:
    with refused("C4"):
        verify(scene, scene.activities, bend(scene.receipt(), scene.attacker))


@pytest.mark.rule("C4")
def test_a_statement_that_names_a_key_but_is_not_signed_with_it_is_refused(scene: Scene) -> None:
    with refused("V7"):
        verify(scene, scene.activities, wrongly_signed(scene.receipt(), scene.attacker))


@pytest.mark.rule("C4")
def test_a_credential_does_not_vouch_for_the_key_of_another_worker(scene: Scene) -> None:
    token = parse(scene.receipt(by=scene.activities), Receipt)
    with refused("C4"):
        scene.credentials(scene.workflows.credential).verify(token, "receipt", HERE)


@pytest.mark.rule("C5")
@pytest.mark.parametrize("roles", [(), ("request",), ("request", "delegate", "seal")], ids=str)
def test_a_statement_that_needs_a_role_its_worker_does_not_have_is_refused(
    scene: Scene, roles: tuple[str, ...]
) -> None:
    with refused("C5"):
        verify(scene, Worker(scene.authority, "limited", roles=roles))


@pytest.mark.rule("C6")
@pytest.mark.parametrize(
    "places",
    [
        {"namespaces": ("other",)},
        {"namespaces": ()},
        {"task_queues": ("orders-eu", "order")},
        {"activities": ("charge_all", "refund")},
        {"activities": ("charge?",)},
        {"activities": ("Charge",)},
    ],
    ids=str,
)
def test_a_statement_from_a_place_its_credential_does_not_cover_is_refused(
    scene: Scene, places: dict[str, Any]
) -> None:
    with refused("C6"):
        verify(scene, Worker(scene.authority, "elsewhere", **places))


def test_a_credential_may_cover_places_by_pattern(scene: Scene) -> None:
    assert verify(
        scene, Worker(scene.authority, "wide", namespaces=("*",), task_queues=("ord*",), activities=("char??",))
    )


@pytest.mark.rule("C7")
def test_a_statement_in_the_name_of_another_worker_is_refused(scene: Scene) -> None:
    with refused("C7"):
        verify(scene, scene.activities, scene.receipt(iss=scene.workflows.id))
