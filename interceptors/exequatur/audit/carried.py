"""The statements that stand with a run's messages and with what it sent elsewhere, for an evidence document.

A permit is sent by a client, which may send what it likes: one that does not verify is left out, and counts for
nothing. What another run's signal carries is that run's chain, and belongs to its document.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from temporalio.api.history.v1 import HistoryEvent

from exequatur.audit.history import RunHistory
from exequatur.audit.messages import messages_of
from exequatur.errors import StatementError
from exequatur.gate.wire import read_message_header, read_nexus_headers
from exequatur.statements.jws import parse, type_of
from exequatur.statements.models import Message, NexusCall, Permit, WorkloadCredential
from exequatur.statements.trust import TrustStore
from exequatur.statements.verification import Chain

_OWN = (Message.typ, NexusCall.typ, WorkloadCredential.typ)


def carried_by(history: RunHistory) -> Iterator[tuple[int, list[str]]]:
    """The event and the statements of each message with a permit, and of each signal and call that the run sent."""
    for sent in messages_of(history):
        with suppress(StatementError):
            tokens = read_message_header(sent.headers) or []
            yield sent.event_id, tokens if [type_of(token) for token in tokens] == [Permit.typ] else []
    for event in history.events:
        with suppress(StatementError):
            yield event.event_id, [token for token in _sent_with(event) if type_of(token) in _OWN]


def _sent_with(event: HistoryEvent) -> list[str]:
    match event.WhichOneof("attributes"):
        case "signal_external_workflow_execution_initiated_event_attributes":
            asked = event.signal_external_workflow_execution_initiated_event_attributes
            return read_message_header(asked.header.fields) or []
        case "nexus_operation_scheduled_event_attributes":
            called = event.nexus_operation_scheduled_event_attributes
            return read_nexus_headers(dict(called.nexus_header)) or []
        case _:
            return []


def count_permits(texts: Iterable[str], chain: Chain, workflow_id: str, trust: TrustStore) -> int:
    """How many permits an authority has signed for messages to this workflow."""
    count = 0
    for text in texts:
        with suppress(StatementError):
            permit = parse(text, Permit)
            claims = permit.claims
            trust.verify(permit)
            count += (claims.aud, claims.target) == (chain.grant.claims.aud, workflow_id)
    return count
