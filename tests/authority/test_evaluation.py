"""Other enforcement points ask the same policies (AuthZEN Authorization API 1.0)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from exequatur.authority import api
from tests.authority.running import BOSS, DANA, PEP, Running, running

TRANSFER = {
    "subject": {"type": "User", "id": "dana"},
    "action": {"name": "transfer", "properties": {"amount": 20}},
    "resource": {"type": "Account", "id": "1"},
    "context": {"shift": "day"},
}


async def evaluate(authority: Running, asked: Any, who: str = PEP) -> Any:
    return await authority.ask("POST", api.EVALUATION_PATH, who, asked)


async def several(authority: Running, asked: Any, who: str = PEP) -> Any:
    return await authority.ask("POST", api.EVALUATIONS_PATH, who, asked)


async def test_an_enforcement_point_is_told_what_the_policies_say(authority: Running) -> None:
    answer = await evaluate(authority, TRANSFER)
    bundle = authority.service.gate.policy.bundle.digest
    assert answer.json() == {"decision": True, "context": {"policies": ["anybody"], "bundle": bundle}}
    record = [each for each in authority.records() if each["action"] == "policy.evaluate"][-1]
    assert (record["principal"], record["decision"]) == (PEP, "allow")
    assert record["evaluation"] == {
        "principal": DANA,
        "action": "transfer",
        "resource": {"type": "Account", "id": "1"},
        "decision": "allow",
        "reason": None,
        "policies": ["anybody"],
    }


@pytest.mark.parametrize(
    ("changes", "policies"),
    [
        ({"action": {"name": "transfer", "properties": {"amount": 100}}}, ["big"]),
        ({"context": {"shift": "night"}}, ["night"]),
        ({"subject": {"type": "User", "id": "eve"}}, ["not-eve"]),
    ],
)
async def test_a_no_says_why(authority: Running, changes: Any, policies: list[str]) -> None:
    answer = await evaluate(authority, TRANSFER | changes)
    assert (answer.status_code, answer.json()["decision"]) == (200, False)
    assert answer.json()["context"]["policies"] == policies
    assert policies[0] in answer.json()["context"]["reason_admin"]["en"]


@pytest.mark.rule("evaluation.H31")
@pytest.mark.parametrize(
    "changes",
    [
        {"action": {"name": "transfer"}},
        {"action": {"name": "transfer", "properties": {"amount": None}}},
        {"action": {"name": "transfer", "properties": {"amount": "20"}}},
        {"context": {}},
    ],
)
async def test_what_was_not_said_is_not_assumed(authority: Running, changes: Any) -> None:
    answer = await evaluate(authority, TRANSFER | changes)
    assert answer.status_code == 400 or answer.json()["decision"] is False, answer.text


@pytest.mark.rule("evaluation.H31")
@pytest.mark.parametrize(
    "changes",
    [
        {"context": {"shift": "day", "now": "2020-01-01T00:00:00Z"}},
        {"context": {"shift": "day", "args": {"amount": 1}}},
        {"context": {"shift": "day", "share": 0.123456789}},
        {"resource": {"type": "Account", "id": "1", "properties": {"owner": "dana"}}},
        {"subject": {"type": "User", "id": "dana", "properties": {"parents": "Role::ops"}}},
        {"subject": {"type": "User"}},
        {"subject": "dana"},
        {"action": {"name": ""}},
        {"resource": None},
        {"purpose": "curiosity"},
    ],
)
async def test_what_cannot_be_meant_is_refused(authority: Running, changes: Any) -> None:
    answer = await evaluate(authority, TRANSFER | changes)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


@pytest.mark.rule("evaluation.H29")
async def test_only_who_is_permitted_is_told(authority: Running) -> None:
    answer = await evaluate(authority, TRANSFER, DANA)
    assert (answer.status_code, answer.json()["details"]["policies"]) == (403, ["evaluators"])
    assert "decision" not in answer.json()


@pytest.mark.rule("evaluation.H29")
async def test_who_may_not_ask_does_not_learn_what_there_is(authority: Running) -> None:
    for changes in ({"context": {"now": 1}}, {"subject": {"type": "User", "id": "x", "properties": {"parents": 5}}}):
        assert (await evaluate(authority, TRANSFER | changes)).status_code == 400
        record = [each for each in authority.records() if each["action"] == "policy.evaluate"][-1]
        assert (record["principal"], record["evaluation"]["decision"]) == (PEP, "none")
        answer = await evaluate(authority, TRANSFER | changes, DANA)
        assert (answer.status_code, answer.json()["details"]["policies"]) == (403, ["evaluators"])


@pytest.mark.rule("evaluation.H30")
async def test_what_is_revoked_is_a_no(tmp_path: Path) -> None:
    async with running(tmp_path) as authority:
        for body in ({"reason": "left", "principal": DANA}, {"reason": "broken", "activity": "transfer"}):
            version = (await authority.ask("POST", api.REVOCATIONS_PATH, BOSS, body)).json()["version"]
            answer = await evaluate(authority, TRANSFER)
            assert answer.json()["decision"] is False
            assert body["reason"] in answer.json()["context"]["reason_admin"]["en"]
            await authority.ask("POST", api.REVOCATIONS_PATH, BOSS, {"reason": "ok", "lifts": version})
        assert (await evaluate(authority, TRANSFER)).json()["decision"] is True


ASKED = [
    {"action": {"name": "transfer", "properties": {"amount": 20}}},
    {"action": {"name": "transfer", "properties": {"amount": 200}}},
    {"action": {"name": "transfer", "properties": {"amount": 30}}},
]


@pytest.mark.parametrize(
    ("semantic", "decisions"),
    [
        (None, [True, False, True]),
        ("execute_all", [True, False, True]),
        ("deny_on_first_deny", [True, False]),
        ("permit_on_first_permit", [True]),
    ],
)
async def test_several_questions_are_answered_in_their_order(
    authority: Running, semantic: str | None, decisions: list[bool]
) -> None:
    asked: dict[str, Any] = {**TRANSFER, "evaluations": ASKED}
    if semantic:
        asked["options"] = {"evaluations_semantic": semantic, "another": 1}
    answer = (await several(authority, asked)).json()
    assert [each["decision"] for each in answer["evaluations"]] == decisions
    assert "decision" not in answer


async def test_one_question_may_be_asked_like_several(authority: Running) -> None:
    assert (await several(authority, TRANSFER)).json()["decision"] is True
    assert (await several(authority, {"evaluations": []})).status_code == 400


async def test_one_bad_question_is_a_no_beside_the_others(authority: Running) -> None:
    asked = {**TRANSFER, "evaluations": [{}, {"context": {"now": 1}}, {"subject": {"type": "User", "id": "eve"}}]}
    answer = (await several(authority, asked)).json()["evaluations"]
    assert [each["decision"] for each in answer] == [True, False, False]
    assert answer[1]["context"]["error"]["status"] == 400
    without = await several(authority, {"evaluations": [{"action": {"name": "transfer"}}]})
    assert without.json()["evaluations"][0]["context"]["error"]["status"] == 400


async def test_there_is_an_end_to_the_questions(authority: Running) -> None:
    assert (await several(authority, {**TRANSFER, "evaluations": [{}] * 51})).status_code == 400


async def test_with_a_schema_a_question_has_its_types(tmp_path: Path) -> None:
    reference = Path(__file__).parents[2] / "policies"
    shutil.copytree(reference, tmp_path / "policies", ignore=shutil.ignore_patterns("agents", "worked", "tests"))
    (tmp_path / "policies" / "pep.cedar").write_text(
        '@id("pep") permit(principal == Service::"pep", action == Action::"policy.evaluate", resource);'
    )
    asked = {
        "subject": {"type": "Agent", "id": "ops-bot", "properties": {"parents": ['Role::"operations"']}},
        "action": {"name": "refund_order", "properties": {}},
        "resource": {"type": "Order", "id": "o-1"},
    }
    async with running(tmp_path, policies="") as authority:
        answer = await evaluate(authority, asked)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), answer.text
        for changes in (
            {"action": {"name": "no_such_action"}},
            {"subject": {"type": "Robot", "id": "x"}},
            {"resource": {"type": "Planet", "id": "x"}},
            {"context": {"run": {"workflow_id": 7}}},
            {"context": {"weather": "rain"}},
        ):
            answer = await evaluate(authority, {**asked, "action": {"name": "workflow.start"}, **changes})
            assert answer.status_code == 400 or answer.json()["decision"] is False, answer.text
