"""The runs that belong to one: parents, children, and those before and after it, each with its own audit.

At most :data:`MOST` runs are followed, and that more are left out is said. A run that is elsewhere, or gone, is named
and not followed. Each look begins at most :data:`AT_ONCE` audits, and leaves room for one more of the same viewer.

Rules, numbered as the code marks them:

F1  Of a run that Cedar does not show to the viewer nothing is told but what the run tells that the viewer may see.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from exequatur.audit.report import LinkReport
from exequatur.console.errors import ProblemError, ServerAwayError
from exequatur.console.references import Place
from exequatur.console.runs import Audited, Runs
from exequatur.errors import ExequaturError

MOST = 40
AT_ONCE = 2
_QUICK = 0.2
"""Seconds that a look waits for one audit."""


@dataclass
class Member:
    """A run of the family.

    Args:
        relation: To the run that named it; ``this`` for the one that was asked about.
        of: Position of the run that named it.
        depth: How many steps from the one that was asked about.
        workflow_id: Its workflow id.
        run_id: Its run id.
        workflow_type: Its type, as far as it is known.
        place: Where it can be looked at; ``None`` where it cannot.
        audited: Its audit, once it is there.
        why: Why there is none.
    """

    relation: str
    of: int | None
    depth: int
    workflow_id: str
    run_id: str | None
    workflow_type: str | None = None
    place: Place | None = None
    audited: Audited | None = None
    why: str = ""


@dataclass
class Family:
    """What is known by now.

    Args:
        members: The run that was asked about, then those that it names, and so on.
        pending: Some are being audited.
        left_out: More were named than are followed.
    """

    members: list[Member] = field(default_factory=list)
    pending: bool = False
    left_out: bool = False


async def family_of(
    runs: Runs, first: Audited, namespaces: tuple[str, ...], who: str, seen_by: Callable[[str], Awaitable[bool]]
) -> Family:
    """Follow a run's links as far as audits are there, and begin the next ones.

    Args:
        runs: Audits.
        first: The run that is asked about.
        namespaces: Those that are shown.
        who: Looks.
        seen_by: Whether a workflow may be shown to them.
    """
    family = Family([_member("this", None, 0, first)])
    waiting = deque([0])
    seen = {first.place}
    begun = 0
    while waiting:
        number = waiting.popleft()
        member = family.members[number]
        if member.audited is None or member.place is None:
            continue
        for link in member.audited.run.links:
            place = _place(link, member.place)
            if place in seen:
                continue
            if len(family.members) >= MOST:
                family.left_out = True
                return family
            seen.add(place)
            other = Member(
                link.relation, number, member.depth + 1, link.workflow_id, link.run_id, link.workflow_type, place
            )
            family.members.append(other)
            if place.namespace not in namespaces or not place.run_id:
                other.place, other.why = None, "It is in a namespace that is not shown here."
                continue
            if place.workflow_id != first.place.workflow_id and not await seen_by(place.workflow_id):  # [F1]
                other.place, other.why = None, "The policies do not show it to you."
                continue
            other.audited = runs.kept(place)
            if other.audited is None and begun < AT_ONCE and runs.room(who) > 1:
                begun += 1
                other.audited = await _audit(runs, other, place, who)
            if other.audited is None and not other.why:
                family.pending = True
            waiting.append(len(family.members) - 1)
    return family


async def _audit(runs: Runs, member: Member, place: Place, who: str) -> Audited | None:
    try:
        found = await runs.audited(place.namespace, place.workflow_id, place.run_id, who=who, wait=_QUICK)
    except ServerAwayError as error:
        member.why = error.title
    except ProblemError as error:
        if error.status != 429:
            member.why = error.title
    except ExequaturError as error:
        member.why = str(error)
    else:
        return found if isinstance(found, Audited) else None
    return None


def _place(link: LinkReport, here: Place) -> Place:
    return Place(link.namespace or here.namespace, link.workflow_id, link.run_id or "")


def _member(relation: str, of: int | None, depth: int, audited: Audited) -> Member:
    run, place = audited.run, audited.place
    return Member(relation, of, depth, run.workflow_id, place.run_id, run.workflow_type, place, audited)
