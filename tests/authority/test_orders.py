"""Leave, renewals and approvals over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from exequatur.authority import api
from exequatur.statements.jws import parse
from exequatur.statements.models import Approval
from exequatur.statements.standalone import standalone_id
from tests.asking import challenge_of, plugin_in
from tests.authority.running import DANA, EVE, Running, running

RUN = {"namespace": "default", "workflow_id": "order-1"}
TERMINATE = {"action": "workflow.terminate", "workflow_id": "order-1", "facts": {"run": RUN}}
ACTIVITY = {"type": "charge", "id": "1", "task_queue": "orders"}
COMPLETE = {
    "action": "activity.complete",
    "workflow_id": "order-1",
    "facts": {"run": RUN, "activity": ACTIVITY},
    "record": {"activity_id": "1", "run_id": None, "request": None, "outcome": "completed", "result": None},
}


async def authorize(authority: Running, body: Any, who: str = DANA) -> Any:
    return await authority.ask("POST", api.AUTHORIZATIONS_PATH, who, body)


async def test_leave_is_given_and_recorded(authority: Running) -> None:
    answer = await authorize(authority, COMPLETE)
    assert answer.json() == {"principal": DANA, "policies": ["anybody"]}
    record = [each for each in authority.records() if each["action"] == "activity.complete"][-1]
    assert (record["principal"], record["outcome"], record["decision"]) == (DANA, "completed", "allow")


async def test_leave_is_refused_to_who_is_not_permitted(authority: Running) -> None:
    answer = await authorize(authority, TERMINATE, EVE)
    assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")


@pytest.mark.rule("orders.H14")
@pytest.mark.parametrize(
    "action",
    [
        "workflow.start",
        "workflow.signal",
        "workflow.child",
        "activity.start",
        "grant.renew",
        "approval.approve",
        "worker.enroll",
        "revocation.lift",
        "policy.evaluate",
        "charge",
        "no such action",
    ],
)
async def test_no_leave_is_given_for_what_a_statement_carries(authority: Running, action: str) -> None:
    answer = await authorize(authority, {**TERMINATE, "action": action})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert not [each for each in authority.records() if each["action"] == action and each["principal"] == "nobody"]


@pytest.mark.rule("orders.H15")
@pytest.mark.parametrize(
    "facts",
    [
        {"run": {**RUN, "workflow_id": "another"}},
        {"run": {"namespace": "default", "workflow_id": ""}},
        {"run": {**RUN, "owner": "dana"}},
        {"run": RUN, "now": "2020-01-01T00:00:00Z"},
        {"run": RUN, "acting": {"by": "x", "chain": []}},
        {"run": RUN, "args": {}},
        {"run": {"namespace": 7, "workflow_id": "order-1"}},
        {"run": [RUN]},
        {"run": {"__entity": {"type": "User", "id": "boss"}}},
        {"run": {"namespace": {"__extn": {"fn": "ip", "arg": "::1"}}, "workflow_id": "order-1"}},
        {"approved": True},
    ],
)
async def test_a_caller_says_of_the_circumstances_what_the_gate_would_say(authority: Running, facts: Any) -> None:
    answer = await authorize(authority, {**TERMINATE, "facts": facts})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_an_activity_that_stands_by_itself_has_no_workflow(authority: Running) -> None:
    facts = {"run": {"namespace": "default", "workflow_id": ""}, "activity": {**ACTIVITY, "id": "alone"}}
    for workflow_id in ("", standalone_id("alone")):
        answer = await authorize(authority, {**COMPLETE, "workflow_id": workflow_id, "facts": facts})
        assert answer.status_code == 200, answer.text
    other = await authorize(authority, {**COMPLETE, "workflow_id": standalone_id("other"), "facts": facts})
    assert other.status_code == 400


@pytest.mark.rule("orders.H16")
@pytest.mark.parametrize(
    "record",
    [
        {"grant": "forged"},
        {"approval": "forged"},
        {"decision": "allow"},
        {"outcome": {"deep": 1}},
        {"outcome": 7},
        {"outcome": "x" * 1001},
    ],
)
async def test_a_caller_forges_no_evidence(authority: Running, record: Any) -> None:
    answer = await authorize(authority, {**COMPLETE, "record": record})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert not [each for each in authority.records() if "forged" in (each.get("grant"), each.get("approval"))]


@pytest.mark.parametrize("tokens", [["x"], ["a.b.c"], ["x" * 1000] * 200])
async def test_a_renewal_believes_nothing_but_what_is_signed(authority: Running, tokens: list[str]) -> None:
    answer = await authority.ask("POST", api.RENEWALS_PATH, body={"namespace": "default", "tokens": tokens})
    assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")


async def test_an_approval_is_of_a_challenge_that_was_signed(authority: Running) -> None:
    body = {"challenge": "a.b.c", "credential": "a.b.c", "verdict": "approve"}
    answer = await authority.ask("POST", api.APPROVALS_PATH, body=body)
    assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")


async def test_a_person_answers_a_challenge_and_the_answer_is_signed(tmp_path: Path) -> None:
    workers = plugin_in(tmp_path)  # a gate whose challenges are signed under the same authority
    asked = challenge_of(workers)
    async with running(tmp_path, policies="") as authority:
        body = {"challenge": asked[0], "credential": asked[1], "verdict": "approve", "reason": "I called them"}
        answer = await authority.ask("POST", api.APPROVALS_PATH, 'User::"fay"', body)
        claims = parse(answer.json()["approval"], Approval).claims
        assert (claims.sub, claims.verdict, claims.reason) == ('User::"fay"', "approve", "I called them")
        authority.service.authority.state.trust.verify(parse(answer.json()["approval"], Approval))
        stranger = await authority.ask("POST", api.APPROVALS_PATH, 'User::"stranger"', body)
        assert (stranger.status_code, stranger.json()["error"]) == (403, "access_denied")
