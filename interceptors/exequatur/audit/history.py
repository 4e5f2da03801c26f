"""A workflow history as an auditor gets it: read strictly, and checked for being one history.

Rules, numbered as the code marks them:

H1  The input is bounded, well-formed JSON of a History message (proto3 JSON, or the CLI's and UI's older form).
H2  A field that this version of the API does not know is an error: what it says could not be checked.
H3  Events are numbered from 1 without a gap, the first starts the workflow, and what closes it is the last.
H4  An event's type is that of its attributes.
H5  What an event says that it follows exists, is of the right kind, and is neither begun nor ended twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.unknown_fields import UnknownFieldSet
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import History, HistoryEvent, WorkflowExecutionStartedEventAttributes
from temporalio.client._helpers import _fix_history_enum, _fix_history_failure

from exequatur.audit.report import Finding, finding
from exequatur.errors import EvidenceError
from exequatur.statements.encoding import strict_json

MAX_BYTES = 256 * 1024 * 1024
"""Temporal ends a history at 50 MB; as JSON, with base64 payloads, that is less than 200 MB."""
MAX_VALUES = 10_000_000
"""Of the JSON. Temporal ends a history at 51,200 events, which have some 40 members each; read, a value takes up to a
hundred times its length."""
MAX_DEPTH = 100
"""Of nested messages. Failures with causes are the deepest that real histories have."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_EVENT_TYPES = frozenset(EventType.values())
_CLOSING = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED: "completed",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED: "failed",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT: "timed out",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED: "cancelled",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED: "terminated",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW: "continued as new",
}


@dataclass(frozen=True)
class RunHistory:
    """One run's events.

    Args:
        workflow_id: Its workflow id.
        events: In order.
    """

    workflow_id: str
    events: Sequence[HistoryEvent]

    @property
    def started(self) -> WorkflowExecutionStartedEventAttributes:
        return self.events[0].workflow_execution_started_event_attributes

    @property
    def original_run_id(self) -> str:
        """The run id that survives a reset."""
        return self.started.original_execution_run_id

    @cached_property
    def resets(self) -> tuple[tuple[int, str, str], ...]:
        """Event id, base run and new run of each reset that led to this run."""
        return tuple(
            (event.event_id, failed.base_run_id, failed.new_run_id)
            for event in self.events
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
            and (failed := event.workflow_task_failed_event_attributes).new_run_id
        )

    @property
    def run_id(self) -> str:
        return self.resets[-1][2] if self.resets else self.original_run_id

    def run_at(self, event: HistoryEvent) -> str:
        """The run that was going on when an event was recorded: events before a reset are those of another run."""
        before = [new for event_id, _, new in self.resets if event_id < event.event_id]
        return before[-1] if before else self.original_run_id

    @cached_property
    def run_ids(self) -> frozenset[str]:
        """This run and those that it was reset from, whose events it begins with."""
        ids = {self.original_run_id, *(run for _, base, new in self.resets for run in (base, new))}
        return frozenset(ids - {""})

    @property
    def outcome(self) -> str:
        return _CLOSING.get(self.events[-1].event_type, "open")


