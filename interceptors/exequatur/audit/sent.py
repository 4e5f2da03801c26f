"""What a run sent elsewhere: signals to other workflows, Nexus operations, and starts with a signal.

Rules, numbered as the code marks them (M are those of :mod:`exequatur.statements.messages`, N those of
:mod:`exequatur.statements.nexus`):

U1  A signal to another workflow carries the run's chain and a message that verifies for exactly this signal (M11 to
    M21), made by the run that was going on. A message that Cedar denied is sent, too, and the receiver drops it.
U2  A Nexus operation carries the run's chain and a call that verifies for exactly this operation (N21 to N28), made by
    the run that was going on. Where the statements do not fit or the run was not entitled to the call, the handler
    refuses it.
U3  A start with a signal carries both, a delegation for the run that is started and a message for the signal.
U4  Each of these statements was sent once.

Runs with a grant of version 1 are left out: workers that know no other sent nothing along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import SignalWithStartWorkflowExecutionRequest

from exequatur.audit.activities import seconds
from exequatur.audit.handover import delegation_fault
from exequatur.audit.history import RunHistory
from exequatur.audit.report import Finding, SentReport, finding
from exequatur.audit.standing import Standing
from exequatur.audit.start import LEEWAY, Start
from exequatur.errors import StatementError, UnknownKeyError
from exequatur.gate.wire import payloads_digest, read_message_header, read_nexus_headers
from exequatur.statements.encoding import digest
from exequatur.statements.jws import Token, parse
from exequatur.statements.messages import Arrived, verify_message
from exequatur.statements.models import Message, NexusCall
from exequatur.statements.nexus import Called, Operation, Origin, check_times, verify_operation
from exequatur.statements.nexus import Start as CallStart
from exequatur.statements.verification import Chain

_LONGEST = 1000
"""Characters of a name that a statement holds; a signal with a longer one goes without, and is dropped."""
_SYSTEM = "__temporal_system"
"""The endpoint of operations that the server itself handles."""
_REFUSED = ("H2", "N29", "N30", "N31")
"""What is wrong with a call that the handler then refuses, and nobody need have changed."""
_DROPPED = ("M21", "M22")
"""The same of a message, whose signature is verified before: its sender's grant had ended, or Cedar denied it."""


@dataclass
class Sent:
    """What a run sent.

    Args:
        reports: In the order of the history.
        findings: What is wrong.
        messages: Verified messages, with the event that sent them.
        calls: Verified Nexus calls by the digest of their token.
    """

    reports: list[SentReport] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    messages: list[tuple[Token[Message], int]] = field(default_factory=list)
    calls: dict[str, Called] = field(default_factory=dict)


def sent_by(history: RunHistory, start: Start, chain: Chain, standing: Standing) -> Sent:
    """Verify everything that a governed run sent elsewhere. Never raises."""
    return _Sending(history, start, chain, standing).all()


