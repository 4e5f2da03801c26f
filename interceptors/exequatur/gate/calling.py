"""A governed run calls a Nexus operation: what goes along says who asks, and for what.

Runs inside the workflow sandbox, and only when the workflow is not replaying: nothing of it is computed again. A
handler's gate verifies it (:mod:`exequatur.statements.nexus`). Nexus headers are strings that no payload codec encodes;
whoever can read the history or the wire can read the statements.
"""

from __future__ import annotations

import secrets
from typing import Any

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.worker import StartNexusOperationInput

from exequatur.gate.run import GovernedRun
from exequatur.gate.wire import nexus_headers, payloads_digest
from exequatur.statements.models import NexusCall, Restriction

_LASTS = 3600.0
"""Seconds, where nothing that verifies says it; the handler refuses such a call."""


def call_headers(
    run: GovernedRun, input: StartNexusOperationInput[Any, Any], payload: Payload, restriction: Restriction | None
) -> dict[str, str]:
    """The operation's headers with the run's chain and a statement about this one call.

    Args:
        run: Who calls.
        input: As the run's code asks for it.
        payload: The operation's input.
        restriction: What the run asks to be held to.
    """
    workload, info = run.ready(), run.info
    now = workflow.time()
    ends = now + _LASTS if run.chain is None else run.chain.expires
    if input.schedule_to_close_timeout is not None:
        ends = min(ends, now + input.schedule_to_close_timeout.total_seconds())
    credential = workload.credential.text
    try:
        call = workload.sign(
            NexusCall(
                iss=workload.id,
                iat=round(now, 3),
                exp=round(max(ends, 0.0), 3),
                # Two calls that are the same in everything else are still two.
                jti=secrets.token_urlsafe(12),
                grant=run.leaf,
                namespace=info.namespace,
                workflow_id=info.workflow_id,
                workflow_type=info.workflow_type,
                original_run_id=info.original_execution_run_id,
                run_id=info.run_id,
                first_run_id=info.first_execution_run_id,
                endpoint=input.endpoint,
                service=input.service,
                operation=input.operation_name,
                args=payloads_digest([payload]),
                restriction=restriction,
                start_fault=run.start_fault,
            )
        ).text
    except ValueError:
        # Names that no statement can hold: it is said in the statement's place, and the handler refuses it.
        return nexus_headers(input.headers or {}, [])
    return nexus_headers(input.headers or {}, [call], list(dict.fromkeys([*run.tokens, credential])))
