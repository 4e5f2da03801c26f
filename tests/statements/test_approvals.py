"""Rules O1 to O14: who is asked, who has agreed, and to what."""

from collections.abc import Callable
from typing import Any

import pytest

from exequatur.errors import UnknownKeyError
from exequatur.statements.approvals import (
    MAX_APPROVALS,
    SKEW,
    enough,
    lasts_until,
    satisfied,
    verify_agreement,
    verify_approval,
    verify_challenge,
)
from exequatur.statements.encoding import digest
from exequatur.statements.jws import Token, parse
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Approval, Challenge, Needed, Request
from exequatur.statements.trust import TrustStore
from tests.simulator import AUD, NOW, SITE, Scene, Worker, bend, claims_of, refused, wrongly_signed

FINANCE = Needed(group="finance", quorum=2, ttl=3600)
OPERATIONS = Needed(group="operations", quorum=1, ttl=600)


def challenge(scene: Scene, text: str | None = None, **options: Any) -> Token[Challenge]:
    return verify_challenge(
        text or scene.challenge(), scene.activities.credential, scene.trust, site=options.pop("site", SITE), **options
    )


def approval(scene: Scene, text: str | None = None, **options: Any) -> Token[Approval]:
    asked = parse(scene.challenge(), Challenge)
    text = text or scene.authority.approval(asked.text)
    return verify_approval(text, asked, scene.trust, aud=options.pop("aud", AUD), **options)


def test_an_honest_challenge_and_its_approval_are_believed(scene: Scene) -> None:
    assert challenge(scene, now=NOW + 60).claims.needs[0].group == "finance"
    assert approval(scene, now=NOW + 60).claims.sub == 'User::"fay"'


@pytest.mark.rule("O1")
def test_a_challenge_is_a_worker_s_who_may_give_receipts(scene: Scene) -> None:
    with refused("C4"):
        challenge(scene, bend(scene.challenge(), scene.attacker))
    with refused("V7"):
        challenge(scene, wrongly_signed(scene.challenge(), scene.attacker))
    with refused("C2"):
        challenge(scene, site="example.org/other")
    for changes, rule in (
        ({"namespace": "other"}, "C6"),
        ({"task_queue": "other"}, "C6"),
        ({"activity_type": "x"}, "C6"),
    ):
        with refused(rule):
            challenge(scene, scene.challenge(**changes))
    limited = Worker(scene.authority, "limited", roles=("request",))
    with refused("C5"):
        verify_challenge(scene.challenge(by=limited), limited.credential, scene.trust, site=SITE)


@pytest.mark.rule("O2")
def test_a_challenge_ends_after_it_began(scene: Scene) -> None:
    with refused("O2"):
        challenge(scene, scene.challenge(exp=NOW + 1))


@pytest.mark.rule("O3")
def test_a_challenge_that_has_ended_is_told_only_by_a_clock(scene: Scene) -> None:
    text = scene.challenge(exp=NOW + 100)
    assert challenge(scene, text, now=NOW + 99)
    assert challenge(scene, text)
    with refused("O3"):
        challenge(scene, text, now=NOW + 100)


@pytest.mark.rule("O4")
def test_a_challenge_asks_each_group_once_and_no_more_people_than_fit(scene: Scene) -> None:
    with refused("O4"):
        challenge(scene, scene.challenge(needs=(FINANCE, FINANCE)))
    many = Needed(group="all", quorum=MAX_APPROVALS, ttl=60)
    assert challenge(scene, scene.challenge(needs=(many,)))
    with refused("O4"):
        challenge(scene, scene.challenge(needs=(many, OPERATIONS)))


@pytest.mark.rule("O5")
def test_an_approval_is_the_authority_s_with_a_key_that_the_challenge_names(scene: Scene) -> None:
    honest = scene.authority.approval(scene.challenge())
    with refused("O5"):
        approval(scene, bend(honest, scene.attacker))
    with refused("O5"):
        approval(scene, bend(honest, scene.authority.grant_key))
    with refused("V7"):
        approval(scene, wrongly_signed(honest, scene.attacker))
    named = parse(scene.challenge(keys=(scene.authority.grant_key.kid,)), Challenge)
    with refused("T2"):
        text = bend(scene.authority.approval(named.text), scene.authority.grant_key)
        verify_approval(text, named, scene.trust, aud=AUD)


