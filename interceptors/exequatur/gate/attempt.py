"""Judges one attempt of one activity. This is the gate's decision; everything else carries it out.

Rules, numbered as the code marks them. They are applied in this order; the first that is broken decides:

A1  Work without our header is refused, unless its workflow type is listed in ``allow_ungoverned``; then its principal
    is ``Unauthenticated`` and the policies decide.
A2  A partial or foreign set of our headers is refused (H1, H2, K1 to K4).
A3  The request authorizes this very task (R1 to R14). An activity that no workflow scheduled has a permit instead,
    which authorizes it (Y1 to Y7), and its own id stands for the workflow's.
A4  The grant has begun and has not ended (G4). A permit bounds the start only.
A5  Neither grant or permit, principal, workflow nor activity type is revoked, nor worker, key or code of those who
    asked or of this worker, nor the bundle in force.
A6  Heartbeat details of an earlier attempt are signed by a worker that may (M1 to M4).
A7  No activity type is named like one of our own Cedar actions.
A8  After a workflow reset, Cedar also allows the action ``workflow.reset``.
A9  Cedar allows, strictly (rules E of :mod:`exequatur.policy.engine`).
A10  What the activity acts on, if it names that itself, can be told from the arguments and is of the declared type.
A11  Where the run is restricted to activities, this is one of them.
A12  Where the run is restricted to a time, that is not over.
A13  What the run is restricted by forbids it not (rules L of :mod:`exequatur.policy.restriction`).
A14  In a run that was started by another, Cedar also allows the action ``workflow.child``.
A16  After the activity was reset, Cedar also allows the action ``activity.reset``. It was when the request has been
    used for an attempt of it of this number that was scheduled before, or the heartbeat details are of a later one.
A17  What the activity costs, if it names that itself and is counted, can be told from the arguments.
A18  Policies that can read what was done before are told it (rules C of :mod:`exequatur.gate.counting`). Where they
     came into force after the attempt was counted, or not counted, it is not known.

Before all of them stand U3 and U5 of :mod:`exequatur.gate.gate`: while it is not known what is revoked nothing goes on;
policies whose release has ended say nothing, and what they allowed lasts no longer than it. A11 and A12 stand before
A4, so that a run reads that it was restricted, not that its grant has ended.

Verification (A2, A3, A6) depends on bytes alone and is done once; the others are judged again whenever asked.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

from temporalio.activity import Info
from temporalio.api.common.v1 import Payload

from exequatur.errors import StatementError, UnknownKeyError
from exequatur.failures import (
    AuthorizationDenied,
    AuthorizationFailure,
    AuthorizationRevoked,
    AuthorizationUnavailable,
    GrantRejected,
)
from exequatur.gate.backing import Backed, backed_by
from exequatur.gate.challenge import Agreed, agreed, answerable, asked_for, asks_more, renewable
from exequatur.gate.counted import untold
from exequatur.gate.gate import Gate
from exequatur.gate.heartbeat import verify_details
from exequatur.gate.reservation import Reservation
from exequatur.gate.wire import payloads_digest, read_activity_header
from exequatur.identity.actors import acting_facts, involved
from exequatur.identity.principal import UNAUTHENTICATED, Principal
from exequatur.policy.action import UNMARKED, WORKFLOW_TYPE, ActionMark, cost_of, resource_of
from exequatur.policy.arguments import ActivitySignature, Conversion, convert_arguments
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.engine import PolicyRef, Verdict, decide, refused
from exequatur.policy.restriction import held_to
from exequatur.policy.scalars import Unrepresentable
from exequatur.policy.told import ACTIVITY_RESET_ACTION, CHILD_ACTION, OWN_ACTIONS, RESET_ACTION
from exequatur.statements.encoding import compact_json
from exequatur.statements.jws import Token
from exequatur.statements.models import Grant, Needed, Permit
from exequatur.statements.requests import Authorized, Held, Task, verify_request
from exequatur.statements.standalone import Lone, standalone_id, verify_standalone
from exequatur.statements.verification import Chain, audience, check_current, matches, site_of


@dataclass(frozen=True)
class Judgement:
    """What was decided, by what, and until when it may stand."""

    decision: Literal["allow", "deny", "none"]
    failure: type[AuthorizationFailure] | None
    reason: str | None
    bundle: str
    sequence: int
    epoch: int
    until: float
    """Seconds since 1970."""
    policies: tuple[PolicyRef, ...] = ()
    facts: bytes = b"{}"
    arguments: bytes = b"{}"
    """What Cedar was given of the arguments."""
    fault: str | None = None
    """Why Cedar was not asked about them."""
    principal: str = ""
    resource: Mapping[str, str] | None = None
    """What was acted on, where that was not the workflow."""
    entity: Mapping[str, Any] | None = None
    """The principal as the policies saw it; ``None`` where they were not asked."""
    question: str | None = None
    """Which of the gate's own actions was denied; ``None`` where it was the activity's."""
    needs: tuple[Needed, ...] = ()
    """Who would have to agree for it to be allowed; nobody where that would not help."""
    renewable: bool = False
    """It was refused only because the grant has ended, and that may be renewed."""

    @property
    def allowed(self) -> bool:
        return self.failure is None


@dataclass
class Attempt:
    """One attempt of one activity, as Temporal delivered it."""

    gate: Gate
    info: Info
    headers: Mapping[str, Payload]
    input: Sequence[Payload]
    heartbeat: Sequence[Payload]
    signature: ActivitySignature
    args: Sequence[Any]
    mark: ActionMark = UNMARKED
    authorized: Authorized | None = None
    """Set once A3 holds."""
    permit: Token[Permit] | None = None
    """The same for an activity that no workflow scheduled."""
    reset: bool = False
    """A16: the activity was reset, and this is an attempt of the new count."""
    request_digest: str | None = None
    backed: Backed = field(default_factory=Backed)
    """Whose keys and code the request stands on; set once A3 holds."""
    reservation: Reservation | None = None
    """Where it stands in the ledger, if it is counted."""
    use: str = field(default_factory=lambda: secrets.token_hex(8))
    """Tells this delivery of the attempt from another one."""
    _verified: bool = False
    _cost: int | str | None = None
    _arguments: Conversion | None = field(default=None)
    _resource: dict[str, str] | str | None = None

    @property
    def arguments(self) -> Conversion:
        """The arguments in Cedar's form."""
        if self._arguments is None:
            self._arguments = convert_arguments(self.signature, self.args)
        return self._arguments

    def resource(self) -> dict[str, str] | str:
        """What is acted on, or a sentence why that cannot be told (A10). It is found out once."""
        if self._resource is None:
            self._resource = self._workflow if self.mark.resolver is None else self._named()
        return self._resource

    def cost(self) -> int | None:
        """What it costs, found out once; ``None`` where that cannot be told (A17)."""
        if self._cost is None:
            arguments = self.arguments  # converted before, as for the resource
            try:
                self._cost = arguments.faults.get(()) or cost_of(self.mark, self.signature.filled(self.args))
            except Unrepresentable as err:
                self._cost = f"The cost {err.reason}"
        return self._cost if isinstance(self._cost, int) else None

    def identified(self) -> str | None:
        """On whose behalf it is, or ``None`` where rules A1 to A7 refuse it."""
        try:
            self._verify()
            return str(self._principal())
        except (StatementError, Refusal):
            return None

    @property
    def _workflow(self) -> dict[str, str]:
        return {"type": WORKFLOW_TYPE, "id": self.workflow_id}

    @property
    def workflow_id(self) -> str:
        """Whose activity it is; where no workflow scheduled it, what stands for one."""
        return self.info.workflow_id or standalone_id(self.info.activity_id)

    @property
    def run_id(self) -> str:
        """The workflow's run, or the activity's own where no workflow scheduled it."""
        return self.info.workflow_run_id or self.info.activity_run_id or ""

    @property
    def scheduled(self) -> dict[str, float]:
        """When Temporal scheduled the activity and this attempt of it, in seconds since 1970. The first stays the same
        in retries and resets."""
        return {
            "first_scheduled": round(self.info.scheduled_time.timestamp(), 6),
            "scheduled": round(self.info.current_attempt_scheduled_time.timestamp(), 6),
        }

    @property
    def request_id(self) -> str | None:
        """``jti`` of the request, or digest of the permit; ``None`` until A3 holds."""
        if self.authorized is not None:
            return self.authorized.request.claims.jti
        return None if self.permit is None else self.permit.digest

    @property
    def resource_known(self) -> bool:
        """Whether asking for the resource runs no code of the user's."""
        return self._resource is not None or self.mark.resolver is None

    def same_resource(self, args: Sequence[Any]) -> bool:
        """Whether these arguments name the resource that was judged.

        It is asked where a resolver may have read what has no form in Cedar, which :func:`print_of` does not see.
        """
        if self.mark.resolver is None or not self.arguments.faults:
            return True
        try:
            return resource_of(self.mark, self.signature.filled(args)) == self._resource
        except Unrepresentable:
            return False

    def _named(self) -> dict[str, str] | str:
        # Converted before: what a resolver changes about them is noticed when the body is entered.
        arguments = self.arguments
        if () in arguments.faults:
            return arguments.faults[()]
        try:
            return resource_of(self.mark, self.signature.filled(self.args))
        except Unrepresentable as err:
            return f"The resource {err.reason}"

    @cached_property
    def input_digest(self) -> str:
        """Digest of the arguments' payloads."""
        return payloads_digest(self.input)

    @property
    def vouched(self) -> dict[str, Any] | None:
        """What the grant or permit says of the principal."""
        claims = self._vouching
        return None if claims is None else {"attributes": claims.attributes, "parents": claims.parents}

    @property
    def _vouching(self) -> Grant | Permit | None:
        """What says on whose behalf."""
        if self.authorized is not None:
            return self.authorized.chain.grant.claims
        return None if self.permit is None else self.permit.claims

    @cached_property
    def enforced(self) -> bool:
        info = self.info
        return not self.gate.settings.observes(info.namespace, info.task_queue, info.activity_type)

    def judge(self) -> Judgement:
        """Decide now. Never raises."""
        gate, now = self.gate, self.gate.clock()
        # The epoch first: a policy that is put in force between the two must not be missed later.
        epoch, policy = gate.epoch, gate.policy
        base = Judgement("none", None, None, policy.bundle.digest, policy.sequence, epoch, now)
        if ended := policy.ended(now):  # [U5]
            return replace(base, failure=AuthorizationUnavailable, reason=ended)
        if gate.revocations.lapsed:  # [U3]
            why = f"It is not known any more what is revoked: {gate.revocations.doubt()}"
            return replace(base, failure=AuthorizationUnavailable, reason=why)
        if gate.guard is not None and gate.guard.violation is not None:  # [U6]
            return replace(base, failure=AuthorizationRevoked, reason=gate.guard.violation)
        if gate.guard is not None and (lost := gate.guard.lost()):  # [U6]
            return replace(base, failure=AuthorizationUnavailable, reason=lost)
        if ended := gate.workload.cut_off(now):  # [U7]
            return replace(base, failure=AuthorizationUnavailable, reason=ended)
        try:
            self._verify()
            principal = self._principal()
            base = replace(base, principal=str(principal))
            already = agreed(gate, self.authorized, now) if self.authorized else Agreed()
            facts = self._facts(now, already)
            if outside := outside_of(self.held, self.info.activity_type, facts):
                reason = f"{principal} may not run {self.info.activity_type}: {outside}"
                base = replace(base, decision="deny", facts=compact_json(facts), fault=outside)
                return replace(base, failure=AuthorizationDenied, reason=reason)
            until = self._check_standing(now)
        except UnknownKeyError as err:
            failure = AuthorizationUnavailable if err.pending and self.enforced else GrantRejected  # T6
            return replace(base, failure=failure, reason=str(err))
        except StatementError as err:
            return replace(base, failure=GrantRejected, reason=str(err), renewable=renewable(self, err, now))
        except Refusal as err:
            return replace(base, failure=GrantRejected, reason=err.reason)
        if untold(self, policy.bundle):  # [A18]
            return replace(base, failure=AuthorizationUnavailable, reason="What was done before was not counted")
        until = min(until, policy.expires, already.until, gate.workload.holds_until)  # [U5] [O15] [U7]
        entity = principal.entity()
        if already.approvers and self._asks_more(policy.bundle, entity, facts):  # [O27]
            already, facts = Agreed(), self._facts(now, Agreed())
        verdict = self.verdict(policy.bundle, entity, facts)
        if verdict.ttl is not None:
            until = min(until, now + verdict.ttl.total_seconds())
        judged = replace(
            base,
            decision="allow" if verdict.allowed else "deny",
            policies=verdict.policies,
            facts=compact_json(facts),
            arguments=compact_json(verdict.arguments),
            fault=verdict.fault,
            until=until,
            resource=self._other_resource(),
            entity=entity,
            question=verdict.question,
        )
        if verdict.allowed:
            return judged
        needs: tuple[Needed, ...] = ()
        if self.authorized and answerable(self):  # [O17]
            needs = asked_for(policy.bundle, verdict, self.authorized.agreement, already)
        return replace(judged, failure=AuthorizationDenied, reason=_why(principal, self.info, verdict), needs=needs)

    def _verify(self) -> None:
        if self._verified:
            return
        info, settings = self.info, self.gate.settings
        if info.activity_type in OWN_ACTIONS:  # [A7]
            raise Refusal(f"An activity may not be named {info.activity_type}, which is one of the gate's own actions")
        tokens = read_activity_header(self.headers)  # A2
        if tokens is not None and info.workflow_id and info.workflow_type and info.workflow_run_id:
            task = Task(
                namespace=info.namespace,
                workflow_id=info.workflow_id,
                workflow_type=info.workflow_type,
                run_id=info.workflow_run_id,
                activity_id=info.activity_id,
                activity_type=info.activity_type,
                task_queue=info.task_queue,
                scheduled=info.scheduled_time.timestamp(),
                args=self.input_digest,
                local=info.is_local,
            )
            authorized = verify_request(  # A3
                tokens,
                task,
                self.gate.trust,
                aud=audience(settings.trust_domain, settings.cluster, info.namespace),
                max_depth=settings.max_delegation_depth,
                schedule_bound=settings.schedule_bound.total_seconds(),
            )
            self._verify_heartbeat(authorized.request.claims.jti, authorized.chain.site)
            self.authorized = authorized
            self.backed = backed_by(tokens)
            self.request_digest = authorized.request.digest
        elif tokens is not None and info.workflow_id is None and info.activity_run_id:
            lone = Lone(
                activity_id=info.activity_id,
                activity_type=info.activity_type,
                task_queue=info.task_queue,
                scheduled=info.scheduled_time.timestamp(),
                args=self.input_digest,
            )
            aud, leeway = audience(settings.trust_domain, settings.cluster, info.namespace), settings.clock_leeway
            permit = verify_standalone(tokens, lone, self.gate.trust, aud=aud, leeway=leeway.total_seconds())  # A3
            self._verify_heartbeat(permit.digest, site_of(aud))
            self.permit = permit
            self.backed = backed_by(tokens)
            self.request_digest = permit.digest
        elif tokens is not None:
            raise Refusal("An authorization header came with an activity that has no run")
        elif info.workflow_id is None:  # [A1]
            raise Refusal(
                f"Activity {info.activity_id} ({info.activity_type}) stands by itself and carries no permit; start it "
                "through a client with the plugin"
            )
        elif info.workflow_type not in settings.allow_ungoverned:  # [A1]
            raise Refusal(
                f"Workflow {info.workflow_id} ({info.workflow_type}) carries no grant; start it through a client with "
                "the plugin, or list its type in allow_ungoverned"
            )
        self._verified = True

    def _verify_heartbeat(self, request: str, site: str) -> None:
        if self.heartbeat:
            leeway = self.gate.settings.clock_leeway.total_seconds()
            later = verify_details(  # [A6]
                self.heartbeat, self.info, self.gate.trust, request=request, site=site, leeway=leeway
            )
            self.reset = self.reset or later

    def _principal(self) -> Principal:
        claims = self._vouching
        if claims is None:
            return UNAUTHENTICATED
        try:
            named = Principal.parse(claims.sub)
            return Principal(named.type, named.id, claims.attributes, claims.parents)
        except ValueError as err:
            raise Refusal(f"The grant's principal cannot be read: {err}") from err

    @property
    def held(self) -> Held | None:
        """What the run is restricted to, whatever the policies permit (R16)."""
        return None if self.authorized is None else self.authorized.held

    def _check_standing(self, now: float) -> float:
        """A4 and A5; returns until when the grant lasts."""
        subject: dict[str, str | frozenset[str]] = {
            "workflow": self.workflow_id,
            "activity": self.info.activity_type,
            "key": self.backed.keys,
            "worker": self.backed.workers,
            "code": self.backed.code,
        }
        until = float("inf")
        if self.authorized:
            chain = self.authorized.chain
            subject |= self._named_in(chain.grant.claims)
            check_current(chain, now, self.gate.settings.clock_leeway.total_seconds())  # [A4]
            until = chain.expires
            if self.held is not None and self.held.until is not None:  # [A12]
                until = min(until, self.held.until)
        elif self.permit:
            subject |= self._named_in(self.permit.claims)
        else:
            subject["principal"] = str(UNAUTHENTICATED)
        revoked = self.gate.revoked(subject)
        if revoked:  # [A5]
            raise Refusal(f"It has been revoked: {revoked.reason}")
        return until

    def _named_in(self, claims: Grant | Permit) -> dict[str, str | frozenset[str]]:
        return {"grant": claims.jti, "principal": involved(claims.sub, claims.act)}

    def _facts(self, now: float, already: Agreed) -> dict[str, Any]:
        """Everything in Cedar's ``context`` but the arguments."""
        info = self.info
        moment = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        approvals = {"approvals": {"groups": list(already.groups), "approvers": list(already.approvers)}}
        vouching, counting = self._vouching, self.gate.counting
        behavior = self.reservation.told(counting.baseline) if self.reservation and counting else None
        return {
            **(approvals if already.approvers else {}),
            **acting_facts(vouching.act if vouching is not None else None),
            "activity": {
                "type": info.activity_type,
                "id": info.activity_id,
                "attempt": info.attempt,
                "task_queue": info.task_queue,
                "local": info.is_local,
            },
            "run": {
                "namespace": info.namespace,
                "workflow_id": info.workflow_id or "",
                "workflow_type": info.workflow_type or "",
                "run_id": self.run_id,
                "governed": vouching is not None,
            },
            **({} if behavior is None else {"behavior": behavior}),
            "worker": self.gate.worker_facts(),
            "now": {"__extn": {"fn": "datetime", "arg": moment}},
        }

    def verdict(self, bundle: PolicyBundle, entity: dict[str, Any], facts: dict[str, Any]) -> Verdict:
        """What a bundle says: A8, A9, A13, A14 and A16.

        Args:
            bundle: The bundle in force, or another one to compare it with.
            entity: The principal in Cedar's form.
            facts: Everything in Cedar's ``context`` but the arguments.
        """
        if self.authorized and self.authorized.after_reset:  # [A8]
            reset = self._ask(bundle, entity, RESET_ACTION, facts, own=True)
            if not reset.allowed:
                return replace(reset, question=RESET_ACTION)
        if self.authorized and asks_child(self.authorized.chain):  # [A14]
            child = self._ask(bundle, entity, CHILD_ACTION, facts, own=True)
            if not child.allowed:
                return replace(child, question=CHILD_ACTION)
        if self.reset:  # [A16]
            again = self._ask(bundle, entity, ACTIVITY_RESET_ACTION, place_in(facts), own=True)
            if not again.allowed:
                return replace(again, question=ACTIVITY_RESET_ACTION)
        return self._ask(bundle, entity, self.info.activity_type, facts)  # A9

    def _asks_more(self, bundle: PolicyBundle, entity: dict[str, Any], facts: dict[str, Any]) -> bool:
        """Whether the policies in force ask for more people than those whose approvals came along were told (O27)."""
        if self.authorized is None or self.authorized.agreement is None:
            return False
        alone = {name: value for name, value in facts.items() if name != "approvals"}
        verdicts = [self._ask(bundle, entity, self.info.activity_type, alone)]
        if self.authorized.after_reset:
            verdicts.append(self._ask(bundle, entity, RESET_ACTION, alone, own=True))
        if asks_child(self.authorized.chain):
            verdicts.append(self._ask(bundle, entity, CHILD_ACTION, alone, own=True))
        return asks_more(bundle, verdicts, self.authorized.agreement.challenge.claims)

    def _other_resource(self) -> dict[str, str] | None:
        """What was acted on, if it was told and is not the workflow."""
        found = self._resource
        return found if isinstance(found, dict) and found != self._workflow else None

    def _ask(
        self, bundle: PolicyBundle, entity: dict[str, Any], action: str, facts: dict[str, Any], *, own: bool = False
    ) -> Verdict:
        resource = self._workflow if own else self.resource()
        if isinstance(resource, str):  # [A10]
            return refused(resource)
        if not own and isinstance(self._cost, str):  # [A17]
            return refused(self._cost)
        arguments = NO_ARGUMENTS if own else self.arguments
        verdict = decide(bundle, entity, {"type": "Action", "id": action}, resource, arguments, facts)
        forbid = () if self.held is None else self.held.forbid
        if forbid:  # [A13]
            return held_to(bundle, forbid, verdict, entity, action, resource, arguments, facts)
        return verdict


