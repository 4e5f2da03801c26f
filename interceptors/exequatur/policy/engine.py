"""The gate's decision: stricter than Cedar's, because Cedar skips a ``forbid`` that it cannot evaluate.

Rules:

E1  A value on an argument path that a policy for this action can read was converted exactly; else the answer is no, and
    names the field. Cedar would skip ``forbid when { context.args.amount > 500 }`` for an amount that is missing.
E2  Cedar reports no error; else the answer is no, even if Cedar says Allow.
E3  Cedar says Allow; else the answer is no.
E4  The allow names at least one policy, and the bundle knows every policy that it names.
E5  Whatever goes wrong while deciding is a no with an error, never an exception.
E6  An allow stands no longer than the shortest ``@ttl`` among the policies that it rests on.
E7  A bundle that was not loaded strictly decides nothing if it has a fault: its policies may not say what they seem to.
E8  With a schema, what policies read of the arguments has the declared types; else the answer is no, and names the
    field. A policy that was validated never meets a shape that it was not validated for.
E9  With a schema, it declares the action; else the answer is no. An action that it does not know is in no group, so a
    ``forbid`` on a group would miss it.
"""

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from exequatur.policy.arguments import Conversion, dotted
from exequatur.policy.bundle import EntityRef, PolicyBundle
from exequatur.policy.entities import ACTION_TYPE, uid_of
from exequatur.policy.types import misfit

#: An error ends up in a failure message, and from there in the history.
MAX_ERROR_LENGTH = 300

_PLAIN_ACTION = re.compile(r'Action::"([^"\\]*)"')
_POLICY_ERROR = re.compile(r"error while evaluating policy `([^`]*)`: (.*)", re.DOTALL)
#: What Cedar says after these words repeats values of the request.
_VALUES_FOLLOW = re.compile(r"(error while evaluating `\w+` extension function|integer overflow).*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PolicyRef:
    """A policy that determined a decision: its ``@id`` (or position) and its ``@reason``."""

    id: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer.

    Args:
        allowed: The activity may run.
        policies: The determining policies, in the order of the bundle.
        errors: Why there is no allow, other than by policy; no argument values.
        ttl: How long an allow may stand between two checks; None if no policy says so.
        arguments: The part of the arguments that Cedar was given.
        fault: Why Cedar was not asked: what is wrong with an argument (E1, E8) or with the resource.
        question: Which of the gate's own actions was refused, before that of the activity was asked about.
    """

    allowed: bool
    policies: tuple[PolicyRef, ...]
    errors: tuple[str, ...]
    ttl: datetime.timedelta | None
    arguments: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    fault: str | None = None
    question: str | None = None


def decide(
    bundle: PolicyBundle,
    principal_entity: Mapping[str, Any],
    action: EntityRef,
    resource: EntityRef,
    arguments: Conversion,
    facts: Mapping[str, Any],
) -> Verdict:
    """Decide whether an activity may run with these arguments.

    Args:
        bundle: The policies in force.
        principal_entity: Cedar JSON entity of the principal: ``uid``, ``attrs``, ``parents``.
        action: ``{"type": "Action", "id": activity type}`` or ``'Action::"..."'``.
        resource: What it is done to.
        arguments: The converted arguments, which become ``context.args``.
        facts: The other attributes of the context, as Cedar JSON.

    Returns:
        The verdict.

    Raises:
        ValueError: The facts have a key ``args``, which would replace the arguments: an error in the calling program.
    """
    if "args" in facts:
        raise ValueError("facts must not have a key 'args': the arguments stand there")
    try:
        return _decide(bundle, principal_entity, action, resource, arguments, facts)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # E5: a panic in Cedar's native code is not an Exception
        return _refusal(f"the decision failed ({type(error).__name__})")


def refused(fault: str) -> Verdict:
    """Return the answer where Cedar cannot be asked.

    Args:
        fault: A sentence that says why; no argument values.
    """
    return replace(_refusal(fault), fault=fault)


def _decide(
    bundle: PolicyBundle,
    principal_entity: Mapping[str, Any],
    action: EntityRef,
    resource: EntityRef,
    arguments: Conversion,
    facts: Mapping[str, Any],
) -> Verdict:
    if bundle.fault:  # [E7]
        return _refusal(f"the policies are not fit to decide: {bundle.fault}"[:MAX_ERROR_LENGTH])
    action_id = _action_id(action)
    if action_id is None:
        return _refusal('the action must be {"type": "Action", "id": ...} or Action::"..." without escapes')
    if not bundle.declares(action_id):  # [E9]
        step = "run: exequatur policy schema --from MODULE"
        return refused(f"the schema of the policies has no action {action_id[:100]}; {step}")
    reads = bundle.reads(action_id)
    contents, declared = bundle.content_reads(action_id), bundle.declared_arguments(action_id)
    fault = arguments.fault_for(reads, contents, frozenset() if declared is None else declared.optional)
    if fault is not None:  # [E1]
        return refused(fault[1])
    given = arguments.given(reads)
    seen = given if len(contents) == len(reads) else arguments.given(contents)
    if declared is not None and (other := misfit(seen, declared.record)) is not None:  # [E8]
        return refused(f"{dotted(other[0])} {other[1]}")
    kind, name = uid_of(principal_entity["uid"])
    decision = bundle.evaluate(
        {"type": kind, "id": name},
        {"type": ACTION_TYPE, "id": action_id},
        resource,
        _context(bundle, action_id, given, facts),
        principal_entity=principal_entity,
    )
    infos = [bundle.policies[policy_id] for policy_id in decision.reasons]  # E4
    policies = tuple(PolicyRef(info.id, info.reason) for info in infos)
    if decision.errors:  # [E2]
        return Verdict(False, policies, tuple(_readable(bundle, error) for error in decision.errors), None, given)
    if not decision.allowed:  # [E3]
        return Verdict(False, policies, (), None, given)
    if not infos:  # [E4]
        return _refusal("Cedar allowed without naming a policy")
    ttl = min((info.ttl for info in infos if info.ttl is not None), default=None)  # E6
    return Verdict(True, policies, (), ttl, given)


def _context(
    bundle: PolicyBundle, action_id: str, arguments: Mapping[str, Any], facts: Mapping[str, Any]
) -> Mapping[str, Any]:
    """What Cedar is given: the part of the context that can make a difference. Converting costs more than deciding."""
    context = {**facts, "args": arguments}
    read = bundle.fact_reads(action_id)
    return context if read is None else {name: value for name, value in context.items() if name in read}


def _action_id(action: EntityRef) -> str | None:
    if isinstance(action, str):
        match = _PLAIN_ACTION.fullmatch(action)
        return match.group(1) if match else None
    kind, name = uid_of(action)
    return name if kind == ACTION_TYPE else None


def _refusal(error: str) -> Verdict:
    return Verdict(False, (), (error,), None)


def _readable(bundle: PolicyBundle, error: str) -> str:
    """Name the policy as its author does, and leave out values of the request."""
    match = _POLICY_ERROR.fullmatch(error)
    if match is not None:
        info = bundle.policies.get(match.group(1))
        error = f"policy {info.id if info else match.group(1)}: {match.group(2)}"
    return _VALUES_FOLLOW.sub(r"\1", error)[:MAX_ERROR_LENGTH]
