"""What an audit found: the model behind the terminal, JSON and HTML reports.

The JSON form is an interface: :data:`SCHEMA` names its version, and members are only ever added within one.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

from exequatur.audit.codes import CODES
from exequatur.statements.models import Part

SCHEMA = "exequatur audit report v1"


class Severity(StrEnum):
    """How much a finding weighs."""

    VIOLATION = "violation"
    """Something was not authorized, or was changed."""
    UNCHECKED = "unchecked"
    """Something could not be checked with what was given; what would help is in the sentence."""
    UNPROVEN = "unproven"
    """Nothing speaks against it, and nothing that a third party vouches for speaks for it."""
    NOTICE = "notice"
    """Worth knowing."""


class Verdict(StrEnum):
    """Of a run, or of the whole audit."""

    VERIFIED = "verified"
    VIOLATED = "violated"
    UNCHECKED = "unchecked"

    @property
    def exit_code(self) -> int:
        return {Verdict.VERIFIED: 0, Verdict.VIOLATED: 1, Verdict.UNCHECKED: 2}[self]


class Finding(Part):
    """One thing that was found.

    Args:
        code: Stable name, listed in :mod:`exequatur.audit.codes`.
        severity: How much it weighs.
        sentence: What it is, for a person.
        event_id: The history event that it is about.
        activity_id: The activity that it is about.
    """

    code: str
    severity: Severity
    sentence: str
    event_id: int | None = None
    activity_id: str | None = None


class Decided(Part):
    """One decision of a gate, from its worker's journal.

    Args:
        attempt: Of the activity, from 1.
        decision: Cedar's answer; ``none`` when a rule refused before Cedar was asked.
        enforced: Whether a no kept the activity from running.
        at: Seconds since 1970, by the worker's clock.
        policies: The ids of the deciding policies.
        reason: Why not.
        bundle: Digest of the policy bundle.
        recomputed: Whether the same decision came out again; ``None`` when it was not tried.
        log: Id of the journal that it stands in.
        index: Its position there.
    """

    attempt: int
    decision: Literal["allow", "deny", "none"]
    enforced: bool
    at: float
    policies: tuple[str, ...]
    reason: str | None
    bundle: str
    recomputed: bool | None
    log: str | None = None
    index: int | None = None


class Restricted(Part):
    """What an activity was held to besides its grant and the policies.

    Args:
        activities: Patterns of the activity types that it had to be among; ``None`` where that was not restricted.
        until: Until when it could be asked for, in seconds since 1970.
        forbid: Cedar policies that forbid besides those in force.
    """

    activities: tuple[str, ...] | None = None
    until: float | None = None
    forbid: tuple[str, ...] = ()


class ActivityReport(Part):
    """One activity of a run, as the history records it.

    Args:
        event_id: Of the event that scheduled it, or of a local activity's marker.
        activity_id: Its id.
        activity_type: Its type.
        local: Whether it is a local activity.
        scheduled: Seconds since 1970, by the server's clock.
        closed: The same, of its end.
        attempts: How many attempts the history tells of.
        outcome: How it ended: ``completed``, ``failed``, ``timed out``, ``cancelled``, ``denied``, ``rejected``,
            ``revoked``, ``challenged`` (people were asked to agree), ``renewed`` (its grant had ended and was renewed),
            or ``open``.
        worker: The worker that signed the receipt.
        requested_by: The worker that signed the request.
        decisions: What the gates decided about its attempts.
        approved_by: The people whose approvals came with it.
        completed_by: Who completed it from outside of its worker.
        restricted: What it was restricted to, if it was.
        proof: ``receipt`` (a valid one came with the result), ``denial`` (a signed one is in the failure), ``journal``
            (only the evidence shows it) or ``none``.
        task_queue: Where it was to run.
        arguments: Digest of its arguments, base64url; of a local activity as its worker has signed it.
        request: ``jti`` of the request.
        receipt: Digest of the receipt or denial that is in the history.
        rechecks: How often it was decided again while it ran, says the receipt.
        closed_event: Event id of its end.
    """

    event_id: int
    activity_id: str
    activity_type: str
    local: bool = False
    scheduled: float
    closed: float | None = None
    attempts: int
    outcome: str
    worker: str | None = None
    requested_by: str | None = None
    decisions: tuple[Decided, ...] = ()
    approved_by: tuple[str, ...] = ()
    completed_by: str | None = None
    restricted: Restricted | None = None
    proof: Literal["receipt", "denial", "journal", "none"]
    task_queue: str | None = None
    arguments: str | None = None
    request: str | None = None
    receipt: str | None = None
    rechecks: int | None = None
    closed_event: int | None = None


class DelegationReport(Part):
    """One step by which a grant came to a run: a run handed on a part of what it held.

    Args:
        workflow_id: Of the run that it was handed to.
        workflow_type: Its type.
        by: The worker that signed it.
        parent_run_id: The run that handed it on.
        depth: How many steps from the grant, from 1.
        until: When it ends, in seconds since 1970.
        activities: Patterns of the activity types that it allows.
    """

    workflow_id: str
    workflow_type: str
    by: str
    parent_run_id: str
    depth: int
    until: float
    activities: tuple[str, ...]


class LinkReport(Part):
    """Another run that belongs to a run, as the history tells of it.

    Args:
        relation: ``parent``, ``child``, ``continues`` (that run went on as this one), ``continued by`` (this run went
            on as that one) or ``reset of`` (the server began this one with that one's events).
        workflow_id: Its workflow id.
        run_id: Its run id; ``None`` where it was never started.
        namespace: Where it is, where the history names it.
        workflow_type: Its type, where the history names it.
        event_id: Of the event that tells of it.
        outcome: Of a child, how it ended, or ``open``.
    """

    relation: Literal["parent", "child", "continues", "continued by", "reset of"]
    workflow_id: str
    run_id: str | None = None
    namespace: str | None = None
    workflow_type: str | None = None
    event_id: int
    outcome: str | None = None


class MessageReport(Part):
    """A message that a run was sent.

    Args:
        event_id: Of the signal or accepted update; ``None`` where the history has no event, as of a query.
        kind: ``signal``, ``update`` or ``query``.
        name: Its name.
        at: Seconds since 1970, by the server's clock, or by the worker's where there is no event.
        principal: On whose behalf it was sent.
        sender: The workflow that sent it; ``None`` where a client did.
        accepted: Whether it may reach its handler; in a run that only observes, the others reach it, too.
        reason: Why not.
        proof: ``signed`` (a request or the seal of the run says that it was handled so), ``history`` (judged by what it
            came with; nothing signed says that it was handled) or ``journal`` (only the evidence shows it).
    """

    event_id: int | None = None
    kind: Literal["signal", "update", "query"]
    name: str
    at: float
    principal: str | None = None
    sender: str | None = None
    accepted: bool
    reason: str | None = None
    proof: Literal["signed", "history", "journal"]


class SentReport(Part):
    """What a run sent elsewhere.

    Args:
        event_id: Of the event that sent it.
        kind: ``signal``, ``signal-with-start`` or ``nexus``.
        what: Name and target, for a person.
        at: Seconds since 1970, by the server's clock.
        refused: Why the other side refuses it, if it does.
        proven: Whether the run's own statement that goes with it verifies.
    """

    event_id: int
    kind: Literal["signal", "signal-with-start", "nexus"]
    what: str
    at: float
    refused: str | None = None
    proven: bool


class AskedReport(Part):
    """What was decided about a grant, a permit, an approval, a renewal, a call of an operator, a signal or a Nexus
    operation, from a journal.

    Args:
        action: What Cedar was asked.
        by: Who asked: ``authority``, ``worker`` (the run's own, before it signalled) or ``nexus`` (a handler's worker).
        principal: On whose behalf.
        at: Seconds since 1970, by the clock of whoever asked.
        statement: What of the history it is about: ``grant``, ``renewal``, ``permit``, ``approval``, ``message``,
            ``call``; ``None`` where nothing there came of it.
        event_id: Where that stands.
        decision: Cedar's answer; ``none`` when it was refused before Cedar was asked.
        enforced: Whether a no kept it from happening.
        policies: The ids of the deciding policies.
        reason: Why not.
        bundle: Digest of the policy bundle.
        recomputed: Whether the same decision came out again; ``None`` when it was not tried.
    """

    action: str
    by: Literal["authority", "worker", "nexus"]
    principal: str | None
    at: float
    statement: str | None = None
    event_id: int | None = None
    decision: Literal["allow", "deny", "none"]
    enforced: bool = True
    policies: tuple[str, ...]
    reason: str | None
    bundle: str
    recomputed: bool | None


class RunReport(Part):
    """One run.

    Args:
        workflow_id: Its workflow id.
        run_id: Its run id.
        workflow_type: Its type.
        governed: Whether it was started with a grant.
        principal: On whose behalf it acted.
        grant: ``jti`` of the grant.
        issuer: Who issued the grant.
        mode: ``enforce`` or ``observe``, from the grant.
        started: Seconds since 1970, by the server's clock.
        closed: The same, of its end.
        outcome: How it closed, or ``open``.
        events: How many events were read.
        checkpoints: How many signed checkpoints cover it.
        checkpointed_events: How many of its events the largest of them covers.
        replay: Whether the workflow code, run again over the history, made the same choices.
        activities: In the order of the history.
        messages: That it was sent, in the order in which it handled them; those that only journals tell of last.
        sent: What it sent elsewhere, in the order of the history.
        asked: What was decided about its grant, its messages and itself, in the order of time.
        findings: In the order of the history.
        actors: Who acts for the principal, the nearest first, as the grant says.
        delegations: By which the grant came to this run, from the grant on.
        links: Other runs that belong to it, in the order of the history.
        checkpoint_sizes: How many events each checkpoint that counts covers, ascending.
    """

    workflow_id: str
    run_id: str
    workflow_type: str
    governed: bool
    principal: str | None = None
    grant: str | None = None
    issuer: str | None = None
    mode: str | None = None
    started: float
    closed: float | None = None
    outcome: str
    events: int
    checkpoints: int = 0
    checkpointed_events: int = 0
    replay: Literal["deterministic", "nondeterministic", "not run"] = "not run"
    activities: tuple[ActivityReport, ...] = ()
    messages: tuple[MessageReport, ...] = ()
    sent: tuple[SentReport, ...] = ()
    asked: tuple[AskedReport, ...] = ()
    findings: tuple[Finding, ...] = ()
    actors: tuple[str, ...] = ()
    delegations: tuple[DelegationReport, ...] = ()
    links: tuple[LinkReport, ...] = ()
    checkpoint_sizes: tuple[int, ...] = ()

    @property
    def verdict(self) -> Verdict:
        return verdict_of(self.findings)


class Report(Part):
    """A whole audit.

    Args:
        schema_version: :data:`SCHEMA`.
        software: Which version audited; ``None`` where nobody said.
        audited: When, in seconds since 1970 by the auditor's clock; ``None`` where nobody said.
        trust: SHA-256 of the trust file, base64url; ``None`` where nobody said.
        evidence: Where the evidence came from, as the auditor named it.
        runs: What could be read.
        findings: What is about no single run, such as a file that is no history.
    """

    schema_version: str = SCHEMA
    software: str | None = None
    audited: float | None = None
    trust: str | None = None
    evidence: tuple[str, ...] = ()
    runs: tuple[RunReport, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of all; an audit of nothing verified nothing."""
        everything = [*self.findings, *(finding for run in self.runs for finding in run.findings)]
        verdict = verdict_of(everything)
        return Verdict.UNCHECKED if verdict is Verdict.VERIFIED and not self.runs else verdict


def verdict_of(findings: Iterable[Finding]) -> Verdict:
    """A violation outweighs what could not be checked."""
    severities = {finding.severity for finding in findings}
    if Severity.VIOLATION in severities:
        return Verdict.VIOLATED
    return Verdict.UNCHECKED if Severity.UNCHECKED in severities else Verdict.VERIFIED


def finding(code: str, sentence: str, *, event_id: int | None = None, activity_id: str | None = None) -> Finding:
    """A finding with the severity that its code has."""
    return Finding(
        code=code,
        severity=Severity(CODES[code].severity),
        sentence=sentence,
        event_id=event_id,
        activity_id=activity_id,
    )
