"""The activities of a history: what was asked for, what came of it, and the statements that stand with both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent

from exequatur.audit.history import RunHistory
from exequatur.failures import FAILURE_TYPES
from exequatur.gate.wire import RECEIPT
from exequatur.statements.encoding import strict_json
from exequatur.statements.models import Receipt

_SURROGATE = re.compile("[\ud800-\udfff]")
LOCAL_MARKER = "core_local_activity"

_ENDS = {
    "activity_task_completed_event_attributes": "completed",
    "activity_task_failed_event_attributes": "failed",
    "activity_task_timed_out_event_attributes": "timed out",
    "activity_task_canceled_event_attributes": "cancelled",
}


@dataclass
class Activity:
    """One activity as the history records it.

    Args:
        event: What scheduled it; of a local activity its marker, which is also its end.
        activity_id: Its id.
        activity_type: Its type.
        task_queue: Where it was to run; that of the workflow for a local activity.
        headers: What came with it; Temporal records none of a local activity.
        input: Its arguments; Temporal records none of a local activity.
        local: Whether it is a local activity.
        attempt: Of the last start that is recorded, from 1; 0 if it was never started.
        started: The event of that start.
        ended: The event of its end.
        outcome: How it ended.
        results: The payload of its result. There is at most one, and a receipt is for all that there are.
        failure: Why it failed.
    """

    event: HistoryEvent
    activity_id: str
    activity_type: str
    task_queue: str
    headers: Mapping[str, Payload] = field(default_factory=dict)
    input: tuple[Payload, ...] = ()
    local: bool = False
    attempt: int = 0
    started: HistoryEvent | None = None
    ended: HistoryEvent | None = None
    outcome: str = "open"
    results: tuple[Payload, ...] = ()
    failure: Failure | None = None

    @property
    def packed_receipt(self) -> bytes | None:
        """The receipt that stands with the result."""
        return self.results[0].metadata.get(RECEIPT) if self.results else None

    @property
    def our_failure(self) -> str | None:
        """The type of the gate's failure that it claims to have failed with."""
        info = self.failure.application_failure_info if self.failure is not None else None
        return info.type if info is not None and info.type in FAILURE_TYPES else None

    @property
    def details(self) -> dict[str, Any]:
        """What the failure holds besides its message, if that is a mapping."""
        payloads = self.failure.application_failure_info.details.payloads if self.failure is not None else ()
        try:
            details = strict_json(payloads[0].data) if payloads else None
        except ValueError:
            return {}
        return details if isinstance(details, dict) else {}

    def denial(self) -> tuple[str, str] | None:
        """The receipt and the credential that the details of a failure of ours hold, if they do."""
        details = self.details
        receipt, credential = (details.get(name) for name in _SIGNED)
        if not isinstance(receipt, str) or not isinstance(credential, str) or len(receipt) > Receipt.max_bytes:
            return None
        return receipt, credential


_SIGNED = ("receipt", "credential")


def activities_of(history: RunHistory) -> list[Activity]:
    """The activities of a run in the order in which they were asked for, or in which local ones ended."""
    found: list[Activity] = []
    by_event: dict[int, Activity] = {}
    for event in history.events:
        match event.WhichOneof("attributes"):
            case "activity_task_scheduled_event_attributes":
                asked = event.activity_task_scheduled_event_attributes
                activity = Activity(
                    event,
                    asked.activity_id,
                    asked.activity_type.name,
                    asked.task_queue.name,
                    asked.header.fields,
                    tuple(asked.input.payloads),
                )
                found.append(activity)
                by_event[event.event_id] = activity
            case "activity_task_started_event_attributes":
                began = event.activity_task_started_event_attributes
                if known := by_event.get(began.scheduled_event_id):
                    known.started, known.attempt = event, began.attempt
            case "marker_recorded_event_attributes":
                marker = event.marker_recorded_event_attributes
                if marker.marker_name == LOCAL_MARKER:
                    found.append(_local(event, history.started.task_queue.name))
            case str(kind) if kind in _ENDS:
                ended: Any = getattr(event, kind)
                if known := by_event.get(ended.scheduled_event_id):
                    _end(known, event, _ENDS[kind], ended)
            case _:
                pass
    return found


def _end(activity: Activity, event: HistoryEvent, outcome: str, attributes: Any) -> None:
    activity.ended, activity.outcome = event, outcome
    if outcome == "completed":
        activity.results = tuple(attributes.result.payloads)
    elif outcome in ("failed", "timed out"):
        activity.failure = attributes.failure


def _local(event: HistoryEvent, task_queue: str) -> Activity:
    marker = event.marker_recorded_event_attributes
    data = marker.details["data"].payloads if "data" in marker.details else ()
    about: Any = None
    if data:
        try:
            about = strict_json(data[0].data)
        except ValueError:
            about = None
    about = about if isinstance(about, dict) else {}
    failed = marker.HasField("failure")
    cancelled = failed and marker.failure.HasField("canceled_failure_info")
    attempt = about.get("attempt")
    return Activity(
        event,
        _text(about.get("activity_id")),
        _text(about.get("activity_type")),
        task_queue,
        local=True,
        attempt=attempt if type(attempt) is int and 0 < attempt < 2**31 else 1,
        started=event,
        ended=event,
        outcome="cancelled" if cancelled else "failed" if failed else "completed",
        results=() if failed or "result" not in marker.details else tuple(marker.details["result"].payloads),
        failure=marker.failure if failed else None,
    )


def _text(value: object) -> str:
    """A name from a marker's JSON, which can spell half a surrogate pair."""
    return value if isinstance(value, str) and not _SURROGATE.search(value) else ""


def seconds(event: HistoryEvent) -> float:
    """When the server says that it happened, in seconds since 1970."""
    return event.event_time.seconds + event.event_time.nanos / 1e9
