"""What a governed run tells the runs that it signals: its chain, and what Cedar says of the signal.

Runs inside the workflow sandbox, only when nothing is replayed. Rules, numbered as the code marks them:

X6  Every signal to another run goes with the sender's chain and a message with Cedar's answer in it. A denied one is
    sent, too, and the receiver drops it: so both histories show it, and nothing resumes otherwise than without the
    gate.
X7  While it cannot be decided, the workflow task fails and is tried again, whatever the workflow's code catches.
X8  What the run is not entitled to, it may not send either: its start is covered by its grant, the grant has not ended
    or been revoked, and its restrictions do not forbid it.
X9  The answer is in the evidence before it leaves.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from temporalio import workflow
from temporalio.api.common.v1 import Payload

from exequatur.errors import ExequaturError, JournalError, StatementError, UndecidedError
from exequatur.gate.attempt import NO_ARGUMENTS
from exequatur.gate.run import GovernedRun, fail_task
from exequatur.gate.wire import start_header
from exequatur.identity.actors import acting_facts, involved
from exequatur.identity.principal import Principal
from exequatur.policy.action import WORKFLOW_TYPE
from exequatur.policy.engine import PolicyRef, Verdict, decide
from exequatur.policy.restriction import held_to
from exequatur.policy.told import SIGNAL_ACTION
from exequatur.statements.encoding import compact_json, digest
from exequatur.statements.models import Message, Restriction
from exequatur.statements.verification import Chain, check_current

RECORD = "authority"
"""Kind of the journal's records of what was decided outside of an activity."""
_MAX_REASON = 400


def signal_header(
    run: GovernedRun,
    info: workflow.Info,
    *,
    namespace: str,
    target: str,
    target_run_id: str | None,
    name: str,
    args: str,
    restriction: Restriction | None,
) -> Payload | None:
    """Decide about a signal and sign the answer.

    Args:
        run: The sender.
        info: The sender's.
        namespace: Of the receiver.
        target: Workflow id of the receiver.
        target_run_id: The receiver's run, if the sender names one.
        name: Of the signal.
        args: Digest of the arguments' payloads.
        restriction: What the sender is held to here and now.

    Returns:
        The header; ``None`` for a run without a verified grant, which has nothing to tell.

    Raises:
        UndecidedError: X7.
    """
    gate, chain = run.gate, run.chain
    if chain is None:
        return None
    try:
        credential = run.ready().credential
    except ExequaturError as err:
        fail_task(UndecidedError(f"Signal {name} cannot be sent now: {err}"))
    if problem := gate.unavailable():  # [X7]
        fail_task(UndecidedError(f"Whether signal {name} may be sent cannot be decided now: {problem}"))
    asked = _Asked(run, chain, info, namespace, target, name, restriction)
    allowed, policies, reason = asked.answer()
    now = round(workflow.time(), 3)
    try:
        message = gate.workload.sign(
            Message(
                iss=gate.workload.id,
                aud=chain.grant.claims.aud,
                iat=now,
                exp=round(now + gate.settings.permit_ttl.total_seconds(), 3),
                jti=digest(secrets.token_bytes(32)),
                grant=chain.leaf.digest,
                workflow_id=info.workflow_id,
                original_run_id=info.original_execution_run_id,
                run_id=info.run_id,
                target=target,
                target_run_id=target_run_id or None,
                name=name,
                args=args,
                decision="allow" if allowed else "deny",
                policies=tuple(ref.id for ref in policies),
                reason=reason[:_MAX_REASON] if reason else None,
                bundle=asked.policy.bundle.digest,
            )
        )
    except ValueError:  # a name that no statement can hold: the receiver gets no message, and drops it
        return None
    asked.record(message.claims)  # [X9]
    return start_header(list(dict.fromkeys([*run.tokens, credential.text, message.text])))