@pytest.mark.rule("O5")
def test_a_key_that_the_challenge_names_and_nobody_knows_yet_is_no_verdict(scene: Scene) -> None:
    coming = SigningKey.generate()
    asked = parse(scene.challenge(keys=(coming.kid,)), Challenge)
    with pytest.raises(UnknownKeyError):
        verify_approval(bend(scene.authority.approval(asked.text), coming), asked, scene.trust, aud=AUD)


@pytest.mark.rule("O6")
def test_an_approval_for_another_place_is_refused(scene: Scene) -> None:
    with refused("O6"):
        approval(scene, aud=f"{SITE}/other")


@pytest.mark.rule("O7")
@pytest.mark.parametrize(
    "change",
    [
        {"challenge": digest("another")},
        {"request": digest("another")},
        {"workflow_id": "refund-2"},
        {"original_run_id": "run-2"},
        {"activity_type": "refund"},
        {"args": digest("other arguments")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_approval_for_something_else_is_refused(scene: Scene, change: dict[str, Any]) -> None:
    with refused("O7"):
        approval(scene, bend(scene.authority.approval(scene.challenge()), scene.authority.approval_key, **change))


@pytest.mark.rule("O8")
@pytest.mark.parametrize("groups", [(), ("operations",), ("finance", "operations")])
def test_an_approval_is_for_groups_that_are_asked(scene: Scene, groups: tuple[str, ...]) -> None:
    with refused("O8"):
        approval(scene, scene.authority.approval(scene.challenge(), groups=groups))


@pytest.mark.rule("O9")
@pytest.mark.parametrize(
    "change",
    [
        {"iat": NOW - SKEW - 1},
        {"iat": NOW + 90_000, "exp": NOW + 90_001},
        {"exp": NOW + 10},
        {"exp": NOW + 10 + 3602},
    ],
    ids=["before", "after", "ends at once", "lasts too long"],
)
def test_an_approval_is_given_in_time_and_for_no_longer_than_it_may(scene: Scene, change: dict[str, Any]) -> None:
    with refused("O9"):
        approval(scene, scene.authority.approval(scene.challenge(), **change))


@pytest.mark.rule("O10")
def test_an_approval_that_has_ended_is_told_only_by_a_clock(scene: Scene) -> None:
    text = scene.authority.approval(scene.challenge(), exp=NOW + 100)
    assert approval(scene, text, now=NOW + 99)
    assert approval(scene, text)
    with refused("O10"):
        approval(scene, text, now=NOW + 100)


def people(scene: Scene, asked: str, *who: tuple[str, tuple[str, ...], float], **changes: Any) -> list[Token[Approval]]:
    """Approvals: who, for which groups, until when (seconds from NOW)."""
    return [
        parse(scene.authority.approval(asked, sub=sub, groups=groups, exp=NOW + ends, **changes), Approval)
        for sub, groups, ends in who
    ]


@pytest.mark.rule("O11")
def test_people_are_counted_once_for_each_group_and_only_while_they_last(scene: Scene) -> None:
    text = scene.challenge(needs=(FINANCE, OPERATIONS))
    asked = parse(text, Challenge).claims

    def count(*who: tuple[str, tuple[str, ...], float], at: float = 20.0) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return satisfied(asked, [each.claims for each in people(scene, text, *who)], now=NOW + at)

    fay, rob = ("fay", ("finance",), 3000.0), ("rob", ("finance", "operations"), 3000.0)
    assert count() == ((), ())
    assert count(fay, fay) == ((), ("fay",))
    assert count(fay, rob) == (("finance", "operations"), ("fay", "rob"))
    # For operations an approval counts 600 seconds, whatever it says itself.
    assert count(fay, rob, at=611.0) == (("finance",), ("fay", "rob"))
    assert count(fay, rob, at=3001.0) == ((), ())


@pytest.mark.rule("O11")
def test_who_rejects_does_not_agree(scene: Scene) -> None:
    text = scene.challenge()
    rejected = [each.claims for each in people(scene, text, ("fay", ("finance",), 3000.0), verdict="reject")]
    assert satisfied(parse(text, Challenge).claims, rejected, now=NOW + 20) == ((), ())


def test_a_count_stays_as_it_is_until_the_first_of_those_who_count_ends(scene: Scene) -> None:
    text = scene.challenge(needs=(FINANCE, OPERATIONS))
    asked = parse(text, Challenge).claims
    given = [each.claims for each in people(scene, text, ("fay", ("finance",), 100.0), ("rob", ("operations",), 900.0))]
    assert lasts_until(asked, given, now=NOW + 20) == NOW + 100
    assert lasts_until(asked, given, now=NOW + 200) == NOW + 610
    assert lasts_until(asked, given, now=NOW + 700) == float("inf")


def test_no_more_approvals_are_carried_than_a_quorum_takes(scene: Scene) -> None:
    text = scene.challenge(needs=(FINANCE, OPERATIONS))
    given = people(
        scene,
        text,
        ("ann", ("finance",), 100.0),
        ("bob", ("finance",), 300.0),
        ("cat", ("finance",), 200.0),
        ("dan", ("operations",), 50.0),
    )
    chosen = enough(parse(text, Challenge).claims, given, now=NOW + 20)
    assert [each.claims.sub for each in chosen] == ["bob", "cat", "dan"]


def answering(scene: Scene, *between: str, **changes: Any) -> list[str]:
    """An activity's header: a request that answers, with these before it."""
    asked = claims_of(scene.challenge())["request"]
    request = scene.request_under(scene.grant, **{"seq": 2, "answers": asked} | changes)
    return [scene.grant, scene.workflows.credential, scene.activities.credential, *between, request]


def test_approvals_come_to_the_gate_with_their_challenge(scene: Scene) -> None:
    text = scene.challenge()
    agreement = scene.authorized(answering(scene, text, scene.authority.approval(text))).agreement
    assert agreement is not None
    assert [each.claims.sub for each in agreement.approvals] == ['User::"fay"']
    assert scene.authorized().agreement is None
    # Nobody has to have agreed yet, and what is answered need not come along.
    assert scene.authorized(answering(scene)).agreement is None


@pytest.mark.rule("O12")
@pytest.mark.parametrize(
    "tokens",
    [
        lambda scene, text, given: answering(scene, given),
        lambda scene, text, given: answering(scene, text, scene.challenge(exp=NOW + 60), given),
        lambda scene, text, given: answering(scene, text, given, answers=None),
        lambda scene, text, given: answering(scene, text, given, answers=digest("another")),
    ],
    ids=["without", "with two", "unsaid", "of another"],
)
def test_approvals_without_the_one_challenge_that_is_answered_are_refused(
    scene: Scene, tokens: Callable[[Scene, str, str], list[str]]
) -> None:
    text = scene.challenge()
    with refused("O12"):
        scene.authorized(tokens(scene, text, scene.authority.approval(text)))


@pytest.mark.rule("O13")
@pytest.mark.parametrize(
    "change",
    [
        {"workflow_id": "refund-2"},
        {"workflow_type": "Payout"},
        {"original_run_id": "run-2"},
        {"args": digest("other arguments")},
        {"sub": 'Agent::"another"'},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_challenge_of_something_else_is_refused(scene: Scene, change: dict[str, Any]) -> None:
    text = scene.challenge(**change)
    with refused("O13"):
        scene.authorized(answering(scene, text, scene.authority.approval(text)))


@pytest.mark.rule("O13")
@pytest.mark.parametrize(
    "place",
    [{"namespace": "other"}, {"task_queue": "payouts"}, {"activity_type": "refund"}],
    ids=lambda change: next(iter(change)),
)
def test_a_challenge_of_another_place_is_refused(scene: Scene, place: dict[str, Any]) -> None:
    everywhere = dict.fromkeys(("namespaces", "task_queues", "activities"), ("*",))
    scene.activities = Worker(scene.authority, "activities", **everywhere)
    text = scene.challenge(**place)
    with refused("O13"):
        scene.authorized(answering(scene, text, scene.authority.approval(text)))


@pytest.mark.rule("O14")
def test_rejections_and_too_many_approvals_do_not_pass_the_gate(scene: Scene) -> None:
    text = scene.challenge()
    with refused("O14"):
        scene.authorized(answering(scene, text, scene.authority.approval(text, verdict="reject")))
    many = [scene.authority.approval(text, sub=f"person {number}") for number in range(MAX_APPROVALS + 1)]
    assert scene.authorized(answering(scene, text, *many[1:])).agreement
    with refused("O14"):
        scene.authorized(answering(scene, text, *many))


def test_a_credential_that_did_not_come_along_verifies_no_challenge(scene: Scene) -> None:
    text = scene.challenge()
    tokens = [each for each in answering(scene, text) if each != scene.activities.credential]
    with refused("C4"):
        scene.authorized(tokens)
    request = parse(answering(scene, text)[-1], Request).claims
    with pytest.raises(UnknownKeyError):
        verify_agreement(
            answering(scene, text, scene.authority.approval(text)),
            request,
            scene.chain(),
            scene.credentials(),
            TrustStore(),
        )
