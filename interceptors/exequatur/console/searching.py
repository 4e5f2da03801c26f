"""Visibility queries, made of what people type.

Rules, numbered as the code marks them:

B1  What somebody typed stands in a query as one string literal, whatever characters it has, or is refused.

The server finds no text with a quotation mark, a backslash or a line break in it, however it is written. It is asked
for what stands before that, and what it finds is compared here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from exequatur.console.errors import ProblemError

STATUSES = ("Running", "Completed", "Failed", "Canceled", "Terminated", "ContinuedAsNew", "TimedOut")
LONGEST = 1000
"""Characters of an id or a type; Temporal takes no longer ones."""

_UNFOUND = re.compile(r'["\\\r\n]')
_CLAUSE = 8_000
"""Characters of the ids that one query names."""


class SearchError(ProblemError):
    """Something cannot be searched for.

    Args:
        name: Of the field of the form.
        why: Why not.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(400, "That cannot be searched for", why + ".", "Change what is searched for.")
        self.name = name


@dataclass(frozen=True)
class Search:
    """What runs are searched for; empty texts ask for nothing.

    Args:
        workflow_id: The beginning of the workflow id.
        workflow_type: The type.
        status: One of :data:`STATUSES`.
        since: Started at or after this time, as ``2026-01-31`` or ``2026-01-31T12:00`` in UTC.
    """

    workflow_id: str = ""
    workflow_type: str = ""
    status: str = ""
    since: str = ""

    def query(self, among: Sequence[str] = ()) -> str:
        """The visibility query.

        Args:
            among: Only workflows with these ids, of :func:`parts`, or with beginnings of them; all where it is empty.

        Raises:
            SearchError: Something that was typed cannot stand in one.
        """
        return " AND ".join([*self._clauses(), *_one_of(among)])

    def takes(self, workflow_id: str) -> bool:
        """Whether a workflow id is one that is searched for."""
        return workflow_id.startswith(self.workflow_id)

    def _clauses(self) -> Iterator[str]:
        beginning = _UNFOUND.split(self.workflow_id)[0]
        if literal(self.workflow_id) and beginning:
            yield f"WorkflowId STARTS_WITH {literal(beginning)}"
        if self.workflow_type:
            yield f"WorkflowType = {literal(self.workflow_type, 'type')}"
        if self.status:
            if self.status not in STATUSES:
                raise SearchError("status", f"There is no such status. There are {', '.join(STATUSES)}")
            yield f"ExecutionStatus = {literal(self.status, 'status')}"
        if self.since:
            yield f"StartTime >= {literal(_time(self.since), 'since')}"


def parts(ids: Sequence[str]) -> Iterator[list[str]]:
    """Ids that a query can name, in as many lists as are not too long for one."""
    part: list[str] = []
    for each in ids:
        if not _beginning(each):
            continue
        if part and sum(map(len, part)) + len(each) > _CLAUSE:
            yield part
            part = []
        part.append(each)
    if part:
        yield part


def literal(text: str, name: str = "id") -> str:
    """A text as a string literal of a query (B1).

    Args:
        text: The text.
        name: Of the field of the form that it was typed into.

    Raises:
        SearchError: It is too long, or has characters that no id has.
    """
    if len(text) > LONGEST:
        raise SearchError(name, f"It is longer than {LONGEST:,} characters")
    if not _is_a_name(text):
        raise SearchError(name, "It has characters that no name has")
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"  # B1


def _time(text: str) -> str:
    try:
        found = datetime.fromisoformat(text)
        found = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise SearchError("since", "That is no time; write it as 2026-01-31 or 2026-01-31T12:00") from None
    return found.isoformat(timespec="seconds").replace("+00:00", "Z")


def _is_a_name(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= each <= "\udfff" for each in text)


def _beginning(workflow_id: str) -> str:
    """What of an id a query can name; nothing where it cannot."""
    return _UNFOUND.split(workflow_id)[0] if len(workflow_id) <= LONGEST and _is_a_name(workflow_id) else ""


def _one_of(among: Sequence[str]) -> Iterator[str]:
    if not among:
        return
    whole = [literal(each) for each in among if not _UNFOUND.search(each)]
    either = [f"WorkflowId IN ({', '.join(whole)})"] if whole else []
    either += [f"WorkflowId STARTS_WITH {literal(_beginning(each))}" for each in among if _UNFOUND.search(each)]
    yield f"({' OR '.join(either)})"
