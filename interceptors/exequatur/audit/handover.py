"""What a run hands on: a delegation to each child, and its seal to the run that continues it.

Rules, numbered as the code marks them:

O1  A child is started with what this run stands on then and one delegation more, for just this child: its id, type,
    task queue and input. What restricts this run from its beginning restricts the child.
O2  A run that continues as another hands on its chain and its seal, which names that run's type, task queue and input.
    The seal itself is judged with those of the journals. It hands on what restricted this run from its beginning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from temporalio.api.enums.v1 import ContinueAsNewInitiator
from temporalio.api.history.v1 import HistoryEvent

from exequatur.audit.history import RunHistory
from exequatur.audit.report import Finding, finding
from exequatur.audit.restrictions import narrower, of_authorization
from exequatur.audit.standing import Standing
from exequatur.audit.start import Start
from exequatur.errors import StatementError, UnknownKeyError
from exequatur.gate.wire import payloads_digest, read_start_header
from exequatur.statements.jws import Token, parse, type_of
from exequatur.statements.models import Delegation, Grant, Seal, WorkloadCredential
from exequatur.statements.verification import Credentials, verify_chain

_BY_SERVER = frozenset(
    {
        ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_RETRY,
        ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_CRON_SCHEDULE,
    }
)
"""The server starts such a run with the header of the run before."""


def check_children(history: RunHistory, start: Start, standing: Standing) -> Iterator[Finding]:
    """O1."""
    for event in history.events:
        if event.HasField("start_child_workflow_execution_initiated_event_attributes"):
            asked = event.start_child_workflow_execution_initiated_event_attributes
            try:
                problem = delegation_fault(asked, event.event_id, history, start, standing)
            except UnknownKeyError as error:
                sentence = f"{error}; add the authority's keys to the trust file"
                yield finding("key-unknown", sentence, event_id=event.event_id)
                continue
            except StatementError as error:
                problem = str(error)
            if problem is not None:  # [O1]
                sentence = f"{asked.workflow_type.name} ({asked.workflow_id}): {problem}"
                yield finding("child-undelegated", sentence, event_id=event.event_id)


def delegation_fault(asked: Any, event_id: int, history: RunHistory, start: Start, standing: Standing) -> str | None:
    """What is wrong with the delegation of a run that this one starts, or ``None``.

    Args:
        asked: What the event says of it.
        event_id: Of the event.
        history: The run that starts it.
        start: How that run was started.
        standing: What that run stood on.

    Raises:
        UnknownKeyError: The trust store does not know a key.
        StatementError: It does not verify.
    """
    tokens = read_start_header(asked.header.fields)
    if tokens is None:
        return "it was started without a delegation"
    credentials = Credentials(start.trust)
    for token in tokens:
        if type_of(token) == WorkloadCredential.typ:
            credentials.add(token)
    delegations = [token for token in tokens if type_of(token) == Delegation.typ]
    handed = verify_chain(tokens[0], delegations, credentials, start.trust, aud=None)
    if not handed.delegations:
        return "it was handed no delegation of its own"
    delegation = handed.delegations[-1].claims
    leaf = standing.find(delegation.parent)
    if (
        leaf is None
        or not standing.may(delegation.parent, event_id)
        or delegation.parent_run_id != history.original_run_id
    ):
        return "its delegation is by another run"
    chain = leaf.chain
    if asked.namespace not in ("", chain.namespace):
        return "it was started in another namespace than its delegation is for"
    if len(handed.delegations) != len(chain.delegations) + 1:
        return "it was handed no delegation of its own"
    if start.handed is not None and not narrower(of_authorization(delegation.authorization), start.handed):
        return "its delegation leaves out what the run before restricted this one to"
    named, told = handed.authorization, _told(asked)
    for name, due in told.items():
        if getattr(named, name) != due:
            return f"its delegation is for another {name.replace('_', ' ')}"
    return None


def _told(asked: Any) -> dict[str, str]:
    """What an event says of the run that it starts, by the names that delegations and seals have for it."""
    told = {
        "workflow_type": asked.workflow_type.name,
        "task_queue": asked.task_queue.name,
        "input": payloads_digest(asked.input.payloads),
    }
    if "workflow_id" in asked.DESCRIPTOR.fields_by_name:
        told["workflow_id"] = asked.workflow_id
    return told


def hands_on(event: HistoryEvent) -> bool:
    """Whether the run ends here by continuing as another that its workflow code asked for."""
    if not event.HasField("workflow_execution_continued_as_new_event_attributes"):
        return False
    return event.workflow_execution_continued_as_new_event_attributes.initiator not in _BY_SERVER


def _chain_of(tokens: Sequence[str]) -> list[str]:
    return [token for token in tokens if type_of(token) in (Grant.typ, Delegation.typ)]


def handed_seal(event: HistoryEvent, start: Start, standing: Standing) -> Token[Seal]:
    """The seal that a run hands on when it continues as another; whether it is right is not judged here.

    Raises:
        StatementError: O2, or the header cannot be read.
    """
    asked = event.workflow_execution_continued_as_new_event_attributes
    tokens = read_start_header(asked.header.fields) or []
    seals = [token for token in tokens if type_of(token) == Seal.typ]
    if len(seals) != 1:
        raise StatementError("O2", "The run continued as another and handed on no seal")
    for token in tokens:
        if type_of(token) == WorkloadCredential.typ:
            start.credentials.add(token)
    seal = parse(seals[0], Seal)
    leaf = standing.find(seal.claims.grant)
    if leaf is None or not standing.may(seal.claims.grant, event.event_id) or _chain_of(tokens) != leaf.tokens:
        raise StatementError("O2", "The run handed on another grant or delegation than it stood on")
    following = seal.claims.next
    if start.handed is not None and (following is None or not narrower(following.restriction, start.handed)):
        raise StatementError("O2", "The seal that the run handed on leaves out what the run was restricted to")
    for name, due in _told(asked).items():
        if following is None or getattr(following, name) != due:
            raise StatementError("O2", f"The seal that the run handed on names another {name.replace('_', ' ')}")
    return seal
