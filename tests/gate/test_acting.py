"""A user through an agent through a service: who acts is in what is signed, is told to policies, and is audited.

And credentials in the place of names, for a plugin that is its own authority.
"""

import json
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.exceptions import ActivityError, ApplicationError

from exequatur import AuthorizationDenied, AuthorizationUnavailable, Principal, acting_as
from exequatur.audit.asked import Stated, _otherwise
from exequatur.audit.evidence import OwnRecord, RecordedEvidence, journals_in
from exequatur.audit.history import of_events
from exequatur.audit.report import Severity
from exequatur.audit.trust import AuditTrust, read_trust
from exequatur.audit.verify import audit_run
from exequatur.gate.wire import read_start_header
from exequatur.identity.actors import names_of
from exequatur.identity.credential import Credential
from exequatur.lineage.record import Record
from exequatur.statements.encoding import compact_json
from exequatur.statements.jws import parse
from exequatur.statements.models import Grant
from tests.gate.conftest import BOT, PERMIT_ALL, deeds, events, happened, start_headers
from tests.identity.issuer import jwks, new_key, signed

T = timedelta(seconds=60)
DANA = Principal("User", "dana")
THROUGH = ('Agent::"bot"', 'Service::"desk"')
ONLY_THROUGH_THE_BOT = """
@id("start") permit(principal, action == Action::"workflow.start", resource)
when { context has acting && context.acting.by == "Agent::\\"bot\\"" };
@id("messages") permit(principal, action, resource)
when { context has message && context has acting && context.acting.chain.contains("Service::\\"desk\\"") };
@id("child") permit(principal, action == Action::"workflow.child", resource) when { context has acting };
@id("step") permit(principal, action == Action::"step", resource)
when { principal == User::"dana" && context has acting && context.acting.chain.contains("Service::\\"desk\\"") };
"""
KEY = new_key("one")


@activity.defn
async def step(number: int) -> int:
    happened(number)
    return number


@workflow.defn
class Steps:
    """One activity, in a child workflow where that is asked for, and a signal to itself."""

    def __init__(self) -> None:
        self.heard = False

    @workflow.run
    async def run(self, deeper: bool) -> int:
        if deeper:
            await workflow.wait_condition(lambda: self.heard)
            child: int = await workflow.execute_child_workflow(
                Steps.run, False, id=f"{workflow.info().workflow_id}-child"
            )
            return child
        try:
            return await workflow.execute_activity(step, 7, start_to_close_timeout=T)
        except ActivityError as err:
            raise ApplicationError("denied", type=getattr(err.cause, "type", "")) from err

    @workflow.signal
    def hear(self) -> None:
        self.heard = True


@workflow.defn
class Waits:
    """Waits for a message, then runs an activity and tells another run something."""

    def __init__(self) -> None:
        self.going = False
        self.told = "unheard"

    @workflow.run
    async def run(self, other: str | None) -> list[str]:
        await workflow.wait_condition(lambda: self.going)
        try:
            await workflow.execute_activity(step, 7, start_to_close_timeout=T)
            failed = ""
        except ActivityError as err:
            failed = getattr(err.cause, "type", "")
        if other is not None:
            sister: Any = workflow.get_external_workflow_handle(other)
            await sister.signal("tell", "heard")
        return [failed, self.told]

    @workflow.signal
    def go_on(self) -> None:
        self.going = True

    @workflow.signal
    def tell(self, what: str) -> None:
        self.told = what


async def audited(s: Any, handle: Any, change: Any = None) -> Any:
    trust = read_trust(s.state / "trust.jwks")
    history = of_events(await events(handle), workflow_id=handle.id)
    evidence: Any = journals_in(s.state / "journal")
    if change is not None:
        evidence = RecordedEvidence((change(each), True) for each in s.records())
    return audit_run(history, evidence, AuditTrust(trust.anchors))


async def test_who_acts_is_signed_told_and_audited_from_the_start_to_a_childs_activity(stage: Any) -> None:
    s = await stage(ONLY_THROUGH_THE_BOT, principal=None)
    async with s.worker([Steps], [step]):
        with acting_as(DANA, through=THROUGH):
            handle = await s.start(Steps.run, True)
            await handle.signal(Steps.hear)
        assert await handle.result() == 7
    [text] = read_start_header(await start_headers(handle)) or []
    grant = parse(text, Grant).claims
    assert (grant.sub, names_of(grant.act)) == ('User::"dana"', THROUGH)
    child = s.client.get_workflow_handle(f"{handle.id}-child")
    assert deeds(child.id) == [7]
    told = {"by": 'Agent::"bot"', "chain": list(THROUGH)}
    [decided] = [json.loads(record.body) for record in s.records("decision")]
    assert json.loads(decided["facts"])["acting"] == told
    asked = [json.loads(record.body) for record in s.records("authority")]
    assert {each["action"] for each in asked} == {"workflow.start", "workflow.signal"}
    assert [json.loads(each["facts"])["acting"] for each in asked] == [told, told]
    for run in (handle, child):
        report = await audited(s, run)
        assert not [each for each in report.findings if each.severity is Severity.VIOLATION], report.findings


