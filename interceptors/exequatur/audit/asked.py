"""What was asked of an authority, of a run's own worker about a signal, and of a Nexus handler: was it decided so?

Every grant, permit, renewal, approval and call of an operator was a question to Cedar, and its answer is a record in a
journal. Rules, numbered as the code marks them:

B1  Evaluated again, with the archived bundle, the recorded principal and the recorded facts, it is the same: the answer
    and the policies that gave it.
B2  A record that names a grant, permit, approval or message of the run says the same as that: principal and what is
    vouched for, answer, policies, and what it is for.
B3  The record of a Nexus handler names a call of this run, and says of it what the call says.
B4  What stands in the history, and was asked for, has its record, or is counted as not recorded: an authority elsewhere
    keeps its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from exequatur.audit.activities import seconds
from exequatur.audit.decisions import Bundles
from exequatur.audit.evidence import OwnRecord, facts_in
from exequatur.audit.history import RunHistory
from exequatur.audit.report import AskedReport, Finding, finding
from exequatur.audit.start import LEEWAY
from exequatur.errors import PolicyError
from exequatur.gate.attempt import NO_ARGUMENTS
from exequatur.gate.operation import child_facts
from exequatur.identity.actors import acting_facts
from exequatur.identity.principal import Principal
from exequatur.lineage.record import Record
from exequatur.policy.action import WORKFLOW_TYPE
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.engine import Verdict, decide
from exequatur.policy.restriction import held_to
from exequatur.policy.told import CHILD_ACTION, OWN_ACTIONS
from exequatur.statements.models import Actor, first_names
from exequatur.statements.nexus import Called


@dataclass(frozen=True)
class Stated:
    """A statement of the run that somebody signed after it was asked.

    Args:
        kind: ``grant``, ``renewal``, ``permit``, ``approval`` or ``message``.
        name: What the record calls it by: the ``jti``, or the leaf that a grant renews.
        action: What was asked.
        workflow_id: The resource.
        sub: On whose behalf.
        vouched: Attributes and parents; ``None`` where the statement does not have them.
        act: Who acts for the principal; of no meaning where nothing is vouched for.
        policies: That decided; ``None`` where the statement does not say it alone.
        allowed: Whether it says that it was allowed.
        facts: What it says of the context.
        event_id: Where it stands.
    """

    kind: str
    name: str
    action: str
    workflow_id: str
    sub: str
    vouched: tuple[Mapping[str, Any], tuple[str, ...]] | None
    policies: tuple[str, ...] | None
    allowed: bool
    facts: Mapping[str, Mapping[str, Any]]
    event_id: int
    act: Actor | None = None


@dataclass
class Asked:
    """What came of it.

    Args:
        reports: In the order of time.
        findings: What is wrong.
        counted: What is summed up in one sentence each.
    """

    reports: list[AskedReport] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)


def check_asked(
    history: RunHistory,
    records: Sequence[tuple[Record, OwnRecord]],
    stated: Iterable[Stated],
    calls: Mapping[str, Called],
    bundles: Bundles,
    approved: Sequence[str],
) -> Asked:
    """Check the records that belong to a run, and find those that are not there.

    Args:
        history: The run.
        records: About the run, and about its workflow at any time.
        stated: What stands in the history.
        calls: Verified Nexus calls of the run by the digest of their token.
        bundles: The archived policies.
        approved: Digests of the bundles that may decide; empty for all.
    """
    found = Asked()
    by_name: dict[tuple[str, str], list[Stated]] = {}
    for each in stated:
        by_name.setdefault((each.kind, each.name), []).append(each)
    recorded: set[tuple[str, str]] = set()
    renewed: set[str] = set()
    refused: dict[str, tuple[str, int]] = {}
    handled: set[str] = set()
    begun = seconds(history.events[0]) - LEEWAY
    ended = float("inf") if history.outcome == "open" else seconds(history.events[-1]) + LEEWAY
    for record, asked in sorted(records, key=lambda each: each[0].at):
        call = calls.get(asked.statement or "") if record.kind == "nexus" else None
        named = [key for key in _names(asked) if key in by_name]
        of_run = asked.run_id in history.run_ids or (asked.run_id is None and begun <= record.at <= ended)
        elsewhere = record.kind == "nexus" and asked.run_id != history.run_id and call is None
        if elsewhere:  # of a run that this one was reset from, after the point that it was reset to
            continue
        if not named and call is None and not of_run and "sender_run_id" not in (asked.model_extra or {}):
            continue  # about another run of the workflow
        recorded.update(named)
        problems = [problem for key in named for each in by_name[key] if (problem := _otherwise(asked, each))]
        if asked.renews is not None and not problems:
            renewed.add(asked.renews)
        elif asked.renews is not None:
            # It may have been asked more than once, and refused at first; one of the records is of the grant.
            refused.setdefault(asked.renews, (problems[0], by_name[named[0]][0].event_id))
            problems = []
        if record.kind == "nexus":
            handled.add(asked.statement or "")
            problems += [] if (problem := _misheld(asked, call)) is None else [problem]
        what = f"{asked.action} for {asked.principal or 'nobody'}"
        event_id = by_name[named[0]][0].event_id if named else None
        for problem in problems:  # [B2] [B3]
            found.findings.append(finding("authority-contradicts", f"{what}: {problem}", event_id=event_id))
        again: bool | None = None
        if asked.decision != "none":
            again = _again(asked, call, bundles, approved, found, what, event_id)
        found.reports.append(
            AskedReport(
                action=asked.action,
                by="nexus" if record.kind == "nexus" else "worker" if asked.message else "authority",
                principal=asked.principal,
                at=record.at,
                statement=named[0][0] if named else "call" if call is not None else None,
                event_id=event_id,
                decision=asked.decision,
                enforced=asked.enforced,
                policies=asked.policies,
                reason=asked.reason,
                bundle=asked.bundle,
                recomputed=False if problems else again,
            )
        )
        if record.kind == "nexus" and asked.decision != "allow" and not asked.enforced:
            found.findings.append(finding("not-enforced", f"{what}: it was handled all the same: {asked.reason}"))
    for leaf, (problem, event_id) in refused.items():
        if leaf not in renewed:  # [B2]
            found.findings.append(finding("authority-contradicts", f"A renewal: {problem}", event_id=event_id))
    found.counted["authority-unrecorded"] += len(by_name.keys() - recorded)  # [B4]
    found.counted["call-unrecorded"] += len(calls.keys() - handled)  # [B4]
    return found


def _names(asked: OwnRecord) -> list[tuple[str, str]]:
    """What a record is about, by the kinds and names of :class:`Stated`."""
    named = (
        ("renewal", asked.renews),
        ("grant", asked.grant if asked.renews is None and asked.message is None else None),
        ("permit", asked.permit),
        ("approval", asked.approval),
        ("message", asked.message),
    )
    return [(kind, name) for kind, name in named if name is not None]


def _otherwise(asked: OwnRecord, stated: Stated) -> str | None:
    """B2: what a record says otherwise than the statement that it names."""
    told: list[tuple[str, object, object]] = [
        ("principal", asked.principal, stated.sub),
        ("workflow", asked.workflow_id, stated.workflow_id),
        ("answer", asked.decision == "allow", stated.allowed),
    ]
    if stated.kind != "approval":  # which are asked for in two questions
        told.append(("action", asked.action, stated.action))
    if stated.vouched is not None and asked.vouched is not None:
        told.append(("description of its principal", (asked.vouched.attributes, asked.vouched.parents), stated.vouched))
    if stated.policies is not None:
        told.append(("policy", first_names(asked.policies), first_names(stated.policies)))
    try:
        facts = facts_in(asked.facts)
    except ValueError:
        return "its recorded facts are not a JSON object"
    if stated.vouched is not None:
        told.append(("chain of actors", facts.get("acting"), acting_facts(stated.act).get("acting")))
    for group, inner in stated.facts.items():
        there = facts.get(group)
        told += [(f"{group}.{name}", there.get(name) if isinstance(there, dict) else None, due)
                 for name, due in inner.items()]  # fmt: skip
    name = next((name for name, recorded, due in told if recorded != due), None)  # [B2]
    return None if name is None else f"the record has another {name} than the {stated.kind} in the history"


def _misheld(asked: OwnRecord, call: Called | None) -> str | None:
    """B3: what a handler's record says otherwise than the call that it names."""
    if call is None:
        # A start that verified; what did not was refused before its caller was known.
        return None if asked.decision == "none" else "it names a call that the history does not have"
    if asked.decision == "none":
        return None
    held = call.held
    told: list[tuple[str, object, object]] = [
        ("principal", asked.principal, call.vouched.sub),
        ("workflow", asked.workflow_id, call.resource_id),
        ("restriction", asked.forbid, () if held is None else held.forbid),
        (
            "description of its principal",
            asked.vouched and (asked.vouched.attributes, asked.vouched.parents),
            (call.vouched.attributes, call.vouched.parents),
        ),
    ]
    try:
        facts = facts_in(asked.facts)
    except ValueError:
        return "its recorded facts are not a JSON object"
    claims: Any = call.statement.claims
    run = {"namespace": call.namespace, "workflow_id": call.workflow_id, "workflow_type": call.workflow_type}
    nexus = {"endpoint": claims.endpoint, "service": claims.service, "operation": claims.operation}
    told += [("run", facts.get("run"), run), ("operation", facts.get("nexus"), nexus)]
    told.append(("chain of actors", facts.get("acting"), acting_facts(call.vouched.act).get("acting")))
    name = next((name for name, recorded, due in told if recorded != due), None)  # [B3]
    return None if name is None else f"the handler's record has another {name} than the call in the history"