class _Asked:
    """One question."""

    def __init__(
        self,
        run: GovernedRun,
        chain: Chain,
        info: workflow.Info,
        namespace: str,
        target: str,
        name: str,
        restriction: Restriction | None,
    ) -> None:
        self._run, self._chain, self._info, self._target, self._name = run, chain, info, target, name
        self._restriction = restriction
        self.policy = run.gate.policy
        self._now = run.gate.clock()
        moment = datetime.fromtimestamp(self._now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._facts: dict[str, Any] = {
            **acting_facts(chain.grant.claims.act),
            "run": {"namespace": namespace, "workflow_id": target},
            "message": {"name": name, "sender": info.workflow_id},
            "now": {"__extn": {"fn": "datetime", "arg": moment}},
        }
        self._decision = "none"
        own = restriction.forbid if restriction else ()
        self._forbid = tuple(dict.fromkeys([*chain.authorization.forbid, *own]))

    def answer(self) -> tuple[bool, Sequence[PolicyRef], str | None]:
        """Whether it may be sent, by which policies, and why not."""
        grant = self._chain.grant.claims
        try:
            named = Principal.parse(grant.sub)
            principal = Principal(named.type, named.id, grant.attributes, grant.parents)
            self._check_standing()
        except (StatementError, ValueError) as err:  # [X8]
            return False, (), str(err)
        verdict = self._decide(principal)
        self._decision = "allow" if verdict.allowed else "deny"
        return verdict.allowed, verdict.policies, None if verdict.allowed else _why(verdict)

    def _check_standing(self) -> None:
        """X8.

        Raises:
            StatementError: It does not stand.
        """
        run, gate, grant = self._run, self._run.gate, self._chain.grant.claims
        if run.start_fault is not None:
            raise StatementError("X8", f"The start of the run is not covered by its grant: {run.start_fault}")
        check_current(self._chain, self._now, gate.settings.clock_leeway.total_seconds())
        held = (self._chain.authorization.until, self._restriction.until if self._restriction else None)
        if any(until is not None and self._now >= until for until in held):
            raise StatementError("X8", "What the run is held to has ended")
        for workflow_id in {self._info.workflow_id, self._target}:
            subject: dict[str, str | frozenset[str]] = {
                "grant": grant.jti,
                "principal": involved(grant.sub, grant.act),
                "workflow": workflow_id,
                "key": self._chain.grant.kid,
            }
            if revoked := gate.revoked(subject):
                raise StatementError("X8", f"It has been revoked: {revoked.reason}")

    def _decide(self, principal: Principal) -> Verdict:
        bundle, entity = self.policy.bundle, principal.entity()
        action, resource = {"type": "Action", "id": SIGNAL_ACTION}, {"type": WORKFLOW_TYPE, "id": self._target}
        verdict = decide(bundle, entity, action, resource, NO_ARGUMENTS, self._facts)
        return held_to(bundle, self._forbid, verdict, entity, SIGNAL_ACTION, resource, NO_ARGUMENTS, self._facts)

    def record(self, message: Message) -> None:
        """Put the answer into the evidence, in the form of what an authority decides.

        Raises:
            UndecidedError: It cannot be recorded.
        """
        grant, info, journal = self._chain.grant.claims, self._info, self._run.gate.journal
        body = {
            "message": message.jti,
            "sender": info.workflow_id,
            "sender_run_id": info.run_id,
            "grant": grant.jti,
            "forbid": list(self._forbid),
            "action": SIGNAL_ACTION,
            "workflow_id": self._target,
            "principal": grant.sub,
            "vouched": {"attributes": grant.attributes, "parents": list(grant.parents)},
            "facts": compact_json(self._facts).decode(),
            "decision": self._decision,
            "reason": message.reason,
            "policies": list(message.policies),
            "bundle": self.policy.bundle.digest,
            "bundle_sequence": self.policy.sequence,
        }
        try:
            if journal is None:
                raise JournalError("the evidence journal is closed")
            journal.enqueue(RECORD, compact_json(body))
        except (JournalError, ValueError) as err:
            fail_task(UndecidedError(f"Signal {self._name} cannot be recorded now: {err}"))


def _why(verdict: Verdict) -> str:
    named = [f"policy {ref.id}: {ref.reason}" if ref.reason else f"policy {ref.id}" for ref in verdict.policies]
    return "; ".join([*named, *verdict.errors]) or f"no policy permits the action {SIGNAL_ACTION}"
