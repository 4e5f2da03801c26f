"""The messages that a run was sent, as its history records them: may each of them reach a handler?

Signals and accepted updates stand in the history with what they came with. The verdict on each is that of
:mod:`exequatur.gate.incoming`, from the same bytes and by the same functions (rules M). Whether the run judged the
same, and in which order, is for :mod:`exequatur.audit.heard`. Queries, and updates that a validator refused, leave no
event.

Rules, numbered as the code marks them:

I1  What is judged is what the history holds: kind, name, arguments and header of a signal or accepted update.
I2  It came when the next workflow task that was completed began; an update, when the task began that accepted it.
I3  Where the grant does not open the message to everybody, its permit, or the message of the run that sent it, verifies
    for exactly this one (M11 to M23, M42), and was not signed for a run before it (M49).
I4  A verdict that nothing repeats from bytes (M46) is the one that the history's markers have.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import HistoryEvent

from exequatur.audit.activities import seconds
from exequatur.audit.history import RunHistory
from exequatur.audit.start import Start
from exequatur.errors import StatementError, UnknownKeyError
from exequatur.gate.incoming import MARKED, MARKER
from exequatur.gate.wire import payloads_digest, read_message_header
from exequatur.statements.approvals import APPROVAL_SIGNAL
from exequatur.statements.encoding import digest
from exequatur.statements.jws import type_of
from exequatur.statements.messages import Admitted, Arrived, meant_for_another_run, verify_message
from exequatur.statements.models import MessageKind, Seal
from exequatur.statements.used import BEFORE
from exequatur.statements.verification import Chain, matches

_PATCH = "core_patch"
_UNREPEATABLE = ("T1", "M23")


@dataclass(frozen=True)
class Sent:
    """A message as the history records it.

    Args:
        event_id: Of its event.
        kind: What it is.
        name: Of the signal or update.
        args: Digest of its arguments' payloads.
        headers: What it came with.
        at: When the server recorded it.
        came: When it reached the run; ``None`` where no workflow task did after it.
        task: The event of that task's start.
    """

    event_id: int
    kind: MessageKind
    name: str
    args: str
    headers: Mapping[str, Payload]
    at: float
    came: float | None
    task: int


@dataclass(frozen=True)
class Judged:
    """The verdict on one message, as far as it depends on that message alone.

    Args:
        sent: The message.
        token: Digest of the last token that it came with.
        admitted: Why it may reach the run; ``None`` where it needs no permit, too.
        problem: Why it may not.
        unknown: A key is not known here, so that there is no verdict.
    """

    sent: Sent
    token: str | None = None
    admitted: Admitted | None = None
    problem: StatementError | None = None
    unknown: bool = False


def messages_of(history: RunHistory) -> list[Sent]:
    """The signals and accepted updates of a run, in the order of the history (I1, I2)."""
    found = []
    later: tuple[int, float] | None = None
    starts = {
        each.event_id: seconds(each)
        for each in history.events
        if each.HasField("workflow_task_started_event_attributes")
    }
    admitted = dict(_admitted(history))
    # Backwards, because a signal is handled in the task that comes after it.
    tasks: list[tuple[int, tuple[int, float]]] = []
    for event in history.events:
        if event.HasField("workflow_task_completed_event_attributes"):
            begun = event.workflow_task_completed_event_attributes.started_event_id
            if begun in starts:
                tasks.append((event.event_id, (begun, starts[begun])))
    at = len(tasks)
    for event in reversed(history.events):
        while at and tasks[at - 1][0] > event.event_id:
            at -= 1
            later = tasks[at][1]
        if event.HasField("workflow_execution_signaled_event_attributes"):
            signal = event.workflow_execution_signaled_event_attributes
            if signal.signal_name != APPROVAL_SIGNAL:  # M48
                found.append(_sent(event, "signal", signal.signal_name, signal.input, signal.header, later))
        elif event.HasField("workflow_execution_update_accepted_event_attributes"):
            accepted = event.workflow_execution_update_accepted_event_attributes
            asked = accepted.accepted_request
            if not asked.HasField("input"):
                asked = admitted.get(accepted.protocol_instance_id, asked)
            given = asked.input
            found.append(_sent(event, "update", given.name, given.args, given.header, tasks[at - 1][1] if at else None))
    return found[::-1]


def _admitted(history: RunHistory) -> Iterator[tuple[str, Any]]:
    """Updates that a reset carried over: they are accepted without being repeated."""
    for event in history.events:
        if event.HasField("workflow_execution_update_admitted_event_attributes"):
            asked = event.workflow_execution_update_admitted_event_attributes.request
            yield asked.meta.update_id, asked


def _sent(
    event: HistoryEvent, kind: MessageKind, name: str, given: Any, header: Any, task: tuple[int, float] | None
) -> Sent:
    return Sent(
        event.event_id,
        kind,
        name,
        payloads_digest(given.payloads),
        dict(header.fields),
        seconds(event),
        None if task is None else task[1],
        0 if task is None else task[0],
    )


def fault_of(history: RunHistory, start: Start, chain: Chain) -> str | None:
    """Why the run takes no messages but open ones (M42)."""
    if not any(type_of(token) == Seal.typ for token in start.tokens):
        return None
    if start.seal is None:
        return "the seal that it came with does not verify"
    first = history.started.attempt <= 1 and chain.authorization.reuse not in ("cron", "schedule")
    if first and start.seal.claims.run_id != history.started.continued_execution_run_id:
        return "the seal that it came with is of another run"
    return None


class Judge:
    """Judges the messages of one run (I3, I4).

    Args:
        history: The run.
        start: How it was started.
        chain: Its verified grant.
        fault: Why it takes no messages (M42).
    """

    def __init__(self, history: RunHistory, start: Start, chain: Chain, fault: str | None) -> None:
        self._history, self._start, self._chain = history, start, chain
        self._fault = fault
        self._markers = frozenset(_markers(history))

    def judge(self, sent: Sent) -> Judged:
        """Judge one message. Never raises."""
        grant = self._chain.grant.claims
        if matches(f"{sent.kind}:{sent.name}", grant.open_messages):  # [I3]
            return Judged(sent)
        token: str | None = None
        try:
            if self._fault is not None:  # [I3]
                raise StatementError("M42", f"The run takes no messages: {self._fault}")
            tokens = read_message_header(sent.headers)
            if not tokens:
                raise StatementError("M11", "It came without a permit; send it with a client that has the plugin")
            token = digest(tokens[-1])
            now = sent.at if sent.came is None else sent.came
            arrived = Arrived(sent.kind, self._history.workflow_id, sent.name, sent.args, now)
            unknown: StatementError | None = None
            admitted: Admitted | None = None
            try:
                admitted = verify_message(tokens, self._start.trust, aud=grant.aud, arrived=arrived)  # [I3]
            except UnknownKeyError as error:
                unknown = error
            if (refused := self._marked(tokens)) is not None:  # [I4]
                return Judged(sent, token, problem=StatementError(refused, "It was refused when it came"))
            if admitted is None:
                return Judged(sent, token, problem=unknown, unknown=True)
            if problem := meant_for_another_run(admitted, *self._history.run_ids):  # [I3]
                raise problem
            if admitted.token.claims.iat < seconds(self._history.events[0]) - BEFORE:  # [I3]
                raise StatementError("M49", "It was sent before the run began")
        except StatementError as error:
            return Judged(sent, token, problem=error)
        return Judged(sent, token, admitted)

    def _marked(self, tokens: list[str]) -> str | None:
        named = digest("~".join(tokens))[:MARKED]
        return next((rule for rule in _UNREPEATABLE if f"{MARKER}-{rule}-{named}" in self._markers), None)


def _markers(history: RunHistory) -> Iterator[str]:
    """The patch ids that the history records."""
    for event in history.events:
        if event.HasField("marker_recorded_event_attributes"):
            marker = event.marker_recorded_event_attributes
            for payloads in marker.details.values() if marker.marker_name == _PATCH else ():
                for payload in payloads.payloads:
                    try:
                        told = json.loads(payload.data)
                    except (ValueError, RecursionError):
                        continue
                    if isinstance(told, dict) and isinstance(told.get("id"), str):
                        yield told["id"]
