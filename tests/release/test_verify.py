"""What may be put in force: every rule of verification, with a real key and an attacker who has another one."""

from typing import Any

import pytest

from exequatur.errors import ConfigurationError, PolicyError
from exequatur.policy.offer import Channel
from exequatur.release.file import BundleFile
from exequatur.release.verify import Mark, check_order, in_share, open_released, verify
from exequatur.statements.jws import parse, sign
from exequatur.statements.models import Grant, Release
from exequatur.statements.trust import TrustStore
from tests.release.parties import PERMIT, PolicyTeam, changed_claims, made
from tests.simulator import wrongly_signed

OTHER = '@id("other") permit(principal, action, resource);\n'


def verified(
    file: BundleFile, trust: TrustStore, now: float, channel: Channel = "stable", follows: str = "policies"
) -> Release:
    return verify(file, "a.bundle", trust, follows=follows, channel=channel, now=now, leeway=30).claims


def refusal(file: BundleFile, trust: TrustStore, now: float, **options: Any) -> str:
    with pytest.raises(PolicyError) as raised:
        verified(file, trust, now, **options)
    assert "a.bundle" in str(raised.value)
    return str(raised.value)


def test_a_released_bundle_verifies(team: PolicyTeam, now: float):
    file = team.release(made(), 7)
    release = verified(file, team.trust(), now)
    assert (release.sequence, release.name, release.bundle) == (7, "policies", file.address)


@pytest.mark.rule("J1")
def test_an_unsigned_bundle_is_refused(team: PolicyTeam, now: float):
    assert "not signed" in refusal(made(), team.trust(), now)


@pytest.mark.rule("J1")
def test_a_bundle_that_another_key_signed_is_refused(team: PolicyTeam, tmp_path, now: float):
    mallory = PolicyTeam(tmp_path, "mallory")
    assert "has no key" in refusal(mallory.release(made()), team.trust(), now)


@pytest.mark.rule("J1")
def test_a_signature_by_another_key_under_a_trusted_name_is_refused(team: PolicyTeam, tmp_path, now: float):
    mallory = PolicyTeam(tmp_path, "mallory")
    file = team.release(made())
    forged = BundleFile(file.content, (wrongly_signed(file.releases[0], mallory.key),))
    assert "signature" in refusal(forged, team.trust(), now)


@pytest.mark.rule("J1")
@pytest.mark.parametrize("changes", [{"sequence": 99}, {"exp": 4_000_000_000.0}, {"name": "other"}])
def test_a_release_whose_claims_were_changed_is_refused(team: PolicyTeam, now: float, changes: dict[str, Any]):
    file = team.release(made(), 1)
    forged = BundleFile(file.content, (changed_claims(file.releases[0], **changes),))
    assert "signature" in refusal(forged, team.trust(), now, follows=changes.get("name", "policies"))


@pytest.mark.rule("J1")
def test_a_key_for_grants_releases_no_policies(team: PolicyTeam, now: float):
    grants = TrustStore([team.anchor(typ=(Grant.typ,))])
    assert "may not sign" in refusal(team.release(made()), grants, now)


@pytest.mark.rule("J1")
def test_a_key_that_was_retired_before_releases_nothing_more(team: PolicyTeam, now: float):
    assert "not valid when" in refusal(team.release(made()), team.trust(exp=now - 60), now)


@pytest.mark.rule("J1")
def test_a_release_in_the_name_of_another_issuer_is_refused(team: PolicyTeam, now: float):
    assert "issuer" in refusal(team.release(made()), team.trust(iss="somebody"), now)


@pytest.mark.rule("J2")
def test_a_release_does_not_carry_over_to_other_content(team: PolicyTeam, now: float):
    moved = BundleFile(made(OTHER).content, team.release(made()).releases)
    assert "changed after it was signed" in refusal(moved, team.trust(), now)


@pytest.mark.rule("J2")
def test_every_changed_byte_of_the_content_is_noticed(team: PolicyTeam, now: float):
    file = team.release(made())
    for at in range(0, len(file.content), 7):
        content = bytearray(file.content)
        content[at] ^= 1
        assert "changed after" in refusal(BundleFile(bytes(content), file.releases), team.trust(), now)


@pytest.mark.rule("J3")
def test_a_release_of_other_policies_by_the_same_key_is_refused(team: PolicyTeam, now: float):
    staging = team.release(made(name="staging"))
    assert "policy_name" in refusal(staging, team.trust(), now)
    assert verified(staging, team.trust(), now, follows="staging").name == "staging"


