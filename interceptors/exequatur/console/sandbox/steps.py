"""What a run looks like to its visitor: each step with the gate's decision, made of its history and its journals.

A pure function of what was recorded. Whatever is missing has not happened yet, or was not recorded; what cannot be
read is left out, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.enums.v1 import EventType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent

from exequatur.console.sandbox.application import Planned
from exequatur.errors import StatementError
from exequatur.failures import FAILURE_TYPES
from exequatur.lineage.record import Record
from exequatur.statements.jws import parse
from exequatur.statements.models import Receipt

StepState = Literal[
    "planned", "asked", "running", "done", "denied", "waiting", "agreed", "revoked", "rejected", "failed", "skipped"
]
RunState = Literal["starting", "running", "waiting", "completed", "stopped", "refused"]

_SHOWN = 400
"""Characters of an argument or result that are shown."""
_KEPT_BODY = 1024 * 1024
_ENDED = {
    "AuthorizationDenied": "denied",
    "AuthorizationRevoked": "revoked",
    "AuthorizationChallenge": "waiting",
    "GrantRejected": "rejected",
    "ReceiptRejected": "rejected",
}
_OPEN: frozenset[StepState] = frozenset({"planned", "asked", "running", "waiting"})
_CLOSING = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED: "completed",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED: "stopped",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT: "stopped",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED: "stopped",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED: "stopped",
}


@dataclass(frozen=True)
class Decided:
    """One answer of the gate.

    Args:
        at: Seconds since 1970.
        decision: Cedar's answer; ``none`` when it was refused before Cedar was asked.
        policies: Ids of the policies that decided.
        reason: Why not.
        arguments: Digest of the arguments that it was about.
        bundle: Digest of the policies in force.
        approvers: Who had agreed.
    """

    at: float
    decision: str
    policies: tuple[str, ...]
    reason: str | None
    arguments: str | None
    bundle: str | None
    approvers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Signed:
    """The receipt of an attempt.

    Args:
        worker: Who signed it.
        outcome: What it says came of it.
        result: Digest of the result.
        rechecks: How often the gate asked again while it ran.
        log: Id of the journal, and its place there.
    """

    worker: str
    outcome: str
    result: str | None
    rechecks: int
    log: str | None


@dataclass(frozen=True)
class StepView:
    """One step.

    Args:
        number: From 1.
        activity: Its type.
        title: What it does.
        state: How far it is.
        sentence: That in words.
        arguments: As the history has them.
        result: The same.
        decisions: Of the gate, in their order.
        receipts: In their order.
    """

    number: int
    activity: str
    title: str
    state: StepState
    sentence: str
    arguments: str | None = None
    result: str | None = None
    decisions: tuple[Decided, ...] = ()
    receipts: tuple[Signed, ...] = ()


@dataclass(frozen=True)
class RunView:
    """A run.

    Args:
        state: How far it is.
        sentence: That in words.
        start: What the authority decided about its grant.
        steps: In their order.
        events: How many its history has.
    """

    state: RunState
    sentence: str
    start: Decided | None
    steps: tuple[StepView, ...]
    events: int


def view_of(
    planned: Planned,
    workflow_id: str,
    events: Sequence[HistoryEvent],
    records: Iterable[Record],
    refused: str | None = None,
    lost: bool = False,
) -> RunView:
    """What can be said of a run.

    Args:
        planned: What it was to do.
        workflow_id: Its id.
        events: Its history so far.
        records: Of the journals, in the order of time.
        refused: Why it was not started, if it was not.
        lost: Whether its end is no longer awaited.
    """
    told = _Told.of(workflow_id, records)
    attempts = _attempts(events)
    closing = next((each for each in reversed(events) if each.event_type in _CLOSING), None)
    over = closing is not None or refused is not None or lost
    steps: list[StepView] = []
    for number, step in enumerate(planned.steps, 1):
        mine = [each for each in attempts if each.step == number]
        if mine:
            steps.append(_step(number, step.activity, step.title, mine, told))
        else:
            state: StepState = "skipped" if over else "planned"
            sentence = "Not reached" if over else "Not asked for yet"
            steps.append(StepView(number, step.activity, step.title, state, sentence))
    if closing is not None or lost:
        # Whoever ended the run from outside has left its step as it was.
        steps = [_left(each) if each.state in _OPEN else each for each in steps]
    if closing is None and lost:
        return RunView(
            "stopped", "The Temporal server has not told how it ended.", told.start, tuple(steps), len(events)
        )
    state_of_run, sentence = _state(events, closing, steps, refused)
    return RunView(state_of_run, sentence, told.start, tuple(steps), len(events))


@dataclass
class _Attempt:
    """One request for a step, from the history."""

    step: int
    activity_id: str
    arguments: str | None
    result: str | None = None
    ended: str | None = None
    message: str | None = None


def _attempts(events: Sequence[HistoryEvent]) -> list[_Attempt]:
    """What was asked for, in order. A request that people had to be asked about is made again for the same step."""
    found: dict[int, _Attempt] = {}
    step = 0
    for event in events:
        if event.HasField("activity_task_scheduled_event_attributes"):
            asked = event.activity_task_scheduled_event_attributes
            if not found or list(found.values())[-1].ended != "AuthorizationChallenge":
                step += 1
            found[event.event_id] = _Attempt(step, asked.activity_id, _shown(asked.input))
        elif event.HasField("activity_task_completed_event_attributes"):
            done = event.activity_task_completed_event_attributes
            if (attempt := found.get(done.scheduled_event_id)) is not None:
                attempt.ended, attempt.result = "completed", _shown(done.result)
        elif event.HasField("activity_task_failed_event_attributes"):
            failed = event.activity_task_failed_event_attributes
            if (attempt := found.get(failed.scheduled_event_id)) is not None:
                attempt.ended, attempt.message = _cause(failed.failure)
        elif event.HasField("activity_task_timed_out_event_attributes"):
            late = event.activity_task_timed_out_event_attributes
            if (attempt := found.get(late.scheduled_event_id)) is not None:
                attempt.ended, attempt.message = "timed out", "It took too long"
        elif event.HasField("activity_task_canceled_event_attributes"):
            gone = event.activity_task_canceled_event_attributes
            if (attempt := found.get(gone.scheduled_event_id)) is not None:
                attempt.ended, attempt.message = "cancelled", "It was cancelled"
    return list(found.values())


def _step(number: int, activity: str, title: str, attempts: list[_Attempt], told: _Told) -> StepView:
    last = attempts[-1]
    decisions = tuple(each for one in attempts for each in told.decisions.get(one.activity_id, ()))
    receipts = tuple(each for one in attempts for each in told.receipts.get(one.activity_id, ()))
    mine = told.decisions.get(last.activity_id, ())
    state, sentence = _judged(last, mine[-1] if mine else None)
    return StepView(number, activity, title, state, sentence, last.arguments, last.result, decisions, receipts)


def _judged(attempt: _Attempt, decided: Decided | None) -> tuple[StepState, str]:
    if attempt.ended is None:
        if decided is None:
            return "asked", "The gate is being asked"
        if decided.decision == "allow":
            return "running", "Allowed, and running"
        return "asked", "Refused"
    if attempt.ended == "completed":
        return "done", "Allowed, and done"
    state: Any = _ENDED.get(attempt.ended, "failed")
    message = attempt.message or "It failed"
    if state == "waiting":
        return "waiting", "Not yet: people have to agree"
    if state == "failed" and attempt.ended in FAILURE_TYPES:
        state = "denied"
    if state == "failed" and decided is not None and decided.decision == "allow":
        message = f"Allowed, but it could not be done: {message}"
    return state, message


def _left(step: StepView) -> StepView:
    waited = step.state == "waiting"
    return StepView(
        **{
            **{name: getattr(step, name) for name in StepView.__dataclass_fields__},
            "state": "skipped" if step.state == "planned" else "failed",
            "sentence": "The run ended while it waited" if waited else "The run ended before it did",
        }
    )


def _state(
    events: Sequence[HistoryEvent], closing: HistoryEvent | None, steps: Sequence[StepView], refused: str | None
) -> tuple[RunState, str]:
    if refused is not None:
        return "refused", refused
    if closing is None:
        if any(each.state == "waiting" for each in steps):
            return "waiting", "It waits until somebody agrees."
        return ("running", "It runs.") if events else ("starting", "It is being started.")
    state: Any = _CLOSING[closing.event_type]
    if state == "completed":
        return "completed", "Every step was allowed, and is done."
    if closing.HasField("workflow_execution_timed_out_event_attributes"):
        return "stopped", "It took longer than a run of this demo may, so the server ended it."
    if closing.HasField("workflow_execution_terminated_event_attributes"):
        return "stopped", "It was ended from outside."
    number = next((each.number for each in steps if each.state in ("denied", "revoked", "rejected", "failed")), None)
    if number is None:
        return "stopped", _cause(closing.workflow_execution_failed_event_attributes.failure)[1]
    return "stopped", f"Step {number} did not pass, so the run ended there."


@dataclass
class _Told:
    """What the journals tell of one workflow."""

    start: Decided | None
    decisions: dict[str, tuple[Decided, ...]]
    receipts: dict[str, tuple[Signed, ...]]

    @classmethod
    def of(cls, workflow_id: str, records: Iterable[Record]) -> _Told:
        told = cls(None, {}, {})
        requests: dict[str, str] = {}
        for record in records:
            if len(record.body) > _KEPT_BODY:
                continue
            if record.kind == "receipt":
                told._receipt(record, requests)
                continue
            if record.kind not in ("decision", "authority"):
                continue
            body = _object(record.body)
            if body.get("workflow_id") != workflow_id:
                continue
            if record.kind == "authority":
                if body.get("action") == "workflow.start":
                    told.start = _decided(record, body)
                continue
            activity_id, request = str(body.get("activity_id")), str(body.get("request"))
            requests[f"{request} {body.get('run_id')}"] = activity_id
            told.decisions[activity_id] = (*told.decisions.get(activity_id, ()), _decided(record, body))
        return told

    def _receipt(self, record: Record, requests: Mapping[str, str]) -> None:
        try:
            claims = parse(record.body.decode().partition("~")[0], Receipt).claims
        except (StatementError, UnicodeDecodeError):
            return
        activity_id = requests.get(f"{claims.request} {claims.run_id}")
        if activity_id is None:
            return  # of another run
        log = None if claims.log is None else f"{claims.log.id}, record {claims.log.index}"
        signed = Signed(claims.iss, str(claims.outcome), claims.result, claims.rechecks, log)
        self.receipts[activity_id] = (*self.receipts.get(activity_id, ()), signed)


def _decided(record: Record, body: Mapping[str, Any]) -> Decided:
    policies = body.get("policies")
    approvals = _object(str(body.get("facts") or "").encode()).get("approvals")
    approvers = approvals.get("approvers") if isinstance(approvals, dict) else None
    return Decided(
        record.at,
        str(body.get("decision")),
        tuple(map(str, policies)) if isinstance(policies, list) else (),
        None if body.get("reason") is None else str(body["reason"]),
        None if body.get("args") is None else str(body["args"]),
        None if body.get("bundle") is None else str(body["bundle"]),
        tuple(map(str, approvers)) if isinstance(approvers, list) else (),
    )


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _cause(failure: Failure) -> tuple[str, str]:
    """Type and message of the innermost failure that has a type."""
    kind, message = "failed", failure.message or "It failed"
    while True:
        if failure.HasField("application_failure_info") and failure.application_failure_info.type:
            kind, message = failure.application_failure_info.type, failure.message
        if not failure.HasField("cause"):
            return kind, message
        failure = failure.cause


def _shown(payloads: Payloads) -> str | None:
    """Payloads as text, where they are JSON."""
    return ", ".join(map(payload_text, payloads.payloads)) or None


def payload_text(payload: Payload, longest: int = _SHOWN) -> str:
    """A payload for a person: its JSON, or how long it is.

    Args:
        payload: From a history.
        longest: Characters after which it is cut.
    """
    if payload.metadata.get("encoding", b"").startswith(b"json/"):
        text = payload.data.decode(errors="replace")
        return text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"
    return "nothing" if payload.metadata.get("encoding") == b"binary/null" else f"{len(payload.data):,} bytes"
