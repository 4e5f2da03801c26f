"""What a run and those under it are held to on its own wish (:mod:`exequatur.workflow`).

Runs inside the workflow sandbox; only on recorded bytes and on what workflow code says. Rules, numbered as the code
marks them:

W11  Restrictions add up: each narrows what the ones around it leave, and none takes another's place.
X5  A restriction that no statement can hold lets nothing be asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from exequatur.failures import GrantRejected
from exequatur.statements.models import MAX_RESTRICTION_BYTES, Restriction, WorkflowAuthorization
from exequatur.statements.verification import narrowed
from exequatur.workflow import Restricted

_MAX_FORBIDS = 16


def wanted(held: Restriction | None, inside: Iterable[Restricted]) -> Restriction | None:
    """What a request says of it.

    Args:
        held: What the run is held to from its beginning.
        inside: The restrictions of its code, the outermost first.

    Raises:
        GrantRejected: X5.
    """
    total = held
    for each in inside:
        forbid = () if each.forbid is None else (each.forbid,)
        total = _both(total or Restriction(), each.activities, each.until, forbid)  # W11
    return total


def handed_on(leaf: WorkflowAuthorization, restriction: Restriction | None) -> WorkflowAuthorization:
    """What a child may hold of what its parent holds.

    Args:
        leaf: What the parent holds.
        restriction: What the parent asks to be held to.

    Raises:
        GrantRejected: X5.
    """
    if restriction is None:
        return leaf
    own = Restriction(activities=leaf.activities, until=leaf.until, forbid=leaf.forbid)
    total = _both(own, restriction.activities, restriction.until, restriction.forbid)  # W11
    return leaf.model_copy(update={"activities": total.activities, "until": total.until, "forbid": total.forbid})


def _both(
    first: Restriction, activities: tuple[str, ...] | None, until: float | None, forbid: tuple[str, ...]
) -> Restriction:
    if first.activities is not None:
        activities = first.activities if activities is None else narrowed(first.activities, activities)  # W11
    if first.until is not None:
        until = first.until if until is None else min(first.until, until)  # W11
    forbid = tuple(dict.fromkeys([*first.forbid, *forbid]))  # W11
    size = len(json.dumps([activities, forbid], ensure_ascii=False).encode())
    if len(forbid) > _MAX_FORBIDS or size > MAX_RESTRICTION_BYTES:  # [X5]
        raise GrantRejected(
            f"The restrictions in force here have {size} bytes and {len(forbid)} texts of policies, more than "
            f"{MAX_RESTRICTION_BYTES} and {_MAX_FORBIDS}; put fewer in one another"
        )
    return Restriction(activities=activities, until=until, forbid=forbid)