class Refusal(Exception):
    """A rule of this module refused; a sentence says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _nothing() -> None: ...


_AS = {
    RESET_ACTION: " after the workflow was reset (workflow.reset)",
    CHILD_ACTION: " in a child workflow (workflow.child)",
    ACTIVITY_RESET_ACTION: " after it was reset (activity.reset)",
}
"""How a denial says that one of the gate's own questions was answered with no."""
NO_ARGUMENTS = convert_arguments(ActivitySignature.of(_nothing), ())
"""For Cedar actions that have none."""


def asks_child(chain: Chain) -> bool:
    """A14: whether another run started this one and handed it what it holds. Earlier grants knew no such question."""
    return chain.grant.claims.ver >= 2 and bool(chain.delegations or chain.authorization.child)


def outside_of(held: Held | None, activity_type: str, facts: Mapping[str, Any]) -> str | None:
    """A11 and A12: why the policies need not be asked, if the run is restricted to something else.

    Args:
        held: What the run is restricted to.
        activity_type: Of the activity.
        facts: As policies are told them.
    """
    if held is None:
        return None
    if held.activities is not None and not matches(activity_type, held.activities):  # [A11]
        listed = ", ".join(held.activities)[:200] or "none"
        return f"the run is restricted to other activities: {listed}"
    # The time that is recorded, so that it can be compared again.
    if held.until is not None and moment_of(facts) >= held.until:  # [A12]
        return f"the run was restricted to the time before {datetime.fromtimestamp(held.until, UTC).isoformat()}"
    return None


