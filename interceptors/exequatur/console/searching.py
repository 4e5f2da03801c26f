"""Visibility queries, made of what people type.

Rules, numbered as the code marks them:

B1  What somebody typed stands in a query as one string literal, whatever characters it has, or is refused.

The server finds no text with a quotation mark, a backslash or a line break in it, however it is written. It is asked
for what stands before that, and what it finds is compared here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from exequatur.console.errors import ProblemError

STATUSES = ("Running", "Completed", "Failed", "Canceled", "Terminated", "ContinuedAsNew", "TimedOut")
LONGEST = 1000
"""Characters of an id or a type; Temporal takes no longer ones."""

_UNFOUND = re.compile(r'["\\\r\n]')


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

    def query(self) -> str:
        """The visibility query.

        Raises:
            ProblemError: Something that was typed cannot stand in one.
        """
        return " AND ".join(self._clauses())

    def takes(self, workflow_id: str) -> bool:
        """Whether a workflow id is one that is searched for."""
        return workflow_id.startswith(self.workflow_id)

    def _clauses(self) -> Iterator[str]:
        beginning = _UNFOUND.split(self.workflow_id)[0]
        if literal(self.workflow_id) and beginning:
            yield f"WorkflowId STARTS_WITH {literal(beginning)}"
        if self.workflow_type:
            yield f"WorkflowType = {literal(self.workflow_type)}"
        if self.status:
            if self.status not in STATUSES:
                raise _refused("There is no such status")
            yield f"ExecutionStatus = {literal(self.status)}"
        if self.since:
            yield f"StartTime >= {literal(_time(self.since))}"


def literal(text: str) -> str:
    """A text as a string literal of a query (B1).

    Raises:
        ProblemError: It is too long, or has characters that no id has.
    """
    if len(text) > LONGEST:
        raise _refused(f"It is longer than {LONGEST:,} characters")
    if "\0" in text or any("\ud800" <= each <= "\udfff" for each in text):
        raise _refused("It has characters that no name has")
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"  # B1


def _time(text: str) -> str:
    try:
        found = datetime.fromisoformat(text)
        found = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _refused("That is no time; write it as 2026-01-31 or 2026-01-31T12:00") from None
    return found.isoformat(timespec="seconds").replace("+00:00", "Z")


def _refused(why: str) -> ProblemError:
    return ProblemError(400, "That cannot be searched for", why + ".", "Change what is searched for.")
