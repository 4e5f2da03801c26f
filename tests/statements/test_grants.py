"""Rules G and D: is this the grant it seems to be, and does each delegation hand on no more than it got?"""

from typing import Any

import pytest

from exequatur.statements.verification import check_current, covers, matches, narrowed
from tests.simulator import AUD, NOW, Scene, Worker, authorize, bend, refused, wrongly_signed


def test_an_honest_grant_gives_a_chain(scene: Scene) -> None:
    chain = scene.chain()
    assert (chain.site, chain.namespace) == ("example.org/main", "default")
    assert chain.leaf.text == scene.grant
    check_current(chain, NOW, 0)


@pytest.mark.rule("G1")
def test_a_grant_that_the_authority_did_not_sign_is_refused(scene: Scene) -> None:
    with refused("V7"):
        scene.chain(wrongly_signed(scene.grant, scene.attacker))


@pytest.mark.rule("G2")
@pytest.mark.parametrize("aud", ["example.org/main/other", "example.org/other/default", "other.org/main/default"])
def test_a_grant_for_another_place_is_refused(scene: Scene, aud: str) -> None:
    with refused("G2"):
        scene.chain(scene.authority.grant(aud=aud))


@pytest.mark.rule("G2")
@pytest.mark.parametrize("aud", ["default", "main/default", "a/example.org/main/default"])
def test_a_grant_for_something_that_is_no_place_is_refused(scene: Scene, aud: str) -> None:
    with refused("G2"):
        scene.chain(scene.authority.grant(aud=aud), aud=None)


@pytest.mark.rule("G3")
@pytest.mark.parametrize("times", [{"nbf": NOW + 3600}, {"start_by": NOW - 61}, {"start_by": NOW + 3601}], ids=str)
def test_a_grant_whose_times_are_out_of_order_is_refused(scene: Scene, times: dict[str, Any]) -> None:
    with refused("G3"):
        scene.chain(scene.authority.grant(**times))


@pytest.mark.rule("G4")
@pytest.mark.parametrize("times", [{"nbf": NOW + 6}, {"iat": NOW + 6}], ids=str)
def test_a_grant_that_has_not_begun_is_refused(scene: Scene, times: dict[str, Any]) -> None:
    chain = scene.chain(scene.authority.grant(**times))
    with refused("G4"):
        check_current(chain, NOW, 5)
    check_current(chain, NOW, 6)


@pytest.mark.rule("G4")
def test_a_grant_that_has_ended_is_refused_and_no_leeway_prolongs_it(scene: Scene) -> None:
    chain = scene.chain()
    check_current(chain, NOW + 3599.9, 60)
    with refused("G4"):
        check_current(chain, NOW + 3600, 60)


@pytest.mark.rule("G4")
def test_a_delegation_that_has_ended_is_refused_though_its_grant_goes_on(scene: Scene) -> None:
    chain = scene.chain(scene.grant, scene.delegation_under(scene.grant, exp=NOW + 60))
    check_current(chain, NOW + 59, 0)
    with refused("G4"):
        check_current(chain, NOW + 60, 0)


# Delegations.


def test_honest_delegations_follow_each_other(scene: Scene) -> None:
    first = scene.delegation_under(scene.grant)
    second = scene.delegation_under(first, 2, authorization_details=(authorize(activities=("charge",)),))
    chain = scene.chain(scene.grant, first, second)
    assert chain.leaf.text == second
    assert chain.authorization.activities == ("charge",)


@pytest.mark.rule("D1")
def test_a_delegation_that_no_worker_signed_is_refused(scene: Scene) -> None:
    with refused("C4"):
        scene.chain(scene.grant, bend(scene.delegation_under(scene.grant), scene.attacker))


@pytest.mark.rule("D1")
def test_a_delegation_by_a_worker_that_may_not_delegate_is_refused(scene: Scene) -> None:
    scene.workflows = Worker(scene.authority, "limited", roles=("request", "receipt", "seal"))
    with refused("C5"):
        scene.chain(scene.grant, scene.delegation_under(scene.grant))


@pytest.mark.rule("D2")
def test_a_delegation_of_another_grant_is_refused(scene: Scene) -> None:
    with refused("D2"):
        scene.chain(scene.grant, scene.delegation_under(scene.authority.grant(jti="grant-2")))


@pytest.mark.rule("D2")
def test_a_chain_with_a_link_left_out_is_refused(scene: Scene) -> None:
    first = scene.delegation_under(scene.grant, authorization_details=(authorize(activities=("charge",)),))
    with refused("D2"):
        scene.chain(scene.grant, scene.delegation_under(first, 1))


@pytest.mark.rule("D3")
def test_a_delegation_at_another_depth_than_it_says_is_refused(scene: Scene) -> None:
    with refused("D3"):
        scene.chain(scene.grant, scene.delegation_under(scene.grant, 2))


@pytest.mark.rule("D3")
def test_more_delegations_than_are_allowed_are_refused(scene: Scene) -> None:
    first = scene.delegation_under(scene.grant)
    second = scene.delegation_under(first, 2)
    assert scene.chain(scene.grant, first, max_depth=1)
    with refused("D3"):
        scene.chain(scene.grant, first, second, max_depth=1)


