"""Rules Z1 to Z5: may this grant take the place of the one before?"""

from typing import Any

import pytest

from exequatur.errors import UnknownKeyError
from exequatur.statements.encoding import digest
from exequatur.statements.renewal import verify_renewal
from exequatur.statements.trust import TrustStore
from exequatur.statements.verification import Chain
from tests.simulator import NOW, SITE, Scene, authorize, bend, refused, wrongly_signed

LIFETIME = NOW + 86_400


def before(scene: Scene, *delegations: str) -> Chain:
    scene.grant = scene.authority.grant(renew_until=LIFETIME, ver=2)
    return scene.chain(scene.grant, *delegations)


def renewed(scene: Scene, leaf: str, **changes: Any) -> str:
    times = {"iat": NOW + 4000, "nbf": NOW + 4000, "start_by": NOW + 4000, "exp": NOW + 7600}
    return scene.authority.grant(**{"renew_until": LIFETIME, "ver": 2, "renews": digest(leaf)} | times | changes)


def test_an_honest_renewal_is_what_the_run_stands_on_from_now_on(scene: Scene) -> None:
    chain = before(scene)
    after = verify_renewal(renewed(scene, scene.grant), chain, scene.trust)
    assert after.expires == NOW + 7600
    assert after.delegations == ()
    assert verify_renewal(renewed(scene, after.grant.text), after, scene.trust)


@pytest.mark.rule("Z1")
def test_a_renewal_is_the_authority_s_for_the_same_place(scene: Scene) -> None:
    chain = before(scene)
    text = renewed(scene, scene.grant)
    with pytest.raises(UnknownKeyError):
        verify_renewal(bend(text, scene.attacker), chain, scene.trust)
    with refused("V7"):
        verify_renewal(wrongly_signed(text, scene.attacker), chain, scene.trust)
    with refused("G2"):
        verify_renewal(renewed(scene, scene.grant, aud=f"{SITE}/other"), chain, scene.trust)
    with refused("G3"):
        verify_renewal(renewed(scene, scene.grant, exp=NOW), chain, scene.trust)
    with pytest.raises(UnknownKeyError):
        verify_renewal(text, chain, TrustStore())


@pytest.mark.rule("Z2")
@pytest.mark.parametrize("renews", [None, digest("another grant")])
def test_a_renewal_of_another_grant_is_refused(scene: Scene, renews: str | None) -> None:
    chain = before(scene)
    with refused("Z2"):
        verify_renewal(renewed(scene, scene.grant, renews=renews), chain, scene.trust)


@pytest.mark.rule("Z3")
@pytest.mark.parametrize(
    "change",
    [
        {"sub": 'Agent::"another"'},
        {"jti": "grant-2"},
        {"attributes": {"clearance": "high"}},
        {"parents": ('Role::"admin"',)},
        {"mode": "observe"},
        {"recorded_queues": ("*",)},
        {"open_messages": ("signal:*",)},
        {"ver": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_renewal_changes_nothing_about_the_grant(scene: Scene, change: dict[str, Any]) -> None:
    chain = before(scene)
    with refused("Z3"):
        verify_renewal(renewed(scene, scene.grant, **change), chain, scene.trust)


@pytest.mark.rule("Z4")
@pytest.mark.parametrize(
    "change",
    [
        {"workflow_id": "refund-2"},
        {"workflow_type": "Payout"},
        {"activities": ("charge",)},
        {"continues_as": ("Payout",)},
        {"reuse": "retry"},
        {"child": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_renewal_authorizes_the_same_to_the_letter(scene: Scene, change: dict[str, Any]) -> None:
    chain = before(scene)
    with refused("Z4"):
        text = renewed(scene, scene.grant, authorization=authorize(**change))
        verify_renewal(text, chain, scene.trust)


@pytest.mark.rule("Z4")
def test_a_child_s_grant_holds_what_was_delegated_and_says_that_it_is_a_child_s(scene: Scene) -> None:
    before(scene)
    held = authorize(activities=("charge",), forbid=("forbid(principal, action, resource);",))
    text = scene.delegation_under(scene.grant, authorization_details=(held,))
    chain = scene.chain(scene.grant, text)
    honest = held.model_copy(update={"child": True})
    assert verify_renewal(renewed(scene, text, authorization=honest), chain, scene.trust)
    for other in (held, honest.model_copy(update={"forbid": ()}), honest.model_copy(update={"activities": ("*",)})):
        with refused("Z4"):
            verify_renewal(renewed(scene, text, authorization=other), chain, scene.trust)
    with refused("Z2"):
        verify_renewal(renewed(scene, scene.grant, authorization=honest), chain, scene.trust)


@pytest.mark.rule("Z5")
@pytest.mark.parametrize(
    "change",
    [{"renew_until": None}, {"renew_until": LIFETIME + 1}, {"exp": LIFETIME + 1}],
    ids=["endless", "longer", "beyond"],
)
def test_no_renewal_prolongs_the_lifetime(scene: Scene, change: dict[str, Any]) -> None:
    chain = before(scene)
    with refused("Z5"):
        verify_renewal(renewed(scene, scene.grant, **change), chain, scene.trust)


@pytest.mark.rule("Z5")
def test_a_grant_without_a_lifetime_is_not_renewed(scene: Scene) -> None:
    grant = scene.authority.grant(ver=2)
    with refused("Z5"):
        verify_renewal(renewed(scene, grant), scene.chain(grant), scene.trust)