def read_history(path: Path) -> RunHistory:
    """Read a history file, as exported by the Temporal CLI or UI, or by the SDK.

    Raises:
        EvidenceError: H1 or H2 does not hold, or the file cannot be read.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise EvidenceError(f"{path}: larger than {MAX_BYTES >> 20} MiB, which no history is")
        data = path.read_bytes()
    except OSError as error:
        raise EvidenceError(f"{path}: {error.strerror or error}; name a readable file") from None
    return history_from_json(data, str(path))


def history_from_json(data: bytes, source: str = "the history") -> RunHistory:
    """Read a history from its JSON form.

    Raises:
        EvidenceError: H1 or H2 does not hold; the code to report it with is ``history-malformed`` or, for H2,
            ``history-unknown-fields``.
    """
    if len(data) > MAX_BYTES:  # [H1]
        raise EvidenceError(f"{source}: larger than {MAX_BYTES >> 20} MiB, which no history is")
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_VALUES:  # [H1]
        raise EvidenceError(f"{source}: not a workflow history: it has more than {MAX_VALUES:,} values")
    try:  # [H1]
        text = data.decode(json.detect_encoding(data))
        document = strict_json(text)
        if _SURROGATE.search(text):
            json.dumps(document, ensure_ascii=False).encode()  # half a pair is no text
    except (ValueError, RecursionError) as error:
        raise EvidenceError(f"{source}: not the JSON of a workflow history: {error}") from None
    events = document.get("events") if isinstance(document, dict) else None
    if not isinstance(events, list) or not events or not all(isinstance(event, dict) for event in events):
        raise EvidenceError(f'{source}: not a workflow history: it has no list of "events"')
    try:
        _modernise(events)
        history = ParseDict(document, History(), max_recursion_depth=MAX_DEPTH)
    except ParseError as error:
        if "no field named" in str(error):  # [H2]
            raise UnknownFieldsError(
                f"{source}: {_short(error)}; audit it with a version that knows this field"
            ) from None
        raise EvidenceError(f"{source}: not a workflow history: {_short(error)}") from None
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        raise EvidenceError(f"{source}: not a workflow history: {_short(error)}") from None
    return of_events(history.events, source=source)


class UnknownFieldsError(EvidenceError):
    """H2."""


def of_events(events: Iterable[HistoryEvent], *, workflow_id: str | None = None, source: str = "it") -> RunHistory:
    """Make a run of events, from a server or a file.

    Args:
        events: In order.
        workflow_id: Where the history does not say, as those of old servers do not.
        source: Names it in errors.

    Raises:
        EvidenceError: There are none, the first does not start a workflow or starts another one, or H2.
    """
    events = tuple(events)
    if not events or not events[0].HasField("workflow_execution_started_event_attributes"):
        raise EvidenceError(f"{source}: not a workflow history: its first event does not start a workflow")
    for event in events:
        if _unknown(event):  # [H2]
            raise UnknownFieldsError(f"{source}: event {event.event_id} has fields that this version does not know")
    started = events[0].workflow_execution_started_event_attributes
    if workflow_id and started.workflow_id not in ("", workflow_id):
        raise EvidenceError(f"{source}: the history of workflow {started.workflow_id}, not of {workflow_id}")
    return RunHistory(workflow_id or started.workflow_id, events)


def check_events(history: RunHistory) -> list[Finding]:
    """H3 to H5."""
    findings = []

    def wrong(event: HistoryEvent, what: str) -> None:
        findings.append(finding("history-events", f"Event {event.event_id} {what}", event_id=event.event_id))

    last = len(history.events)
    by_id: dict[int, HistoryEvent] = {}
    done: dict[tuple[str, int], int] = {}
    for number, event in enumerate(history.events, 1):
        attributes = event.WhichOneof("attributes")
        kind = (attributes or "").removesuffix("_event_attributes").upper()
        name = _name_of(event)
        if event.event_id != number:  # [H3]
            wrong(event, f"stands in place {number}")
        if (event.event_type in _CLOSING) != (number == last) and event.event_type in _CLOSING:  # [H3]
            wrong(event, "closes the run, and more events follow")
        if number > 1 and attributes == "workflow_execution_started_event_attributes":  # [H3]
            wrong(event, "starts the workflow again")
        if name != f"EVENT_TYPE_{kind}":  # [H4]
            wrong(event, f"has the type {name} and the attributes of {kind or 'nothing'}")
        elif attributes:
            for follows, does, earlier in _links(getattr(event, attributes), kind):  # [H5]
                before = by_id.get(earlier)
                if before is None or _name_of(before) != f"EVENT_TYPE_{follows}":
                    wrong(event, f"follows event {earlier}, which is no {follows}")
                elif does and done.setdefault((does, earlier), event.event_id) != event.event_id:
                    wrong(event, f"{does} event {earlier}, as event {done[does, earlier]} does")
        by_id[event.event_id] = event
    return findings


_BEGINS, _ENDS = ("STARTED",), ("COMPLETED", "FAILED", "TIMED_OUT", "CANCELED", "TERMINATED", "FIRED")
_FIRST = {
    "ACTIVITY_TASK": ("scheduled_event_id", "ACTIVITY_TASK_SCHEDULED"),
    "WORKFLOW_TASK": ("scheduled_event_id", "WORKFLOW_TASK_SCHEDULED"),
    "CHILD_WORKFLOW_EXECUTION": ("initiated_event_id", "START_CHILD_WORKFLOW_EXECUTION_INITIATED"),
    "TIMER": ("started_event_id", "TIMER_STARTED"),
}
"""What the events of each kind refer to, and the kind of that."""


def _links(attributes: Any, kind: str) -> Iterable[tuple[str, str | None, int]]:
    """The kinds and ids of the events that this one follows, and what it does to them, which is done once."""
    asked = getattr(attributes, "workflow_task_completed_event_id", 0)
    if asked:
        yield "WORKFLOW_TASK_COMPLETED", None, asked
    for subject, (name, first) in _FIRST.items():
        what = kind.removeprefix(f"{subject}_")
        if what in (*_BEGINS, *_ENDS, "CANCEL_REQUESTED") and kind == f"{subject}_{what}" and kind != first:
            earlier = getattr(attributes, name)
            # The end of a reset's last task follows a task of the run before, which is not in this history.
            if earlier or subject != "WORKFLOW_TASK":
                yield first, "begins" if what in _BEGINS else "ends" if what in _ENDS else None, earlier
            started = getattr(attributes, "started_event_id", 0)
            if started and name != "started_event_id":
                yield f"{subject}_STARTED", "ends", started


def _name_of(event: HistoryEvent) -> str:
    return EventType.Name(event.event_type) if event.event_type in _EVENT_TYPES else str(event.event_type)


def _short(error: Exception) -> str:
    """What is wrong, without all of the path to it and of the value that is."""
    text = str(error)
    return text if len(text) <= 400 else f"{text[:100]} … {text[-300:]}"


def _modernise(events: list[dict[str, Any]]) -> None:
    """Enum values as older exports write them. The SDK's reader does the same, but skips fields that it does not know.

    Raises:
        ValueError: An event is not of the expected shape.
    """
    for event in events:
        for prefix, *path in _OLD_ENUMS:
            _fix_history_enum(prefix, event, *path)
        _fix_history_failure(event, "*", "failure")
        _fix_history_failure(event, "activityTaskStartedEventAttributes", "lastFailure")


_STARTED, _CHILD = "workflowExecutionStartedEventAttributes", "startChildWorkflowExecutionInitiatedEventAttributes"
_OLD_ENUMS = (
    ("EVENT_TYPE", "eventType"),
    ("CONTINUE_AS_NEW_INITIATOR", "*", "initiator"),
    ("RETRY_STATE", "*", "retryState"),
    ("TASK_QUEUE_KIND", "*", "taskQueue", "kind"),
    ("PARENT_CLOSE_POLICY", _CHILD, "parentClosePolicy"),
    ("WORKFLOW_ID_REUSE_POLICY", _CHILD, "workflowIdReusePolicy"),
    ("TIMEOUT_TYPE", "*", "timeoutType"),
    ("WORKFLOW_TASK_FAILED_CAUSE", "workflowTaskFailedEventAttributes", "cause"),
)


def _unknown(message: Any) -> bool:
    """Whether a message, or one inside it, has fields that are not in its descriptor."""
    if len(UnknownFieldSet(message)):
        return True
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        if descriptor.message_type.GetOptions().map_entry:
            if descriptor.message_type.fields_by_name["value"].message_type and any(map(_unknown, value.values())):
                return True
        elif descriptor.is_repeated:
            if any(map(_unknown, value)):
                return True
        elif _unknown(value):
            return True
    return False
