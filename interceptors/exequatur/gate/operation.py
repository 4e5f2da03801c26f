"""Judges one request to start or cancel a Nexus operation. :mod:`exequatur.gate.nexus` carries it out.

Rules, numbered as the code marks them. They are applied in this order; the first that is broken decides:

N42  A request without our header is refused. It does not say which type of workflow it comes from, so
     ``allow_ungoverned`` lets none through.
N43  What came along authorizes this very operation (H1, H2, H4, K1 to K4, N21 to N30), now (N31).
N44  Where the run is restricted to activities, ``nexus:service/operation`` is one of them; where it is restricted to a
     time, that is not over.
N45  Neither grant or permit, principal, caller nor ``nexus:service/operation`` is revoked.
N46  Where the calling run was started by another, Cedar also allows the action ``workflow.child``.
N47  Cedar allows ``nexus.start`` or ``nexus.cancel``, strictly (rules E of :mod:`exequatur.policy.engine`), and nothing
     that the run is restricted by forbids it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import nexusrpc.handler
import temporalio.nexus

from exequatur.errors import StatementError, UnknownKeyError
from exequatur.failures import AuthorizationDenied, AuthorizationUnavailable, GrantRejected
from exequatur.gate.attempt import NO_ARGUMENTS, Judgement, Refusal
from exequatur.gate.gate import Gate
from exequatur.gate.wire import read_nexus_headers
from exequatur.identity.actors import acting_facts, involved
from exequatur.identity.principal import Principal
from exequatur.policy.action import WORKFLOW_TYPE
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.engine import Verdict, decide
from exequatur.policy.restriction import held_to
from exequatur.policy.told import CHILD_ACTION, NEXUS_CANCEL_ACTION, NEXUS_START_ACTION
from exequatur.statements.encoding import compact_json, digest
from exequatur.statements.nexus import Called, Operation, Start, check_times, verify_operation
from exequatur.statements.verification import matches

_TO_ANSWER = 1.0
"""Seconds that are kept of the time that the server waits, to answer in."""


@dataclass
class Call:
    """One request to start or cancel an operation, as the server delivered it."""

    gate: Gate
    ctx: nexusrpc.handler.OperationContext
    info: temporalio.nexus.Info
    start: Start | None
    request_id: str | None
    token: str | None
    """Of the operation that is to be cancelled."""
    called: Called | None = None
    """Set once N43 holds, but for the time."""
    principal: Principal | None = None
    """The same."""

    def __post_init__(self) -> None:
        self.asked = Operation(self.info.endpoint, self.ctx.service, self.ctx.operation, self.start)
        self.enforced = not self.gate.settings.observes(self.info.namespace, self.info.task_queue, self.asked.name)
        self.action = NEXUS_CANCEL_ACTION if self.start is None else NEXUS_START_ACTION
        self._carried: str | None = None

    def patience(self) -> float:
        """Seconds that may be waited before the server gives up on the request."""
        if self.ctx.request_deadline is None:
            return float("inf")
        return max(0.0, (self.ctx.request_deadline - datetime.now(UTC)).total_seconds() - _TO_ANSWER)

    def judge(self) -> Judgement:
        """Decide now. Never raises."""
        # As it is recorded, so that what is compared with it can be compared again.
        gate, now = self.gate, int(self.gate.clock() * 1000) / 1000
        # The epoch first: a policy that is put in force between the two must not be missed later.
        epoch, policy = gate.epoch, gate.policy
        base = Judgement("none", None, None, policy.bundle.digest, policy.sequence, epoch, now)
        if ended := policy.ended(now):
            return replace(base, failure=AuthorizationUnavailable, reason=ended)
        try:
            called, principal = self._verified()
            base = replace(base, principal=str(principal))
            self._check_standing(called, now)
        except UnknownKeyError as err:
            failure = AuthorizationUnavailable if err.pending and self.enforced else GrantRejected  # T6
            return replace(base, failure=failure, reason=str(err))
        except StatementError as err:
            return replace(base, failure=GrantRejected, reason=str(err))
        except Refusal as err:
            return replace(base, failure=GrantRejected, reason=err.reason)
        entity = principal.entity()
        facts = self._facts(called, now)
        base = replace(base, facts=compact_json(facts), entity=entity)
        if outside := self._outside(called, now):  # [N44]
            reason = f"{self._who(principal)}: {outside}"
            return replace(base, decision="deny", failure=AuthorizationDenied, reason=reason, fault=outside)
        verdict, question = self._verdict(policy.bundle, entity, called, facts)
        judged = replace(
            base,
            decision="allow" if verdict.allowed else "deny",
            policies=verdict.policies,
            fault=verdict.fault,
            question=None if question == self.action else question,
        )
        if verdict.allowed:
            return judged
        return replace(judged, failure=AuthorizationDenied, reason=f"{self._who(principal)}: {_why(verdict, question)}")

    def _who(self, principal: Principal) -> str:
        what = "cancel" if self.start is None else "start"
        return f"{principal} may not {what} {self.asked.service}/{self.asked.operation}"

    def _verified(self) -> tuple[Called, Principal]:
        """N42, and of N43 what depends on bytes alone."""
        if self.called is not None and self.principal is not None:
            return self.called, self.principal
        settings = self.gate.settings
        tokens = read_nexus_headers(self.ctx.headers)
        if tokens is None:  # [N42]
            raise Refusal(
                "The operation was called without a grant; start the calling workflow, or the operation, through a "
                "client with the plugin, and run the workflow by a worker with the plugin"
            )
        self._carried = digest(tokens[-1]) if tokens else None
        called = verify_operation(  # [N43]
            tokens,
            self.asked,
            self.gate.trust,
            site=f"{settings.trust_domain}/{settings.cluster}",
            max_depth=settings.max_delegation_depth,
        )
        try:
            named = Principal.parse(called.vouched.sub)
            principal = Principal(named.type, named.id, called.vouched.attributes, called.vouched.parents)
        except ValueError as err:
            raise Refusal(f"The principal cannot be read: {err}") from err
        self.called, self.principal = called, principal
        return called, principal

    def _check_standing(self, called: Called, now: float) -> None:
        """Of N43 the time, and N45."""
        starts = self.start is not None
        check_times(called, now, self.gate.settings.clock_leeway.total_seconds(), starts=starts)  # [N43]
        vouched = called.vouched
        revoked = self.gate.revoked(
            {
                "grant": vouched.jti,
                "principal": involved(vouched.sub, vouched.act),
                "workflow": called.resource_id,
                "activity": self.asked.name,
            }
        )
        if revoked:  # [N45]
            raise Refusal(f"It has been revoked: {revoked.reason}")

    def _outside(self, called: Called, now: float) -> str | None:
        """N44: why the policies need not be asked."""
        held = called.held
        if held is None:
            return None
        if held.activities is not None and not matches(self.asked.name, held.activities):
            return f"the run is restricted to other activities: {', '.join(held.activities)[:200] or 'none'}"
        if held.until is not None and now >= held.until:
            return f"the run was restricted to the time before {datetime.fromtimestamp(held.until, UTC).isoformat()}"
        return None

    def _facts(self, called: Called, now: float) -> dict[str, Any]:
        """Cedar's ``context``."""
        return {
            **acting_facts(called.vouched.act),
            "run": {
                "namespace": called.namespace,
                "workflow_id": called.workflow_id,
                "workflow_type": called.workflow_type,
            },
            "nexus": {
                "endpoint": self.asked.endpoint,
                "service": self.asked.service,
                "operation": self.asked.operation,
            },
            "now": {
                "__extn": {
                    "fn": "datetime",
                    "arg": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                }
            },
        }

    def _verdict(
        self, bundle: PolicyBundle, entity: Mapping[str, Any], called: Called, facts: Mapping[str, Any]
    ) -> tuple[Verdict, str]:
        """N46 and N47; the last answer and what was asked."""
        chain = called.chain
        if chain is not None and (chain.delegations or chain.authorization.child):
            told = child_facts(
                facts,
                name=self.asked.name,
                request_id=self.request_id,
                task_queue=self.info.task_queue,
                run_id=called.run_id,
                worker=self.gate.worker_facts(),
            )
            verdict = self._ask(bundle, entity, called, CHILD_ACTION, told)
            if not verdict.allowed:  # [N46]
                return verdict, CHILD_ACTION
        return self._ask(bundle, entity, called, self.action, facts), self.action  # N47

    def _ask(
        self, bundle: PolicyBundle, entity: Mapping[str, Any], called: Called, action: str, facts: Mapping[str, Any]
    ) -> Verdict:
        resource = {"type": WORKFLOW_TYPE, "id": called.resource_id}
        verdict = decide(bundle, entity, {"type": "Action", "id": action}, resource, NO_ARGUMENTS, facts)
        forbid = () if called.held is None else called.held.forbid
        if forbid:  # [N47]
            return held_to(bundle, forbid, verdict, entity, action, resource, NO_ARGUMENTS, facts)
        return verdict

    def record(self, judgement: Judgement) -> bytes:
        """The journal's record: enough to make the decision again from the archived bundle."""
        called = self.called
        vouched = None if called is None else called.vouched
        held = None if called is None else called.held
        return compact_json(
            {
                "action": self.action,
                "statement": self._carried,
                "vouched_by": None if vouched is None else vouched.jti,
                "request_id": self.request_id,
                "token": None if self.token is None else digest(self.token.encode("utf-8", "replace")),
                "endpoint": self.asked.endpoint,
                "service": self.asked.service,
                "operation": self.asked.operation,
                "handler": {"namespace": self.info.namespace, "task_queue": self.info.task_queue},
                "worker": self.gate.worker_facts(),
                "namespace": None if called is None else called.namespace,
                "workflow_id": None if called is None else called.resource_id,
                "run_id": None if called is None else called.run_id or None,
                "args": None if self.start is None else self.start.args,
                "principal": judgement.principal,
                "vouched": None
                if vouched is None
                else {"attributes": vouched.attributes, "parents": list(vouched.parents)},
                "facts": judgement.facts.decode(),
                "forbid": [] if held is None else list(held.forbid),
                "fault": judgement.fault,
                "question": judgement.question,
                "decision": judgement.decision,
                "enforced": self.enforced,
                "reason": judgement.reason,
                "policies": [ref.id for ref in judgement.policies],
                "bundle": judgement.bundle,
                "bundle_sequence": judgement.sequence,
            }
        )

    def about(self) -> dict[str, Any]:
        """Fields for structured logs: names only, no input."""
        return {
            "endpoint": self.asked.endpoint,
            "service": self.asked.service,
            "operation": self.asked.operation,
            "request_id": self.request_id,
            "workflow_id": self.called.resource_id if self.called else None,
        }


def child_facts(
    facts: Mapping[str, Any],
    *,
    name: str,
    request_id: str | None,
    task_queue: str,
    run_id: str,
    worker: Mapping[str, str],
) -> dict[str, Any]:
    """Cedar's ``context`` of ``workflow.child``, in which the operation stands for the activity.

    Args:
        facts: The context of the operation's own action.
        name: What stands for an activity type.
        request_id: Of the start.
        task_queue: The handler's.
        run_id: The caller's.
        worker: What is told of the handler's worker.
    """
    return {
        "activity": {"type": name, "id": request_id or "", "attempt": 1, "task_queue": task_queue, "local": False},
        "run": {**facts["run"], "run_id": run_id, "governed": True},
        "worker": dict(worker),
        "now": facts["now"],
        **({"acting": facts["acting"]} if "acting" in facts else {}),
    }


def _why(verdict: Verdict, action: str) -> str:
    named = [f"policy {ref.id}: {ref.reason}" if ref.reason else f"policy {ref.id}" for ref in verdict.policies]
    return "; ".join([*named, *verdict.errors]) or f"no policy permits the action {action}"
