"""What reached and left a governed run besides its activities: messages, signals, Nexus calls, and who was asked.

Here the parts are put together: :mod:`exequatur.audit.messages` and :mod:`exequatur.audit.heard` (rules I),
:mod:`exequatur.audit.sent` (rules U), :mod:`exequatur.audit.asked` (rules B). Rules, numbered as the code marks them:

I11  A journal's record of a message says of it what the history and its permit say. A signal that a vouched journal
     tells of is in the history.

Runs with a grant of version 1 take every message without a permit, and their history says nothing about them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from exequatur.audit.agreed import Signalled
from exequatur.audit.asked import Stated, check_asked
from exequatur.audit.decisions import Bundles
from exequatur.audit.evidence import EvidenceReader, MessageRecord, OwnRecord, RunEvidence, evidence_of
from exequatur.audit.heard import Handled, Heard, told_by
from exequatur.audit.history import RunHistory
from exequatur.audit.messages import Judge, Judged, fault_of, messages_of
from exequatur.audit.proofs import Proof
from exequatur.audit.report import AskedReport, Finding, MessageReport, SentReport, finding
from exequatur.audit.sent import Sent, sent_by
from exequatur.audit.standing import Standing
from exequatur.audit.start import Start
from exequatur.audit.trust import AuditTrust
from exequatur.errors import StatementError
from exequatur.lineage.chain import handled_message
from exequatur.lineage.record import Record
from exequatur.policy.told import (
    APPROVE_ACTION,
    QUERY_ACTION,
    REJECT_ACTION,
    RENEW_ACTION,
    SIGNAL_ACTION,
    START_ACTION,
    UPDATE_ACTION,
)
from exequatur.statements.jws import parse
from exequatur.statements.models import Approval, Permit, Seal
from exequatur.statements.trust import TrustStore
from exequatur.statements.used import Used
from exequatur.statements.verification import Chain

_ACTIONS = {"signal": SIGNAL_ACTION, "query": QUERY_ACTION, "update": UPDATE_ACTION}
_LONGEST_RECORDED = 1000
"""Characters of a message's name that its record holds."""


@dataclass
class Traffic:
    """What came of it.

    Args:
        messages: That the run was sent.
        sent: What it sent elsewhere.
        asked: What was decided.
        findings: What is wrong.
        counted: What is summed up in one sentence each.
    """

    messages: tuple[MessageReport, ...] = ()
    sent: tuple[SentReport, ...] = ()
    asked: tuple[AskedReport, ...] = ()
    findings: list[Finding] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)


def check_traffic(
    history: RunHistory,
    start: Start,
    chain: Chain,
    standing: Standing,
    proofs: Sequence[Proof],
    evidence: RunEvidence,
    reader: EvidenceReader,
    bundles: Bundles,
    trust: AuditTrust,
    *,
    signals: Sequence[Signalled],
    seal: Seal | None,
    vouched: frozenset[str],
) -> Traffic:
    """Check all of it.

    Args:
        history: The run.
        start: How it was started.
        chain: Its verified grant.
        standing: What it stood on.
        proofs: Of its activities.
        evidence: What journals hold about it.
        reader: Where that came from.
        bundles: The archived policies.
        trust: Whom to believe.
        signals: That brought approvals.
        seal: Its verified seal.
        vouched: The logs that a worker's signature names.
    """
    found = Traffic()
    judged: list[Judged] = []
    if chain.grant.claims.ver >= 2:
        judged = _messages(found, history, start, chain, proofs, evidence, seal, vouched)
    sent = sent_by(history, start, chain, standing)
    found.sent = tuple(sent.reports)
    found.findings += sent.findings
    records = [*evidence.asked, *_elsewhere(reader, history, chain)]
    approved = _approved(signals, start.trust)
    stated = _stated(history, chain, standing, judged, sent, approved)
    asked = check_asked(history, records, stated, sent.calls, bundles, trust.bundles)
    found.asked = tuple(asked.reports)
    found.findings += asked.findings
    found.counted += asked.counted
    return found


