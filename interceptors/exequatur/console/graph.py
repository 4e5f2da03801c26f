"""One run as a graph: who is behind it, how the grant came to it, what it did, and which runs belong to it.

Pure over the audit's report. Where and how things are drawn is the page's business.

What repeats in a row is folded into one node, which says how often; what was refused, or has a violation, stays
visible. There are at most :data:`MOST` steps, and what was folded to get there is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from exequatur.audit.report import ActivityReport, RunReport, Severity
from exequatur.audit.wording import count, decision

MOST = 60
"""Steps that are drawn. More than that nobody reads in a drawing; the table has all."""
MOST_LINKS = 40
"""Other runs that are drawn."""
_CALM = ("good", "notice")


@dataclass(frozen=True)
class Step:
    """Something that the run did or met, or several of a kind in a row.

    Args:
        kind: ``activity``, ``child``, ``message`` or ``mixed``.
        name: Activity type, or what else it is called.
        label: What came of it, in words of this program.
        tone: ``good``, ``violation``, ``unchecked``, ``unproven`` or ``notice``.
        first: Event id of the first.
        last: Event id of the last.
        times: How many.
        link: Number of the linked run that it leads to, from 0.
    """

    kind: str
    name: str
    label: str
    tone: str
    first: int
    last: int
    times: int = 1
    link: int | None = None


def state_of(activity: ActivityReport) -> tuple[str, str]:
    """What came of an activity, in words, and their tone."""
    last = activity.decisions[-1] if activity.decisions else None
    if last is not None and last.recomputed is False:
        return "contradicted by the audit", "violation"
    match activity.outcome:
        case "denied":
            return "denied by policy", "violation"
        case "rejected":
            return "refused before policy was asked", "unchecked"
        case "revoked":
            return "stopped by a revocation", "violation"
        case "challenged":
            return "waited for people", "notice"
        case "renewed":
            return "its grant was renewed", "notice"
    if last is not None and last.decision != "allow" and not last.enforced:
        return decision(last), "unchecked"
    if activity.proof == "none" and activity.outcome == "completed" and last is None:
        return f"{activity.outcome}, without proof", "unproven"
    if activity.outcome == "completed":
        return "allowed, completed", "good"
    return (f"allowed, {activity.outcome}" if last is not None else activity.outcome), "notice"


def flags_of(run: RunReport) -> dict[int, str]:
    """The gravest severity of the findings about each event."""
    order = [each.value for each in Severity]
    found: dict[int, str] = {}
    for each in run.findings:
        if each.event_id is not None and each.severity in (Severity.VIOLATION, Severity.UNCHECKED):
            worst = found.get(each.event_id, each.severity.value)
            found[each.event_id] = min(worst, each.severity.value, key=order.index)
    return found


def steps_of(run: RunReport) -> list[Step]:
    """What the run did, in the order of its history, each by itself."""
    flags = flags_of(run)
    found = []
    for activity in run.activities:
        label, tone = state_of(activity)
        if (flag := flags.get(activity.event_id)) is not None:
            label, tone = f"{label}; {flag}", flag
        if activity.attempts > 1:
            label = f"{label}, {activity.attempts} attempts"
        found.append(Step("activity", activity.activity_type, label, tone, activity.event_id, activity.event_id))
    for number, link in enumerate(run.links):
        if link.relation == "child":
            tone = "good" if link.outcome == "completed" else "notice"
            name = link.workflow_type or "a workflow"
            found.append(Step("child", name, f"child, {link.outcome}", tone, link.event_id, link.event_id, link=number))
    for message in run.messages:
        if message.event_id is not None:
            label, tone = ("accepted", "good") if message.accepted else ("refused", "unchecked")
            name, at = f"{message.kind} {message.name}", message.event_id
            found.append(Step("message", name, f"{message.kind} {label}", tone, at, at))
    return sorted(found, key=lambda step: step.first)


def folded(steps: Iterable[Step]) -> list[Step]:
    """The same with what repeats in a row as one."""
    made: list[Step] = []
    for step in steps:
        before = made[-1] if made else None
        if before is not None and step.link is None and _alike(before, step):
            made[-1] = replace(before, last=step.last, times=before.times + step.times)
        else:
            made.append(step)
    return made


def fitting(steps: Sequence[Step], most: int = MOST) -> list[Step]:
    """At most so many steps: neighbours that need no attention become one, then all others."""
    made = list(steps)
    if len(made) > most:
        calm = sum(each.tone in _CALM for each in made)
        keep = len(made) - calm
        made = _joined(made, calm=True, groups=max(most - 2 * keep, most // 3))
    return made if len(made) <= most else _joined(made, calm=False, groups=most)


def graph_of(run: RunReport) -> dict[str, Any]:
    """The run as plain data: nodes with a place in an order, and what leads to what."""
    steps = folded(steps_of(run))
    drawn = fitting(steps)
    nodes: list[dict[str, Any]] = []
    edges: list[dict[str, Any]] = []

    def node(**what: Any) -> int:
        nodes.append({**_EMPTY, "number": len(nodes), **what})
        return len(nodes) - 1

    def edge(start: int, end: int, label: str = "") -> None:
        edges.append({"from": start, "to": end, "label": label})

    before = node(
        kind="who",
        heading="On behalf of" if run.principal else "Nobody is named",
        who=run.principal or "started without a grant",
        tone="notice" if run.governed else "violation",
    )
    for actor in run.actors:
        step = node(kind="who", heading="Acts for it", who=actor, tone="notice")
        edge(before, step)
        before = step
    if run.grant is not None:
        grant = node(kind="grant", heading="Grant", who=run.issuer or "", tone="good")
        edge(before, grant, "was granted by")
        before = grant
    for handed in run.delegations:
        step = node(
            kind="grant", heading=f"Delegation {handed.depth}", activity_type=handed.workflow_type, tone="good",
            workflow_id=handed.workflow_id,
        )  # fmt: skip
        edge(before, step, "was handed on to")
        before = step
    here = node(kind="run", heading="This run", activity_type=run.workflow_type, label=run.outcome, tone=_tone(run))
    edge(before, here, "acts in")
    links: dict[int, int] = {}
    around = [(number, link) for number, link in enumerate(run.links) if link.relation != "child"]
    for number, link in around[:MOST_LINKS]:
        links[number] = node(
            kind="link", heading=_RELATIONS[link.relation], activity_type=link.workflow_type or "", link=number,
            tone="notice", workflow_id=link.workflow_id, run_id=link.run_id or "", side=_SIDES[link.relation],
        )  # fmt: skip
        after = link.relation == "continued by"
        edge(*((here, links[number]) if after else (links[number], here)))
    last = here
    for each in drawn:
        step = node(
            kind=each.kind, heading=_heading(each), activity_type=each.name, label=each.label, tone=each.tone,
            first=each.first, last=each.last, times=each.times, link=each.link,
        )  # fmt: skip
        edge(last, step)
        last = step
    total = sum(each.times for each in steps)
    return {
        "nodes": nodes,
        "edges": edges,
        "steps": total,
        "drawn": len(drawn),
        "words": _words(total, len(steps), len(drawn)),
    }


_EMPTY: dict[str, Any] = dict.fromkeys(
    ("activity_type", "who", "workflow_id", "run_id", "label", "times", "first", "last", "link", "side")
)
"""What a node of another kind has."""
_RELATIONS = {
    "parent": "Started by",
    "continues": "Continues",
    "continued by": "Goes on as",
    "reset of": "Reset of",
}
_SIDES = {"parent": "before", "continues": "before", "reset of": "before", "continued by": "after"}


def _alike(before: Step, step: Step) -> bool:
    return (before.kind, before.name, before.label, before.tone, before.link) == (
        step.kind, step.name, step.label, step.tone, step.link,
    )  # fmt: skip


def _joined(steps: Sequence[Step], *, calm: bool, groups: int) -> list[Step]:
    """Neighbours together, so that about so many are left."""
    candidates = sum(1 for each in steps if not calm or each.tone in _CALM)
    size = max(2, -(-candidates // max(groups, 1)))
    made: list[list[Step]] = []
    for step in steps:
        apart = calm and step.tone not in _CALM
        last = made[-1] if made else None
        mixable = last is not None and len(last) < size and not (calm and last[-1].tone not in _CALM)
        if last is not None and mixable and not apart:
            last.append(step)
        else:
            made.append([step])
    return [each[0] if len(each) == 1 else _mixed(each) for each in made]


def _mixed(steps: Sequence[Step]) -> Step:
    total = sum(each.times for each in steps)
    names = Counter()  # type: Counter[str]
    tones = [each.tone for each in steps]
    for each in steps:
        names[each.name] += each.times
    shown = ", ".join(f"{name} {times:,} times" for name, times in names.most_common(3))
    more = f" and {count(len(names) - 3, 'other type')}" if len(names) > 3 else ""
    worst = next((tone for tone in ("violation", "unchecked", "unproven", "notice") if tone in tones), "good")
    bad = sum(each.times for each in steps if each.tone not in _CALM)
    label = f"{bad:,} of them need a look" if bad else "nothing denied or refused"
    return Step("mixed", shown + more, label, worst, steps[0].first, steps[-1].last, total)


def _heading(step: Step) -> str:
    where = f"event {step.first}" if step.first == step.last else f"events {step.first} to {step.last}"
    return f"{step.times:,} in a row, {where}" if step.times > 1 and step.kind != "mixed" else (
        f"{step.times:,} steps, {where}" if step.kind == "mixed" else where[:1].upper() + where[1:]
    )  # fmt: skip


def _words(total: int, groups: int, drawn: int) -> str:
    if total == 0:
        return "The run has done nothing that is drawn here."
    if drawn == total:
        return f"{count(total, 'step')}, each drawn."
    if drawn == groups:
        return f"{count(total, 'step')}; what repeats in a row is drawn once."
    return (
        f"{count(total, 'step')}; what repeats in a row is drawn once, and neighbours that need no attention are drawn "
        f"together, so that {drawn} are left. The timeline has all."
    )


def _tone(run: RunReport) -> str:
    return {"verified": "good", "violated": "violation", "unchecked": "unchecked"}[run.verdict.value]
