"""One row of what was decided: small, and made of a record that may be anything.

A journal is hostile input like every other: what is not as it should be becomes an empty text, never an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from sys import getsizeof
from typing import Any, Literal

from exequatur.errors import ExequaturError
from exequatur.lineage.record import Record
from exequatur.statements.encoding import strict_json
from exequatur.statements.jws import parse
from exequatur.statements.models import Receipt

Kind = Literal["decision", "authority", "nexus", "message", "receipt", "shadow"]
Outcome = Literal["allow", "deny", "none"]

LONGEST = 1000
"""Characters of one text that are kept; Temporal's own ids have as many."""
MOST_POLICIES = 20
MAX_BODY = 1024 * 1024
"""Bytes of a body that is looked into."""
COUNTED: frozenset[str] = frozenset({"decision", "authority", "nexus", "message"})
"""Kinds that are decisions: a receipt follows one, and a candidate's answer is beside one."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided.

    Args:
        number: Its place among all that this console has seen, from 1.
        order: What it is listed by: its time, or when it came here where its clock is ahead; in seconds since 1970.
        at: Seconds since 1970.
        log: Id of the journal.
        index: Position there.
        kind: Of the record.
        principal: On whose behalf, as ``Type::"id"``; empty where nobody is known.
        action: Activity type, or one of the gate's own actions.
        outcome: ``none`` where it was refused before Cedar was asked.
        enforced: Whether a refusal kept it from happening.
        policies: Ids of those that decided.
        reason: Why it was refused.
        bundle: Digest of the policies.
        workflow_id: What it is about.
        run_id: See there.
        activity_id: See there.
        attempt: Of the activity; 0 where there is none.
        shadow: What was decided in force, where this is a candidate's answer; what came of it, where it is a receipt.
    """

    number: int
    at: float
    log: str
    index: int
    kind: Kind
    principal: str
    action: str
    outcome: Outcome
    enforced: bool
    policies: tuple[str, ...]
    reason: str
    bundle: str
    workflow_id: str
    run_id: str
    activity_id: str
    attempt: int
    shadow: str = ""
    order: float = 0.0

    @property
    def size(self) -> int:
        """Bytes that its texts take, about."""
        texts = (self.principal, self.action, self.reason, self.bundle, self.workflow_id, self.run_id, self.activity_id)
        return sum(map(getsizeof, (*texts, *self.policies)))

    def plain(self) -> dict[str, Any]:
        """The same for JSON and templates."""
        return {name: getattr(self, name) for name in self.__slots__} | {"policies": list(self.policies)}


def decision_of(record: Record, number: int) -> Decision | None:
    """Make a row of a record.

    Args:
        record: Of a journal.
        number: Its place.

    Returns:
        ``None`` for a kind that is not shown, and for what cannot be read.
    """
    read = _READERS.get(record.kind)
    if read is None or len(record.body) > MAX_BODY:
        return None
    try:
        said = read(record)
    except (ExequaturError, ValueError, TypeError, RecursionError, AttributeError):
        return None
    policies = said.get("policies")
    attempt = said.get("attempt")
    outcome = said.get("decision")
    return Decision(
        number=number,
        at=record.at,
        log=record.log_id,
        index=record.index,
        kind=record.kind,  # type: ignore[arg-type]
        principal=_text(said.get("principal")),
        action=_text(said.get("action")),
        outcome=outcome if outcome in ("allow", "deny") else "none",
        enforced=said.get("enforced") is not False,
        policies=tuple(_text(each) for each in policies[:MOST_POLICIES]) if isinstance(policies, list) else (),
        reason=_text(said.get("reason")),
        bundle=_text(said.get("bundle")),
        workflow_id=_text(said.get("workflow_id")),
        run_id=_text(said.get("run_id")),
        activity_id=_text(said.get("activity_id")),
        attempt=attempt if isinstance(attempt, int) and 0 <= attempt < 2**31 else 0,
        shadow=_text(said.get("shadow")),
    )


def _text(value: Any) -> str:
    return value[:LONGEST] if isinstance(value, str) else ""


def _body(record: Record) -> dict[str, Any]:
    value = strict_json(record.body)
    return value if isinstance(value, dict) else {}


def _attempt(record: Record) -> dict[str, Any]:
    said = _body(record)
    return {**said, "action": said.get("activity_type"), "reason": said.get("reason") or said.get("fault")}


def _message(record: Record) -> dict[str, Any]:
    said = _body(record)
    return {
        **said,
        "action": f"workflow.{_text(said.get('kind'))} {_text(said.get('name'))}",
        # No policy is asked: a permit is there and good, or not.
        "decision": "allow" if said.get("accepted") is True else "none",
        "principal": said.get("principal") or said.get("sender"),
    }


def _shadow(record: Record) -> dict[str, Any]:
    said = _body(record)
    beside = said.get("enforced")
    return {
        **said,
        "action": said.get("activity_type"),
        "enforced": False,
        "shadow": beside.get("decision") if isinstance(beside, dict) else "",
    }


def _receipt(record: Record) -> dict[str, Any]:
    # Not verified here: the audit does that. What it says is shown as what a worker wrote down.
    said = parse(record.body.decode("ascii"), Receipt).claims
    return {
        "principal": "",
        "action": said.activity_type,
        "decision": said.decision,
        "enforced": said.enforced,
        "policies": list(said.policies),
        "reason": said.reason,
        "bundle": said.bundle,
        "workflow_id": said.workflow_id,
        "run_id": said.run_id,
        "activity_id": said.activity_id,
        "attempt": said.attempt,
        "shadow": said.outcome,
    }


_READERS: dict[str, Callable[[Record], dict[str, Any]]] = {
    "decision": _attempt,
    "authority": _body,
    "nexus": _body,
    "message": _message,
    "shadow": _shadow,
    "receipt": _receipt,
}