def _messages(
    found: Traffic,
    history: RunHistory,
    start: Start,
    chain: Chain,
    proofs: Sequence[Proof],
    evidence: RunEvidence,
    seal: Seal | None,
    vouched: frozenset[str],
) -> list[Judged]:
    """I1 to I11."""
    fault = fault_of(history, start, chain)
    used = Used()
    if start.seal is not None and fault is None:
        try:
            used.carry(start.seal.claims.used, start.seal.claims.used_until)
        except StatementError as error:
            fault = str(error)
    judge = Judge(history, start, chain, fault)
    judged = [judge.judge(sent) for sent in messages_of(history)]
    mine = [(record, told) for record, told in evidence.messages if told.run_id in history.run_ids]
    in_order = [told for _, told in sorted(mine, key=lambda each: each[0].at)]
    heard = Heard(judged, in_order, used)
    for told in told_by(history, proofs, seal):
        heard.follow(told)
    heard.finish(seal)
    found.findings += heard.findings
    observed = chain.grant.claims.mode == "observe"
    reports = [_report(each) for each in heard.handled]
    for handled in heard.handled:
        _refusal(found, handled, observed=observed)
    current = [(record, told) for record, told in mine if told.run_id == history.run_id]
    reports += _recorded(found, current, heard, vouched, is_open=history.outcome == "open")
    found.messages = tuple(reports)
    return judged


def _report(handled: Handled) -> MessageReport:
    message, sent = handled.message, handled.message.sent
    reason = None
    if handled.refused is not None:
        problem = message.problem
        same = problem is not None and problem.rule == handled.refused
        reason = str(problem) if same else f"It was refused [{handled.refused}]"
    return MessageReport(
        event_id=sent.event_id,
        kind=sent.kind,
        name=sent.name,
        at=sent.at,
        principal=message.admitted.principal if message.admitted else None,
        sender=message.admitted.sender if message.admitted else None,
        accepted=handled.refused is None,
        reason=reason,
        proof="signed" if handled.signed else "history",
    )


def _refusal(found: Traffic, handled: Handled, *, observed: bool) -> None:
    message, sent = handled.message, handled.message.sent
    what = f"The {sent.kind} {sent.name[:100]}"
    if message.unknown and (handled.refused is None or not handled.signed):
        sentence = f"{what}: {message.problem}; add the authority's keys to the trust file"
        found.findings.append(finding("key-unknown", sentence, event_id=sent.event_id))
    elif handled.refused is not None:
        report = _report(handled)
        code = "message-observed" if observed else "message-refused"
        found.findings.append(finding(code, f"{what}: {report.reason}", event_id=sent.event_id))


def _recorded(
    found: Traffic,
    records: Sequence[tuple[Record, MessageRecord]],
    heard: Heard,
    vouched: frozenset[str],
    *,
    is_open: bool,
) -> Iterator[MessageReport]:
    """I11: what journals say of messages, and those that left no event."""
    by_token = {(m.sent.kind, m.sent.name, m.sent.args, m.token): m for m in heard.messages}
    for record, told in records:
        if told.message is None:
            yield MessageReport(
                kind=told.kind, name=told.name, at=record.at, principal=told.principal, sender=told.sender,
                accepted=told.accepted, reason=told.reason, proof="journal",
            )  # fmt: skip
            continue
        what = f"The {told.kind} {told.name[:100]}"
        whole = len(told.name) < _LONGEST_RECORDED
        item = handled_message(told.kind, told.name, told.args or "", told.token, told.rule)
        if (whole and item != told.message) or told.accepted != (told.rule is None):  # [I11]
            sentence = f"{what}: record {record.index} of log {record.log_id} says of it what it did not fold"
            found.findings.append(finding("evidence-invalid", sentence))
            continue
        message = by_token.get((told.kind, told.name, told.args or "", told.token))
        if message is not None and message.admitted is not None and told.accepted:
            claims = message.admitted.token.claims
            due = (claims.jti, message.admitted.principal, message.admitted.sender)
            if (told.statement, told.principal, told.sender) != due:  # [I11]
                sentence = f"{what}: the journal names another sender or permit than it came with"
                found.findings.append(finding("evidence-invalid", sentence, event_id=message.sent.event_id))
        if message is None and whole and told.kind == "signal":  # an update may be lost with its workflow task
            if is_open:
                code, sentence = "history-cut", "is not in this history yet; get it again"
            else:
                code = "message-missing" if record.log_id in vouched else "evidence-unvouched"
                sentence = "which the history does not have"
            found.findings.append(finding(code, f"{what}: the evidence tells of it, {sentence}"))  # [I11]