def _again(
    asked: OwnRecord,
    call: Called | None,
    bundles: Bundles,
    approved: Sequence[str],
    found: Asked,
    what: str,
    event_id: int | None,
) -> bool | None:
    """B1: whether the same came out again; ``None`` where it cannot be tried."""
    if approved and asked.bundle not in approved:
        sentence = f"{what}: it was decided by policies {asked.bundle}, which the trust file does not approve"
        found.findings.append(finding("bundle-unapproved", sentence, event_id=event_id))
    try:
        bundle = bundles.get(asked.bundle)
    except PolicyError as error:
        found.findings.append(finding("evidence-invalid", f"{what}: {error}", event_id=event_id))
        return None
    if bundle is None:
        found.counted["bundle-missing"] += 1
        return None
    problem = recompute_own(asked, bundle, handed=_handed(call))
    if problem is not None:  # [B1]
        found.findings.append(finding("authority-differs", f"{what}: {problem}", event_id=event_id))
    return problem is None


def _handed(call: Called | None) -> bool:
    """Whether a Nexus call comes from a run that another one started."""
    chain = call.chain if call is not None else None
    return chain is not None and bool(chain.delegations or chain.authorization.child)


def recompute_own(asked: OwnRecord, bundle: PolicyBundle, *, handed: bool = False) -> str | None:
    """Make a decision about one of the gate's own actions again (B1).

    Args:
        asked: The record; its decision is Cedar's.
        bundle: The archived one that it names.
        handed: Whether ``workflow.child`` was asked, too (N46).

    Returns:
        What is different, or ``None``.
    """
    if asked.action not in OWN_ACTIONS:
        return "it is about an action that the gate does not ask for"
    if asked.fault is not None:
        return None if asked.decision == "deny" else "Cedar could not be asked, and it was allowed"
    try:
        facts = facts_in(asked.facts)
        named = Principal.parse(asked.principal or "")
        vouched = asked.vouched
        principal = Principal(
            named.type, named.id, vouched.attributes if vouched else {}, vouched.parents if vouched else ()
        )
    except ValueError as error:
        return f"it cannot be made again: {error}"
    entity, resource = principal.entity(), {"type": WORKFLOW_TYPE, "id": asked.workflow_id or ""}

    def ask(action: str, told: Mapping[str, Any]) -> Verdict:
        verdict = decide(bundle, entity, {"type": "Action", "id": action}, resource, NO_ARGUMENTS, told)
        return held_to(bundle, asked.forbid, verdict, entity, action, resource, NO_ARGUMENTS, told)

    verdict: Verdict | None = None
    question = asked.action
    if handed or asked.question is not None:
        question = CHILD_ACTION
        if asked.question not in (None, question) or not isinstance(facts.get("run"), dict) or "now" not in facts:
            return "it cannot be made again: it is about another question, or does not hold what was asked"
        extra = asked.model_extra or {}
        verdict = ask(
            question,
            child_facts(
                facts,
                name=f"nexus:{extra.get('service')}/{extra.get('operation')}",
                request_id=asked.request_id,
                task_queue=(asked.handler or {}).get("task_queue", ""),
                run_id=asked.run_id or "",
                worker=asked.worker if isinstance(asked.worker, dict) else {"id": asked.worker or ""},
            ),
        )
    if verdict is None or verdict.allowed:
        if asked.question is not None:
            return f"the archived policies allow {question}, the journal says that it was denied"
        verdict = ask(asked.action, facts)
    answer = "allow" if verdict.allowed else "deny"
    if answer != asked.decision:
        return f"the archived policies say {answer}, the journal says {asked.decision}"
    if tuple(ref.id for ref in verdict.policies) != asked.policies:
        return "other policies decide than the journal says"
    return None
