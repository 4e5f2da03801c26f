"""The AuthZEN evaluation API: other enforcement points ask the same policies.

Rules, numbered as the code marks them (E are those of :mod:`exequatur.policy.engine`):

H29  Only who Cedar strictly allows ``policy.evaluate``, for this action and principal, is told what the policies say.
     Nor is anybody else told whether the question can be read, which tells what actions, entities and attributes there
     are. Question and answer are in the evidence before the answer is given.
H30  The answer is the gate's: strict (rules E), and no for what is revoked.
H31  Nothing is filled in. What the question does not say, policies do not find; what it says is of the declared type;
     the moment is the authority's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from exequatur.authoring.request import read_arguments, read_principal
from exequatur.authority.api import Decision, Decisions, Evaluation, Evaluations, PartOfEvaluation
from exequatur.authority.asking import Asking
from exequatur.authority.service.answers import Refused, invalid, refusal
from exequatur.errors import PolicyError
from exequatur.failures import AuthorizationDenied
from exequatur.identity.callers import Identified
from exequatur.policy.action import WORKFLOW_TYPE
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.engine import Verdict, decide
from exequatur.policy.entities import ACTION_TYPE
from exequatur.policy.told import EVALUATE_ACTION
from exequatur.policy.types import RecordType
from exequatur.policy.values import convert_plain

_OURS = frozenset({"args", "now"})
_PARTS = ("subject", "action", "resource")


async def evaluate(asking: Asking, asked: Evaluation, caller: Identified) -> Decision:
    """Answer one question.

    Raises:
        Refused: H31.
        AuthorizationDenied: H29.
        AuthorizationUnavailable: It cannot be decided or recorded.
    """
    gate = asking.gate
    policy = gate.policy
    who = f'{asked.subject.type}::"{asked.subject.id}"'
    workflow = asked.resource.id if asked.resource.type == WORKFLOW_TYPE else ""
    subject = {"principal": who, "activity": asked.action.name, **({"workflow": workflow} if workflow else {})}
    revoked = gate.revocations.find(subject)
    unread: Refused | None = None
    verdict: Verdict | None = None
    try:
        verdict = _verdict(policy.bundle, asked, gate.clock())
    except Refused as error:
        unread = error
    allowed = verdict is not None and verdict.allowed and revoked is None  # [H30]
    why = revoked.reason if revoked is not None else _why(verdict)
    policies = [ref.id for ref in verdict.policies] if verdict is not None else []
    await asking.ask(  # [H29]
        caller.principal,
        EVALUATE_ACTION,
        workflow,
        {"evaluation": {"action": asked.action.name, "principal": who}},
        what=f"ask about {asked.action.name[:200]}",
        acting=caller.acting,
        record={
            "evaluation": {
                "principal": who,
                "action": asked.action.name,
                "resource": {"type": asked.resource.type, "id": asked.resource.id},
                "decision": "none" if verdict is None else "allow" if allowed else "deny",
                "reason": why,
                "policies": policies,
            }
        },
    )
    if unread is not None:
        raise unread
    context: dict[str, Any] = {"policies": policies, "bundle": policy.bundle.digest}
    if why:
        context["reason_admin"] = {"en": why}
    return Decision(decision=allowed, context=context)


async def evaluate_all(asking: Asking, asked: Evaluations, caller: Identified) -> Decisions:
    """Answer several questions.

    Raises:
        Refused: The one that was asked cannot be read, or none is complete.
        AuthorizationDenied: H29, where one was asked.
        AuthorizationUnavailable: It cannot be decided or recorded.
    """
    if not asked.evaluations:
        one = await evaluate(asking, _complete(asked, asked), caller)
        return Decisions(decision=one.decision, context=one.context)
    semantic = asked.options.evaluations_semantic
    answers: list[Decision] = []
    for part in asked.evaluations:
        try:
            answers.append(await evaluate(asking, _complete(part, asked), caller))
        except (Refused, AuthorizationDenied) as error:
            refused = refusal(error)
            answers.append(
                Decision(
                    decision=False,
                    context={"error": {"status": refused.status, "message": refused.description[:600]}},
                )
            )
        last = answers[-1].decision
        if (semantic == "deny_on_first_deny" and not last) or (semantic == "permit_on_first_permit" and last):
            break
    return Decisions(evaluations=tuple(answers))


def _complete(part: PartOfEvaluation, otherwise: PartOfEvaluation) -> Evaluation:
    """A question with what the request says for all."""
    found = {name: getattr(part, name) or getattr(otherwise, name) for name in _PARTS}
    if missing := [name for name, value in found.items() if value is None]:
        raise invalid(f"{missing[0]} is missing")
    context = part.context if part.context is not None else otherwise.context
    return Evaluation(**found, context=context or {})


def _verdict(bundle: PolicyBundle, asked: Evaluation, now: float) -> Verdict:
    """What the policies say.

    Raises:
        Refused: H31.
    """
    properties = dict(asked.subject.properties)
    parents = properties.pop("parents", [])
    try:
        principal = read_principal(
            bundle,
            {"uid": {"type": asked.subject.type, "id": asked.subject.id}, "attrs": properties, "parents": parents},
        )
        arguments = read_arguments(bundle, asked.action.name, asked.action.properties)
    except PolicyError as err:
        raise invalid(str(err)) from None
    model = bundle.model
    if model is not None and asked.resource.type not in model.entities:
        raise invalid(f"resource: there is no entity type {asked.resource.type[:100]} in the schema")
    return decide(
        bundle,
        principal,
        {"type": ACTION_TYPE, "id": asked.action.name},
        {"type": asked.resource.type, "id": asked.resource.id},
        arguments,
        _facts(bundle, asked, now),
    )


def _facts(bundle: PolicyBundle, asked: Evaluation, now: float) -> Mapping[str, Any]:
    if ours := _OURS & asked.context.keys():  # [H31]
        raise invalid(f"context: {min(ours)} is not the caller's to say; arguments are the action's properties")
    model = bundle.model
    declared = model.actions[asked.action.name].context if model is not None else None
    record = None
    if declared is not None:
        record = RecordType(tuple(each for each in declared.attributes if each.name in asked.context))
    converted = convert_plain(dict(asked.context), record, "context")
    if converted.faults:  # [H31]
        raise invalid("; ".join(list(converted.faults.values())[:5]))
    moment = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {**converted.value, "now": {"__extn": {"fn": "datetime", "arg": moment}}}


def _why(verdict: Verdict | None) -> str | None:
    if verdict is None:
        return "the question cannot be read"
    if verdict.allowed:
        return None
    named = [f"policy {ref.id}: {ref.reason}" if ref.reason else f"policy {ref.id}" for ref in verdict.policies]
    return "; ".join([*named, *verdict.errors, *([verdict.fault] if verdict.fault else [])]) or "no policy permits it"