class _Sending:
    def __init__(self, history: RunHistory, start: Start, chain: Chain, standing: Standing) -> None:
        self._history, self._start, self._chain, self._standing = history, start, chain, standing
        self._found = Sent()
        self._statements: set[str] = set()
        """Digests of those that were sent."""

    def all(self) -> Sent:
        if self._chain.grant.claims.ver >= 2:
            for event in self._history.events:
                match event.WhichOneof("attributes"):
                    case "signal_external_workflow_execution_initiated_event_attributes":
                        self._signal(event)
                    case "nexus_operation_scheduled_event_attributes":
                        asked = event.nexus_operation_scheduled_event_attributes
                        if asked.endpoint == _SYSTEM:
                            self._start_with_signal(event)
                        else:
                            self._call(event)
                    case _:
                        pass
        return self._found

    def _check(self, event: HistoryEvent, kind: str, what: str, code: str, check: Callable[[], str | None]) -> None:
        """Run a check and report on it; what it gives is why the other side refuses it."""
        refused: str | None = None
        proven = False
        try:
            refused = check()
            proven = True
        except UnknownKeyError as error:
            self._wrong("key-unknown", f"{what}: {error}; add the authority's keys to the trust file", event)
        except StatementError as error:
            refused = str(error)
            self._wrong(code, f"{what}: {error}", event)
        if proven and refused is not None:
            self._wrong("sent-refused", f"{what}: {refused}", event)
        self._found.reports.append(
            SentReport(event_id=event.event_id, kind=kind, what=what, at=seconds(event), refused=refused, proven=proven)  # type: ignore[arg-type]
        )

    def _wrong(self, code: str, sentence: str, event: HistoryEvent) -> None:
        self._found.findings.append(finding(code, sentence, event_id=event.event_id))

    def _signal(self, event: HistoryEvent) -> None:
        """U1."""
        asked = event.signal_external_workflow_execution_initiated_event_attributes
        target = asked.workflow_execution
        what = f"signal {asked.signal_name[:100]} to {target.workflow_id[:200]}"

        def check() -> str | None:
            run_id = target.run_id or None
            return self._message(event, asked.header.fields, target.workflow_id, run_id, asked.signal_name, asked.input)

        self._check(event, "signal", what, "signal-unsigned", check)

    def _message(
        self, event: HistoryEvent, headers: Any, target: str, run_id: str | None, name: str, given: Any
    ) -> str | None:
        """Verify the message of a signal; gives why the receiver drops it.

        Raises:
            StatementError: U1.
        """
        tokens = read_message_header(headers)
        if not tokens:
            if max(len(name), len(target)) > _LONGEST:
                return "no statement can hold its name"
            raise StatementError("U1", "It left without a message of this run")
        refused: str | None = None
        # It had not ended when it left, or the receiver drops it.
        arrived = Arrived("signal", target, name, payloads_digest(given.payloads), 0.0)
        try:
            verify_message(tokens, self._start.trust, aud=self._chain.grant.claims.aud, arrived=arrived)
        except StatementError as error:
            if error.rule not in _DROPPED:
                raise
            refused = error.reason
        token = parse(tokens[-1], Message)  # a permit of somebody else is none
        claims = token.claims
        self._by_this_run(claims, event)
        if claims.target_run_id not in (None, run_id):
            raise StatementError("U1", "Its message is for another run than the one that it was sent to")
        self._once(token.digest)
        self._found.messages.append((token, event.event_id))
        return refused

    def _once(self, statement: str) -> None:
        if statement in self._statements:
            raise StatementError("U4", "Its statement was sent before")
        self._statements.add(statement)

    def _by_this_run(self, claims: Message | NexusCall, event: HistoryEvent) -> None:
        if not self._standing.may(claims.grant, event.event_id):
            raise StatementError("U1", "It stands on another grant than the run")
        named = (claims.workflow_id, claims.original_run_id, claims.run_id)
        history = self._history
        if named != (history.workflow_id, history.original_run_id, history.run_at(event)):
            raise StatementError("U1", "It was made by another run")

    def _call(self, event: HistoryEvent) -> None:
        """U2."""
        asked = event.nexus_operation_scheduled_event_attributes
        what = f"{asked.service[:100]}/{asked.operation[:100]} at {asked.endpoint[:100]}"

        def check() -> str | None:
            chain = self._chain
            origin = Origin(chain.namespace, self._history.workflow_id, None, self._history.run_at(event))
            begun = CallStart(payloads_digest([asked.input] if asked.HasField("input") else []), (origin,))
            operation = Operation(asked.endpoint, asked.service, asked.operation, begun)
            try:
                tokens = read_nexus_headers(dict(asked.nexus_header))
                if tokens is None:
                    raise StatementError("U2", "It was called without a statement of this run")
                called = verify_operation(
                    tokens, operation, self._start.trust, site=chain.site, max_depth=_LONGEST
                )  # [U2]
                call = called.statement.claims
                if not isinstance(call, NexusCall):
                    raise StatementError("U2", "It was called with a permit, which no run has")
                self._by_this_run(call, event)
                if call.first_run_id != self._history.started.first_execution_run_id:
                    raise StatementError("U2", "It was made by another execution of the workflow")
                self._once(call_digest := digest(tokens[-1]))
                self._found.calls[call_digest] = called
                check_times(called, seconds(event), LEEWAY, starts=True)
            except StatementError as error:
                if error.rule not in _REFUSED or isinstance(error, UnknownKeyError):
                    raise
                return error.reason
            return None

        self._check(event, "nexus", what, "call-unsigned", check)

    def _start_with_signal(self, event: HistoryEvent) -> None:
        """U3."""
        given = event.nexus_operation_scheduled_event_attributes.input
        try:
            request = SignalWithStartWorkflowExecutionRequest.FromString(given.data)
        except DecodeError:
            request = SignalWithStartWorkflowExecutionRequest()
        if not request.workflow_id:
            self._wrong("sent-unknown", "An operation of the server itself has an input that cannot be read", event)
            return
        what = f"signal {request.signal_name[:100]} and start to {request.workflow_id[:200]}"

        def check() -> str | None:
            problem = delegation_fault(request, event.event_id, self._history, self._start, self._standing)
            if problem is not None:
                raise StatementError("U3", problem)
            return self._message(
                event, request.header.fields, request.workflow_id, None, request.signal_name, request.signal_input
            )

        self._check(event, "signal-with-start", what, "signal-unsigned", check)