async def test_without_somebody_in_between_or_with_somebody_else_it_is_denied(stage: Any) -> None:
    s = await stage(ONLY_THROUGH_THE_BOT.replace('context.acting.by == "Agent::\\"bot\\""', "true"), principal=None)
    async with s.worker([Steps], [step]):
        with acting_as(DANA), pytest.raises(AuthorizationDenied):
            await s.start(Steps.run, False)
        with acting_as(DANA, through=['Agent::"bot"']):
            handle = await s.start(Steps.run, False)
            with pytest.raises(AuthorizationDenied):
                await handle.signal(Steps.hear)
        with pytest.raises(Exception, match="Workflow execution failed"):
            await handle.result()
    assert deeds(handle.id) == []


@pytest.mark.rule("A5")
@pytest.mark.rule("Q2")
@pytest.mark.rule("X8")
@pytest.mark.parametrize("revoked", [str(DANA), *THROUGH])
async def test_who_is_revoked_acts_for_nobody_any_more(stage: Any, revoked: str) -> None:
    s = await stage(PERMIT_ALL, principal=None)
    eve = Principal("User", "eve")
    async with s.worker([Waits, Steps], [step]):
        with acting_as(eve):
            other = await s.start(Waits.run, None)
        with acting_as(DANA, through=THROUGH):
            handle = await s.start(Waits.run, other.id)
            s.plugin.revoke(principal=revoked, reason="left the company")
            with pytest.raises(AuthorizationDenied, match="left the company"):
                await s.start(Steps.run, False)
            with pytest.raises(AuthorizationDenied, match="left the company"):
                await handle.signal(Steps.hear)
        with acting_as(eve):
            await handle.signal(Waits.go_on)
            assert await handle.result() == ["GrantRejected", "unheard"]
            await other.signal(Waits.go_on)
        assert await other.result() == ["", "unheard"]
    assert deeds(handle.id) == []


@pytest.mark.rule("decisions.D2")
@pytest.mark.parametrize("revoked", [str(DANA), *THROUGH, 'Agent::"another"'])
async def test_the_audit_reports_what_was_allowed_to_somebody_who_was_revoked(stage: Any, revoked: str) -> None:
    s = await stage(PERMIT_ALL, principal=None)
    async with s.worker([Steps], [step]):
        with acting_as(DANA, through=THROUGH):
            handle = await s.start(Steps.run, False)
        await handle.result()
    [decided] = s.records("decision")
    body = compact_json({"at": decided.at - 100, "reason": "left", "principal": revoked})
    known = replace(
        decided, kind="revocation", request=None, run=None, attempt=None, body=body, index=decided.index - 1
    )
    evidence: Any = RecordedEvidence((each, True) for each in [*s.records(), known])
    history = of_events(await events(handle), workflow_id=handle.id)
    report = audit_run(history, evidence, AuditTrust(read_trust(s.state / "trust.jwks").anchors))
    found = {each.code for each in report.findings if each.severity is Severity.VIOLATION}
    assert ("grant-revoked" in found) == (revoked in (str(DANA), *THROUGH)), report.findings


@pytest.mark.rule("decisions.D1")
async def test_a_record_that_says_that_somebody_else_acted_contradicts_the_grant(stage: Any) -> None:
    s = await stage(PERMIT_ALL, principal=None)
    async with s.worker([Steps], [step]):
        with acting_as(DANA, through=THROUGH):
            handle = await s.start(Steps.run, False)
        await handle.result()

    def saying(acting: Any, kind: str) -> Any:
        def change(record: Record) -> Record:
            if record.kind != kind:
                return record
            body = json.loads(record.body)
            facts = {name: value for name, value in json.loads(body["facts"]).items() if name != "acting"}
            body["facts"] = json.dumps(
                {**facts, **({} if acting is None else {"acting": acting})}, separators=(",", ":")
            )
            return replace(record, body=compact_json(body))

        return change

    said = {"decision": "another facts for it than the history", "authority": "another chain of actors than the grant"}
    for acting in (None, {"by": 'Agent::"other"', "chain": list(THROUGH)}, {"by": THROUGH[0], "chain": [THROUGH[0]]}):
        for kind, sentence in said.items():
            report = await audited(s, handle, saying(acting, kind))
            found = [each.code for each in report.findings if sentence in each.sentence]
            assert found == [f"{kind}-contradicts"], (acting, kind)


