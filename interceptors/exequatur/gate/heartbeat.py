"""Heartbeat details are input to the next attempt, so they are signed by the attempt that recorded them.

M1  Details in a governed run carry one mark and its credential.
M2  The mark is signed by a worker in the role ``receipt`` for this place (C1 to C7).
M3  It is of the same request, and of an earlier attempt; or of another one that was marked before this one was
    scheduled, which is how it looks after the activity was reset (the gate then asks Cedar, A16).
M4  The details are those whose digest was signed.

A request is named by its ``jti``, and the permit of an activity that no workflow scheduled by its digest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from temporalio.activity import Info
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.converter import PayloadConverter

from exequatur.errors import StatementError
from exequatur.gate.gate import Gate
from exequatur.gate.wire import HEARTBEAT, payloads_digest
from exequatur.statements.jws import parse
from exequatur.statements.models import HeartbeatMark
from exequatur.statements.packing import pack, unpack
from exequatur.statements.trust import TrustStore
from exequatur.statements.verification import Credentials, Scope


def sign_details(
    details: Sequence[Any], gate: Gate, converter: PayloadConverter, *, request: str, run_id: str, attempt: int
) -> Sequence[Any]:
    """Mark heartbeat details; what cannot be converted is left for the SDK to report as it always does."""
    try:
        payloads = list(converter.to_payloads(details))
    except Exception:  # the user's converter may raise anything
        return details
    mark = gate.workload.sign(
        HeartbeatMark(
            iss=gate.workload.id,
            iat=round(gate.clock(), 3),
            request=request,
            run_id=run_id,
            attempt=attempt,
            details=payloads_digest(payloads),
        )
    )
    payloads[0].metadata[HEARTBEAT] = pack([mark.text], [gate.workload.credential.text])
    return [RawValue(payload) for payload in payloads]


def verify_details(
    details: Sequence[Payload], info: Info, trust: TrustStore, *, request: str, site: str, leeway: float
) -> bool:
    """Check the details that an earlier attempt left.

    Args:
        details: What the server gave.
        info: Of the attempt that gets them.
        trust: The anchors.
        request: For which request.
        site: The trust domain and cluster.
        leeway: How far the clocks may differ, in seconds.

    Returns:
        Whether they are of an attempt that comes after this one by its number: the activity was reset.

    Raises:
        StatementError: M1 to M4, and the rules that they rest on.
    """
    packed = details[0].metadata.get(HEARTBEAT)
    if packed is None:
        raise StatementError("M1", "The heartbeat details of the attempt before are not signed")
    tokens = unpack(packed)
    if len(tokens) != 2:
        raise StatementError("M1", "Heartbeat details must come with one credential and one mark")
    credentials = Credentials(trust)
    credentials.add(tokens[0])
    mark = parse(tokens[1], HeartbeatMark)
    scope = Scope(site, info.namespace, info.task_queue, info.activity_type)
    credentials.verify(mark, "receipt", scope)  # [M2]
    claims = mark.claims
    if claims.request != request:
        raise StatementError("M3", "The heartbeat details are of another request")
    later = claims.attempt >= info.attempt
    if later and claims.iat > info.current_attempt_scheduled_time.timestamp() + leeway:
        raise StatementError("M3", "The heartbeat details are of a later attempt")
    if claims.details != payloads_digest(details):
        raise StatementError("M4", "The heartbeat details are not those that were signed")
    return later
