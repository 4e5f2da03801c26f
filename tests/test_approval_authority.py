"""The authority signs what a person decides about a challenge, or refuses."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from exequatur import AuthorizationDenied, AuthorizationPlugin, AuthorizationUnavailable, Principal
from exequatur.authority.approvals import groups_of
from exequatur.gate.issuing import ApprovalOrder
from exequatur.identity.actors import actor_of
from exequatur.lineage.record import read
from exequatur.statements.approvals import satisfied, verify_approval, verify_challenge
from exequatur.statements.encoding import digest
from exequatur.statements.jws import parse
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Approval, Needed
from tests.asking import challenge_of, finance, plugin_in

FAY = Principal("User", "fay")


@pytest.fixture
def plugin(tmp_path: Path) -> AuthorizationPlugin:
    return plugin_in(tmp_path)


def site(plugin: AuthorizationPlugin) -> str:
    settings = plugin.gate.settings
    return f"{settings.trust_domain}/{settings.cluster}"


async def decide(plugin: AuthorizationPlugin, who: Principal, asked: tuple[str, str], **more: Any) -> Approval:
    """What the authority signs, verified as a run verifies it."""
    order = ApprovalOrder(who, *asked, **{"verdict": "approve", **more})
    text = await plugin._authority.issue_approval(order)
    now = time.time()
    challenge = verify_challenge(*asked, plugin.gate.trust, site=site(plugin), now=now)
    return verify_approval(text, challenge, plugin.gate.trust, aud=f"{site(plugin)}/default", now=now).claims


def recorded(tmp_path: Path) -> list[dict[str, Any]]:
    files = (tmp_path / "state" / "journal").glob("*.db")
    return [json.loads(each.body) for file in files for each in read(file) if each.kind == "authority"]


@pytest.mark.rule("L6")
async def test_somebody_of_the_group_agrees_and_it_is_in_the_evidence(plugin, tmp_path):
    asked = challenge_of(plugin, needs=(finance(quorum=2, ttl=60.0),))
    approval = await decide(plugin, FAY, asked, reason="I called the customer")
    assert (approval.sub, approval.verdict, approval.groups) == ('User::"fay"', "approve", ("finance",))
    assert approval.exp == pytest.approx(approval.iat + 60, abs=0.01)
    assert (approval.policies, approval.reason) == (("answers",), "I called the customer")
    [record] = recorded(tmp_path)
    assert {
        name: record[name] for name in ("action", "decision", "principal", "verdict", "because", "workflow_id")
    } == {
        "action": "approval.approve",
        "decision": "allow",
        "principal": 'User::"fay"',
        "verdict": "approve",
        "because": "I called the customer",
        "workflow_id": "refund-1",
    }
    assert (record["approval"], record["challenge"], record["run_id"]) == (approval.jti, digest(asked[0]), "run-1")
    assert record["request"] == approval.request
    facts = json.loads(record["facts"])
    assert facts["run"] == {"namespace": "default", "workflow_id": "refund-1", "workflow_type": "Refund"}
    assert facts["approval"] == {
        "activity": "refund_order",
        "principal": 'Agent::"ops-bot"',
        "groups": ["finance"],
    }


async def test_a_rejection_is_signed_alike_and_counts_for_nobody(plugin):
    asked = challenge_of(plugin)
    approval = await decide(plugin, FAY, asked, verdict="reject", reason="no order")
    claims = verify_challenge(*asked, plugin.gate.trust, site=site(plugin)).claims
    assert approval.verdict == "reject"
    assert satisfied(claims, [approval], now=time.time()) == ((), ())


@pytest.mark.rule("L6")
async def test_for_each_group_an_approval_counts_as_long_as_that_group_s_policy_says(plugin):
    boss = Principal("User", "lea", parents=['Role::"finance"', 'Role::"leads"'])
    asked = challenge_of(plugin, needs=(finance(ttl=10.0), Needed(group="leads", quorum=1, ttl=100.0)))
    approval = await decide(plugin, boss, asked)
    claims = verify_challenge(*asked, plugin.gate.trust, site=site(plugin)).claims
    assert satisfied(claims, [approval], now=approval.iat + 5)[0] == ("finance", "leads")
    assert satisfied(claims, [approval], now=approval.iat + 50)[0] == ("leads",)
    assert satisfied(claims, [approval], now=approval.iat + 101)[0] == ()


@pytest.mark.rule("L3")
@pytest.mark.parametrize("verdict", ["approve", "reject"])
async def test_who_is_in_no_group_that_is_asked_is_refused_and_that_is_in_the_evidence(plugin, tmp_path, verdict):
    with pytest.raises(
        AuthorizationDenied, match=f"may not {verdict} refund_order of workflow refund-1: nobody but fin"
    ):
        await decide(plugin, Principal("User", "mallory"), challenge_of(plugin), verdict=verdict)
    [record] = recorded(tmp_path)
    assert (record["decision"], record["principal"], record["verdict"]) == ("none", 'User::"mallory"', verdict)


async def test_a_group_is_reached_through_other_groups_and_through_what_is_vouched_for(plugin):
    asked = challenge_of(plugin)
    assert (await decide(plugin, Principal("User", "aud"), asked)).groups == ("finance",)
    assert (await decide(plugin, Principal("User", "new", parents=['Role::"auditors"']), asked)).groups == ("finance",)


def test_a_group_is_named_by_its_id_or_with_its_type_and_never_by_the_person() -> None:
    lea = Principal("User", "lea", parents=['Team::"finance"'])
    needs = [Needed(group=name, quorum=1, ttl=1.0) for name in ("finance", "Team::finance", "Role::finance", "lea")]
    assert groups_of(lea, [], needs) == ("finance", "Team::finance")
    circle = [
        {"uid": {"type": "Team", "id": "finance"}, "parents": [{"type": "Team", "id": "all"}]},
        {"uid": {"type": "Team", "id": "all"}, "parents": [{"type": "Team", "id": "finance"}]},
    ]
    assert groups_of(lea, circle, [Needed(group="all", quorum=1, ttl=1.0)]) == ("all",)


@pytest.mark.rule("L6")
async def test_an_approval_is_for_the_groups_that_the_person_is_in_and_for_no_others(plugin):
    asked = challenge_of(plugin, needs=(finance(ttl=10.0), Needed(group="leads", quorum=1, ttl=100.0)))
    approval = await decide(plugin, FAY, asked)
    assert approval.groups == ("finance",)
    assert approval.exp == pytest.approx(approval.iat + 10, abs=0.01)


@pytest.mark.rule("L4")
async def test_what_no_policy_permits_is_not_signed(plugin, tmp_path):
    asked = challenge_of(plugin)
    with pytest.raises(AuthorizationDenied, match=r"no policy permits the action approval\.approve"):
        await decide(plugin, Principal("Agent", "bot"), asked)
    payroll = challenge_of(plugin, activity_type="payroll", places=("default", "refunds", ("payroll",)))
    with pytest.raises(AuthorizationDenied, match=r"no policy permits the action approval\.reject"):
        await decide(plugin, FAY, payroll, verdict="reject")
    assert [each["decision"] for each in recorded(tmp_path)] == ["deny", "deny"]


@pytest.mark.rule("L5")
async def test_nobody_agrees_to_their_own_request_unless_a_policy_says_so(plugin):
    with pytest.raises(AuthorizationDenied, match=r"approval\.self"):
        await decide(plugin, FAY, challenge_of(plugin, sub='User::"fay"'))
    own = await decide(plugin, Principal("User", "boss"), challenge_of(plugin, sub='User::"boss"'))
    assert own.policies == ("answers", "self")
    # Not through somebody else's name, either.
    through = actor_of([FAY])
    with pytest.raises(AuthorizationDenied, match=r"approval\.self"):
        await decide(plugin, Principal("User", "aud"), challenge_of(plugin, sub='User::"fay"'), acting=through)
    with pytest.raises(AuthorizationDenied, match=r"approval\.self"):
        await decide(plugin, FAY, challenge_of(plugin, act=through))
    assert (await decide(plugin, FAY, challenge_of(plugin, act=actor_of(['Agent::"bot"'])))).verdict == "approve"
    refused = await decide(plugin, FAY, challenge_of(plugin, sub='User::"fay"'), verdict="reject")
    assert refused.verdict == "reject"


@pytest.mark.rule("L1")
async def test_a_challenge_that_no_worker_of_ours_signed_is_not_answered(plugin, tmp_path):
    (tmp_path / "other").mkdir()
    stranger = plugin_in(tmp_path / "other")
    good, credential = challenge_of(plugin)
    key = SigningKey.generate()
    forged, _ = challenge_of(plugin, signer=key)
    for asked in (
        challenge_of(stranger),
        (good, challenge_of(stranger)[1]),
        (forged, credential),
        (good[:-3] + "AAA", credential),
        ("", ""),
        ("x" * 100_000, credential),
        (good, "é.é.é"),
    ):
        with pytest.raises(AuthorizationDenied, match="cannot be answered"):
            await decide(plugin, FAY, asked)
    assert recorded(tmp_path) == []


@pytest.mark.rule("L1")
async def test_a_challenge_that_has_ended_or_is_for_another_place_is_not_answered(plugin, tmp_path):
    now = time.time()
    with pytest.raises(AuthorizationDenied, match="The challenge ended"):
        await decide(plugin, FAY, challenge_of(plugin, exp=now - 1, iat=now - 30))
    elsewhere = plugin_in(tmp_path, cluster="other")
    with pytest.raises(AuthorizationDenied, match="cannot be answered"):
        await decide(elsewhere, FAY, challenge_of(plugin))
    with pytest.raises(AuthorizationDenied, match="does not know this authority's key"):
        await decide(plugin, FAY, challenge_of(plugin, keys=(SigningKey.generate().kid,)))


@pytest.mark.rule("L2")
async def test_a_challenge_from_the_future_waits_for_the_clocks(plugin):
    with pytest.raises(AuthorizationUnavailable, match="in the future"):
        await decide(plugin, FAY, challenge_of(plugin, iat=time.time() + 500, exp=time.time() + 900))


async def test_a_revoked_approver_or_workflow_is_not_answered_for(plugin):
    plugin.revoke(principal=FAY, reason="left the company")
    with pytest.raises(AuthorizationDenied, match="left the company"):
        await decide(plugin, FAY, challenge_of(plugin))
    plugin.revoke(workflow="refund-1", reason="stopped")
    with pytest.raises(AuthorizationDenied, match="stopped"):
        await decide(plugin, Principal("User", "aud"), challenge_of(plugin))


async def test_a_decision_that_cannot_be_recorded_is_not_signed(plugin, tmp_path):
    (tmp_path / "state" / "journal").write_text("not a folder")
    with pytest.raises(AuthorizationUnavailable, match="cannot be recorded"):
        await decide(plugin, FAY, challenge_of(plugin))


@pytest.mark.parametrize("reason", ["x" * 401, "half \ud800"])
async def test_a_reason_that_cannot_be_signed_is_said_before_anybody_is_asked(plugin, tmp_path, reason):
    with pytest.raises(AuthorizationDenied, match="The reason"):
        await decide(plugin, FAY, challenge_of(plugin), reason=reason)
    assert recorded(tmp_path) == []


async def test_an_approval_is_for_one_challenge_only(plugin):
    first, second = challenge_of(plugin), challenge_of(plugin, args=digest("others"))
    text = await plugin._authority.issue_approval(ApprovalOrder(FAY, *first, "approve"))
    approval = parse(text, Approval).claims
    other = verify_challenge(*second, plugin.gate.trust, site=site(plugin))
    with pytest.raises(Exception, match="another challenge"):
        verify_approval(text, other, plugin.gate.trust, aud=approval.aud)