def test_nobody_acting_is_a_statement_too() -> None:
    """A grant without a chain whose record tells policies of one."""
    stated = Stated("grant", "g", "workflow.start", "w", 'User::"dana"', ({}, ()), (), True, {}, 1)
    body = {
        "action": "workflow.start",
        "workflow_id": "w",
        "principal": 'User::"dana"',
        "vouched": {"attributes": {}, "parents": ()},
        "reason": None,
        "facts": '{"acting":{"by":"Agent::\\"bot\\"","chain":["Agent::\\"bot\\""]}}',
        "decision": "allow",
        "policies": (),
        "bundle": "A" * 43,
        "bundle_sequence": 1,
    }
    assert "chain of actors" in (_otherwise(OwnRecord.model_validate(body), stated) or "")
    assert _otherwise(OwnRecord.model_validate({**body, "facts": "{}"}), stated) is None


# Credentials, where the plugin is its own authority.


def config(folder: Path, **more: str) -> str:
    (folder / "keys.jwks").write_bytes(jwks(KEY))
    lines = "".join(f"{name} = {value}\n" for name, value in more.items())
    (folder / "identity.toml").write_text(
        '[[verifier]]\nname = "corp"\nkind = "oidc"\nissuer = "https://login.example.com"\naudience = "exequatur"\n'
        f'jwks = "keys.jwks"\n{lines}\n'
        "[[principal]]\nprincipal = 'User::\"{sub}\"'\n"
        'parents = [{ each = "groups", as = \'Role::"{each}"\' }]\n'
    )
    return str(folder / "identity.toml")


def token(**changes: Any) -> Credential:
    now = int(time.time())
    usual = {"iss": "https://login.example.com", "aud": "exequatur", "sub": "dana", "iat": now, "exp": now + 300}
    return Credential(signed(KEY, {**usual, **changes}))


async def test_a_token_becomes_the_principal_and_is_nowhere_in_history_or_evidence(stage: Any, tmp_path: Path) -> None:
    policies = '@id("ops") permit(principal in Role::"ops", action, resource);'
    s = await stage(policies, principal=None, identity_config=config(tmp_path))
    shown = token(groups=["ops"], act={"sub": "helper"})
    async with s.worker([Steps], [step]):
        with acting_as(shown):
            handle = await s.start(Steps.run, True)
            await handle.signal(Steps.hear)
        assert await handle.result() == 7
    [text] = read_start_header(await start_headers(handle)) or []
    grant = parse(text, Grant).claims
    assert (grant.sub, grant.parents, names_of(grant.act)) == ('User::"dana"', ('Role::"ops"',), ('User::"helper"',))
    written = b"".join([*(event.SerializeToString() for event in await events(handle)), *(r.body for r in s.records())])
    assert not any(part.encode() in written for part in shown.token.split("."))
    report = await audited(s, handle)
    assert not [each for each in report.findings if each.severity is Severity.VIOLATION]


@pytest.mark.rule("I10")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"exp": 1}, "ended"), ({"aud": "other"}, "audience"), ({"iss": "https://other"}, "No verifier"),
        ({"sub": 'x"'}, "quote"), ({"nbf": 30_000_000_000}, "begins"),
    ],
)  # fmt: skip
async def test_a_token_that_is_refused_starts_nothing(
    stage: Any, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    s = await stage(principal=BOT, identity_config=config(tmp_path))
    with acting_as(token(**changes)), pytest.raises(AuthorizationDenied, match=f"The credential was refused: .*{says}"):
        await s.start(Steps.run, False)
    assert s.records("authority") == []


@pytest.mark.rule("I10")
async def test_without_a_configuration_no_credential_is_believed(stage: Any) -> None:
    s = await stage(principal=BOT)
    with acting_as(token()), pytest.raises(AuthorizationDenied, match="set identity_config"):
        await s.start(Steps.run, False)
    assert s.records("authority") == []


@pytest.mark.rule("I10")
async def test_a_token_that_may_be_used_once_is_not_taken_by_a_process_that_cannot_know_whether_it_was(
    stage: Any, tmp_path: Path
) -> None:
    s = await stage(principal=BOT, identity_config=config(tmp_path, single_use="true"))
    with acting_as(token(jti="1")), pytest.raises(AuthorizationDenied, match="used once"):
        await s.start(Steps.run, False)


async def test_keys_that_cannot_be_had_are_uncertainty(stage: Any, tmp_path: Path) -> None:
    path = config(tmp_path)
    (tmp_path / "keys.jwks").unlink()
    s = await stage(principal=BOT, identity_config=path)
    with acting_as(token()), pytest.raises(AuthorizationUnavailable, match="cannot be verified now"):
        await s.start(Steps.run, False)
    (tmp_path / "keys.jwks").write_bytes(jwks(KEY))
    async with s.worker([Steps], [step]):
        with acting_as(token()):
            assert await (await s.start(Steps.run, False)).result() == 7
