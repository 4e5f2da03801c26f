"""The views of one run as plain data, so that a template shows them and a public viewer's are redacted.

Pure over the audit's report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from exequatur.audit import wording
from exequatur.audit.report import LinkReport, RunReport, Severity, Verdict
from exequatur.console import timeline
from exequatur.console.family import MOST, Family
from exequatur.console.references import Place
from exequatur.console.runs import Audited
from exequatur.console.visitors import named_as_a_visitors

TABS = {
    "timeline": "Timeline",
    "graph": "Graph",
    "messages": "Messages and questions",
    "findings": "Findings",
    "family": "Runs that belong to it",
}

At = Callable[[Place], dict[str, str]]
"""What names a run in an address of a viewer."""


def beginning_of(found: Audited, tab: str, at: At, ui: str | None, shown: Sequence[str]) -> dict[str, Any]:
    """What every view of a run begins with.

    Args:
        found: The run.
        tab: Which view.
        at: What names a run in an address of the viewer.
        ui: URL of the Temporal UI, if this viewer is to have links to it.
        shown: Namespaces that are shown.
    """
    run = found.run
    title, sentence = wording.headline(found.report)
    first, rest = _split(sentence, found.run)
    counts = {"allow": 0, "deny": 0, "none": 0, "observed": 0}
    for activity in run.activities:
        for decided in activity.decisions:
            counts[decided.decision] += 1
            counts["observed"] += decided.decision != "allow" and not decided.enforced
    if ui is not None:
        parts = (found.place.namespace, run.workflow_id, found.place.run_id)
        namespace, workflow, run_id = (quote(each, safe="") for each in parts)
        ui = f"{ui.rstrip('/')}/namespaces/{namespace}/workflows/{workflow}/{run_id}/history"
    return {
        "tab": tab,
        "tabs": [{"tab": name, "heading": heading} for name, heading in TABS.items()],
        "run_at": at(found.place),
        "workflow_id": run.workflow_id,
        "run_id": found.place.run_id,
        "workflow_type": run.workflow_type,
        "verdict": run.verdict.value,
        "headline": title,
        "verdict_words": sentence,
        "verdict_first": first,
        "verdict_rest": rest,
        "tally": wording.tally(run.findings),
        "principal": wording.who(run),
        "actors": list(run.actors),
        "issuer": run.issuer,
        "grant": run.grant,
        "mode": run.mode,
        "delegations": [
            {
                "depth": each.depth,
                "by": each.by,
                "workflow_id": each.workflow_id,
                "workflow_type": each.workflow_type,
                "parent_run_id": each.parent_run_id,
                "until": each.until,
                "patterns": list(each.activities),
            }
            for each in run.delegations
        ],
        "started": run.started,
        "closed": run.closed,
        "outcome": run.outcome,
        "events": run.events,
        "count": len(run.activities),
        "counts": counts,
        "people": sum(bool(each.approved_by) for each in run.activities),
        "checkpoints": run.checkpoints,
        "covered": run.checkpointed_events,
        "message_count": len(run.messages),
        "audited_at": found.at,
        "stale": found.stale,
        "visitors": named_as_a_visitors(run.workflow_id, found.queue),
        "encoded": any(each.code == "payload-encoded" for each in run.findings),
        "ui": ui,
        "links": [
            {
                "relation": each.relation,
                "workflow_id": each.workflow_id,
                "run_id": each.run_id,
                "workflow_type": each.workflow_type,
                "outcome": each.outcome,
                "event": each.event_id,
                "href": linked(found, each, at, shown),
            }
            for each in run.links[:20]
        ],
        "more_links": max(0, len(run.links) - 20),
    }


def linked(found: Audited, target: LinkReport, at: At, shown: Sequence[str]) -> dict[str, str] | None:
    """What names a run that another one names; ``None`` where it cannot be looked at here."""
    namespace = target.namespace or found.place.namespace
    if namespace not in shown or not target.run_id:
        return None
    return at(Place(namespace, target.workflow_id, target.run_id))


def timeline_of(run: RunReport, show: str, kind: str, first: int, event: int | None) -> dict[str, Any]:
    """The timeline, as :func:`exequatur.console.timeline.part_of` takes its arguments."""
    show = show if show in timeline.SHOW else "all"
    part = timeline.part_of(run, show=show, kind=kind, first=first, event=event)
    return {
        "rows": part.rows,
        "total": part.total,
        "first": part.first,
        "before": part.before,
        "after": part.after,
        "size": timeline.ROWS,
        "show": show,
        "shows": [{"show": name, "heading": heading} for name, heading in timeline.SHOW.items()],
        "kind": kind,
        "types": timeline.types_of(run),
        "overview": timeline.overview_of(run),
        "event": event,
    }


def findings_of(run: RunReport) -> dict[str, Any]:
    """The findings, by their codes."""
    return {
        "groups": [
            {
                "code": group.code,
                "severity": group.severity.value,
                "meaning": group.meaning,
                "many": len(group.findings),
                "found": [
                    {"sentence": each.sentence, "event": each.event_id} for each in group.findings[: timeline.ROWS]
                ],
            }
            for group in wording.grouped(run.findings)
        ]
    }


def family_data(family: Family, at: At) -> dict[str, Any]:
    """The runs that belong together."""
    return {
        "pending": family.pending,
        "left_out": family.left_out,
        "most": MOST,
        "members": [
            {
                "relation": each.relation,
                "depth": each.depth,
                "of": None if each.of is None else family.members[each.of].workflow_id,
                "workflow_id": each.workflow_id,
                "run_id": each.run_id,
                "workflow_type": each.workflow_type,
                "at": None if each.place is None else at(each.place),
                "verdict": None if each.audited is None else each.audited.run.verdict.value,
                "outcome": None if each.audited is None else each.audited.run.outcome,
                "principal": None if each.audited is None else wording.who(each.audited.run),
                "count": None if each.audited is None else len(each.audited.run.activities),
                "denied": 0 if each.audited is None else _ended(each.audited.run, "denied"),
                "refused": 0 if each.audited is None else _ended(each.audited.run, "rejected", "revoked"),
                "problem": each.why,
            }
            for each in family.members
        ],
    }


def _split(sentence: str, run: RunReport) -> tuple[str, str]:
    """What a verdict says of this run, and its last sentence where that says what holds for every such run."""
    if run.verdict is Verdict.VERIFIED and not any(each.severity is Severity.UNPROVEN for each in run.findings):
        return sentence, ""
    first, dot, last = sentence.rpartition(". ")
    return (f"{first}.", last) if dot else (sentence, "")


def _ended(run: RunReport, *outcomes: str) -> int:
    return sum(each.outcome in outcomes for each in run.activities)


def traffic_of(run: RunReport) -> dict[str, Any]:
    """Messages, and what was asked about the run."""
    most = timeline.ROWS
    return {
        "messages": [
            {
                "event": each.event_id,
                "message_kind": each.kind,
                "called": each.name,
                "when": each.at,
                "principal": each.principal,
                "sender": each.sender,
                "accepted": each.accepted,
                "reason": each.reason,
                "proof_words": wording.MESSAGE_PROOFS[each.proof],
            }
            for each in run.messages[:most]
        ],
        "more_messages": max(0, len(run.messages) - most),
        "sent": [
            {"event": each.event_id, "message_kind": each.kind, "called": each.what, "when": each.at,
             "reason": each.refused, "proven": each.proven}
            for each in run.sent[:most]
        ],
        "questions": [
            {
                "action": each.action,
                "by": each.by,
                "principal": each.principal,
                "when": each.at,
                "event": each.event_id,
                "decision": each.decision,
                "enforced": each.enforced,
                "policies": list(each.policies),
                "reason": each.reason,
                "recomputed_words": wording.recomputed(each),
                "recomputed": each.recomputed,
            }
            for each in run.asked[:most]
        ],
        "more_questions": max(0, len(run.asked) - most),
    }  # fmt: skip