def place_in(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of one activity that somebody does something to."""
    run, activity = facts["run"], facts["activity"]
    return {
        "run": {name: run[name] for name in ("namespace", "workflow_id")},
        "activity": {name: activity[name] for name in ("type", "id", "task_queue")},
        "now": facts["now"],
        **({"acting": facts["acting"]} if "acting" in facts else {}),
    }


def moment_of(facts: Mapping[str, Any]) -> float:
    """The time that policies are told, in seconds since 1970."""
    return datetime.fromisoformat(facts["now"]["__extn"]["arg"]).timestamp()


def _why(principal: Principal, info: Info, verdict: Verdict) -> str:
    """The sentence that a denied person reads."""
    head = f"{principal} may not run {info.activity_type}{_AS.get(verdict.question or '', '')}"
    if verdict.policies:
        named = "; ".join(f"{ref.id}: {ref.reason}" if ref.reason else ref.id for ref in verdict.policies)
        head = f"{head}, forbidden by policy {named}"
    elif not verdict.errors:
        head = f"{head}: no policy permits it"
    return f"{head}. {' '.join(verdict.errors)}".removesuffix(". ") if verdict.errors else head


def print_of(arguments: Conversion) -> bytes:
    """What must stay the same about arguments between judging them and running with them."""
    return compact_json([arguments.value, sorted(map(list, arguments.faults))])


@dataclass(frozen=True)
class ArgumentPrint:
    """Takes the print of arguments anew. Picklable, for process pools."""

    signature: ActivitySignature

    def __call__(self, args: Sequence[Any]) -> bytes:
        return print_of(convert_arguments(self.signature, args))
