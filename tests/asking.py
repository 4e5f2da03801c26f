"""Challenges as a gate signs them, without a run that they come from, and a workflow that pretends to wait."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from exequatur import AuthorizationPlugin, Settings
    from exequatur.statements.approvals import APPROVAL_SIGNAL, CHALLENGES_MEMO
    from exequatur.statements.encoding import digest
    from exequatur.statements.jws import sign
    from exequatur.statements.keys import Signer
    from exequatur.statements.models import Challenge, Needed

POLICIES = """
@id("answers") permit(principal is User, action in [Action::"approval.approve", Action::"approval.reject"], resource)
  when { context.approval.activity != "payroll" };
@id("self") permit(principal == User::"boss", action == Action::"approval.self", resource);
"""
ENTITIES = """[
  {"uid": {"type": "Role", "id": "finance"}, "attrs": {}, "parents": []},
  {"uid": {"type": "Role", "id": "auditors"}, "attrs": {}, "parents": [{"type": "Role", "id": "finance"}]},
  {"uid": {"type": "User", "id": "fay"}, "attrs": {}, "parents": [{"type": "Role", "id": "finance"}]},
  {"uid": {"type": "User", "id": "aud"}, "attrs": {}, "parents": [{"type": "Role", "id": "auditors"}]},
  {"uid": {"type": "User", "id": "boss"}, "attrs": {}, "parents": [{"type": "Role", "id": "finance"}]},
  {"uid": {"type": "Agent", "id": "bot"}, "attrs": {}, "parents": [{"type": "Role", "id": "finance"}]}
]"""


@workflow.defn
class Refund:
    """Puts whatever it is given into its memo and takes every answer, as any workflow can."""

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.over = False

    @workflow.run
    async def run(self, memo: Any) -> list[str]:
        workflow.upsert_memo({CHALLENGES_MEMO: memo})
        await workflow.wait_condition(lambda: self.over)
        return self.answers

    @workflow.signal(name=APPROVAL_SIGNAL)
    def answer(self, token: str) -> None:
        self.answers.append(token)

    @workflow.signal
    def put(self, memo: Any) -> None:
        workflow.upsert_memo({CHALLENGES_MEMO: memo})

    @workflow.signal
    def end(self) -> None:
        self.over = True

    @workflow.query
    def ready(self) -> bool:
        return True


def entry(asked: tuple[str, str]) -> dict[str, str]:
    """A challenge with its credential, as a memo has it."""
    return {"challenge": asked[0], "credential": asked[1]}


def finance(quorum: int = 1, ttl: float = 3600.0) -> Needed:
    return Needed(group="finance", quorum=quorum, ttl=ttl)


def plugin_in(folder: Path, state: Path | None = None, **settings: Any) -> AuthorizationPlugin:
    """A plugin with the policies above."""
    policies = folder / "policies"
    policies.mkdir(exist_ok=True)
    (policies / "main.cedar").write_text(POLICIES)
    (policies / "entities.json").write_text(ENTITIES)
    return AuthorizationPlugin.embedded(policies, state_dir=state or folder / "state", settings=Settings(**settings))


def challenge_of(
    plugin: AuthorizationPlugin,
    *,
    signer: Signer | None = None,
    needs: Sequence[Needed] = (finance(),),
    places: tuple[str, str, tuple[str, ...]] = ("default", "refunds", ("refund_order",)),
    **changes: Any,
) -> tuple[str, str]:
    """A challenge and its credential.

    Args:
        plugin: Its gate signs.
        signer: Signs instead.
        needs: Who is asked.
        places: Namespace, task queue and activities that the gate's worker is credentialed for.
        changes: Of the claims.
    """
    authority: Any = plugin._authority
    workload = plugin.gate.workload
    now = round(time.time(), 3)
    with workload.covering(*places):
        workload.renew_if_due(time.time())
        claims = {
            "iss": workload.id,
            "iat": now,
            "exp": now + 600,
            "request": digest(str(changes)),
            "request_digest": digest("token"),
            "grant": digest("grant"),
            "sub": 'Agent::"ops-bot"',
            "namespace": "default",
            "workflow_id": "refund-1",
            "workflow_type": "Refund",
            "original_run_id": "run-1",
            "task_queue": "refunds",
            "activity_type": "refund_order",
            "args": digest("args"),
            "arguments": '{"refund":{"amount":"900.00"}}',
            "needs": tuple(needs),
            "keys": (authority._state.signer("approval").kid,),
            "policies": ("refunds-with-finance",),
            "reason": "a refund above 500.00 needs somebody of finance besides",
            "bundle": digest("bundle"),
        }
        challenge = Challenge(**claims | changes)
        token = workload.sign(challenge) if signer is None else sign(challenge, signer)
        return token.text, workload.credential.text
