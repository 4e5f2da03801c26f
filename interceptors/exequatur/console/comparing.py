"""Two runs side by side: which activities one has that the other has not, and what came out differently.

Pure over two audit reports. The first activity of a type in one run is compared with the first of that type in the
other, the second with the second, and so on: that is told in a sentence, and does not depend on what ran in between.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from exequatur.audit.report import ActivityReport, RunReport
from exequatur.console.graph import state_of


@dataclass(frozen=True)
class Pair:
    """An activity of one run and its counterpart.

    Args:
        activity_type: Of both.
        number: Which of this type, from 1.
        left: Of the first run; ``None`` where it has none.
        right: Of the second.
        differences: What is otherwise, a few words each.
    """

    activity_type: str
    number: int
    left: ActivityReport | None
    right: ActivityReport | None
    differences: tuple[str, ...] = field(default=())

    @property
    def same(self) -> bool:
        return not self.differences


def compared(left: RunReport, right: RunReport) -> list[Pair]:
    """Pair the activities of two runs, in the order of the first; what only the second has stands where it ran."""
    waiting: dict[str, deque[ActivityReport]] = defaultdict(deque)
    for each in right.activities:
        waiting[each.activity_type].append(each)
    counts: Counter[str] = Counter()
    partners: dict[int, Pair] = {}
    ordered: list[Pair] = []
    for each in left.activities:
        counts[each.activity_type] += 1
        queue = waiting[each.activity_type]
        other = queue.popleft() if queue else None
        pair = Pair(each.activity_type, counts[each.activity_type], each, other, tuple(_differences(each, other)))
        ordered.append(pair)
        if other is not None:
            partners[id(other)] = pair
    return _merged(ordered, right, partners, counts)


def _merged(ordered: list[Pair], right: RunReport, partners: dict[int, Pair], counts: Counter[str]) -> list[Pair]:
    """Insert what only the second run has before whatever follows it there."""
    before: dict[int, list[Pair]] = defaultdict(list)
    loose: list[Pair] = []
    for each in right.activities:
        pair = partners.get(id(each))
        if pair is not None:
            before[id(pair)] += loose
            loose = []
            continue
        counts[each.activity_type] += 1
        loose.append(Pair(each.activity_type, counts[each.activity_type], None, each, ("only in the second",)))
    made: list[Pair] = []
    for pair in ordered:
        made += [*before[id(pair)], pair]
    return made + loose


def run_differences(left: RunReport, right: RunReport) -> list[dict[str, Any]]:
    """What the runs themselves differ in: plain data."""
    rows = [
        ("Type", left.workflow_type, right.workflow_type),
        ("On behalf of", left.principal or "nobody", right.principal or "nobody"),
        ("Acting for it", ", ".join(left.actors) or "nobody", ", ".join(right.actors) or "nobody"),
        ("Grant issued by", left.issuer or "nobody", right.issuer or "nobody"),
        ("Enforcement", left.mode or "none", right.mode or "none"),
        ("Outcome", left.outcome, right.outcome),
        ("Verdict of the audit", left.verdict.value, right.verdict.value),
        ("Activities", f"{len(left.activities):,}", f"{len(right.activities):,}"),
        ("Policy bundles", _bundles(left), _bundles(right)),
        ("Delegations", str(len(left.delegations)), str(len(right.delegations))),
        ("Findings", _codes(left), _codes(right)),
    ]
    return [{"heading": name, "one": one, "other": other, "same": one == other} for name, one, other in rows]


def pair_data(pair: Pair) -> dict[str, Any]:
    """A pair as plain data."""
    return {
        "activity_type": pair.activity_type,
        "number": pair.number,
        "same": pair.same,
        "label": "; ".join(pair.differences) or "the same",
        "left": None if pair.left is None else _side(pair.left),
        "right": None if pair.right is None else _side(pair.right),
    }


def _side(activity: ActivityReport) -> dict[str, Any]:
    words, tone = state_of(activity)
    last = activity.decisions[-1] if activity.decisions else None
    return {
        "event": activity.event_id,
        "activity_id": activity.activity_id,
        "label": words,
        "tone": tone,
        "policies": list(last.policies) if last is not None else [],
        "reason": last.reason if last is not None else None,
        "arguments": activity.arguments,
        "attempts": activity.attempts,
    }


def _differences(left: ActivityReport, right: ActivityReport | None) -> Iterator[str]:
    if right is None:
        yield "only in the first"
        return
    one, other = (each.decisions[-1] if each.decisions else None for each in (left, right))
    if state_of(left) != state_of(right):
        yield "another outcome"
    if (one.decision if one else None) != (other.decision if other else None):
        yield "another decision"
    if one is not None and other is not None:
        if one.policies != other.policies:
            yield "decided by other policies"
        if one.bundle != other.bundle:
            yield "another bundle"
        if one.reason != other.reason:
            yield "another reason"
    if left.arguments != right.arguments:
        yield "other arguments"
    if left.attempts != right.attempts:
        yield "another number of attempts"
    if left.approved_by != right.approved_by:
        yield "other approvals"
    if left.proof != right.proof:
        yield "another proof"
    if left.local != right.local:
        yield "local in one of them"


def _bundles(run: RunReport) -> str:
    found = sorted({decided.bundle[:12] for activity in run.activities for decided in activity.decisions})
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "") or "none"


def _codes(run: RunReport) -> str:
    found = sorted({each.code for each in run.findings})
    return ", ".join(found) or "none"