@pytest.mark.rule("J3")
def test_a_canary_does_not_pass_for_stable_nor_stable_for_a_canary(team: PolicyTeam, now: float):
    canary, stable = team.release(made(), share=10), team.release(made())
    assert "canary channel" in refusal(canary, team.trust(), now)
    assert "stable channel" in refusal(stable, team.trust(), now, channel="canary")
    assert verified(canary, team.trust(), now, channel="canary").share == 10


@pytest.mark.rule("J4")
def test_a_release_that_has_ended_is_refused(team: PolicyTeam, now: float):
    file = team.release(made(), expires=float(int(now + 10)))
    assert verified(file, team.trust(), now)
    assert "ended" in refusal(file, team.trust(), now + 10)


@pytest.mark.rule("J4")
def test_a_release_from_the_future_is_refused_beyond_the_leeway(team: PolicyTeam, now: float):
    file = team.release(made(), now=now + 3600)
    assert "check the clocks" in refusal(file, team.trust(), now)
    assert verified(file, team.trust(), now + 3575)


@pytest.mark.rule("J5")
def test_the_highest_sequence_of_those_that_hold_counts(team: PolicyTeam, tmp_path, now: float):
    mallory, second = PolicyTeam(tmp_path, "mallory"), PolicyTeam(tmp_path, "second")
    file = second.release(team.release(made(), 1), 2)
    file = mallory.release(file, 3)
    trust = TrustStore([team.anchor(), second.anchor()])
    assert verified(file, trust, now).sequence == 2
    assert verified(file, team.trust(), now).sequence == 1


@pytest.mark.rule("J6")
def test_an_older_release_is_refused_after_a_newer_one(team: PolicyTeam, now: float):
    release = verified(team.release(made(), 5), team.trust(), now)
    check_order(release, None, "a.bundle")
    check_order(release, Mark(4, "another"), "a.bundle")
    check_order(release, Mark(5, release.bundle), "a.bundle")
    with pytest.raises(PolicyError, match="sign the older bundle again"):
        check_order(release, Mark(6, release.bundle), "a.bundle")


@pytest.mark.rule("J6")
def test_another_content_under_the_same_sequence_is_refused(team: PolicyTeam, now: float):
    release = verified(team.release(made(), 5), team.trust(), now)
    with pytest.raises(PolicyError, match="another content"):
        check_order(release, Mark(5, made(OTHER).address), "a.bundle")


@pytest.mark.rule("J7")
@pytest.mark.parametrize("changes", [{"digest": "A" * 43}, {"name": "elsewhere"}])
def test_a_release_that_says_another_thing_than_its_content_is_refused(
    team: PolicyTeam, now: float, changes: dict[str, Any]
):
    file = team.release(made())
    claims = parse(file.releases[0], Release).claims.model_copy(update=changes)
    token = sign(claims, team.key)
    with pytest.raises(PolicyError, match="Sign it again"):
        open_released(BundleFile(file.content, (token.text,)), token, "a.bundle")


@pytest.mark.rule("J8")
def test_a_share_is_about_that_share_of_the_workers_and_the_same_ones_when_it_grows(team: PolicyTeam, now: float):
    workers = [f"host-{number}/dev:1" for number in range(2000)]
    chosen: set[str] = set()
    for share in (1, 10, 50, 99, 100):
        release = verified(team.release(made(PERMIT), share=share), team.trust(), now, channel="canary")
        now_chosen = {worker for worker in workers if in_share(worker, release)}
        assert chosen <= now_chosen
        assert abs(len(now_chosen) / 20 - share) < 5
        chosen = now_chosen
    assert len(chosen) == len(workers)


def test_another_canary_chooses_other_workers(team: PolicyTeam, now: float):
    workers = [f"host-{number}" for number in range(500)]
    chosen = [
        {worker for worker in workers if in_share(worker, release)}
        for policies in (PERMIT, OTHER)
        for release in [verified(team.release(made(policies), share=20), team.trust(), now, channel="canary")]
    ]
    assert chosen[0] != chosen[1]


def test_a_release_without_a_share_is_no_canary(team: PolicyTeam, now: float):
    assert not in_share("host", verified(team.release(made()), team.trust(), now))


def test_garbage_among_the_releases_is_refused_or_passed_over(team: PolicyTeam, now: float):
    good = team.release(made())
    assert "no valid stable release" in refusal(BundleFile(good.content, ("x", "a.b.c", "..")), team.trust(), now)
    assert verified(BundleFile(good.content, ("a.b.c", *good.releases)), team.trust(), now)


def test_a_policy_key_has_no_other_role(team: PolicyTeam):
    with pytest.raises(ConfigurationError, match="exactly one"):
        TrustStore([team.anchor(typ=(Release.typ, Grant.typ))])