@pytest.mark.rule("D4")
@pytest.mark.parametrize(
    ("held", "given"),
    [
        (("charge",), ("charge", "delete")),
        (("charge",), ("*",)),
        (("charge_*",), ("charge",)),
        (("charge_*",), ("charge_?*",)),
        ((), ("charge",)),
    ],
)
def test_a_delegation_of_more_than_its_parent_holds_is_refused(
    scene: Scene, held: tuple[str, ...], given: tuple[str, ...]
) -> None:
    grant = scene.authority.grant(authorization=authorize(activities=held))
    delegation = scene.delegation_under(grant, authorization_details=(authorize(activities=given),))
    with refused("D4"):
        scene.chain(grant, delegation)


@pytest.mark.rule("D5")
def test_a_delegation_that_outlives_its_parent_is_refused(scene: Scene) -> None:
    with refused("D5"):
        scene.chain(scene.grant, scene.delegation_under(scene.grant, exp=NOW + 3601))


@pytest.mark.rule("D5")
def test_a_delegation_that_was_issued_after_its_end_is_refused(scene: Scene) -> None:
    with refused("D5"):
        scene.chain(scene.grant, scene.delegation_under(scene.grant, iat=NOW, exp=NOW - 1))


@pytest.mark.rule("D6")
def test_a_delegation_for_another_place_than_its_grant_is_refused(scene: Scene) -> None:
    with refused("D6"):
        scene.chain(scene.grant, scene.delegation_under(scene.grant, aud="example.org/main/other"), aud=AUD)


def test_a_workload_key_signs_no_grant(scene: Scene) -> None:
    with refused("T1"):
        scene.chain(bend(scene.grant, scene.workflows.key))


# Patterns.


@pytest.mark.parametrize(
    ("wider", "narrower", "covered"),
    [
        (["*"], ["anything", "a*", "*"], True),
        (["a*"], ["ab", "a*"], True),
        (["a?"], ["ab"], True),
        (["a*"], ["ab*"], False),
        (["a*"], ["b"], False),
        (["a"], ["a", "b"], False),
        (["a"], [], True),
        ([], ["a"], False),
    ],
)
def test_a_pattern_is_covered_only_when_that_is_certain(wider: list[str], narrower: list[str], covered: bool) -> None:
    assert covers(wider, narrower) is covered


@pytest.mark.parametrize(
    ("name", "pattern", "matched"),
    [
        ("charge", "charge", True),
        ("charge", "char*", True),
        ("charge", "*", True),
        ("charge", "CHARGE", False),
        ("charge", "charg", False),
        ("charge\n", "charge", False),
        ("a", "[ab]", True),
        ("[ab]", "[ab]", True),
    ],
)
def test_names_match_shell_patterns(name: str, pattern: str, matched: bool) -> None:
    assert matches(name, [pattern]) is matched


# What a delegation keeps.

NO = 'forbid(principal, action == Action::"delete", resource);'


def restricted_to(**changes: Any) -> dict[str, Any]:
    return {"authorization_details": (authorize(**changes),)}


@pytest.mark.rule("D7")
@pytest.mark.parametrize("given", [(), (NO.replace("delete", "other"),), (NO + " ",)], ids=str)
def test_a_delegation_that_leaves_out_what_its_parent_is_forbidden_is_refused(
    scene: Scene, given: tuple[str, ...]
) -> None:
    grant = scene.authority.grant(authorization=authorize(forbid=(NO,)))
    with refused("D7"):
        scene.chain(grant, scene.delegation_under(grant, **restricted_to(forbid=given)))


@pytest.mark.rule("D7")
def test_a_grandchild_is_forbidden_what_its_parent_was(scene: Scene) -> None:
    more = NO.replace("delete", "other")
    first = scene.delegation_under(scene.grant, **restricted_to(forbid=(NO,)))
    second = scene.delegation_under(first, 2, **restricted_to(forbid=(more, NO)))
    assert scene.chain(scene.grant, first, second).authorization.forbid == (more, NO)
    with refused("D7"):
        scene.chain(scene.grant, first, scene.delegation_under(first, 2, **restricted_to(forbid=(more,))))


@pytest.mark.rule("D8")
@pytest.mark.parametrize("until", [None, NOW + 61], ids=str)
def test_a_delegation_that_goes_on_after_its_parents_restriction_is_refused(scene: Scene, until: float | None) -> None:
    first = scene.delegation_under(scene.grant, **restricted_to(until=NOW + 60))
    assert scene.chain(scene.grant, first, scene.delegation_under(first, 2, **restricted_to(until=NOW + 60)))
    with refused("D8"):
        scene.chain(scene.grant, first, scene.delegation_under(first, 2, **restricted_to(until=until)))


@pytest.mark.rule("D5")
def test_under_a_grant_that_is_renewed_a_delegation_may_be_made_after_its_end_and_has_ended(scene: Scene) -> None:
    late = {"iat": NOW, "exp": NOW - 1}
    grant = scene.authority.grant(renew_until=NOW + 86_400)
    chain = scene.chain(grant, scene.delegation_under(grant, **late))
    with refused("G4"):
        check_current(chain, NOW, 60)


@pytest.mark.parametrize(
    ("these", "those", "both"),
    [
        (["*"], ["a", "b*"], {"a", "b*"}),
        (["a", "b"], ["b", "c"], {"b"}),
        (["a*"], ["ab", "b"], {"ab"}),
        (["ab", "b"], ["a*"], {"ab"}),
        (["a*"], ["*b"], set()),
        (["a*"], ["ab*"], set()),
        (["a?", "ab"], ["a?", "*"], {"a?", "ab"}),
        ([], ["*"], set()),
    ],
)
def test_patterns_are_narrowed_to_what_both_certainly_match(these: list[str], those: list[str], both: set[str]) -> None:
    assert set(narrowed(these, those)) == both