def _elsewhere(reader: EvidenceReader, history: RunHistory, chain: Chain) -> list[tuple[Record, OwnRecord]]:
    """What was asked for the workflow whose grant was handed down, or for the schedule that started the run."""
    granted = chain.grant.claims.authorization.workflow_id
    if granted == history.workflow_id:
        return []
    return evidence_of(reader, granted, frozenset()).asked


def _approved(signals: Iterable[Signalled], trust: TrustStore) -> Iterator[tuple[Approval, int]]:
    """The approvals that an authority has signed, whatever they count for, with the event that brought each."""
    for each in signals:
        with suppress(StatementError):
            token = parse(each.text, Approval)
            claims = token.claims
            trust.verify(token)
            yield claims, each.event_id


def _stated(
    history: RunHistory,
    chain: Chain,
    standing: Standing,
    judged: Sequence[Judged],
    sent: Sent,
    approved: Iterable[tuple[Approval, int]],
) -> Iterator[Stated]:
    """What of a run somebody was asked for."""
    grant = chain.grant.claims
    vouched = (grant.attributes, grant.parents)
    namespace = chain.namespace
    authorized = grant.authorization
    if grant.renews is None:
        run = {"namespace": namespace, "workflow_id": authorized.workflow_id,
               "workflow_type": authorized.workflow_type, "task_queue": authorized.task_queue}  # fmt: skip
        facts = {"run": run}
        yield Stated("grant", grant.jti, START_ACTION, authorized.workflow_id, grant.sub, vouched, grant.policies,
                     True, facts, 1, grant.act)  # fmt: skip
    for leaf in map(standing.find, standing.leaves):
        if leaf is not None and leaf.before is not None:
            renewed = leaf.chain.grant.claims
            run = {"namespace": namespace, "workflow_id": history.workflow_id}
            yield Stated("renewal", leaf.before, RENEW_ACTION, history.workflow_id, renewed.sub,
                         (renewed.attributes, renewed.parents), renewed.policies, True, {"run": run},
                         leaf.event_id, renewed.act)  # fmt: skip
    for message in judged:
        permit = message.admitted.token.claims if message.admitted is not None else None
        if isinstance(permit, Permit):
            facts = {"run": {"namespace": namespace, "workflow_id": permit.target},
                     "message": {"name": permit.name, "sender": ""}}  # fmt: skip
            yield Stated("permit", permit.jti, _ACTIONS[permit.kind], permit.target, permit.sub,
                         (permit.attributes, permit.parents), permit.policies, True, facts,
                         message.sent.event_id, permit.act)  # fmt: skip
    for token, event_id in sent.messages:
        claims = token.claims
        facts = {"run": {"workflow_id": claims.target}, "message": {"name": claims.name, "sender": claims.workflow_id}}
        yield Stated("message", claims.jti, SIGNAL_ACTION, claims.target, grant.sub, vouched, claims.policies,
                     claims.decision == "allow", facts, event_id, grant.act)  # fmt: skip
    for approval, event_id in approved:
        action = APPROVE_ACTION if approval.verdict == "approve" else REJECT_ACTION
        facts = {"run": {"workflow_id": approval.workflow_id}, "approval": {"activity": approval.activity_type}}
        yield Stated("approval", approval.jti, action, approval.workflow_id, approval.sub, None, None, True, facts,
                     event_id)  # fmt: skip
